//! Things people send by mistake, or by intent, named so that they can tell which.

use crate::domain::{Code, Failure};

/// The refusal of something recognised but not taken.
pub(super) fn unsupported(what: &str) -> Failure {
    Failure::new(Code::MediaUnsupported, format!("The source is {what}, not a media file."))
}

/// Recognises what is refused by name.
pub(super) fn recognise(head: &[u8]) -> Option<Failure> {
    let what = match head {
        [b'P', b'K', 3 | 5, 4 | 6, ..] => "a ZIP archive",
        [0x1F, 0x8B, ..] => "gzip data",
        [0x28, 0xB5, 0x2F, 0xFD, ..] => "compressed data",
        [b'%', b'P', b'D', b'F', ..] => "a PDF document",
        [b'B', b'Z', b'h', ..]
        | [0xFD, b'7', b'z', b'X', b'Z', ..]
        | [b'7', b'z', 0xBC, 0xAF, ..]
        | [b'R', b'a', b'r', b'!', ..] => "an archive",
        [0x89, b'P', b'N', b'G', ..]
        | [0xFF, 0xD8, 0xFF, ..]
        | [b'B', b'M', ..]
        | [b'I', b'I', b'*', 0, ..]
        | [b'M', b'M', 0, b'*', ..]
        | [b'8', b'B', b'P', b'S', ..]
        | [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "a picture",
        [0x7F, b'E', b'L', b'F', ..] | [b'M', b'Z', ..] => "a program",
        [b'S', b'Q', b'L', b'i', b't', b'e', ..] => "a database",
        _ => return text(head),
    };
    Some(unsupported(what))
}

/// Text of any kind: playlists and manifests name other files or addresses, which flux never follows.
fn text(head: &[u8]) -> Option<Failure> {
    let head = &head[..head.len().min(2048)];
    let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
    let start = head.trim_ascii_start();
    let begins = |word: &[u8]| start.get(..word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word));
    let holds = |word: &[u8]| start.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    let what = if begins(b"#EXTM3U") || begins(b"[playlist]") {
        "a playlist"
    } else if begins(b"ffconcat") {
        "a list of other files"
    } else if begins(b"<svg") || begins(b"<?xml") && holds(b"<svg") {
        "a picture"
    } else if holds(b"<MPD") || holds(b"<SmoothStreamingMedia") || holds(b"<asx") || holds(b"<smil") {
        "a streaming manifest"
    } else if begins(b"<!doctype html") || begins(b"<html") {
        "a web page"
    } else if begins(b"<?xml") || begins(b"<tt") {
        "an XML document"
    } else if begins(b"WEBVTT") || begins(b"[Script Info]") {
        "a subtitle file"
    } else if start.is_empty()
        || head.iter().all(|b| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7E | 0x80..))
    {
        // Real media of any length has control bytes; bytes from 0x80 may be UTF-8.
        std::str::from_utf8(head).or_else(|e| if e.error_len().is_none() { Ok("") } else { Err(e) }).ok()?;
        return Some(Failure::new(Code::MediaCorrupt, "The source is a text file, not media."));
    } else {
        return None;
    };
    Some(unsupported(what))
}

//! Bytes that lie: whatever a rendition or a presentation holds, packaging and linting end, and neither panics.

use std::fs;
use std::path::{Path, PathBuf};

use flux::media::lint::{Folder, lint_all};
use flux::media::package::{Layout, Request, package};

use super::kit::Ladder;
use super::subtitles::Subtitled;

/// The same numbers every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    /// Changes a few bytes, mostly where sizes, times and counts are.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        let kinds: [&[u8; 4]; 9] =
            [b"tfdt", b"trun", b"tfhd", b"elst", b"mdhd", b"sidx", b"moof", b"stsd", b"avcC"];
        for _ in 0..=self.roll(3) {
            let head = bytes.len().min(4096);
            let kind = kinds[self.roll(kinds.len())];
            let known = bytes[..head].windows(4).position(|four| four == kind).filter(|_| self.roll(4) > 0);
            let at = match known {
                Some(at) => at.saturating_sub(4) + self.roll(40),
                None => self.roll(bytes.len()),
            };
            let value = [0, 1, 0x7f, 0x80, 0xff, b'"', b'9'][self.roll(7)];
            let run = [1, 4, 8][self.roll(3)];
            let to = (at + run).min(bytes.len());
            bytes[at.min(to)..to].fill(value);
        }
        if self.roll(20) == 0 {
            bytes.truncate(self.roll(bytes.len()));
        }
    }
}

/// What text files do not expect.
const PIECES: [&[u8]; 24] = [
    b"-->",
    b"\n\n",
    b"\r",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\"",
    b"$",
    b"-1",
    b"0",
    b"18446744073709551615",
    b"99999999:59:59.999",
    b"00:00:00.000 --> 00:00:01.000\n",
    b"WEBVTT\n",
    b"X-TIMESTAMP-MAP=MPEGTS:8589934591,LOCAL:99999999:00:00.000\n",
    b"STYLE\n",
    b"NOTE",
    b"#EXTINF:1e308,\n",
    b"#EXT-X-MEDIA:TYPE=SUBTITLES,URI=\"master.m3u8\"\n",
    b"#EXT-X-BYTERANGE:9223372036854775807@9223372036854775807\n",
    b"<SegmentList duration=\"1\"><SegmentURL mediaRange=\"0-18446744073709551615\"/></SegmentList>",
    b"<SegmentTimeline><S d=\"1\" r=\"-1\"/></SegmentTimeline>",
    b"<AdaptationSet mimeType=\"text/vtt\"><Representation/></AdaptationSet>",
    b"<BaseURL>../</BaseURL>",
];

impl Dice {
    /// Puts pieces into a text, over what is there or between it, mostly behind a digit.
    fn spoil_text(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.roll(3) {
            let mut at = self.roll(bytes.len());
            if self.roll(2) == 0 {
                at += bytes[at..].iter().position(u8::is_ascii_digit).unwrap_or(0);
            }
            let piece = PIECES[self.roll(PIECES.len())];
            let over = if self.roll(2) == 0 { 0 } else { piece.len() };
            let to = (at + over).min(bytes.len());
            bytes.splice(at..to, piece.iter().copied());
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn spoilt_presentations_are_checked_to_the_end() {
    let mut dice = Dice(1);
    for layout in [Layout::Fragments, Layout::SingleFile, Layout::Transport] {
        let ladder = if layout == Layout::Transport { Ladder::transport() } else { Ladder::standard() };
        let folder = tempfile::tempdir().unwrap();
        let done = package(&ladder.request(layout), folder.path()).unwrap();
        let all = files(folder.path());
        let mut found = 0;
        for _ in 0..150 {
            let path = &all[dice.roll(all.len())];
            let whole = fs::read(path).unwrap();
            let mut bytes = whole.clone();
            dice.spoil(&mut bytes);
            fs::write(path, bytes).unwrap();
            let report = lint_all(&mut Folder::new(folder.path()), done.entries());
            found += usize::from(!report.passes());
            fs::write(path, whole).unwrap();
        }
        assert!(found > 30, "{layout:?}: only {found} of 150 were noticed");
    }
}

#[test]
fn spoilt_subtitles_and_manifests_are_checked_to_the_end() {
    let mut dice = Dice(3);
    for layout in [Layout::Fragments, Layout::SingleFile, Layout::Transport] {
        let subtitled = Subtitled::new(layout);
        let folder = subtitled.folder.path();
        let mut all = files(folder);
        let is_text = |path: &Path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            extension.is_some_and(|extension| ["vtt", "m3u8", "mpd"].contains(&extension))
        };
        all.retain(|path| is_text(path));
        let mut found = 0;
        for _ in 0..150 {
            let path = &all[dice.roll(all.len())];
            let whole = fs::read(path).unwrap();
            let mut bytes = whole.clone();
            dice.spoil_text(&mut bytes);
            fs::write(path, bytes).unwrap();
            let report = lint_all(&mut Folder::new(folder), subtitled.entries.iter().map(String::as_str));
            found += usize::from(!report.passes());
            fs::write(path, whole).unwrap();
        }
        assert!(found > 100, "{layout:?}: only {found} of 150 were noticed");
    }
}

#[test]
fn spoilt_renditions_are_packaged_or_refused() {
    let mut dice = Dice(2);
    let folder = tempfile::tempdir().unwrap();
    for layout in [Layout::Fragments, Layout::SingleFile, Layout::Transport] {
        let ladder = if layout == Layout::Transport { Ladder::transport() } else { Ladder::standard() };
        let mut refused = 0;
        for _ in 0..150 {
            let mut request: Request = ladder.request(layout);
            let chosen = dice.roll(request.renditions.len());
            let mut bytes = fs::read(&request.renditions[chosen].file).unwrap();
            dice.spoil(&mut bytes);
            let spoilt = folder.path().join("spoilt");
            fs::write(&spoilt, bytes).unwrap();
            request.renditions[chosen].file = spoilt;
            let out = tempfile::tempdir().unwrap();
            match package(&request, out.path()) {
                Ok(done) => {
                    let _ = lint_all(&mut Folder::new(out.path()), done.entries());
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 5, "{layout:?}: only {refused} of 150 were refused");
    }
}

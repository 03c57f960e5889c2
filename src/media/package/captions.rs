//! Renditions of subtitles: `WebVTT`, in segments for HLS and whole for DASH.

use std::fmt::Write;

use super::cut::{Track, seconds};
use super::write::Out;
use super::{CaptionRendition, Layout, PackageError, Request, hls, names};
use crate::domain::FileRole;
use crate::media::webvtt::{Cue, Document, Moment, TimestampMap};

const CONTENT_TYPE: &str = "text/vtt";

/// The length that segments of text reach before the next begins, seconds. They may differ from those of media (RFC 8216
/// §6.2.4): text is small, and a film with ten languages would have ten times as many files.
const SEGMENT_SECONDS: f64 = 60.0;

/// A rendition and where it was written.
#[derive(Debug)]
pub(super) struct Written<'r> {
    pub(super) rendition: &'r CaptionRendition,
    /// Its playlist, where there are playlists.
    pub(super) playlist: Option<String>,
    /// The file with all of it, where there is an MPD.
    pub(super) whole: Option<String>,
    /// Bits a second of that file.
    pub(super) bandwidth: u64,
}

/// A segment of text, seconds of the film.
struct Span {
    start: f64,
    end: f64,
}

/// Writes all renditions of subtitles.
pub(super) fn write<'r>(
    request: &'r Request,
    tracks: &[Track<'_>],
    out: &mut Out,
) -> Result<Vec<Written<'r>>, PackageError> {
    let Some(leader) = tracks.iter().find(|track| track.is_video()).or(tracks.first()) else {
        return Ok(Vec::new());
    };
    let film = tracks.iter().map(Track::seconds).fold(0.0, f64::max);
    let spans = spans(request.layout, leader, film);
    let map = TimestampMap { local: Moment::default(), mpegts: zero(leader) };
    let mut written = Vec::with_capacity(request.captions.len());
    for (n, rendition) in request.captions.iter().enumerate() {
        let index = request.renditions.len() + n;
        let named = |template: &str, segment| names::filled(template, index, &rendition.name, segment);
        let cues = within(&rendition.cues, 0.0, film);
        let mut one = Written { rendition, playlist: None, whole: None, bandwidth: 0 };
        if request.manifests.hls {
            let own = named(&request.names.playlist, None);
            let mut list = head(&spans);
            for (n, span) in spans.iter().enumerate() {
                let path = named(&request.names.captions, Some(n));
                let cues = cues.iter().filter(|cue| reaches(cue, span)).cloned().collect();
                let document = Document { timestamp_map: Some(map), cues, ..Document::default() };
                out.file(&path, FileRole::Captions, CONTENT_TYPE, document.to_string().as_bytes())?;
                let _ =
                    writeln!(list, "#EXTINF:{:.6},\n{}", span.end - span.start, names::relative(&own, &path));
            }
            list.push_str("#EXT-X-ENDLIST\n");
            out.file(&own, FileRole::Playlist, hls::CONTENT_TYPE, list.as_bytes())?;
            one.playlist = Some(own);
        }
        if request.manifests.dash {
            let path = named(&request.names.captions_whole, None);
            let text = Document { cues, ..Document::default() }.to_string();
            out.file(&path, FileRole::Captions, CONTENT_TYPE, text.as_bytes())?;
            one.bandwidth = bandwidth(text.len(), film);
            one.whole = Some(path);
        }
        written.push(one);
    }
    Ok(written)
}

/// Segments of text begin where segments of the picture do.
fn spans(layout: Layout, leader: &Track<'_>, film: f64) -> Vec<Span> {
    let longest = if layout == Layout::SingleFile { f64::INFINITY } else { SEGMENT_SECONDS };
    let (mut spans, mut ticks) = (Vec::new(), 0);
    let mut start = 0.0;
    for segment in &leader.segments {
        ticks += segment.duration;
        let end = seconds(ticks, leader.timescale);
        if end - start >= longest {
            spans.push(Span { start, end });
            start = end;
        }
    }
    // Sound may end after the picture.
    match spans.last_mut() {
        Some(last) if film - start < 1e-6 => last.end = film,
        _ => spans.push(Span { start, end: film }),
    }
    spans
}

/// When the film begins on MPEG's clock: at 0 in fragmented MP4, whose timeline it is.
fn zero(leader: &Track<'_>) -> u64 {
    let start = leader.segments.first().map_or(0, |segment| segment.start.max(0).unsigned_abs());
    let ticks = u128::from(start) * 90_000 / u128::from(leader.timescale.max(1));
    u64::try_from(ticks).unwrap_or(0)
}

fn head(spans: &[Span]) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "f64 to integer saturates")]
    let target = (spans.iter().map(|span| span.end - span.start).fold(1.0, f64::max)).round() as u32;
    format!(
        "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:{target}\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:VOD\n"
    )
}

/// The part of the cues that lies in the film.
fn within(cues: &[Cue], start: f64, end: f64) -> Vec<Cue> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "f64 to integer saturates")]
    let last = Moment::from_millis((end * 1000.0) as u64);
    let cut = |cue: &Cue| Cue { end: cue.end.min(last), ..cue.clone() };
    let span = Span { start, end };
    cues.iter().filter(|cue| reaches(cue, &span)).map(cut).filter(|cue| cue.start < cue.end).collect()
}

fn reaches(cue: &Cue, span: &Span) -> bool {
    cue.start.seconds() < span.end && cue.end.seconds() > span.start
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "at most 8 MiB; f64 to integer saturates"
)]
fn bandwidth(bytes: usize, film: f64) -> u64 {
    (bytes as f64 * 8.0 / film.max(1.0)).ceil() as u64
}

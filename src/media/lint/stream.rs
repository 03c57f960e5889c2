//! A rendition as a manifest tells it, with what its segments turned out to be.

use std::sync::Arc;

use super::measure::{Facts, Measured};

/// One rendition of a presentation.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    /// Its playlist, or the MPD and the representation's id.
    pub(super) place: String,
    pub(super) manifest: Manifest,
    /// What was claimed of it, once for every time that it was named.
    pub(super) claims: Vec<Claim>,
    pub(super) segments: Vec<Part>,
    /// EXT-X-TARGETDURATION, or the longest segment of an MPD, seconds.
    pub(super) target: u32,
}

/// Which kind of manifest told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manifest {
    Hls,
    Dash,
}

/// A segment and what the manifest says of it.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) place: String,
    /// Seconds.
    pub(super) claimed: f64,
    /// When it begins, as an MPD says, seconds.
    pub(super) begins: Option<f64>,
    /// `None` when it could not be read, which is a finding already.
    pub(super) measured: Option<Arc<Measured>>,
}

/// What a variant or representation claims.
#[derive(Debug, Clone, Default)]
pub(super) struct Claim {
    pub(super) place: String,
    pub(super) codecs: Option<String>,
    pub(super) bandwidth: Option<u64>,
    pub(super) average: Option<u64>,
    pub(super) resolution: Option<String>,
    pub(super) frame_rate: Option<String>,
    pub(super) range: Option<String>,
    /// Streams of sound, by place in the list, of which one plays with it.
    pub(super) sounds: Vec<usize>,
    /// Whether text may be shown with it, whose codec may be named and need not.
    pub(super) has_subtitles: bool,
    /// Whether it is sound itself and one of those.
    pub(super) is_one_of_sounds: bool,
    /// Whether pictures move: a playlist of key frames has no frame rate.
    pub(super) only_key_frames: bool,
}

impl Stream {
    /// Whether it is what people watch or hear, and not only key frames of it.
    pub(super) fn plays(&self) -> bool {
        self.claims.iter().all(|claim| !claim.only_key_frames)
    }

    /// What the media are, by the first segment that could be read.
    pub(super) fn facts(&self) -> Option<&Facts> {
        self.first().map(|measured| &measured.facts)
    }

    pub(super) fn first(&self) -> Option<&Measured> {
        self.segments.iter().find_map(|part| part.measured.as_deref())
    }

    pub(super) fn is_video(&self) -> bool {
        self.facts().is_some_and(|facts| facts.size.is_some())
    }

    pub(super) fn is_whole(&self) -> bool {
        !self.segments.is_empty() && self.segments.iter().all(|part| part.measured.is_some())
    }

    /// Seconds of one picture or frame of sound.
    pub(super) fn frame(&self) -> f64 {
        let measured = self.segments.iter().filter_map(|part| part.measured.as_deref());
        measured.map(|m| seconds(m.frame(), m.timescale)).fold(0.0, f64::max)
    }

    /// Bytes and seconds of each segment, for bit rates.
    pub(super) fn sizes(&self) -> Vec<(u64, f64)> {
        let lengths = self.lengths();
        let parts = self.segments.iter().zip(lengths);
        parts.filter_map(|(part, length)| Some((part.measured.as_ref()?.bytes, length))).collect()
    }

    /// Presented seconds of each segment: to the beginning of the next one, or to its own end. What is presented before
    /// 0 is priming.
    pub(super) fn lengths(&self) -> Vec<f64> {
        let length = |n: usize, part: &Part| {
            let Some(this) = part.measured.as_deref() else { return part.claimed };
            let start = if this.facts.transport { this.start } else { this.start.max(0) };
            let next = self.segments.get(n + 1).and_then(|part| part.measured.as_deref());
            let end = match next {
                Some(next) if next.timescale == this.timescale && next.start > this.start => next.start,
                _ => this.start.saturating_add_unsigned(self.own_duration(this)),
            };
            seconds(u64::try_from(end.saturating_sub(start)).unwrap_or(0), this.timescale)
        };
        self.segments.iter().enumerate().map(|(n, part)| length(n, part)).collect()
    }

    /// Ticks of a segment by itself. In MPEG-TS a picture alone does not say how long it lasts; the others do.
    fn own_duration(&self, this: &Measured) -> u64 {
        if this.facts.transport && this.samples == 1 {
            self.first().map_or(0, Measured::frame)
        } else {
            this.duration
        }
    }

    pub(super) fn duration(&self) -> f64 {
        self.lengths().iter().sum()
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact to far below a microsecond for any film")]
pub(super) fn seconds(ticks: u64, timescale: u32) -> f64 {
    ticks as f64 / f64::from(timescale.max(1))
}

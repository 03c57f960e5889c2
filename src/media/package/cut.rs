//! A rendition after it was cut: what manifests are written from.

use super::{DynamicRange, PictureReport, Rates, Rendition, RenditionReport, rates};
use crate::domain::Rational;
use crate::media::boxes::codec::{Codec, Family};

/// A rendition and where its parts lie.
#[derive(Debug)]
pub(super) struct Track<'r> {
    pub(super) rendition: &'r Rendition,
    /// Place in the request.
    pub(super) index: usize,
    pub(super) facts: Facts,
    /// Ticks a second of all times here.
    pub(super) timescale: u32,
    /// The init segment; MPEG-TS has none.
    pub(super) init: Option<Place>,
    /// The segment index of a single file.
    pub(super) segment_index: Option<Place>,
    pub(super) segments: Vec<Segment>,
}

/// What a rendition is made of.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The picture's first.
    pub(super) codecs: Vec<Codec>,
    pub(super) picture: Option<PictureReport>,
    pub(super) channels: Option<u16>,
    pub(super) sample_rate: Option<u32>,
}

/// Bytes of a file of the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// A media segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) place: Place,
    /// When its first picture or sound is presented, ticks.
    pub(super) start: i64,
    /// Presented ticks.
    pub(super) duration: u64,
    /// Its GOPs; empty for sound.
    pub(super) keys: Vec<Key>,
}

/// The beginning of a GOP, as far as its key frame goes.
#[derive(Debug)]
pub(super) struct Key {
    /// In the segment's file.
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Ticks to the next key frame.
    pub(super) duration: u64,
}

impl Track<'_> {
    pub(super) const fn is_video(&self) -> bool {
        self.facts.picture.is_some()
    }

    pub(super) fn ticks(&self) -> u64 {
        self.segments.iter().map(|segment| segment.duration).sum()
    }

    pub(super) fn seconds(&self) -> f64 {
        seconds(self.ticks(), self.timescale)
    }

    /// Codec strings as HLS lists them.
    pub(super) fn codecs(&self) -> String {
        let texts: Vec<&str> = self.facts.codecs.iter().map(|codec| codec.text.as_str()).collect();
        texts.join(",")
    }

    /// What decides whether two renditions can be switched between.
    pub(super) fn family(&self) -> Family {
        self.facts.codecs.first().map_or(Family::Other, |codec| codec.family)
    }

    pub(super) fn rates(&self, target: u32) -> Rates {
        let segments = self.segments.iter().map(|s| (s.place.size, seconds(s.duration, self.timescale)));
        rates(&segments.collect::<Vec<_>>(), target.into())
    }

    /// Bytes and seconds of its key frames; each lasts to the next.
    fn keys(&self) -> Vec<(u64, f64)> {
        let keys = self.segments.iter().flat_map(|segment| &segment.keys);
        keys.map(|key| (key.size, seconds(key.duration, self.timescale))).collect()
    }

    /// EXT-X-TARGETDURATION of its playlist of key frames.
    pub(super) fn key_target(&self) -> u32 {
        whole(self.keys().iter().map(|key| key.1))
    }

    /// Bit rates of its key frames alone.
    pub(super) fn key_rates(&self) -> Rates {
        rates(&self.keys(), self.key_target().into())
    }

    pub(super) fn report(&self, target: u32, playlist: Option<String>) -> RenditionReport {
        let rates = self.rates(target);
        let init = self.init.as_ref().map_or(0, |init| init.size);
        let index = self.segment_index.as_ref().map_or(0, |index| index.size);
        RenditionReport {
            name: self.rendition.name.clone(),
            codecs: self.codecs(),
            picture: self.facts.picture,
            channels: self.facts.channels,
            sample_rate: self.facts.sample_rate,
            average_bandwidth: rates.average,
            peak_bandwidth: rates.peak,
            duration: self.seconds(),
            segments: self.segments.len(),
            playlist,
            bytes: init + index + self.segments.iter().map(|segment| segment.place.size).sum::<u64>(),
        }
    }
}

/// Ticks as seconds, for display and for choosing; comparisons are made in ticks.
#[expect(clippy::cast_precision_loss, reason = "exact to far below a microsecond for any film")]
pub(super) fn seconds(ticks: u64, timescale: u32) -> f64 {
    ticks as f64 / f64::from(timescale)
}

/// EXT-X-TARGETDURATION of all playlists: the longest segment, rounded to whole seconds (RFC 8216 §4.3.3.1).
pub(super) fn target(tracks: &[Track<'_>]) -> u32 {
    let all = tracks.iter().flat_map(|track| track.segments.iter().map(|s| (s.duration, track.timescale)));
    whole(all.map(|(ticks, scale)| seconds(ticks, scale)))
}

/// The longest of these seconds, rounded; 1 at least.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "f64 to integer saturates")]
fn whole(lengths: impl Iterator<Item = f64>) -> u32 {
    (lengths.fold(0.0, f64::max).round() as u32).max(1)
}

/// A picture's facts; the frame rate is that of the whole.
pub(super) fn picture(
    (width, height): (u32, u32),
    frames: u64,
    ticks: u64,
    timescale: u32,
    range: DynamicRange,
) -> PictureReport {
    let mut rate = (frames.saturating_mul(timescale.into()).max(1), ticks.max(1));
    let divisor = gcd(rate.0, rate.1);
    rate = (rate.0 / divisor, rate.1 / divisor);
    while rate.0 > u64::from(u32::MAX) || rate.1 > u64::from(u32::MAX) {
        rate = ((rate.0 / 2).max(1), (rate.1 / 2).max(1));
    }
    let frame_rate = u32::try_from(rate.0).ok().zip(u32::try_from(rate.1).ok());
    let frame_rate = frame_rate.and_then(|(num, den)| Rational::new(num, den).ok()).unwrap_or(Rational::ONE);
    PictureReport { width, height, frame_rate, range, frames }
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Whether two instants in different time scales are the same, give or take one tick of the coarser.
pub(crate) fn same_instant(a: i64, a_scale: u32, b: i64, b_scale: u32) -> bool {
    let (left, right) = (i128::from(a) * i128::from(b_scale), i128::from(b) * i128::from(a_scale));
    (left - right).unsigned_abs() <= u128::from(a_scale.max(b_scale))
}

/// Places in `starts` (presentation times of GOPs, ticks) where a segment begins: one ends with the GOP that brings it
/// nearest to the wanted length.
pub(super) fn boundaries(starts: &[i64], end: i64, timescale: u32, wanted: f64) -> Vec<usize> {
    let mut cuts = vec![0];
    let mut from = starts.first().copied().unwrap_or(0);
    for (n, &start) in starts.iter().enumerate().skip(1) {
        let next = starts.get(n + 1).copied().unwrap_or(end);
        let length = |ticks: i64| seconds(ticks.max(0).unsigned_abs(), timescale);
        // Half of the next GOP would be too much.
        if length(start.saturating_sub(from)) + length(next.saturating_sub(start)) / 2.0
            > wanted * (1.0 + 1e-6)
        {
            cuts.push(n);
            from = start;
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_end_nearest_to_the_wanted_length() {
        let gops = |count: i64, ticks: i64| (0..count).map(|n| n * ticks).collect::<Vec<_>>();
        // 29.97 fps, GOPs of 60 frames: three of them are 6.006 s.
        assert_eq!(boundaries(&gops(10, 60_060), 600_600, 30_000, 6.0), [0, 3, 6, 9]);
        assert_eq!(boundaries(&gops(4, 50), 175, 25, 2.0), [0, 1, 2, 3]);
        assert_eq!(boundaries(&gops(4, 125), 500, 25, 2.0), [0, 1, 2, 3], "a GOP is never cut");
        assert_eq!(boundaries(&gops(1, 1), 10, 25, 6.0), [0]);
        // The last GOP is short and stays with the one before, as long as that is nearer.
        assert_eq!(boundaries(&[0, 50, 100, 150], 160, 25, 4.0), [0, 2]);
    }

    #[test]
    fn instants_compare_across_time_scales() {
        assert!(same_instant(6006, 1000, 180_180, 30_000));
        assert!(same_instant(6006, 1000, 180_200, 30_000), "less than a millisecond");
        assert!(!same_instant(6006, 1000, 181_181, 30_000), "a frame");
    }

    #[test]
    fn frame_rates_are_exact() {
        let rate = |frames, ticks, scale| {
            picture((16, 16), frames, ticks, scale, DynamicRange::Sdr).frame_rate.to_string()
        };
        assert_eq!(rate(325, 166_400, 12_800), "25/1");
        assert_eq!(rate(600, 600_600, 30_000), "30000/1001");
    }
}

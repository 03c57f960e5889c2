//! When frames are shown, and where keyframes stand.

use super::{OutputPlan, Policy, Timing};
use crate::domain::preset::{FpsMode, Passes, Rate, VideoCodec, VideoSpec};
use crate::domain::{MediaInfo, Rational, VideoStream};

/// Rate used where an even rate is asked for and the source has none.
const ASSUMED_FPS: u32 = 30;
/// Coarsest ticks that are written; mp4 muxers choose at least this many per second too.
const MIN_TICKS: u32 = 10_000;

/// The decisions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Timed {
    pub(super) timing: Timing,
    pub(super) time_base: Rational,
    pub(super) frame_rate: Option<Rational>,
    pub(super) keyframe_interval: u32,
    /// The source's rate was needed and unknown.
    pub(super) assumed: bool,
}

impl Timed {
    /// The same with frames that are even already.
    pub(super) fn even(self, rate: Rational) -> Self {
        let time_base = Rational::new(rate.den(), rate.num()).unwrap_or(rate);
        Self { timing: Timing::Cfr(rate), time_base, frame_rate: Some(rate), ..self }
    }
}

/// Frame rate, ticks and keyframe distance (MEDIA-RULES §1.8, §1.18a and e).
pub(super) fn decide(stream: &VideoStream, spec: &VideoSpec, policy: &Policy) -> Timed {
    let max = spec.fps.max.unwrap_or(policy.max_frame_rate);
    let own = stream.frame_rate.map(|rate| halved_below(rate, max));
    let mut assumed = false;
    let timing = match mode(spec) {
        // A faster source loses every second frame; that needs the grid.
        FpsMode::Source if own != stream.frame_rate => own.map_or(Timing::Passthrough, Timing::Cfr),
        FpsMode::Source => Timing::Passthrough,
        FpsMode::Cfr => Timing::Cfr(spec.fps.value.or(own).unwrap_or_else(|| {
            assumed = true;
            halved_below(whole(ASSUMED_FPS), max)
        })),
    };
    let (frame_rate, time_base) = match timing {
        Timing::Cfr(rate) => (Some(rate), Rational::new(rate.den(), rate.num()).unwrap_or(rate)),
        Timing::Passthrough => (stream.frame_rate, fine(stream.time_base)),
    };
    let fps = frame_rate.map_or(f64::from(ASSUMED_FPS), Rational::as_f64);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "20 s of at most 1000 fps")]
    let keyframe_interval = (f64::from(spec.gop_seconds) * fps).round().clamp(1.0, 20_000.0) as u32;
    Timed { timing, time_base, frame_rate, keyframe_interval, assumed }
}

/// In two passes libvpx shares the bits of the whole out by the frames' durations, and ffmpeg 5.1 tells it that each lasts one
/// tick: only a tick as long as a frame makes that true (measured: 51 kbit/s of 300 with ticks of 1/16000 s).
fn mode(spec: &VideoSpec) -> FpsMode {
    let by_ticks =
        spec.codec == VideoCodec::Vp9 && matches!(spec.rate, Rate::Bitrate { passes: Passes::Two, .. });
    if by_ticks { FpsMode::Cfr } else { spec.fps.mode }
}

fn whole(fps: u32) -> Rational {
    Rational::new(fps, 1).unwrap_or(Rational::ONE)
}

/// Half the rate until it fits; a rate only a little above the limit (30.3 of a jittery phone clip) loses those few
/// frames instead of every second one.
fn halved_below(mut rate: Rational, max: u32) -> Rational {
    while rate.as_f64() > f64::from(max) * 1.05 {
        rate = rate.halved();
    }
    if rate.as_f64() > f64::from(max) { whole(max) } else { rate }
}

/// Ticks that hold every tick of the source exactly and are not too coarse for B-frame delays.
fn fine(ticks: Rational) -> Rational {
    let mut den = ticks.den();
    while den < MIN_TICKS {
        den = den.saturating_mul(2);
    }
    // `Rational::new` reduces; the muxer's timescale must not be coarser than asked for by that, and is not: an
    // even `num` only makes ticks twice as long as the source's own.
    Rational::new(ticks.num(), den).unwrap_or(ticks)
}

/// Span of the used streams on the output's timeline, else the container's word.
pub(super) fn expected_seconds(info: &MediaInfo, outputs: &[OutputPlan]) -> Option<f64> {
    let spans = info.video.iter().map(|v| (v.index, v.start_seconds, v.duration_seconds));
    let spans: Vec<_> =
        spans.chain(info.audio.iter().map(|a| (a.index, a.start_seconds, a.duration_seconds))).collect();
    let zero = spans.iter().filter_map(|(_, start, _)| *start).fold(f64::INFINITY, f64::min);
    let used = |index: u32| outputs.iter().any(|output| output.reads(index));
    let ends: Option<Vec<f64>> = spans
        .iter()
        .filter(|(index, _, _)| used(*index))
        .map(|(_, start, duration)| duration.map(|d| d + (start.unwrap_or(zero) - zero).max(0.0)))
        .collect();
    let measured = ends.and_then(|ends| ends.into_iter().reduce(f64::max));
    measured.or(info.duration_seconds).filter(|seconds| seconds.is_finite() && *seconds > 0.0)
}

/// Headers may promise too little (fragmented files, Matroska), so the cap leaves room; a runaway (two frames 29 h
/// apart, RELIABILITY §4.1) is far beyond it.
pub(super) fn cap(expected: Option<f64>, policy: &Policy) -> f64 {
    expected.map_or(policy.max_seconds, |seconds| (seconds * 2.0 + 60.0).min(policy.max_seconds))
}

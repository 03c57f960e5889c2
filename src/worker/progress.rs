//! One percentage for a whole task, from the steps it consists of.

use crate::domain::{Phase, Progress, TaskReport};

/// Share of the whole at which each step ends. Encoding is nearly everything; the rest is measured in seconds
/// (MEDIA-RULES §1.4: sampled verification is about 1 to 3 % of an encode).
const PROBED: f64 = 0.01;
const ENCODED: f64 = 0.94;
const VERIFIED: f64 = 0.97;

/// How far a step is, 0 to 1 within it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Step {
    Fetching,
    Probing,
    Encoding(f64),
    Verifying(f64),
    Uploading(f64),
}

/// The encoder's live figures.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Figures {
    pub(super) fps: Option<f64>,
    pub(super) speed: Option<f64>,
    pub(super) eta_seconds: Option<f64>,
}

impl Step {
    /// The report for this step.
    pub(super) fn report(self, figures: Figures) -> TaskReport {
        let within = |from: f64, to: f64, share: f64| from + (to - from) * share.clamp(0.0, 1.0);
        let (phase, fraction) = match self {
            Self::Fetching => (Phase::Fetching, 0.0),
            Self::Probing => (Phase::Probing, 0.0),
            Self::Encoding(share) => (Phase::Encoding, within(PROBED, ENCODED, share)),
            Self::Verifying(share) => (Phase::Verifying, within(ENCODED, VERIFIED, share)),
            Self::Uploading(share) => (Phase::Uploading, within(VERIFIED, 1.0, share)),
        };
        TaskReport {
            phase,
            progress: Progress::from_fraction(fraction),
            // ffmpeg says 0 until it knows better.
            fps: figures.fps.filter(|fps| *fps > 0.0),
            speed: figures.speed.filter(|speed| *speed > 0.0),
            eta_seconds: figures.eta_seconds.map(|seconds| (seconds * 10.0).round() / 10.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_each_other_without_going_back() {
        let steps = [
            Step::Fetching,
            Step::Probing,
            Step::Encoding(0.0),
            Step::Encoding(1.5),
            Step::Verifying(0.0),
            Step::Verifying(1.0),
            Step::Uploading(0.0),
            Step::Uploading(1.0),
        ];
        let marks: Vec<_> = steps.iter().map(|s| s.report(Figures::default()).progress).collect();
        assert!(marks.is_sorted(), "{marks:?}");
        assert_eq!(marks.last(), Some(&Progress::DONE));
        assert_eq!(Step::Encoding(f64::NAN).report(Figures::default()).progress, Progress::ZERO);
    }
}

//! Progress as readers see it: monotonic, bounded, honest about what is unknown.

use serde::{Deserialize, Serialize};

/// What a running task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Opening the source.
    Fetching,
    /// Reading what the source is.
    Probing,
    /// Running the encoder.
    Encoding,
    /// Checking the outputs.
    Verifying,
    /// Sending and publishing the outputs.
    Uploading,
}

impl Phase {
    /// The name used in the API and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fetching => "fetching",
            Self::Probing => "probing",
            Self::Encoding => "encoding",
            Self::Verifying => "verifying",
            Self::Uploading => "uploading",
        }
    }
}

/// Percent of a task in tenths: 0 to 1000. Only ever grows within a [`Progress::raise`] chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Progress(u16);

impl Progress {
    /// Nothing done.
    pub const ZERO: Self = Self(0);
    /// All done.
    pub const DONE: Self = Self(1000);

    /// From tenths of a percent, clamped to 0..=1000.
    #[must_use]
    pub const fn from_permille(permille: u16) -> Self {
        Self(if permille > 1000 { 1000 } else { permille })
    }

    /// From a fraction; NaN and negatives are 0, above 1 is 1.
    #[must_use]
    pub fn from_fraction(fraction: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=1000 first; NaN casts to 0"
        )]
        Self((fraction.clamp(0.0, 1.0) * 1000.0).floor() as u16)
    }

    /// Tenths of a percent.
    #[must_use]
    pub const fn permille(self) -> u16 {
        self.0
    }

    /// Percent with one decimal.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10.0
    }

    /// The larger of the two: progress never goes back.
    #[must_use]
    pub fn raise(self, other: Self) -> Self {
        self.max(other)
    }
}

/// One live report of a running task. Never trusted for decisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// What the task is doing.
    pub phase: Phase,
    /// How far the whole task is.
    pub progress: Progress,
    /// Frames encoded per second of wall time.
    pub fps: Option<f64>,
    /// Seconds of media per second of wall time.
    pub speed: Option<f64>,
    /// Seconds until the task should end.
    pub eta_seconds: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_clamped_and_never_nan() {
        assert_eq!(Progress::from_fraction(f64::NAN), Progress::ZERO);
        assert_eq!(Progress::from_fraction(-1.0), Progress::ZERO);
        assert_eq!(Progress::from_fraction(2.0), Progress::DONE);
        assert!((Progress::from_fraction(0.4179).percent() - 41.7).abs() < 1e-9);
    }

    #[test]
    fn raise_is_monotonic() {
        let p = Progress::from_permille(400);
        assert_eq!(p.raise(Progress::from_permille(10)), p);
    }
}

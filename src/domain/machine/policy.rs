//! The numbers of the queue: order, attempts, waiting.

use std::time::Duration;

use super::super::Timestamp;

/// After this long without an answer from a destination a job ends with its publication's fate unknown
/// (PROTOCOL §2 "resolve", the one exception to F4).
pub const UNRESOLVED_LIMIT: Duration = Duration::from_hours(24);

/// How long a failed job keeps its sealed secrets, so that `retry` can use them (PROTOCOL §1.9).
pub(super) const SECRETS_AFTER_FAILURE: Duration = Duration::from_hours(24);

/// One step of priority is worth this much waiting (PROTOCOL §1.16: ageing for free).
const PRIORITY_STEP_MICROS: i64 = 60_000_000;

/// First backoff (RELIABILITY §1.2).
const BACKOFF_BASE: Duration = Duration::from_secs(5);

/// The longest backoff (RELIABILITY §1.2). A task that would wait longer met a clock that went back: it is due.
pub const BACKOFF_CAP: Duration = Duration::from_mins(5);

/// How often a task is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Failed runs after which the job fails, at least 1 (`queue.max_attempts`).
    pub max_attempts: u32,
    /// Workers that fell silent, this process among them, after which the job fails with `worker_lost`. Losses are
    /// mostly somebody else's fault, so the bound is wider than that on failures.
    pub max_losses: u32,
    /// Workers that died while they ran nothing else, after which the job fails with `worker_lost` (PROTOCOL §1.21).
    pub max_crashes: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_attempts: 3, max_losses: 5, max_crashes: 2 }
    }
}

/// The place of a task in its tenant's line: ready time less a minute per step of priority, fixed at insertion.
#[must_use]
pub fn rank(ready_at: Timestamp, priority: i16) -> i64 {
    ready_at.micros().saturating_sub(i64::from(priority).saturating_mul(PRIORITY_STEP_MICROS))
}

/// The longest wait before try `failures + 1`: 5 s, 10 s, 20 s … 5 min. The wait itself is drawn evenly below it
/// (full jitter: AWS Architecture Blog, "Exponential Backoff And Jitter").
#[must_use]
pub fn backoff_ceiling(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    BACKOFF_BASE.saturating_mul(1 << doublings).min(BACKOFF_CAP)
}

pub(super) fn backoff(failures: u32, random: u64) -> Duration {
    let ceiling = backoff_ceiling(failures).as_micros();
    let drawn = (ceiling * u128::from(random)) >> 64;
    Duration::from_micros(u64::try_from(drawn).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_five_minutes() {
        let seconds: Vec<_> = (1..=8).map(|n| backoff_ceiling(n).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff_ceiling(u32::MAX), BACKOFF_CAP);
    }

    #[test]
    fn jitter_spans_the_whole_ceiling() {
        assert_eq!(backoff(1, 0), Duration::ZERO);
        assert!(backoff(1, u64::MAX) > Duration::from_millis(4_999));
        assert!(backoff(1, u64::MAX) < Duration::from_secs(5));
    }

    #[test]
    fn a_step_of_priority_is_a_minute() {
        let now = Timestamp::from_micros(1_000_000_000);
        assert!(rank(now.plus(Duration::from_secs(59)), 1) < rank(now, 0));
        assert!(rank(now.plus(Duration::from_secs(61)), 1) > rank(now, 0));
    }
}

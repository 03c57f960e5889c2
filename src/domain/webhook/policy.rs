//! When a delivery is tried again, and when no more.

use std::time::Duration;

use super::super::{DeliveryState, Timestamp};
use super::TryError;

/// First wait and its cap. With full jitter some thirty tries fall into a day, half of them in the first hours.
const BASE: Duration = Duration::from_secs(10);
const CAP: Duration = Duration::from_hours(2);
/// Each ceiling is so many times the one before.
const FACTOR: u32 = 3;

/// The longest wait that a receiver may ask for (`Retry-After`).
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(6);

/// How long a delivery's sealed URL is kept after its end, so that it can be asked for again.
pub const URL_AFTER_END: Duration = Duration::from_hours(24);

/// What a try means for its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It waits for the next try.
    Again(Timestamp),
    /// It has ended.
    Ended(DeliveryState, Timestamp),
}

/// What decides about the next try.
#[derive(Debug, Clone, Copy)]
pub struct Retrying {
    /// Tries begun so far, the one that just ended among them.
    pub tries: u32,
    /// When the delivery was written, or asked for again.
    pub since: Timestamp,
    /// How long it is tried (`webhooks.give_up_after`).
    pub give_up_after: Duration,
    /// The wait that the receiver asked for.
    pub retry_after: Option<Duration>,
    /// Jitter.
    pub random: u64,
}

impl Retrying {
    /// What becomes of a delivery whose try ended now. The last try is at the very end of its time.
    #[must_use]
    pub fn verdict(self, error: Option<TryError>, now: Timestamp) -> Verdict {
        let ended = |state| Verdict::Ended(state, now.plus(URL_AFTER_END));
        match error {
            None => return ended(DeliveryState::Delivered),
            Some(TryError::Gone) => return ended(DeliveryState::Gone),
            Some(TryError::Unsealable) => return ended(DeliveryState::GivenUp),
            Some(
                TryError::Blocked
                | TryError::Unreachable
                | TryError::TimedOut
                | TryError::Redirected
                | TryError::Refused,
            ) => {}
        }
        let deadline = self.since.plus(self.give_up_after);
        if now >= deadline {
            return ended(DeliveryState::GivenUp);
        }
        let drawn = (ceiling(self.tries).as_micros() * u128::from(self.random)) >> 64;
        let drawn = Duration::from_micros(u64::try_from(drawn).unwrap_or(u64::MAX));
        let asked = self.retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
        Verdict::Again(now.plus(drawn.max(asked)).min(deadline))
    }
}

/// The longest wait after so many tries: 10 s, 30 s, 90 s … 2 h. The wait itself is drawn evenly below it.
#[must_use]
pub fn ceiling(tries: u32) -> Duration {
    BASE.saturating_mul(FACTOR.saturating_pow(tries.saturating_sub(1))).min(CAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retrying(tries: u32, random: u64) -> Retrying {
        let since = Timestamp::from_micros(0);
        Retrying { tries, since, give_up_after: Duration::from_hours(24), retry_after: None, random }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(0).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn the_ceiling_grows_up_to_two_hours() {
        let seconds: Vec<_> = (1..=9).map(|n| ceiling(n).as_secs()).collect();
        assert_eq!(seconds, [10, 30, 90, 270, 810, 2430, 7200, 7200, 7200]);
        assert_eq!(ceiling(u32::MAX), CAP);
    }

    #[test]
    fn the_wait_is_drawn_below_the_ceiling() {
        let failed = Some(TryError::Refused);
        assert_eq!(retrying(1, 0).verdict(failed, at(5)), Verdict::Again(at(5)));
        let Verdict::Again(latest) = retrying(1, u64::MAX).verdict(failed, at(5)) else { panic!() };
        assert!(latest > at(14) && latest < at(15), "{latest}");
    }

    #[test]
    fn a_day_of_failures_ends_with_a_try_at_its_end() {
        let failed = Some(TryError::TimedOut);
        let (mut now, mut tries) = (at(0), 0);
        let end = loop {
            tries += 1;
            match retrying(tries, u64::MAX / 2).verdict(failed, now) {
                Verdict::Again(next) => now = next,
                Verdict::Ended(state, wipe_at) => break (state, wipe_at),
            }
        };
        assert_eq!(now, at(24 * 3600), "the last try");
        assert_eq!(end, (DeliveryState::GivenUp, at(48 * 3600)));
        assert!((20..60).contains(&tries), "{tries} tries");
    }

    #[test]
    fn receivers_are_heard_within_bounds() {
        let asks = |seconds| Retrying { retry_after: Some(Duration::from_secs(seconds)), ..retrying(1, 0) };
        assert_eq!(asks(100).verdict(Some(TryError::Refused), at(0)), Verdict::Again(at(100)));
        assert_eq!(asks(u64::MAX).verdict(Some(TryError::Refused), at(0)), Verdict::Again(at(6 * 3600)));
        let late = at(23 * 3600);
        assert_eq!(asks(u64::MAX).verdict(Some(TryError::Refused), late), Verdict::Again(at(24 * 3600)));
    }

    #[test]
    fn some_answers_end_it() {
        let ended = |state| Verdict::Ended(state, at(24 * 3600));
        assert_eq!(retrying(1, 0).verdict(None, at(0)), ended(DeliveryState::Delivered));
        assert_eq!(retrying(1, 0).verdict(Some(TryError::Gone), at(0)), ended(DeliveryState::Gone));
        assert_eq!(retrying(1, 0).verdict(Some(TryError::Unsealable), at(0)), ended(DeliveryState::GivenUp));
    }
}

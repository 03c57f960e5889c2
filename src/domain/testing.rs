//! Time and ids that a test owns. Compiled always, because integration tests are another crate.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use uuid::Uuid;

use super::{Clock, IdSource, Timestamp};

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub const fn new(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.micros()))
    }

    /// Moves the clock and returns the new time.
    pub fn advance(&self, by: Duration) -> Timestamp {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(self.0.fetch_add(by, Ordering::Relaxed).saturating_add(by))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Ids that are the same in every run of a test: a seed and a counter.
#[derive(Debug)]
pub struct SeededIds {
    seed: u64,
    count: AtomicU64,
}

impl SeededIds {
    /// A source whose ids follow from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, count: AtomicU64::new(0) }
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014): well spread from a counter.
    fn next(&self) -> u64 {
        let step = self.count.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut z = self.seed.wrapping_add(step.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl IdSource for SeededIds {
    fn sortable(&self, now: Timestamp) -> Uuid {
        let millis = u64::try_from(now.micros() / 1_000).unwrap_or(0);
        // The counter comes first, so that ids of one millisecond sort in the order they were made.
        let count = self.count.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let noise = self.next().to_be_bytes();
        let mut random = [0; 10];
        random[2..6].copy_from_slice(&count[4..]);
        random[6..].copy_from_slice(&noise[4..]);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    fn random(&self) -> Uuid {
        let (high, low) = (u128::from(self.next()), u128::from(self.next()));
        uuid::Builder::from_random_bytes((high << 64 | low).to_be_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_repeat_with_the_seed_and_sort_in_order() {
        let (a, b) = (SeededIds::new(7), SeededIds::new(7));
        let now = Timestamp::from_micros(1_000_000);
        let made: Vec<_> = (0..300).map(|_| a.sortable(now)).collect();
        assert_eq!(made, (0..300).map(|_| b.sortable(now)).collect::<Vec<_>>());
        assert!(made.is_sorted());
        assert_eq!(a.random(), b.random());
    }
}

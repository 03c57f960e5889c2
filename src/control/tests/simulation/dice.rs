//! Chance that follows from a seed.

use std::time::Duration;

use crate::domain::IdSource;
use crate::domain::testing::SeededIds;

pub(super) struct Dice(SeededIds);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(SeededIds::new(seed.wrapping_mul(0x0100_0000_01b3)))
    }

    /// One of `0..sides`.
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        let random = u64::from_be_bytes(self.0.random().as_bytes()[8..].try_into().unwrap());
        // The top bits of this half are the variant's.
        usize::try_from((random & 0xffff_ffff) % u64::try_from(sides).unwrap()).unwrap()
    }

    pub(super) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.roll(most + 1 - least)
    }

    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.roll(100) < chance
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())].clone()
    }

    /// Up to so long, in milliseconds.
    pub(super) fn within(&mut self, most: Duration) -> Duration {
        let most = usize::try_from(most.as_millis()).unwrap();
        Duration::from_millis(u64::try_from(self.roll(most + 1)).unwrap())
    }
}

//! Which blocks of a source are here: one bit each, 32 KiB for the largest source taken by default (64 GiB), 32 MiB for
//! the largest that can be allowed (64 TiB).

use std::ops::Range;

/// A fixed number of blocks, each present or missing.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    words: Vec<u64>,
    count: u64,
    present: u64,
}

impl Blocks {
    pub(super) fn missing(count: u64) -> Self {
        let words = usize::try_from(count.div_ceil(64)).unwrap_or(usize::MAX);
        Self { words: vec![0; words], count, present: 0 }
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    pub(super) const fn present(&self) -> u64 {
        self.present
    }

    pub(super) const fn is_whole(&self) -> bool {
        self.present == self.count
    }

    pub(super) fn has(&self, block: u64) -> bool {
        let (word, bit) = Self::place(block);
        self.words.get(word).is_some_and(|w| w >> bit & 1 == 1)
    }

    /// Marks a block; says whether it was missing.
    pub(super) fn set(&mut self, block: u64) -> bool {
        let new = block < self.count && !self.has(block);
        if new {
            let (word, bit) = Self::place(block);
            self.words[word] |= 1 << bit;
            self.present += 1;
        }
        new
    }

    /// Marks a block as missing again.
    pub(super) fn clear(&mut self, block: u64) {
        if self.has(block) {
            let (word, bit) = Self::place(block);
            self.words[word] &= !(1 << bit);
            self.present -= 1;
        }
    }

    /// The first missing block of a range.
    pub(super) fn first_missing(&self, range: Range<u64>) -> Option<u64> {
        let end = range.end.min(self.count);
        let mut block = range.start;
        while block < end {
            let (word, bit) = Self::place(block);
            let free = !self.words[word] >> bit;
            if free != 0 {
                let found = block + u64::from(free.trailing_zeros());
                return (found < end).then_some(found);
            }
            block = (block / 64 + 1) * 64;
        }
        None
    }

    fn place(block: u64) -> (usize, u32) {
        (usize::try_from(block / 64).unwrap_or(usize::MAX), (block % 64) as u32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index(block: u64) -> usize {
        usize::try_from(block).unwrap()
    }

    proptest! {
        #[test]
        fn agrees_with_a_list_of_bools(
            count in 1_u64..300,
            set in proptest::collection::vec((0_u64..310, proptest::bool::weighted(0.8)), 0..200),
            from in 0_u64..310,
            len in 0_u64..310,
        ) {
            let mut blocks = Blocks::missing(count);
            let mut model = vec![false; 310];
            for (block, arrives) in set {
                if arrives {
                    let new = block < count && !model[index(block)];
                    prop_assert_eq!(blocks.set(block), new);
                    model[index(block)] |= new;
                } else {
                    blocks.clear(block);
                    model[index(block)] = false;
                }
            }
            prop_assert_eq!(blocks.present(), model.iter().filter(|b| **b).count() as u64);
            prop_assert_eq!(blocks.is_whole(), model.iter().filter(|b| **b).count() as u64 == count);
            let expected = (from..(from + len).min(count)).find(|b| !model[index(*b)]);
            prop_assert_eq!(blocks.first_missing(from..from + len), expected);
        }
    }
}

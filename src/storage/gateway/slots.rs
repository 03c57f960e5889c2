//! Where the blocks of a source lie that is larger than its cache: a fixed number of slots, each holding one block.
//!
//! A block that arrives takes a slot nobody used yet, else the one whose block was read longest ago. A block that is
//! being read keeps its slot, because bytes of another block in its place would be read as its own; a block that a reader
//! is about to want keeps it while there is any other. Pure: who writes and reads the file is the spool.

use std::collections::{BTreeMap, HashMap};

/// A slot's number, from 0.
pub(super) type Slot = u64;

/// Which block lies where.
#[derive(Debug)]
pub(super) struct Slots {
    count: u64,
    /// One after the last slot that was ever given out.
    begun: u64,
    /// Slots that were given out and came back empty.
    free: Vec<Slot>,
    held: HashMap<u64, Held>,
    /// Blocks by when they were last used, the oldest first.
    by_age: BTreeMap<u64, u64>,
    clock: u64,
}

/// A block in its slot.
#[derive(Debug, Clone, Copy)]
struct Held {
    slot: Slot,
    used: u64,
    /// Reads of it under way.
    readers: u32,
}

/// A slot that is about to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) slot: Slot,
    pub(super) was: Was,
}

/// What a slot held before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Was {
    /// Nothing was ever written there.
    New,
    /// Something that nobody needs.
    Empty,
    /// This block, which is not here any more.
    Block(u64),
}

impl Slots {
    /// At least one.
    pub(super) fn new(count: u64) -> Self {
        Self {
            count: count.max(1),
            begun: 0,
            free: Vec::new(),
            held: HashMap::new(),
            by_age: BTreeMap::new(),
            clock: 0,
        }
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// A slot for a block that is about to be written. `None` when every one is being read or written.
    pub(super) fn take(&mut self, keep: impl Fn(u64) -> bool) -> Option<Taken> {
        if let Some(slot) = self.free.pop() {
            return Some(Taken { slot, was: Was::Empty });
        }
        if self.begun < self.count {
            self.begun += 1;
            return Some(Taken { slot: self.begun - 1, was: Was::New });
        }
        let idle =
            || self.by_age.values().filter(|block| self.held.get(block).is_some_and(|h| h.readers == 0));
        let block = idle().find(|block| !keep(**block)).or_else(|| idle().next()).copied()?;
        let held = self.held.remove(&block)?;
        self.by_age.remove(&held.used);
        Some(Taken { slot: held.slot, was: Was::Block(block) })
    }

    /// Says that a taken slot holds this block now. Another fetch may have brought it meanwhile: then the slot is free.
    pub(super) fn fill(&mut self, slot: Slot, block: u64) {
        if self.held.contains_key(&block) {
            self.free.push(slot);
            return;
        }
        let used = self.tick();
        self.held.insert(block, Held { slot, used, readers: 0 });
        self.by_age.insert(used, block);
    }

    /// Where a block lies; it stays there until [`Slots::end_read`].
    pub(super) fn begin_read(&mut self, block: u64) -> Option<Slot> {
        let now = self.tick();
        let held = self.held.get_mut(&block)?;
        self.by_age.remove(&held.used);
        held.used = now;
        held.readers += 1;
        self.by_age.insert(now, block);
        Some(held.slot)
    }

    pub(super) fn end_read(&mut self, block: u64) {
        if let Some(held) = self.held.get_mut(&block) {
            held.readers = held.readers.saturating_sub(1);
        }
    }

    const fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Puts a block in, as the spool does.
    fn put(slots: &mut Slots, block: u64, keep: &[u64]) -> Option<Taken> {
        let taken = slots.take(|block| keep.contains(&block))?;
        slots.fill(taken.slot, block);
        Some(taken)
    }

    #[test]
    fn the_block_that_was_read_longest_ago_goes() {
        let mut slots = Slots::new(3);
        for block in [10, 11, 12] {
            assert_eq!(put(&mut slots, block, &[]).unwrap().was, Was::New);
        }
        assert_eq!(slots.begin_read(10), Some(0));
        slots.end_read(10);
        assert_eq!(put(&mut slots, 13, &[]), Some(Taken { slot: 1, was: Was::Block(11) }));
        assert_eq!(slots.begin_read(11), None);
        // What somebody is about to read stays while there is another, what is being read stays in any case.
        assert_eq!(put(&mut slots, 14, &[12, 13]).unwrap().was, Was::Block(10));
        assert_eq!(put(&mut slots, 15, &[12, 13, 14]).unwrap().was, Was::Block(12));
        for block in [13, 14, 15] {
            slots.begin_read(block).unwrap();
        }
        assert_eq!(put(&mut slots, 16, &[]), None);
        slots.end_read(14);
        assert_eq!(put(&mut slots, 16, &[]).unwrap().was, Was::Block(14));
    }

    #[test]
    fn a_block_that_came_twice_takes_one_slot() {
        let mut slots = Slots::new(2);
        let (first, second) = (slots.take(|_| false).unwrap(), slots.take(|_| false).unwrap());
        slots.fill(first.slot, 7);
        slots.fill(second.slot, 7);
        assert_eq!(slots.begin_read(7), Some(first.slot));
        assert_eq!(slots.take(|_| false), Some(Taken { slot: second.slot, was: Was::Empty }));
    }

    #[derive(Debug, Clone)]
    enum Act {
        Put(u64),
        Begin(u64),
        End,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => (0_u64..40).prop_map(Act::Put),
            2 => (0_u64..40).prop_map(Act::Begin),
            1 => Just(Act::End),
        ]
    }

    proptest! {
        /// Against the file it stands for: no slot outside the bound, a read finds its own block, and what is being read
        /// is never written over.
        #[test]
        fn the_bound_holds_and_reads_find_their_own_block(
            count in 1_u64..8,
            acts in proptest::collection::vec(act(), 0..200),
        ) {
            let mut slots = Slots::new(count);
            let mut file: Vec<Option<u64>> = vec![None; usize::try_from(count).unwrap()];
            let mut reading: Vec<(u64, Slot)> = Vec::new();
            let mut here = BTreeSet::new();
            for act in acts {
                match act {
                    Act::Put(block) if here.contains(&block) => {}
                    Act::Put(block) => {
                        let Some(taken) = slots.take(|_| false) else {
                            let pinned: BTreeSet<_> = reading.iter().map(|(block, _)| *block).collect();
                            prop_assert_eq!(pinned.len() as u64, count, "refused although a slot is idle");
                            continue;
                        };
                        prop_assert!(taken.slot < count);
                        prop_assert!(reading.iter().all(|(_, slot)| *slot != taken.slot));
                        let place = &mut file[usize::try_from(taken.slot).unwrap()];
                        match taken.was {
                            Was::Block(old) => {
                                prop_assert_eq!(*place, Some(old));
                                prop_assert!(here.remove(&old));
                            }
                            Was::New | Was::Empty => prop_assert_eq!(*place, None),
                        }
                        *place = Some(block);
                        slots.fill(taken.slot, block);
                        here.insert(block);
                    }
                    Act::Begin(block) => {
                        let slot = slots.begin_read(block);
                        prop_assert_eq!(slot.is_some(), here.contains(&block));
                        if let Some(slot) = slot {
                            prop_assert_eq!(file[usize::try_from(slot).unwrap()], Some(block));
                            reading.push((block, slot));
                        }
                    }
                    Act::End => {
                        if let Some((block, slot)) = reading.pop() {
                            prop_assert_eq!(file[usize::try_from(slot).unwrap()], Some(block));
                            slots.end_read(block);
                        }
                    }
                }
                prop_assert!(here.len() as u64 <= count);
            }
        }
    }
}

//! Slots that workers granted and no task fills yet.
//!
//! The protocol has no call to hand a reservation back: an unused one lapses on the worker after 10 s. Were it simply
//! forgotten here, the next job would find the worker full of our own reservations; so it is kept and used first.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::fleet::Member;
use crate::domain::BootId;
use crate::rpc::wire::ReservationId;

/// One granted slot.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) member: Arc<Member>,
    pub(super) boot: BootId,
    pub(super) id: ReservationId,
    /// When it must no longer be used.
    pub(super) until: Instant,
}

/// Granted slots by worker, in the order the workers joined.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    shelves: Vec<(Arc<Member>, VecDeque<Slot>)>,
    /// The worker that got the last task: the next one goes to the one after it.
    last: Option<Arc<Member>>,
}

impl Reservations {
    /// Puts a granted or an unused slot on its worker's shelf. A slot of an older incarnation is dropped with its kind.
    pub(super) fn put(&mut self, slot: Slot) {
        let place = self.shelves.iter().position(|(member, _)| Arc::ptr_eq(member, &slot.member));
        let place = place.unwrap_or_else(|| {
            self.shelves.push((Arc::clone(&slot.member), VecDeque::new()));
            self.shelves.len() - 1
        });
        let slots = &mut self.shelves[place].1;
        slots.retain(|known| known.boot == slot.boot);
        slots.push_back(slot);
    }

    /// How many are on a worker's shelf.
    pub(super) fn of(&self, member: &Arc<Member>, now: Instant) -> u32 {
        let mine = self.shelves.iter().find(|(known, _)| Arc::ptr_eq(known, member));
        let fresh = mine.map_or(0, |(_, slots)| slots.iter().filter(|slot| slot.until > now).count());
        u32::try_from(fresh).unwrap_or(u32::MAX)
    }

    /// Takes up to `most` usable slots, one from each worker in turn, beginning after the one used last.
    pub(super) fn take(&mut self, most: usize, now: Instant) -> Vec<Slot> {
        for (_, slots) in &mut self.shelves {
            slots.retain(|slot| slot.until > now);
        }
        let after =
            |last: &Arc<Member>| self.shelves.iter().position(|(member, _)| Arc::ptr_eq(member, last));
        let start = self.last.as_ref().and_then(after).map_or(0, |at| at + 1);
        let count = self.shelves.len();
        let mut taken = Vec::new();
        loop {
            let before = taken.len();
            for at in (0..count).map(|n| (start + n) % count) {
                if taken.len() < most
                    && let Some(slot) = self.shelves[at].1.pop_front()
                {
                    taken.push(slot);
                }
            }
            if taken.len() == before {
                return taken;
            }
        }
    }

    /// Remembers who got the last task.
    pub(super) fn used(&mut self, member: &Arc<Member>) {
        self.last = Some(Arc::clone(member));
    }

    /// Drops a worker's slots: it answers no more.
    pub(super) fn forget(&mut self, member: &Arc<Member>) {
        self.shelves.retain(|(known, _)| !Arc::ptr_eq(known, member));
    }
}

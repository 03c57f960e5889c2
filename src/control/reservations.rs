//! Slots that workers granted and no task fills yet.
//!
//! An unused one lapses on the worker after 10 s. Were it simply forgotten here, the next job would find the worker full
//! of our own reservations; so it is kept and used first, or given back where other controls may need it.

use std::collections::{HashMap, HashSet, VecDeque};
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

/// Granted slots by worker, in the order the workers first granted any.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    shelves: Vec<VecDeque<Slot>>,
    /// Where a worker's shelf is.
    places: HashMap<usize, usize>,
    /// Where the next task goes: to the worker after the one that got the last.
    next: usize,
}

impl Reservations {
    /// Puts a granted or an unused slot on its worker's shelf. A slot of an older incarnation is dropped with its kind.
    pub(super) fn put(&mut self, slot: Slot) {
        let shelves = &mut self.shelves;
        let place = *self.places.entry(slot.member.number()).or_insert_with(|| {
            shelves.push(VecDeque::new());
            shelves.len() - 1
        });
        let slots = &mut self.shelves[place];
        slots.retain(|known| known.boot == slot.boot);
        slots.push_back(slot);
    }

    /// How many are on a worker's shelf.
    pub(super) fn of(&self, member: &Arc<Member>, now: Instant) -> u32 {
        let fresh = |place: &usize| self.shelves[*place].iter().filter(|slot| slot.until > now).count();
        u32::try_from(self.places.get(&member.number()).map_or(0, fresh)).unwrap_or(u32::MAX)
    }

    /// Takes one from a worker's shelf.
    pub(super) fn one_of(&mut self, member: &Arc<Member>, now: Instant) -> Option<Slot> {
        let slots = &mut self.shelves[*self.places.get(&member.number())?];
        slots.retain(|slot| slot.until > now);
        slots.pop_front()
    }

    /// Takes up to `most` usable slots, one from each worker in turn, beginning after the one used last; none of
    /// `except`.
    pub(super) fn take(&mut self, most: usize, except: Option<&Arc<Member>>, now: Instant) -> Vec<Slot> {
        let except = except.and_then(|member| self.places.get(&member.number()).copied());
        for slots in &mut self.shelves {
            slots.retain(|slot| slot.until > now);
        }
        let count = self.shelves.len();
        let mut taken = Vec::new();
        loop {
            let before = taken.len();
            let places = (0..count).map(|n| (self.next + n) % count).filter(|at| Some(*at) != except);
            for at in places {
                if taken.len() == most {
                    return taken;
                }
                taken.extend(self.shelves[at].pop_front());
            }
            if taken.len() == before {
                return taken;
            }
        }
    }

    /// Remembers who got the last task.
    pub(super) fn used(&mut self, member: &Arc<Member>) {
        if let Some(place) = self.places.get(&member.number()) {
            self.next = place + 1;
        }
    }

    /// Takes everything off the shelves, by worker.
    pub(super) fn clear_out(&mut self) -> Vec<VecDeque<Slot>> {
        self.shelves.iter_mut().filter(|slots| !slots.is_empty()).map(std::mem::take).collect()
    }

    /// Drops a worker's slots: it answers no more.
    pub(super) fn forget(&mut self, member: &Arc<Member>) {
        if let Some(place) = self.places.get(&member.number()) {
            self.shelves[*place].clear();
        }
    }

    /// Clears away the shelves of workers that have left.
    pub(super) fn keep(&mut self, members: &[Arc<Member>]) {
        let present: HashSet<_> = members.iter().map(Member::number).collect();
        if self.places.keys().all(|number| present.contains(number)) {
            return;
        }
        let slots: Vec<_> = self.shelves.drain(..).flatten().collect();
        self.places.clear();
        self.next = 0;
        for slot in slots.into_iter().filter(|slot| present.contains(&slot.member.number())) {
            self.put(slot);
        }
    }
}

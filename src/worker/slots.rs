//! Who may run what: the slot table, without clocks or tasks of its own.
//!
//! The worker alone owns its slots (PROTOCOL §1.18): a control reserves, claims, then starts. Draining is decided
//! here too, under the same lock, so that no task can slip in behind it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Epoch, JobId, RunId, TaskId};
use crate::rpc::Refusal;
use crate::rpc::wire::ReservationId;

/// How long a reservation holds (PROTOCOL §1.7).
pub(super) const RESERVATION_TTL: Duration = Duration::from_secs(10);

/// Epochs remembered of tasks that ended here; older ones are refused by the store's fence anyway.
const REMEMBERED_TASKS: usize = 4096;

/// The slot table. `H` is what a running slot holds.
#[derive(Debug)]
pub(super) struct Slots<H> {
    total: usize,
    draining: bool,
    reserved: Vec<(ReservationId, Instant)>,
    runs: HashMap<RunId, Held<H>>,
    seen: HashMap<TaskId, Epoch>,
}

/// A slot in use.
#[derive(Debug)]
pub(super) struct Held<H> {
    pub(super) job: JobId,
    pub(super) task: TaskId,
    /// Whether it still needs the CPU; a run that only waits for its acknowledgement does not.
    pub(super) occupies: bool,
    pub(super) handle: H,
}

/// Names of a run that wants a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) job: JobId,
    pub(super) task: TaskId,
    pub(super) run: RunId,
    pub(super) epoch: Epoch,
}

/// What a START means here.
#[derive(Debug)]
pub(super) enum Admission {
    /// Begin it; runs of lower epochs of the same task must be stopped and waited for first.
    Begin {
        /// Those runs.
        older: Vec<RunId>,
    },
    /// It runs already.
    Known,
}

impl<H> Slots<H> {
    pub(super) fn new(total: usize) -> Self {
        Self { total, draining: false, reserved: Vec::new(), runs: HashMap::new(), seen: HashMap::new() }
    }

    pub(super) const fn total(&self) -> usize {
        self.total
    }

    pub(super) const fn draining(&self) -> bool {
        self.draining
    }

    /// Takes nothing more from now on.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.reserved.clear();
    }

    pub(super) fn busy(&self) -> usize {
        self.runs.values().filter(|held| held.occupies).count()
    }

    /// Whether nothing is held, reserved or unacknowledged: the only state in which a worker may leave.
    pub(super) fn idle(&mut self, now: Instant) -> bool {
        self.forget_expired(now);
        self.runs.is_empty() && self.reserved.is_empty()
    }

    /// Grants up to `wanted` slots, naming them with `fresh`.
    pub(super) fn reserve(
        &mut self,
        wanted: usize,
        now: Instant,
        mut fresh: impl FnMut() -> ReservationId,
    ) -> Vec<ReservationId> {
        self.forget_expired(now);
        if self.draining {
            return Vec::new();
        }
        let free = self.total.saturating_sub(self.busy() + self.reserved.len());
        let granted: Vec<_> = (0..wanted.min(free)).map(|_| fresh()).collect();
        self.reserved.extend(granted.iter().map(|id| (*id, now + RESERVATION_TTL)));
        granted
    }

    /// Decides about a START (PROTOCOL F2). Uses up the reservation when the answer is [`Admission::Begin`].
    pub(super) fn admit(
        &mut self,
        wanted: Wanted,
        reservation: ReservationId,
        now: Instant,
    ) -> Result<Admission, Refusal> {
        if self.runs.contains_key(&wanted.run) {
            return Ok(Admission::Known);
        }
        if self.draining {
            return Err(Refusal::Draining);
        }
        if self.seen.get(&wanted.task).is_some_and(|seen| *seen >= wanted.epoch) {
            return Err(Refusal::Stale("a run of this or a higher epoch was seen"));
        }
        self.forget_expired(now);
        let Some(at) = self.reserved.iter().position(|(id, _)| *id == reservation) else {
            return Err(Refusal::Stale("the reservation ran out"));
        };
        self.reserved.swap_remove(at);
        self.remember(wanted.task, wanted.epoch);
        let older =
            self.runs.iter().filter(|(_, held)| held.task == wanted.task).map(|(run, _)| *run).collect();
        Ok(Admission::Begin { older })
    }

    /// Puts an admitted run into its slot.
    pub(super) fn occupy(&mut self, wanted: Wanted, handle: H) {
        let held = Held { job: wanted.job, task: wanted.task, occupies: true, handle };
        self.runs.insert(wanted.run, held);
    }

    /// The run needs no CPU any more (published, failed): its slot is free, its result is kept.
    pub(super) fn vacate(&mut self, run: RunId) {
        if let Some(held) = self.runs.get_mut(&run) {
            held.occupies = false;
        }
    }

    /// Forgets a run.
    pub(super) fn remove(&mut self, run: RunId) -> Option<Held<H>> {
        self.runs.remove(&run)
    }

    pub(super) fn get(&self, run: RunId) -> Option<&Held<H>> {
        self.runs.get(&run)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (RunId, &Held<H>)> {
        self.runs.iter().map(|(run, held)| (*run, held))
    }

    fn forget_expired(&mut self, now: Instant) {
        self.reserved.retain(|(_, until)| *until > now);
    }

    fn remember(&mut self, task: TaskId, epoch: Epoch) {
        if self.seen.len() >= REMEMBERED_TASKS {
            let running: Vec<TaskId> = self.runs.values().map(|held| held.task).collect();
            self.seen.retain(|task, _| running.contains(task));
        }
        self.seen.insert(task, epoch);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn wanted(task: u128, run: u128, epoch: u32) -> Wanted {
        Wanted {
            job: JobId::from_uuid(Uuid::from_u128(task)),
            task: TaskId::from_uuid(Uuid::from_u128(task)),
            run: RunId::from_uuid(Uuid::from_u128(run)),
            epoch: Epoch(epoch),
        }
    }

    fn reserve(slots: &mut Slots<()>, n: usize, now: Instant) -> Vec<ReservationId> {
        let mut next = 0_u128;
        slots.reserve(n, now, || {
            next += 1;
            ReservationId(Uuid::from_u128(next))
        })
    }

    #[tokio::test(start_paused = true)]
    async fn reservations_bound_what_may_start_and_run_out() {
        let mut slots: Slots<()> = Slots::new(2);
        let now = Instant::now();
        let granted = reserve(&mut slots, 5, now);
        assert_eq!(granted.len(), 2);
        assert!(reserve(&mut slots, 1, now).is_empty());
        assert_eq!(reserve(&mut slots, 5, now + RESERVATION_TTL).len(), 2);
        let late = slots.admit(wanted(1, 1, 1), ReservationId(Uuid::from_u128(99)), now);
        assert!(matches!(late, Err(Refusal::Stale(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lower_or_equal_epoch_never_starts_and_a_higher_one_stops_the_lower() {
        let mut slots: Slots<()> = Slots::new(2);
        let now = Instant::now();
        let granted = reserve(&mut slots, 2, now);
        assert!(
            matches!(slots.admit(wanted(1, 10, 5), granted[0], now), Ok(Admission::Begin { older }) if older.is_empty())
        );
        slots.occupy(wanted(1, 10, 5), ());
        assert!(matches!(slots.admit(wanted(1, 10, 5), granted[0], now), Ok(Admission::Known)));
        assert!(slots.admit(wanted(1, 11, 5), granted[1], now).is_err());
        assert!(slots.admit(wanted(1, 11, 4), granted[1], now).is_err());
        let Ok(Admission::Begin { older }) = slots.admit(wanted(1, 12, 6), granted[1], now) else {
            panic!("refused")
        };
        assert_eq!(older, [wanted(1, 10, 5).run]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_finished_run_frees_its_slot_but_keeps_the_worker_until_acknowledged() {
        let mut slots: Slots<()> = Slots::new(1);
        let now = Instant::now();
        let granted = reserve(&mut slots, 1, now);
        slots.admit(wanted(1, 1, 1), granted[0], now).unwrap();
        slots.occupy(wanted(1, 1, 1), ());
        assert!(reserve(&mut slots, 1, now).is_empty());
        slots.vacate(wanted(1, 1, 1).run);
        assert_eq!(reserve(&mut slots, 1, now).len(), 1);
        assert!(!slots.idle(now + RESERVATION_TTL));
        slots.remove(wanted(1, 1, 1).run);
        assert!(slots.idle(now + RESERVATION_TTL));
    }

    #[tokio::test(start_paused = true)]
    async fn draining_refuses_even_what_was_reserved() {
        let mut slots: Slots<()> = Slots::new(1);
        let now = Instant::now();
        let granted = reserve(&mut slots, 1, now);
        slots.drain();
        assert!(matches!(slots.admit(wanted(1, 1, 1), granted[0], now), Err(Refusal::Draining)));
        assert!(reserve(&mut slots, 1, now).is_empty());
    }
}

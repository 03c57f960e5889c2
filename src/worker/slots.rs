//! Who may run what: the slot table, without clocks or tasks of its own.
//!
//! The worker alone owns its slots (PROTOCOL §1.18): a control reserves, claims, then starts. Draining is decided
//! here too, under the same lock, so that no task can slip in behind it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Company, Epoch, JobId, RunId, TaskId};
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
    /// When something was last wanted of this worker or held here.
    active_at: Instant,
}

/// A slot in use.
#[derive(Debug)]
pub(super) struct Held<H> {
    pub(super) job: JobId,
    pub(super) task: TaskId,
    /// Whether it still needs the CPU; a run that only waits for its acknowledgement does not.
    pub(super) occupies: bool,
    pub(super) company: Company,
    pub(super) handle: H,
}

/// Names of a run that wants a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) job: JobId,
    pub(super) task: TaskId,
    pub(super) run: RunId,
    pub(super) epoch: Epoch,
    /// Who else may run here meanwhile.
    pub(super) company: Company,
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

/// Whether a worker without work leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// It drains from now on, and nothing is held here.
    Now,
    /// Not before then.
    NotBefore(Instant),
    /// Somebody else decided that it drains.
    Draining,
}

impl<H> Slots<H> {
    pub(super) fn new(total: usize, now: Instant) -> Self {
        Self {
            total,
            draining: false,
            reserved: Vec::new(),
            runs: HashMap::new(),
            seen: HashMap::new(),
            active_at: now,
        }
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

    /// Begins to drain if nothing was held or wanted for `timeout`. The decision and its effect are one step of the
    /// table: whoever comes later meets a worker that drains (PROTOCOL §1.18).
    pub(super) fn leave_if_idle(&mut self, now: Instant, timeout: Duration) -> Leave {
        if self.draining {
            return Leave::Draining;
        }
        if !self.idle(now) {
            return Leave::NotBefore(now + timeout);
        }
        let at = self.active_at + timeout;
        if at > now {
            return Leave::NotBefore(at);
        }
        self.drain();
        Leave::Now
    }

    /// Something wants this worker now: it does not leave for a while.
    pub(super) const fn wanted(&mut self, now: Instant) {
        self.active_at = now;
    }

    /// Reservations that nobody has used yet.
    pub(super) fn promised(&mut self, now: Instant) -> usize {
        self.forget_expired(now);
        self.reserved.len()
    }

    /// Forgets grants that nobody needs. Whoever gave them back wanted nothing after all, so that they keep nobody here.
    pub(super) fn hand_back(&mut self, unneeded: &[ReservationId]) {
        self.reserved.retain(|(id, _)| !unneeded.contains(id));
    }

    /// Grants up to `wanted` slots, naming them with `fresh`.
    pub(super) fn reserve(
        &mut self,
        wanted: usize,
        now: Instant,
        mut fresh: impl FnMut() -> ReservationId,
    ) -> Vec<ReservationId> {
        self.forget_expired(now);
        if self.draining || wanted == 0 {
            return Vec::new();
        }
        let taken = self.busy() + self.reserved.len();
        let free = if self.one_runs_alone() { 0 } else { self.total.saturating_sub(taken) };
        let granted: Vec<_> = (0..wanted.min(free)).map(|_| fresh()).collect();
        self.reserved.extend(granted.iter().map(|id| (*id, now + RESERVATION_TTL)));
        self.active_at = now;
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
        self.active_at = now;
        if self.seen.get(&wanted.task).is_some_and(|seen| *seen >= wanted.epoch) {
            return Err(Refusal::Stale("a run of this or a higher epoch was seen"));
        }
        self.forget_expired(now);
        let Some(at) = self.reserved.iter().position(|(id, _)| *id == reservation) else {
            return Err(Refusal::Stale("the reservation ran out"));
        };
        if self.one_runs_alone() {
            return Err(Refusal::Stale("a run here wants no company"));
        }
        let older: Vec<_> =
            self.runs.iter().filter(|(_, held)| held.task == wanted.task).map(|(run, _)| *run).collect();
        let others = self.runs.values().any(|held| held.occupies && held.task != wanted.task);
        match wanted.company {
            Company::Shared => drop(self.reserved.swap_remove(at)),
            Company::Alone if others => return Err(Refusal::Stale("other runs are here")),
            // Nobody else is let in before it has ended.
            Company::Alone => self.reserved.clear(),
        }
        self.remember(wanted.task, wanted.epoch);
        Ok(Admission::Begin { older })
    }

    fn one_runs_alone(&self) -> bool {
        self.runs.values().any(|held| held.occupies && held.company == Company::Alone)
    }

    /// Puts an admitted run into its slot.
    pub(super) fn occupy(&mut self, wanted: Wanted, handle: H) {
        let Wanted { job, task, company, .. } = wanted;
        let held = Held { job, task, occupies: true, company, handle };
        self.runs.insert(wanted.run, held);
    }

    /// The run needs no CPU any more (published, failed): its slot is free, its result is kept.
    pub(super) fn vacate(&mut self, run: RunId) {
        if let Some(held) = self.runs.get_mut(&run) {
            held.occupies = false;
        }
    }

    /// Forgets a run.
    pub(super) fn remove(&mut self, run: RunId, now: Instant) -> Option<Held<H>> {
        let removed = self.runs.remove(&run);
        if removed.is_some() {
            self.active_at = now;
        }
        removed
    }

    pub(super) fn get(&self, run: RunId) -> Option<&Held<H>> {
        self.runs.get(&run)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (RunId, &Held<H>)> {
        self.runs.iter().map(|(run, held)| (*run, held))
    }

    fn forget_expired(&mut self, now: Instant) {
        let lapsed = self.reserved.extract_if(.., |(_, until)| *until <= now).map(|(_, until)| until).max();
        self.active_at = lapsed.map_or(self.active_at, |until| until.max(self.active_at));
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
    use std::collections::HashSet;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn wanted(task: u128, run: u128, epoch: u32) -> Wanted {
        Wanted {
            job: JobId::from_uuid(Uuid::from_u128(task)),
            task: TaskId::from_uuid(Uuid::from_u128(task)),
            run: RunId::from_uuid(Uuid::from_u128(run)),
            epoch: Epoch(epoch),
            company: Company::Shared,
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
        let mut slots: Slots<()> = Slots::new(2, Instant::now());
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
        let mut slots: Slots<()> = Slots::new(2, Instant::now());
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
        let mut slots: Slots<()> = Slots::new(1, Instant::now());
        let now = Instant::now();
        let granted = reserve(&mut slots, 1, now);
        slots.admit(wanted(1, 1, 1), granted[0], now).unwrap();
        slots.occupy(wanted(1, 1, 1), ());
        assert!(reserve(&mut slots, 1, now).is_empty());
        slots.vacate(wanted(1, 1, 1).run);
        assert_eq!(reserve(&mut slots, 1, now).len(), 1);
        assert!(!slots.idle(now + RESERVATION_TTL));
        slots.remove(wanted(1, 1, 1).run, now);
        assert!(slots.idle(now + RESERVATION_TTL));
    }

    #[tokio::test(start_paused = true)]
    async fn it_leaves_once_nothing_was_held_for_long_enough() {
        const IDLE: Duration = Duration::from_secs(30);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut slots: Slots<()> = Slots::new(1, start);
        assert_eq!(slots.leave_if_idle(after(29), IDLE), Leave::NotBefore(after(30)));
        let granted = reserve(&mut slots, 1, after(29));
        assert_eq!(slots.leave_if_idle(after(30), IDLE), Leave::NotBefore(after(60)));
        slots.admit(wanted(1, 1, 1), granted[0], after(31)).unwrap();
        slots.occupy(wanted(1, 1, 1), ());
        slots.vacate(wanted(1, 1, 1).run);
        assert!(
            matches!(slots.leave_if_idle(after(500), IDLE), Leave::NotBefore(_)),
            "a result is not taken yet"
        );
        slots.remove(wanted(1, 1, 1).run, after(600));
        assert_eq!(slots.leave_if_idle(after(601), IDLE), Leave::NotBefore(after(630)));
        // A reservation that nobody used holds the worker until it lapses, and not a second less.
        reserve(&mut slots, 1, after(602));
        assert_eq!(slots.leave_if_idle(after(641), IDLE), Leave::NotBefore(after(642)));
        assert_eq!(slots.leave_if_idle(after(642), IDLE), Leave::Now);
        assert!(slots.draining() && reserve(&mut slots, 1, after(642)).is_empty());
        assert_eq!(slots.leave_if_idle(after(999), IDLE), Leave::Draining);
    }

    /// What may happen at a worker's door, in any order.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Reserve(usize),
        Start { reservation: usize, run: u128 },
        Vacate(u128),
        Acknowledge(u128),
        Wait(u64),
        Look,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_usize..3).prop_map(Step::Reserve),
            (0_usize..8, 0_u128..6).prop_map(|(reservation, run)| Step::Start { reservation, run }),
            (0_u128..6).prop_map(Step::Vacate),
            (0_u128..6).prop_map(Step::Acknowledge),
            (0_u64..9_000).prop_map(Step::Wait),
            Just(Step::Look),
        ]
    }

    proptest! {
        /// Every order of the calls that meet at the lock: nothing is granted or begun behind the decision to leave,
        /// and it is never taken while something is held or was held a moment ago.
        #[test]
        fn nobody_slips_in_behind_the_decision_to_leave(steps in proptest::collection::vec(step(), 1..120)) {
            const IDLE: Duration = Duration::from_secs(5);
            let mut now = Instant::now();
            let mut slots: Slots<()> = Slots::new(2, now);
            let (mut granted, mut held) = (Vec::new(), HashSet::new());
            let (mut next, mut left, mut last) = (0_u128, false, now);
            for step in steps {
                match step {
                    Step::Reserve(wanted) => {
                        let fresh = slots.reserve(wanted, now, || {
                            next += 1;
                            ReservationId(Uuid::from_u128(next))
                        });
                        prop_assert!(!left || fresh.is_empty());
                        if !fresh.is_empty() {
                            last = now;
                        }
                        granted.extend(fresh.into_iter().map(|id| (id, now + RESERVATION_TTL)));
                    }
                    Step::Start { reservation, run } => {
                        let id = granted.get(reservation).map_or(ReservationId(Uuid::nil()), |(id, _)| *id);
                        let wanted = wanted(run, run, 1);
                        match slots.admit(wanted, id, now) {
                            Ok(Admission::Begin { .. }) => {
                                prop_assert!(!left);
                                slots.occupy(wanted, ());
                                granted.retain(|(other, _)| *other != id);
                                held.insert(run);
                                last = now;
                            }
                            Ok(Admission::Known) => prop_assert!(held.contains(&run)),
                            Err(refusal) => prop_assert!(!left || matches!(refusal, Refusal::Draining)),
                        }
                    }
                    Step::Vacate(run) => slots.vacate(wanted(run, run, 1).run),
                    Step::Acknowledge(run) => {
                        if slots.remove(wanted(run, run, 1).run, now).is_some() {
                            held.remove(&run);
                            last = now;
                        }
                    }
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                    Step::Look => {
                        let reserved = granted.iter().any(|(_, until)| *until > now);
                        match slots.leave_if_idle(now, IDLE) {
                            Leave::Now => {
                                prop_assert!(!left && !reserved && held.is_empty() && now >= last + IDLE);
                                left = true;
                            }
                            Leave::NotBefore(at) => prop_assert!(!left && at > now),
                            Leave::Draining => prop_assert!(left),
                        }
                    }
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_wants_no_company_has_none() {
        let mut slots: Slots<()> = Slots::new(3, Instant::now());
        let now = Instant::now();
        let granted = reserve(&mut slots, 3, now);
        let alone = |task| Wanted { company: Company::Alone, ..wanted(task, task, 1) };
        slots.admit(wanted(1, 1, 1), granted[0], now).unwrap();
        slots.occupy(wanted(1, 1, 1), ());
        assert!(slots.admit(alone(2), granted[1], now).is_err(), "others are here");
        slots.vacate(wanted(1, 1, 1).run);
        assert!(slots.admit(alone(2), granted[1], now).is_ok(), "one that ended takes nobody's place");
        slots.occupy(alone(2), ());
        assert!(
            slots.admit(wanted(3, 3, 1), granted[2], now).is_err(),
            "what was granted before counts no more"
        );
        assert!(reserve(&mut slots, 1, now).is_empty());
        slots.vacate(alone(2).run);
        assert_eq!(reserve(&mut slots, 3, now).len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_refuses_even_what_was_reserved() {
        let mut slots: Slots<()> = Slots::new(1, Instant::now());
        let now = Instant::now();
        let granted = reserve(&mut slots, 1, now);
        slots.drain();
        assert!(matches!(slots.admit(wanted(1, 1, 1), granted[0], now), Err(Refusal::Draining)));
        assert!(reserve(&mut slots, 1, now).is_empty());
    }
}

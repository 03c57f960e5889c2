//! The dispatcher: fills free slots with ready tasks.
//!
//! A pass asks every worker that may have room for reservations, all at once; as soon as they answered (or after a
//! short wait for the slow ones) it claims as many tasks as there are reservations and starts a driver for each. So
//! nothing is claimed that has no place to run, and a worker that never answers delays nobody. Tasks that must run
//! alone get a worker that is `clearing` for them.

mod asking;
mod clearing;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::time::Instant;

use self::asking::{Answer, Asking};
use self::clearing::Clearing;
use super::driver;
use super::fleet::{Known, Member, Ready, bounded};
use super::reservations::{Reservations, Slot};
use super::roster::Roster;
use super::runs::NewRun;
use super::settings::Backoff;
use super::shared::Shared;
use crate::domain::{Company, RunId};
use crate::store::{Claimed, Grant, QueueStats};

/// Most tasks claimed in one statement.
const BATCH: usize = 64;

/// Most slots asked of one worker at once, whatever it says that it has.
const MOST_SLOTS: u32 = 256;

/// Dispatches until the soft stop. Then nothing more is claimed.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut dispatcher = Dispatcher {
        shared: Arc::clone(&shared),
        shelf: Reservations::default(),
        asking: Asking::default(),
        settle: None,
        again: None,
        rested: None,
        backoff: Backoff::new(&shared.pace),
        queue: Queue::Empty,
        waiting: None,
        clearing: Clearing::default(),
        roster: Roster::default(),
    };
    dispatcher.work().await;
    shared.runs.close();
}

struct Dispatcher {
    shared: Arc<Shared>,
    shelf: Reservations,
    asking: Asking,
    /// Until when a pass waits for those it asked.
    settle: Option<Instant>,
    /// A worker granted less than we think it has: it may still be putting an ended run away.
    again: Option<Instant>,
    /// When the first of those that rested in the last pass has rested.
    rested: Option<Instant>,
    backoff: Backoff,
    /// What the last claim left.
    queue: Queue,
    /// Tasks that wait for a place among others, as far as is known: nobody is asked for more slots.
    waiting: Option<u32>,
    /// The worker that is cleared for a task that must run alone.
    clearing: Clearing,
    /// Who would be found again by whoever comes after us.
    roster: Roster,
}

/// Whether a claim left work in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Empty,
    MaybeMore,
}

impl Dispatcher {
    async fn work(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut poll = Instant::now() + shared.pace.poll;
        loop {
            let settle = self.settle.unwrap_or(poll);
            let second_look = self.second_look();
            tokio::select! {
                biased;
                () = shared.lifecycle.soft().cancelled() => return,
                Some(answer) = self.asking.calls.next() => {
                    self.answered(answer);
                    // Answers that come too late for their pass are used as they come.
                    if !self.asking.awaits() {
                        self.fill().await;
                    }
                }
                () = shared.dispatch.notified() => {
                    self.backoff = Backoff::new(&shared.pace);
                    self.pass().await;
                }
                () = tokio::time::sleep_until(settle), if self.settle.is_some() => self.fill().await,
                () = tokio::time::sleep_until(second_look.map_or(poll, |at| at.min(poll))) => {
                    // Without a look at the queue an idle control would keep its workers from leaving when idle.
                    let due = second_look.is_some_and(|at| at <= Instant::now());
                    if self.look().await.is_some_and(|stats| stats.ready > 0) || due {
                        (self.again, self.rested) = (None, None);
                        self.pass().await;
                    }
                    let members = shared.fleet.members();
                    self.roster.keep(&members);
                    self.shelf.keep(&members);
                    poll = Instant::now() + shared.pace.poll;
                }
            }
        }
    }

    /// When a worker that had no room or rested is asked again, if that is before the poll.
    fn second_look(&self) -> Option<Instant> {
        self.rested.into_iter().chain(self.again).min()
    }

    async fn look(&mut self) -> Option<QueueStats> {
        let stats = self.shared.store.stats().await.ok()?;
        self.clearing.wanted(stats.solo);
        Some(stats)
    }

    /// Asks everyone who may have room; claims at once if nobody has to be asked.
    ///
    /// While the queue is known to be deep it is not looked at; while it may be empty that costs nothing, and spares
    /// workers reservations that nobody uses and that keep them from leaving when idle. Nor is it looked at while every
    /// slot is taken: each submission comes here, and a look at a queue costs more the longer it is.
    async fn pass(&mut self) {
        self.waiting = None;
        if self.queue == Queue::Empty
            && self.has_room(Instant::now())
            && let Some(stats) = self.look().await
        {
            let shared = stats.ready.saturating_sub(stats.solo);
            self.waiting = Some(u32::try_from(shared).unwrap_or(u32::MAX));
        }
        if self.waiting == Some(0) && !self.clearing.is_wanted() {
            return;
        }
        self.ask();
        if self.asking.awaits() {
            self.settle.get_or_insert_with(|| Instant::now() + self.shared.pace.settle);
        } else {
            self.fill().await;
        }
    }

    /// Whether a worker may have a slot that no run takes. One that is reserved already is as good as a free one.
    fn has_room(&self, now: Instant) -> bool {
        let runs = &self.shared.runs;
        let room = |ready: Ready| !runs.alone_on(ready.boot) && ready.slots > runs.count_on(ready.boot);
        self.shared.fleet.members().iter().any(|member| member.ready(now).is_some_and(room))
    }

    fn ask(&mut self) {
        let now = Instant::now();
        let members = self.shared.fleet.members();
        self.clearing.choose(&members, &self.shared.runs, now);
        self.rested = None;
        for member in members.iter() {
            if self.asking.is_asked(member) {
                continue;
            }
            let Some(ready) = member.ready(now) else {
                let rested = member.rests_until().filter(|until| *until > now);
                self.rested = self.rested.into_iter().chain(rested).min();
                self.shelf.forget(member);
                continue;
            };
            let free = self.room(member, &ready, now);
            if free > 0 {
                let session = *self.shared.session.borrow();
                self.asking.ask(member, free, session, self.shared.pace.call);
            }
        }
    }

    /// How many slots more to ask for.
    fn room(&self, member: &Arc<Member>, ready: &Ready, now: Instant) -> u32 {
        let wanted = match self.clearing.is_for(member) {
            true if self.shared.runs.count_on(ready.boot) > 0 => 0,
            true => u32::MAX,
            false => self.waiting.unwrap_or(u32::MAX),
        };
        self.free(member, ready, now).min(wanted).min(MOST_SLOTS)
    }

    /// Slots that neither runs nor reservations hold.
    fn free(&self, member: &Arc<Member>, ready: &Ready, now: Instant) -> u32 {
        let runs = &self.shared.runs;
        if runs.alone_on(ready.boot) {
            return 0;
        }
        ready.slots.saturating_sub(runs.count_on(ready.boot).saturating_add(self.shelf.of(member, now)))
    }

    fn answered(&mut self, Answer { member, wanted, result }: Answer) {
        self.asking.answered(&member);
        match result {
            Ok(mut reserved) => {
                let until = Instant::now() + self.shared.pace.reservation;
                let most = usize::try_from(wanted).unwrap_or(usize::MAX);
                if reserved.reservations.len() > most {
                    tracing::error!(address = %member.address, wanted, granted = reserved.reservations.len(), "worker grants more slots than it was asked for; the rest is not used");
                    reserved.reservations.truncate(most);
                }
                if reserved.draining || member.boot() != Some(reserved.boot) {
                    member.poke.notify_one();
                } else if reserved.reservations.len() < most {
                    self.again = Some(Instant::now() + self.backoff.step());
                }
                for id in reserved.reservations {
                    self.shelf.put(Slot { member: Arc::clone(&member), boot: reserved.boot, id, until });
                }
            }
            Err(error) => {
                tracing::debug!(address = %member.address, %error, "no reservation");
                member.poke.notify_one();
                // Another one has to be cleared: the task that waits for it has waited for its worker's death already.
                if self.clearing.is_for(&member) {
                    self.again = Some(Instant::now() + self.backoff.step());
                }
            }
        }
    }

    /// Claims for all reservations at hand, and goes on while that finds work.
    async fn fill(&mut self) {
        self.settle = None;
        self.asking.settle();
        loop {
            self.claim_alone().await;
            let slots = self.shelf.take(BATCH, self.clearing.member(), Instant::now());
            if slots.is_empty() {
                self.shared.wakes.look();
                return;
            }
            if self.claim(slots).await == Queue::Empty {
                self.hand_back();
                return;
            }
            self.ask();
            if self.asking.awaits() {
                self.settle = Some(Instant::now() + self.shared.pace.settle);
                return;
            }
        }
    }

    /// Gives back what no task filled, where other controls may have tasks for it.
    fn hand_back(&mut self) {
        if self.shared.store.sole() || self.clearing.is_wanted() {
            return;
        }
        let (session, limit) = (*self.shared.session.borrow(), self.shared.pace.call);
        for slots in self.shelf.clear_out() {
            let Some(member) = slots.front().map(|slot| Arc::clone(&slot.member)) else { continue };
            let ids: Vec<_> = slots.iter().map(|slot| slot.id).collect();
            // Best effort: what does not arrive lapses.
            self.shared.spawn("hand back", async move {
                let _ = bounded(limit, member.client.hand_back(&ids, session)).await;
            });
        }
    }

    async fn claim(&mut self, slots: Vec<Slot>) -> Queue {
        let (claimed, unused) = self.claim_as(Company::Shared, slots).await;
        let fresh = u32::try_from(claimed.len()).unwrap_or(u32::MAX);
        self.waiting = self.waiting.map(|waiting| waiting.saturating_sub(fresh));
        let filled = unused.is_empty() && fresh > 0 && self.waiting != Some(0);
        self.queue = if filled { Queue::MaybeMore } else { Queue::Empty };
        for slot in unused {
            self.shelf.put(slot);
        }
        for (claimed, slot) in claimed {
            self.shelf.used(&slot.member);
            start(&self.shared, claimed, slot, Company::Shared).await;
        }
        self.queue
    }

    /// A task that must run alone, for a worker that is clear.
    async fn claim_alone(&mut self) {
        let now = Instant::now();
        let Some(member) = self.clearing.member().cloned() else { return };
        let Some(ready) = member.ready(now) else { return };
        let clear = self.shared.runs.count_on(ready.boot) == 0 && self.shelf.of(&member, now) >= ready.slots;
        let Some(slot) = clear.then(|| self.shelf.one_of(&member, now)).flatten() else { return };
        let (claimed, unused) = self.claim_as(Company::Alone, vec![slot]).await;
        for slot in unused {
            self.shelf.put(slot);
        }
        self.clearing.used(!claimed.is_empty());
        for (claimed, slot) in claimed {
            let company = if claimed.class.is_solo() { Company::Alone } else { Company::Shared };
            if company == Company::Alone {
                // The worker grants nothing else until it has ended.
                self.shelf.forget(&member);
            }
            start(&self.shared, claimed, slot, company).await;
        }
    }

    /// Claims a task for each slot; those that got none come back.
    async fn claim_as(&mut self, company: Company, slots: Vec<Slot>) -> (Vec<(Claimed, Slot)>, Vec<Slot>) {
        let members: Vec<_> = slots.iter().map(|slot| Arc::clone(&slot.member)).collect();
        self.roster.note(&self.shared, &members).await;
        let mut offered: BTreeMap<RunId, Slot> = BTreeMap::new();
        let (mut grants, mut unused) = (Vec::new(), Vec::new());
        for slot in slots {
            // A reservation of an incarnation that is gone is worth nothing.
            let Some(Known { worker, can }) = slot.member.known(slot.boot) else { continue };
            if !self.roster.knows(&slot.member, slot.boot) {
                unused.push(slot);
                continue;
            }
            let run = RunId::from_uuid(self.shared.ids.random());
            let can = can.with(self.shared.folder());
            grants.push(Grant { worker, boot: slot.boot, can, company, runs: vec![run] });
            offered.insert(run, slot);
        }
        let mut filled = Vec::new();
        for claimed in insist(&self.shared, &grants).await {
            match offered.remove(&claimed.key.run) {
                Some(slot) => filled.push((claimed, slot)),
                None => {
                    tracing::error!(run = %claimed.key.run, "the store claimed for a run that was not offered");
                }
            }
        }
        unused.extend(offered.into_values());
        (filled, unused)
    }
}

/// Says the claim until it is answered: after an unknown outcome, the same runs again.
async fn insist(shared: &Shared, grants: &[Grant]) -> Vec<Claimed> {
    let mut backoff = Backoff::new(&shared.pace);
    while !grants.is_empty() {
        let session = *shared.session.borrow();
        match shared.store.claim(session, grants, shared.clock.now()).await {
            Ok(claimed) => return claimed,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot claim, trying again");
                let wait = tokio::time::sleep(backoff.step());
                if shared.lifecycle.soft().run_until_cancelled(wait).await.is_none() {
                    return Vec::new();
                }
            }
        }
    }
    Vec::new()
}

async fn start(shared: &Arc<Shared>, claimed: Claimed, slot: Slot, company: Company) {
    let live = shared.hub.channel(claimed.key.job).await;
    if !shared.is_in_force(claimed.key.session) {
        return;
    }
    let guard = shared.runs.hold(NewRun {
        key: claimed.key,
        member: slot.member,
        boot: slot.boot,
        since: shared.clock.now(),
        company,
        live,
    });
    shared.spawn("driver", driver::drive(Arc::clone(shared), guard, claimed, slot.id));
}

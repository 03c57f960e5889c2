//! The dispatcher: fills free slots with ready tasks.
//!
//! A pass asks every worker that may have room for reservations, all at once; as soon as they answered (or after a
//! short wait for the slow ones) it claims as many tasks as there are reservations and starts a driver for each. So
//! nothing is claimed that has no place to run, and a worker that never answers delays nobody.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::driver;
use super::fleet::{Member, bounded};
use super::reservations::{Reservations, Slot};
use super::runs::NewRun;
use super::settings::Backoff;
use super::shared::Shared;
use crate::domain::{Abilities, RunId};
use crate::rpc::CallError;
use crate::rpc::wire::Reserved;
use crate::store::{Claimed, Company, Grant};

/// Most tasks claimed in one statement.
const BATCH: usize = 64;

/// Who was asked for how many slots, and what it said.
type Answer = (Arc<Member>, u32, Result<Reserved, CallError>);

/// Dispatches until the soft stop. Then nothing more is claimed.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut dispatcher = Dispatcher {
        shared: Arc::clone(&shared),
        shelf: Reservations::default(),
        asked: FuturesUnordered::new(),
        asking: Vec::new(),
        awaited: Vec::new(),
        settle: None,
        again: None,
        backoff: Backoff::new(&shared.pace),
        queue: Queue::Empty,
        waiting: None,
    };
    dispatcher.work().await;
    shared.runs.close();
}

struct Dispatcher {
    shared: Arc<Shared>,
    shelf: Reservations,
    /// Calls on their way; each bounded.
    asked: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Who they were sent to.
    asking: Vec<Arc<Member>>,
    /// Those of them that this pass waits for.
    awaited: Vec<Arc<Member>>,
    /// Until when it waits for them.
    settle: Option<Instant>,
    /// A worker granted less than we think it has: it may still be putting an ended run away.
    again: Option<Instant>,
    backoff: Backoff,
    /// What the last claim left.
    queue: Queue,
    /// Tasks that wait, as far as is known: nobody is asked for more slots.
    waiting: Option<u32>,
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
                Some(answer) = self.asked.next() => {
                    self.answered(answer);
                    // Answers that come too late for their pass are used as they come.
                    if self.awaited.is_empty() {
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
                    if second_look.is_some_and(|at| at <= Instant::now()) || shared.store.stats().await.is_ok_and(|stats| stats.ready > 0) {
                        self.again = None;
                        self.pass().await;
                    }
                    poll = Instant::now() + shared.pace.poll;
                }
            }
        }
    }

    /// When a worker that had no room or rested is asked again, if that is before the poll.
    fn second_look(&self) -> Option<Instant> {
        let now = Instant::now();
        let rests = |member: &Arc<Member>| member.seen().rests_until.filter(|until| *until > now);
        self.shared.fleet.members().iter().filter_map(rests).chain(self.again).min()
    }

    /// Asks everyone who may have room; claims at once if nobody has to be asked.
    ///
    /// While the queue is known to be deep it is not looked at; while it may be empty that costs nothing, and spares
    /// workers reservations that nobody uses and that keep them from leaving when idle.
    async fn pass(&mut self) {
        self.waiting = None;
        if self.queue == Queue::Empty
            && let Ok(stats) = self.shared.store.stats().await
        {
            self.waiting = Some(u32::try_from(stats.ready).unwrap_or(u32::MAX));
        }
        if self.waiting == Some(0) {
            return;
        }
        self.ask();
        if self.awaited.is_empty() {
            self.fill().await;
        } else {
            self.settle.get_or_insert_with(|| Instant::now() + self.shared.pace.settle);
        }
    }

    fn ask(&mut self) {
        let now = Instant::now();
        for member in self.shared.fleet.members().iter() {
            if self.asking.iter().any(|known| Arc::ptr_eq(known, member)) {
                continue;
            }
            let Some((_, _, slots)) = member.ready(now) else {
                self.shelf.forget(member);
                continue;
            };
            let taken = self.shared.runs.count_on(member).saturating_add(self.shelf.of(member, now));
            let free = slots.saturating_sub(taken).min(self.waiting.unwrap_or(u32::MAX));
            if free > 0 {
                let (member, session) = (Arc::clone(member), *self.shared.session.borrow());
                let limit = self.shared.pace.call;
                self.asking.push(Arc::clone(&member));
                self.awaited.push(Arc::clone(&member));
                self.asked.push(Box::pin(async move {
                    let answer = bounded(limit, member.client.reserve(free, session)).await;
                    (member, free, answer)
                }));
            }
        }
    }

    fn answered(&mut self, (member, wanted, answer): Answer) {
        self.asking.retain(|known| !Arc::ptr_eq(known, &member));
        self.awaited.retain(|known| !Arc::ptr_eq(known, &member));
        match answer {
            Ok(reserved) => {
                let until = Instant::now() + self.shared.pace.reservation;
                let known = member.seen().report.is_some_and(|report| report.boot == reserved.boot);
                if reserved.draining || !known {
                    member.poke.notify_one();
                } else if reserved.reservations.len() < usize::try_from(wanted).unwrap_or(usize::MAX) {
                    self.again = Some(Instant::now() + self.backoff.step());
                }
                for id in reserved.reservations {
                    self.shelf.put(Slot { member: Arc::clone(&member), boot: reserved.boot, id, until });
                }
            }
            Err(error) => {
                tracing::debug!(address = %member.address, %error, "no reservation");
                member.poke.notify_one();
            }
        }
    }

    /// Claims for all reservations at hand, and goes on while that finds work.
    async fn fill(&mut self) {
        self.settle = None;
        self.awaited.clear();
        loop {
            let slots = self.shelf.take(BATCH, Instant::now());
            if slots.is_empty() {
                self.shared.wakes.look();
                return;
            }
            if self.claim(slots).await == Queue::Empty {
                return;
            }
            self.ask();
            if !self.awaited.is_empty() {
                self.settle = Some(Instant::now() + self.shared.pace.settle);
                return;
            }
        }
    }

    async fn claim(&mut self, slots: Vec<Slot>) -> Queue {
        let mut offered: HashMap<RunId, Slot> = HashMap::new();
        let mut grants = Vec::new();
        for slot in slots {
            let report = slot.member.seen().report;
            // A reservation of an incarnation that is gone is worth nothing.
            if let Some(report) = report.filter(|report| report.boot == slot.boot) {
                let run = RunId::from_uuid(self.shared.ids.random());
                grants.push(Grant {
                    worker: report.worker,
                    boot: slot.boot,
                    can: Abilities::ALL,
                    company: Company::Shared,
                    runs: vec![run],
                });
                offered.insert(run, slot);
            }
        }
        let mut fresh = 0;
        for claimed in insist(&self.shared, &grants).await {
            if let Some(slot) = offered.remove(&claimed.key.run) {
                fresh += 1;
                self.shelf.used(&slot.member);
                start(&self.shared, claimed, slot).await;
            } else {
                tracing::error!(run = %claimed.key.run, "the store claimed for a run that was not offered");
            }
        }
        self.waiting = self.waiting.map(|waiting| waiting.saturating_sub(fresh));
        let filled = offered.is_empty() && fresh > 0 && self.waiting != Some(0);
        let queue = if filled { Queue::MaybeMore } else { Queue::Empty };
        for slot in offered.into_values() {
            self.shelf.put(slot);
        }
        self.queue = queue;
        queue
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

async fn start(shared: &Arc<Shared>, claimed: Claimed, slot: Slot) {
    let live = shared.hub.channel(claimed.key.job).await;
    let guard = shared.runs.hold(NewRun {
        key: claimed.key,
        member: slot.member,
        boot: slot.boot,
        since: shared.clock.now(),
        live,
    });
    shared.spawn("driver", driver::drive(Arc::clone(shared), guard, claimed, slot.id));
}

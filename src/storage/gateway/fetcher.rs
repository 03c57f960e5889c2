//! The one owner of a source's fetches: it starts, shortens and gives up ranges as readers come, wait and go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fetch::{Fetch, Outcome, Track};
use super::schedule::{self, Flight, Pace, Reading, Rest, Step, Want};
use super::spool::Spool;
use super::{BLOCK, FetchLimits, Traffic};
use crate::domain::{Code, Failure};
use crate::storage::origin::{ByteStream, Extent, Origin, Pin};

/// Begun blocks kept after a fetch was given up; the oldest goes when there are more. Two may be under way at a time,
/// so more than a few are stale.
const PARTIALS: usize = 8;

/// What will be here this soon at the pace it had so far is let come.
const NEARLY: Duration = Duration::from_millis(100);

/// How much beyond what readers ask for is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fill {
    /// Nothing.
    Nothing,
    /// All, when nothing else is to be done.
    WhenFree,
    /// All, and somebody waits for it: failing to is a failure of the source.
    Required,
}

/// What a source's fetcher, readers and owner share.
pub(super) struct Shared {
    pub(super) spool: Spool,
    pub(super) origin: Arc<dyn Origin>,
    pub(super) pin: Pin,
    pub(super) limits: FetchLimits,
    demand: Mutex<Demand>,
    /// Demand changed.
    poke: Notify,
    failure: watch::Sender<Option<Failure>>,
    fetched: AtomicU64,
    served: AtomicU64,
}

struct Demand {
    wants: BTreeMap<u64, Want>,
    next: u64,
    fill: Fill,
    partials: Vec<(u64, Vec<u8>)>,
}

impl Shared {
    pub(super) fn new(spool: Spool, origin: Arc<dyn Origin>, pin: Pin, limits: FetchLimits) -> Self {
        let demand = Demand { wants: BTreeMap::new(), next: 0, fill: Fill::Nothing, partials: Vec::new() };
        Self {
            spool,
            origin,
            pin,
            limits,
            demand: Mutex::new(demand),
            poke: Notify::new(),
            failure: watch::Sender::new(None),
            fetched: AtomicU64::new(0),
            served: AtomicU64::new(0),
        }
    }

    /// A new reader's number.
    pub(super) fn enter(&self, want: Want) -> u64 {
        let mut demand = self.demand();
        let id = demand.next;
        demand.next += 1;
        demand.wants.insert(id, want);
        drop(demand);
        self.poke.notify_one();
        id
    }

    pub(super) fn want(&self, reader: u64, want: Want) {
        let before = self.demand().wants.insert(reader, want);
        if before != Some(want) {
            self.poke.notify_one();
        }
    }

    pub(super) fn leave(&self, reader: u64) {
        self.demand().wants.remove(&reader);
        self.poke.notify_one();
    }

    /// What readers want. Where not all of the source has room, their read-ahead takes no more than half of it together,
    /// so that there is always a block to give up that nobody is about to read.
    pub(super) fn wants(&self) -> Vec<Want> {
        let mut wants: Vec<_> = self.demand().wants.values().copied().collect();
        if let Some(bound) = self.spool.bound() {
            let share = (bound / 2 / (wants.len() as u64).max(1)).max(1);
            for want in &mut wants {
                want.window = want.window.min(share);
            }
        }
        wants
    }

    /// Asks for all of the source, which means nothing where there is no room for that.
    pub(super) fn want_all(&self, fill: Fill) {
        if self.spool.bound().is_some() {
            return;
        }
        let mut demand = self.demand();
        demand.fill = demand.fill.max(fill);
        drop(demand);
        self.poke.notify_one();
    }

    /// Ends the wait for the whole source: from now on readers decide what is fetched.
    pub(super) fn leave_rest(&self) {
        self.demand().fill = Fill::Nothing;
    }

    /// Waits until all is here.
    pub(super) async fn whole(&self) -> Result<(), Failure> {
        let mut arrivals = self.spool.arrivals();
        loop {
            arrivals.borrow_and_update();
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            if self.spool.is_whole() {
                return Ok(());
            }
            tokio::select! {
                _ = arrivals.changed() => {}
                failure = self.failed() => return Err(failure),
            }
        }
    }

    pub(super) async fn failed(&self) -> Failure {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|found| found.clone()) {
            Ok(Some(failure)) => failure,
            // The sender lives in `self`, so it is never gone while this waits.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.borrow().clone()
    }

    /// The first failure stays: later ones are its consequences.
    pub(super) fn fail(&self, failure: Failure) {
        self.failure.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                tracing::warn!(code = %failure.code, detail = %failure.detail, "the source failed");
                *slot = Some(failure);
            }
            first
        });
    }

    pub(super) fn count_fetched(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_served(&self, bytes: u64) {
        self.served.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn traffic(&self) -> Traffic {
        let present = self.spool.present_bytes();
        let fetched = self.fetched.load(Ordering::Relaxed);
        Traffic { fetched, served: self.served.load(Ordering::Relaxed), present }
    }

    /// The beginning of a block that an earlier fetch was given up in.
    pub(super) fn take_partial(&self, block: u64) -> Option<Vec<u8>> {
        let mut demand = self.demand();
        let index = demand.partials.iter().position(|(number, _)| *number == block)?;
        Some(demand.partials.remove(index).1)
    }

    pub(super) fn keep_partial(&self, block: u64, bytes: Vec<u8>) {
        let partials = &mut self.demand().partials;
        partials.retain(|(number, _)| *number != block);
        if partials.len() >= PARTIALS {
            partials.remove(0);
        }
        partials.push((block, bytes));
    }

    fn demand(&self) -> MutexGuard<'_, Demand> {
        self.demand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetches until the source is whole or lost. Dropping this future drops every fetch.
pub(super) async fn drive(shared: Arc<Shared>, extent: Extent, body: ByteStream) {
    let mut fetcher =
        Fetcher { shared, extent, flights: BTreeMap::new(), tasks: JoinSet::new(), paused: None };
    fetcher.begin(body);
    while !fetcher.shared.spool.is_whole() {
        fetcher.settle();
        let shared = Arc::clone(&fetcher.shared);
        tokio::select! {
            () = shared.poke.notified() => {}
            Some(ended) = fetcher.tasks.join_next_with_id() => {
                let (id, outcome) = match ended {
                    Ok(ended) => ended,
                    Err(error) => {
                        let failure = Failure::new(Code::Internal, "Fetching the source failed inside the server.");
                        (error.id(), Outcome::Refused(failure.with_detail(error.to_string())))
                    }
                };
                if let Err(failure) = fetcher.ended(id, outcome) {
                    shared.fail(failure);
                    return;
                }
            }
        }
    }
    // A whole body is whole only when nothing follows what it declared.
    while let Some(ended) = fetcher.tasks.join_next().await {
        if let Ok(Outcome::Refused(failure)) = ended {
            fetcher.shared.fail(failure);
        }
    }
}

struct Fetcher {
    shared: Arc<Shared>,
    extent: Extent,
    flights: BTreeMap<Id, Arc<Track>>,
    tasks: JoinSet<Outcome>,
    /// Blocks that had arrived when a fetch that nobody waited for had used up its tries: until more arrive, only what a
    /// reader waits for is fetched.
    paused: Option<u64>,
}

impl Fetcher {
    fn begin(&mut self, body: ByteStream) {
        let end = match &self.extent {
            Extent::Range(range) => range.end.div_ceil(BLOCK),
            Extent::Whole => self.shared.spool.table().here.count(),
        };
        self.start(0, end, Some(body));
    }

    fn start(&mut self, at: u64, end: u64, body: Option<ByteStream>) {
        let cancel = CancellationToken::new();
        let track = Arc::new(Track {
            from: (at, Instant::now()),
            at: AtomicU64::new(at),
            end: AtomicU64::new(end),
            cancel,
        });
        let shared = Arc::clone(&self.shared);
        let extent = self.extent.clone();
        let fetch = Fetch { shared, track: Arc::clone(&track), body, extent, block: Vec::new() };
        let task = self.tasks.spawn(fetch.run());
        self.flights.insert(task.id(), track);
    }

    /// Starts, shortens and cancels until nothing is left to be changed.
    fn settle(&mut self) {
        // Without ranges there is one fetch, which brings everything in order.
        if self.extent == Extent::Whole {
            return;
        }
        let arrived = self.shared.spool.arrived();
        if self.paused.is_some_and(|before| arrived > before) {
            self.paused = None;
        }
        let mut wants = self.shared.wants();
        let fill = self.shared.demand().fill;
        let rest = if fill == Fill::Nothing { Rest::Leave } else { Rest::Fetch };
        let rest = if self.paused.is_some() {
            wants.retain(|want| want.state == Reading::Waiting);
            for want in &mut wants {
                want.window = 1;
            }
            Rest::Leave
        } else {
            rest
        };
        loop {
            let running: Vec<_> =
                self.flights.values().filter(|t| !t.cancel.is_cancelled()).cloned().collect();
            let flights: Vec<_> = running.iter().map(|track| flight(track)).collect();
            let step = schedule::step(&self.shared.spool.table().here, &wants, rest, &flights);
            match step {
                Step::Wait => return,
                Step::Cancel(index) => running[index].cancel.cancel(),
                Step::Shorten(index, end) => running[index].end.store(end, Ordering::Relaxed),
                Step::Start(range) => self.start(range.start, range.end, None),
            }
        }
    }

    fn ended(&mut self, id: Id, outcome: Outcome) -> Result<(), Failure> {
        let Some(track) = self.flights.remove(&id) else {
            return Ok(());
        };
        match outcome {
            Outcome::Done | Outcome::Cancelled => Ok(()),
            Outcome::Refused(failure) => Err(failure),
            Outcome::Exhausted(failure) => {
                if self.is_needed(flight(&track)) {
                    return Err(failure);
                }
                tracing::debug!(detail = %failure.detail, "reading ahead failed; it is tried again when needed");
                self.paused = Some(self.shared.spool.arrived());
                Ok(())
            }
        }
    }

    /// Whether somebody waits for what this fetch did not bring.
    fn is_needed(&self, lost: Flight) -> bool {
        let demand = self.shared.demand();
        self.extent == Extent::Whole
            || demand.fill == Fill::Required
            || demand.wants.values().any(|w| {
                w.state == Reading::Waiting
                    && lost.at <= w.at
                    && w.at < lost.end
                    && !self.shared.spool.has(w.at)
            })
    }
}

fn flight(track: &Track) -> Flight {
    let (first, since) = track.from;
    let (at, end) = (track.at.load(Ordering::Relaxed), track.end.load(Ordering::Relaxed));
    let (done, left) = (at.saturating_sub(first), end.saturating_sub(at));
    let expected = since.elapsed().as_millis().saturating_mul(u128::from(left));
    let near = done > 0 && expected <= NEARLY.as_millis().saturating_mul(u128::from(done));
    Flight { at, end, pace: if near { Pace::NearlyDone } else { Pace::Slow } }
}

//! The runs this control holds: a leaf table behind a std mutex that is never held across a wait.
//!
//! A run is in the table exactly as long as its driver lives: [`Held`] is taken out when its [`Guard`] drops, however
//! the driver ended. Runs are counted by the incarnation of the worker that they were claimed for: a worker may be
//! known by two addresses, and what an earlier incarnation ran takes no slot of the next one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Live;
use super::fleet::Member;
use crate::domain::{BootId, Company, JobId, RunId, Timestamp};
use crate::store::{Reported, RunKey};

/// A run held by this control.
#[derive(Debug)]
pub(super) struct Held {
    /// How to speak for it.
    pub(super) key: RunKey,
    /// Where it runs.
    pub(super) member: Arc<Member>,
    /// The incarnation it was claimed for.
    pub(super) boot: BootId,
    /// When it was claimed.
    pub(super) since: Timestamp,
    /// Who else may run there meanwhile.
    pub(super) company: Company,
    /// What readers of the job see.
    pub(super) live: Arc<watch::Sender<Live>>,
    /// Forget it and write nothing; stop the worker's run, unless it is `left`.
    pub(super) stop: CancellationToken,
    /// The session that holds it is over: whoever takes the run up finds it going on.
    left: AtomicBool,
    /// A cancel waits for this run's open publications.
    pub(super) cancelling: CancellationToken,
    /// The worker may have lost it: look again.
    pub(super) doubt: Notify,
    accepted: AtomicBool,
}

impl Held {
    /// The worker said that it has the run.
    pub(super) fn accept(&self) {
        self.accepted.store(true, Ordering::Release);
    }

    /// How far it is, if the worker has told.
    pub(super) fn reported(&self) -> Option<Reported> {
        let report = self.live.borrow().report.clone()?;
        Some(Reported { task: self.key.task, job: self.key.job, report })
    }

    /// Whether somebody else may take the run up: then the worker is told nothing.
    pub(super) fn is_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    fn leave(&self) {
        self.left.store(true, Ordering::Release);
        self.stop.cancel();
    }

    /// Whether the worker ever said that it has the run.
    pub(super) fn is_accepted(&self) -> bool {
        self.accepted.load(Ordering::Acquire)
    }
}

/// How much this control still has to do before it may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Runs held.
    pub(super) runs: usize,
    /// Whether the dispatcher may still claim more.
    pub(super) dispatching: bool,
}

/// All runs held.
#[derive(Debug)]
pub(super) struct Runs {
    table: Mutex<Table>,
    load: watch::Sender<Load>,
}

/// Ordered, so that what is done to all of them is done in the same order in every run of a simulation.
#[derive(Debug, Default)]
struct Table {
    runs: BTreeMap<RunId, Arc<Held>>,
    boots: BTreeMap<BootId, Vec<Arc<Held>>>,
}

impl Table {
    fn insert(&mut self, held: &Arc<Held>) -> Option<Arc<Held>> {
        let old = self.runs.insert(held.key.run, Arc::clone(held));
        self.boots.entry(held.boot).or_default().push(Arc::clone(held));
        old
    }

    /// Takes this one out; one that was held again under the same run since stays.
    fn remove(&mut self, held: &Arc<Held>) {
        if let Entry::Occupied(known) = self.runs.entry(held.key.run)
            && Arc::ptr_eq(known.get(), held)
        {
            known.remove();
        }
        if let Entry::Occupied(mut there) = self.boots.entry(held.boot) {
            there.get_mut().retain(|known| !Arc::ptr_eq(known, held));
            if there.get().is_empty() {
                there.remove();
            }
        }
    }
}

impl Runs {
    pub(super) fn new() -> Self {
        Self { table: Mutex::default(), load: watch::Sender::new(Load { runs: 0, dispatching: true }) }
    }

    /// Holds a claimed run until the guard drops. Whoever held the same run for an earlier session lets go of it.
    pub(super) fn hold(self: &Arc<Self>, run: NewRun) -> Guard {
        let held = Arc::new(Held {
            key: run.key,
            member: run.member,
            boot: run.boot,
            since: run.since,
            company: run.company,
            live: run.live,
            stop: CancellationToken::new(),
            left: AtomicBool::new(false),
            cancelling: CancellationToken::new(),
            doubt: Notify::new(),
            accepted: AtomicBool::new(false),
        });
        if let Some(old) = self.table().insert(&held) {
            old.leave();
        }
        self.load.send_modify(|load| load.runs += 1);
        Guard { runs: Arc::clone(self), held }
    }

    /// The runs on one incarnation of a worker.
    pub(super) fn on(&self, boot: BootId) -> Vec<Arc<Held>> {
        self.table().boots.get(&boot).cloned().unwrap_or_default()
    }

    /// How many runs it has from us.
    pub(super) fn count_on(&self, boot: BootId) -> u32 {
        let count = self.table().boots.get(&boot).map_or(0, Vec::len);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Whether it has one that wants no company.
    pub(super) fn alone_on(&self, boot: BootId) -> bool {
        self.table()
            .boots
            .get(&boot)
            .is_some_and(|there| there.iter().any(|held| held.company == Company::Alone))
    }

    /// The runs that were given to a worker at this address, whatever its incarnation.
    pub(super) fn given_to(&self, member: &Arc<Member>) -> Vec<Arc<Held>> {
        self.table().runs.values().filter(|held| Arc::ptr_eq(&held.member, member)).cloned().collect()
    }

    /// Whether a run is still held.
    pub(super) fn holds(&self, run: RunId) -> bool {
        self.table().runs.contains_key(&run)
    }

    /// Every run held, by its job.
    pub(super) fn all(&self) -> Vec<Arc<Held>> {
        self.table().runs.values().cloned().collect()
    }

    /// The progress of every run that has told any.
    pub(super) fn reports(&self) -> Vec<Reported> {
        self.table().runs.values().filter_map(|held| held.reported()).collect()
    }

    /// Stops these runs: their drivers write nothing more.
    pub(super) fn stop(&self, runs: &[RunId]) {
        let table = self.table();
        for held in runs.iter().filter_map(|run| table.runs.get(run)) {
            held.stop.cancel();
        }
    }

    /// Lets go of every run: the session that held them is over. Those that `may_go_on` do, for whoever takes them up.
    pub(super) fn let_go(&self, may_go_on: impl Fn(&Held) -> bool) {
        for held in self.table().runs.values() {
            if may_go_on(held) {
                held.leave();
            } else {
                held.stop.cancel();
            }
        }
    }

    /// Tells the drivers of a job that somebody asked to cancel it.
    pub(super) fn cancelling(&self, job: JobId) {
        for held in self.table().runs.values().filter(|held| held.key.job == job) {
            held.cancelling.cancel();
        }
    }

    /// The dispatcher claims nothing more.
    pub(super) fn close(&self) {
        self.load.send_modify(|load| load.dispatching = false);
    }

    /// How much is left, as it changes.
    pub(super) fn load(&self) -> watch::Receiver<Load> {
        self.load.subscribe()
    }

    /// Resolves when nothing is held and nothing more will be claimed.
    pub(super) async fn drained(&self) {
        let empty = |load: &Load| load.runs == 0 && !load.dispatching;
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self.load.subscribe().wait_for(empty).await;
    }

    /// Nothing panics between the two halves of a change.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is needed to hold a run.
#[derive(Debug)]
pub(super) struct NewRun {
    pub(super) key: RunKey,
    pub(super) member: Arc<Member>,
    pub(super) boot: BootId,
    pub(super) since: Timestamp,
    pub(super) company: Company,
    pub(super) live: Arc<watch::Sender<Live>>,
}

/// Keeps a run in the table.
#[derive(Debug)]
pub(super) struct Guard {
    runs: Arc<Runs>,
    held: Arc<Held>,
}

impl Guard {
    /// The run, for tasks beside its driver.
    pub(super) fn share(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }
}

impl std::ops::Deref for Guard {
    type Target = Held;
    fn deref(&self) -> &Held {
        &self.held
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut table = self.runs.table();
        table.remove(&self.held);
        if !table.runs.contains_key(&self.held.key.run) {
            self.held.live.send_modify(|live| live.report = None);
        }
        drop(table);
        self.runs.load.send_modify(|load| load.runs = load.runs.saturating_sub(1));
    }
}

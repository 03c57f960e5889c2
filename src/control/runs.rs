//! The runs this control holds: a leaf table behind a std mutex that is never held across a wait.
//!
//! A run is in the table exactly as long as its driver lives: [`Held`] is taken out when its [`Guard`] drops, however
//! the driver ended.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Live;
use super::fleet::Member;
use crate::domain::{BootId, JobId, RunId, Timestamp};
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
    /// What readers of the job see.
    pub(super) live: Arc<watch::Sender<Live>>,
    /// Forget it, write nothing, stop the worker's run.
    pub(super) stop: CancellationToken,
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
    table: Mutex<HashMap<RunId, Arc<Held>>>,
    load: watch::Sender<Load>,
}

impl Runs {
    pub(super) fn new() -> Self {
        Self { table: Mutex::default(), load: watch::Sender::new(Load { runs: 0, dispatching: true }) }
    }

    /// Holds a claimed run until the guard drops.
    pub(super) fn hold(self: &Arc<Self>, run: NewRun) -> Guard {
        let held = Arc::new(Held {
            key: run.key,
            member: run.member,
            boot: run.boot,
            since: run.since,
            live: run.live,
            stop: CancellationToken::new(),
            cancelling: CancellationToken::new(),
            doubt: Notify::new(),
            accepted: AtomicBool::new(false),
        });
        self.table().insert(run.key.run, Arc::clone(&held));
        self.load.send_modify(|load| load.runs += 1);
        Guard { runs: Arc::clone(self), held }
    }

    /// The runs on one worker.
    pub(super) fn on(&self, member: &Arc<Member>) -> Vec<Arc<Held>> {
        self.table().values().filter(|held| Arc::ptr_eq(&held.member, member)).cloned().collect()
    }

    /// How many runs one worker has from us.
    pub(super) fn count_on(&self, member: &Arc<Member>) -> u32 {
        let count = self.table().values().filter(|held| Arc::ptr_eq(&held.member, member)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Whether a run is still held.
    pub(super) fn holds(&self, run: RunId) -> bool {
        self.table().contains_key(&run)
    }

    /// The progress of every run that has told any.
    pub(super) fn reports(&self) -> Vec<Reported> {
        self.table().values().filter_map(|held| held.reported()).collect()
    }

    /// Stops these runs: their drivers write nothing more.
    pub(super) fn stop(&self, runs: &[RunId]) {
        let table = self.table();
        for held in runs.iter().filter_map(|run| table.get(run)) {
            held.stop.cancel();
        }
    }

    /// Stops every run: the session that held them is over.
    pub(super) fn stop_all(&self) {
        for held in self.table().values() {
            held.stop.cancel();
        }
    }

    /// Tells the drivers of a job that somebody asked to cancel it.
    pub(super) fn cancelling(&self, job: JobId) {
        for held in self.table().values().filter(|held| held.key.job == job) {
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

    /// A panic elsewhere cannot leave a map half-changed: every change is one insert or one remove.
    fn table(&self) -> MutexGuard<'_, HashMap<RunId, Arc<Held>>> {
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
        self.held.live.send_modify(|live| live.report = None);
        self.runs.table().remove(&self.held.key.run);
        self.runs.load.send_modify(|load| load.runs = load.runs.saturating_sub(1));
    }
}

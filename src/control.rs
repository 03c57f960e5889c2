//! The control role: accepts, plans, dispatches, watches and cleans up.
//!
//! Owns dispatch, the fleet of workers, sessions, live progress and the reconcilers (retention, secrets, garbage).
//! Must not know: HTTP, SQL, ffmpeg, destinations' details. Media never passes through here.
//! Invariant: time never decides safety; every decision about a run is a fenced verb of the store, and an answer of
//! `Lost` makes the control forget the run and stop it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::domain::{BootId, JobId, TaskId, TaskReport, Tenant, Timestamp, WorkerId};
use crate::store::{self, Cancelled, Deleted, DynStore, NewJob, Retried, Submitted};

/// The control as other rooms hold it: cheap to clone, lives as long as the process.
#[derive(Clone)]
pub struct Control {
    store: DynStore,
    _inner: Arc<()>,
}

/// What a reader of one job follows: changes of `revision` say that the stored record changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Live {
    /// Grows with every committed change of the job that this control heard of.
    pub revision: u64,
    /// The latest live report, while a worker runs it.
    pub report: Option<TaskReport>,
}

/// A worker as `GET /workers` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// Its name.
    pub id: WorkerId,
    /// Its incarnation.
    pub boot: BootId,
    /// Where it is reached; `in-process` for `--role all`.
    pub address: String,
    /// Its build.
    pub version: String,
    /// State.
    pub state: WorkerState,
    /// Slots in all.
    pub slots: u32,
    /// Tasks it runs.
    pub running: Vec<RunningTask>,
    /// Encoders it has proved.
    pub encoders: Vec<String>,
    /// ffmpeg's version.
    pub ffmpeg_version: String,
    /// Parts of the sandbox that are active.
    pub sandbox: Vec<String>,
    /// Bytes free where work folders live.
    pub disk_free: u64,
    /// When it last answered.
    pub last_seen: Timestamp,
}

/// Whether a worker takes work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// Takes work.
    Ready,
    /// Finishes what it has.
    Draining,
    /// Does not answer.
    Unreachable,
}

/// A task on a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningTask {
    /// Its job.
    pub job: JobId,
    /// The task.
    pub task: TaskId,
    /// When it was claimed.
    pub since: Timestamp,
    /// Its latest report.
    pub report: Option<TaskReport>,
}

impl Control {
    /// The store, for reads.
    #[must_use]
    pub fn store(&self) -> &DynStore {
        &self.store
    }

    /// Accepts a job and wakes the dispatcher.
    pub async fn submit(&self, job: NewJob) -> store::Result<Submitted> {
        self.store.submit(job).await
    }

    /// Cancels in the record first, then stops the runs.
    pub async fn cancel(&self, tenant: Option<&Tenant>, job: JobId) -> store::Result<Cancelled> {
        let _ = (tenant, job);
        todo!()
    }

    /// Starts the next run of a failed job.
    pub async fn retry(&self, tenant: Option<&Tenant>, job: JobId) -> store::Result<Retried> {
        let _ = (tenant, job);
        todo!()
    }

    /// Deletes, cancelling first.
    pub async fn delete(&self, tenant: Option<&Tenant>, job: JobId) -> store::Result<Deleted> {
        let _ = (tenant, job);
        todo!()
    }

    /// Follows one job. Any number of readers; none can slow anything.
    pub async fn watch(&self, job: JobId) -> watch::Receiver<Live> {
        let _ = job;
        todo!()
    }

    /// The latest live report of a job, if it runs.
    pub async fn report(&self, job: JobId) -> Option<TaskReport> {
        let _ = job;
        todo!()
    }

    /// All workers known.
    pub async fn workers(&self) -> Vec<WorkerView> {
        todo!()
    }
}

//! The durable record: business verbs over jobs, each one transaction.
//!
//! Owns the schema (PROTOCOL §3), the SQL and the sealing of secrets. The only user of sqlx.
//! Must not know: HTTP, gRPC, ffmpeg, destinations. Transitions are pure functions in [`crate::domain::machine`];
//! a store loads the rows, applies one, writes what changed and the effects in the same transaction.
//! Invariant: every write about a run says `task = T and run = R and session = S`; zero rows is [`Fenced::Lost`],
//! an answer and not an error (PROTOCOL F1).
//! To add a verb: the trait, both implementations, a case in `conformance`.

mod claims;
mod columns;
#[cfg(test)]
mod conformance;
mod delta;
mod doomed;
mod outbox;
mod postgres;
mod records;
mod row;
mod seal;
mod shared;
mod sqlite;
mod steps;

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::machine::{Policy, rank};
use crate::domain::{
    Abilities, Aggregate, Attempt, BootId, Company, Epoch, Event, Failure, Folder, IdSource, JobId,
    JobRecord, JobSecrets, JobSpec, JobStatus, MediaInfo, OutputIndex, OutputRecord, OutputSpec,
    OutputStatus, Progress, Publication, PublicationId, Results, RunId, RunNumber, SessionId, SystemIds,
    TaskClass, TaskId, TaskKind, TaskRecord, TaskReport, TaskState, Tenant, Timestamp, UploadId, Waste,
    WorkerId,
};

pub use crate::domain::machine::{
    Cancelled, Deleted, Fenced, OutputDone, Permit, RequeueReason, Retried, RunKey,
};
pub use doomed::{Doomed, DoomedJob};
pub use outbox::{Among, Letter, Letters, Outbox, OutboxStats, Redelivered, Take};
pub use postgres::{Place, PlaceError, PostgresStore};
pub use seal::{SealKeys, SealKeysError};
pub use sqlite::SqliteStore;

/// A store that any room can hold.
pub type DynStore = Arc<dyn JobStore>;

/// Where the sealing keys come from.
#[derive(Debug, Default)]
pub enum Keys {
    /// The data folder's own, made at the first start (an ephemeral store's live in memory).
    #[default]
    DataFolder,
    /// The operator's (`secrets.keys`).
    Configured(SealKeys),
}

/// How a store is opened.
pub struct Options {
    /// The sealing keys.
    pub keys: Keys,
    /// Jobs that may wait; past it submissions are refused (`queue.max_pending`). `None` = no bound, 0 = a job is
    /// taken only while one of the offered slots is free.
    pub max_pending: Option<u64>,
    /// Failed runs after which a job fails (`queue.max_attempts`).
    pub max_attempts: u32,
    /// Where session ids and jitter come from.
    pub ids: Arc<dyn IdSource>,
    /// Who writes what receivers are told; `None` = nobody is told anything.
    pub letters: Option<Arc<dyn Letters>>,
    /// What becomes of published results when retention removes their job (`retention.delete_results`).
    pub results: Results,
}

impl Default for Options {
    fn default() -> Self {
        let max_attempts = Policy::default().max_attempts;
        Self {
            keys: Keys::default(),
            max_pending: None,
            max_attempts,
            ids: Arc::new(SystemIds),
            letters: None,
            results: Results::Keep,
        }
    }
}

/// Why a verb could not be carried out. `Unavailable` is worth a retry; the others are not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached or is overloaded.
    #[error("the store is not available while {doing}")]
    Unavailable {
        /// What we were doing.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The disk is full or read-only.
    #[error("the store cannot write while {doing}")]
    NoSpace {
        /// What we were doing.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row contradicts the schema's promises: a defect or a foreign hand.
    #[error("inconsistent row in {table}: {what}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Another process owns the data folder.
    #[error("the data folder {folder} is in use by another flux{}", holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// The folder.
        folder: String,
        /// The holder, where known.
        holder: Option<u32>,
    },
    /// The schema is newer than this build.
    #[error("the data was written by a newer flux (schema {found}, this build knows {known})")]
    NewerSchema {
        /// Found.
        found: i64,
        /// Known.
        known: i64,
    },
    /// The sealing key is not the one the data was sealed with.
    #[error("the key in {place} does not open this data folder's secrets")]
    WrongKey {
        /// Where the key came from.
        place: String,
    },
    /// Opening failed before anything was read.
    #[error("cannot open the store: {what}")]
    Open {
        /// What we were doing.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A store's answer.
pub type Result<T> = std::result::Result<T, Error>;

/// A job to accept.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id, from the caller's id source.
    pub id: JobId,
    /// Its first task's id.
    pub task: TaskId,
    /// Its owner.
    pub tenant: Tenant,
    /// What was asked.
    pub spec: JobSpec,
    /// What must be sealed.
    pub secrets: JobSecrets,
    /// The client's key, if any.
    pub idempotency: Option<Idempotency>,
    /// When it was accepted.
    pub now: Timestamp,
}

impl NewJob {
    /// The record as it is once the job is accepted, so that the answer to its client needs no reading back.
    #[must_use]
    pub fn accepted(&self) -> Aggregate {
        let output = |(index, spec): (OutputIndex, &OutputSpec)| OutputRecord {
            index,
            status: OutputStatus::Pending,
            spec: spec.clone(),
            result: None,
            failure: None,
            publication: None,
        };
        let job = JobRecord {
            id: self.id,
            tenant: self.tenant.clone(),
            status: JobStatus::Queued,
            run: RunNumber(1),
            seq: 1,
            cancel_at: None,
            spec: self.spec.clone(),
            media: None,
            progress: Progress::ZERO,
            failure: None,
            created_at: self.now,
            started_at: None,
            finished_at: None,
        };
        let task = TaskRecord {
            id: self.task,
            job_run: job.run,
            kind: TaskKind::Transcode,
            state: TaskState::Ready,
            class: TaskClass::of(&self.spec),
            rank: rank(self.now, self.spec.priority),
            not_before: None,
            epoch: Epoch(0),
            hold: None,
            charged: 0,
            losses: 0,
            crashes: 0,
        };
        let outputs = (0..).map(OutputIndex).zip(&self.spec.outputs).map(output).collect();
        Aggregate { job, outputs, tasks: vec![task], publications: Vec::new() }
    }
}

/// An `Idempotency-Key` with the fingerprint of the body (HMAC: bodies hold passwords).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The client's key.
    pub key: String,
    /// HMAC-SHA256 of the canonical body.
    pub fingerprint: Vec<u8>,
    /// Until when the key is remembered (24 h).
    pub until: Timestamp,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// A new job; committed before this answer.
    Created,
    /// The key was used before with the same body: that job.
    Replayed(JobId),
    /// The key was used before with another body.
    KeyReused,
    /// The key's job was deleted.
    KeyGone,
    /// `queue.max_pending` jobs wait already; nothing was stored.
    QueueFull,
}

/// Slots that workers granted and a session wants to fill.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Who will run it.
    pub worker: WorkerId,
    /// That worker's incarnation.
    pub boot: BootId,
    /// What that worker can do: it gets no task that needs more.
    pub can: Abilities,
    /// Who else is there.
    pub company: Company,
    /// A fresh random run id per slot: as many tasks are claimed at most.
    pub runs: Vec<RunId>,
}

/// A worker as the record knows it, so that any control can find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSeen {
    /// Its name.
    pub worker: WorkerId,
    /// Its incarnation.
    pub boot: BootId,
    /// Where it is reached (`host:port`).
    pub address: String,
    /// When some control last heard of it.
    pub seen_at: Timestamp,
}

/// A task taken over from a session that is over: same run, same epoch, perhaps still running.
#[derive(Debug, Clone)]
pub struct Taken {
    /// What its holder knew of it, as of now.
    pub claimed: Claimed,
    /// Where its worker was last reached; `None` if no control ever wrote that down.
    pub address: Option<String>,
    /// When the run was claimed.
    pub since: Timestamp,
}

/// Something that one control at a time does for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Duty {
    /// Starting workers.
    Waking,
}

impl Duty {
    /// Its name in the record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waking => "waking",
        }
    }
}

/// How far a running task has come, for readers on any control.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    /// The task.
    pub task: TaskId,
    /// Its job.
    pub job: JobId,
    /// Its latest report; the high-water mark never falls.
    pub report: TaskReport,
}

/// What a reader on another control than the job's own has to go by.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulse {
    /// The job.
    pub job: JobId,
    /// Sequence number of its last event.
    pub seq: i64,
    /// Its status.
    pub status: JobStatus,
    /// Whether somebody asked to cancel it.
    pub cancel_asked: bool,
    /// The latest report of its run, while it runs; `None` from a store that only one control uses.
    pub report: Option<TaskReport>,
}

/// A claimed task, ready to be started.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// How to speak for it.
    pub key: RunKey,
    /// The worker it was claimed for.
    pub worker: WorkerId,
    /// That worker's incarnation.
    pub boot: BootId,
    /// Order of this run.
    pub epoch: Epoch,
    /// What it does.
    pub kind: TaskKind,
    /// Its owner.
    pub tenant: Tenant,
    /// The job's spec.
    pub spec: JobSpec,
    /// The opened secrets.
    pub secrets: JobSecrets,
    /// Outputs already completed (by an earlier run): not to be done again.
    pub completed: Vec<OutputIndex>,
    /// Open publications of earlier runs: destroy or adopt before anything else (PROTOCOL F3).
    pub open: Vec<Publication>,
    /// Whether the job is being cancelled or failing: only resolve `open`, encode nothing.
    pub resolve_only: bool,
    /// Earlier claims of this task that ended badly: verification is `full` when above 0.
    pub earlier_failures: u32,
    /// What the task needs of its worker.
    pub class: TaskClass,
}

/// A job as stored, with its history of runs.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredJob {
    /// Job, outputs, tasks and publications.
    pub aggregate: Aggregate,
    /// Runs in order.
    pub attempts: Vec<Attempt>,
    /// Jobs of the same tenant ahead of it, exact to 1,000; `None` unless queued.
    pub queue_position: Option<u32>,
}

/// Which jobs to list: newest first.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only these owners; `None` = all (an admin).
    pub tenant: Option<Tenant>,
    /// Only this status.
    pub status: Option<JobStatus>,
    /// Only with this label.
    pub label: Option<(String, String)>,
    /// Only older than this job (the cursor).
    pub before: Option<JobId>,
    /// At most so many, 1 to 100.
    pub limit: u32,
}

/// One page of jobs.
#[derive(Debug, Clone)]
pub struct JobPage {
    /// Newest first. `attempts` is empty and `queue_position` absent in a list.
    pub jobs: Vec<StoredJob>,
    /// Whether older ones follow.
    pub more: bool,
}

/// An upload's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRecord {
    /// Its id.
    pub id: UploadId,
    /// Its owner.
    pub tenant: Tenant,
    /// The client's file name, reduced to a safe segment.
    pub name: String,
    /// Bytes announced.
    pub size: u64,
    /// Names what arrived, once whole: its SHA-256, or the entity tag of the storage that took it. Jobs may use it from
    /// then on.
    pub etag: Option<String>,
    /// When it is swept if no job used it.
    pub expires_at: Timestamp,
}

/// Work for the sweeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// Row id.
    pub id: uuid::Uuid,
    /// What to remove.
    pub what: Waste,
}

/// Figures for metrics and back-pressure, refreshed at most once a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStats {
    /// Tasks ready to be claimed.
    pub ready: u64,
    /// Tasks waiting for a time.
    pub delayed: u64,
    /// Those of `ready` that wait for a worker to themselves.
    pub solo: u64,
    /// Tasks held by workers.
    pub running: u64,
    /// Creation of the oldest ready task's job.
    pub oldest_ready: Option<Timestamp>,
}

/// The durable record. All verbs are idempotent: after an unknown outcome, say it again.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Accepts a job: job, outputs, task, first event, idempotency key, labels and sealed secrets in one commit.
    async fn submit(&self, job: NewJob) -> Result<Submitted>;

    /// Whether only one control can use this record: then nobody else changes rows, and no session runs out.
    fn sole(&self) -> bool;
    /// Opens a session for this control: 30 s that [`Self::renew_session`] extends.
    ///
    /// Of a sole record the lock is the session: those before it are over. What workers in the same process held went
    /// with it and is requeued at once, at no cost of an attempt (runs that had begun count as losses, which are
    /// bounded); what workers elsewhere hold waits for [`Self::takeover`].
    async fn open_session(&self, name: &str, now: Timestamp) -> Result<SessionId>;
    /// Extends the session; `Lost` means it is over: drop all dispatch state and open a new one.
    async fn renew_session(&self, session: SessionId, now: Timestamp) -> Result<Fenced<()>>;
    /// Ends the session: what it still holds may be taken over at once. Unknown sessions are over already.
    async fn close_session(&self, session: SessionId) -> Result<()>;
    /// Takes over up to `most` tasks of sessions that are over, for this session. Ask again while there are any.
    async fn takeover(&self, session: SessionId, most: u32, now: Timestamp) -> Result<Vec<Taken>>;
    /// Whether this session is the one that does `duty` now: the first to ask, until its session is over.
    async fn holds(&self, session: SessionId, duty: Duty, now: Timestamp) -> Result<bool>;
    /// Writes down where workers are, before anything is claimed for them: on change, else every 30 s.
    async fn see_workers(&self, session: SessionId, seen: &[WorkerSeen]) -> Result<()>;
    /// Workers that some control heard of since then.
    async fn workers_seen(&self, since: Timestamp) -> Result<Vec<WorkerSeen>>;

    /// How many tasks the workers can run at once. Only a store without a queue (`queue.max_pending = 0`) asks.
    fn offer(&self, slots: u64);
    /// Claims ready tasks for granted slots that meet their class, by rank within a tenant and round robin over tenants.
    async fn claim(&self, session: SessionId, grants: &[Grant], now: Timestamp) -> Result<Vec<Claimed>>;
    /// Moves delayed tasks whose time has come to ready; returns how many, and when the next one is due.
    async fn wake_delayed(&self, now: Timestamp) -> Result<(u64, Option<Timestamp>)>;
    /// The worker accepted the run: a queued job becomes running.
    async fn started(&self, key: RunKey, now: Timestamp) -> Result<Fenced<()>>;
    /// Stores what the source is and the states of outputs as they change; state events, not ticks.
    async fn media(&self, key: RunKey, media: &MediaInfo, now: Timestamp) -> Result<Fenced<()>>;
    /// Moves outputs to a working status (encoding, verifying, uploading); never backwards within a run.
    async fn output_status(
        &self,
        key: RunKey,
        output: OutputIndex,
        status: OutputStatus,
        now: Timestamp,
    ) -> Result<Fenced<()>>;
    /// Raises the high-water marks of progress of running jobs and keeps the reports for other controls' readers. Not
    /// fenced, never trusted for decisions.
    async fn progress(&self, reports: &[Reported]) -> Result<()>;
    /// How the jobs among these stand that exist, for readers of jobs that another control runs.
    async fn pulse(&self, jobs: &[JobId]) -> Result<Vec<Pulse>>;
    /// Permits a publication and records its handle, if and only if the job is not being cancelled.
    async fn permit(&self, key: RunKey, publication: Publication, now: Timestamp) -> Result<Fenced<Permit>>;
    /// Records lower publications found dead while resolving.
    async fn publications_dead(
        &self,
        key: RunKey,
        dead: &[PublicationId],
        now: Timestamp,
    ) -> Result<Fenced<()>>;
    /// Records that an output is visible. The last one completes nothing by itself: `complete` does.
    async fn output_done(&self, key: RunKey, done: OutputDone, now: Timestamp) -> Result<Fenced<()>>;
    /// Ends the task well; the last task completes the job (or, after a cancel request, cancels it).
    async fn complete(&self, key: RunKey, now: Timestamp) -> Result<Fenced<()>>;
    /// Ends the run badly: backoff and another try, or the job's end. `outputs` says which outputs failed and why
    /// (empty = all that are not completed).
    async fn fail(
        &self,
        key: RunKey,
        failure: Failure,
        outputs: Vec<(OutputIndex, Failure)>,
        now: Timestamp,
    ) -> Result<Fenced<()>>;
    /// Gives the task back to the queue.
    async fn requeue(&self, key: RunKey, reason: RequeueReason, now: Timestamp) -> Result<Fenced<()>>;

    /// Cancels, or asks to cancel (PROTOCOL §1.4).
    async fn cancel(&self, tenant: Option<&Tenant>, job: JobId, now: Timestamp) -> Result<Cancelled>;
    /// Starts the next run of a failed job; completed outputs stay.
    async fn retry(
        &self,
        tenant: Option<&Tenant>,
        job: JobId,
        task: TaskId,
        now: Timestamp,
    ) -> Result<Retried>;
    /// Deletes, cancelling first.
    async fn delete(&self, tenant: Option<&Tenant>, job: JobId, now: Timestamp) -> Result<Deleted>;

    /// One job; `None` for unknown, deleted or another tenant's.
    async fn get(&self, tenant: Option<&Tenant>, job: JobId) -> Result<Option<StoredJob>>;
    /// A page of jobs.
    async fn list(&self, filter: &JobFilter) -> Result<JobPage>;
    /// Events after `after`, in order.
    async fn events(&self, job: JobId, after: i64) -> Result<Vec<Event>>;
    /// How many jobs of a tenant wait for a slot, counted up to `most`.
    async fn waiting(&self, tenant: &Tenant, most: u64) -> Result<u64>;
    /// Figures for metrics.
    async fn stats(&self) -> Result<QueueStats>;
    /// Whether the store answers (readiness).
    async fn ping(&self) -> Result<()>;

    /// Records an upload's place.
    async fn create_upload(&self, upload: &UploadRecord) -> Result<()>;
    /// Records that an upload is whole.
    async fn upload_done(&self, id: UploadId, etag: &str) -> Result<()>;
    /// Lets an upload expire now, unless a job uses it; whether it did.
    async fn abandon_upload(&self, id: UploadId, now: Timestamp) -> Result<bool>;
    /// One upload of this tenant.
    async fn upload(&self, tenant: Option<&Tenant>, id: UploadId) -> Result<Option<UploadRecord>>;

    /// Removes finished jobs older than `before` (retention), with their events, labels and secrets; returns how many.
    async fn expire(&self, before: Timestamp, now: Timestamp) -> Result<u64>;
    /// What [`Self::expire`] would remove, oldest first, at most so many of each kind. Changes nothing.
    async fn doomed(&self, before: Timestamp, now: Timestamp, most: u32) -> Result<Doomed>;
    /// Wipes secrets that are due (PROTOCOL §1.9).
    async fn wipe_secrets(&self, now: Timestamp) -> Result<u64>;
    /// Garbage that is due and that a control with this data folder can reach; of a sole record all is.
    async fn garbage(&self, folder: Folder, now: Timestamp) -> Result<Vec<Garbage>>;
    /// Forgets garbage that was removed.
    async fn swept(&self, ids: &[uuid::Uuid]) -> Result<()>;

    /// A hint that a job changed: ids of committed changes. Lagging readers read the rows again.
    fn changes(&self) -> tokio::sync::broadcast::Receiver<JobId>;
    /// HMAC-SHA256 with this store's key, for idempotency fingerprints.
    fn fingerprint(&self, body: &[u8]) -> Vec<u8>;
}

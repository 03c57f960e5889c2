//! What may happen to a job: every verb of PROTOCOL §2 as a pure transition over an [`Aggregate`].
//!
//! Owns the fence (F1), the end of a job (F4), retries and the history's sequence numbers.
//! Must not know: rows, SQL, clocks. Time and chance come in with the [`Context`], effects go out as [`Effects`];
//! a store writes both in the transaction it read the aggregate in.
//! Invariants: a terminal job does not change within its run number; at most one run holds a task; epochs and `seq`
//! only grow; an output is completed exactly when its publication is committed; no job fails or is cancelled while one
//! of its publications is open (one documented exception: [`UNRESOLVED_LIMIT`]).
//! To add a verb, add a method here and its operation to `machine/tests.rs`.

mod end;
mod people;
mod policy;
mod run;
#[cfg(test)]
mod tests;

use super::{
    Aggregate, Attempt, Epoch, Event, EventKind, Failure, JobId, JobStatus, OutputIndex, OutputResult,
    Publication, PublicationId, PublicationState, RunId, RunOutcome, SessionId, TaskId, Timestamp,
};

pub use policy::{BACKOFF_CAP, Policy, UNRESOLVED_LIMIT, backoff_ceiling, rank};

/// The answer to a fenced write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fenced<T> {
    /// It is done (or was done before by the same run: verbs are idempotent).
    Done(T),
    /// The run no longer holds the task. Forget it, write nothing, stop the worker's run.
    Lost,
}

/// Names the run that a fenced verb speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunKey {
    /// The job.
    pub job: JobId,
    /// The task.
    pub task: TaskId,
    /// The fencing token.
    pub run: RunId,
    /// The control session that holds it.
    pub session: SessionId,
}

/// A permit as granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// Open publications of lower epochs of the same output: destroy or adopt these first.
    pub lower: Vec<Publication>,
}

/// What happened to a publication after its permit.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputDone {
    /// The output.
    pub output: OutputIndex,
    /// The publication that is visible: own, or an adopted lower one.
    pub publication: PublicationId,
    /// What was published.
    pub result: OutputResult,
}

/// What a requeue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequeueReason {
    /// The worker fell silent: counts towards the bound on losses.
    Lost,
    /// The worker died without a word. Whatever it ran is suspected: each runs alone from now on, and one whose workers
    /// die even then is given up (PROTOCOL §1.21).
    Died,
    /// The worker gave it back (drain, refusal): counts nothing.
    Released,
}

/// How far a cancel came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// The job is cancelled; runs to stop.
    Now(Vec<RunId>),
    /// A publication is open: the job ends when it is resolved.
    Requested,
    /// It was terminal already.
    Already(JobStatus),
    /// No such job.
    NotFound,
}

/// What became of a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// The next run is queued.
    Queued,
    /// Only failed jobs are retried; this is its status.
    NotFailed(JobStatus),
    /// The sealed secrets were wiped; submit again.
    SecretsGone,
    /// No such job.
    NotFound,
}

/// What became of a delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// Gone from every answer; rows are swept when its runs have ended.
    Done(Vec<RunId>),
    /// A publication is open: cancelled first, ask again when it is resolved.
    Cancelling,
    /// No such job.
    NotFound,
}

/// A verb that no correct caller says: it contradicts the record. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Illegal(pub &'static str);

/// Whether a job's sealed secrets can still be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretsState {
    /// Sealed, or there never were any.
    Usable,
    /// Wiped.
    Wiped,
}

/// What a transition may know besides the job itself.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The rules.
    pub policy: Policy,
    /// The time.
    pub now: Timestamp,
    /// A fresh random number: jitter.
    pub random: u64,
    /// How the run that speaks ended, if it has: makes `complete`, `fail` and `requeue` repeatable.
    pub past: Option<RunOutcome>,
    /// When the oldest publication that is still open was permitted.
    pub oldest_permit: Option<Timestamp>,
    /// Whether the job could run again.
    pub secrets: SecretsState,
}

/// What is to become of a job's sealed secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecretsFate {
    /// As it was.
    #[default]
    Unchanged,
    /// Needed by the next run: no wipe is due.
    Keep,
    /// Wiped in this transaction.
    WipeNow,
    /// Wiped when this time has come.
    WipeAt(Timestamp),
}

/// The end of a run, for its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEnd {
    /// The run.
    pub run: RunId,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Why, when it failed.
    pub failure: Option<Failure>,
}

/// What a transition did beside the aggregate; stored in the same transaction.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Effects {
    /// New entries of the job's history.
    pub events: Vec<Event>,
    /// Runs that began.
    pub begun: Vec<Attempt>,
    /// Runs that ended.
    pub ended: Vec<RunEnd>,
    /// The sealed secrets.
    pub secrets: SecretsFate,
    /// Whether the job is gone from every answer.
    pub deleted: bool,
}

impl Effects {
    const NONE: Self = Self {
        events: Vec::new(),
        begun: Vec::new(),
        ended: Vec::new(),
        secrets: SecretsFate::Unchanged,
        deleted: false,
    };
}

/// One job under transition.
#[derive(Debug)]
pub struct Machine {
    job: Aggregate,
    context: Context,
    effects: Effects,
}

impl Machine {
    /// Takes a job under transition.
    #[must_use]
    pub const fn new(job: Aggregate, context: Context) -> Self {
        Self { job, context, effects: Effects::NONE }
    }

    /// The job as it is now.
    #[must_use]
    pub const fn aggregate(&self) -> &Aggregate {
        &self.job
    }

    /// Whether the job only waits for open publications: cancel was asked, or a failure is final.
    ///
    /// A final failure stands on the outputs before it stands on the job: an output with a failure that is not yet
    /// [`super::OutputStatus::Failed`] still has a publication to resolve.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        is_ending(&self.job)
    }

    /// What is to be stored.
    #[must_use]
    pub fn into_parts(self) -> (Aggregate, Effects) {
        (self.job, self.effects)
    }

    /// The position of the task that `key` holds; `None` is LOST (F1).
    fn held(&self, key: &RunKey) -> Option<usize> {
        self.job.tasks.iter().position(|task| {
            task.id == key.task
                && task.state.is_held()
                && task.hold.as_ref().is_some_and(|hold| hold.run == key.run && hold.session == key.session)
        })
    }

    fn output_position(&self, index: OutputIndex) -> Result<usize, Illegal> {
        self.job.outputs.iter().position(|o| o.index == index).ok_or(Illegal("the job has no such output"))
    }

    fn has_open(&self) -> bool {
        self.job.publications.iter().any(|p| p.state == PublicationState::Open)
    }

    fn output_has_open(&self, index: OutputIndex) -> bool {
        self.job.publications.iter().any(|p| p.output == index && p.state == PublicationState::Open)
    }

    fn open_below(&self, index: OutputIndex, epoch: Epoch) -> Vec<Publication> {
        let lower =
            |p: &&Publication| p.output == index && p.epoch < epoch && p.state == PublicationState::Open;
        self.job.publications.iter().filter(lower).cloned().collect()
    }

    fn tell_status(&mut self, message: &str) {
        self.tell(EventKind::Status, None, message.to_owned());
    }

    fn tell_output(&mut self, position: usize, message: String) {
        self.tell(EventKind::Output, Some(position), message);
    }

    fn tell(&mut self, kind: EventKind, position: Option<usize>, message: String) {
        let output = position.map(|at| &self.job.outputs[at]);
        self.job.job.seq += 1;
        self.effects.events.push(Event {
            seq: self.job.job.seq,
            kind,
            at: self.context.now,
            status: self.job.job.status,
            run: self.job.job.run,
            output: output.map(|o| o.index),
            output_status: output.map(|o| o.status),
            message,
        });
    }
}

/// The first entry of every job's history: it was accepted.
#[must_use]
pub fn accepted(now: Timestamp) -> Event {
    Event {
        seq: 1,
        kind: EventKind::Status,
        at: now,
        status: JobStatus::Queued,
        run: super::RunNumber(1),
        output: None,
        output_status: None,
        message: "the job is queued".to_owned(),
    }
}

/// Whether a job only waits for its open publications ([`Machine::is_ending`]).
#[must_use]
pub fn is_ending(job: &Aggregate) -> bool {
    job.job.cancel_at.is_some() || job.outputs.iter().any(|o| o.failure.is_some())
}

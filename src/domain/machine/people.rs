//! The verbs of people: cancel, retry, delete.

use super::super::{
    JobStatus, OutputStatus, Progress, PublicationState, RunNumber, RunOutcome, TaskClass, TaskId, TaskKind,
    TaskRecord, TaskState,
};
use super::{Cancelled, Deleted, Machine, Retried, SecretsFate, SecretsState, rank};

impl Machine {
    /// Cancels at once, or asks to cancel while a publication is open (PROTOCOL §1.4).
    pub fn cancel(&mut self) -> Cancelled {
        let status = self.job.job.status;
        if status.is_terminal() {
            return Cancelled::Already(status);
        }
        if self.job.job.cancel_at.is_some() {
            return Cancelled::Requested;
        }
        if self.job.outputs.iter().all(|o| o.status == OutputStatus::Completed) && self.settle() {
            return Cancelled::Already(self.job.job.status);
        }
        self.job.job.cancel_at = Some(self.context.now);
        if self.has_open() {
            self.leave_only_resolving();
            self.tell_status("cancel was requested; a publication is being resolved first");
            return Cancelled::Requested;
        }
        let stop = self.job.tasks.iter().filter_map(|t| t.hold.as_ref().map(|h| h.run)).collect();
        self.settle();
        Cancelled::Now(stop)
    }

    /// Starts the next run of a failed job; completed outputs stay and epochs go on (PROTOCOL §1.11).
    pub fn retry(&mut self, task: TaskId) -> Retried {
        if self.job.tasks.iter().any(|t| t.id == task) {
            return Retried::Queued;
        }
        if self.job.job.status != JobStatus::Failed {
            return Retried::NotFailed(self.job.job.status);
        }
        if self.context.secrets == SecretsState::Wiped {
            return Retried::SecretsGone;
        }
        for at in 0..self.job.outputs.len() {
            if self.job.outputs[at].status != OutputStatus::Completed {
                self.job.outputs[at].status = OutputStatus::Pending;
                self.job.outputs[at].failure = None;
                self.job.outputs[at].result = None;
            }
        }
        let job = &mut self.job.job;
        job.run = RunNumber(job.run.0 + 1);
        job.status = JobStatus::Queued;
        job.progress = Progress::ZERO;
        job.failure = None;
        job.cancel_at = None;
        job.started_at = None;
        job.finished_at = None;
        let epoch = self.job.tasks.iter().map(|t| t.epoch).max().unwrap_or_default();
        self.job.tasks = vec![TaskRecord {
            id: task,
            job_run: self.job.job.run,
            kind: TaskKind::Transcode,
            state: TaskState::Ready,
            class: TaskClass::of(&self.job.job.spec),
            rank: rank(self.context.now, self.job.job.spec.priority),
            not_before: None,
            epoch,
            hold: None,
            charged: 0,
            losses: 0,
            crashes: 0,
        }];
        self.effects.secrets = SecretsFate::Keep;
        self.tell_status("the job is queued again");
        Retried::Queued
    }

    /// Removes the job from every answer, cancelling it first.
    pub fn delete(&mut self) -> Deleted {
        let stop = match self.cancel() {
            Cancelled::Now(stop) => stop,
            Cancelled::Requested => return Deleted::Cancelling,
            Cancelled::Already(_) | Cancelled::NotFound => Vec::new(),
        };
        self.effects.deleted = true;
        self.effects.secrets = SecretsFate::WipeNow;
        Deleted::Done(stop)
    }

    /// Takes the task from a run that has nothing open itself: its work is no longer wanted, and what earlier runs left
    /// open is resolved sooner by a fresh claim.
    fn leave_only_resolving(&mut self) {
        for task in 0..self.job.tasks.len() {
            let run = self.job.tasks[task].hold.as_ref().map(|hold| hold.run);
            let publishing = run.is_some_and(|run| {
                self.job.publications.iter().any(|p| p.run == run && p.state == PublicationState::Open)
            });
            if !publishing && !self.job.tasks[task].state.is_over() {
                self.release(task, RunOutcome::Cancelled, None);
                self.make_ready(task);
            }
        }
    }
}

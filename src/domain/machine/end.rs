//! How runs and jobs end: the one place where a job becomes terminal.

use super::super::{Code, Failure, JobStatus, OutputIndex, OutputStatus, Progress, RunOutcome, TaskState};
use super::policy::{SECRETS_AFTER_FAILURE, backoff};
use super::{Machine, RunEnd, SecretsFate, UNRESOLVED_LIMIT};

impl Machine {
    /// Takes the task from its run. The caller says at once what the task does next.
    pub(super) fn release(&mut self, task: usize, outcome: RunOutcome, failure: Option<&Failure>) {
        if let Some(hold) = self.job.tasks[task].hold.take() {
            self.effects.ended.push(RunEnd { run: hold.run, outcome, failure: failure.cloned() });
        }
    }

    pub(super) fn make_ready(&mut self, task: usize) {
        let task = &mut self.job.tasks[task];
        task.state = TaskState::Ready;
        task.not_before = None;
    }

    pub(super) fn delay(&mut self, task: usize) {
        let wait = backoff(self.job.tasks[task].charged, self.context.random);
        let task = &mut self.job.tasks[task];
        task.state = TaskState::Delayed;
        task.not_before = Some(self.context.now.plus(wait));
    }

    /// The job waits for a worker again: what was under way has to be done again.
    pub(super) fn back_to_queue(&mut self, message: &str) {
        for at in 0..self.job.outputs.len() {
            let status = self.job.outputs[at].status;
            if !status.is_terminal() && status != OutputStatus::Pending {
                self.job.outputs[at].status = OutputStatus::Pending;
                self.tell_output(at, message.to_owned());
            }
        }
        if self.job.job.status == JobStatus::Running {
            self.job.job.status = JobStatus::Queued;
            self.tell_status(message);
        }
    }

    /// A released task goes back to the queue: to be run, or only to resolve what is open.
    pub(super) fn give_back(&mut self, task: usize, message: &str) {
        if self.settle() {
            return;
        }
        let (record, policy) = (&self.job.tasks[task], self.context.policy);
        let given_up = if record.crashes >= policy.max_crashes {
            Some("each worker that ran this job alone died of it")
        } else {
            (record.losses > policy.max_losses).then_some("the workers that ran this job were lost too often")
        };
        if let Some(why) = given_up.filter(|_| !self.is_ending()) {
            let failure = Failure::new(Code::WorkerLost, why);
            self.condemn(task, &failure, &[]);
            return;
        }
        self.make_ready(task);
        if !self.is_ending() {
            self.back_to_queue(message);
        }
    }

    /// A released task will not be tried again: its job fails as soon as nothing of it is open.
    pub(super) fn condemn(&mut self, task: usize, failure: &Failure, outputs: &[(OutputIndex, Failure)]) {
        self.job.job.failure = Some(failure.clone());
        for at in 0..self.job.outputs.len() {
            if self.job.outputs[at].status.is_terminal() {
                continue;
            }
            let index = self.job.outputs[at].index;
            let own = outputs.iter().find(|(output, _)| *output == index).map_or(failure, |(_, own)| own);
            self.job.outputs[at].failure = Some(own.clone());
            if !self.output_has_open(index) {
                self.job.outputs[at].status = OutputStatus::Failed;
                self.tell_output(at, own.message.clone());
            }
        }
        if !self.settle() {
            self.make_ready(task);
        }
    }

    /// The run could not resolve what is open: later, or never if the destination was silent for too long.
    pub(super) fn resolve_later(&mut self, task: usize) {
        let silent = self.context.oldest_permit.map(|since| self.context.now.since(since));
        if silent.is_some_and(|silent| silent >= UNRESOLVED_LIMIT) {
            self.give_up_resolving();
        } else {
            self.delay(task);
        }
    }

    /// Ends the job if it can end now; returns whether it is terminal. F4 is these lines.
    pub(super) fn settle(&mut self) -> bool {
        if self.job.job.status.is_terminal() {
            return true;
        }
        if self.has_open() {
            return false;
        }
        if self.job.outputs.iter().all(|o| o.status == OutputStatus::Completed) {
            self.end(JobStatus::Completed, "the job is completed");
        } else if self.job.job.cancel_at.is_some() {
            self.end(JobStatus::Cancelled, "the job was cancelled");
        } else if self.is_ending() {
            self.end(JobStatus::Failed, "the job failed");
        } else {
            return false;
        }
        true
    }

    fn give_up_resolving(&mut self) {
        let unknown = Failure::new(
            Code::DestinationUnreachable,
            "the destination did not answer for 24 h; whether the last publication became visible is unknown \
             (publication_unknown)",
        );
        for at in 0..self.job.outputs.len() {
            if self.output_has_open(self.job.outputs[at].index) {
                self.job.outputs[at].failure = Some(unknown.clone());
            }
        }
        if self.job.job.cancel_at.is_some() {
            self.end(JobStatus::Cancelled, "the job was cancelled; one publication's fate is unknown");
        } else {
            self.end(JobStatus::Failed, "the job failed; one publication's fate is unknown");
        }
    }

    fn end(&mut self, status: JobStatus, message: &str) {
        let (task_state, output_state, outcome) = match status {
            JobStatus::Completed => (TaskState::Done, OutputStatus::Completed, RunOutcome::Done),
            JobStatus::Cancelled => (TaskState::Cancelled, OutputStatus::Cancelled, RunOutcome::Cancelled),
            JobStatus::Failed | JobStatus::Queued | JobStatus::Running => {
                (TaskState::Failed, OutputStatus::Failed, RunOutcome::Done)
            }
        };
        for task in 0..self.job.tasks.len() {
            self.release(task, outcome, None);
            self.job.tasks[task].state = task_state;
            self.job.tasks[task].not_before = None;
        }
        for at in 0..self.job.outputs.len() {
            if !self.job.outputs[at].status.is_terminal() {
                self.job.outputs[at].status = output_state;
                self.tell_output(at, message.to_owned());
            }
        }
        let job = &mut self.job.job;
        job.status = status;
        // The clock may have gone back since; a job does not end before it began.
        let before = [Some(job.created_at), job.started_at, job.cancel_at];
        job.finished_at = before.into_iter().flatten().chain([self.context.now]).max();
        if status == JobStatus::Completed {
            job.progress = Progress::DONE;
            job.failure = None;
        }
        self.effects.secrets = if status == JobStatus::Failed {
            SecretsFate::WipeAt(self.context.now.plus(SECRETS_AFTER_FAILURE))
        } else {
            SecretsFate::WipeNow
        };
        self.tell_status(message);
    }
}

//! Mutants of the rules about cancels.

use super::super::worker::Rule;
use super::{Inner, Memory};
use crate::domain::machine::accepted;
use crate::domain::{
    Aggregate, Event, JobId, JobStatus, OutputStatus, PublicationState, RunOutcome, TaskState, Timestamp,
};
use crate::store::Cancelled;

impl Memory {
    /// What becomes of a cancel that has to wait for a publication: it waits, or a mutant does not.
    pub(super) fn hasty(&self, job: JobId, now: Timestamp) -> Cancelled {
        let mut inner = self.inner();
        let Inner { jobs, index, hasty, .. } = &mut *inner;
        let stored = jobs.get_mut(&job).unwrap();
        let held = stored.job.tasks.iter().any(|task| task.hold.is_some());
        if *hasty != Some(if held { Rule::CancelAfterCommit } else { Rule::CancelAfterResolve }) {
            return Cancelled::Requested;
        }
        index.remove(&stored.job);
        let Aggregate { job, outputs, tasks, publications } = &mut stored.job;
        (job.status, job.finished_at) = (JobStatus::Cancelled, Some(now));
        for task in tasks {
            (task.state, task.hold, task.not_before) = (TaskState::Cancelled, None, None);
        }
        for output in outputs.iter_mut().filter(|output| output.status != OutputStatus::Completed) {
            output.status = OutputStatus::Cancelled;
        }
        for publication in publications.iter_mut().filter(|known| known.state == PublicationState::Open) {
            publication.state = PublicationState::Dead;
        }
        let running = stored.attempts.iter_mut().filter(|attempt| attempt.ended_at.is_none());
        let stopped = running.map(|attempt| {
            (attempt.ended_at, attempt.outcome) = (Some(now), Some(RunOutcome::Cancelled));
            attempt.run
        });
        let stopped = stopped.collect();
        job.seq += 1;
        let end = Event { seq: job.seq, at: now, status: job.status, run: job.run, ..accepted(now) };
        stored.events.push(end);
        Cancelled::Now(stopped)
    }
}

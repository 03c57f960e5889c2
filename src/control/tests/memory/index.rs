//! Which tasks wait and which are held, so that a claim does not look at every job there is.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::machine::BACKOFF_CAP;
use crate::domain::{Abilities, Aggregate, Company, JobId, RunId, TaskClass, TaskId, TaskState, Timestamp};

/// Of the jobs that are not deleted.
#[derive(Default)]
pub(super) struct Index {
    ready: BTreeMap<TaskClass, BTreeSet<(i64, TaskId, JobId)>>,
    delayed: BTreeSet<(Timestamp, JobId)>,
    held: BTreeMap<RunId, (JobId, TaskId)>,
}

impl Index {
    pub(super) fn add(&mut self, of: &Aggregate) {
        let job = of.job.id;
        for task in &of.tasks {
            if task.state == TaskState::Ready {
                self.ready.entry(task.class).or_default().insert((task.rank, task.id, job));
            }
            self.delayed.extend(task.not_before.map(|due| (due, job)));
            self.held.extend(task.hold.as_ref().map(|hold| (hold.run, (job, task.id))));
        }
    }

    pub(super) fn remove(&mut self, of: &Aggregate) {
        let job = of.job.id;
        for task in &of.tasks {
            if let Some(ready) = self.ready.get_mut(&task.class) {
                ready.remove(&(task.rank, task.id, job));
            }
            if let Some(due) = task.not_before {
                self.delayed.remove(&(due, job));
            }
            if let Some(hold) = &task.hold {
                self.held.remove(&hold.run);
            }
        }
    }

    /// The task that such a worker is to be given next: those that must run alone first, then by rank.
    pub(super) fn next(&self, can: Abilities, company: Company) -> Option<(JobId, TaskId)> {
        let classes = self.ready.iter().filter(|(class, _)| can.meets(**class));
        let classes = classes.filter(|(class, _)| company == Company::Alone || !class.is_solo());
        let first = classes.filter_map(|(class, tasks)| {
            tasks.first().map(|(rank, task, job)| (!class.is_solo(), rank, task, job))
        });
        first.min().map(|(_, _, task, job)| (*job, *task))
    }

    /// The job that a run is held for.
    pub(super) fn holder(&self, run: RunId) -> Option<JobId> {
        self.held.get(&run).map(|(job, _)| *job)
    }

    /// Every run that is held.
    pub(super) fn held(&self) -> impl Iterator<Item = (RunId, JobId, TaskId)> {
        self.held.iter().map(|(run, (job, task))| (*run, *job, *task))
    }

    /// When the first delayed task is due, and whose it is.
    pub(super) fn due(&self) -> Option<(Timestamp, JobId)> {
        self.delayed.first().copied()
    }

    /// A job whose task is due now: its time has come, or its wait is longer than any.
    pub(super) fn due_by(&self, now: Timestamp) -> Option<JobId> {
        let come = self.delayed.first().filter(|(due, _)| *due <= now);
        let far = || self.delayed.last().filter(|(due, _)| *due > now.plus(BACKOFF_CAP));
        come.or_else(far).map(|(_, job)| *job)
    }

    pub(super) fn ready(&self, which: impl Fn(TaskClass) -> bool) -> usize {
        self.ready.iter().filter(|(class, _)| which(**class)).map(|(_, tasks)| tasks.len()).sum()
    }

    pub(super) fn delayed(&self) -> usize {
        self.delayed.len()
    }

    pub(super) fn running(&self) -> usize {
        self.held.len()
    }
}

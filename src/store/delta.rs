//! What a transition changed, as the rows that are to be written; and how one is carried out over what was read.

use super::Result;
use super::records::Loaded;
use super::row::{fold_tasks, inconsistent, to_json};
use super::shared::Shared;
use crate::domain::machine::{Context, Effects, Illegal, Machine, Policy, RunEnd};
use crate::domain::{
    Aggregate, JobId, OutputRecord, Publication, RunId, RunOutcome, TaskRecord, TaskState, Tenant, Timestamp,
};

/// Longest log of a run that is kept, bytes.
const LOG_BYTES: usize = 16 * 1024;

/// One transition of the state machine over one job.
pub(super) struct Step<F> {
    pub(super) job: JobId,
    /// Only this tenant's job.
    pub(super) tenant: Option<Tenant>,
    /// The run that speaks.
    pub(super) run: Option<RunId>,
    pub(super) now: Timestamp,
    pub(super) apply: F,
}

impl<F> Step<F> {
    /// Whether the job may be seen by whoever asks.
    pub(super) fn concerns(&self, job: &Aggregate) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| *tenant == job.job.tenant)
    }
}

/// What a transition goes by besides the job.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) policy: Policy,
    pub(super) now: Timestamp,
    /// Jitter.
    pub(super) random: u64,
    /// How the run that speaks ended, if it has.
    pub(super) past: Option<RunOutcome>,
}

impl Rules {
    /// Those of a store.
    pub(super) fn new(shared: &Shared, now: Timestamp, past: Option<RunOutcome>) -> Self {
        Self { policy: shared.policy, now, random: shared.ids.random().as_u64_pair().1, past }
    }
}

/// Applies a transition.
pub(super) fn transition<T>(
    loaded: Loaded,
    rules: Rules,
    apply: impl Fn(&mut Machine) -> std::result::Result<T, Illegal>,
) -> Result<(T, Delta)> {
    let Rules { policy, now, random, past } = rules;
    let Loaded { aggregate: before, secrets, oldest_permit } = loaded;
    let mut machine =
        Machine::new(before.clone(), Context { policy, now, random, past, oldest_permit, secrets });
    let answer = apply(&mut machine).map_err(|Illegal(what)| inconsistent("a verb", what))?;
    let (after, effects) = machine.into_parts();
    Ok((answer, Delta { before, after, effects, now }))
}

/// The difference between what was read and what is to be. Unchanged rows are not touched.
pub(super) struct Delta {
    before: Aggregate,
    pub(super) after: Aggregate,
    pub(super) effects: Effects,
    pub(super) now: Timestamp,
}

/// What becomes of a task's row.
pub(super) enum TaskWrite<'a> {
    /// It changes, if it is still as it was (F1 once more in SQL).
    Update { was: &'a TaskRecord, is: &'a TaskRecord },
    /// It is new.
    Insert(&'a TaskRecord),
}

/// The columns of a job that change.
pub(super) struct JobColumns {
    pub(super) media: Option<String>,
    pub(super) plan: Option<String>,
    pub(super) failure: Option<String>,
    pub(super) deleted_at: Option<Timestamp>,
}

impl Delta {
    /// As it was.
    pub(super) fn before(&self) -> &Aggregate {
        &self.before
    }

    pub(super) fn job(&self) -> JobId {
        self.after.job.id
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.before == self.after && self.effects == Effects::default()
    }

    /// The documents of the job's row, if it changes.
    pub(super) fn columns(&self) -> Result<Option<JobColumns>> {
        if self.before.job == self.after.job && !self.effects.deleted {
            return Ok(None);
        }
        let job = &self.after.job;
        Ok(Some(JobColumns {
            media: document("jobs", job.media.as_ref())?,
            plan: job.status.is_terminal().then(|| fold_tasks(&self.after.tasks)).transpose()?,
            failure: document("jobs", job.failure.as_ref())?,
            deleted_at: self.effects.deleted.then_some(self.now),
        }))
    }

    /// Whether the rows of tasks go: those of an ended job live in `jobs.plan` only (PROTOCOL §1.30).
    pub(super) fn folds(&self) -> bool {
        self.after.job.status.is_terminal() && !self.before.job.status.is_terminal()
    }

    pub(super) fn tasks(&self) -> impl Iterator<Item = TaskWrite<'_>> {
        let kept = self.after.tasks.iter().filter(|_| !self.after.job.status.is_terminal());
        kept.filter_map(|is| match self.before.tasks.iter().find(|was| was.id == is.id) {
            Some(was) if was == is => None,
            Some(was) => Some(TaskWrite::Update { was, is }),
            None => Some(TaskWrite::Insert(is)),
        })
    }

    pub(super) fn outputs(&self) -> impl Iterator<Item = &OutputRecord> {
        let pairs = self.before.outputs.iter().zip(&self.after.outputs);
        pairs.filter(|(was, is)| was != is).map(|(_, is)| is)
    }

    pub(super) fn publications(&self) -> impl Iterator<Item = &Publication> {
        let was = |id| self.before.publications.iter().find(move |p| p.id == id);
        self.after.publications.iter().filter(move |is| was(is.id) != Some(is))
    }

    /// Change of the number of waiting tasks.
    pub(super) fn waiting(&self) -> i64 {
        let waits = |tasks: &[TaskRecord]| {
            let waiting = tasks.iter().filter(|t| matches!(t.state, TaskState::Ready | TaskState::Delayed));
            i64::try_from(waiting.count()).unwrap_or(i64::MAX)
        };
        waits(&self.after.tasks) - waits(&self.before.tasks)
    }

    /// Whether readers of the job should look again.
    pub(super) fn is_news(&self) -> bool {
        !self.effects.events.is_empty()
            || self.before.job.media != self.after.job.media
            || self.effects.deleted
    }
}

/// A document column that may be empty.
pub(super) fn document<T: serde::Serialize>(
    table: &'static str,
    value: Option<&T>,
) -> Result<Option<String>> {
    value.map(|value| to_json(table, value)).transpose()
}

/// The end of a run's log, as it is kept.
pub(super) fn log_tail(end: &RunEnd) -> Option<String> {
    let mut log = end.failure.as_ref().filter(|f| !f.log.is_empty()).map(|f| f.log.join("\n"))?;
    let mut cut = log.len().saturating_sub(LOG_BYTES);
    while !log.is_char_boundary(cut) {
        cut += 1;
    }
    Some(log.split_off(cut))
}

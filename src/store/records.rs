//! Rows of jobs as what a transition or an answer needs, whichever database they come from.

use std::collections::{BTreeMap, HashMap};

use super::columns::{Cells, Columns};
use super::row::{inconsistent, unfold_tasks};
use super::{QueueStats, Result, WorkerSeen};
use crate::domain::machine::SecretsState;
use crate::domain::{
    Aggregate, Attempt, BootId, Code, Epoch, Hold, JobId, JobRecord, JobStatus, OutputIndex, OutputRecord,
    OutputStatus, Progress, Publication, PublicationId, PublicationState, RunId, RunNumber, RunOutcome,
    SessionId, TaskClass, TaskId, TaskKind, TaskRecord, TaskState, Timestamp, WorkerId,
};

/// How long a permit holds before the worker has to ask again, microseconds (PROTOCOL §2 "permit").
pub(super) const PERMIT_MICROS: i64 = 60_000_000;

/// A job as read.
pub(super) struct Loaded {
    pub(super) aggregate: Aggregate,
    pub(super) secrets: SecretsState,
    pub(super) oldest_permit: Option<Timestamp>,
}

/// Puts jobs together from their rows. A job that cannot be read does not keep the others.
pub(super) struct Assembly(HashMap<JobId, Result<Loaded>>);

impl Assembly {
    /// From rows of `jobs`, with `wiped` = 1 where the sealed secrets were.
    pub(super) fn of<R: Cells>(jobs: &[R]) -> Result<Self> {
        let mut all = HashMap::with_capacity(jobs.len());
        for row in jobs {
            let columns = Columns { table: "jobs", row };
            all.insert(JobId::from_uuid(columns.id("id")?), loaded(&columns));
        }
        Ok(Self(all))
    }

    /// Adds rows of `outputs`, by `idx`.
    pub(super) fn outputs<R: Cells>(&mut self, rows: &[R]) -> Result<()> {
        self.each("outputs", rows, |columns, job| {
            let record = output_record(columns, &job.aggregate.job)?;
            job.aggregate.outputs.push(record);
            Ok(())
        })
    }

    /// Adds rows of `tasks`, by `id`.
    pub(super) fn tasks<R: Cells>(&mut self, rows: &[R]) -> Result<()> {
        self.each("tasks", rows, |columns, job| {
            job.aggregate.tasks.push(task_record(columns)?);
            Ok(())
        })
    }

    /// Adds rows of `publications`, by `epoch, id`.
    pub(super) fn publications<R: Cells>(&mut self, rows: &[R]) -> Result<()> {
        self.each("publications", rows, |columns, job| {
            let publication = publication(columns)?;
            if publication.state == PublicationState::Open {
                let until = columns.maybe_int("permit_until")?;
                let permitted =
                    until.map(|until| Timestamp::from_micros(until.saturating_sub(PERMIT_MICROS)));
                job.oldest_permit = job.oldest_permit.into_iter().chain(permitted).min();
            }
            job.aggregate.publications.push(publication);
            Ok(())
        })
    }

    fn each<R: Cells>(
        &mut self,
        table: &'static str,
        rows: &[R],
        add: impl Fn(&Columns<'_, R>, &mut Loaded) -> Result<()>,
    ) -> Result<()> {
        for row in rows {
            let columns = Columns { table, row };
            let Some(slot) = self.0.get_mut(&JobId::from_uuid(columns.id("job_id")?)) else { continue };
            if let Ok(job) = slot
                && let Err(error) = add(&columns, job)
            {
                *slot = Err(error);
            }
        }
        Ok(())
    }

    /// One of them; `None` if there was no row.
    pub(super) fn take(&mut self, id: JobId) -> Option<Result<Loaded>> {
        self.0.remove(&id)
    }
}

fn loaded<R: Cells>(columns: &Columns<'_, R>) -> Result<Loaded> {
    let job = job_record(columns)?;
    let tasks = columns.maybe_text("plan")?.map(|plan| unfold_tasks(&plan)).transpose()?.unwrap_or_default();
    let wiped = columns.maybe_int("wiped")? == Some(1);
    Ok(Loaded {
        aggregate: Aggregate { job, outputs: Vec::new(), tasks, publications: Vec::new() },
        secrets: if wiped { SecretsState::Wiped } else { SecretsState::Usable },
        oldest_permit: None,
    })
}

fn job_record<R: Cells>(columns: &Columns<'_, R>) -> Result<JobRecord> {
    Ok(JobRecord {
        id: JobId::from_uuid(columns.id("id")?),
        tenant: columns.name("tenant")?,
        status: columns.state("status", JobStatus::from_number)?,
        run: RunNumber(columns.narrow("run")?),
        seq: columns.int("seq")?,
        cancel_at: columns.maybe_time("cancel_at")?,
        spec: columns.json("spec")?,
        media: columns.maybe_json("media")?,
        progress: Progress::from_permille(columns.narrow("progress_hw")?),
        failure: columns.maybe_json("failure")?,
        created_at: columns.time("created_at")?,
        started_at: columns.maybe_time("started_at")?,
        finished_at: columns.maybe_time("finished_at")?,
    })
}

fn output_record<R: Cells>(columns: &Columns<'_, R>, job: &JobRecord) -> Result<OutputRecord> {
    let index = OutputIndex(columns.narrow("idx")?);
    let spec = job.spec.outputs.get(usize::from(index.0)).cloned();
    Ok(OutputRecord {
        index,
        status: columns.state("status", OutputStatus::from_number)?,
        spec: spec
            .ok_or_else(|| inconsistent("outputs", format!("{}: no output {index} in the spec", job.id)))?,
        result: columns.maybe_json("result")?,
        failure: columns.maybe_json("failure")?,
        publication: columns.maybe_id("publication")?.map(PublicationId::from_uuid),
    })
}

fn task_record<R: Cells>(columns: &Columns<'_, R>) -> Result<TaskRecord> {
    let state = columns.state("state", TaskState::from_number)?;
    Ok(TaskRecord {
        id: TaskId::from_uuid(columns.id("id")?),
        job_run: RunNumber(columns.narrow("job_run")?),
        kind: columns.state("kind", TaskKind::from_number)?,
        state,
        class: columns.state("class", TaskClass::from_number)?,
        rank: columns.int("rank")?,
        not_before: columns.maybe_time("not_before")?,
        epoch: Epoch(columns.narrow("epoch")?),
        hold: state.is_held().then(|| hold(columns)).transpose()?,
        charged: columns.narrow("charged")?,
        losses: columns.narrow("losses")?,
        crashes: columns.narrow("crashes")?,
    })
}

fn hold<R: Cells>(columns: &Columns<'_, R>) -> Result<Hold> {
    Ok(Hold {
        run: RunId::from_uuid(columns.id("run_id")?),
        session: SessionId::from_uuid(columns.id("session_id")?),
        worker: columns.name::<WorkerId>("worker_id")?,
        boot: BootId::from_uuid(columns.id("worker_boot")?),
    })
}

fn publication<R: Cells>(columns: &Columns<'_, R>) -> Result<Publication> {
    Ok(Publication {
        id: PublicationId::from_uuid(columns.id("id")?),
        output: OutputIndex(columns.narrow("idx")?),
        run: RunId::from_uuid(columns.id("run_id")?),
        epoch: Epoch(columns.narrow("epoch")?),
        handle: columns.text("handle")?,
        manifest: columns.text("manifest")?,
        state: columns.state("state", PublicationState::from_number)?,
    })
}

/// A row of `runs`.
pub(super) fn attempt<R: Cells>(columns: &Columns<'_, R>) -> Result<Attempt> {
    let outcome = columns.maybe_int("outcome")?;
    let code = columns.maybe_text("code")?;
    let known = |code: String| {
        let found = Code::ALL.iter().find(|known| known.as_str() == code).copied();
        found.ok_or_else(|| inconsistent("runs", format!("code {code:?}")))
    };
    Ok(Attempt {
        run: RunId::from_uuid(columns.id("id")?),
        task: TaskId::from_uuid(columns.id("task_id")?),
        epoch: Epoch(columns.narrow("epoch")?),
        worker: columns.name("worker_id")?,
        started_at: columns.time("started_at")?,
        ended_at: columns.maybe_time("ended_at")?,
        outcome: outcome.map(|_| columns.state("outcome", RunOutcome::from_number)).transpose()?,
        code: code.map(known).transpose()?,
        log: columns.maybe_text("log_tail")?,
    })
}

/// Counts of a queue, by the names of their columns.
pub(super) fn queue_stats<R: Cells>(row: &R) -> Result<QueueStats> {
    let columns = Columns { table: "tasks", row };
    Ok(QueueStats {
        ready: columns.narrow("ready")?,
        solo: columns.narrow("solo")?,
        delayed: columns.narrow("delayed")?,
        running: columns.narrow("running")?,
        oldest_ready: columns.maybe_time("oldest")?,
    })
}

/// A row of `workers`.
pub(super) fn worker_seen<R: Cells>(row: &R) -> Result<WorkerSeen> {
    let columns = Columns { table: "workers", row };
    Ok(WorkerSeen {
        worker: columns.name("id")?,
        boot: BootId::from_uuid(columns.id("boot")?),
        address: columns.text("addr")?,
        seen_at: columns.time("seen_at")?,
    })
}

/// Where every incarnation was last reached.
pub(super) fn addresses(seen: Vec<WorkerSeen>) -> BTreeMap<BootId, String> {
    seen.into_iter().map(|seen| (seen.boot, seen.address)).collect()
}

//! Reads jobs with everything a transition or an answer needs, a few statements for any number of jobs.

use std::collections::HashMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::super::Result;
use super::super::row::{inconsistent, unfold_tasks};
use super::columns::Columns;
use super::error::explain;
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

/// The jobs among `ids` that exist and are not deleted, in the order of `ids`.
pub(super) async fn load(conn: &mut SqliteConnection, ids: &[JobId]) -> Result<Vec<Loaded>> {
    let mut jobs = HashMap::with_capacity(ids.len());
    let sql = "select j.*, (select sealed = x'' from job_secrets s where s.job_id = j.id) as wiped \
               from jobs j where deleted_at is null and id in ";
    for row in select(conn, sql, "", ids).await? {
        let columns = Columns { table: "jobs", row: &row };
        let job = job_record(&columns)?;
        let tasks = columns.maybe_text("plan")?.map(|plan| unfold_tasks(&plan)).transpose()?;
        let aggregate = Aggregate {
            job,
            outputs: Vec::new(),
            tasks: tasks.unwrap_or_default(),
            publications: Vec::new(),
        };
        let secrets =
            if columns.maybe_int("wiped")? == Some(1) { SecretsState::Wiped } else { SecretsState::Usable };
        jobs.insert(aggregate.job.id, Loaded { aggregate, secrets, oldest_permit: None });
    }
    for row in select(conn, "select * from outputs where job_id in ", " order by job_id, idx", ids).await? {
        let columns = Columns { table: "outputs", row: &row };
        if let Some(job) = jobs.get_mut(&JobId::from_uuid(columns.id("job_id")?)) {
            let record = output_record(&columns, &job.aggregate.job)?;
            job.aggregate.outputs.push(record);
        }
    }
    for row in select(conn, "select * from tasks where job_id in ", " order by id", ids).await? {
        let columns = Columns { table: "tasks", row: &row };
        if let Some(job) = jobs.get_mut(&JobId::from_uuid(columns.id("job_id")?)) {
            job.aggregate.tasks.push(task_record(&columns)?);
        }
    }
    for row in select(conn, "select * from publications where job_id in ", " order by epoch, id", ids).await?
    {
        let columns = Columns { table: "publications", row: &row };
        if let Some(job) = jobs.get_mut(&JobId::from_uuid(columns.id("job_id")?)) {
            let publication = publication(&columns)?;
            if publication.state == PublicationState::Open {
                let until = columns.maybe_int("permit_until")?;
                let permitted =
                    until.map(|until| Timestamp::from_micros(until.saturating_sub(PERMIT_MICROS)));
                job.oldest_permit = job.oldest_permit.into_iter().chain(permitted).min();
            }
            job.aggregate.publications.push(publication);
        }
    }
    Ok(ids.iter().filter_map(|id| jobs.remove(id)).collect())
}

/// One job; `None` when there is none.
pub(super) async fn load_one(conn: &mut SqliteConnection, id: JobId) -> Result<Option<Loaded>> {
    Ok(load(conn, &[id]).await?.pop())
}

/// The runs of a job, oldest first.
pub(super) async fn attempts(conn: &mut SqliteConnection, job: JobId) -> Result<Vec<Attempt>> {
    let rows =
        select(conn, "select * from runs where job_id in ", " order by epoch, started_at", &[job]).await?;
    rows.iter().map(|row| attempt(&Columns { table: "runs", row })).collect()
}

/// How a run ended, if it is known and has.
pub(super) async fn past(conn: &mut SqliteConnection, job: JobId, run: RunId) -> Result<Option<RunOutcome>> {
    let outcome: Option<Option<i64>> =
        sqlx::query_scalar("select outcome from runs where id = ? and job_id = ?")
            .bind(run.uuid().as_bytes().as_slice())
            .bind(job.uuid().as_bytes().as_slice())
            .fetch_optional(conn)
            .await
            .map_err(explain("reading a run"))?;
    Ok(outcome.flatten().and_then(RunOutcome::from_number))
}

async fn select(
    conn: &mut SqliteConnection,
    head: &str,
    tail: &str,
    ids: &[JobId],
) -> Result<Vec<SqliteRow>> {
    let marks = vec!["?"; ids.len()].join(",");
    let mut query = sqlx::query(AssertSqlSafe(format!("{head}({marks}){tail}")));
    for id in ids {
        query = query.bind(id.uuid().as_bytes().to_vec());
    }
    query.fetch_all(conn).await.map_err(explain("reading jobs"))
}

fn job_record(columns: &Columns<'_>) -> Result<JobRecord> {
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

fn output_record(columns: &Columns<'_>, job: &JobRecord) -> Result<OutputRecord> {
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

fn task_record(columns: &Columns<'_>) -> Result<TaskRecord> {
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

fn hold(columns: &Columns<'_>) -> Result<Hold> {
    Ok(Hold {
        run: RunId::from_uuid(columns.id("run_id")?),
        session: SessionId::from_uuid(columns.id("session_id")?),
        worker: columns.name::<WorkerId>("worker_id")?,
        boot: BootId::from_uuid(columns.id("worker_boot")?),
    })
}

fn publication(columns: &Columns<'_>) -> Result<Publication> {
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

fn attempt(columns: &Columns<'_>) -> Result<Attempt> {
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

//! Writes what a transition changed, and its effects, in the transaction that read the job.

use sqlx::SqliteConnection;

use super::super::delta::{Delta, JobColumns, TaskWrite, document, log_tail};
use super::super::records::PERMIT_MICROS;
use super::super::row::{event_data, inconsistent, to_json};
use super::super::{Garbage, Result};
use super::error::explain;
use super::writer::Txn;
use crate::domain::machine::{RunEnd, SecretsFate};
use crate::domain::{
    Aggregate, Attempt, Event, JobId, JobRecord, OutputRecord, Publication, PublicationState, TaskRecord,
    Timestamp,
};

pub(super) fn blob(id: uuid::Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// Writes what a transition changed, and its effects.
pub(super) async fn save(txn: &mut Txn<'_>, delta: &Delta) -> Result<()> {
    if delta.is_empty() {
        return Ok(());
    }
    let (id, effects) = (delta.job(), &delta.effects);
    for run in &effects.begun {
        begin_run(txn.conn, id, run).await?;
    }
    for end in &effects.ended {
        end_run(txn.conn, end, delta.now).await?;
    }
    if let Some(columns) = delta.columns()? {
        write_job(txn.conn, &delta.after.job, columns).await?;
    }
    write_tasks(txn, delta).await?;
    for output in delta.outputs() {
        write_output(txn.conn, id, output).await?;
    }
    for publication in delta.publications() {
        write_publication(txn.conn, id, publication, delta.now).await?;
    }
    for event in &effects.events {
        write_event(txn.conn, id, event).await?;
    }
    write_secrets(txn.conn, id, effects.secrets).await?;
    if delta.is_news() {
        txn.changed.push(id);
    }
    Ok(())
}

async fn write_job(conn: &mut SqliteConnection, job: &JobRecord, columns: JobColumns) -> Result<()> {
    sqlx::query(
        "update jobs set status = ?, run = ?, seq = ?, cancel_at = ?, media = ?, plan = ?, progress_hw = ?, \
         failure = ?, started_at = ?, finished_at = ?, deleted_at = coalesce(?, deleted_at) where id = ?",
    )
    .bind(job.status.number())
    .bind(i64::from(job.run.0))
    .bind(job.seq)
    .bind(job.cancel_at.map(Timestamp::micros))
    .bind(columns.media)
    .bind(columns.plan)
    .bind(i64::from(job.progress.permille()))
    .bind(columns.failure)
    .bind(job.started_at.map(Timestamp::micros))
    .bind(job.finished_at.map(Timestamp::micros))
    .bind(columns.deleted_at.map(Timestamp::micros))
    .bind(blob(job.id.uuid()))
    .execute(conn)
    .await
    .map_err(explain("writing a job"))?;
    Ok(())
}

async fn write_tasks(txn: &mut Txn<'_>, delta: &Delta) -> Result<()> {
    txn.waiting += delta.waiting();
    if delta.folds() {
        sqlx::query("delete from tasks where job_id = ?")
            .bind(blob(delta.job().uuid()))
            .execute(&mut *txn.conn)
            .await
            .map_err(explain("folding tasks"))?;
    }
    for write in delta.tasks() {
        match write {
            TaskWrite::Update { was, is } => update_task(txn.conn, was, is).await?,
            TaskWrite::Insert(task) => insert_task(txn.conn, &delta.after, task).await?,
        }
    }
    Ok(())
}

/// F1 once more in SQL: the row is still as it was read.
async fn update_task(conn: &mut SqliteConnection, was: &TaskRecord, task: &TaskRecord) -> Result<()> {
    let hold = task.hold.as_ref();
    let done = sqlx::query(
        "update tasks set state = ?, rank = ?, not_before = ?, epoch = ?, run_id = ?, session_id = ?, worker_id = ?, \
         worker_boot = ?, charged = ?, losses = ?, crashes = ?, class = ? where id = ? and state = ? and epoch = ? and run_id is ?",
    )
    .bind(task.state.number())
    .bind(task.rank)
    .bind(task.not_before.map(Timestamp::micros))
    .bind(i64::from(task.epoch.0))
    .bind(hold.map(|h| blob(h.run.uuid())))
    .bind(hold.map(|h| blob(h.session.uuid())))
    .bind(hold.map(|h| h.worker.as_str().to_owned()))
    .bind(hold.map(|h| blob(h.boot.uuid())))
    .bind(i64::from(task.charged))
    .bind(i64::from(task.losses))
    .bind(i64::from(task.crashes))
    .bind(task.class.number())
    .bind(blob(task.id.uuid()))
    .bind(was.state.number())
    .bind(i64::from(was.epoch.0))
    .bind(was.hold.as_ref().map(|h| blob(h.run.uuid())))
    .execute(conn)
    .await
    .map_err(explain("writing a task"))?;
    if done.rows_affected() == 1 {
        Ok(())
    } else {
        Err(inconsistent("tasks", "a row changed under its transaction"))
    }
}

async fn insert_task(conn: &mut SqliteConnection, after: &Aggregate, task: &TaskRecord) -> Result<()> {
    sqlx::query(
        "insert into tasks(id, job_id, job_run, kind, state, tenant, class, rank, epoch, charged, losses, work) \
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '{}')",
    )
    .bind(blob(task.id.uuid()))
    .bind(blob(after.job.id.uuid()))
    .bind(i64::from(task.job_run.0))
    .bind(task.kind.number())
    .bind(task.state.number())
    .bind(after.job.tenant.as_str().to_owned())
    .bind(task.class.number())
    .bind(task.rank)
    .bind(i64::from(task.epoch.0))
    .bind(i64::from(task.charged))
    .bind(i64::from(task.losses))
    .execute(conn)
    .await
    .map_err(explain("writing a task"))?;
    Ok(())
}

async fn write_output(conn: &mut SqliteConnection, job: JobId, output: &OutputRecord) -> Result<()> {
    sqlx::query("update outputs set status = ?, result = ?, failure = ?, publication = ? where job_id = ? and idx = ?")
        .bind(output.status.number())
        .bind(document("outputs", output.result.as_ref())?)
        .bind(document("outputs", output.failure.as_ref())?)
        .bind(output.publication.map(|p| blob(p.uuid())))
        .bind(blob(job.uuid()))
        .bind(i64::from(output.index.0))
        .execute(conn)
        .await
        .map_err(explain("writing an output"))?;
    Ok(())
}

async fn write_publication(
    conn: &mut SqliteConnection,
    job: JobId,
    publication: &Publication,
    now: Timestamp,
) -> Result<()> {
    let until =
        (publication.state == PublicationState::Open).then(|| now.micros().saturating_add(PERMIT_MICROS));
    sqlx::query(
        "insert into publications(id, job_id, idx, run_id, epoch, handle, manifest, state, permit_until) \
         values (?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict(id) do update set state = excluded.state",
    )
    .bind(blob(publication.id.uuid()))
    .bind(blob(job.uuid()))
    .bind(i64::from(publication.output.0))
    .bind(blob(publication.run.uuid()))
    .bind(i64::from(publication.epoch.0))
    .bind(publication.handle.clone())
    .bind(publication.manifest.clone())
    .bind(publication.state.number())
    .bind(until)
    .execute(conn)
    .await
    .map_err(explain("writing a publication"))?;
    Ok(())
}

async fn write_event(conn: &mut SqliteConnection, job: JobId, event: &Event) -> Result<()> {
    sqlx::query("insert into job_events(job_id, seq, kind, data, at) values (?, ?, ?, ?, ?)")
        .bind(blob(job.uuid()))
        .bind(event.seq)
        .bind(event.kind.number())
        .bind(event_data(event)?)
        .bind(event.at.micros())
        .execute(conn)
        .await
        .map_err(explain("writing an event"))?;
    Ok(())
}

async fn begin_run(conn: &mut SqliteConnection, job: JobId, run: &Attempt) -> Result<()> {
    sqlx::query(
        "insert into runs(id, task_id, job_id, epoch, worker_id, started_at) values (?, ?, ?, ?, ?, ?)",
    )
    .bind(blob(run.run.uuid()))
    .bind(blob(run.task.uuid()))
    .bind(blob(job.uuid()))
    .bind(i64::from(run.epoch.0))
    .bind(run.worker.as_str().to_owned())
    .bind(run.started_at.micros())
    .execute(conn)
    .await
    .map_err(explain("writing a run"))?;
    Ok(())
}

async fn end_run(conn: &mut SqliteConnection, end: &RunEnd, now: Timestamp) -> Result<()> {
    sqlx::query(
        "update runs set ended_at = ?, outcome = ?, code = ?, log_tail = ? where id = ? and ended_at is null",
    )
    .bind(now.micros())
    .bind(end.outcome.number())
    .bind(end.failure.as_ref().map(|f| f.code.as_str()))
    .bind(log_tail(end))
    .bind(blob(end.run.uuid()))
    .execute(conn)
    .await
    .map_err(explain("writing a run"))?;
    Ok(())
}

async fn write_secrets(conn: &mut SqliteConnection, job: JobId, fate: SecretsFate) -> Result<()> {
    let (sql, at) = match fate {
        SecretsFate::Unchanged => return Ok(()),
        SecretsFate::Keep => ("update job_secrets set wipe_at = ? where job_id = ?", None),
        SecretsFate::WipeAt(at) => {
            ("update job_secrets set wipe_at = ? where job_id = ? and sealed <> x''", Some(at.micros()))
        }
        SecretsFate::WipeNow => ("update job_secrets set sealed = x'', wipe_at = ? where job_id = ?", None),
    };
    sqlx::query(sql)
        .bind(at)
        .bind(blob(job.uuid()))
        .execute(conn)
        .await
        .map_err(explain("writing secrets"))?;
    Ok(())
}

/// Leaves something for the sweeper.
pub(super) async fn write_garbage(
    conn: &mut SqliteConnection,
    garbage: &Garbage,
    due: Timestamp,
) -> Result<()> {
    sqlx::query("insert into garbage(id, what, not_before) values (?, ?, ?)")
        .bind(blob(garbage.id))
        .bind(to_json("garbage", &garbage.what)?)
        .bind(due.micros())
        .execute(conn)
        .await
        .map_err(explain("writing garbage"))?;
    Ok(())
}

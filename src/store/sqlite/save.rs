//! Writes what any number of transitions changed, a few statements per table, in the transaction that read the jobs.

use sqlx::SqliteConnection;

use super::super::delta::{Delta, JobColumns, TaskWrite, document, log_tail};
use super::super::records::PERMIT_MICROS;
use super::super::row::{event_data, inconsistent, to_json};
use super::super::{Garbage, Result};
use super::bulk::Bulk;
use super::error::explain;
use super::outbox::tell;
use super::writer::Txn;
use crate::domain::machine::{RunEnd, SecretsFate};
use crate::domain::{
    Aggregate, Attempt, Event, JobId, JobRecord, OutputRecord, Publication, PublicationState, TaskRecord,
    Timestamp,
};

static BEGIN_RUNS: Bulk = Bulk::new(
    "insert into runs(id, task_id, job_id, epoch, worker_id, started_at) select * from (values ",
    "(?,?,?,?,?,?)",
    ") where column1 is not null",
);
static END_RUNS: Bulk = Bulk::new(
    "with v(id, ended_at, outcome, code, log_tail) as (values ",
    "(?,?,?,?,?)",
    ") update runs set ended_at = v.ended_at, outcome = v.outcome, code = v.code, log_tail = v.log_tail \
     from v where runs.id = v.id and runs.ended_at is null",
);
static JOBS: Bulk = Bulk::new(
    "with v(id, status, run, seq, cancel_at, media, plan, progress_hw, failure, started_at, finished_at, deleted_at) \
     as (values ",
    "(?,?,?,?,?,?,?,?,?,?,?,?)",
    ") update jobs set status = v.status, run = v.run, seq = v.seq, cancel_at = v.cancel_at, media = v.media, \
     plan = v.plan, progress_hw = v.progress_hw, failure = v.failure, started_at = v.started_at, \
     finished_at = v.finished_at, deleted_at = coalesce(v.deleted_at, jobs.deleted_at) from v where jobs.id = v.id",
);
static FOLD_TASKS: Bulk = Bulk::new("delete from tasks where job_id in (", "?", ")");
/// F1 once more in SQL: the row is still as it was read.
static UPDATE_TASKS: Bulk = Bulk::new(
    "with v(id, state, rank, not_before, epoch, run_id, session_id, worker_id, worker_boot, charged, losses, crashes, \
     class, was_state, was_epoch, was_run) as (values ",
    "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    ") update tasks set state = v.state, rank = v.rank, not_before = v.not_before, epoch = v.epoch, \
     run_id = v.run_id, session_id = v.session_id, worker_id = v.worker_id, worker_boot = v.worker_boot, \
     charged = v.charged, losses = v.losses, crashes = v.crashes, class = v.class from v \
     where tasks.id = v.id and tasks.state = v.was_state and tasks.epoch = v.was_epoch and tasks.run_id is v.was_run",
);
static INSERT_TASKS: Bulk = Bulk::new(
    "insert into tasks(id, job_id, job_run, kind, state, tenant, class, rank, epoch, charged, losses, work) \
     select *, '{}' from (values ",
    "(?,?,?,?,?,?,?,?,?,?,?)",
    ") where column1 is not null",
);
static OUTPUTS: Bulk = Bulk::new(
    "with v(job_id, idx, status, result, failure, publication) as (values ",
    "(?,?,?,?,?,?)",
    ") update outputs set status = v.status, result = v.result, failure = v.failure, publication = v.publication \
     from v where outputs.job_id = v.job_id and outputs.idx = v.idx",
);
static PUBLICATIONS: Bulk = Bulk::new(
    "insert into publications(id, job_id, idx, run_id, epoch, handle, manifest, state, permit_until) \
     select * from (values ",
    "(?,?,?,?,?,?,?,?,?)",
    ") where column1 is not null on conflict(id) do update set state = excluded.state",
);
static EVENTS: Bulk = Bulk::new(
    "insert into job_events(job_id, seq, kind, data, at) select * from (values ",
    "(?,?,?,?,?)",
    ") where column1 is not null",
);
static WIPE_SECRETS: Bulk =
    Bulk::new("update job_secrets set sealed = x'', wipe_at = null where job_id in (", "?", ")");
static KEEP_SECRETS: Bulk = Bulk::new(
    "with v(job_id, wipe_at) as (values ",
    "(?,?)",
    ") update job_secrets set wipe_at = v.wipe_at from v where job_secrets.job_id = v.job_id and sealed <> x''",
);
/// All of them, with the name of the table that they write.
pub(super) static STATEMENTS: [(&str, &Bulk); 11] = [
    ("runs", &BEGIN_RUNS),
    ("runs", &END_RUNS),
    ("jobs", &JOBS),
    ("tasks", &FOLD_TASKS),
    ("tasks", &UPDATE_TASKS),
    ("tasks", &INSERT_TASKS),
    ("outputs", &OUTPUTS),
    ("publications", &PUBLICATIONS),
    ("job_events", &EVENTS),
    ("job_secrets", &WIPE_SECRETS),
    ("job_secrets", &KEEP_SECRETS),
];

pub(super) fn blob(id: uuid::Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// Writes the differences and the effects. Unchanged rows are not touched.
pub(super) async fn save(txn: &mut Txn<'_>, deltas: &[Delta]) -> Result<()> {
    write_runs(txn.conn, deltas).await?;
    write_jobs(txn.conn, deltas).await?;
    write_tasks(txn.conn, deltas).await?;
    write_outputs(txn.conn, deltas).await?;
    write_publications(txn.conn, deltas).await?;
    write_events(txn.conn, deltas).await?;
    tell(txn, deltas).await?;
    write_secrets(txn.conn, deltas).await?;
    txn.waiting += deltas.iter().map(Delta::waiting).sum::<i64>();
    txn.changed.extend(deltas.iter().filter(|delta| delta.is_news()).map(Delta::job));
    Ok(())
}

/// One kind of row of all deltas, each with its job.
fn rows<'d, T, I>(deltas: &'d [Delta], of: impl Fn(&'d Delta) -> I) -> Vec<(JobId, T)>
where
    I: IntoIterator<Item = T>,
{
    deltas.iter().flat_map(|delta| of(delta).into_iter().map(move |row| (delta.job(), row))).collect()
}

async fn write_runs(conn: &mut SqliteConnection, deltas: &[Delta]) -> Result<()> {
    const DOING: &str = "writing runs";
    let begun: Vec<(JobId, &Attempt)> = rows(deltas, |delta| &delta.effects.begun);
    BEGIN_RUNS
        .execute(conn, DOING, &begun, |query, (job, run)| {
            query
                .bind(blob(run.run.uuid()))
                .bind(blob(run.task.uuid()))
                .bind(blob(job.uuid()))
                .bind(i64::from(run.epoch.0))
                .bind(run.worker.as_str().to_owned())
                .bind(run.started_at.micros())
        })
        .await?;
    let ended: Vec<(JobId, (&RunEnd, Timestamp))> =
        rows(deltas, |delta| delta.effects.ended.iter().map(|end| (end, delta.now)));
    END_RUNS
        .execute(conn, DOING, &ended, |query, (_, (end, now))| {
            query
                .bind(blob(end.run.uuid()))
                .bind(now.micros())
                .bind(end.outcome.number())
                .bind(end.failure.as_ref().map(|f| f.code.as_str()))
                .bind(log_tail(end))
        })
        .await?;
    Ok(())
}

async fn write_jobs(conn: &mut SqliteConnection, deltas: &[Delta]) -> Result<()> {
    let mut jobs: Vec<(&JobRecord, JobColumns)> = Vec::with_capacity(deltas.len());
    for delta in deltas {
        jobs.extend(delta.columns()?.map(|columns| (&delta.after.job, columns)));
    }
    JOBS.execute(conn, "writing jobs", &jobs, |query, (job, columns)| {
        query
            .bind(blob(job.id.uuid()))
            .bind(job.status.number())
            .bind(i64::from(job.run.0))
            .bind(job.seq)
            .bind(job.cancel_at.map(Timestamp::micros))
            .bind(columns.media.clone())
            .bind(columns.plan.clone())
            .bind(i64::from(job.progress.permille()))
            .bind(columns.failure.clone())
            .bind(job.started_at.map(Timestamp::micros))
            .bind(job.finished_at.map(Timestamp::micros))
            .bind(columns.deleted_at.map(Timestamp::micros))
    })
    .await?;
    Ok(())
}

async fn write_tasks(conn: &mut SqliteConnection, deltas: &[Delta]) -> Result<()> {
    let folded: Vec<JobId> = deltas.iter().filter(|delta| delta.folds()).map(Delta::job).collect();
    FOLD_TASKS.execute(conn, "folding tasks", &folded, |query, job| query.bind(blob(job.uuid()))).await?;
    let (mut updates, mut inserts) = (Vec::new(), Vec::new());
    for delta in deltas {
        for write in delta.tasks() {
            match write {
                TaskWrite::Update { was, is } => updates.push((was, is)),
                TaskWrite::Insert(task) => inserts.push((&delta.after, task)),
            }
        }
    }
    update_tasks(conn, &updates).await?;
    insert_tasks(conn, &inserts).await
}

async fn update_tasks(conn: &mut SqliteConnection, updates: &[(&TaskRecord, &TaskRecord)]) -> Result<()> {
    let done = UPDATE_TASKS
        .execute(conn, "writing tasks", updates, |query, (was, task)| {
            let hold = task.hold.as_ref();
            query
                .bind(blob(task.id.uuid()))
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
                .bind(was.state.number())
                .bind(i64::from(was.epoch.0))
                .bind(was.hold.as_ref().map(|h| blob(h.run.uuid())))
        })
        .await?;
    if usize::try_from(done) == Ok(updates.len()) {
        Ok(())
    } else {
        Err(inconsistent("tasks", "a row changed under its transaction"))
    }
}

async fn insert_tasks(conn: &mut SqliteConnection, inserts: &[(&Aggregate, &TaskRecord)]) -> Result<()> {
    INSERT_TASKS
        .execute(conn, "writing tasks", inserts, |query, (after, task)| {
            query
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
        })
        .await?;
    Ok(())
}

async fn write_outputs(conn: &mut SqliteConnection, deltas: &[Delta]) -> Result<()> {
    let mut outputs = Vec::new();
    for (job, output) in rows(deltas, Delta::outputs) {
        let output: &OutputRecord = output;
        let result = document("outputs", output.result.as_ref())?;
        outputs.push((job, output, result, document("outputs", output.failure.as_ref())?));
    }
    OUTPUTS
        .execute(conn, "writing outputs", &outputs, |query, (job, output, result, failure)| {
            query
                .bind(blob(job.uuid()))
                .bind(i64::from(output.index.0))
                .bind(output.status.number())
                .bind(result.clone())
                .bind(failure.clone())
                .bind(output.publication.map(|p| blob(p.uuid())))
        })
        .await?;
    Ok(())
}

async fn write_publications(conn: &mut SqliteConnection, deltas: &[Delta]) -> Result<()> {
    let all: Vec<(JobId, (&Publication, Timestamp))> =
        rows(deltas, |delta| delta.publications().map(|publication| (publication, delta.now)));
    PUBLICATIONS
        .execute(conn, "writing publications", &all, |query, (job, (publication, now))| {
            let open = publication.state == PublicationState::Open;
            query
                .bind(blob(publication.id.uuid()))
                .bind(blob(job.uuid()))
                .bind(i64::from(publication.output.0))
                .bind(blob(publication.run.uuid()))
                .bind(i64::from(publication.epoch.0))
                .bind(publication.handle.clone())
                .bind(publication.manifest.clone())
                .bind(publication.state.number())
                .bind(open.then(|| now.micros().saturating_add(PERMIT_MICROS)))
        })
        .await?;
    Ok(())
}

async fn write_events(conn: &mut SqliteConnection, deltas: &[Delta]) -> Result<()> {
    let mut events: Vec<(JobId, &Event, String)> = Vec::new();
    for (job, event) in rows(deltas, |delta| &delta.effects.events) {
        events.push((job, event, event_data(event)?));
    }
    EVENTS
        .execute(conn, "writing events", &events, |query, (job, event, data)| {
            query
                .bind(blob(job.uuid()))
                .bind(event.seq)
                .bind(event.kind.number())
                .bind(data.clone())
                .bind(event.at.micros())
        })
        .await?;
    Ok(())
}

async fn write_secrets(conn: &mut SqliteConnection, deltas: &[Delta]) -> Result<()> {
    let (mut gone, mut due) = (Vec::new(), Vec::new());
    for delta in deltas {
        let job = delta.job();
        match delta.effects.secrets {
            SecretsFate::Unchanged => {}
            SecretsFate::Keep => due.push((job, None)),
            SecretsFate::WipeAt(at) => due.push((job, Some(at.micros()))),
            SecretsFate::WipeNow => gone.push(job),
        }
    }
    WIPE_SECRETS.execute(conn, "wiping secrets", &gone, |query, job| query.bind(blob(job.uuid()))).await?;
    KEEP_SECRETS
        .execute(conn, "writing secrets", &due, |query, (job, at)| query.bind(blob(job.uuid())).bind(*at))
        .await?;
    Ok(())
}

/// Leaves something for the sweeper.
pub(super) async fn write_garbage(
    conn: &mut SqliteConnection,
    garbage: &Garbage,
    due: Timestamp,
) -> Result<()> {
    sqlx::query("insert into garbage(id, what, not_before, folder) values (?, ?, ?, ?)")
        .bind(blob(garbage.id))
        .bind(to_json("garbage", &garbage.what)?)
        .bind(due.micros())
        .bind(garbage.what.folder().number())
        .execute(conn)
        .await
        .map_err(explain("writing garbage"))?;
    Ok(())
}

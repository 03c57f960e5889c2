//! Answers to questions, from connections of their own: a flood of questions delays no running job.

use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, QueryBuilder, Transaction};

use super::super::columns::Columns;
use super::super::records::{Loaded, queue_stats};
use super::super::row::{event, from_json};
use super::super::{
    Error, Garbage, JobFilter, JobPage, Pulse, QueueStats, Result, StoredJob, UploadRecord, WorkerSeen,
};
use super::claim::READY_CLASSES;
use super::error::explain;
use super::load::{Lock, attempts, load, uuids};
use super::session;
use crate::domain::{
    Aggregate, Event, Folder, JobId, JobStatus, TaskClass, TaskReport, TaskState, Tenant, Timestamp, UploadId,
};

/// Queue positions are exact to here.
const FARTHEST_POSITION: i64 = 1_000;
/// Largest page.
const MOST_JOBS: u32 = 100;
/// Garbage handed out at once.
const MOST_GARBAGE: i64 = 200;

/// Several statements that see one state.
async fn snapshot(pool: &PgPool, doing: &'static str) -> Result<Transaction<'static, Postgres>> {
    pool.begin_with("begin isolation level repeatable read read only").await.map_err(explain(doing))
}

pub(super) async fn get(pool: &PgPool, tenant: Option<&Tenant>, id: JobId) -> Result<Option<StoredJob>> {
    let mut snapshot = snapshot(pool, "reading a job").await?;
    let found = load(&mut snapshot, &[id], Lock::None).await?.take(id).transpose()?;
    let Some(Loaded { aggregate, .. }) = found else {
        return Ok(None);
    };
    if tenant.is_some_and(|tenant| *tenant != aggregate.job.tenant) {
        return Ok(None);
    }
    let attempts = attempts(&mut snapshot, id).await?;
    let queue_position = position(&mut snapshot, &aggregate).await?;
    Ok(Some(StoredJob { aggregate, attempts, queue_position }))
}

async fn position(conn: &mut PgConnection, job: &Aggregate) -> Result<Option<u32>> {
    let ready = job.tasks.iter().find(|t| t.state == TaskState::Ready);
    let Some(task) = ready.filter(|_| job.job.status == JobStatus::Queued) else {
        return Ok(None);
    };
    let ahead: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
        "{READY_CLASSES} select count(*) from (select 1 from c cross join tasks t \
         where t.state = 2 and t.class = c.class and t.tenant = $1 and (t.rank, t.id) < ($2, $3) limit $4) ahead",
    )))
    .bind(job.job.tenant.as_str())
    .bind(task.rank)
    .bind(task.id.uuid())
    .bind(FARTHEST_POSITION + 1)
    .fetch_one(conn)
    .await
    .map_err(explain("counting the queue"))?;
    Ok(u32::try_from(ahead).ok().filter(|_| ahead <= FARTHEST_POSITION))
}

pub(super) async fn list(pool: &PgPool, filter: &JobFilter) -> Result<JobPage> {
    let limit = filter.limit.clamp(1, MOST_JOBS);
    let mut snapshot = snapshot(pool, "listing jobs").await?;
    let rows =
        page_query(filter, limit).build().fetch_all(&mut *snapshot).await.map_err(explain("listing jobs"))?;
    let id = |row| Columns { table: "jobs", row }.id("id").map(JobId::from_uuid);
    let mut ids: Vec<_> = rows.iter().map(id).collect::<Result<_>>()?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = ids.len() > most;
    ids.truncate(most);
    let mut jobs = load(&mut snapshot, &ids, Lock::None).await?;
    let stored =
        |Loaded { aggregate, .. }| StoredJob { aggregate, attempts: Vec::new(), queue_position: None };
    let jobs = ids.iter().filter_map(|id| Some(jobs.take(*id)?.map(stored))).collect::<Result<_>>()?;
    Ok(JobPage { jobs, more })
}

/// Keyset over ids, which sort by age; never an offset, never a count.
fn page_query(filter: &JobFilter, limit: u32) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("select j.id as id from ");
    match (&filter.label, &filter.tenant) {
        (Some((key, value)), Some(tenant)) => {
            query.push("job_labels l join jobs j on j.id = l.job_id where l.tenant = ");
            query.push_bind(tenant.as_str().to_owned()).push(" and l.k = ").push_bind(key.clone());
            query.push(" and l.v = ").push_bind(value.clone());
            if let Some(before) = filter.before {
                query.push(" and l.job_id < ").push_bind(before.uuid());
            }
        }
        (Some((key, value)), None) => {
            query.push("jobs j where exists (select 1 from job_labels l where l.tenant = j.tenant and l.job_id = j.id and l.k = ");
            query.push_bind(key.clone()).push(" and l.v = ").push_bind(value.clone()).push(")");
        }
        (None, Some(tenant)) => {
            query.push("jobs j where j.tenant = ").push_bind(tenant.as_str().to_owned());
        }
        (None, None) => {
            query.push("jobs j where true");
        }
    }
    query.push(" and j.deleted_at is null");
    if let Some(status) = filter.status {
        query.push(" and j.status = ").push_bind(status.number());
    }
    if let Some(before) = filter.before {
        query.push(" and j.id < ").push_bind(before.uuid());
    }
    let labelled = filter.label.is_some() && filter.tenant.is_some();
    query.push(if labelled { " order by l.job_id desc limit " } else { " order by j.id desc limit " });
    query.push_bind(i64::from(limit) + 1);
    query
}

pub(super) async fn events(pool: &PgPool, job: JobId, after: i64) -> Result<Vec<Event>> {
    let rows =
        sqlx::query("select seq, kind, data, at from job_events where job_id = $1 and seq > $2 order by seq")
            .bind(job.uuid())
            .bind(after)
            .fetch_all(pool)
            .await
            .map_err(explain("reading events"))?;
    let read = |row| {
        let columns = Columns { table: "job_events", row };
        event(columns.int("seq")?, columns.int("kind")?, &columns.text("data")?, columns.int("at")?)
    };
    rows.iter().map(read).collect()
}

/// The oldest ready job is looked for at the head of each line.
pub(super) async fn stats(pool: &PgPool) -> Result<QueueStats> {
    let sql = format!(
        "{READY_CLASSES}, \
         t(class, tenant) as (\
           select class, (select min(tenant) from tasks where state = 2 and tasks.class = c.class) from c where class is not null \
           union all \
           select class, (select min(tenant) from tasks where state = 2 and tasks.class = t.class and tasks.tenant > t.tenant) \
           from t where t.tenant is not null) \
         select (select count(*) from tasks where state = 2) as ready, \
           (select count(*) from tasks where state = 2 and class >= {SOLO}) as solo, \
           (select count(*) from tasks where state = 1) as delayed, \
           (select count(*) from tasks where state in (3, 4)) as running, \
           (select min((select j.created_at from jobs j where j.id = (select job_id from tasks \
              where state = 2 and tasks.class = t.class and tasks.tenant = t.tenant order by rank, id limit 1))) from t) as oldest",
        SOLO = TaskClass::default().solo().number()
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(pool).await.map_err(explain("counting the queue"))?;
    queue_stats(&row)
}

/// Other controls' reports are in the record, so that any control can tell them.
pub(super) async fn pulse(pool: &PgPool, jobs: &[JobId]) -> Result<Vec<Pulse>> {
    let rows = sqlx::query(
        "select j.id, j.seq, j.status, j.cancel_at, j.progress_hw, case when j.status = 1 then \
           (select p.v from task_progress p where p.job_id = j.id order by p.at desc limit 1) end as v \
         from jobs j where j.deleted_at is null and j.id = any($1) order by j.id",
    )
    .bind(uuids(jobs))
    .fetch_all(pool)
    .await
    .map_err(explain("reading pulses"))?;
    let pulse = |row| {
        let columns = Columns { table: "jobs", row };
        let text = columns.maybe_text("v")?;
        let report = text.map(|text| from_json::<TaskReport>("task_progress", "v", &text)).transpose()?;
        let mark = crate::domain::Progress::from_permille(columns.narrow("progress_hw")?);
        let raised = |report: TaskReport| TaskReport { progress: report.progress.raise(mark), ..report };
        Ok(Pulse {
            job: JobId::from_uuid(columns.id("id")?),
            seq: columns.int("seq")?,
            status: columns.state("status", JobStatus::from_number)?,
            cancel_asked: columns.maybe_time("cancel_at")?.is_some(),
            report: report.map(raised),
        })
    };
    rows.iter().map(pulse).collect()
}

pub(super) async fn workers_seen(pool: &PgPool, since: Timestamp) -> Result<Vec<WorkerSeen>> {
    let mut conn = pool.acquire().await.map_err(explain("reading workers"))?;
    session::all_seen(&mut conn, since).await
}

pub(super) async fn waiting(pool: &PgPool, tenant: &Tenant, most: u64) -> Result<u64> {
    let waiting: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
        "{READY_CLASSES} select count(*) from (select 1 from c cross join tasks t \
         where t.state = 2 and t.class = c.class and t.tenant = $1 limit $2) waiting",
    )))
    .bind(tenant.as_str())
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_one(pool)
    .await
    .map_err(explain("counting a tenant's queue"))?;
    Ok(u64::try_from(waiting).unwrap_or(0))
}

pub(super) async fn ping(pool: &PgPool) -> Result<()> {
    let _: i32 =
        sqlx::query_scalar("select 1 from meta limit 1").fetch_one(pool).await.map_err(explain("pinging"))?;
    Ok(())
}

pub(super) async fn upload(
    pool: &PgPool,
    tenant: Option<&Tenant>,
    id: UploadId,
) -> Result<Option<UploadRecord>> {
    let row = sqlx::query("select * from uploads where id = $1")
        .bind(id.uuid())
        .fetch_optional(pool)
        .await
        .map_err(explain("reading an upload"))?;
    let Some(row) = row else { return Ok(None) };
    let columns = Columns { table: "uploads", row: &row };
    let record = UploadRecord {
        id,
        tenant: columns.name("tenant")?,
        name: columns.text("key")?,
        size: columns.narrow("size")?,
        etag: columns.maybe_text("etag")?,
        expires_at: columns.time("expires_at")?,
    };
    Ok(Some(record).filter(|record| tenant.is_none_or(|tenant| *tenant == record.tenant)))
}

pub(super) async fn garbage(pool: &PgPool, folder: Folder, now: Timestamp) -> Result<Vec<Garbage>> {
    let rows = sqlx::query(
        "select id, what from garbage where not_before <= $1 and folder in (0, $3::int) order by not_before limit $2",
    )
    .bind(now.micros())
    .bind(MOST_GARBAGE)
    .bind(folder.number())
    .fetch_all(pool)
    .await
    .map_err(explain("reading garbage"))?;
    let read = |row| {
        let columns = Columns { table: "garbage", row };
        Ok(Garbage { id: columns.id("id")?, what: columns.json("what")? })
    };
    // One that cannot be read must not keep the others.
    let tell =
        |error: &Error| tracing::error!(error = error as &dyn std::error::Error, "garbage is set aside");
    Ok(rows.iter().filter_map(|row| read(row).inspect_err(tell).ok()).collect())
}

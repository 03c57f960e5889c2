//! Answers to questions, from read-only connections: they wait for no writer and delay none.

use sqlx::{AssertSqlSafe, QueryBuilder, Sqlite, SqliteConnection, SqlitePool};

use super::super::columns::Columns;
use super::super::records::{Loaded, queue_stats};
use super::super::row::event;
use super::super::{Error, Garbage, JobFilter, JobPage, Pulse, QueueStats, Result, StoredJob, UploadRecord};
use super::claim::READY_CLASSES;
use super::error::explain;
use super::load::{attempts, load, load_one};
use super::save::blob;
use crate::domain::{Aggregate, Event, JobId, JobStatus, TaskClass, TaskState, Tenant, Timestamp, UploadId};

/// Queue positions are exact to here.
const FARTHEST_POSITION: i64 = 1_000;
/// Largest page.
const MOST_JOBS: u32 = 100;
/// Garbage handed out at once.
const MOST_GARBAGE: i64 = 200;

pub(super) async fn get(pool: &SqlitePool, tenant: Option<&Tenant>, id: JobId) -> Result<Option<StoredJob>> {
    let mut snapshot = pool.begin().await.map_err(explain("reading a job"))?;
    let Some(Loaded { aggregate, .. }) = load_one(&mut snapshot, id).await? else {
        return Ok(None);
    };
    if tenant.is_some_and(|tenant| *tenant != aggregate.job.tenant) {
        return Ok(None);
    }
    let attempts = attempts(&mut snapshot, id).await?;
    let queue_position = position(&mut snapshot, &aggregate).await?;
    Ok(Some(StoredJob { aggregate, attempts, queue_position }))
}

async fn position(conn: &mut SqliteConnection, job: &Aggregate) -> Result<Option<u32>> {
    let ready = job.tasks.iter().find(|t| t.state == TaskState::Ready);
    let Some(task) = ready.filter(|_| job.job.status == JobStatus::Queued) else {
        return Ok(None);
    };
    let ahead: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
        "{READY_CLASSES} select count(*) from (select 1 from c cross join tasks t \
         where t.state = 2 and t.class = c.class and t.tenant = ? and (t.rank, t.id) < (?, ?) limit ?)",
    )))
    .bind(job.job.tenant.as_str().to_owned())
    .bind(task.rank)
    .bind(blob(task.id.uuid()))
    .bind(FARTHEST_POSITION + 1)
    .fetch_one(conn)
    .await
    .map_err(explain("counting the queue"))?;
    Ok(u32::try_from(ahead).ok().filter(|_| ahead <= FARTHEST_POSITION))
}

pub(super) async fn list(pool: &SqlitePool, filter: &JobFilter) -> Result<JobPage> {
    let limit = filter.limit.clamp(1, MOST_JOBS);
    let mut snapshot = pool.begin().await.map_err(explain("listing jobs"))?;
    let rows =
        page_query(filter, limit).build().fetch_all(&mut *snapshot).await.map_err(explain("listing jobs"))?;
    let id = |row| Columns { table: "jobs", row }.id("id").map(JobId::from_uuid);
    let mut ids: Vec<_> = rows.iter().map(id).collect::<Result<_>>()?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = ids.len() > most;
    ids.truncate(most);
    let jobs = if ids.is_empty() { Vec::new() } else { load(&mut snapshot, &ids).await? };
    let stored =
        |Loaded { aggregate, .. }| StoredJob { aggregate, attempts: Vec::new(), queue_position: None };
    Ok(JobPage { jobs: jobs.into_iter().map(stored).collect(), more })
}

/// Keyset over ids, which sort by age; never an offset, never a count.
fn page_query(filter: &JobFilter, limit: u32) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("select j.id as id from ");
    match (&filter.label, &filter.tenant) {
        (Some((key, value)), Some(tenant)) => {
            query.push("job_labels l cross join jobs j on j.id = l.job_id where l.tenant = ");
            query.push_bind(tenant.as_str().to_owned()).push(" and l.k = ").push_bind(key.clone());
            query.push(" and l.v = ").push_bind(value.clone());
            if let Some(before) = filter.before {
                query.push(" and l.job_id < ").push_bind(blob(before.uuid()));
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
            query.push("jobs j where 1");
        }
    }
    query.push(" and j.deleted_at is null");
    if let Some(status) = filter.status {
        query.push(" and j.status = ").push_bind(status.number());
    }
    if let Some(before) = filter.before {
        query.push(" and j.id < ").push_bind(blob(before.uuid()));
    }
    let labelled = filter.label.is_some() && filter.tenant.is_some();
    query.push(if labelled { " order by l.job_id desc limit " } else { " order by j.id desc limit " });
    query.push_bind(i64::from(limit) + 1);
    query
}

pub(super) async fn events(pool: &SqlitePool, job: JobId, after: i64) -> Result<Vec<Event>> {
    let rows =
        sqlx::query("select seq, kind, data, at from job_events where job_id = ? and seq > ? order by seq")
            .bind(blob(job.uuid()))
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
pub(super) async fn stats(pool: &SqlitePool) -> Result<QueueStats> {
    let sql = format!(
        "{READY_CLASSES}, \
         t(class, tenant) as (\
           select class, (select min(tenant) from tasks where state = 2 and tasks.class = c.class) from c where class is not null \
           union all \
           select class, (select min(tenant) from tasks where state = 2 and tasks.class = t.class and tasks.tenant > t.tenant) \
           from t where t.tenant is not null) \
         select (select count(*) from tasks indexed by tasks_ready where state = 2) as ready, \
           (select count(*) from tasks indexed by tasks_ready where state = 2 and class >= {SOLO}) as solo, \
           (select count(*) from tasks indexed by tasks_delayed where state = 1) as delayed, \
           (select count(*) from tasks indexed by tasks_session where state in (3, 4)) as running, \
           (select min((select j.created_at from jobs j where j.id = (select job_id from tasks \
              where state = 2 and tasks.class = t.class and tasks.tenant = t.tenant order by rank, id limit 1))) from t) as oldest",
        SOLO = TaskClass::default().solo().number()
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(pool).await.map_err(explain("counting the queue"))?;
    queue_stats(&row)
}

/// The control has the reports in memory, so that there are only the histories to compare.
pub(super) async fn pulse(pool: &SqlitePool, jobs: &[JobId]) -> Result<Vec<Pulse>> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "select id, seq, status, cancel_at from jobs where deleted_at is null and id in (",
    );
    let mut ids = query.separated(", ");
    for job in jobs {
        ids.push_bind(blob(job.uuid()));
    }
    query.push(")");
    let rows = query.build().fetch_all(pool).await.map_err(explain("reading pulses"))?;
    let pulse = |row| {
        let columns = Columns { table: "jobs", row };
        Ok(Pulse {
            job: JobId::from_uuid(columns.id("id")?),
            seq: columns.int("seq")?,
            status: columns.state("status", JobStatus::from_number)?,
            cancel_asked: columns.maybe_time("cancel_at")?.is_some(),
            report: None,
        })
    };
    rows.iter().map(pulse).collect()
}

pub(super) async fn waiting(pool: &SqlitePool, tenant: &Tenant, most: u64) -> Result<u64> {
    let waiting: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
        "{READY_CLASSES} select count(*) from (select 1 from c cross join tasks t \
         where t.state = 2 and t.class = c.class and t.tenant = ? limit ?)",
    )))
    .bind(tenant.as_str().to_owned())
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_one(pool)
    .await
    .map_err(explain("counting a tenant's queue"))?;
    Ok(u64::try_from(waiting).unwrap_or(0))
}

pub(super) async fn ping(pool: &SqlitePool) -> Result<()> {
    let _: i64 =
        sqlx::query_scalar("select 1 from meta limit 1").fetch_one(pool).await.map_err(explain("pinging"))?;
    Ok(())
}

pub(super) async fn upload(
    pool: &SqlitePool,
    tenant: Option<&Tenant>,
    id: UploadId,
) -> Result<Option<UploadRecord>> {
    let row = sqlx::query("select * from uploads where id = ?")
        .bind(blob(id.uuid()))
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

pub(super) async fn garbage(pool: &SqlitePool, now: Timestamp) -> Result<Vec<Garbage>> {
    let rows = sqlx::query("select id, what from garbage where not_before <= ? order by not_before limit ?")
        .bind(now.micros())
        .bind(MOST_GARBAGE)
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

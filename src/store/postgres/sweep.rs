//! Housekeeping: what leaves the record, when, and what it leaves for the sweeper. Any control may do it.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::super::columns::Columns;
use super::super::doomed::{doomed, published, waste};
use super::super::{Doomed, Garbage, Result};
use super::db::{Db, Txn, Verb};
use super::error::explain;
use super::save::{column, write_garbage};
use crate::domain::{JobSpec, Results, Source, Timestamp, UploadId, Waste};

/// Jobs removed in one commit.
const BATCH: usize = 200;

/// Removes ended jobs that are old enough. A job whose idempotency key is still promised only vanishes from answers;
/// its row goes when the promise is over.
pub(super) struct Expire {
    pub(super) before: Timestamp,
    pub(super) now: Timestamp,
}

impl Verb for Expire {
    /// How many jobs left the answers, and whether there may be more.
    type Answer = (u64, bool);

    async fn run(&self, txn: &mut Txn, db: &Db) -> Result<Self::Answer> {
        let mut removed = self.hide_promised(txn, db).await?;
        let rows = sqlx::query(
            "select id, tenant, spec, deleted_at from jobs where id in (\
               select id from jobs where finished_at < $1 and coalesce(idem_until, 0) <= $2 \
               union select id from jobs where deleted_at is not null and coalesce(idem_until, 0) <= $2 limit $3) \
             order by id for update skip locked",
        )
        .bind(self.before.micros())
        .bind(self.now.micros())
        .bind(i64::try_from(BATCH).unwrap_or(i64::MAX))
        .fetch_all(&mut **txn)
        .await
        .map_err(explain("finding old jobs"))?;
        let (mut gone, mut labels, mut left, mut released) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut expired = Vec::new();
        for row in &rows {
            let columns = Columns { table: "jobs", row };
            let (id, tenant) = (columns.id("id")?, columns.text("tenant")?);
            let spec: JobSpec = columns.json("spec")?;
            match &spec.source {
                Source::Inline { .. } => left.extend(Waste::of(&spec.source)),
                Source::Upload { id } => released.push(id.uuid()),
                Source::Http { .. }
                | Source::Ftp { .. }
                | Source::Bucket { .. }
                | Source::File { .. }
                | Source::Storage { .. } => {}
            }
            labels.extend(spec.labels.iter().map(|(k, v)| (tenant.clone(), k.clone(), v.clone(), id)));
            gone.push(id);
            // Whoever deletes a job keeps its results.
            if columns.maybe_int("deleted_at")?.is_none() {
                expired.push((id, spec));
                removed += 1;
            }
        }
        left.extend(results(txn, db, &expired).await?);
        release_uploads(txn, &released).await?;
        remove(txn, &gone, &labels).await?;
        left.extend(self.expired_uploads(txn).await?);
        self.leave(txn, db, left).await?;
        sqlx::query(
            "update jobs set idem_key = null, idem_fp = null, idem_until = null where id in \
             (select id from jobs where idem_until <= $1 and idem_key is not null order by id for update skip locked)",
        )
        .bind(self.now.micros())
        .execute(&mut **txn)
        .await
        .map_err(explain("forgetting keys"))?;
        Ok((removed, gone.len() >= BATCH))
    }
}

impl Expire {
    async fn leave(&self, conn: &mut PgConnection, db: &Db, left: Vec<Waste>) -> Result<()> {
        let leave = |what| Garbage { id: db.shared.ids.sortable(self.now), what };
        let garbage: Vec<_> = left.into_iter().map(leave).collect();
        write_garbage(conn, &garbage, self.now).await
    }

    async fn hide_promised(&self, conn: &mut PgConnection, db: &Db) -> Result<u64> {
        let rows = sqlx::query(
            "update jobs set deleted_at = $1 where id in (select id from jobs where finished_at < $2 \
             and deleted_at is null and idem_until > $1 order by id for update skip locked) returning id, spec",
        )
        .bind(self.now.micros())
        .bind(self.before.micros())
        .fetch_all(&mut *conn)
        .await
        .map_err(explain("hiding old jobs"))?;
        let hidden = rows.iter().map(|row| {
            let columns = Columns { table: "jobs", row };
            Ok((columns.id("id")?, columns.json("spec")?))
        });
        let hidden = hidden.collect::<Result<Vec<(Uuid, JobSpec)>>>()?;
        if !hidden.is_empty() {
            let left = results(conn, db, &hidden).await?;
            self.leave(conn, db, left).await?;
            sqlx::query("update job_secrets set sealed = '', wipe_at = null where job_id = any($1)")
                .bind(column(&hidden, |(id, _)| *id))
                .execute(conn)
                .await
                .map_err(explain("wiping secrets"))?;
        }
        Ok(u64::try_from(hidden.len()).unwrap_or(u64::MAX))
    }

    async fn expired_uploads(&self, conn: &mut PgConnection) -> Result<Vec<Waste>> {
        let expired: Vec<Uuid> = sqlx::query_scalar(
            "delete from uploads where id in (select id from uploads where expires_at <= $1 and refs = 0 \
             limit 200 for update skip locked) returning id",
        )
        .bind(self.now.micros())
        .fetch_all(conn)
        .await
        .map_err(explain("removing uploads"))?;
        Ok(expired.into_iter().map(|id| Waste::Upload { id: UploadId::from_uuid(id) }).collect())
    }
}

/// What jobs published goes with them, where the operator wants that.
async fn results(conn: &mut PgConnection, db: &Db, jobs: &[(Uuid, JobSpec)]) -> Result<Vec<Waste>> {
    if jobs.is_empty() || db.shared.results == Results::Keep {
        return Ok(Vec::new());
    }
    let published = published(&completed(conn, column(jobs, |(id, _)| *id)).await?)?;
    Ok(jobs.iter().flat_map(|(id, spec)| waste(*id, spec, &published)).collect())
}

/// The completed outputs of jobs.
async fn completed(conn: &mut PgConnection, jobs: Vec<Uuid>) -> Result<Vec<PgRow>> {
    sqlx::query(
        "select job_id, idx, publication, result from outputs where publication is not null and job_id = any($1)",
    )
    .bind(jobs)
    .fetch_all(conn)
    .await
    .map_err(explain("reading results"))
}

/// What [`Expire`] would remove.
pub(super) async fn look(pool: &PgPool, before: Timestamp, now: Timestamp, most: u32) -> Result<Doomed> {
    let mut conn = pool.acquire().await.map_err(explain("looking at old jobs"))?;
    let jobs = sqlx::query(
        "select id, tenant, status, finished_at, spec from jobs where finished_at < $1 and deleted_at is null \
         order by finished_at limit $2",
    )
    .bind(before.micros())
    .bind(i64::from(most) + 1)
    .fetch_all(&mut *conn)
    .await
    .map_err(explain("looking at old jobs"))?;
    let id = |row| Columns { table: "jobs", row }.id("id");
    let ids = jobs.iter().map(id).collect::<Result<Vec<_>>>()?;
    let outputs = completed(&mut conn, ids).await?;
    let uploads =
        sqlx::query("select * from uploads where expires_at <= $1 and refs = 0 order by expires_at limit $2")
            .bind(now.micros())
            .bind(i64::from(most) + 1)
            .fetch_all(&mut *conn)
            .await
            .map_err(explain("looking at old uploads"))?;
    let garbage: i64 = sqlx::query_scalar("select count(*) from garbage")
        .fetch_one(&mut *conn)
        .await
        .map_err(explain("counting garbage"))?;
    doomed((&jobs, &outputs, &uploads), garbage.unsigned_abs(), most)
}

/// An upload may go when its last job has gone.
async fn release_uploads(conn: &mut PgConnection, uploads: &[Uuid]) -> Result<()> {
    if uploads.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update uploads u set refs = greatest(u.refs - v.jobs, 0) \
         from (select id, count(*) as jobs from unnest($1::uuid[]) v(id) group by id) v where u.id = v.id",
    )
    .bind(uploads)
    .execute(conn)
    .await
    .map_err(explain("releasing uploads"))?;
    Ok(())
}

/// Labels go by their whole key: an index by job would cost every submission a second tree.
async fn remove(
    conn: &mut PgConnection,
    jobs: &[Uuid],
    labels: &[(String, String, String, Uuid)],
) -> Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "delete from job_labels l using unnest($1::text[], $2::text[], $3::text[], $4::uuid[]) v(tenant, k, v, job_id) \
         where l.tenant = v.tenant and l.k = v.k and l.v = v.v and l.job_id = v.job_id",
    )
    .bind(column(labels, |label| label.0.clone()))
    .bind(column(labels, |label| label.1.clone()))
    .bind(column(labels, |label| label.2.clone()))
    .bind(column(labels, |label| label.3))
    .execute(&mut *conn)
    .await
    .map_err(explain("removing labels"))?;
    for sql in [
        "delete from outputs where job_id = any($1)",
        "delete from tasks where job_id = any($1)",
        "delete from runs where job_id = any($1)",
        "delete from publications where job_id = any($1)",
        "delete from task_progress where job_id = any($1)",
        "delete from job_events where job_id = any($1)",
        "delete from job_secrets where job_id = any($1)",
        // What is still to be told is told.
        "delete from deliveries where job_id = any($1) and state <> 0",
        "delete from jobs where id = any($1)",
    ] {
        sqlx::query(sql).bind(jobs).execute(&mut *conn).await.map_err(explain("removing old jobs"))?;
    }
    Ok(())
}

/// Wipes sealed secrets that are due.
pub(super) struct WipeSecrets {
    pub(super) now: Timestamp,
}

impl Verb for WipeSecrets {
    type Answer = u64;

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<u64> {
        let mut wiped = 0;
        for sql in [
            "update job_secrets set sealed = '', wipe_at = null where wipe_at <= $1",
            // Nobody can ask for it again.
            "delete from deliveries d where wipe_at <= $1 and not exists (select 1 from jobs j where j.id = d.job_id)",
            "update deliveries set sealed_url = '', wipe_at = null where wipe_at <= $1",
        ] {
            let done = sqlx::query(sql)
                .bind(self.now.micros())
                .execute(&mut **txn)
                .await
                .map_err(explain("wiping secrets"))?;
            wiped += done.rows_affected();
        }
        Ok(wiped)
    }
}

/// Forgets garbage that was removed.
pub(super) struct Swept {
    pub(super) ids: Vec<Uuid>,
}

impl Verb for Swept {
    type Answer = ();

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<()> {
        sqlx::query("delete from garbage where id = any($1)")
            .bind(&self.ids)
            .execute(&mut **txn)
            .await
            .map_err(explain("forgetting garbage"))?;
        Ok(())
    }
}

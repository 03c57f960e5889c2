//! Housekeeping: what leaves the record, when, and what it leaves for the sweeper.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool};

use super::super::columns::Columns;
use super::super::doomed::{doomed, published, waste};
use super::super::{Doomed, Garbage, Result};
use super::error::explain;
use super::save::{blob, write_garbage};
use super::writer::{Txn, Verb};
use crate::domain::{JobSpec, Results, Source, Timestamp, UploadId, Waste};

/// Jobs removed in one commit.
pub(super) const BATCH: u64 = 200;

/// Removes ended jobs that are old enough. A job whose idempotency key is still promised only vanishes from answers;
/// its row goes when the promise is over.
pub(super) struct Expire {
    pub(super) before: Timestamp,
    pub(super) now: Timestamp,
}

impl Verb for Expire {
    /// How many jobs left the answers, and whether there may be more.
    type Answer = (u64, bool);

    async fn run(&self, txn: &mut Txn<'_>) -> Result<Self::Answer> {
        let hidden = self.hide_promised(txn).await?;
        let rows = sqlx::query(
            "select id, tenant, spec, deleted_at from jobs where finished_at < ?1 and coalesce(idem_until, 0) <= ?2 \
             union select id, tenant, spec, deleted_at from jobs where deleted_at is not null and coalesce(idem_until, 0) <= ?2 \
             limit ?3",
        )
        .bind(self.before.micros())
        .bind(self.now.micros())
        .bind(i64::try_from(BATCH).unwrap_or(i64::MAX))
        .fetch_all(&mut *txn.conn)
        .await
        .map_err(explain("finding old jobs"))?;
        let mut gone = Vec::with_capacity(rows.len());
        let (mut removed, mut expired) = (hidden, Vec::new());
        for row in &rows {
            let columns = Columns { table: "jobs", row };
            let spec: JobSpec = columns.json("spec")?;
            self.leave_source(txn, &spec.source).await?;
            let (id, tenant) = (columns.id("id")?, columns.text("tenant")?);
            remove_labels(txn.conn, id, &tenant, &spec.labels).await?;
            gone.push(id);
            // Whoever deletes a job keeps its results.
            if columns.maybe_int("deleted_at")?.is_none() {
                expired.push((id, spec));
                removed += 1;
            }
        }
        self.leave_results(txn, &expired).await?;
        remove(txn.conn, &gone).await?;
        self.expire_uploads(txn).await?;
        sqlx::query(
            "update jobs set idem_key = null, idem_fp = null, idem_until = null \
             where idem_until <= ? and idem_key is not null",
        )
        .bind(self.now.micros())
        .execute(&mut *txn.conn)
        .await
        .map_err(explain("forgetting keys"))?;
        Ok((removed, u64::try_from(gone.len()).unwrap_or(u64::MAX) >= BATCH))
    }
}

impl Expire {
    async fn hide_promised(&self, txn: &mut Txn<'_>) -> Result<u64> {
        let rows = sqlx::query(
            "update jobs set deleted_at = ?1 where finished_at < ?2 and deleted_at is null and idem_until > ?1 \
             returning id, spec",
        )
        .bind(self.now.micros())
        .bind(self.before.micros())
        .fetch_all(&mut *txn.conn)
        .await
        .map_err(explain("hiding old jobs"))?;
        let hidden = rows.iter().map(|row| {
            let columns = Columns { table: "jobs", row };
            Ok((columns.id("id")?, columns.json("spec")?))
        });
        let hidden = hidden.collect::<Result<Vec<_>>>()?;
        self.leave_results(txn, &hidden).await?;
        if !hidden.is_empty() {
            sqlx::query(
                "update job_secrets set sealed = x'', wipe_at = null \
                 where sealed <> x'' and job_id in (select id from jobs where deleted_at is not null)",
            )
            .execute(&mut *txn.conn)
            .await
            .map_err(explain("wiping secrets"))?;
        }
        Ok(u64::try_from(hidden.len()).unwrap_or(u64::MAX))
    }

    /// What jobs published goes with them, where the operator wants that.
    async fn leave_results(&self, txn: &mut Txn<'_>, jobs: &[(uuid::Uuid, JobSpec)]) -> Result<()> {
        if jobs.is_empty() || txn.shared.results == Results::Keep {
            return Ok(());
        }
        let ids: Vec<_> = jobs.iter().map(|(id, _)| *id).collect();
        let published = published(&completed(txn.conn, &ids).await?)?;
        for what in jobs.iter().flat_map(|(id, spec)| waste(*id, spec, &published)) {
            self.leave(txn, what).await?;
        }
        Ok(())
    }

    /// What a removed job's source leaves behind: a stored body goes, an upload may go when its last job has gone.
    async fn leave_source(&self, txn: &mut Txn<'_>, source: &Source) -> Result<()> {
        match source {
            Source::Inline { key, size } => {
                self.leave(txn, Waste::Inline { key: key.clone(), size: *size }).await
            }
            Source::Upload { id } => {
                sqlx::query("update uploads set refs = max(refs - 1, 0) where id = ?")
                    .bind(blob(id.uuid()))
                    .execute(&mut *txn.conn)
                    .await
                    .map_err(explain("releasing an upload"))?;
                Ok(())
            }
            Source::Http { .. }
            | Source::Ftp { .. }
            | Source::Bucket { .. }
            | Source::File { .. }
            | Source::Storage { .. } => Ok(()),
        }
    }

    async fn expire_uploads(&self, txn: &mut Txn<'_>) -> Result<()> {
        let rows = sqlx::query("select id from uploads where expires_at <= ? and refs = 0 limit 200")
            .bind(self.now.micros())
            .fetch_all(&mut *txn.conn)
            .await
            .map_err(explain("finding old uploads"))?;
        for row in &rows {
            let id = Columns { table: "uploads", row }.id("id")?;
            self.leave(txn, Waste::Upload { id: UploadId::from_uuid(id) }).await?;
            sqlx::query("delete from uploads where id = ?")
                .bind(blob(id))
                .execute(&mut *txn.conn)
                .await
                .map_err(explain("removing an upload"))?;
        }
        Ok(())
    }

    async fn leave(&self, txn: &mut Txn<'_>, what: Waste) -> Result<()> {
        let garbage = Garbage { id: txn.shared.ids.sortable(self.now), what };
        write_garbage(txn.conn, &garbage, self.now).await
    }
}

/// The completed outputs of jobs.
async fn completed(conn: &mut SqliteConnection, jobs: &[uuid::Uuid]) -> Result<Vec<SqliteRow>> {
    let marks = vec!["?"; jobs.len()].join(",");
    let sql = format!(
        "select job_id, idx, publication, result from outputs where publication is not null and job_id in ({marks})"
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for job in jobs {
        query = query.bind(blob(*job));
    }
    query.fetch_all(conn).await.map_err(explain("reading results"))
}

/// What [`Expire`] would remove.
pub(super) async fn look(pool: &SqlitePool, before: Timestamp, now: Timestamp, most: u32) -> Result<Doomed> {
    let mut conn = pool.acquire().await.map_err(explain("looking at old jobs"))?;
    let jobs = sqlx::query(
        "select id, tenant, status, finished_at, spec from jobs where finished_at < ? and deleted_at is null \
         order by finished_at limit ?",
    )
    .bind(before.micros())
    .bind(i64::from(most) + 1)
    .fetch_all(&mut *conn)
    .await
    .map_err(explain("looking at old jobs"))?;
    let id = |row| Columns { table: "jobs", row }.id("id");
    let ids = jobs.iter().map(id).collect::<Result<Vec<_>>>()?;
    let outputs = completed(&mut conn, &ids).await?;
    let uploads =
        sqlx::query("select * from uploads where expires_at <= ? and refs = 0 order by expires_at limit ?")
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

/// By their whole key: an index by job would cost every submission a second tree.
async fn remove_labels(
    conn: &mut SqliteConnection,
    job: uuid::Uuid,
    tenant: &str,
    labels: &BTreeMap<String, String>,
) -> Result<()> {
    for (key, value) in labels {
        sqlx::query("delete from job_labels where tenant = ? and k = ? and v = ? and job_id = ?")
            .bind(tenant.to_owned())
            .bind(key.clone())
            .bind(value.clone())
            .bind(blob(job))
            .execute(&mut *conn)
            .await
            .map_err(explain("removing labels"))?;
    }
    Ok(())
}

async fn remove(conn: &mut SqliteConnection, jobs: &[uuid::Uuid]) -> Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let marks = vec!["?"; jobs.len()].join(",");
    let children = ["outputs", "tasks", "runs", "publications", "job_events", "job_secrets"];
    let statements =
        children.iter().map(|table| format!("delete from {table} where job_id in ({marks})")).chain([
            // What is still to be told is told.
            format!("delete from deliveries where job_id in ({marks}) and state <> 0"),
            format!("delete from jobs where id in ({marks})"),
        ]);
    for sql in statements {
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for job in jobs {
            query = query.bind(blob(*job));
        }
        query.execute(&mut *conn).await.map_err(explain("removing old jobs"))?;
    }
    Ok(())
}

/// Wipes sealed secrets that are due.
pub(super) struct WipeSecrets {
    pub(super) now: Timestamp,
}

impl Verb for WipeSecrets {
    type Answer = u64;

    async fn run(&self, txn: &mut Txn<'_>) -> Result<u64> {
        let mut wiped = 0;
        for sql in [
            "update job_secrets set sealed = x'', wipe_at = null where wipe_at <= ?",
            // Nobody can ask for it again.
            "delete from deliveries where wipe_at <= ? and not exists (select 1 from jobs where jobs.id = deliveries.job_id)",
            "update deliveries set sealed_url = x'', wipe_at = null where wipe_at <= ?",
        ] {
            let done = sqlx::query(sql)
                .bind(self.now.micros())
                .execute(&mut *txn.conn)
                .await
                .map_err(explain("wiping secrets"))?;
            wiped += done.rows_affected();
        }
        Ok(wiped)
    }
}

/// Forgets garbage that was removed.
pub(super) struct Swept {
    pub(super) ids: Vec<uuid::Uuid>,
}

impl Verb for Swept {
    type Answer = ();

    async fn run(&self, txn: &mut Txn<'_>) -> Result<()> {
        for id in &self.ids {
            sqlx::query("delete from garbage where id = ?")
                .bind(blob(*id))
                .execute(&mut *txn.conn)
                .await
                .map_err(explain("forgetting garbage"))?;
        }
        Ok(())
    }
}

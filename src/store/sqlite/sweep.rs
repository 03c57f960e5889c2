//! Housekeeping: what leaves the record, when, and what it leaves for the sweeper.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::super::columns::Columns;
use super::super::{Garbage, Result};
use super::error::explain;
use super::save::{blob, write_garbage};
use super::writer::{Txn, Verb};
use crate::domain::{JobSpec, Source, Timestamp, UploadId};

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
        let hidden = self.hide_promised(txn.conn).await?;
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
        let mut removed = hidden;
        for row in &rows {
            let columns = Columns { table: "jobs", row };
            let JobSpec { source, labels, .. } = columns.json("spec")?;
            self.leave_source(txn, &source).await?;
            let (id, tenant) = (columns.id("id")?, columns.text("tenant")?);
            remove_labels(txn.conn, id, &tenant, &labels).await?;
            removed += u64::from(columns.maybe_int("deleted_at")?.is_none());
            gone.push(id);
        }
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
    async fn hide_promised(&self, conn: &mut SqliteConnection) -> Result<u64> {
        let hidden = sqlx::query(
            "update jobs set deleted_at = ?1 where finished_at < ?2 and deleted_at is null and idem_until > ?1",
        )
        .bind(self.now.micros())
        .bind(self.before.micros())
        .execute(&mut *conn)
        .await
        .map_err(explain("hiding old jobs"))?;
        if hidden.rows_affected() > 0 {
            sqlx::query(
                "update job_secrets set sealed = x'', wipe_at = null \
                 where sealed <> x'' and job_id in (select id from jobs where deleted_at is not null)",
            )
            .execute(conn)
            .await
            .map_err(explain("wiping secrets"))?;
        }
        Ok(hidden.rows_affected())
    }

    /// What a removed job's source leaves behind: a stored body goes, an upload may go when its last job has gone.
    async fn leave_source(&self, txn: &mut Txn<'_>, source: &Source) -> Result<()> {
        match source {
            Source::Inline { .. } => self.leave(txn, source).await,
            Source::Upload { id } => {
                sqlx::query("update uploads set refs = max(refs - 1, 0) where id = ?")
                    .bind(blob(id.uuid()))
                    .execute(&mut *txn.conn)
                    .await
                    .map_err(explain("releasing an upload"))?;
                Ok(())
            }
            Source::Http { .. } | Source::File { .. } | Source::Storage { .. } => Ok(()),
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
            self.leave(txn, &Source::Upload { id: UploadId::from_uuid(id) }).await?;
            sqlx::query("delete from uploads where id = ?")
                .bind(blob(id))
                .execute(&mut *txn.conn)
                .await
                .map_err(explain("removing an upload"))?;
        }
        Ok(())
    }

    async fn leave(&self, txn: &mut Txn<'_>, source: &Source) -> Result<()> {
        let garbage = Garbage { id: txn.shared.ids.sortable(self.now), what: source.clone() };
        write_garbage(txn.conn, &garbage, self.now).await
    }
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

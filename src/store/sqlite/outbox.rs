//! The outbox: rows of `deliveries`, written with the state they tell.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use tokio::sync::Notify;

use super::super::columns::Columns;
use super::super::delta::Delta;
use super::super::outbox::{
    Left, Letter, NewDelivery, Outbox, OutboxStats, Redelivered, Take, delivery, letter, stats, untold, write,
};
use super::super::row::to_json;
use super::super::{Fenced, Result};
use super::SqliteStore;
use super::claim::{open, secrets};
use super::error::explain;
use super::save::blob;
use super::session::is_current;
use super::writer::{Lane, Txn, Verb};
use crate::domain::webhook::{Delivery, Try, Verdict};
use crate::domain::{DeliveryId, DeliveryState, JobId, SessionId, Tenant, Timestamp};

/// What is shown of a delivery.
const SHOWN: &str = "select id, job_id, event, state, tries, created_at, next_at, last, wipe_at, \
     sealed_url <> x'' as has_url from deliveries ";

/// Writes what transitions have to tell, before the jobs' own secrets are wiped.
pub(super) async fn tell(txn: &mut Txn<'_>, deltas: &[Delta]) -> Result<()> {
    for delta in deltas {
        let notices = untold(txn.shared, delta);
        if notices.is_empty() {
            continue;
        }
        let sealed = secrets(txn.conn, &[delta.job()]).await?.remove(&delta.job());
        let opened = open(txn.shared, delta.job(), sealed);
        for row in write(txn.shared, delta, &notices, opened)? {
            insert(txn.conn, row).await?;
            txn.posted = true;
        }
    }
    Ok(())
}

/// A receiver that was gone is told nothing more of this job.
async fn insert(conn: &mut SqliteConnection, row: NewDelivery) -> Result<()> {
    sqlx::query(
        "insert into deliveries(id, job_id, seq, event, host, body, key_id, sealed_url, created_at, since, next_at) \
         select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?9 \
         where not exists (select 1 from deliveries where job_id = ?2 and state = 3)",
    )
    .bind(blob(row.id.uuid()))
    .bind(blob(row.job.uuid()))
    .bind(row.seq)
    .bind(row.event.as_str())
    .bind(row.host)
    .bind(row.body)
    .bind(row.sealed.key_id)
    .bind(row.sealed.bytes)
    .bind(row.at.micros())
    .execute(conn)
    .await
    .map_err(explain("writing a delivery"))?;
    Ok(())
}

#[async_trait]
impl Outbox for SqliteStore {
    async fn next_delivery(&self) -> Result<Option<Timestamp>> {
        let next: Option<i64> = sqlx::query_scalar(
            "select case when exists (select 1 from deliveries where session_id is not null \
             and session_id not in (select id from sessions)) then 0 \
             else (select min(next_at) from deliveries where state = 0) end",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(explain("looking for deliveries"))?;
        Ok(next.map(Timestamp::from_micros))
    }

    async fn claim_deliveries(&self, session: SessionId, take: &Take, now: Timestamp) -> Result<Vec<Letter>> {
        self.lanes.say(Lane::Claim, Claim { session, take: take.clone(), now }).await
    }

    async fn delivery_tried(
        &self,
        session: SessionId,
        letter: &Letter,
        tried: Try,
        verdict: Verdict,
    ) -> Result<Fenced<()>> {
        self.lanes.say(Lane::Claim, Tried { session, letter: letter.clone(), how: tried, verdict }).await
    }

    async fn deliveries(&self, tenant: Option<&Tenant>, job: JobId) -> Result<Option<Vec<Delivery>>> {
        let mut conn = self.readers.acquire().await.map_err(explain("reading deliveries"))?;
        if !exists(&mut conn, tenant, job).await? {
            return Ok(None);
        }
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{SHOWN} where job_id = ? order by id")))
            .bind(blob(job.uuid()))
            .fetch_all(&mut *conn)
            .await
            .map_err(explain("reading deliveries"))?;
        rows.iter().map(shown).collect::<Result<_>>().map(Some)
    }

    async fn redeliver(
        &self,
        tenant: Option<&Tenant>,
        job: JobId,
        delivery: DeliveryId,
        now: Timestamp,
    ) -> Result<Redelivered> {
        let tenant = tenant.cloned();
        self.lanes.say(Lane::Claim, Redeliver { tenant, job, id: delivery, now }).await
    }

    async fn outbox_stats(&self) -> Result<OutboxStats> {
        let row = sqlx::query(
            "select count(*) as waiting, min(created_at) as oldest from deliveries where state = 0",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(explain("counting deliveries"))?;
        stats(&row)
    }

    fn posted(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.posted)
    }
}

fn shown(row: &SqliteRow) -> Result<Delivery> {
    delivery(&Columns { table: "deliveries", row })
}

async fn exists(conn: &mut SqliteConnection, tenant: Option<&Tenant>, job: JobId) -> Result<bool> {
    let found: Option<i64> = sqlx::query_scalar(
        "select 1 from jobs where id = ?1 and deleted_at is null and (?2 is null or tenant = ?2)",
    )
    .bind(blob(job.uuid()))
    .bind(tenant.map(|tenant| tenant.as_str().to_owned()))
    .fetch_optional(conn)
    .await
    .map_err(explain("reading a job"))?;
    Ok(found.is_some())
}

struct Claim {
    session: SessionId,
    take: Take,
    now: Timestamp,
}

impl Verb for Claim {
    type Answer = Vec<Letter>;

    async fn run(&self, txn: &mut Txn<'_>) -> Result<Vec<Letter>> {
        if !is_current(txn, self.session).await? {
            return Ok(Vec::new());
        }
        sqlx::query(
            "update deliveries set session_id = null, next_at = ? \
             where session_id is not null and session_id not in (select id from sessions)",
        )
        .bind(self.now.micros())
        .execute(&mut *txn.conn)
        .await
        .map_err(explain("freeing deliveries"))?;
        let (hosts, meant) = self.take.among.parts();
        let rows = sqlx::query(
            "update deliveries set session_id = ?1, tries = tries + 1, next_at = ?2 where id in (\
               select id from (\
                 select id, host, next_at, row_number() over (partition by host order by next_at, id) as n \
                 from deliveries where state = 0 and next_at <= ?3 \
                 and (session_id is null or session_id = ?1) \
                 and (host in (select value from json_each(?4))) = ?5) as due \
               where n + coalesce((select value from json_each(?6) where key = due.host), 0) <= ?7 \
               order by next_at limit ?8) returning *",
        )
        .bind(blob(self.session.uuid()))
        .bind(self.now.plus(self.take.lease).micros())
        .bind(self.now.micros())
        .bind(to_json("deliveries", hosts)?)
        .bind(meant)
        .bind(to_json("deliveries", &self.take.busy)?)
        .bind(i64::from(self.take.per_host))
        .bind(i64::from(self.take.most))
        .fetch_all(&mut *txn.conn)
        .await
        .map_err(explain("claiming deliveries"))?;
        rows.iter().map(|row| letter(&Columns { table: "deliveries", row }, &txn.shared.keys)).collect()
    }
}

struct Tried {
    session: SessionId,
    letter: Letter,
    how: Try,
    verdict: Verdict,
}

impl Verb for Tried {
    type Answer = Fenced<()>;

    async fn run(&self, txn: &mut Txn<'_>) -> Result<Fenced<()>> {
        let left = Left::from(self.verdict);
        let done = sqlx::query(
            "update deliveries set session_id = null, state = ?, next_at = ?, wipe_at = ?, last = ? \
             where id = ? and session_id = ? and tries = ? and state = 0",
        )
        .bind(left.state.number())
        .bind(left.next_at.map(Timestamp::micros))
        .bind(left.wipe_at.map(Timestamp::micros))
        .bind(to_json("deliveries", &self.how)?)
        .bind(blob(self.letter.id.uuid()))
        .bind(blob(self.session.uuid()))
        .bind(i64::from(self.letter.tries))
        .execute(&mut *txn.conn)
        .await
        .map_err(explain("writing a delivery"))?;
        if done.rows_affected() != 1 {
            return Ok(Fenced::Lost);
        }
        if left.state == DeliveryState::Gone {
            sqlx::query(
                "update deliveries set state = 3, next_at = null, wipe_at = ? \
                 where job_id = ? and state = 0 and session_id is null",
            )
            .bind(left.wipe_at.map(Timestamp::micros))
            .bind(blob(self.letter.job.uuid()))
            .execute(&mut *txn.conn)
            .await
            .map_err(explain("ending deliveries"))?;
        }
        Ok(Fenced::Done(()))
    }
}

struct Redeliver {
    tenant: Option<Tenant>,
    job: JobId,
    id: DeliveryId,
    now: Timestamp,
}

impl Verb for Redeliver {
    type Answer = Redelivered;

    async fn run(&self, txn: &mut Txn<'_>) -> Result<Redelivered> {
        if !exists(txn.conn, self.tenant.as_ref(), self.job).await? {
            return Ok(Redelivered::NotFound);
        }
        sqlx::query(
            "update deliveries set state = 0, tries = 0, since = ?1, next_at = ?1, wipe_at = null \
             where id = ?2 and job_id = ?3 and sealed_url <> x'' and session_id is null",
        )
        .bind(self.now.micros())
        .bind(blob(self.id.uuid()))
        .bind(blob(self.job.uuid()))
        .execute(&mut *txn.conn)
        .await
        .map_err(explain("asking for a delivery again"))?;
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{SHOWN} where id = ? and job_id = ?")))
            .bind(blob(self.id.uuid()))
            .bind(blob(self.job.uuid()))
            .fetch_optional(&mut *txn.conn)
            .await
            .map_err(explain("reading a delivery"))?;
        let Some(row) = row else { return Ok(Redelivered::NotFound) };
        let delivery = shown(&row)?;
        if !delivery.has_url {
            return Ok(Redelivered::Wiped);
        }
        txn.posted = true;
        Ok(Redelivered::Due(delivery))
    }
}

//! The outbox: rows of `deliveries`, written with the state they tell. Several controls send from one record.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use tokio::sync::Notify;

use super::super::columns::Columns;
use super::super::delta::Delta;
use super::super::outbox::{
    Left, Letter, NewDelivery, Outbox, OutboxStats, Redelivered, Take, delivery, letter, stats, untold, write,
};
use super::super::row::to_json;
use super::super::shared::Shared;
use super::super::{Fenced, Result};
use super::PostgresStore;
use super::claim::{open, secrets};
use super::db::{Db, Txn, Verb};
use super::error::explain;
use super::save::column;
use super::session::is_current;
use crate::domain::webhook::{Delivery, Try, Verdict};
use crate::domain::{DeliveryId, DeliveryState, JobId, SessionId, Tenant, Timestamp};

/// What is shown of a delivery.
const SHOWN: &str = "select id, job_id, event, state, tries, created_at, next_at, last, wipe_at, \
     (sealed_url <> '')::int as has_url from deliveries ";

/// Writes what transitions have to tell, before the jobs' own secrets are wiped.
pub(super) async fn tell(conn: &mut PgConnection, shared: &Shared, deltas: &[Delta]) -> Result<()> {
    let telling: Vec<_> =
        deltas.iter().map(|delta| (delta, untold(shared, delta))).filter(|(_, n)| !n.is_empty()).collect();
    if telling.is_empty() {
        return Ok(());
    }
    let jobs: Vec<JobId> = telling.iter().map(|(delta, _)| delta.job()).collect();
    let mut sealed = secrets(conn, &jobs).await?;
    let mut rows = Vec::new();
    for (delta, notices) in telling {
        let opened = open(&shared.keys, delta.job(), sealed.remove(&delta.job()));
        rows.extend(write(shared, delta, &notices, opened)?);
    }
    insert(conn, &rows).await
}

/// A receiver that was gone is told nothing more of that job.
async fn insert(conn: &mut PgConnection, rows: &[NewDelivery]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into deliveries(id, job_id, seq, event, host, body, key_id, sealed_url, created_at, since, next_at) \
         select v.id, v.job_id, v.seq, v.event, v.host, v.body, v.key_id, v.sealed_url, v.at, v.at, v.at \
         from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], \
         $8::bytea[], $9::bigint[]) v(id, job_id, seq, event, host, body, key_id, sealed_url, at) \
         where not exists (select 1 from deliveries d where d.job_id = v.job_id and d.state = 3)",
    )
    .bind(column(rows, |row| row.id.uuid()))
    .bind(column(rows, |row| row.job.uuid()))
    .bind(column(rows, |row| row.seq))
    .bind(column(rows, |row| row.event.as_str()))
    .bind(column(rows, |row| row.host.clone()))
    .bind(column(rows, |row| row.body.clone()))
    .bind(column(rows, |row| row.sealed.key_id.clone()))
    .bind(column(rows, |row| row.sealed.bytes.clone()))
    .bind(column(rows, |row| row.at.micros()))
    .execute(conn)
    .await
    .map_err(explain("writing deliveries"))?;
    Ok(())
}

#[async_trait]
impl Outbox for PostgresStore {
    async fn next_delivery(&self) -> Result<Option<Timestamp>> {
        let next: Option<i64> = sqlx::query_scalar(
            "select case when exists (select 1 from deliveries d where d.session_id is not null and not exists \
             (select 1 from sessions s where s.id = d.session_id and s.expires_at > flux_now())) then 0 \
             else (select min(next_at) from deliveries where state = 0) end",
        )
        .fetch_one(&self.db.readers)
        .await
        .map_err(explain("looking for deliveries"))?;
        Ok(next.map(Timestamp::from_micros))
    }

    async fn claim_deliveries(&self, session: SessionId, take: &Take, now: Timestamp) -> Result<Vec<Letter>> {
        self.db.say(&Claim { session, take: take.clone(), now }).await
    }

    async fn delivery_tried(
        &self,
        session: SessionId,
        letter: &Letter,
        tried: Try,
        verdict: Verdict,
    ) -> Result<Fenced<()>> {
        self.db.say(&Tried { session, letter: letter.clone(), how: tried, verdict }).await
    }

    async fn deliveries(&self, tenant: Option<&Tenant>, job: JobId) -> Result<Option<Vec<Delivery>>> {
        let mut conn = self.db.readers.acquire().await.map_err(explain("reading deliveries"))?;
        if !exists(&mut conn, tenant, job).await? {
            return Ok(None);
        }
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{SHOWN} where job_id = $1 order by id")))
            .bind(job.uuid())
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
        let verb = Redeliver { tenant: tenant.cloned(), job, id: delivery, now };
        let redelivered = self.db.say(&verb).await?;
        if matches!(redelivered, Redelivered::Due(_)) {
            self.db.shared.posted.notify_one();
        }
        Ok(redelivered)
    }

    async fn outbox_stats(&self) -> Result<OutboxStats> {
        let row = sqlx::query(
            "select count(*) as waiting, min(created_at) as oldest from deliveries where state = 0",
        )
        .fetch_one(&self.db.readers)
        .await
        .map_err(explain("counting deliveries"))?;
        stats(&row)
    }

    fn posted(&self) -> Arc<Notify> {
        Arc::clone(&self.db.shared.posted)
    }
}

fn shown(row: &PgRow) -> Result<Delivery> {
    delivery(&Columns { table: "deliveries", row })
}

async fn exists(conn: &mut PgConnection, tenant: Option<&Tenant>, job: JobId) -> Result<bool> {
    let found: Option<i32> = sqlx::query_scalar(
        "select 1 from jobs where id = $1 and deleted_at is null and ($2::text is null or tenant = $2)",
    )
    .bind(job.uuid())
    .bind(tenant.map(Tenant::as_str))
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

    async fn run(&self, txn: &mut Txn, db: &Db) -> Result<Vec<Letter>> {
        if !is_current(txn, self.session).await? {
            return Ok(Vec::new());
        }
        sqlx::query(
            "update deliveries set session_id = null, next_at = $1 where id in (\
               select id from deliveries d where session_id is not null and not exists \
                 (select 1 from sessions s where s.id = d.session_id and s.expires_at > flux_now()) \
               for update skip locked)",
        )
        .bind(self.now.micros())
        .execute(&mut **txn)
        .await
        .map_err(explain("freeing deliveries"))?;
        let (hosts, meant) = self.take.among.parts();
        let (busy, flights): (Vec<_>, Vec<_>) =
            self.take.busy.iter().map(|(host, n)| (host.clone(), i64::from(*n))).unzip();
        // Chosen first and locked then: a window is no place for locks. Each row is looked at again under its lock.
        let rows = sqlx::query(
            "with due as materialized (\
               select id, host, next_at, row_number() over (partition by host order by next_at, id) as n \
               from deliveries where state = 0 and next_at <= $1 \
               and (session_id is null or session_id = $2) and (host = any($3)) = $7), \
             chosen as materialized (select due.id from due \
               left join unnest($8::text[], $9::bigint[]) as busy(host, n) on busy.host = due.host \
               where due.n + coalesce(busy.n, 0) <= $4 order by due.next_at limit $5), \
             pick as materialized (select id from deliveries where id in (select id from chosen) \
               and state = 0 and next_at <= $1 and (session_id is null or session_id = $2) \
               order by id for update skip locked) \
             update deliveries d set session_id = $2, tries = d.tries + 1, next_at = $6 \
             from pick where d.id = pick.id returning d.*",
        )
        .bind(self.now.micros())
        .bind(self.session.uuid())
        .bind(hosts)
        .bind(i64::from(self.take.per_host))
        .bind(i64::from(self.take.most))
        .bind(self.now.plus(self.take.lease).micros())
        .bind(meant)
        .bind(busy)
        .bind(flights)
        .fetch_all(&mut **txn)
        .await
        .map_err(explain("claiming deliveries"))?;
        rows.iter().map(|row| letter(&Columns { table: "deliveries", row }, &db.shared.keys)).collect()
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

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<Fenced<()>> {
        let left = Left::from(self.verdict);
        let done = sqlx::query(
            "update deliveries set session_id = null, state = $1::smallint, next_at = $2, wipe_at = $3, last = $4 \
             where id = $5 and session_id = $6 and tries = $7 and state = 0",
        )
        .bind(left.state.number())
        .bind(left.next_at.map(Timestamp::micros))
        .bind(left.wipe_at.map(Timestamp::micros))
        .bind(to_json("deliveries", &self.how)?)
        .bind(self.letter.id.uuid())
        .bind(self.session.uuid())
        .bind(i64::from(self.letter.tries))
        .execute(&mut **txn)
        .await
        .map_err(explain("writing a delivery"))?;
        if done.rows_affected() != 1 {
            return Ok(Fenced::Lost);
        }
        if left.state == DeliveryState::Gone {
            sqlx::query(
                "update deliveries set state = 3, next_at = null, wipe_at = $1 where id in (\
                 select id from deliveries where job_id = $2 and state = 0 and session_id is null \
                 order by id for update skip locked)",
            )
            .bind(left.wipe_at.map(Timestamp::micros))
            .bind(self.letter.job.uuid())
            .execute(&mut **txn)
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

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<Redelivered> {
        if !exists(txn, self.tenant.as_ref(), self.job).await? {
            return Ok(Redelivered::NotFound);
        }
        sqlx::query(
            "update deliveries set state = 0, tries = 0, since = $1, next_at = $1, wipe_at = null \
             where id = $2 and job_id = $3 and sealed_url <> '' and session_id is null",
        )
        .bind(self.now.micros())
        .bind(self.id.uuid())
        .bind(self.job.uuid())
        .execute(&mut **txn)
        .await
        .map_err(explain("asking for a delivery again"))?;
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{SHOWN} where id = $1 and job_id = $2")))
            .bind(self.id.uuid())
            .bind(self.job.uuid())
            .fetch_optional(&mut **txn)
            .await
            .map_err(explain("reading a delivery"))?;
        let Some(row) = row else { return Ok(Redelivered::NotFound) };
        let delivery = shown(&row)?;
        Ok(if delivery.has_url { Redelivered::Due(delivery) } else { Redelivered::Wiped })
    }
}

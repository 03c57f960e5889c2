//! Sessions of controls, what those that are over left, and where workers are.
//!
//! Times of sessions are the database's (PROTOCOL §1.6, §1.25): whatever a control believes the time to be, its session
//! ends for everybody at once. A session that is over has no row any more, so it cannot be revived.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::super::columns::Columns;
use super::super::records::{addresses, worker_seen};
use super::super::{Duty, Fenced, Result, Taken, WorkerSeen};
use super::claim::taken;
use super::db::{Db, Txn, Verb};
use super::error::explain;
use super::save::column;
use crate::domain::{JobId, SessionId, TaskId, Timestamp};

/// How long a session lasts after its last renewal, microseconds.
const SESSION_MICROS: i64 = 30_000_000;
/// How long the place of a worker is remembered that no control heard of, microseconds.
const FORGET_MICROS: i64 = 24 * 3600 * 1_000_000;

pub(super) struct OpenSession {
    pub(super) id: SessionId,
    pub(super) name: String,
}

impl Verb for OpenSession {
    type Answer = SessionId;

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<SessionId> {
        sqlx::query(
            "insert into sessions(id, name, started_at, expires_at) values ($1, $2, flux_now(), flux_now() + $3) \
             on conflict do nothing",
        )
        .bind(self.id.uuid())
        .bind(&self.name)
        .bind(SESSION_MICROS)
        .execute(&mut **txn)
        .await
        .map_err(explain("opening a session"))?;
        Ok(self.id)
    }
}

/// Whether a session is not over.
pub(super) async fn is_current(conn: &mut PgConnection, session: SessionId) -> Result<bool> {
    let found: Option<i32> =
        sqlx::query_scalar("select 1 from sessions where id = $1 and expires_at > flux_now()")
            .bind(session.uuid())
            .fetch_optional(conn)
            .await
            .map_err(explain("reading the session"))?;
    Ok(found.is_some())
}

pub(super) struct RenewSession(pub(super) SessionId);

impl Verb for RenewSession {
    type Answer = Fenced<()>;

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<Fenced<()>> {
        let done = sqlx::query(
            "update sessions set expires_at = flux_now() + $2 where id = $1 and expires_at > flux_now()",
        )
        .bind(self.0.uuid())
        .bind(SESSION_MICROS)
        .execute(&mut **txn)
        .await
        .map_err(explain("renewing the session"))?;
        Ok(if done.rows_affected() == 1 { Fenced::Done(()) } else { Fenced::Lost })
    }
}

pub(super) struct CloseSession(pub(super) SessionId);

impl Verb for CloseSession {
    type Answer = ();

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<()> {
        sqlx::query("delete from sessions where id = $1")
            .bind(self.0.uuid())
            .execute(&mut **txn)
            .await
            .map_err(explain("closing the session"))?;
        Ok(())
    }
}

/// Takes over what sessions that are over still hold: workers may be running it.
pub(super) struct Takeover {
    pub(super) session: SessionId,
    pub(super) most: u32,
}

/// What was taken over.
#[derive(Default)]
pub(super) struct TakenOver {
    pub(super) tasks: Vec<Taken>,
    /// Jobs that cannot be read.
    pub(super) unreadable: Vec<JobId>,
}

impl Verb for Takeover {
    type Answer = TakenOver;

    async fn run(&self, txn: &mut Txn, db: &Db) -> Result<TakenOver> {
        if !is_current(txn, self.session).await? {
            return Ok(TakenOver::default());
        }
        end_sessions(txn).await?;
        let orphaned = orphaned_sessions(txn).await?;
        if orphaned.is_empty() {
            return Ok(TakenOver::default());
        }
        // A task that is locked is being written about or taken over; the next call finds out which.
        let rows = sqlx::query(
            "with gone as materialized (select id from tasks where state in (3, 4) and session_id = any($1) \
             order by session_id, id limit $2 for update skip locked) \
             update tasks t set session_id = $3 from gone where t.id = gone.id returning t.id, t.job_id",
        )
        .bind(orphaned)
        .bind(i64::from(self.most))
        .bind(self.session.uuid())
        .fetch_all(&mut **txn)
        .await
        .map_err(explain("taking over"))?;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in &rows {
            let columns = Columns { table: "tasks", row };
            tasks.push((TaskId::from_uuid(columns.id("id")?), JobId::from_uuid(columns.id("job_id")?)));
        }
        let addresses = addresses(all_seen(txn, Timestamp::from_micros(i64::MIN)).await?);
        taken(txn, db, &tasks, &addresses).await
    }
}

/// Whoever comes first says that a session is over. A renewal that was committed before keeps its row.
async fn end_sessions(conn: &mut PgConnection) -> Result<()> {
    sqlx::query("delete from sessions where expires_at <= flux_now()")
        .execute(conn)
        .await
        .map_err(explain("ending sessions"))?;
    Ok(())
}

/// Sessions without a row that hold tasks: one probe of the index for each session there is.
async fn orphaned_sessions(conn: &mut PgConnection) -> Result<Vec<Uuid>> {
    sqlx::query_scalar(
        "with recursive s(id) as (\
           (select session_id from tasks where state in (3, 4) order by session_id limit 1) \
           union all \
           select (select session_id from tasks where state in (3, 4) and session_id > s.id order by session_id limit 1) \
           from s where s.id is not null) \
         select id from s where id is not null and not exists (select 1 from sessions where sessions.id = s.id)",
    )
    .fetch_all(conn)
    .await
    .map_err(explain("finding what was held"))
}

/// The first to ask has a duty, until its session is over.
pub(super) struct Holds {
    pub(super) session: SessionId,
    pub(super) duty: Duty,
}

impl Verb for Holds {
    type Answer = bool;

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<bool> {
        let held: Option<i32> = sqlx::query_scalar(
            "insert into duties(name, session_id) \
             select $1, id from sessions where id = $2 and expires_at > flux_now() \
             on conflict(name) do update set session_id = excluded.session_id \
             where duties.session_id = excluded.session_id or not exists \
               (select 1 from sessions s where s.id = duties.session_id and s.expires_at > flux_now()) \
             returning 1",
        )
        .bind(self.duty.as_str())
        .bind(self.session.uuid())
        .fetch_optional(&mut **txn)
        .await
        .map_err(explain("asking for a duty"))?;
        Ok(held.is_some())
    }
}

/// Workers heard of since then.
pub(super) async fn all_seen(conn: &mut PgConnection, since: Timestamp) -> Result<Vec<WorkerSeen>> {
    let rows =
        sqlx::query("select id, boot, addr, seen_at from workers where seen_at >= $1 order by id, boot")
            .bind(since.micros())
            .fetch_all(conn)
            .await
            .map_err(explain("reading workers"))?;
    rows.iter().map(worker_seen).collect()
}

pub(super) struct SeeWorkers {
    pub(super) session: SessionId,
    pub(super) seen: Vec<WorkerSeen>,
}

impl Verb for SeeWorkers {
    type Answer = ();

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<()> {
        // Rows in one order, so that two controls cannot wait for each other; each once, or the statement is refused.
        let mut seen: Vec<&WorkerSeen> = self.seen.iter().collect();
        seen.sort_by_key(|seen| (seen.worker.as_str(), seen.boot.uuid(), std::cmp::Reverse(seen.seen_at)));
        let mut known = HashSet::new();
        seen.retain(|seen| known.insert((seen.worker.clone(), seen.boot)));
        sqlx::query(
            "insert into workers(id, boot, addr, session_id, seen_at) \
             select id, boot, addr, $4, seen_at from unnest($1::text[], $2::uuid[], $3::text[], $5::bigint[]) \
             v(id, boot, addr, seen_at) \
             on conflict(id, boot) do update set addr = excluded.addr, session_id = excluded.session_id, \
             seen_at = greatest(workers.seen_at, excluded.seen_at)",
        )
        .bind(column(&seen, |seen| seen.worker.as_str().to_owned()))
        .bind(column(&seen, |seen| seen.boot.uuid()))
        .bind(column(&seen, |seen| seen.address.clone()))
        .bind(self.session.uuid())
        .bind(column(&seen, |seen| seen.seen_at.micros()))
        .execute(&mut **txn)
        .await
        .map_err(explain("writing workers down"))?;
        if let Some(latest) = seen.iter().map(|seen| seen.seen_at).max() {
            forget(txn, latest).await?;
        }
        Ok(())
    }
}

/// Forgets workers of long ago that hold nothing.
async fn forget(conn: &mut PgConnection, now: Timestamp) -> Result<()> {
    sqlx::query(
        "delete from workers where seen_at < $1 and not exists \
         (select 1 from tasks where state in (3, 4) and worker_boot = workers.boot)",
    )
    .bind(now.micros().saturating_sub(FORGET_MICROS))
    .execute(conn)
    .await
    .map_err(explain("forgetting workers"))?;
    Ok(())
}

//! The control's session, what earlier ones left, and where workers are.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, Row};

use super::super::columns::Columns;
use super::super::delta::{Rules, transition};
use super::super::records::{addresses, worker_seen};
use super::super::row::inconsistent;
use super::super::{Fenced, Result, Taken, WorkerSeen};
use super::claim::taken;
use super::error::explain;
use super::load::load;
use super::save::{blob, save};
use super::writer::{Txn, Verb};
use crate::domain::machine::{Fenced as Answer, Illegal, Machine};
use crate::domain::{Hold, JobId, SessionId, Timestamp};

/// A session's nominal end, microseconds after its last renewal. Told to people only: here the lock is the session.
const SESSION_MICROS: i64 = 30_000_000;
/// Jobs recovered in one read.
const BATCH: usize = 500;
/// How long the place of a worker is remembered that no control heard of, microseconds.
const FORGET_MICROS: i64 = 24 * 3600 * 1_000_000;

/// Jobs with held tasks. The states are literals, or the partial index could not be used.
pub(super) const HELD: &str = "select job_id from tasks indexed by tasks_session where state in (3, 4)";

/// The lock is the session: those before it are over, and workers that nobody wrote down went with their control.
pub(super) struct OpenSession {
    pub(super) id: SessionId,
    pub(super) name: String,
    pub(super) now: Timestamp,
}

impl Verb for OpenSession {
    type Answer = SessionId;

    async fn run(&self, txn: &mut Txn<'_>) -> Result<SessionId> {
        sqlx::query("delete from sessions")
            .execute(&mut *txn.conn)
            .await
            .map_err(explain("closing the last session"))?;
        sqlx::query("insert into sessions(id, name, started_at, expires_at) values (?, ?, ?, ?)")
            .bind(blob(self.id.uuid()))
            .bind(self.name.clone())
            .bind(self.now.micros())
            .bind(self.now.micros().saturating_add(SESSION_MICROS))
            .execute(&mut *txn.conn)
            .await
            .map_err(explain("opening a session"))?;
        let elsewhere = addresses(all_seen(&mut *txn.conn, Timestamp::from_micros(i64::MIN)).await?);
        let gone = |hold: &Hold| !elsewhere.contains_key(&hold.boot);
        let held =
            sqlx::query(HELD).fetch_all(&mut *txn.conn).await.map_err(explain("finding what was held"))?;
        let id = |row| Columns { table: "tasks", row }.id("job_id").map(JobId::from_uuid);
        let held: BTreeSet<_> = held.iter().map(id).collect::<Result<_>>()?;
        let held: Vec<_> = held.into_iter().collect();
        for jobs in held.chunks(BATCH) {
            let mut recovered = Vec::with_capacity(jobs.len());
            for loaded in load(txn.conn, jobs).await? {
                let recover = |m: &mut Machine| {
                    m.recover(gone);
                    Ok(())
                };
                let ((), delta) = transition(loaded, Rules::new(txn.shared, self.now, None), recover)?;
                recovered.push(delta);
            }
            save(txn, &recovered).await?;
        }
        Ok(self.id)
    }
}

/// Whether a session is the current one.
pub(super) async fn is_current(txn: &mut Txn<'_>, session: SessionId) -> Result<bool> {
    let found: Option<i64> = sqlx::query_scalar("select 1 from sessions where id = ?")
        .bind(blob(session.uuid()))
        .fetch_optional(&mut *txn.conn)
        .await
        .map_err(explain("reading the session"))?;
    Ok(found.is_some())
}

pub(super) struct RenewSession {
    pub(super) session: SessionId,
    pub(super) now: Timestamp,
}

impl Verb for RenewSession {
    type Answer = Fenced<()>;

    async fn run(&self, txn: &mut Txn<'_>) -> Result<Fenced<()>> {
        let done = sqlx::query("update sessions set expires_at = ? where id = ?")
            .bind(self.now.micros().saturating_add(SESSION_MICROS))
            .bind(blob(self.session.uuid()))
            .execute(&mut *txn.conn)
            .await
            .map_err(explain("renewing the session"))?;
        Ok(if done.rows_affected() == 1 { Fenced::Done(()) } else { Fenced::Lost })
    }
}

pub(super) struct CloseSession {
    pub(super) session: SessionId,
}

impl Verb for CloseSession {
    type Answer = ();

    async fn run(&self, txn: &mut Txn<'_>) -> Result<()> {
        sqlx::query("delete from sessions where id = ?")
            .bind(blob(self.session.uuid()))
            .execute(&mut *txn.conn)
            .await
            .map_err(explain("closing the session"))?;
        Ok(())
    }
}

/// Takes over what sessions before this one still hold: workers elsewhere may be running it.
pub(super) struct Takeover {
    pub(super) session: SessionId,
    pub(super) most: u32,
    pub(super) now: Timestamp,
}

impl Verb for Takeover {
    type Answer = Vec<Taken>;

    async fn run(&self, txn: &mut Txn<'_>) -> Result<Vec<Taken>> {
        if !is_current(txn, self.session).await? {
            return Ok(Vec::new());
        }
        let held = format!("{HELD} and session_id <> ? limit ?");
        let rows = sqlx::query(AssertSqlSafe(held))
            .bind(blob(self.session.uuid()))
            .bind(i64::from(self.most))
            .fetch_all(&mut *txn.conn)
            .await
            .map_err(explain("finding what was held"))?;
        let id = |row| Columns { table: "tasks", row }.id("job_id").map(JobId::from_uuid);
        let jobs: BTreeSet<_> = rows.iter().map(id).collect::<Result<_>>()?;
        let jobs: Vec<_> = jobs.into_iter().collect();
        let addresses = addresses(all_seen(&mut *txn.conn, Timestamp::from_micros(i64::MIN)).await?);
        let (mut all, mut deltas) = (Vec::new(), Vec::new());
        for loaded in load(txn.conn, &jobs).await? {
            let tasks = loaded.aggregate.tasks.iter();
            let old = tasks.filter_map(|t| Some((t.id, t.hold.clone()?)));
            let old: Vec<_> = old.filter(|(_, hold)| hold.session != self.session).collect();
            let job = loaded.aggregate.clone();
            let take_over = |machine: &mut Machine| {
                for (task, hold) in &old {
                    if machine.take_over(*task, hold.run, self.session) == Answer::Lost {
                        return Err(Illegal("a held task has no holder"));
                    }
                }
                Ok(())
            };
            let ((), delta) = transition(loaded, Rules::new(txn.shared, self.now, None), take_over)?;
            deltas.push(delta);
            for (task, hold) in old {
                let address = addresses.get(&hold.boot).cloned();
                let ours = Hold { session: self.session, ..hold };
                all.extend(taken(txn, &job, task, &ours, address).await?);
            }
        }
        save(txn, &deltas).await?;
        Ok(all)
    }
}

/// Workers heard of since then.
pub(super) async fn all_seen<'c>(
    conn: impl sqlx::Executor<'c, Database = sqlx::Sqlite>,
    since: Timestamp,
) -> Result<Vec<WorkerSeen>> {
    let rows =
        sqlx::query("select id, boot, addr, seen_at from workers where seen_at >= ? order by id, boot")
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

    async fn run(&self, txn: &mut Txn<'_>) -> Result<()> {
        for seen in &self.seen {
            sqlx::query(
                "insert into workers(id, boot, addr, session_id, seen_at) values (?, ?, ?, ?, ?) \
                 on conflict(id, boot) do update set addr = excluded.addr, session_id = excluded.session_id, \
                 seen_at = max(seen_at, excluded.seen_at)",
            )
            .bind(seen.worker.as_str().to_owned())
            .bind(blob(seen.boot.uuid()))
            .bind(seen.address.clone())
            .bind(blob(self.session.uuid()))
            .bind(seen.seen_at.micros())
            .execute(&mut *txn.conn)
            .await
            .map_err(explain("writing workers down"))?;
        }
        if let Some(latest) = self.seen.iter().map(|seen| seen.seen_at).max() {
            forget(txn, latest).await?;
        }
        Ok(())
    }
}

/// Forgets workers of long ago that hold nothing.
async fn forget(txn: &mut Txn<'_>, now: Timestamp) -> Result<()> {
    sqlx::query(
        "delete from workers where seen_at < ? and not exists \
         (select 1 from tasks where state in (3, 4) and worker_boot = workers.boot)",
    )
    .bind(now.micros().saturating_sub(FORGET_MICROS))
    .execute(&mut *txn.conn)
    .await
    .map_err(explain("forgetting workers"))?;
    Ok(())
}

/// When a run was claimed.
pub(super) async fn began(txn: &mut Txn<'_>, hold: &Hold) -> Result<Timestamp> {
    let row = sqlx::query("select started_at from runs where id = ?")
        .bind(blob(hold.run.uuid()))
        .fetch_optional(&mut *txn.conn)
        .await
        .map_err(explain("reading a run"))?
        .ok_or_else(|| inconsistent("runs", "a held task has no run"))?;
    row.try_get(0).map(Timestamp::from_micros).map_err(explain("reading a run"))
}

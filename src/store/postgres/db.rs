//! Connections: few, each statement and each wait for a lock with an end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Executor, PgPool, Postgres, Transaction};
use tokio::sync::mpsc;

use super::super::Result;
use super::super::delta::Delta;
use super::super::outbox::untold;
use super::super::shared::Shared;
use super::error::{Remedy, explain, remedy};
use crate::domain::JobId;

/// Connections for writes: the lanes, submissions, claims, sessions, housekeeping.
const WRITERS: u32 = 8;
/// Connections for reads.
const READERS: u32 = 4;
/// How long somebody waits for a connection before the database counts as away.
const PATIENCE: Duration = Duration::from_secs(3);

/// For each connection. Rows are looked for by their keys only, and a plan that scans a table is a plan made from
/// statistics that are out of date; with few columns to choose from, plans need not be made anew for each execution.
pub(super) const SESSION: &str = "set statement_timeout = '20s'; set lock_timeout = '10s'; \
     set idle_in_transaction_session_timeout = '20s'; set default_transaction_isolation = 'read committed'; \
     set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_hashjoin = off; \
     set enable_mergejoin = off; set jit = off";

/// The database and what is only in memory.
pub(super) struct Db {
    writers: PgPool,
    pub(super) readers: PgPool,
    pub(super) shared: Shared,
    /// Changes that other controls are to hear of.
    hints: mpsc::Sender<JobId>,
}

/// A transaction that writes.
pub(super) type Txn = Transaction<'static, Postgres>;

/// One business verb, but for transitions, which go in groups.
pub(super) trait Verb: Sync {
    /// Its answer.
    type Answer: Send;
    /// Carries it out. Called again from the start when the connection or a lock was lost.
    fn run(&self, txn: &mut Txn, db: &Db) -> impl Future<Output = Result<Self::Answer>> + Send;
}

/// Pools of connections that are made when they are needed.
pub(super) fn pools(place: &PgConnectOptions) -> (PgPool, PgPool) {
    let pool = |most| {
        PgPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(PATIENCE)
            .max_lifetime(Duration::from_mins(30))
            .idle_timeout(Duration::from_mins(5))
            .after_connect(|conn, _| Box::pin(async move { conn.execute(SESSION).await.map(drop) }))
            .connect_lazy_with(place.clone())
    };
    (pool(WRITERS), pool(READERS))
}

impl Db {
    pub(super) fn new(
        (writers, readers): (PgPool, PgPool),
        shared: Shared,
        hints: mpsc::Sender<JobId>,
    ) -> Self {
        Self { writers, readers, shared, hints }
    }

    pub(super) async fn begin(&self) -> Result<Txn> {
        self.writers.begin().await.map_err(explain("beginning a commit"))
    }

    pub(super) async fn commit(&self, txn: Txn) -> Result<()> {
        txn.commit().await.map_err(explain("committing"))
    }

    /// Says a verb in a transaction of its own, and again if the connection or a lock was lost: verbs are idempotent.
    pub(super) async fn say<V: Verb>(&self, verb: &V) -> Result<V::Answer> {
        match self.say_once(verb).await {
            Err(error) if remedy(&error) != Remedy::GiveUp => self.say_once(verb).await,
            outcome => outcome,
        }
    }

    async fn say_once<V: Verb>(&self, verb: &V) -> Result<V::Answer> {
        let mut txn = self.begin().await?;
        let answer = verb.run(&mut txn, self).await?;
        self.commit(txn).await?;
        Ok(answer)
    }

    /// Counts what was committed and gives readers a hint, here and elsewhere.
    pub(super) fn tell(&self, deltas: &[Delta]) {
        let waiting: i64 = deltas.iter().map(Delta::waiting).sum();
        self.shared.waiting.fetch_add(waiting, Ordering::Relaxed);
        if deltas.iter().any(|delta| !untold(&self.shared, delta).is_empty()) {
            self.shared.posted.notify_one();
        }
        self.hint(deltas.iter().filter(|delta| delta.is_news()).map(Delta::job));
    }

    /// A hint that these jobs changed. Hints may be lost: whoever needs to know reads the rows.
    pub(super) fn hint(&self, jobs: impl IntoIterator<Item = JobId>) {
        for job in jobs {
            let _ = self.shared.changes.send(job);
            let _ = self.hints.try_send(job);
        }
    }
}

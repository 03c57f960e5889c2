//! Accepting jobs: a whole group with a few multi-row statements.
//!
//! sqlx pays a thread hop per statement, so a group of 64 jobs is 64 rows in each of some five statements (STACK §4).

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};

use super::super::columns::Columns;
use super::super::row::{event_data, to_json};
use super::super::seal::{SealKeys, Sealed};
use super::super::{Idempotency, NewJob, Result, Submitted};
use super::error::explain;
use super::save::blob;
use super::writer::Txn;
use crate::domain::machine::{accepted, rank};
use crate::domain::{JobId, Source, TaskClass, TaskKind, TaskState, Timestamp};

/// Whether these jobs may have been stored by an attempt whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replay {
    /// The first attempt.
    No,
    /// Maybe.
    Yes,
}

/// A job as rows, made outside the writer.
pub(in crate::store) struct Prepared {
    pub(in crate::store) id: JobId,
    pub(in crate::store) task: uuid::Uuid,
    pub(in crate::store) tenant: String,
    pub(in crate::store) spec: String,
    pub(in crate::store) priority: i64,
    pub(in crate::store) class: i64,
    pub(in crate::store) rank: i64,
    pub(in crate::store) outputs: u16,
    pub(in crate::store) labels: Vec<(String, String)>,
    pub(in crate::store) event: String,
    pub(in crate::store) sealed: Option<Sealed>,
    pub(in crate::store) upload: Option<uuid::Uuid>,
    pub(in crate::store) idempotency: Option<Idempotency>,
    pub(in crate::store) now: Timestamp,
}

impl Prepared {
    /// Seals and writes down everything that needs no transaction.
    pub(in crate::store) fn new(keys: &SealKeys, job: NewJob) -> Result<Self> {
        let sealed = if job.secrets.is_empty() {
            None
        } else {
            let text = to_json("job_secrets", &job.secrets)?.into_bytes();
            Some(keys.seal(job.id.uuid().as_bytes(), text)?)
        };
        let upload = match &job.spec.source {
            Source::Upload { id } => Some(id.uuid()),
            Source::Http { .. }
            | Source::Ftp { .. }
            | Source::Bucket { .. }
            | Source::File { .. }
            | Source::Inline { .. }
            | Source::Storage { .. } => None,
        };
        Ok(Self {
            id: job.id,
            task: job.task.uuid(),
            spec: to_json("jobs", &job.spec)?,
            priority: i64::from(job.spec.priority),
            class: TaskClass::of(&job.spec).number(),
            rank: rank(job.now, job.spec.priority),
            outputs: u16::try_from(job.spec.outputs.len()).unwrap_or(u16::MAX),
            labels: job.spec.labels.into_iter().collect(),
            event: event_data(&accepted(job.now))?,
            tenant: job.tenant.into(),
            sealed,
            upload,
            idempotency: job.idempotency,
            now: job.now,
        })
    }
}

/// Stores the jobs that are new and answers for all, in order.
pub(super) async fn accept(
    txn: &mut Txn<'_>,
    jobs: &[Box<Prepared>],
    replay: Replay,
) -> Result<Vec<Submitted>> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    if replay == Replay::Yes && exists(txn.conn, jobs[0].id).await? {
        return Ok(vec![Submitted::Created]);
    }
    let known = known_keys(txn.conn, jobs).await?;
    let room = room(txn).await?;
    let (answers, fresh) = decide(jobs, known, room);
    insert_all(txn, &fresh).await?;
    Ok(answers)
}

/// Used keys, by tenant and key.
pub(in crate::store) type KnownKeys = HashMap<(String, String), KnownKey>;

/// What becomes of each job, in order, and which are to be stored; `room` is how many more may wait.
pub(in crate::store) fn decide(
    jobs: &[Box<Prepared>],
    mut known: KnownKeys,
    mut room: Option<u64>,
) -> (Vec<Submitted>, Vec<&Prepared>) {
    let mut answers = Vec::with_capacity(jobs.len());
    let mut fresh = Vec::with_capacity(jobs.len());
    for job in jobs {
        let key = job.idempotency.as_ref().map(|i| (job.tenant.clone(), i.key.clone()));
        let used = key.as_ref().and_then(|key| known.get(key));
        let answer = match (used, &job.idempotency) {
            (Some(used), Some(asked)) => used.answer(asked),
            _ if room == Some(0) => Submitted::QueueFull,
            _ => {
                room = room.map(|room| room - 1);
                if let (Some(key), Some(asked)) = (key, &job.idempotency) {
                    let fingerprint = asked.fingerprint.clone();
                    known.insert(key, KnownKey { job: job.id, fingerprint, deleted: false });
                }
                fresh.push(job.as_ref());
                Submitted::Created
            }
        };
        answers.push(answer);
    }
    (answers, fresh)
}

/// How many more jobs may wait; `None` = no bound.
async fn room(txn: &mut Txn<'_>) -> Result<Option<u64>> {
    if txn.shared.max_pending == Some(0) {
        let taken: i64 = sqlx::query_scalar("select count(*) from tasks where state in (2, 3, 4)")
            .fetch_one(&mut *txn.conn)
            .await
            .map_err(explain("counting free slots"))?;
        let slots = txn.shared.slots.load(std::sync::atomic::Ordering::Relaxed);
        return Ok(Some(slots.saturating_sub(u64::try_from(taken).unwrap_or(0))));
    }
    let committed = txn.shared.waiting.load(std::sync::atomic::Ordering::Relaxed);
    let waiting = u64::try_from(committed.saturating_add(txn.waiting)).unwrap_or(0);
    Ok(txn.shared.max_pending.map(|most| most.saturating_sub(waiting)))
}

/// A key that was used before.
pub(in crate::store) struct KnownKey {
    pub(in crate::store) job: JobId,
    pub(in crate::store) fingerprint: Vec<u8>,
    pub(in crate::store) deleted: bool,
}

impl KnownKey {
    pub(in crate::store) fn answer(&self, asked: &Idempotency) -> Submitted {
        if self.fingerprint != asked.fingerprint {
            Submitted::KeyReused
        } else if self.deleted {
            Submitted::KeyGone
        } else {
            Submitted::Replayed(self.job)
        }
    }
}

async fn exists(conn: &mut SqliteConnection, id: JobId) -> Result<bool> {
    let found: Option<i64> = sqlx::query_scalar("select 1 from jobs where id = ?")
        .bind(blob(id.uuid()))
        .fetch_optional(conn)
        .await
        .map_err(explain("looking a job up"))?;
    Ok(found.is_some())
}

/// The keys of this group that were used before; those whose time is over are forgotten here.
async fn known_keys(conn: &mut SqliteConnection, jobs: &[Box<Prepared>]) -> Result<KnownKeys> {
    let keys: Vec<_> =
        jobs.iter().filter_map(|j| Some((&j.tenant, &j.idempotency.as_ref()?.key, j.now))).collect();
    let mut known = HashMap::new();
    for chunk in keys.chunks(ROWS) {
        let mut query = sqlx::query(AssertSqlSafe(key_lookup(chunk.len())));
        for (tenant, key, _) in chunk {
            query = query.bind((*tenant).clone()).bind((*key).clone());
        }
        for row in query.fetch_all(&mut *conn).await.map_err(explain("looking keys up"))? {
            let columns = Columns { table: "jobs", row: &row };
            let (tenant, key) = (columns.text("tenant")?, columns.text("idem_key")?);
            let job = JobId::from_uuid(columns.id("id")?);
            let now = chunk.iter().find(|(t, k, _)| **t == tenant && **k == key).map(|(_, _, now)| *now);
            if now.is_some_and(|now| columns.int("idem_until").is_ok_and(|until| until <= now.micros())) {
                forget_key(conn, job).await?;
                continue;
            }
            let fingerprint = columns.maybe_bytes("idem_fp")?.unwrap_or_default();
            let deleted = columns.maybe_int("deleted_at")?.is_some();
            known.insert((tenant, key), KnownKey { job, fingerprint, deleted });
        }
    }
    Ok(known)
}

/// Asks for `count` keys. A join, because a row-value `in` would not use the partial index and scan every job.
pub(super) fn key_lookup(count: usize) -> String {
    let pairs = vec!["(?,?)"; count].join(",");
    format!(
        "with asked(t, k) as (values {pairs}) \
         select id, tenant, idem_key, idem_fp, idem_until, deleted_at from asked \
         cross join jobs on tenant = asked.t and idem_key = asked.k"
    )
}

async fn forget_key(conn: &mut SqliteConnection, job: JobId) -> Result<()> {
    sqlx::query("update jobs set idem_key = null, idem_fp = null, idem_until = null where id = ?")
        .bind(blob(job.uuid()))
        .execute(conn)
        .await
        .map_err(explain("forgetting a key"))?;
    Ok(())
}

/// A multi-row insert, its texts made once per number of rows.
///
/// A group is as large as what gathered during the last commit, so every number occurs; to split it into few fixed sizes
/// cost six thread hops per table instead of one.
///
/// `or fail`: what fails rolls its whole group back, so no statement has to be undone alone. Without it `SQLite` copies
/// every page that such a statement changes to a file of its own.
struct Insert {
    head: &'static str,
    row: &'static str,
    texts: [OnceLock<Arc<String>>; ROWS],
}

/// Rows per statement, at most.
pub(super) const ROWS: usize = 64;
/// Tables that [`insert_all`] writes; with the look-up of keys, each has up to [`ROWS`] prepared statements.
pub(super) const INSERTS: usize = 6;

impl Insert {
    const fn new(head: &'static str, row: &'static str) -> Self {
        Self { head, row, texts: [const { OnceLock::new() }; ROWS] }
    }

    async fn run<T>(
        &self,
        conn: &mut SqliteConnection,
        rows: &[T],
        bind: impl for<'q> Fn(Query<'q, Sqlite, SqliteArguments>, &T) -> Query<'q, Sqlite, SqliteArguments>,
    ) -> Result<()> {
        for rows in rows.chunks(ROWS) {
            let values = || format!("{} {}", self.head, vec![self.row; rows.len()].join(","));
            let text = self.texts[rows.len() - 1].get_or_init(|| Arc::new(values()));
            let query = rows.iter().fold(sqlx::query(AssertSqlSafe(Arc::clone(text))), &bind);
            query.execute(&mut *conn).await.map_err(explain("storing jobs"))?;
        }
        Ok(())
    }
}

static JOBS: Insert = Insert::new(
    "insert or fail into jobs(id, tenant, priority, spec, idem_key, idem_fp, idem_until, created_at) values",
    "(?,?,?,?,?,?,?,?)",
);
static OUTPUTS: Insert = Insert::new("insert or fail into outputs(job_id, idx) values", "(?,?)");
static TASKS: Insert = Insert::new(
    "insert or fail into tasks(id, job_id, job_run, kind, state, tenant, class, rank, work) values",
    "(?,?,1,?,?,?,?,?,'{}')",
);
static EVENTS: Insert =
    Insert::new("insert or fail into job_events(job_id, seq, kind, data, at) values", "(?,1,0,?,?)");
static LABELS: Insert =
    Insert::new("insert or fail into job_labels(tenant, k, v, job_id) values", "(?,?,?,?)");
static SECRETS: Insert =
    Insert::new("insert or fail into job_secrets(job_id, key_id, sealed) values", "(?,?,?)");

async fn insert_all(txn: &mut Txn<'_>, jobs: &[&Prepared]) -> Result<()> {
    JOBS.run(txn.conn, jobs, |query, job| {
        let idempotency = job.idempotency.as_ref();
        query
            .bind(blob(job.id.uuid()))
            .bind(job.tenant.clone())
            .bind(job.priority)
            .bind(job.spec.clone())
            .bind(idempotency.map(|i| i.key.clone()))
            .bind(idempotency.map(|i| i.fingerprint.clone()))
            .bind(idempotency.map(|i| i.until.micros()))
            .bind(job.now.micros())
    })
    .await?;
    let outputs: Vec<_> =
        jobs.iter().flat_map(|job| (0..job.outputs).map(|n| (job.id, i64::from(n)))).collect();
    OUTPUTS.run(txn.conn, &outputs, |query, (job, index)| query.bind(blob(job.uuid())).bind(*index)).await?;
    TASKS
        .run(txn.conn, jobs, |query, job| {
            query
                .bind(blob(job.task))
                .bind(blob(job.id.uuid()))
                .bind(TaskKind::Transcode.number())
                .bind(TaskState::Ready.number())
                .bind(job.tenant.clone())
                .bind(job.class)
                .bind(job.rank)
        })
        .await?;
    EVENTS
        .run(txn.conn, jobs, |query, job| {
            query.bind(blob(job.id.uuid())).bind(job.event.clone()).bind(job.now.micros())
        })
        .await?;
    let labels: Vec<_> =
        jobs.iter().flat_map(|job| job.labels.iter().map(move |label| (*job, label))).collect();
    LABELS
        .run(txn.conn, &labels, |query, (job, (key, value))| {
            query.bind(job.tenant.clone()).bind(key.clone()).bind(value.clone()).bind(blob(job.id.uuid()))
        })
        .await?;
    let sealed: Vec<_> = jobs.iter().filter_map(|job| Some((job.id, job.sealed.as_ref()?))).collect();
    SECRETS
        .run(txn.conn, &sealed, |query, (job, sealed)| {
            query.bind(blob(job.uuid())).bind(sealed.key_id.clone()).bind(sealed.bytes.clone())
        })
        .await?;
    for upload in jobs.iter().filter_map(|job| job.upload) {
        sqlx::query("update uploads set refs = refs + 1 where id = ?")
            .bind(blob(upload))
            .execute(&mut *txn.conn)
            .await
            .map_err(explain("binding an upload"))?;
    }
    txn.waiting += i64::try_from(jobs.len()).unwrap_or(i64::MAX);
    txn.changed.extend(jobs.iter().map(|job| job.id));
    Ok(())
}

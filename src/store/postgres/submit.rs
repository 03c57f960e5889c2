//! Accepting jobs: whatever waits is one transaction of some six statements, one per table (STACK §4).
//!
//! Keys are looked up and inserted in one order, so that two controls cannot wait for each other; one that waits for
//! the other's commit answers with the other's job (PROTOCOL §1.15). A commit whose outcome is unknown is said again:
//! jobs that are there already were accepted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::columns::Columns;
use super::super::sqlite::submit::{KnownKey, KnownKeys, Prepared, decide};
use super::super::steps::stopped;
use super::super::{Error, Result, Submitted};
use super::db::Db;
use super::error::{self, Remedy, explain, is_outage, remedy};
use super::save::column;
use crate::domain::{JobId, TaskKind, TaskState};

/// Jobs in one commit, at most.
const GROUP: usize = 256;
/// Submissions that wait; more are refused, because their clients can come back.
const LANE: usize = 1024;
/// How long the number of waiting tasks is believed, as other controls accept and claim too (PROTOCOL §1.16).
const COUNT_AGE: Duration = Duration::from_secs(1);

type Answer = Result<Submitted>;

/// The sending side; the lane ends when all clones are gone.
#[derive(Clone)]
pub(super) struct Submissions(mpsc::Sender<(Box<Prepared>, oneshot::Sender<Answer>)>);

impl Submissions {
    /// Starts the lane on `tasks`.
    pub(super) fn start(db: &Arc<Db>, tasks: &tokio_util::task::TaskTracker) -> Self {
        let (lane, inbox) = mpsc::channel(LANE);
        tasks.spawn(serve(inbox, Arc::clone(db)));
        Self(lane)
    }

    /// Submits a job and waits for its commit; refused at once when too many wait.
    pub(super) async fn say(&self, job: Prepared) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.0.try_send((Box::new(job), reply)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Error::Unavailable {
                doing: "accepting a job",
                source: "too many submissions wait already".into(),
            },
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        answer.await.map_err(|_| stopped())?
    }
}

async fn serve(mut inbox: mpsc::Receiver<(Box<Prepared>, oneshot::Sender<Answer>)>, db: Arc<Db>) {
    let mut counted = None;
    while let Some(first) = inbox.recv().await {
        let mut group = vec![first];
        while group.len() < GROUP {
            let Ok(next) = inbox.try_recv() else { break };
            group.push(next);
        }
        let (jobs, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        for (reply, answer) in replies.into_iter().zip(accept(&db, &jobs, &mut counted).await) {
            // A client that went away finds its job again by its key.
            let _ = reply.send(answer);
        }
    }
}

async fn accept(db: &Db, jobs: &[Box<Prepared>], counted: &mut Option<Instant>) -> Vec<Answer> {
    let mut outcome = transact(db, jobs, counted).await;
    if outcome.as_ref().is_err_and(|error| remedy(error) != Remedy::GiveUp) {
        outcome = transact(db, jobs, counted).await;
    }
    match outcome {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(error) if jobs.len() == 1 => vec![Err(error)],
        Err(error) if is_outage(&error) => jobs.iter().map(|_| Err(error::shared(&error))).collect(),
        Err(_) => {
            let mut answers = Vec::with_capacity(jobs.len());
            for job in jobs {
                let one = transact(db, std::slice::from_ref(job), counted).await;
                answers.push(one.and_then(|mut answers| answers.pop().ok_or_else(stopped)));
            }
            answers
        }
    }
}

async fn transact(db: &Db, jobs: &[Box<Prepared>], counted: &mut Option<Instant>) -> Result<Vec<Submitted>> {
    let mut txn = db.begin().await?;
    let known = known_keys(&mut txn, jobs).await?;
    let room = room(&mut txn, db, counted).await?;
    let (mut answers, fresh) = decide(jobs, known, room);
    let stored = insert_jobs(&mut txn, &fresh).await?;
    if stored.len() < fresh.len() {
        answers = match jobs {
            [job] => vec![late_answer(&mut txn, job).await?],
            // One by one it is seen whose key it was.
            _ => return Err(crossed()),
        };
    }
    for (job, answer) in jobs.iter().zip(&mut answers) {
        if *answer == Submitted::Replayed(job.id) {
            *answer = Submitted::Created;
        }
    }
    let stored: Vec<_> = fresh.into_iter().filter(|job| stored.contains(&job.id)).collect();
    insert_rest(&mut txn, &stored).await?;
    db.commit(txn).await?;
    db.shared.waiting.fetch_add(i64::try_from(stored.len()).unwrap_or(i64::MAX), Ordering::Relaxed);
    db.hint(stored.iter().map(|job| job.id));
    Ok(answers)
}

/// How many more jobs may wait; `None` = no bound.
async fn room(conn: &mut PgConnection, db: &Db, counted: &mut Option<Instant>) -> Result<Option<u64>> {
    let Some(most) = db.shared.max_pending else { return Ok(None) };
    let count = async |conn: &mut PgConnection, sql: &'static str, most: i64| {
        let count: i64 = sqlx::query_scalar(sql)
            .bind(most)
            .fetch_one(conn)
            .await
            .map_err(explain("counting the queue"))?;
        Ok::<_, Error>(count)
    };
    if most == 0 {
        let slots = db.shared.slots.load(Ordering::Relaxed);
        let sql = "select count(*) from (select 1 from tasks where state = 2 union all \
                   select 1 from tasks where state in (3, 4) limit $1) taken";
        let taken = count(conn, sql, i64::try_from(slots).unwrap_or(i64::MAX)).await?;
        return Ok(Some(slots.saturating_sub(u64::try_from(taken).unwrap_or(0))));
    }
    if counted.is_none_or(|at| at.elapsed() >= COUNT_AGE) {
        let sql = "select count(*) from (select 1 from tasks where state = 2 union all \
                   select 1 from tasks where state = 1 limit $1) waiting";
        let waiting = count(conn, sql, i64::try_from(most).unwrap_or(i64::MAX)).await?;
        db.shared.waiting.store(waiting, Ordering::Relaxed);
        *counted = Some(Instant::now());
    }
    let waiting = u64::try_from(db.shared.waiting.load(Ordering::Relaxed)).unwrap_or(0);
    Ok(Some(most.saturating_sub(waiting)))
}

/// The keys of this group that were used before; those whose time is over are forgotten here.
async fn known_keys(conn: &mut PgConnection, jobs: &[Box<Prepared>]) -> Result<KnownKeys> {
    let mut asked: Vec<_> =
        jobs.iter().filter_map(|job| Some((&job.tenant, &job.idempotency.as_ref()?.key, job.now))).collect();
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    asked.sort_by_key(|(tenant, key, _)| (*tenant, *key));
    asked.dedup_by_key(|(tenant, key, _)| (*tenant, *key));
    let rows = sqlx::query(
        "select j.id, j.tenant, j.idem_key, j.idem_fp, j.deleted_at, j.idem_until <= v.now as over \
         from unnest($1::text[], $2::text[], $3::bigint[]) v(tenant, key, now) \
         join jobs j on j.tenant = v.tenant and j.idem_key = v.key",
    )
    .bind(column(&asked, |(tenant, _, _)| (*tenant).clone()))
    .bind(column(&asked, |(_, key, _)| (*key).clone()))
    .bind(column(&asked, |(_, _, now)| now.micros()))
    .fetch_all(&mut *conn)
    .await
    .map_err(explain("looking keys up"))?;
    let (mut known, mut over) = (HashMap::new(), Vec::new());
    for row in &rows {
        let columns = Columns { table: "jobs", row };
        if sqlx::Row::try_get(row, "over").map_err(explain("looking keys up"))? {
            over.push(columns.id("id")?);
            continue;
        }
        let (of, key) = key(&columns)?;
        known.insert(of, key);
    }
    if !over.is_empty() {
        sqlx::query(
            "update jobs set idem_key = null, idem_fp = null, idem_until = null where id in \
             (select id from jobs where id = any($1) order by id for update)",
        )
        .bind(over)
        .execute(conn)
        .await
        .map_err(explain("forgetting keys"))?;
    }
    Ok(known)
}

fn key(columns: &Columns<'_, sqlx::postgres::PgRow>) -> Result<((String, String), KnownKey)> {
    let key = KnownKey {
        job: JobId::from_uuid(columns.id("id")?),
        fingerprint: columns.maybe_bytes("idem_fp")?.unwrap_or_default(),
        deleted: columns.maybe_int("deleted_at")?.is_some(),
    };
    Ok(((columns.text("tenant")?, columns.text("idem_key")?), key))
}

/// Which of the jobs were stored by this statement: not those that are there already, or whose key another control
/// used while we waited.
async fn insert_jobs(conn: &mut PgConnection, fresh: &[&Prepared]) -> Result<HashSet<JobId>> {
    if fresh.is_empty() {
        return Ok(HashSet::new());
    }
    let mut jobs = fresh.to_vec();
    jobs.sort_by_key(|job| (job.idempotency.as_ref().map(|i| (&job.tenant, &i.key)), job.id));
    let stored: Vec<Uuid> = sqlx::query_scalar(
        "insert into jobs(id, tenant, priority, spec, idem_key, idem_fp, idem_until, created_at) \
         select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bytea[], \
         $7::bigint[], $8::bigint[]) on conflict do nothing returning id",
    )
    .bind(column(&jobs, |job| job.id.uuid()))
    .bind(column(&jobs, |job| job.tenant.clone()))
    .bind(column(&jobs, |job| job.priority))
    .bind(column(&jobs, |job| job.spec.clone()))
    .bind(column(&jobs, |job| job.idempotency.as_ref().map(|i| i.key.clone())))
    .bind(column(&jobs, |job| job.idempotency.as_ref().map(|i| i.fingerprint.clone())))
    .bind(column(&jobs, |job| job.idempotency.as_ref().map(|i| i.until.micros())))
    .bind(column(&jobs, |job| job.now.micros()))
    .fetch_all(conn)
    .await
    .map_err(explain("storing jobs"))?;
    Ok(stored.into_iter().map(JobId::from_uuid).collect())
}

/// The answer for a job that somebody was faster with: an earlier attempt of ours, or another control with the same key,
/// whose commit a new statement sees.
async fn late_answer(conn: &mut PgConnection, job: &Prepared) -> Result<Submitted> {
    let asked = job.idempotency.as_ref();
    let rows = sqlx::query(
        "select id, tenant, idem_key, idem_fp, deleted_at from jobs where id = $1 \
         union select id, tenant, idem_key, idem_fp, deleted_at from jobs where tenant = $2 and idem_key = $3",
    )
    .bind(job.id.uuid())
    .bind(&job.tenant)
    .bind(asked.map(|asked| &asked.key))
    .fetch_all(conn)
    .await
    .map_err(explain("looking a job up"))?;
    let mut answer = Err(crossed());
    for row in &rows {
        let columns = Columns { table: "jobs", row };
        if columns.id("id")? == job.id.uuid() {
            return Ok(Submitted::Created);
        }
        if let Some(asked) = asked {
            answer = Ok(key(&columns)?.1.answer(asked));
        }
    }
    answer
}

fn crossed() -> Error {
    let source = "another control used the same key at the same moment".into();
    Error::Unavailable { doing: "accepting a job", source }
}

async fn insert_rest(conn: &mut PgConnection, jobs: &[&Prepared]) -> Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let outputs: Vec<_> =
        jobs.iter().flat_map(|job| (0..job.outputs).map(|n| (job.id.uuid(), i64::from(n)))).collect();
    sqlx::query("insert into outputs(job_id, idx) select * from unnest($1::uuid[], $2::bigint[])")
        .bind(column(&outputs, |(job, _)| *job))
        .bind(column(&outputs, |(_, index)| *index))
        .execute(&mut *conn)
        .await
        .map_err(explain("storing outputs"))?;
    sqlx::query(
        "insert into tasks(id, job_id, job_run, kind, state, tenant, class, rank) \
         select id, job_id, 1, $3, $4, tenant, class, rank \
         from unnest($1::uuid[], $2::uuid[], $5::text[], $6::bigint[], $7::bigint[]) v(id, job_id, tenant, class, rank)",
    )
    .bind(column(jobs, |job| job.task))
    .bind(column(jobs, |job| job.id.uuid()))
    .bind(TaskKind::Transcode.number())
    .bind(TaskState::Ready.number())
    .bind(column(jobs, |job| job.tenant.clone()))
    .bind(column(jobs, |job| job.class))
    .bind(column(jobs, |job| job.rank))
    .execute(&mut *conn)
    .await
    .map_err(explain("storing tasks"))?;
    sqlx::query(
        "insert into job_events(job_id, seq, kind, data, at) \
         select job_id, 1, 0, data, at from unnest($1::uuid[], $2::text[], $3::bigint[]) v(job_id, data, at)",
    )
    .bind(column(jobs, |job| job.id.uuid()))
    .bind(column(jobs, |job| job.event.clone()))
    .bind(column(jobs, |job| job.now.micros()))
    .execute(&mut *conn)
    .await
    .map_err(explain("storing events"))?;
    insert_labels(conn, jobs).await?;
    insert_secrets(conn, jobs).await?;
    bind_uploads(conn, jobs).await
}

async fn insert_labels(conn: &mut PgConnection, jobs: &[&Prepared]) -> Result<()> {
    let labels: Vec<_> =
        jobs.iter().flat_map(|job| job.labels.iter().map(move |label| (*job, label))).collect();
    if labels.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into job_labels(tenant, k, v, job_id) \
         select * from unnest($1::text[], $2::text[], $3::text[], $4::uuid[])",
    )
    .bind(column(&labels, |(job, _)| job.tenant.clone()))
    .bind(column(&labels, |(_, (key, _))| key.clone()))
    .bind(column(&labels, |(_, (_, value))| value.clone()))
    .bind(column(&labels, |(job, _)| job.id.uuid()))
    .execute(conn)
    .await
    .map_err(explain("storing labels"))?;
    Ok(())
}

async fn insert_secrets(conn: &mut PgConnection, jobs: &[&Prepared]) -> Result<()> {
    let sealed: Vec<_> = jobs.iter().filter_map(|job| Some((job.id, job.sealed.as_ref()?))).collect();
    if sealed.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into job_secrets(job_id, key_id, sealed) select * from unnest($1::uuid[], $2::text[], $3::bytea[])",
    )
    .bind(column(&sealed, |(job, _)| job.uuid()))
    .bind(column(&sealed, |(_, sealed)| sealed.key_id.clone()))
    .bind(column(&sealed, |(_, sealed)| sealed.bytes.clone()))
    .execute(conn)
    .await
    .map_err(explain("storing secrets"))?;
    Ok(())
}

async fn bind_uploads(conn: &mut PgConnection, jobs: &[&Prepared]) -> Result<()> {
    let mut uploads: Vec<_> = jobs.iter().filter_map(|job| job.upload).collect();
    if uploads.is_empty() {
        return Ok(());
    }
    uploads.sort_unstable();
    sqlx::query(
        "update uploads u set refs = u.refs + v.jobs \
         from (select id, count(*)::int as jobs from unnest($1::uuid[]) v(id) group by id) v where u.id = v.id",
    )
    .bind(uploads)
    .execute(conn)
    .await
    .map_err(explain("binding uploads"))?;
    Ok(())
}

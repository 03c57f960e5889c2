//! Claims: which ready tasks the granted slots get.
//!
//! Round robin over tenants, starting after the one that was served last; within a tenant by rank (PROTOCOL §1.16).
//! A claim says its run ids, so that it can be said again: runs that exist are answered as they are, never begun twice.

use std::collections::{BTreeSet, HashMap, VecDeque};

use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::super::claims::{Kind, Slot, Waiting, by_kind, claimed, deal, in_turn, slots};
use super::super::columns::Columns;
use super::super::delta::{Rules, transition};
use super::super::row::to_json;
use super::super::seal::Sealed;
use super::super::shared::Shared;
use super::super::{Claimed, Error, Grant, Result, RunKey, Taken};
use super::bulk::Bulk;
use super::error::explain;
use super::load::{assemble, load_one};
use super::save::{blob, save};
use super::session::{began, is_current};
use super::writer::{Txn, Verb};
use crate::domain::machine::{Machine, is_ending};
use crate::domain::{
    Aggregate, Code, Failure, Hold, JobId, JobSecrets, RunId, SessionId, TaskClass, TaskId, Timestamp,
};

/// Classes with ready tasks, by probes of the index that begins with them.
pub(super) const READY_CLASSES: &str = "with recursive c(class) as (\
     select min(class) from tasks where state = 2 \
     union all \
     select (select min(class) from tasks where state = 2 and class > c.class) from c where c.class is not null)";

/// Fills granted slots with ready tasks. A session that is over claims nothing; its renewal says so.
pub(super) struct Claim {
    pub(super) session: SessionId,
    pub(super) grants: Vec<Grant>,
    pub(super) now: Timestamp,
}

impl Verb for Claim {
    type Answer = Vec<Claimed>;

    async fn run(&self, txn: &mut Txn<'_>) -> Result<Vec<Claimed>> {
        let slots = slots(self.session, &self.grants);
        if slots.is_empty() || !is_current(txn, self.session).await? {
            return Ok(Vec::new());
        }
        let known = known_runs(txn, &slots).await?;
        let mut claimed = Vec::new();
        let (said, new): (Vec<_>, Vec<_>) =
            slots.into_iter().partition(|slot| known.contains_key(&slot.hold.run));
        for Slot { hold, .. } in said {
            if let Some((task, job)) = known.get(&hold.run) {
                claimed.extend(again(txn, *job, *task, &hold).await?);
            }
        }
        for (kind, holds) in by_kind(new) {
            let picked = pick(txn, kind, holds.len()).await?;
            let tasks = holds.into_iter().zip(picked).map(|(hold, (task, job))| (hold, task, job));
            claimed.extend(self.take(txn, tasks.collect()).await?);
        }
        Ok(claimed)
    }
}

impl Claim {
    /// Claims these tasks, of different jobs. A run whose secrets cannot be opened fails at once.
    async fn take(&self, txn: &mut Txn<'_>, tasks: Vec<(Hold, TaskId, JobId)>) -> Result<Vec<Claimed>> {
        let jobs: Vec<_> = tasks.iter().map(|(_, _, job)| *job).collect();
        let mut found = assemble(txn.conn, &jobs).await?;
        let mut sealed = secrets(txn.conn, &jobs).await?;
        let (mut all, mut deltas) = (Vec::new(), Vec::new());
        for (hold, task, job) in tasks {
            let loaded = match found.take(job) {
                Some(Ok(loaded)) => loaded,
                // Another task of a job that a slot has just got.
                None => continue,
                Some(Err(Error::Inconsistent { table, what })) => {
                    tracing::error!(job.id = %job, table, what, "a job cannot be read and is set aside");
                    set_aside(txn, job, self.now).await?;
                    continue;
                }
                Some(Err(error)) => return Err(error),
            };
            let aggregate = loaded.aggregate.clone();
            let key = RunKey { job, task, run: hold.run, session: hold.session };
            let opened = open(txn.shared, job, sealed.remove(&job));
            let usable = opened.is_some() || is_ending(&aggregate);
            let claim = |machine: &mut Machine| {
                let epoch = machine.claim(task, hold.clone())?;
                if !usable {
                    let failure = Failure::new(Code::Internal, "the job's sealed secrets cannot be opened");
                    machine.fail(&key, &failure, &[]);
                }
                Ok(epoch)
            };
            let (epoch, delta) = transition(loaded, Rules::new(txn.shared, self.now, None), claim)?;
            deltas.push(delta);
            if usable {
                all.extend(claimed(&aggregate, task, &hold, epoch, opened.unwrap_or_default()));
            }
        }
        save(txn, &deltas).await?;
        Ok(all)
    }
}

static KNOWN_RUNS: Bulk = Bulk::new("select id, task_id, job_id from runs where id in (", "?", ")");

/// The runs among these that exist already: this claim was said before.
async fn known_runs(txn: &mut Txn<'_>, slots: &[Slot]) -> Result<HashMap<RunId, (TaskId, JobId)>> {
    let rows = KNOWN_RUNS
        .fetch(txn.conn, "looking runs up", slots, |query, slot| query.bind(blob(slot.hold.run.uuid())))
        .await?;
    let known = |row| {
        let columns = Columns { table: "runs", row };
        let of = (TaskId::from_uuid(columns.id("task_id")?), JobId::from_uuid(columns.id("job_id")?));
        Ok((RunId::from_uuid(columns.id("id")?), of))
    };
    rows.iter().map(known).collect()
}

/// The answer to a claim that was said before; `None` when its run is over or another session's.
async fn again(txn: &mut Txn<'_>, job: JobId, task: TaskId, hold: &Hold) -> Result<Option<Claimed>> {
    let Some(loaded) = load_one(txn.conn, job).await? else { return Ok(None) };
    let record = loaded.aggregate.tasks.iter().find(|t| t.id == task);
    let own =
        record.filter(|t| t.hold.as_ref().is_some_and(|h| (h.run, h.session) == (hold.run, hold.session)));
    let Some(epoch) = own.map(|t| t.epoch) else { return Ok(None) };
    let secrets = open_one(txn, job).await?.unwrap_or_default();
    Ok(claimed(&loaded.aggregate, task, hold, epoch, secrets))
}

/// Fails a job whose rows cannot be read, so that it does not stand at the head of its tenant's line for ever. Its
/// broken rows stay for whoever looks into it.
async fn set_aside(txn: &mut Txn<'_>, job: JobId, now: Timestamp) -> Result<()> {
    let failure = to_json("jobs", &Failure::new(Code::Internal, "the record of this job cannot be read"))?;
    let tasks = sqlx::query("delete from tasks where job_id = ? and state = 2")
        .bind(blob(job.uuid()))
        .execute(&mut *txn.conn)
        .await
        .map_err(explain("setting a job aside"))?;
    txn.waiting -= i64::try_from(tasks.rows_affected()).unwrap_or(0);
    sqlx::query("update jobs set status = 3, finished_at = ?, failure = ? where id = ?")
        .bind(now.micros())
        .bind(failure)
        .bind(blob(job.uuid()))
        .execute(&mut *txn.conn)
        .await
        .map_err(explain("setting a job aside"))?;
    Ok(())
}

static SECRETS: Bulk =
    Bulk::new("select job_id, key_id, sealed from job_secrets where job_id in (", "?", ")");
/// Statements of this file over many rows, for the size of the cache.
pub(super) const STATEMENTS: usize = 2;

pub(super) async fn secrets(conn: &mut SqliteConnection, jobs: &[JobId]) -> Result<HashMap<JobId, Sealed>> {
    let rows =
        SECRETS.fetch(conn, "reading secrets", jobs, |query, job| query.bind(blob(job.uuid()))).await?;
    let sealed = |row| {
        let columns = Columns { table: "job_secrets", row };
        let sealed = Sealed { key_id: columns.text("key_id")?, bytes: columns.bytes("sealed")? };
        Ok((JobId::from_uuid(columns.id("job_id")?), sealed))
    };
    rows.iter().map(sealed).collect()
}

/// `None` when there are secrets that no key opens.
pub(super) fn open(shared: &Shared, job: JobId, sealed: Option<Sealed>) -> Option<JobSecrets> {
    let Some(sealed) = sealed else { return Some(JobSecrets::default()) };
    let text = shared.keys.open(job.uuid().as_bytes(), &sealed)?;
    serde_json::from_slice(&text).ok()
}

async fn open_one(txn: &mut Txn<'_>, job: JobId) -> Result<Option<JobSecrets>> {
    let sealed = secrets(txn.conn, &[job]).await?.remove(&job);
    Ok(open(txn.shared, job, sealed))
}

/// What the new holder of a run is told; `None` when its secrets cannot be opened.
pub(super) async fn taken(
    txn: &mut Txn<'_>,
    job: &Aggregate,
    task: TaskId,
    hold: &Hold,
    address: Option<String>,
) -> Result<Option<Taken>> {
    let Some(record) = job.tasks.iter().find(|t| t.id == task) else { return Ok(None) };
    let since = began(txn, hold).await?;
    // Secrets that no key opens are no obstacle to hearing how a run ends.
    let secrets = open_one(txn, job.job.id).await?.unwrap_or_default();
    let claimed = claimed(job, task, hold, record.epoch, secrets);
    Ok(claimed.map(|claimed| Taken { claimed, address, since }))
}

/// The next tasks in order of service.
async fn pick(txn: &mut Txn<'_>, kind: Kind, slots: usize) -> Result<Vec<(TaskId, JobId)>> {
    let ready = ready_classes(txn).await?;
    let mut picked = Vec::new();
    for classes in kind.choices(&ready) {
        if picked.len() < slots && !classes.is_empty() {
            picked.extend(pick_from(txn, &classes, slots - picked.len()).await?);
        }
    }
    Ok(picked)
}

async fn pick_from(txn: &mut Txn<'_>, classes: &[TaskClass], slots: usize) -> Result<Vec<(TaskId, JobId)>> {
    let last = txn.shared.last_tenant.lock().ok().and_then(|last| last.clone());
    let tenants = in_turn(active_tenants(txn, classes).await?, last.as_ref());
    let mut lines = Vec::new();
    for tenant in tenants.into_iter().take(slots) {
        let line = line(txn, classes, &tenant, slots).await?;
        lines.push((tenant, line));
    }
    let (picked, served) = deal(lines, slots);
    if let (Some(served), Ok(mut last)) = (served, txn.shared.last_tenant.lock()) {
        *last = Some(served);
    }
    Ok(picked)
}

/// Classes with ready tasks: one index probe each, however many tasks there are.
async fn ready_classes(txn: &mut Txn<'_>) -> Result<Vec<TaskClass>> {
    let rows =
        sqlx::query(AssertSqlSafe(format!("{READY_CLASSES} select class from c where class is not null")))
            .fetch_all(&mut *txn.conn)
            .await
            .map_err(explain("finding ready classes"))?;
    let class = |row| Columns { table: "tasks", row }.state("class", TaskClass::from_number);
    rows.iter().map(class).collect()
}

/// Tenants with ready tasks of these classes, in order: one index probe each, however long their lines are.
async fn active_tenants(txn: &mut Txn<'_>, classes: &[TaskClass]) -> Result<BTreeSet<String>> {
    let mut tenants = BTreeSet::new();
    for class in classes {
        let rows = sqlx::query(
            "with recursive t(tenant) as (\
               select min(tenant) from tasks where state = 2 and class = ?1 \
               union all \
               select (select min(tenant) from tasks where state = 2 and class = ?1 and tenant > t.tenant) \
               from t where t.tenant is not null) \
             select tenant from t where tenant is not null",
        )
        .bind(class.number())
        .fetch_all(&mut *txn.conn)
        .await
        .map_err(explain("finding active tenants"))?;
        for row in &rows {
            tenants.insert(row.try_get(0).map_err(explain("finding active tenants"))?);
        }
    }
    Ok(tenants)
}

/// The head of a tenant's line: those of its classes, merged by rank.
async fn line(
    txn: &mut Txn<'_>,
    classes: &[TaskClass],
    tenant: &str,
    slots: usize,
) -> Result<VecDeque<Waiting>> {
    let mut line = Vec::new();
    for class in classes {
        let rows = sqlx::query(
            "select rank, id, job_id from tasks where state = 2 and class = ? and tenant = ? order by rank, id limit ?",
        )
        .bind(class.number())
        .bind(tenant.to_owned())
        .bind(i64::try_from(slots).unwrap_or(i64::MAX))
        .fetch_all(&mut *txn.conn)
        .await
        .map_err(explain("finding ready tasks"))?;
        for row in &rows {
            let columns = Columns { table: "tasks", row };
            let task = TaskId::from_uuid(columns.id("id")?);
            line.push((columns.int("rank")?, task, JobId::from_uuid(columns.id("job_id")?)));
        }
    }
    line.sort_unstable();
    Ok(line.into())
}

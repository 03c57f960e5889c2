//! Claims: which ready tasks the granted slots get, beside other controls that claim at the same time.
//!
//! Round robin over tenants, starting after the one that was served last; within a tenant by rank (PROTOCOL §1.16). A
//! claim locks and writes tasks only (PROTOCOL §1.12) and skips those that somebody else has locked, so controls never
//! wait for each other. It says its run ids, so that it can be said again: runs that exist are answered as they are.

use std::collections::{BTreeMap, HashMap, VecDeque};

use sqlx::PgConnection;
use uuid::Uuid;

use super::super::claims::{Kind, Slot, Waiting, by_kind, claimed, deal, in_turn};
use super::super::columns::Columns;
use super::super::delta::{Delta, Rules, transition};
use super::super::records::Loaded;
use super::super::row::{inconsistent, to_json};
use super::super::seal::{SealKeys, Sealed};
use super::super::{Claimed, Error, Result, RunKey, Taken};
use super::db::{Db, Txn, Verb};
use super::error::explain;
use super::load::{Lock, load, uuids};
use super::save::{column, save};
use super::session::{TakenOver, is_current};
use crate::domain::machine::is_ending;
use crate::domain::{
    BootId, Code, Failure, Hold, JobId, JobSecrets, RunId, SessionId, TaskClass, TaskId, Timestamp,
};

/// Fills granted slots with ready tasks. A session that is over claims nothing; its renewal says so.
pub(super) struct Claim {
    pub(super) session: SessionId,
    pub(super) slots: Vec<Slot>,
    pub(super) now: Timestamp,
}

/// What a claim got.
#[derive(Default)]
pub(super) struct Got {
    pub(super) claimed: Vec<Claimed>,
    /// Runs whose secrets cannot be opened: to be failed at once.
    pub(super) sealed: Vec<RunKey>,
    /// Jobs that cannot be read.
    pub(super) unreadable: Vec<JobId>,
    pub(super) deltas: Vec<Delta>,
}

impl Verb for Claim {
    type Answer = Got;

    async fn run(&self, txn: &mut Txn, db: &Db) -> Result<Got> {
        let mut got = Got::default();
        if self.slots.is_empty() || !is_current(txn, self.session).await? {
            return Ok(got);
        }
        let known = known_runs(txn, &self.slots).await?;
        let (said, new): (Vec<_>, Vec<_>) =
            self.slots.iter().cloned().partition(|slot| known.contains_key(&slot.hold.run));
        if !said.is_empty() {
            got.claimed = again(txn, db, &known, said).await?;
        }
        let picked = pick(txn, db, by_kind(new)).await?;
        let jobs: Vec<_> = picked.iter().map(|(_, _, job)| *job).collect();
        if jobs.is_empty() {
            return Ok(got);
        }
        let mut found = load(txn, &jobs, Lock::None).await?;
        let mut secrets = secrets(txn, &jobs).await?;
        for (hold, task, job) in picked {
            match found.take(job) {
                Some(Ok(loaded)) => {
                    let opened = open(&db.shared.keys, job, secrets.remove(&job));
                    self.take(loaded, task, &hold, opened, db, &mut got)?;
                }
                Some(Err(error)) => {
                    tell_unreadable(job, &error);
                    got.unreadable.push(job);
                }
                // Deleted in this moment, or a task of a job that another slot has just got.
                None => {}
            }
        }
        save(txn, &db.shared, &got.deltas).await?;
        Ok(got)
    }
}

impl Claim {
    fn take(
        &self,
        loaded: Loaded,
        task: TaskId,
        hold: &Hold,
        opened: Option<JobSecrets>,
        db: &Db,
        got: &mut Got,
    ) -> Result<()> {
        let job = loaded.aggregate.clone();
        let rules = Rules::new(&db.shared, self.now, None);
        let (epoch, delta) = transition(loaded, rules, |machine| machine.claim(task, hold.clone()))?;
        got.deltas.push(delta);
        if opened.is_none() && !is_ending(&job) {
            got.sealed.push(RunKey { job: job.job.id, task, run: hold.run, session: hold.session });
        } else {
            got.claimed.extend(claimed(&job, task, hold, epoch, opened.unwrap_or_default()));
        }
        Ok(())
    }
}

/// Why a run ends whose secrets cannot be opened.
pub(super) fn unusable() -> Failure {
    Failure::new(Code::Internal, "the job's sealed secrets cannot be opened")
}

fn tell_unreadable(job: JobId, error: &Error) {
    tracing::error!(job.id = %job, error = error as &dyn std::error::Error, "a job cannot be read and is set aside");
}

/// The runs among these that exist already: this claim was said before.
async fn known_runs(conn: &mut PgConnection, slots: &[Slot]) -> Result<HashMap<RunId, (TaskId, JobId)>> {
    let rows = sqlx::query("select id, task_id, job_id from runs where id = any($1)")
        .bind(column(slots, |slot| slot.hold.run.uuid()))
        .fetch_all(conn)
        .await
        .map_err(explain("looking runs up"))?;
    let known = |row| {
        let columns = Columns { table: "runs", row };
        let of = (TaskId::from_uuid(columns.id("task_id")?), JobId::from_uuid(columns.id("job_id")?));
        Ok((RunId::from_uuid(columns.id("id")?), of))
    };
    rows.iter().map(known).collect()
}

/// The answers to a claim that was said before, without those whose run is over or another session's.
async fn again(
    conn: &mut PgConnection,
    db: &Db,
    known: &HashMap<RunId, (TaskId, JobId)>,
    said: Vec<Slot>,
) -> Result<Vec<Claimed>> {
    let jobs: Vec<_> = known.values().map(|(_, job)| *job).collect();
    let mut found = load(conn, &jobs, Lock::None).await?;
    let mut sealed = secrets(conn, &jobs).await?;
    let mut answers = Vec::with_capacity(said.len());
    for Slot { hold, .. } in said {
        let Some((task, job)) = known.get(&hold.run) else { continue };
        let Some(Ok(Loaded { aggregate, .. })) = found.take(*job) else { continue };
        let record = aggregate.tasks.iter().find(|t| t.id == *task);
        let own = record
            .filter(|t| t.hold.as_ref().is_some_and(|h| (h.run, h.session) == (hold.run, hold.session)));
        let Some(epoch) = own.map(|t| t.epoch) else { continue };
        let opened = open(&db.shared.keys, *job, sealed.remove(job)).unwrap_or_default();
        answers.extend(claimed(&aggregate, *task, &hold, epoch, opened));
    }
    Ok(answers)
}

/// What the new holder of runs is told. Secrets that no key opens are no obstacle to hearing how a run ends.
pub(super) async fn taken(
    conn: &mut PgConnection,
    db: &Db,
    tasks: &[(TaskId, JobId)],
    addresses: &BTreeMap<BootId, String>,
) -> Result<TakenOver> {
    let jobs: Vec<_> = tasks.iter().map(|(_, job)| *job).collect();
    let mut found = load(conn, &jobs, Lock::None).await?;
    let mut sealed = secrets(conn, &jobs).await?;
    let begun = began(conn, tasks).await?;
    let mut taken = TakenOver::default();
    for (task, job) in tasks {
        let aggregate = match found.take(*job) {
            Some(Ok(loaded)) => loaded.aggregate,
            Some(Err(error)) => {
                tell_unreadable(*job, &error);
                taken.unreadable.push(*job);
                continue;
            }
            None => continue,
        };
        let Some(record) = aggregate.tasks.iter().find(|t| t.id == *task) else { continue };
        let Some(hold) = &record.hold else { continue };
        let since = *begun.get(&hold.run).ok_or_else(|| inconsistent("runs", "a held task has no run"))?;
        let secrets = open(&db.shared.keys, *job, sealed.remove(job)).unwrap_or_default();
        let address = addresses.get(&hold.boot).cloned();
        let claimed = claimed(&aggregate, *task, hold, record.epoch, secrets);
        taken.tasks.extend(claimed.map(|claimed| Taken { claimed, address, since }));
    }
    Ok(taken)
}

/// When the runs that hold these tasks were claimed.
async fn began(conn: &mut PgConnection, tasks: &[(TaskId, JobId)]) -> Result<HashMap<RunId, Timestamp>> {
    let rows = sqlx::query(
        "select r.id, r.started_at from tasks t join runs r on r.id = t.run_id where t.id = any($1)",
    )
    .bind(column(tasks, |(task, _)| task.uuid()))
    .fetch_all(conn)
    .await
    .map_err(explain("reading runs"))?;
    let begun = |row| {
        let columns = Columns { table: "runs", row };
        Ok((RunId::from_uuid(columns.id("id")?), columns.time("started_at")?))
    };
    rows.iter().map(begun).collect()
}

pub(super) async fn secrets(conn: &mut PgConnection, jobs: &[JobId]) -> Result<HashMap<JobId, Sealed>> {
    let rows = sqlx::query("select job_id, key_id, sealed from job_secrets where job_id = any($1)")
        .bind(uuids(jobs))
        .fetch_all(conn)
        .await
        .map_err(explain("reading secrets"))?;
    let sealed = |row| {
        let columns = Columns { table: "job_secrets", row };
        let sealed = Sealed { key_id: columns.text("key_id")?, bytes: columns.bytes("sealed")? };
        Ok((JobId::from_uuid(columns.id("job_id")?), sealed))
    };
    rows.iter().map(sealed).collect()
}

/// `None` when there are secrets that no key opens.
pub(super) fn open(keys: &SealKeys, job: JobId, sealed: Option<Sealed>) -> Option<JobSecrets> {
    let Some(sealed) = sealed else { return Some(JobSecrets::default()) };
    let text = keys.open(job.uuid().as_bytes(), &sealed)?;
    serde_json::from_slice(&text).ok()
}

/// The next tasks in order of service, locked, each with the slot it is for.
async fn pick(
    conn: &mut PgConnection,
    db: &Db,
    kinds: BTreeMap<Kind, Vec<Hold>>,
) -> Result<Vec<(Hold, TaskId, JobId)>> {
    let ready = if kinds.is_empty() { Vec::new() } else { ready_classes(conn).await? };
    let mut picked: Vec<(Hold, TaskId, JobId)> = Vec::new();
    for (kind, holds) in kinds {
        let mut holds = holds.into_iter();
        for classes in kind.choices(&ready) {
            if holds.len() > 0 && !classes.is_empty() {
                let own = column(&picked, |(_, task, _)| task.uuid());
                let tasks = pick_from(conn, db, &classes, holds.len(), own).await?;
                picked.extend(holds.by_ref().zip(tasks).map(|(hold, (task, job))| (hold, task, job)));
            }
        }
    }
    Ok(picked)
}

/// Tenants in turn, each with its share of the slots; what one does not use goes to those that have more.
async fn pick_from(
    conn: &mut PgConnection,
    db: &Db,
    classes: &[TaskClass],
    slots: usize,
    mut own: Vec<Uuid>,
) -> Result<Vec<(TaskId, JobId)>> {
    let last = db.shared.last_tenant.lock().ok().and_then(|last| last.clone());
    let mut tenants: VecDeque<String> = in_turn(active_tenants(conn, classes).await?, last.as_ref()).into();
    let mut picked = Vec::with_capacity(slots);
    while picked.len() < slots && !tenants.is_empty() {
        let left = slots - picked.len();
        let round: Vec<String> = tenants.drain(..left.min(tenants.len())).collect();
        let share = left.div_ceil(round.len());
        let lines = lines(conn, classes, &round, share, &own).await?;
        let more: Vec<_> =
            lines.iter().filter(|(_, line)| line.len() >= share).map(|(tenant, _)| tenant.clone()).collect();
        let (dealt, served) = deal(lines, left);
        own.extend(dealt.iter().map(|(task, _)| task.uuid()));
        picked.extend(dealt);
        tenants.extend(more);
        if let (Some(served), Ok(mut last)) = (served, db.shared.last_tenant.lock()) {
            *last = Some(served);
        }
    }
    Ok(picked)
}

/// Classes with ready tasks, by probes of the index that begins with them.
pub(super) const READY_CLASSES: &str = "with recursive c(class) as (\
     select min(class) from tasks where state = 2 \
     union all \
     select (select min(class) from tasks where state = 2 and class > c.class) from c where c.class is not null)";

async fn ready_classes(conn: &mut PgConnection) -> Result<Vec<TaskClass>> {
    let sql = format!("{READY_CLASSES} select class from c where class is not null");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .fetch_all(conn)
        .await
        .map_err(explain("finding ready classes"))?;
    let class = |row| Columns { table: "tasks", row }.state("class", TaskClass::from_number);
    rows.iter().map(class).collect()
}

/// Tenants with ready tasks of these classes, in order: one index probe each, however long their lines are.
async fn active_tenants(conn: &mut PgConnection, classes: &[TaskClass]) -> Result<Vec<String>> {
    sqlx::query_scalar(
        "with recursive t(class, tenant) as (\
           select class, (select min(tenant) from tasks where state = 2 and tasks.class = c.class) \
           from unnest($1::integer[]) c(class) \
           union all \
           select class, (select min(tenant) from tasks where state = 2 and tasks.class = t.class and tasks.tenant > t.tenant) \
           from t where t.tenant is not null) \
         select distinct tenant collate \"C\" from t where tenant is not null order by 1",
    )
    .bind(numbers(classes))
    .fetch_all(conn)
    .await
    .map_err(explain("finding active tenants"))
}

/// The heads of the tenants' lines, locked: those of their classes, merged by rank.
async fn lines(
    conn: &mut PgConnection,
    classes: &[TaskClass],
    tenants: &[String],
    share: usize,
    own: &[Uuid],
) -> Result<Vec<(String, VecDeque<Waiting>)>> {
    let rows = sqlx::query(
        "select q.tenant, t.rank, t.id, t.job_id from unnest($1::text[]) q(tenant) \
         cross join unnest($2::integer[]) c(class) cross join lateral \
         (select rank, id, job_id from tasks where state = 2 and class = c.class and tenant = q.tenant \
          and id <> all($4) order by rank, id limit $3 for update skip locked) t",
    )
    .bind(tenants)
    .bind(numbers(classes))
    .bind(i64::try_from(share).unwrap_or(i64::MAX))
    .bind(own)
    .fetch_all(conn)
    .await
    .map_err(explain("finding ready tasks"))?;
    let mut lines: HashMap<String, Vec<Waiting>> = HashMap::new();
    for row in &rows {
        let columns = Columns { table: "tasks", row };
        let task = TaskId::from_uuid(columns.id("id")?);
        let waiting = (columns.int("rank")?, task, JobId::from_uuid(columns.id("job_id")?));
        lines.entry(columns.text("tenant")?).or_default().push(waiting);
    }
    let line = |tenant: &String| {
        let mut line = lines.remove(tenant).unwrap_or_default();
        line.sort_unstable();
        line.truncate(share);
        (tenant.clone(), line.into())
    };
    Ok(tenants.iter().map(line).collect())
}

fn numbers(classes: &[TaskClass]) -> Vec<i32> {
    classes.iter().filter_map(|class| i32::try_from(class.number()).ok()).collect()
}

/// Fails a job whose rows cannot be read, so that it does not stand at the head of its tenant's line for ever. Its
/// broken rows stay for whoever looks into it.
pub(super) struct SetAside {
    pub(super) job: JobId,
    pub(super) now: Timestamp,
}

impl Verb for SetAside {
    type Answer = ();

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<()> {
        let failure = Failure::new(Code::Internal, "the record of this job cannot be read");
        sqlx::query(
            "update jobs set status = 3, finished_at = $2, failure = $3 where id = $1 and status < 2",
        )
        .bind(self.job.uuid())
        .bind(self.now.micros())
        .bind(to_json("jobs", &failure)?)
        .execute(&mut **txn)
        .await
        .map_err(explain("setting a job aside"))?;
        sqlx::query("delete from tasks where job_id = $1")
            .bind(self.job.uuid())
            .execute(&mut **txn)
            .await
            .map_err(explain("setting a job aside"))?;
        Ok(())
    }
}

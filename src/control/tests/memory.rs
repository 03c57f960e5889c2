//! A store without a disk: the real state machine over a map, so that time can be paused and faults placed exactly.

mod hasty;
mod index;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::broadcast;

use self::index::Index;
use super::worker::Rule;
use crate::domain::machine::{BACKOFF_CAP, Context, Machine, Policy, SecretsState, accepted};
use crate::domain::testing::SeededIds;
use crate::domain::{
    Aggregate, Attempt, BootId, Event, Failure, Folder, Hold, IdSource, JobId, JobStatus, MediaInfo,
    OutputIndex, OutputStatus, Progress, Publication, PublicationId, PublicationState, RunId, SessionId,
    TaskClass, TaskId, TaskRecord, TaskState, Tenant, Timestamp, UploadId, Waste,
};
use crate::store::{
    Cancelled, Claimed, Deleted, Doomed, Duty, Error, Fenced, Garbage, Grant, JobFilter, JobPage, JobStore,
    NewJob, OutputDone, Permit, Pulse, QueueStats, Reported, RequeueReason, Result, Retried, RunKey,
    StoredJob, Submitted, Taken, UploadRecord, WorkerSeen,
};

pub(super) struct Memory {
    inner: Mutex<Inner>,
    changes: broadcast::Sender<JobId>,
    ids: SeededIds,
}

#[derive(Default)]
struct Inner {
    jobs: BTreeMap<JobId, Stored>,
    index: Index,
    /// Every run that ever was claimed.
    claimed: HashSet<RunId>,
    session: Option<SessionId>,
    sessions: u32,
    faults: Vec<Option<Fault>>,
    /// The verbs said, in order, by name.
    said: Vec<&'static str>,
    progress: Vec<(JobId, Progress)>,
    garbage: Vec<Garbage>,
    /// The rule about cancels that is not kept.
    hasty: Option<Rule>,
    seen: BTreeMap<BootId, WorkerSeen>,
}

struct Stored {
    job: Aggregate,
    attempts: Vec<Attempt>,
    events: Vec<Event>,
    deleted: bool,
}

/// What the next verb of a run meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing is done, and the caller is told so.
    Refused,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// The disk is full.
    NoSpace,
    /// The record contradicts itself.
    Contradiction,
}

impl Memory {
    pub(super) fn new(seed: u64) -> Self {
        Self { inner: Mutex::default(), changes: broadcast::channel(64).0, ids: SeededIds::new(seed) }
    }

    /// The next verbs of runs (and claims) meet these, in order.
    pub(super) fn inject(&self, faults: &[Option<Fault>]) {
        self.inner().faults.extend(faults.iter().rev());
    }

    /// From now on this rule about cancels is not kept.
    pub(super) fn leave_out(&self, rule: Rule) {
        self.inner().hasty = Some(rule);
    }

    /// The session is over, as if it had not been renewed in time.
    pub(super) fn end_session(&self) {
        self.inner().session = None;
    }

    pub(super) fn sessions(&self) -> u32 {
        self.inner().sessions
    }

    pub(super) fn said(&self, verb: &str) -> usize {
        self.inner().said.iter().filter(|said| **said == verb).count()
    }

    pub(super) fn progress_written(&self) -> Vec<(JobId, Progress)> {
        self.inner().progress.clone()
    }

    pub(super) fn litter(&self, what: Waste) {
        let id = self.ids.random();
        self.inner().garbage.push(Garbage { id, what });
    }

    pub(super) fn job(&self, job: JobId) -> StoredJob {
        let inner = self.inner();
        let stored = &inner.jobs[&job];
        StoredJob { aggregate: stored.job.clone(), attempts: stored.attempts.clone(), queue_position: None }
    }

    pub(super) fn events_of(&self, job: JobId) -> Vec<Event> {
        self.inner().jobs[&job].events.clone()
    }

    pub(super) fn all(&self) -> Vec<JobId> {
        self.inner().jobs.keys().copied().collect()
    }

    /// Tasks that wait or are held.
    pub(super) fn open_tasks(&self) -> usize {
        let index = &self.inner().index;
        index.ready(|_| true) + index.delayed() + index.running()
    }

    pub(super) fn is_deleted(&self, job: JobId) -> bool {
        self.inner().jobs[&job].deleted
    }

    pub(super) fn status(&self, job: JobId) -> JobStatus {
        self.inner().jobs[&job].job.job.status
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a transition to one job and stores its effects.
    fn apply<T>(
        &self,
        job: JobId,
        run: Option<&RunKey>,
        now: Timestamp,
        verb: impl FnOnce(&mut Machine) -> T,
    ) -> Option<T> {
        let mut guard = self.inner();
        let inner = &mut *guard;
        let random = u64::from_be_bytes(self.ids.random().as_bytes()[8..].try_into().unwrap());
        let stored = inner.jobs.get_mut(&job).filter(|stored| !stored.deleted)?;
        let past =
            run.and_then(|key| stored.attempts.iter().find(|a| a.run == key.run)).and_then(|a| a.outcome);
        let context = Context {
            policy: Policy::default(),
            now,
            random,
            past,
            oldest_permit: None,
            secrets: SecretsState::Usable,
        };
        let mut machine = Machine::new(stored.job.clone(), context);
        let answer = verb(&mut machine);
        let (after, effects) = machine.into_parts();
        inner.index.remove(&stored.job);
        stored.job = after;
        stored.attempts.extend(effects.begun);
        for end in effects.ended {
            for attempt in stored.attempts.iter_mut().filter(|a| a.run == end.run) {
                attempt.ended_at = Some(now);
                attempt.outcome = Some(end.outcome);
                attempt.code = end.failure.as_ref().map(|failure| failure.code);
                attempt.log = end.failure.as_ref().map(|failure| failure.log.join("\n"));
            }
        }
        stored.events.extend(effects.events);
        stored.deleted = effects.deleted;
        if !stored.deleted {
            inner.index.add(&stored.job);
        }
        drop(guard);
        let _ = self.changes.send(job);
        Some(answer)
    }

    /// A fenced verb, with the next fault before or after it.
    fn fenced<T>(
        &self,
        name: &'static str,
        key: RunKey,
        now: Timestamp,
        verb: impl FnOnce(&mut Machine) -> std::result::Result<Fenced<T>, crate::domain::machine::Illegal>,
    ) -> Result<Fenced<T>> {
        let fault = self.say(name)?;
        if self.inner().session != Some(key.session) {
            return Ok(Fenced::Lost);
        }
        let answer = self.apply(key.job, Some(&key), now, verb).unwrap_or(Ok(Fenced::Lost));
        if fault == Some(Fault::AnswerLost) {
            return Err(unavailable());
        }
        answer.map_err(|illegal| Error::Inconsistent { table: "jobs", what: illegal.to_string() })
    }

    fn say(&self, name: &'static str) -> Result<Option<Fault>> {
        let mut inner = self.inner();
        inner.said.push(name);
        match inner.faults.pop().flatten() {
            Some(Fault::Refused) => Err(unavailable()),
            Some(Fault::NoSpace) => Err(Error::NoSpace { doing: "testing", source: "disk full".into() }),
            Some(Fault::Contradiction) => {
                Err(Error::Inconsistent { table: "tasks", what: "injected".into() })
            }
            fault @ (Some(Fault::AnswerLost) | None) => Ok(fault),
        }
    }
}

fn unavailable() -> Error {
    Error::Unavailable { doing: "testing", source: "injected".into() }
}

impl Stored {
    fn new(new: &NewJob) -> Self {
        let job = new.accepted();
        Self { job, attempts: Vec::new(), events: vec![accepted(new.now)], deleted: false }
    }

    fn claimed(&self, run: RunId) -> Option<Claimed> {
        let task = self.job.tasks.iter().find(|t| t.hold.as_ref().is_some_and(|h| h.run == run))?;
        let hold = task.hold.clone()?;
        let open = |p: &&Publication| p.state == PublicationState::Open;
        Some(Claimed {
            key: RunKey { job: self.job.job.id, task: task.id, run, session: hold.session },
            worker: hold.worker,
            boot: hold.boot,
            epoch: task.epoch,
            kind: task.kind,
            tenant: self.job.job.tenant.clone(),
            spec: self.job.job.spec.clone(),
            secrets: crate::domain::JobSecrets::default(),
            completed: (self.job.outputs.iter().filter(|o| o.status == OutputStatus::Completed))
                .map(|o| o.index)
                .collect(),
            open: self.job.publications.iter().filter(open).cloned().collect(),
            resolve_only: crate::domain::machine::is_ending(&self.job),
            earlier_failures: task.charged,
            class: task.class,
        })
    }
}

#[async_trait]
impl JobStore for Memory {
    async fn submit(&self, job: NewJob) -> Result<Submitted> {
        let (id, stored) = (job.id, Stored::new(&job));
        let mut inner = self.inner();
        inner.index.add(&stored.job);
        inner.jobs.insert(id, stored);
        drop(inner);
        let _ = self.changes.send(id);
        Ok(Submitted::Created)
    }

    async fn open_session(&self, _: &str, now: Timestamp) -> Result<SessionId> {
        let session = SessionId::from_uuid(self.ids.random());
        let (mut jobs, elsewhere): (Vec<_>, HashSet<_>) = {
            let inner = self.inner();
            (inner.index.held().map(|(_, job, _)| job).collect(), inner.seen.keys().copied().collect())
        };
        jobs.sort_unstable();
        jobs.dedup();
        for job in jobs {
            self.apply(job, None, now, |machine| machine.recover(|hold| !elsewhere.contains(&hold.boot)));
        }
        let mut inner = self.inner();
        inner.session = Some(session);
        inner.sessions += 1;
        Ok(session)
    }

    async fn renew_session(&self, session: SessionId, _: Timestamp) -> Result<Fenced<()>> {
        Ok(if self.inner().session == Some(session) { Fenced::Done(()) } else { Fenced::Lost })
    }

    fn sole(&self) -> bool {
        true
    }

    async fn close_session(&self, session: SessionId) -> Result<()> {
        let mut inner = self.inner();
        inner.session = inner.session.filter(|current| *current != session);
        Ok(())
    }

    async fn takeover(&self, session: SessionId, most: u32, now: Timestamp) -> Result<Vec<Taken>> {
        let fault = self.say("takeover")?;
        if self.inner().session != Some(session) {
            return Ok(Vec::new());
        }
        let old: Vec<_> = {
            let inner = self.inner();
            let holds = inner.index.held().filter_map(|(run, job, task)| {
                let tasks = &inner.jobs[&job].job.tasks;
                let hold = tasks.iter().find(|known| known.id == task)?.hold.clone()?;
                (hold.session != session).then_some((job, task, run, hold.boot))
            });
            holds.take(most as usize).collect()
        };
        let mut taken = Vec::new();
        for (job, task, run, boot) in old {
            self.apply(job, None, now, |machine| machine.take_over(task, run, session));
            let inner = self.inner();
            let stored = &inner.jobs[&job];
            let begun = stored.attempts.iter().find(|a| a.run == run).map(|a| a.started_at);
            let address = inner.seen.get(&boot).map(|seen| seen.address.clone());
            let claimed = stored.claimed(run);
            taken.extend(claimed.zip(begun).map(|(claimed, since)| Taken { claimed, address, since }));
        }
        if fault == Some(Fault::AnswerLost) { Err(unavailable()) } else { Ok(taken) }
    }

    async fn holds(&self, _: SessionId, _: Duty, _: Timestamp) -> Result<bool> {
        Ok(true)
    }

    async fn see_workers(&self, _: SessionId, seen: &[WorkerSeen]) -> Result<()> {
        let mut inner = self.inner();
        inner.seen.extend(seen.iter().map(|seen| (seen.boot, seen.clone())));
        Ok(())
    }

    async fn workers_seen(&self, since: Timestamp) -> Result<Vec<WorkerSeen>> {
        Ok(self.inner().seen.values().filter(|seen| seen.seen_at >= since).cloned().collect())
    }

    fn offer(&self, _: u64) {}

    async fn claim(&self, session: SessionId, grants: &[Grant], now: Timestamp) -> Result<Vec<Claimed>> {
        let fault = self.say("claim")?;
        if self.inner().session != Some(session) {
            return Ok(Vec::new());
        }
        let mut claims = Vec::new();
        for (grant, run) in grants.iter().flat_map(|grant| grant.runs.iter().map(move |run| (grant, *run))) {
            let next = {
                let mut inner = self.inner();
                if inner.claimed.contains(&run) {
                    // Said before: answered as it is, unless it is over or another session's.
                    let held = inner.index.holder(run).and_then(|job| inner.jobs[&job].claimed(run));
                    claims.extend(held.filter(|held| held.key.session == session));
                    continue;
                }
                let next = inner.index.next(grant.can, grant.company);
                inner.claimed.extend(next.map(|_| run));
                next
            };
            let Some((job, task)) = next else { continue };
            let hold = Hold { run, session, worker: grant.worker.clone(), boot: grant.boot };
            self.apply(job, None, now, |machine| machine.claim(task, hold).unwrap());
            claims.extend(self.inner().jobs[&job].claimed(run));
        }
        if fault == Some(Fault::AnswerLost) { Err(unavailable()) } else { Ok(claims) }
    }

    async fn wake_delayed(&self, now: Timestamp) -> Result<(u64, Option<Timestamp>)> {
        let mut guard = self.inner();
        let inner = &mut *guard;
        inner.said.push("wake_delayed");
        let mut woken = 0;
        while let Some(job) = inner.index.due_by(now) {
            let Some(stored) = inner.jobs.get_mut(&job) else { break };
            inner.index.remove(&stored.job);
            let far = now.plus(BACKOFF_CAP);
            let due = |task: &&mut TaskRecord| task.not_before.is_some_and(|due| due <= now || due > far);
            for task in stored.job.tasks.iter_mut().filter(due) {
                task.state = TaskState::Ready;
                task.not_before = None;
                woken += 1;
            }
            inner.index.add(&stored.job);
        }
        Ok((woken, inner.index.due().map(|(due, _)| due)))
    }

    async fn started(&self, key: RunKey, now: Timestamp) -> Result<Fenced<()>> {
        self.fenced("started", key, now, |m| Ok(m.started(&key)))
    }
    async fn media(&self, key: RunKey, media: &MediaInfo, now: Timestamp) -> Result<Fenced<()>> {
        self.fenced("media", key, now, |m| Ok(m.media(&key, media)))
    }
    async fn output_status(
        &self,
        key: RunKey,
        output: OutputIndex,
        status: OutputStatus,
        now: Timestamp,
    ) -> Result<Fenced<()>> {
        self.fenced("output_status", key, now, |m| m.output_status(&key, output, status))
    }
    async fn progress(&self, reports: &[Reported]) -> Result<()> {
        let mut inner = self.inner();
        for reported in reports {
            inner.progress.push((reported.job, reported.report.progress));
            if let Some(stored) = inner.jobs.get_mut(&reported.job) {
                stored.job.job.progress = stored.job.job.progress.raise(reported.report.progress);
            }
        }
        Ok(())
    }
    async fn pulse(&self, jobs: &[JobId]) -> Result<Vec<Pulse>> {
        let inner = self.inner();
        let pulse = |job: &JobId| {
            let known = &inner.jobs.get(job).filter(|stored| !stored.deleted)?.job.job;
            let cancel_asked = known.cancel_at.is_some();
            Some(Pulse { job: *job, seq: known.seq, status: known.status, cancel_asked, report: None })
        };
        Ok(jobs.iter().filter_map(pulse).collect())
    }
    async fn permit(&self, key: RunKey, publication: Publication, now: Timestamp) -> Result<Fenced<Permit>> {
        self.fenced("permit", key, now, |m| m.permit(&key, &publication))
    }
    async fn publications_dead(
        &self,
        key: RunKey,
        dead: &[PublicationId],
        now: Timestamp,
    ) -> Result<Fenced<()>> {
        self.fenced("publications_dead", key, now, |m| m.publications_dead(&key, dead))
    }
    async fn output_done(&self, key: RunKey, done: OutputDone, now: Timestamp) -> Result<Fenced<()>> {
        self.fenced("output_done", key, now, |m| m.output_done(&key, &done))
    }
    async fn complete(&self, key: RunKey, now: Timestamp) -> Result<Fenced<()>> {
        self.fenced("complete", key, now, |m| Ok(m.complete(&key)))
    }
    async fn fail(
        &self,
        key: RunKey,
        failure: Failure,
        outputs: Vec<(OutputIndex, Failure)>,
        now: Timestamp,
    ) -> Result<Fenced<()>> {
        self.fenced("fail", key, now, |m| Ok(m.fail(&key, &failure, &outputs)))
    }
    async fn requeue(&self, key: RunKey, reason: RequeueReason, now: Timestamp) -> Result<Fenced<()>> {
        self.fenced("requeue", key, now, |m| Ok(m.requeue(&key, reason)))
    }

    async fn cancel(&self, _: Option<&Tenant>, job: JobId, now: Timestamp) -> Result<Cancelled> {
        let cancelled = self.apply(job, None, now, Machine::cancel).unwrap_or(Cancelled::NotFound);
        Ok(if cancelled == Cancelled::Requested { self.hasty(job, now) } else { cancelled })
    }
    async fn retry(&self, _: Option<&Tenant>, job: JobId, task: TaskId, now: Timestamp) -> Result<Retried> {
        Ok(self.apply(job, None, now, |m| m.retry(task)).unwrap_or(Retried::NotFound))
    }
    async fn delete(&self, _: Option<&Tenant>, job: JobId, now: Timestamp) -> Result<Deleted> {
        Ok(self.apply(job, None, now, Machine::delete).unwrap_or(Deleted::NotFound))
    }

    async fn get(&self, _: Option<&Tenant>, job: JobId) -> Result<Option<StoredJob>> {
        let known = self.inner().jobs.get(&job).is_some_and(|stored| !stored.deleted);
        Ok(known.then(|| self.job(job)))
    }
    async fn list(&self, _: &JobFilter) -> Result<JobPage> {
        Ok(JobPage { jobs: Vec::new(), more: false })
    }
    async fn events(&self, job: JobId, after: i64) -> Result<Vec<Event>> {
        let inner = self.inner();
        Ok(inner
            .jobs
            .get(&job)
            .map_or_else(Vec::new, |s| s.events.iter().filter(|e| e.seq > after).cloned().collect()))
    }
    async fn waiting(&self, tenant: &Tenant, most: u64) -> Result<u64> {
        let inner = self.inner();
        let own = inner.jobs.values().filter(|s| !s.deleted && s.job.job.tenant == *tenant);
        let ready = own.flat_map(|s| s.job.tasks.iter()).filter(|t| t.state == TaskState::Ready).count();
        Ok(u64::try_from(ready).unwrap().min(most))
    }
    async fn stats(&self) -> Result<QueueStats> {
        let inner = self.inner();
        let count = |tasks: usize| u64::try_from(tasks).unwrap();
        Ok(QueueStats {
            ready: count(inner.index.ready(|_| true)),
            solo: count(inner.index.ready(TaskClass::is_solo)),
            delayed: count(inner.index.delayed()),
            running: count(inner.index.running()),
            oldest_ready: None,
        })
    }
    async fn ping(&self) -> Result<()> {
        Ok(())
    }
    async fn create_upload(&self, _: &UploadRecord) -> Result<()> {
        Ok(())
    }
    async fn upload_done(&self, _: UploadId, _: &str) -> Result<()> {
        Ok(())
    }
    async fn abandon_upload(&self, _: UploadId, _: Timestamp) -> Result<bool> {
        Ok(false)
    }
    async fn upload(&self, _: Option<&Tenant>, _: UploadId) -> Result<Option<UploadRecord>> {
        Ok(None)
    }
    async fn expire(&self, before: Timestamp, _: Timestamp) -> Result<u64> {
        let mut inner = self.inner();
        let count = inner.jobs.len();
        inner.jobs.retain(|_, stored| stored.job.job.finished_at.is_none_or(|at| at >= before));
        Ok(u64::try_from(count - inner.jobs.len()).unwrap())
    }
    async fn doomed(&self, _: Timestamp, _: Timestamp, _: u32) -> Result<Doomed> {
        Ok(Doomed::default())
    }
    async fn wipe_secrets(&self, _: Timestamp) -> Result<u64> {
        self.inner().said.push("wipe_secrets");
        Ok(0)
    }
    async fn garbage(&self, _: Folder, _: Timestamp) -> Result<Vec<Garbage>> {
        Ok(self.inner().garbage.clone())
    }
    async fn swept(&self, ids: &[uuid::Uuid]) -> Result<()> {
        self.inner().garbage.retain(|garbage| !ids.contains(&garbage.id));
        Ok(())
    }
    fn changes(&self) -> broadcast::Receiver<JobId> {
        self.changes.subscribe()
    }
    fn fingerprint(&self, body: &[u8]) -> Vec<u8> {
        body.to_vec()
    }
}

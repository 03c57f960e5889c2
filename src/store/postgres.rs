//! The store in a PostgreSQL that several controls share: whoever has the row lock decides, and the database's clock says
//! which session is over.
//!
//! Transitions and submissions go in groups, one transaction with a few statements for whatever waits; claims and takeovers skip
//! what somebody else has locked. Every acknowledged write is as durable as the server's `synchronous_commit`.

mod claim;
mod db;
mod error;
mod hints;
mod load;
mod outbox;
mod place;
mod read;
mod save;
mod schema;
mod session;
mod submit;
mod sweep;
#[cfg(test)]
pub(super) mod tests;
mod verbs;
mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use ring::hmac;
use sqlx::Connection as _;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::db::Db;
use self::submit::Submissions;
use self::writer::Lanes;
use super::claims::slots;
use super::delta::Step;
use super::shared::{Given, Shared};
use super::sqlite::submit::Prepared;
use super::{
    Cancelled, Claimed, Deleted, Doomed, Duty, Error, Fenced, Garbage, Grant, JobFilter, JobPage, JobStore,
    Keys, NewJob, Options, OutputDone, Permit, Pulse, QueueStats, Reported, RequeueReason, Result, Retried,
    RunKey, StoredJob, Submitted, Taken, UploadRecord, WorkerSeen,
};
use crate::domain::machine::{Illegal, Machine};
use crate::domain::{
    Event, Failure, Folder, JobId, MediaInfo, OutputIndex, OutputStatus, Publication, PublicationId,
    SessionId, TaskId, Tenant, Timestamp, UploadId,
};

pub use place::{Place, PlaceError};

/// A store in a PostgreSQL.
pub struct PostgresStore {
    db: Arc<Db>,
    lanes: Lanes,
    submissions: Submissions,
    fingerprints: hmac::Key,
    work: TaskTracker,
    _listening: DropGuard,
}

impl PostgresStore {
    /// Opens the store, making its tables at the first start. [`Error::Unavailable`] says that nobody answers there
    /// yet; every other error is for somebody to repair.
    pub async fn open(place: &Place, options: Options) -> Result<Self> {
        let Options { keys, max_pending, max_attempts, ids, letters, results } = options;
        let Keys::Configured(keys) = keys else {
            let source = "what one control seals the others must open".into();
            return Err(Error::Open { what: "PostgreSQL needs secrets.keys".into(), source });
        };
        let mut conn = place.connect().await?;
        let secret = schema::prepare(&mut conn, ids.as_ref(), &keys).await?;
        // The connection has served; whether it ends well is of no interest.
        let _ = conn.close().await;
        let own = ids.random();
        let given = Given { ids, letters, results };
        let shared = Shared::new(keys, (max_pending, max_attempts), given, 0);
        let changes = shared.changes.clone();
        let (hints, news) = mpsc::channel(hints::QUEUE);
        let db = Arc::new(Db::new(db::pools(&place.options), shared, hints));
        let work = TaskTracker::new();
        let listening = CancellationToken::new();
        let listener = hints::listen(place.options.clone(), own, changes);
        work.spawn(listening.clone().run_until_cancelled_owned(listener));
        work.spawn(hints::tell(place.options.clone(), own, news));
        let lanes = Lanes::start(&db, &work);
        let submissions = Submissions::start(&db, &work);
        work.close();
        let fingerprints = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Ok(Self { db, lanes, submissions, fingerprints, work, _listening: listening.drop_guard() })
    }

    /// Resolves when the store was dropped and everything said to it is committed.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let work = self.work.clone();
        async move { work.wait().await }
    }

    /// A fenced verb: a job that is gone is a run that is lost.
    async fn fenced<T: Send + 'static>(
        &self,
        key: RunKey,
        now: Timestamp,
        apply: impl Fn(&mut Machine) -> std::result::Result<Fenced<T>, Illegal> + Send + Sync + 'static,
    ) -> Result<Fenced<T>> {
        let step = Step { job: key.job, tenant: None, run: Some(key.run), now, apply };
        Ok(self.lanes.say(step).await?.unwrap_or(Fenced::Lost))
    }

    /// A verb of people; `None` = no such job of this tenant.
    async fn asked<T: Send + 'static>(
        &self,
        tenant: Option<&Tenant>,
        job: JobId,
        now: Timestamp,
        apply: impl Fn(&mut Machine) -> T + Send + Sync + 'static,
    ) -> Result<Option<T>> {
        let step =
            Step { job, tenant: tenant.cloned(), run: None, now, apply: move |m: &mut Machine| Ok(apply(m)) };
        self.lanes.say(step).await
    }

    async fn set_aside(&self, unreadable: Vec<JobId>, now: Timestamp) -> Result<()> {
        for job in unreadable {
            self.db.say(&claim::SetAside { job, now }).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl JobStore for PostgresStore {
    async fn submit(&self, job: NewJob) -> Result<Submitted> {
        self.submissions.say(Prepared::new(&self.db.shared.keys, job)?).await
    }

    fn sole(&self) -> bool {
        false
    }

    /// The database's clock says how long it lasts.
    async fn open_session(&self, name: &str, _: Timestamp) -> Result<SessionId> {
        let id = SessionId::from_uuid(self.db.shared.ids.random());
        self.db.say(&session::OpenSession { id, name: name.to_owned() }).await
    }

    async fn renew_session(&self, session: SessionId, _: Timestamp) -> Result<Fenced<()>> {
        self.db.say(&session::RenewSession(session)).await
    }

    async fn close_session(&self, session: SessionId) -> Result<()> {
        self.db.say(&session::CloseSession(session)).await
    }

    async fn takeover(&self, session: SessionId, most: u32, now: Timestamp) -> Result<Vec<Taken>> {
        let taken = self.db.say(&session::Takeover { session, most }).await?;
        self.set_aside(taken.unreadable, now).await?;
        Ok(taken.tasks)
    }

    async fn holds(&self, session: SessionId, duty: Duty, _: Timestamp) -> Result<bool> {
        self.db.say(&session::Holds { session, duty }).await
    }

    async fn see_workers(&self, session: SessionId, seen: &[WorkerSeen]) -> Result<()> {
        self.db.say(&session::SeeWorkers { session, seen: seen.to_vec() }).await
    }

    async fn workers_seen(&self, since: Timestamp) -> Result<Vec<WorkerSeen>> {
        read::workers_seen(&self.db.readers, since).await
    }

    fn offer(&self, slots: u64) {
        self.db.shared.slots.store(slots, Ordering::Relaxed);
    }

    async fn claim(&self, session: SessionId, grants: &[Grant], now: Timestamp) -> Result<Vec<Claimed>> {
        let got = self.db.say(&claim::Claim { session, slots: slots(session, grants), now }).await?;
        self.db.tell(&got.deltas);
        self.set_aside(got.unreadable, now).await?;
        for key in got.sealed {
            self.fail(key, claim::unusable(), Vec::new(), now).await?;
        }
        Ok(got.claimed)
    }

    async fn wake_delayed(&self, now: Timestamp) -> Result<(u64, Option<Timestamp>)> {
        self.db.say(&verbs::WakeDelayed { now }).await
    }

    async fn started(&self, key: RunKey, now: Timestamp) -> Result<Fenced<()>> {
        self.fenced(key, now, move |m| Ok(m.started(&key))).await
    }

    async fn media(&self, key: RunKey, media: &MediaInfo, now: Timestamp) -> Result<Fenced<()>> {
        let media = media.clone();
        self.fenced(key, now, move |m| Ok(m.media(&key, &media))).await
    }

    async fn output_status(
        &self,
        key: RunKey,
        output: OutputIndex,
        status: OutputStatus,
        now: Timestamp,
    ) -> Result<Fenced<()>> {
        self.fenced(key, now, move |m| m.output_status(&key, output, status)).await
    }

    async fn progress(&self, reports: &[Reported]) -> Result<()> {
        self.db.say(&verbs::RaiseProgress { reports: reports.to_vec() }).await
    }

    async fn pulse(&self, jobs: &[JobId]) -> Result<Vec<Pulse>> {
        read::pulse(&self.db.readers, jobs).await
    }

    async fn permit(&self, key: RunKey, publication: Publication, now: Timestamp) -> Result<Fenced<Permit>> {
        self.fenced(key, now, move |m| m.permit(&key, &publication)).await
    }

    async fn publications_dead(
        &self,
        key: RunKey,
        dead: &[PublicationId],
        now: Timestamp,
    ) -> Result<Fenced<()>> {
        let dead = dead.to_vec();
        self.fenced(key, now, move |m| m.publications_dead(&key, &dead)).await
    }

    async fn output_done(&self, key: RunKey, done: OutputDone, now: Timestamp) -> Result<Fenced<()>> {
        self.fenced(key, now, move |m| m.output_done(&key, &done)).await
    }

    async fn complete(&self, key: RunKey, now: Timestamp) -> Result<Fenced<()>> {
        self.fenced(key, now, move |m| Ok(m.complete(&key))).await
    }

    async fn fail(
        &self,
        key: RunKey,
        failure: Failure,
        outputs: Vec<(OutputIndex, Failure)>,
        now: Timestamp,
    ) -> Result<Fenced<()>> {
        self.fenced(key, now, move |m| Ok(m.fail(&key, &failure, &outputs))).await
    }

    async fn requeue(&self, key: RunKey, reason: RequeueReason, now: Timestamp) -> Result<Fenced<()>> {
        self.fenced(key, now, move |m| Ok(m.requeue(&key, reason))).await
    }

    async fn cancel(&self, tenant: Option<&Tenant>, job: JobId, now: Timestamp) -> Result<Cancelled> {
        Ok(self.asked(tenant, job, now, Machine::cancel).await?.unwrap_or(Cancelled::NotFound))
    }

    async fn retry(
        &self,
        tenant: Option<&Tenant>,
        job: JobId,
        task: TaskId,
        now: Timestamp,
    ) -> Result<Retried> {
        Ok(self.asked(tenant, job, now, move |m| m.retry(task)).await?.unwrap_or(Retried::NotFound))
    }

    async fn delete(&self, tenant: Option<&Tenant>, job: JobId, now: Timestamp) -> Result<Deleted> {
        Ok(self.asked(tenant, job, now, Machine::delete).await?.unwrap_or(Deleted::NotFound))
    }

    async fn get(&self, tenant: Option<&Tenant>, job: JobId) -> Result<Option<StoredJob>> {
        read::get(&self.db.readers, tenant, job).await
    }

    async fn list(&self, filter: &JobFilter) -> Result<JobPage> {
        read::list(&self.db.readers, filter).await
    }

    async fn events(&self, job: JobId, after: i64) -> Result<Vec<Event>> {
        read::events(&self.db.readers, job, after).await
    }

    async fn waiting(&self, tenant: &Tenant, most: u64) -> Result<u64> {
        read::waiting(&self.db.readers, tenant, most).await
    }

    async fn stats(&self) -> Result<QueueStats> {
        read::stats(&self.db.readers).await
    }

    async fn ping(&self) -> Result<()> {
        read::ping(&self.db.readers).await
    }

    async fn create_upload(&self, upload: &UploadRecord) -> Result<()> {
        self.db.say(&verbs::CreateUpload(upload.clone())).await
    }

    async fn upload_done(&self, id: UploadId, etag: &str) -> Result<()> {
        self.db.say(&verbs::UploadDone { id, etag: etag.to_owned() }).await
    }

    async fn abandon_upload(&self, id: UploadId, now: Timestamp) -> Result<bool> {
        self.db.say(&verbs::AbandonUpload { id, now }).await
    }

    async fn upload(&self, tenant: Option<&Tenant>, id: UploadId) -> Result<Option<UploadRecord>> {
        read::upload(&self.db.readers, tenant, id).await
    }

    async fn expire(&self, before: Timestamp, now: Timestamp) -> Result<u64> {
        let mut removed = 0;
        loop {
            // One commit per batch: a long sweep must not hold running jobs up.
            let (batch, more) = self.db.say(&sweep::Expire { before, now }).await?;
            removed += batch;
            if !more {
                return Ok(removed);
            }
        }
    }

    async fn doomed(&self, before: Timestamp, now: Timestamp, most: u32) -> Result<Doomed> {
        sweep::look(&self.db.readers, before, now, most).await
    }

    async fn wipe_secrets(&self, now: Timestamp) -> Result<u64> {
        self.db.say(&sweep::WipeSecrets { now }).await
    }

    async fn garbage(&self, folder: Folder, now: Timestamp) -> Result<Vec<Garbage>> {
        read::garbage(&self.db.readers, folder, now).await
    }

    async fn swept(&self, ids: &[uuid::Uuid]) -> Result<()> {
        self.db.say(&sweep::Swept { ids: ids.to_vec() }).await
    }

    fn changes(&self) -> tokio::sync::broadcast::Receiver<JobId> {
        self.db.shared.changes.subscribe()
    }

    fn fingerprint(&self, body: &[u8]) -> Vec<u8> {
        hmac::sign(&self.fingerprints, body).as_ref().to_vec()
    }
}

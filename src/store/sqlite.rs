//! The store in one `SQLite` file: one writer that commits all that waits as one group, readers beside it.
//!
//! Owns the data folder's lock, which is the session (PROTOCOL §1.25): no lease runs out, and a restart waits for none.
//! Every acknowledged write is on disk (`synchronous=FULL`); a read sees one commit, never half of one.

mod bulk;
mod claim;
mod error;
mod folder;
mod load;
mod outbox;
mod read;
mod save;
mod schema;
mod session;
pub(super) mod submit;
mod sweep;
#[cfg(test)]
mod tests;
mod verbs;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use ring::hmac;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlitePool};
use tokio_util::task::TaskTracker;

use self::error::explain;
use self::submit::Prepared;
use self::writer::{Lane, Lanes};
use super::delta::Step;
use super::seal::SealKeys;
use super::shared::{Given, Shared};
use super::{
    Cancelled, Claimed, Deleted, Doomed, Duty, Error, Fenced, Garbage, Grant, JobFilter, JobPage, JobStore,
    Keys, NewJob, Options, OutputDone, Permit, Pulse, QueueStats, Reported, RequeueReason, Result, Retried,
    RunKey, StoredJob, Submitted, Taken, UploadRecord, WorkerSeen,
};
use crate::domain::machine::{Illegal, Machine};
use crate::domain::{
    Event, Failure, Folder, IdSource as _, JobId, MediaInfo, OutputIndex, OutputStatus, Publication,
    PublicationId, SessionId, SystemIds, TaskId, Tenant, Timestamp, UploadId,
};

const DATABASE: &str = "flux.db";
/// Connections for reads; a WAL reader costs a file handle and some cache.
const READERS: u32 = 4;
/// Cache of the writer (negative: KiB), taken as it fills. Idempotency keys are random, so each touches a page of its
/// own; the default of 2 MiB holds the index of some 30,000 jobs, after which each new job costs reads.
const WRITER_CACHE: &str = "-16384";
/// Prepared statements of a connection: every size of a group of submissions and of transitions, and everything else.
const STATEMENTS: usize = (submit::INSERTS + 1) * submit::ROWS
    + (load::STATEMENTS.len() + save::STATEMENTS.len() + claim::STATEMENTS) * bulk::SIZES
    + 128;
/// Rows that the database's thread may be ahead of their reader: those of a statement, so that neither waits.
const ROW_BUFFER: usize = 512;
/// How long `SQLite` waits for a lock before it says it is busy.
const BUSY: Duration = Duration::from_secs(5);
/// Pages of the log that are folded into the file at once, 64 MiB. A flood of jobs writes the same pages of the random
/// index again and again; the longer the log, the more of them are folded once.
const WAL_PAGES: &str = "16000";

/// A store in one `SQLite` file, or in memory.
pub struct SqliteStore {
    lanes: Lanes,
    readers: SqlitePool,
    shared: Arc<Shared>,
    fingerprints: hmac::Key,
    writer: TaskTracker,
}

impl SqliteStore {
    /// Opens the store in `folder`, making it at the first start. The folder stays locked until the store is
    /// dropped and [`Self::closed`].
    pub async fn open(folder: &Path, options: Options) -> Result<Self> {
        let lock = folder::lock(folder)?;
        let keys = match options.keys {
            Keys::DataFolder => SealKeys::of_folder(folder)?,
            Keys::Configured(keys) => keys,
        };
        let connect = SqliteConnectOptions::new()
            .filename(folder.join(DATABASE))
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", WAL_PAGES);
        let bounds = (options.max_pending, options.max_attempts);
        let given = Given { ids: options.ids, letters: options.letters, results: options.results };
        Self::start(connect, keys, bounds, given, Some(lock)).await
    }

    /// Opens a store in memory, gone with this value: what `flux encode` needs.
    pub async fn ephemeral(options: Options) -> Result<Self> {
        let keys = match options.keys {
            Keys::DataFolder => SealKeys::of_this_process()?,
            Keys::Configured(keys) => keys,
        };
        // The memdb VFS shares a database between connections of one process by an absolute name.
        let name = format!("/flux-{}", SystemIds.random());
        let connect =
            SqliteConnectOptions::new().filename(name).vfs("memdb").synchronous(SqliteSynchronous::Off);
        let bounds = (options.max_pending, options.max_attempts);
        let given = Given { ids: options.ids, letters: options.letters, results: options.results };
        Self::start(connect, keys, bounds, given, None).await
    }

    async fn start(
        connect: SqliteConnectOptions,
        keys: SealKeys,
        bounds: (Option<u64>, u32),
        given: Given,
        lock: Option<folder::FolderLock>,
    ) -> Result<Self> {
        let connect =
            connect.busy_timeout(BUSY).disable_statement_logging().statement_cache_capacity(STATEMENTS);
        let connect = connect.row_buffer_size(ROW_BUFFER);
        let mut conn = connect
            .clone()
            .create_if_missing(true)
            .pragma("cache_size", WRITER_CACHE)
            .connect()
            .await
            .map_err(|e| Error::Open { what: "connecting to the database".into(), source: e.into() })?;
        schema::migrate(&mut conn, given.ids.as_ref()).await?;
        let secret = schema::check_keys(&mut conn, &keys).await?;
        let waiting: i64 = sqlx::query_scalar("select count(*) from tasks where state in (1, 2)")
            .fetch_one(&mut conn)
            .await
            .map_err(explain("counting the queue"))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(connect.read_only(true))
            .await
            .map_err(explain("opening readers"))?;
        let shared = Arc::new(Shared::new(keys, bounds, given, waiting));
        let (lanes, inbox) = writer::lanes();
        let writer = TaskTracker::new();
        let (served, pool) = (Arc::clone(&shared), readers.clone());
        writer.spawn(async move {
            conn = writer::serve(conn, inbox, served).await;
            pool.close().await;
            // The last connection folds the log into the file; should that fail, the next start does it.
            let _ = conn.close().await;
            drop(lock);
        });
        writer.close();
        Ok(Self { lanes, readers, shared, fingerprints: hmac::Key::new(hmac::HMAC_SHA256, &secret), writer })
    }

    /// Resolves when the store was dropped, everything said to it is committed and the folder is free again.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let writer = self.writer.clone();
        async move { writer.wait().await }
    }

    /// A fenced verb: a job that is gone is a run that is lost.
    async fn fenced<T: Send + 'static>(
        &self,
        key: RunKey,
        now: Timestamp,
        apply: impl Fn(&mut Machine) -> std::result::Result<Fenced<T>, Illegal> + Send + Sync + 'static,
    ) -> Result<Fenced<T>> {
        let step = Step { job: key.job, tenant: None, run: Some(key.run), now, apply };
        Ok(self.lanes.step(step).await?.unwrap_or(Fenced::Lost))
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
        self.lanes.step(step).await
    }
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn submit(&self, job: NewJob) -> Result<Submitted> {
        self.lanes.submit(Prepared::new(&self.shared.keys, job)?).await
    }

    fn sole(&self) -> bool {
        true
    }

    async fn open_session(&self, name: &str, now: Timestamp) -> Result<SessionId> {
        let id = SessionId::from_uuid(self.shared.ids.random());
        self.lanes.say(Lane::Running, session::OpenSession { id, name: name.to_owned(), now }).await
    }

    async fn renew_session(&self, session: SessionId, now: Timestamp) -> Result<Fenced<()>> {
        self.lanes.say(Lane::Running, session::RenewSession { session, now }).await
    }

    async fn close_session(&self, session: SessionId) -> Result<()> {
        self.lanes.say(Lane::Running, session::CloseSession { session }).await
    }

    async fn takeover(&self, session: SessionId, most: u32, now: Timestamp) -> Result<Vec<Taken>> {
        self.lanes.say(Lane::Running, session::Takeover { session, most, now }).await
    }

    /// There is only one control.
    async fn holds(&self, _: SessionId, _: Duty, _: Timestamp) -> Result<bool> {
        Ok(true)
    }

    async fn see_workers(&self, session: SessionId, seen: &[WorkerSeen]) -> Result<()> {
        self.lanes.say(Lane::Running, session::SeeWorkers { session, seen: seen.to_vec() }).await
    }

    async fn workers_seen(&self, since: Timestamp) -> Result<Vec<WorkerSeen>> {
        session::all_seen(&self.readers, since).await
    }

    fn offer(&self, slots: u64) {
        self.shared.slots.store(slots, Ordering::Relaxed);
    }

    async fn claim(&self, session: SessionId, grants: &[Grant], now: Timestamp) -> Result<Vec<Claimed>> {
        self.lanes.say(Lane::Claim, claim::Claim { session, grants: grants.to_vec(), now }).await
    }

    async fn wake_delayed(&self, now: Timestamp) -> Result<(u64, Option<Timestamp>)> {
        self.lanes.say(Lane::Claim, verbs::WakeDelayed { now }).await
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
        self.lanes.say(Lane::Running, verbs::RaiseProgress { reports: reports.to_vec() }).await
    }

    async fn pulse(&self, jobs: &[JobId]) -> Result<Vec<Pulse>> {
        read::pulse(&self.readers, jobs).await
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
        read::get(&self.readers, tenant, job).await
    }

    async fn list(&self, filter: &JobFilter) -> Result<JobPage> {
        read::list(&self.readers, filter).await
    }

    async fn events(&self, job: JobId, after: i64) -> Result<Vec<Event>> {
        read::events(&self.readers, job, after).await
    }

    async fn waiting(&self, tenant: &Tenant, most: u64) -> Result<u64> {
        read::waiting(&self.readers, tenant, most).await
    }

    async fn stats(&self) -> Result<QueueStats> {
        read::stats(&self.readers).await
    }

    async fn ping(&self) -> Result<()> {
        read::ping(&self.readers).await
    }

    async fn create_upload(&self, upload: &UploadRecord) -> Result<()> {
        self.lanes.say(Lane::Claim, verbs::CreateUpload(upload.clone())).await
    }

    async fn upload_done(&self, id: UploadId, etag: &str) -> Result<()> {
        self.lanes.say(Lane::Claim, verbs::UploadDone { id, etag: etag.to_owned() }).await
    }

    async fn abandon_upload(&self, id: UploadId, now: Timestamp) -> Result<bool> {
        self.lanes.say(Lane::Claim, verbs::AbandonUpload { id, now }).await
    }

    async fn upload(&self, tenant: Option<&Tenant>, id: UploadId) -> Result<Option<UploadRecord>> {
        read::upload(&self.readers, tenant, id).await
    }

    async fn expire(&self, before: Timestamp, now: Timestamp) -> Result<u64> {
        let mut removed = 0;
        loop {
            // One commit per batch: a long sweep must not hold running jobs up.
            let (batch, more) = self.lanes.say(Lane::Claim, sweep::Expire { before, now }).await?;
            removed += batch;
            if !more {
                return Ok(removed);
            }
        }
    }

    async fn doomed(&self, before: Timestamp, now: Timestamp, most: u32) -> Result<Doomed> {
        sweep::look(&self.readers, before, now, most).await
    }

    async fn wipe_secrets(&self, now: Timestamp) -> Result<u64> {
        self.lanes.say(Lane::Claim, sweep::WipeSecrets { now }).await
    }

    async fn garbage(&self, _: Folder, now: Timestamp) -> Result<Vec<Garbage>> {
        read::garbage(&self.readers, now).await
    }

    async fn swept(&self, ids: &[uuid::Uuid]) -> Result<()> {
        self.lanes.say(Lane::Claim, sweep::Swept { ids: ids.to_vec() }).await
    }

    fn changes(&self) -> tokio::sync::broadcast::Receiver<JobId> {
        self.shared.changes.subscribe()
    }

    fn fingerprint(&self, body: &[u8]) -> Vec<u8> {
        hmac::sign(&self.fingerprints, body).as_ref().to_vec()
    }
}

//! The control's part of a process: record, dispatch, and what looks after stored sources.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use secrecy::ExposeSecret as _;
use tokio_util::io::ReaderStream;

use super::super::{Exit, Failed};
use super::{Record, WhileDown, open_storage, presets};
use crate::api::JobLetters;
use crate::config::{self, ControlPlan};
use crate::control::{Control, ControlSettings, Deps, Discovery, GivenSources, Sweeper, WorkerHandle};
use crate::domain::preset::Presets;
use crate::domain::{Clock, Failure, Folder, IdSource, Source, SystemClock, SystemIds, Waste};
use crate::lifecycle::{Lifecycle, TaskKind};
use crate::rpc::{ClientSecurity, ClientTls, Identity, Token, wire};
use crate::storage::{Destinations, Storage};
use crate::store::{self, DynStore, Outbox, Place, PostgresStore, SqliteStore};

/// Between attempts to reach a database that is down.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a source sent to a worker at a time.
const CHUNK: usize = 256 << 10;
/// Longer than a test file is needed: a worker has five seconds to read it.
const ASKING: Duration = Duration::from_secs(10);

/// The record and the storage, open; nothing runs yet.
pub(in crate::cli) struct Ground {
    pub(in crate::cli) storage: Storage,
    pub(in crate::cli) clock: Arc<dyn Clock>,
    pub(in crate::cli) ids: Arc<dyn IdSource>,
    pub(in crate::cli) store: DynStore,
    pub(in crate::cli) outbox: Option<Arc<dyn Outbox>>,
    /// Resolves when nobody has the store any more and everything said to it is committed.
    pub(in crate::cli) closed: BoxFuture<'static, ()>,
    pub(in crate::cli) presets: Arc<Presets>,
    folder: Folder,
}

/// Opens the record, then the storage.
pub(in crate::cli) async fn open(
    plan: &ControlPlan,
    record: Record<'_>,
    lifecycle: &Lifecycle,
) -> Result<Ground, Failed> {
    let presets = Arc::new(presets(&plan.presets)?);
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn IdSource>) = (Arc::new(SystemClock), Arc::new(SystemIds));
    let data_dir = &plan.common.data_dir;
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("cannot make the data folder {}", data_dir.display()))?;
    // The store first: its lock decides whether anything else here may be touched.
    let (store, outbox, closed) = open_store(plan, record, &ids, lifecycle).await?;
    let folder = if store.sole() { Folder::ONLY } else { data_folder(data_dir, &ids)? };
    let storage = open_storage(&plan.common)?;
    let kept = storage.uploads().kept().context("cannot list the stored sources")?;
    let orphans = sweep_orphans(Arc::clone(&store), storage.clone(), kept);
    lifecycle.spawn(TaskKind::Background, "sweep orphans", orphans);
    let tokens = sweep_tokens(storage.destinations().clone());
    lifecycle.spawn(TaskKind::Background, "sweep test files", tokens);
    Ok(Ground { storage, clock, ids, store, outbox, closed, presets, folder })
}

/// Starts the control on it.
pub(in crate::cli) async fn start(
    plan: &ControlPlan,
    ground: &Ground,
    workers: Vec<WorkerHandle>,
    lifecycle: &Lifecycle,
) -> Result<Control, Failed> {
    let settings = ControlSettings {
        name: format!("{}-{}", plan.common.id, std::process::id()),
        retention: Some(plan.retention.keep),
        waking: super::waking::waking(&plan.workers.waking)?,
        ..ControlSettings::default()
    };
    let deps = Deps {
        store: Arc::clone(&ground.store),
        clock: Arc::clone(&ground.clock),
        ids: Arc::clone(&ground.ids),
        workers,
        discovery: discovery(&plan.workers, ground),
        sweeper: Arc::new(StorageSweeper(ground.storage.clone())),
        webhooks: super::webhooks::webhooks(plan, ground.outbox.as_ref())?,
        lifecycle: lifecycle.clone(),
    };
    Ok(Control::start(settings, deps).await.context("cannot start the control")?)
}

fn discovery(workers: &config::WorkersAccess, ground: &Ground) -> Discovery {
    let storage = &ground.storage;
    let tls = workers.tls.clone().map(|tls| ClientTls {
        ca: tls.ca,
        identity: tls.identity.map(identity),
        domain: tls.domain,
    });
    Discovery {
        nodes: workers.nodes.clone(),
        dns: workers.dns.clone(),
        security: ClientSecurity { token: workers.token.clone().map(Token::new), tls },
        trusted_network: workers.trusted_network,
        storage: Some(storage.destinations().clone()),
        given: Some(Arc::new(Given(storage.clone(), ground.folder))),
    }
}

pub(super) fn identity(pem: config::PemIdentity) -> Identity {
    Identity { certificates: pem.certificates, key: pem.key }
}

/// A record: what runs jobs, what tells of them, and when it is closed.
type Opened = (DynStore, Option<Arc<dyn Outbox>>, BoxFuture<'static, ()>);

async fn open_store(
    plan: &ControlPlan,
    record: Record<'_>,
    ids: &Arc<dyn IdSource>,
    lifecycle: &Lifecycle,
) -> Result<Opened, Failed> {
    let durable = matches!(record, Record::Durable(_));
    let options = || -> Result<store::Options, Failed> {
        Ok(store::Options {
            keys: keys(plan)?,
            max_pending: Some(plan.queue.max_pending),
            max_attempts: plan.queue.max_attempts.get(),
            ids: Arc::clone(ids),
            results: plan.retention.results,
            letters: durable.then(|| Arc::new(JobLetters) as Arc<dyn store::Letters>),
        })
    };
    let opened = match (record, &plan.store) {
        (Record::Durable(while_down), config::Store::Postgres(postgres)) => {
            let store = await_database(&place(postgres)?, options, while_down, lifecycle).await?;
            let closed = store.closed().boxed();
            let store = Arc::new(store);
            return Ok((Arc::clone(&store) as DynStore, Some(store), closed));
        }
        (Record::Durable(_), config::Store::Sqlite) => {
            SqliteStore::open(&plan.common.data_dir, options()?).await
        }
        (Record::Ephemeral, _) => SqliteStore::ephemeral(options()?).await,
    };
    let store = opened.map_err(|error| match &error {
        store::Error::Locked { .. } => Failed::new(Exit::Unavailable, error),
        _ => unopened(error),
    })?;
    let closed = store.closed().boxed();
    let store = Arc::new(store);
    let outbox = durable.then(|| Arc::clone(&store) as Arc<dyn Outbox>);
    Ok((store, outbox, closed))
}

fn unopened(error: store::Error) -> Failed {
    Failed::new(Exit::Failed, anyhow::Error::new(error).context("cannot open the record of jobs"))
}

fn keys(plan: &ControlPlan) -> Result<store::Keys, Failed> {
    if plan.sealing_keys.is_empty() {
        return Ok(store::Keys::DataFolder);
    }
    let texts: Vec<String> = plan.sealing_keys.iter().map(|key| STANDARD.encode(key.expose())).collect();
    let keys = store::SealKeys::from_base64(texts.iter().map(String::as_str), "secrets.keys");
    Ok(store::Keys::Configured(keys.context("cannot use secrets.keys")?))
}

/// The database as configured.
pub(in crate::cli) fn place(postgres: &config::Postgres) -> Result<Place, Failed> {
    let password = postgres
        .read_password()
        .map_err(|problem| Failed::msg(Exit::Validation, format!("store.password_file: {problem}")))?;
    Place::parse(postgres.url.as_str(), password.as_ref().map(secrecy::SecretString::expose_secret))
        .map_err(|error| Failed::msg(Exit::Validation, format!("store.url {error}")))
}

/// A database that is down is waited for, since it comes back without anybody touching this process; one that refuses us
/// is for somebody to repair.
async fn await_database(
    place: &Place,
    options: impl Fn() -> Result<store::Options, Failed>,
    while_down: WhileDown<'_>,
    lifecycle: &Lifecycle,
) -> Result<PostgresStore, Failed> {
    loop {
        match PostgresStore::open(place, options()?).await {
            Ok(store) => return Ok(store),
            Err(error @ store::Error::Unavailable { .. }) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(database = %place, error, "waiting for the database");
                while_down()?;
            }
            Err(error) => return Err(unopened(error)),
        }
        let pause = tokio::time::sleep(DATABASE_PAUSE);
        if lifecycle.soft().run_until_cancelled(pause).await.is_none() {
            return Err(Failed::msg(Exit::Unavailable, format!("{place} was not there before the end")));
        }
    }
}

/// The number of the data folder among those of controls that share a record; it stays with the folder.
fn data_folder(data_dir: &Path, ids: &Arc<dyn IdSource>) -> Result<Folder, Failed> {
    let path = data_dir.join("folder-id");
    let fresh = ids.random();
    // Controls that share the folder may start at the same moment: one of them writes it, whole.
    let part = data_dir.join(format!("folder-id.{fresh}"));
    let made = (|| {
        if !path.exists() {
            std::fs::write(&part, fresh.to_string())?;
            if let Err(error) = std::fs::hard_link(&part, &path)
                && error.kind() != std::io::ErrorKind::AlreadyExists
            {
                return Err(error);
            }
            std::fs::remove_file(&part)?;
        }
        std::fs::read_to_string(&path)
    })();
    let text = made.with_context(|| format!("cannot use {}", path.display()))?;
    let id = text.trim().parse().with_context(|| format!("{} does not hold an id", path.display()))?;
    Ok(Folder::of(id))
}

/// Reads sources that were given to this server.
struct Given(Storage, Folder);

#[async_trait]
impl GivenSources for Given {
    fn folder(&self) -> Folder {
        self.1
    }

    async fn open(&self, source: &Source) -> std::io::Result<wire::Given> {
        let path = match source {
            Source::Upload { id } => self.0.uploads().upload_path(*id),
            Source::Inline { key, .. } => self.0.uploads().inline_path(key),
            Source::Http { .. }
            | Source::Ftp { .. }
            | Source::Bucket { .. }
            | Source::File { .. }
            | Source::Storage { .. } => {
                return Ok(wire::Given::Gone);
            }
        };
        let file = match tokio::fs::File::open(path).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return self.elsewhere(source).await;
            }
            Err(error) => return Err(error),
        };
        let size = file.metadata().await?.len();
        Ok(wire::Given::Bytes { size, chunks: ReaderStream::with_capacity(file, CHUNK).boxed() })
    }
}

impl Given {
    /// What clients sent to the storage is read there by workers themselves.
    async fn elsewhere(&self, source: &Source) -> std::io::Result<wire::Given> {
        let Source::Upload { id } = source else { return Ok(wire::Given::Gone) };
        match self.0.has(*id).await {
            Ok(false) => Ok(wire::Given::Gone),
            Ok(true) => {
                Err(std::io::Error::other("the upload is in the storage, where the worker must look"))
            }
            Err(failure) => Err(std::io::Error::other(failure.detail)),
        }
    }
}

/// Removes sources that were given to this server, and results where the operator wants that.
struct StorageSweeper(Storage);

#[async_trait]
impl Sweeper for StorageSweeper {
    async fn sweep(&self, what: &Waste) -> bool {
        if let Waste::Result { destination, publication, others } = what {
            return match self.0.destinations().remove(destination, *publication, others).await {
                Ok(_) => true,
                Err(failure) => {
                    tracing::warn!(%failure, detail = failure.detail, "could not remove a result");
                    false
                }
            };
        }
        let Some(source) = what.source() else { return true };
        let removed = self.0.remove_source(&source).await;
        if let Err(failure) = &removed {
            tracing::warn!(%failure, detail = failure.detail, "could not remove a job's source");
        }
        removed.is_ok()
    }
}

/// Removes what a crash left between storing a client's bytes and recording them. `kept` was listed before the first
/// request came in, so nothing of it is on its way to the record.
async fn sweep_orphans(store: DynStore, storage: Storage, kept: Vec<Source>) {
    match storage.uploads().sweep().await {
        Ok(0) => {}
        Ok(parts) => tracing::info!(parts, "removed broken uploads"),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "could not remove broken uploads");
        }
    }
    for source in kept {
        let known = match &source {
            Source::Inline { key, .. } => match key.as_str().parse() {
                Ok(job) => store.get(None, job).await.map(|job| job.is_some()),
                // Not named by this server.
                Err(_) => continue,
            },
            Source::Upload { id } => store.upload(None, *id).await.map(|upload| upload.is_some()),
            Source::Http { .. }
            | Source::Ftp { .. }
            | Source::Bucket { .. }
            | Source::File { .. }
            | Source::Storage { .. } => continue,
        };
        let removed = match known {
            Ok(true) => continue,
            Ok(false) => storage.uploads().remove_source(&source).await.map_err(anyhow::Error::new),
            Err(error) => Err(anyhow::Error::new(error)),
        };
        match removed {
            Ok(()) => tracing::info!(kind = source.kind(), "removed a source that no job knows"),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "could not look after a stored source");
            }
        }
    }
}

/// Removes test files of controls that died while they asked a worker about the storage. Other controls may be asking
/// just now: what lies there now and still then is nobody's.
async fn sweep_tokens(destinations: Destinations) {
    let found = destinations.tokens().await;
    tokio::time::sleep(ASKING).await;
    let removed = async {
        for id in found? {
            destinations.remove_token(id).await?;
        }
        Ok::<_, Failure>(())
    };
    if let Err(failure) = removed.await {
        tracing::warn!(%failure, detail = failure.detail, "could not look after test files in the storage");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use futures_util::stream;

    use super::*;
    use crate::domain::limits::SourceLimits;
    use crate::domain::{
        Destination, JobId, JobOptions, JobSecrets, JobSpec, ObjectPath, OutputSpec, Overwrite, TaskId,
        Tenant, Timestamp, UploadId,
    };
    use crate::storage::{self, StorageSettings};
    use crate::store::{Deleted, JobStore as _, NewJob, Submitted, UploadRecord};

    struct Bench {
        _dir: tempfile::TempDir,
        result: std::path::PathBuf,
        store: SqliteStore,
        storage: Storage,
        now: Timestamp,
    }

    impl Bench {
        async fn new() -> Self {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let dir = tempfile::tempdir().unwrap();
            let settings = storage::Settings {
                storage: StorageSettings::Local { root: dir.path().join("storage") },
                destination_roots: Vec::new(),
                data_dir: dir.path().to_owned(),
                file_roots: Vec::new(),
                allow: Vec::new(),
                buckets: crate::domain::BucketAccess::default(),
                limits: SourceLimits::default(),
                fetch: storage::FetchLimits::default(),
            };
            let storage = Storage::open(&settings).unwrap();
            let result = dir.path().join("storage/out.mp4");
            std::fs::write(&result, b"a result").unwrap();
            let store = SqliteStore::ephemeral(store::Options::default()).await.unwrap();
            Self { _dir: dir, result, store, storage, now: Timestamp::from_micros(1_700_000_000_000_000) }
        }

        async fn submit(&self, source: Source) -> JobId {
            let id = JobId::from_uuid(SystemIds.sortable(self.now));
            let encode = Presets::builtin().resolve(Some("proxy_360p"), serde_json::Map::new()).unwrap();
            let path = ObjectPath::parse("out.mp4").unwrap();
            let destination =
                Destination::Storage { path, overwrite: Overwrite::Fail, metadata: BTreeMap::new() };
            let spec = JobSpec {
                source,
                outputs: vec![OutputSpec { preset: None, encode, destination, warnings: Vec::new() }],
                priority: 0,
                labels: BTreeMap::new(),
                metadata: serde_json::Map::new(),
                notification_url: None,
                notification_events: Vec::new(),
                options: JobOptions::default(),
            };
            let task = TaskId::from_uuid(SystemIds.random());
            let (tenant, secrets, now) = (Tenant::local(), JobSecrets::default(), self.now);
            let job = NewJob { id, task, tenant, spec, secrets, idempotency: None, now };
            assert_eq!(self.store.submit(job).await.unwrap(), Submitted::Created);
            id
        }

        /// An upload that is whole and expires in an hour.
        async fn upload(&self, n: u128) -> UploadId {
            let id = UploadId::from_uuid(uuid::Uuid::from_u128(n));
            let bytes = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"abc"))]);
            let received = self.storage.uploads().receive(id, 3, bytes).await.unwrap();
            let record = UploadRecord {
                id,
                tenant: Tenant::local(),
                name: "a.mp4".into(),
                size: 3,
                etag: Some(received.sha256),
                expires_at: self.now.plus(Duration::from_hours(1)),
            };
            self.store.create_upload(&record).await.unwrap();
            id
        }

        /// What the control does each minute.
        async fn clean(&self) {
            self.store.expire(self.now.minus(Duration::from_hours(1)), self.now).await.unwrap();
            let sweeper = StorageSweeper(self.storage.clone());
            for garbage in self.store.garbage(Folder::ONLY, self.now).await.unwrap() {
                assert!(sweeper.sweep(&garbage.what).await, "{garbage:?}");
                self.store.swept(&[garbage.id]).await.unwrap();
            }
            assert!(self.result.exists(), "results are nobody's to sweep");
        }

        fn keeps(&self, source: &Source) -> bool {
            self.storage.uploads().kept().unwrap().contains(source)
        }
    }

    #[tokio::test]
    async fn a_source_goes_when_its_last_job_is_gone_and_not_before() {
        let mut bench = Bench::new().await;
        let inline = Source::Inline { key: ObjectPath::parse("one").unwrap(), size: 5 };
        let Source::Inline { key, .. } = &inline else { return };
        bench.storage.uploads().store_inline(key, Bytes::from_static(b"12345")).await.unwrap();
        let used = Source::Upload { id: bench.upload(1).await };
        let unclaimed = Source::Upload { id: bench.upload(2).await };
        let with_inline = bench.submit(inline.clone()).await;
        let with_upload = bench.submit(used.clone()).await;
        bench.clean().await;
        assert!([&inline, &used, &unclaimed].iter().all(|source| bench.keeps(source)));

        assert!(matches!(bench.store.delete(None, with_inline, bench.now).await.unwrap(), Deleted::Done(_)));
        bench.clean().await;
        assert!(!bench.keeps(&inline), "its job was deleted");

        bench.now = bench.now.plus(Duration::from_hours(2));
        bench.clean().await;
        assert!(!bench.keeps(&unclaimed), "it expired and no job named it");
        assert!(bench.keeps(&used), "a waiting job needs it, expired or not");

        bench.store.cancel(None, with_upload, bench.now).await.unwrap();
        bench.now = bench.now.plus(Duration::from_hours(2));
        bench.clean().await;
        bench.clean().await;
        assert!(!bench.keeps(&used), "its job has expired");
    }

    #[tokio::test]
    async fn test_files_of_controls_that_died_are_swept_and_no_others() {
        let bench = Bench::new().await;
        let destinations = bench.storage.destinations().clone();
        let (stale, fresh) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        destinations.leave_token(stale, "left".into()).await.unwrap();
        let found = destinations.tokens().await.unwrap();
        assert_eq!(found, [stale]);
        tokio::time::pause();
        let sweep = sweep_tokens(destinations.clone());
        let asks = async {
            tokio::time::sleep(ASKING / 2).await;
            destinations.leave_token(fresh, "asking".into()).await.unwrap();
        };
        tokio::join!(sweep, asks);
        assert_eq!(destinations.tokens().await.unwrap(), [fresh]);
    }

    #[tokio::test]
    async fn what_no_record_knows_is_swept_at_the_start() {
        let bench = Bench::new().await;
        let job = bench.submit(Source::Upload { id: bench.upload(1).await }).await;
        let orphan = JobId::from_uuid(SystemIds.random());
        let inline = |key: String| Source::Inline { key: ObjectPath::parse(key).unwrap(), size: 1 };
        for name in [job.to_string(), orphan.to_string(), "foreign".to_owned()] {
            let key = ObjectPath::parse(name).unwrap();
            bench.storage.uploads().store_inline(&key, Bytes::from_static(b"x")).await.unwrap();
        }
        let uploads = bench.storage.uploads();
        let lost = UploadId::from_uuid(uuid::Uuid::from_u128(9));
        let bytes = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"abc"))]);
        uploads.receive(lost, 3, bytes).await.unwrap();
        let kept = uploads.kept().unwrap();
        assert_eq!(kept.len(), 5);
        let Bench { store, storage, _dir: dir, .. } = bench;
        sweep_orphans(Arc::new(store), storage.clone(), kept).await;
        let mut left = storage.uploads().kept().unwrap();
        left.sort_by_key(|source| format!("{source:?}"));
        let known = UploadId::from_uuid(uuid::Uuid::from_u128(1));
        assert_eq!(left, [inline(job.to_string()), inline("foreign".into()), Source::Upload { id: known }]);
        drop(dir);
    }
}

//! Puts the rooms together for one process: what `serve` and `encode` have in common.

use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::watch;

use super::{Exit, Failed};
use crate::config::{self, Config};
use crate::control::{Control, ControlSettings, Deps as ControlDeps, Sweeper, WorkerHandle};
use crate::domain::preset::Presets;
use crate::domain::{BootId, Clock, IdSource, Source, SystemClock, SystemIds};
use crate::lifecycle::{Lifecycle, TaskKind};
use crate::media::Toolbox;
use crate::media::process::{Launcher, Spawner};
use crate::media::tools::{Capabilities, Tools};
use crate::rpc::WorkerClient;
use crate::storage::{self, S3Settings, Storage, StorageSettings};
use crate::store::{self, DynStore, JobStore as _, SqliteStore};
use crate::worker::{Deps as WorkerDeps, Limits, WorkRoot, Worker, WorkerSettings};

/// How long a run goes on without a control (PROTOCOL §1.6).
const ORPHAN_GRACE: std::time::Duration = std::time::Duration::from_mins(10);

/// Where jobs are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// Below the data folder.
    Durable,
    /// In memory, for one command.
    Ephemeral,
}

/// A control and a worker in one process.
pub(super) struct Machinery {
    pub(super) control: Control,
    pub(super) worker: Worker,
    pub(super) storage: Storage,
    pub(super) presets: Arc<Presets>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<dyn IdSource>,
    pub(super) store: Arc<SqliteStore>,
}

/// Reads the configuration the command line points to.
pub(super) fn load(overrides: &config::Overrides) -> Result<Config, Failed> {
    let around = config::Surroundings::of_process().map_err(|error| Failed::new(Exit::Failed, error))?;
    Config::load(&around, overrides).map_err(|error| Failed::new(Exit::Validation, error))
}

/// The built-in presets with the operator's.
pub(super) fn presets(config: &Config) -> Result<Presets, Failed> {
    let mut presets = Presets::builtin();
    for document in &config.presets {
        presets = presets.with_document(&document.text).map_err(|faults| {
            let faults: Vec<String> =
                faults.iter().map(|fault| format!("{}: {fault}", document.file)).collect();
            Failed::msg(Exit::Validation, faults.join("\n"))
        })?;
    }
    Ok(presets)
}

/// Starts everything but the API.
pub(super) async fn start(
    config: &Config,
    record: Record,
    lifecycle: &Lifecycle,
) -> Result<Machinery, Failed> {
    let presets = Arc::new(presets(config)?);
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn IdSource>) = (Arc::new(SystemClock), Arc::new(SystemIds));
    let data_dir = &config.server.data_dir;
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("cannot make the data folder {}", data_dir.display()))?;
    // The store first: its lock decides whether anything else here may be touched.
    let store = Arc::new(open_store(config, record, &ids).await?);
    let storage = open_storage(config)?;
    let kept = storage.uploads().kept().context("cannot list the stored sources")?;
    let orphans = sweep_orphans(Arc::clone(&store), storage.clone(), kept);
    lifecycle.spawn(TaskKind::Background, "sweep orphans", orphans);
    let worker = start_worker(config, &storage, &ids, lifecycle)?;
    let settings = ControlSettings {
        name: format!("{}-{}", config.worker.id, std::process::id()),
        retention: Some(config.retention),
        ..ControlSettings::default()
    };
    let deps = ControlDeps {
        store: Arc::clone(&store) as DynStore,
        clock: Arc::clone(&clock),
        ids: Arc::clone(&ids),
        workers: vec![WorkerHandle {
            client: WorkerClient::in_process(Arc::new(worker.clone())),
            address: "in-process".to_owned(),
        }],
        sweeper: Arc::new(StorageSweeper(storage.clone())),
        lifecycle: lifecycle.clone(),
    };
    let control = Control::start(settings, deps).await.context("cannot start the control")?;
    Ok(Machinery { control, worker, storage, presets, clock, ids, store })
}

async fn open_store(config: &Config, record: Record, ids: &Arc<dyn IdSource>) -> Result<SqliteStore, Failed> {
    let keys = if config.sealing_keys.is_empty() {
        store::Keys::DataFolder
    } else {
        let texts: Vec<String> =
            config.sealing_keys.iter().map(|key| STANDARD.encode(key.expose())).collect();
        let keys = store::SealKeys::from_base64(texts.iter().map(String::as_str), "secrets.keys");
        store::Keys::Configured(keys.context("cannot use secrets.keys")?)
    };
    let options = store::Options {
        keys,
        max_pending: Some(config.queue.max_pending),
        max_attempts: config.queue.max_attempts.get(),
        ids: Arc::clone(ids),
    };
    let opened = match record {
        Record::Durable => SqliteStore::open(&config.server.data_dir, options).await,
        Record::Ephemeral => SqliteStore::ephemeral(options).await,
    };
    opened.map_err(|error| match &error {
        store::Error::Locked { .. } => Failed::new(Exit::Unavailable, error),
        _ => Failed::new(Exit::Failed, anyhow::Error::new(error).context("cannot open the record of jobs")),
    })
}

/// Sources and destinations as configured.
pub(super) fn open_storage(config: &Config) -> Result<Storage, Failed> {
    let storage = match &config.storage {
        config::Storage::Local { root } => StorageSettings::Local { root: root.clone() },
        config::Storage::S3(s3) => StorageSettings::S3(Box::new(bucket(s3))),
    };
    let allow = config.sources.allow.iter().map(|rule| rule.to_string().parse::<storage::AllowRule>());
    let settings = storage::Settings {
        storage,
        destination_roots: config.destination_roots.clone(),
        data_dir: config.server.data_dir.clone(),
        // A root that is missing was warned about; what is below it does not exist.
        file_roots: config.sources.file_roots.iter().filter(|root| root.is_dir()).cloned().collect(),
        allow: allow.collect::<Result<_, _>>().context("cannot use sources.allow")?,
        limits: config.sources.limits,
        fetch: storage::FetchLimits {
            stall_timeout: config.sources.stall_timeout,
            header_timeout: config.sources.stall_timeout,
            retries: config.sources.retries,
            ..storage::FetchLimits::default()
        },
    };
    Ok(Storage::open(&settings).context("cannot open the storage")?)
}

fn bucket(s3: &config::S3) -> S3Settings {
    let credentials = s3.credentials.clone();
    S3Settings {
        bucket: s3.bucket.clone(),
        prefix: s3.prefix.clone(),
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        access_key_id: credentials.as_ref().map(|pair| pair.access_key_id.clone()),
        secret_access_key: credentials.as_ref().map(|pair| pair.secret_access_key.clone()),
        session_token: credentials.and_then(|pair| pair.session_token),
        addressing: if s3.path_style { storage::Addressing::Path } else { storage::Addressing::VirtualHost },
        acl: None,
    }
}

/// ffmpeg and ffprobe where they are; a missing one fails jobs by name, not the start.
pub(super) fn toolbox(config: &Config) -> Result<Toolbox, Failed> {
    let exe = config::program().context("cannot find this program's own file")?;
    let spawner =
        Spawner::start(Launcher::ReExec(exe)).context("cannot start the thread that starts programs")?;
    let (ffmpeg, ffprobe) = (&config.worker.ffmpeg, &config.worker.ffprobe);
    let tools = Tools::locate(ffmpeg, ffprobe).unwrap_or_else(|error| {
        tracing::error!(%error, "no job can be encoded before this is repaired; see `flux doctor`");
        Tools { ffmpeg: ffmpeg.clone(), ffprobe: ffprobe.clone() }
    });
    Ok(Toolbox { spawner, tools })
}

fn start_worker(
    config: &Config,
    storage: &Storage,
    ids: &Arc<dyn IdSource>,
    lifecycle: &Lifecycle,
) -> Result<Worker, Failed> {
    let toolbox = toolbox(config)?;
    let (known, capabilities) = watch::channel(None);
    lifecycle.spawn(TaskKind::Background, "prove encoders", prove(toolbox.clone(), known));
    let boot = BootId::from_uuid(ids.random());
    let settings = WorkerSettings {
        id: config.worker.id.clone(),
        boot,
        slots: config.worker.slots.get(),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        orphan_grace: ORPHAN_GRACE,
        limits: Limits {
            source: config.sources.limits,
            verify: config.verify,
            stall: config.worker.stall_timeout,
            timeout: config.worker.task_timeout,
        },
    };
    let root = WorkRoot::open(&config.worker.work_dir, boot).context("cannot use worker.work_dir")?;
    let deps = WorkerDeps {
        sources: storage.sources().clone(),
        destinations: storage.destinations().clone(),
        toolbox,
        capabilities,
        ids: Arc::clone(ids),
        lifecycle: lifecycle.clone(),
        root,
    };
    Ok(Worker::start(settings, deps))
}

async fn prove(toolbox: Toolbox, known: watch::Sender<Option<Capabilities>>) {
    match toolbox.tools.prove(&toolbox.spawner).await {
        Ok(capabilities) => {
            tracing::info!(version = capabilities.version, encoders = ?capabilities.encoders, "ffmpeg is ready");
            known.send_replace(Some(capabilities));
        }
        Err(error) => tracing::error!(%error, "ffmpeg cannot be used"),
    }
}

/// Removes sources that were given to this server. Results are nobody's to sweep.
struct StorageSweeper(Storage);

#[async_trait]
impl Sweeper for StorageSweeper {
    async fn sweep(&self, what: &Source) -> bool {
        let removed = self.0.uploads().remove_source(what).await;
        if let Err(error) = &removed {
            tracing::warn!(error = error as &dyn std::error::Error, "could not remove a job's source");
        }
        removed.is_ok()
    }
}

/// Removes what a crash left between storing a client's bytes and recording them. `kept` was listed before the first
/// request came in, so nothing of it is on its way to the record.
async fn sweep_orphans(store: Arc<SqliteStore>, storage: Storage, kept: Vec<Source>) {
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
            Source::Http { .. } | Source::File { .. } | Source::Storage { .. } => continue,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::stream;

    use super::*;
    use crate::domain::limits::SourceLimits;
    use crate::domain::{
        Destination, JobId, JobOptions, JobSecrets, JobSpec, ObjectPath, OutputSpec, Overwrite, TaskId,
        Tenant, Timestamp, UploadId,
    };
    use crate::store::{Deleted, NewJob, Submitted, UploadRecord};

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
                sha256: Some(received.sha256),
                expires_at: self.now.plus(Duration::from_hours(1)),
            };
            self.store.create_upload(&record).await.unwrap();
            id
        }

        /// What the control does each minute.
        async fn clean(&self) {
            self.store.expire(self.now.minus(Duration::from_hours(1)), self.now).await.unwrap();
            let sweeper = StorageSweeper(self.storage.clone());
            for garbage in self.store.garbage(self.now).await.unwrap() {
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

//! What the keys mean: a document becomes a [`Config`], or the list of everything that is wrong with it.

mod buckets;
mod files;
mod keys;
mod network;
mod store;
mod waking;
mod webhooks;

use std::fmt::Display;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::document::{self, Document, Size, Span};
use super::fault::{Error, Fault, Faults};
use super::layers::{Merged, Origins};
use super::place::{self, AllowRule, StorageUrl};
use super::{
    Config, Log, MemoryBound, Queue, Retention, Sandbox, Server, Sources, Storage, Surroundings, Worker,
};
use crate::domain::limits::SourceLimits;
use crate::domain::{Bucket, Results, WorkerId};

/// The least memory of a tool: ffmpeg itself with its libraries takes a tenth of it.
const LEAST_MEMORY: u64 = 256 << 20;

/// The least time without work after which a worker may leave.
const SHORTEST_IDLE: Duration = Duration::from_millis(100);

pub(super) fn convert(merged: Merged, around: &Surroundings) -> Result<Config, Error> {
    let Merged { document, origins, faults, warnings, api_key } = merged;
    let mut check = Check { around, origins, faults, warnings };
    match check.config(document, api_key.as_deref()) {
        Some(config) if check.faults.is_empty() => Ok(config),
        _ => Err(invalid(check.faults)),
    }
}

pub(super) fn invalid(mut faults: Vec<Fault>) -> Error {
    faults.sort();
    faults.dedup();
    Error::Invalid(Faults(faults))
}

struct Check<'a> {
    around: &'a Surroundings,
    origins: Origins,
    faults: Vec<Fault>,
    warnings: Vec<String>,
}

impl Check<'_> {
    fn fault(&mut self, key: &str, problem: impl Display) {
        let origin = self.origins.of(key);
        self.faults.push(Fault { key: key.to_owned(), problem: problem.to_string(), origin });
    }

    fn ok<T, E: Display>(&mut self, key: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|problem| self.fault(key, problem)).ok()
    }

    /// A value out of range is noted and returned as it is: the fault keeps it from being used.
    fn number<T: PartialOrd + Display + Copy>(&mut self, key: &str, value: T, range: RangeInclusive<T>) -> T {
        if !range.contains(&value) {
            self.fault(key, format!("must be from {} to {}", range.start(), range.end()));
        }
        value
    }

    fn span(&mut self, key: &str, Span(value): Span, range: RangeInclusive<u64>) -> Duration {
        let bounds = Duration::from_secs(*range.start())..=Duration::from_secs(*range.end());
        if !bounds.contains(&value) {
            let shown = |bound: &Duration| humantime::format_duration(*bound).to_string();
            self.fault(key, format!("must be from {} to {}", shown(bounds.start()), shown(bounds.end())));
        }
        value
    }

    /// A name of an enum; serde's message lists the names there are.
    fn variant<T: for<'de> Deserialize<'de>>(&mut self, key: &str, name: &str) -> Option<T> {
        let deserializer: StrDeserializer<'_, ValueError> = name.into_deserializer();
        self.ok(key, T::deserialize(deserializer))
    }

    /// Every part is looked at before the first one that is missing ends it, so that all faults are found.
    fn config(&mut self, mut document: Document, api_key: Option<&str>) -> Option<Config> {
        self.fill_in(&mut document);
        let rate_per_minute = self.rate("auth.rate_per_minute", document.auth.rate_per_minute);
        let mut keys = self.keys(&document, rate_per_minute);
        keys.extend(api_key.map(|text| keys::seed_key(text, rate_per_minute)));
        let server = self.server(&document);
        let store = self.store(&document);
        let storage = self.storage(&document);
        let buckets = self.buckets(&document, storage.as_ref());
        let sealing_keys = self.sealing_keys(&document);
        let sources = self.sources(&document);
        let destination_roots = self.roots("destinations.file_roots", &document.destinations.file_roots);
        let queue = self.queue(&document);
        let workers = self.workers(&document);
        let network = self.network(&document);
        let worker = self.worker(&document);
        let verify = self.variant("verify.level", &document.verify.level);
        let presets = self.presets(&document);
        let hours = self.number("retention.hours", document.retention.hours, 1..=24 * 365 * 10);
        let webhooks = self.webhooks(&document);
        let log = self.log(&document);
        Some(Config {
            server: server?,
            keys,
            rate_per_minute,
            store: store?,
            storage: storage?,
            buckets,
            sealing_keys,
            sources,
            destination_roots,
            queue,
            workers: workers?,
            worker: worker?,
            network: network?,
            verify: verify?,
            presets,
            webhooks,
            retention: Retention {
                keep: Duration::from_hours(u64::from(hours)),
                results: if document.retention.delete_results { Results::Remove } else { Results::Keep },
            },
            log: log?,
            warnings: std::mem::take(&mut self.warnings),
            effective: document,
            origins: self.origins.clone(),
            cwd: self.around.cwd.clone(),
        })
    }

    /// Absolute, without `.` segments; `..` stays, because it means something else behind a link.
    fn path(&self, text: &str) -> PathBuf {
        self.around.cwd.join(text).components().collect()
    }

    /// Defaults that depend on the machine or on other keys.
    fn fill_in(&self, document: &mut Document) {
        let data_dir = self.path(&document.server.data_dir);
        let below = |name: &str| data_dir.join(name).display().to_string();
        document.server.data_dir = data_dir.display().to_string();
        document.storage.url.get_or_insert_with(|| format!("file:{}", below("storage")));
        document.worker.work_dir.get_or_insert_with(|| below("work"));
        document.worker.id.get_or_insert_with(|| worker_name(&self.around.hostname));
        let cores = u32::try_from(self.around.cores.get()).unwrap_or(u32::MAX).min(1024);
        let slots = *document.worker.slots.get_or_insert(cores);
        if document.workers.waker == "process" {
            document.workers.wake_max.get_or_insert((cores / slots.max(1)).max(1));
        }
        let workers = &document.workers;
        let certificates =
            [&workers.tls_ca_file, &workers.tls_cert_file, &workers.tls_key_file, &workers.tls_domain];
        let tls = certificates.into_iter().any(Option::is_some);
        document.workers.tls.get_or_insert(tls);
        if document.storage.url.as_deref().is_some_and(|url| url.starts_with("s3:")) {
            document.storage.region.get_or_insert_with(|| "us-east-1".to_owned());
            document.storage.path_style.get_or_insert(document.storage.endpoint.is_some());
        }
    }

    fn server(&mut self, document: &Document) -> Option<Server> {
        let drain_timeout = self.span("server.drain_timeout", document.server.drain_timeout, 0..=24 * 3600);
        let header_timeout = self.span("server.header_timeout", document.server.header_timeout, 1..=300);
        let max_streams = self.number("server.max_streams", document.server.max_streams, 1..=1_000_000);
        let listen = self.ok("server.listen", place::listen(&document.server.listen))?;
        Some(Server {
            listen,
            data_dir: PathBuf::from(&document.server.data_dir),
            drain_timeout,
            header_timeout,
            max_streams: usize::try_from(max_streams).unwrap_or(usize::MAX),
        })
    }

    fn storage(&mut self, document: &Document) -> Option<Storage> {
        let storage = &document.storage;
        let url = place::storage_url(storage.url.as_deref().unwrap_or_default(), &self.around.cwd);
        match self.ok("storage.url", url)? {
            StorageUrl::Folder(root) => {
                self.only_for(storage, "file");
                Some(Storage::Local { root })
            }
            StorageUrl::Bucket { bucket, prefix } => {
                self.only_for(storage, "s3");
                self.s3_storage(storage, bucket, prefix)
            }
            StorageUrl::Container { container, prefix } => {
                self.only_for(storage, if matches!(container, Bucket::Azure { .. }) { "az" } else { "gs" });
                self.cloud_storage(document, container, prefix)
            }
        }
    }

    /// Keys of `[storage]` that mean nothing for its URL are faults, not silence.
    fn only_for(&mut self, storage: &document::Storage, scheme: &str) {
        for (key, schemes, given) in [
            ("endpoint", ["s3", "gs", "az"].as_slice(), storage.endpoint.is_some()),
            ("region", &["s3"], storage.region.is_some()),
            ("path_style", &["s3"], storage.path_style.is_some()),
            ("access_key_id", &["s3"], storage.access_key_id.is_some()),
            ("secret_access_key", &["s3"], storage.secret_access_key.is_some()),
            ("session_token", &["s3"], storage.session_token.is_some()),
            ("service_account_file", &["gs"], storage.service_account_file.is_some()),
            ("account_key", &["az"], storage.account_key.is_some()),
        ] {
            if given && !schemes.contains(&scheme) {
                let urls: Vec<_> = schemes.iter().map(|scheme| format!("{scheme}:")).collect();
                self.fault(
                    &format!("storage.{key}"),
                    format!("means something only where storage.url is one of {}", urls.join(", ")),
                );
            }
        }
    }

    fn sources(&mut self, document: &Document) -> Sources {
        let sources = &document.sources;
        let mut allow = Vec::new();
        for (n, text) in sources.allow.iter().enumerate() {
            allow.extend(self.ok(&format!("sources.allow[{n}]"), text.parse::<AllowRule>()));
        }
        let (Size(max_bytes), Size(cache_bytes)) = (sources.max_bytes, sources.cache_bytes);
        Sources {
            file_roots: self.roots("sources.file_roots", &sources.file_roots),
            allow,
            limits: SourceLimits {
                // A source takes a bit of memory for each 256 KiB, whether they come or not.
                max_bytes: self.number("sources.max_bytes", max_bytes, 1..=1 << 46),
                max_duration: self.span("sources.max_duration", sources.max_duration, 1..=30 * 24 * 3600),
                max_pixels: self.number("sources.max_pixels", sources.max_pixels, 1..=1 << 32),
                ..SourceLimits::default()
            },
            cache_bytes: self.number("sources.cache_bytes", cache_bytes, 1 << 26..=1 << 50),
            stall_timeout: self.span("sources.stall_timeout", sources.stall_timeout, 1..=3600),
            retries: self.number("sources.retries", sources.retries, 0..=100),
        }
    }

    fn queue(&mut self, document: &Document) -> Queue {
        let attempts = self.number("queue.max_attempts", document.queue.max_attempts, 1..=100);
        let per_tenant = document.queue.max_pending_per_tenant;
        let per_tenant = self.number("queue.max_pending_per_tenant", per_tenant, 0..=1_000_000);
        Queue {
            max_pending: self.number("queue.max_pending", document.queue.max_pending, 0..=10_000_000),
            max_pending_per_tenant: NonZeroU64::new(per_tenant),
            max_attempts: NonZeroU32::new(attempts).unwrap_or(NonZeroU32::MIN),
        }
    }

    fn worker(&mut self, document: &Document) -> Option<Worker> {
        let worker = &document.worker;
        let slots = self.number("worker.slots", worker.slots.unwrap_or(1), 1..=1024);
        let stall_timeout = self.span("worker.stall_timeout", worker.stall_timeout, 5..=24 * 3600);
        let task_timeout = self.span("worker.task_timeout", worker.task_timeout, 10..=30 * 24 * 3600);
        let orphan_grace = self.span("worker.orphan_grace", worker.orphan_grace, 30..=24 * 3600);
        let Size(disk_floor) = worker.disk_floor;
        let disk_floor = self.number("worker.disk_floor", disk_floor, 0..=1 << 50);
        let idle_timeout = worker.idle_timeout.map(|span| self.idle_timeout(span));
        let nice = self.number("worker.nice", worker.nice, 0..=19);
        Some(Worker {
            id: self.ok("worker.id", worker.id.as_deref().unwrap_or_default().parse::<WorkerId>())?,
            slots: usize::try_from(slots).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN),
            work_dir: self.path(worker.work_dir.as_deref().unwrap_or_default()),
            ffmpeg: self.program("worker.ffmpeg", &worker.ffmpeg),
            ffprobe: self.program("worker.ffprobe", &worker.ffprobe),
            nice,
            stall_timeout,
            task_timeout,
            orphan_grace,
            disk_floor,
            idle_timeout,
            sandbox: self.sandbox(document)?,
        })
    }

    fn sandbox(&mut self, document: &Document) -> Option<Sandbox> {
        let sandbox = &document.sandbox;
        let memory = match sandbox.memory {
            None => MemoryBound::Machine,
            Some(Size(0)) => MemoryBound::Unbounded,
            Some(Size(bytes)) => {
                MemoryBound::Bytes(self.number("sandbox.memory", bytes, LEAST_MEMORY..=1 << 50))
            }
        };
        let Size(file_size) = sandbox.file_size;
        let file_size = self.number("sandbox.file_size", file_size, 1 << 20..=1 << 60);
        let open_files = self.number("sandbox.open_files", sandbox.open_files, 32..=1 << 20);
        let readable = sandbox.readable.iter().map(|text| self.path(text)).collect();
        let mode = self.variant("sandbox.mode", &sandbox.mode)?;
        Some(Sandbox { mode, readable, memory, file_size, open_files })
    }

    /// Below a moment a worker would leave before anybody can call it.
    fn idle_timeout(&mut self, Span(value): Span) -> Duration {
        if !(SHORTEST_IDLE..=Duration::from_hours(24 * 7)).contains(&value) {
            self.fault(
                "worker.idle_timeout",
                "must be from 100ms to 7days; leave it out for a worker that stays",
            );
        }
        value
    }

    fn log(&mut self, document: &Document) -> Option<Log> {
        let filter = document.log.level.clone();
        let parsed = tracing_subscriber::EnvFilter::try_new(&filter);
        let known = parsed.map_err(|_| "expected error, warn, info, debug, trace or directives");
        let known = self.ok("log.level", known);
        let format = self.variant("log.format", &document.log.format);
        known?;
        Some(Log { format: format?, filter })
    }
}

/// The host's name in the alphabet of [`WorkerId`].
fn worker_name(hostname: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }
    };
    let name: String = hostname.chars().map(safe).take(64).collect();
    if name.is_empty() { "worker".to_owned() } else { name }
}

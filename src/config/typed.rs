//! What the keys mean: a document becomes a [`Config`], or the list of everything that is wrong with it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::document::{Document, Hidden, Key, Size, Span};
use super::fault::{Error, Fault, Faults};
use super::layers::{Merged, Origins};
use super::place::{self, AllowRule, StorageUrl};
use super::{
    ApiKey, Config, KeyHash, Log, PresetDocument, Queue, S3, S3Credentials, Scope, SealingKey, Server,
    Sources, Storage, Store, Surroundings, Worker,
};
use crate::domain::limits::SourceLimits;
use crate::domain::{Tenant, WorkerId};

/// Most bytes of one preset document: they are written by hand.
const MAX_PRESET_BYTES: u64 = 1024 * 1024;

pub(super) fn convert(merged: Merged, around: &Surroundings) -> Result<Config, Error> {
    let Merged {
        mut document,
        origins,
        faults,
        warnings,
        api_key,
    } = merged;
    let mut check = Check {
        around,
        origins,
        faults,
        warnings,
    };
    check.fill_in(&mut document);

    let mut keys = check.keys(&document);
    keys.extend(api_key.as_deref().map(seed_key));
    let server = check.server(&document, &keys);
    let storage = check.storage(&document);
    let sealing_keys = check.sealing_keys(&document);
    let sources = check.sources(&document);
    let destination_roots = check.roots("destinations.file_roots", &document.destinations.file_roots);
    let queue = check.queue(&document);
    let worker = check.worker(&document);
    let verify = check.variant("verify.level", &document.verify.level);
    let presets = check.presets(&document);
    let hours = check.number("retention.hours", document.retention.hours, 1..=24 * 365 * 10);
    let format = check.variant("log.format", &document.log.format);
    let filter = check.filter(&document);
    let store = check.store(&document);

    let Check { faults, warnings, .. } = check;
    let (
        Some(server),
        Some(storage),
        Some(store),
        Some(worker),
        Some(verify),
        Some(format),
        Some(filter),
        true,
    ) = (
        server,
        storage,
        store,
        worker,
        verify,
        format,
        filter,
        faults.is_empty(),
    )
    else {
        return Err(invalid(faults));
    };
    Ok(Config {
        server,
        keys,
        store,
        storage,
        sealing_keys,
        sources,
        destination_roots,
        queue,
        worker,
        verify,
        presets,
        retention: Duration::from_secs(u64::from(hours) * 3600),
        log: Log { format, filter },
        warnings,
        effective: document,
    })
}

fn invalid(mut faults: Vec<Fault>) -> Error {
    faults.sort();
    faults.dedup();
    Error::Invalid(Faults(faults))
}

/// The seeds' single key: all rights, and the tenant of a server without keys, so that turning it on hides no job.
fn seed_key(text: &str) -> ApiKey {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref());
    ApiKey {
        name: "API_KEY".to_owned(),
        tenant: Tenant::local(),
        hash: KeyHash(hash),
        scopes: vec![Scope::Admin],
    }
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
        self.faults.push(Fault {
            key: key.to_owned(),
            problem: problem.to_string(),
            origin,
        });
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
            self.fault(
                key,
                format!(
                    "must be from {} to {}",
                    shown(bounds.start()),
                    shown(bounds.end())
                ),
            );
        }
        value
    }

    /// A name of an enum; serde's message lists the names there are.
    fn variant<T: for<'de> Deserialize<'de>>(&mut self, key: &str, name: &str) -> Option<T> {
        let deserializer: StrDeserializer<'_, ValueError> = name.into_deserializer();
        self.ok(key, T::deserialize(deserializer))
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
        document
            .storage
            .url
            .get_or_insert_with(|| format!("file:{}", below("storage")));
        document.worker.work_dir.get_or_insert_with(|| below("work"));
        document
            .worker
            .id
            .get_or_insert_with(|| worker_name(&self.around.hostname));
        let cores = u32::try_from(self.around.cores.get())
            .unwrap_or(u32::MAX)
            .min(1024);
        document.worker.slots.get_or_insert(cores);
        if document
            .storage
            .url
            .as_deref()
            .is_some_and(|url| url.starts_with("s3:"))
        {
            document
                .storage
                .region
                .get_or_insert_with(|| "us-east-1".to_owned());
            document
                .storage
                .path_style
                .get_or_insert(document.storage.endpoint.is_some());
        }
    }

    fn keys(&mut self, document: &Document) -> Vec<ApiKey> {
        let (mut names, mut hashes) = (BTreeSet::new(), BTreeSet::new());
        let mut keys = Vec::new();
        for (n, key) in document.auth.keys.iter().enumerate() {
            let Some(key) = self.key(n, key) else { continue };
            if !names.insert(key.name.clone()) {
                self.fault(&format!("auth.keys[{n}].name"), "another key has the same name");
            }
            if !hashes.insert(key.hash) {
                self.fault(&format!("auth.keys[{n}].sha256"), "another key has the same hash");
            }
            keys.push(key);
        }
        keys
    }

    fn key(&mut self, n: usize, key: &Key) -> Option<ApiKey> {
        let at = |field: &str| format!("auth.keys[{n}].{field}");
        if key.name.is_empty() {
            self.fault(&at("name"), "is empty");
        }
        let (field, tenant) = match &key.tenant {
            Some(tenant) => ("tenant", tenant),
            None => ("name", &key.name),
        };
        let tenant = self.ok(&at(field), tenant.parse::<Tenant>());
        let hash = hex_32(key.sha256.expose());
        if hash.is_none() {
            self.fault(
                &at("sha256"),
                "expected 64 hexadecimal digits: `flux key new` prints a key and its hash",
            );
        }
        let mut scopes = BTreeSet::new();
        for (m, scope) in key.scopes.iter().enumerate() {
            scopes.extend(self.variant::<Scope>(&format!("auth.keys[{n}].scopes[{m}]"), scope));
        }
        if key.scopes.is_empty() {
            self.fault(&at("scopes"), "is empty: such a key could do nothing");
        }
        let scopes = scopes.into_iter().collect();
        Some(ApiKey {
            name: key.name.clone(),
            tenant: tenant?,
            hash: KeyHash(hash?),
            scopes,
        })
    }

    /// Without keys everybody who can connect is an administrator, so nobody else may be able to connect.
    fn server(&mut self, document: &Document, keys: &[ApiKey]) -> Option<Server> {
        let drain_timeout = self.span(
            "server.drain_timeout",
            document.server.drain_timeout,
            0..=24 * 3600,
        );
        let listen = self.ok("server.listen", place::listen(&document.server.listen))?;
        if !listen.ip().is_loopback() && keys.is_empty() && document.auth.keys.is_empty() {
            self.fault(
                "server.listen",
                format!(
                    "{listen} can be reached from other machines and there is no API key; \
                     add one to auth.keys (`flux key new`) or listen on 127.0.0.1"
                ),
            );
        }
        Some(Server {
            listen,
            data_dir: PathBuf::from(&document.server.data_dir),
            drain_timeout,
        })
    }

    fn store(&mut self, document: &Document) -> Option<Store> {
        match document.store.url.as_str() {
            "sqlite" => return Some(Store::Sqlite),
            url if url.starts_with("postgres") => {
                self.fault("store.url", "PostgreSQL is not in this build yet; use \"sqlite\"");
            }
            _ => self.fault(
                "store.url",
                "expected \"sqlite\": the file is always below server.data_dir",
            ),
        }
        None
    }

    fn storage(&mut self, document: &Document) -> Option<Storage> {
        let storage = &document.storage;
        let url = place::storage_url(storage.url.as_deref().unwrap_or_default(), &self.around.cwd);
        let (bucket, prefix) = match self.ok("storage.url", url)? {
            StorageUrl::Bucket { bucket, prefix } => (bucket, prefix),
            StorageUrl::Folder(root) => {
                let bucket_only = [
                    ("endpoint", storage.endpoint.is_some()),
                    ("region", storage.region.is_some()),
                    ("path_style", storage.path_style.is_some()),
                    ("access_key_id", storage.access_key_id.is_some()),
                    ("secret_access_key", storage.secret_access_key.is_some()),
                    ("session_token", storage.session_token.is_some()),
                ];
                for (key, _) in bucket_only.into_iter().filter(|(_, given)| *given) {
                    self.fault(
                        &format!("storage.{key}"),
                        "means nothing for a folder; set storage.url to an s3: URL",
                    );
                }
                return Some(Storage::Local { root });
            }
        };
        let endpoint = storage
            .endpoint
            .as_deref()
            .map(|text| self.ok("storage.endpoint", place::endpoint(text)));
        let credentials = match (&storage.access_key_id, &storage.secret_access_key) {
            (Some(id), Some(Hidden(secret))) => Some(S3Credentials {
                access_key_id: id.clone(),
                secret_access_key: secret.clone(),
                session_token: storage.session_token.as_ref().map(|Hidden(token)| token.clone()),
            }),
            (None, None) => None,
            (Some(_), None) => {
                self.fault("storage.access_key_id", "needs storage.secret_access_key as well");
                None
            }
            (None, Some(_)) => {
                self.fault("storage.secret_access_key", "needs storage.access_key_id as well");
                None
            }
        };
        Some(Storage::S3(S3 {
            bucket,
            prefix,
            endpoint: endpoint.flatten(),
            region: storage.region.clone().unwrap_or_default(),
            path_style: storage.path_style.unwrap_or_default(),
            credentials,
        }))
    }

    fn sealing_keys(&mut self, document: &Document) -> Vec<SealingKey> {
        let mut keys = Vec::new();
        for (n, key) in document.secrets.keys.iter().enumerate() {
            match STANDARD
                .decode(key.expose())
                .ok()
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            {
                Some(bytes) => keys.push(SealingKey(Arc::new(secrecy::SecretBox::new(Box::new(bytes))))),
                None => self.fault(
                    &format!("secrets.keys[{n}]"),
                    "expected 32 bytes as base64, such as `openssl rand -base64 32` prints",
                ),
            }
        }
        keys
    }

    fn sources(&mut self, document: &Document) -> Sources {
        let sources = &document.sources;
        let mut allow = Vec::new();
        for (n, text) in sources.allow.iter().enumerate() {
            allow.extend(self.ok(&format!("sources.allow[{n}]"), text.parse::<AllowRule>()));
        }
        let Size(max_bytes) = sources.max_bytes;
        Sources {
            file_roots: self.roots("sources.file_roots", &sources.file_roots),
            allow,
            limits: SourceLimits {
                max_bytes: self.number("sources.max_bytes", max_bytes, 1..=1 << 50),
                max_duration: self.span("sources.max_duration", sources.max_duration, 1..=30 * 24 * 3600),
                max_pixels: self.number("sources.max_pixels", sources.max_pixels, 1..=1 << 32),
                ..SourceLimits::default()
            },
        }
    }

    /// A root may be a mount that comes later, so a missing one is a warning; `/` would open the machine.
    fn roots(&mut self, key: &str, texts: &[String]) -> Vec<PathBuf> {
        let mut roots = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            let (key, root) = (format!("{key}[{n}]"), self.path(text));
            if text.is_empty() || root.parent().is_none() {
                self.fault(&key, "expected a folder below /");
            } else if !root.is_dir() {
                self.warnings
                    .push(format!("{key}: there is no folder {}", root.display()));
            }
            roots.push(root);
        }
        roots
    }

    fn queue(&mut self, document: &Document) -> Queue {
        let attempts = self.number("queue.max_attempts", document.queue.max_attempts, 1..=100);
        Queue {
            max_pending: self.number("queue.max_pending", document.queue.max_pending, 0..=10_000_000),
            max_attempts: NonZeroU32::new(attempts).unwrap_or(NonZeroU32::MIN),
        }
    }

    fn worker(&mut self, document: &Document) -> Option<Worker> {
        let worker = &document.worker;
        let slots = self.number("worker.slots", worker.slots.unwrap_or(1), 1..=1024);
        let stall_timeout = self.span("worker.stall_timeout", worker.stall_timeout, 5..=24 * 3600);
        let task_timeout = self.span("worker.task_timeout", worker.task_timeout, 10..=30 * 24 * 3600);
        let nice = self.number("worker.nice", worker.nice, 0..=19);
        Some(Worker {
            id: self.ok(
                "worker.id",
                worker.id.as_deref().unwrap_or_default().parse::<WorkerId>(),
            )?,
            slots: usize::try_from(slots)
                .ok()
                .and_then(NonZeroUsize::new)
                .unwrap_or(NonZeroUsize::MIN),
            work_dir: self.path(worker.work_dir.as_deref().unwrap_or_default()),
            ffmpeg: self.program("worker.ffmpeg", &worker.ffmpeg),
            ffprobe: self.program("worker.ffprobe", &worker.ffprobe),
            nice,
            stall_timeout,
            task_timeout,
        })
    }

    /// A bare name is looked up now, because children are started without an environment. A program that is missing
    /// is no fault of the configuration: the worker says `tool_missing`, with how to install it.
    fn program(&mut self, key: &str, name: &str) -> PathBuf {
        if name.is_empty() {
            self.fault(key, "is empty");
        }
        if name.contains('/') {
            return self.path(name);
        }
        let path = self
            .around
            .env
            .get("PATH")
            .map(String::as_str)
            .unwrap_or_default();
        let found = path
            .split(':')
            .filter(|folder| !folder.is_empty())
            .map(|folder| self.around.cwd.join(folder).join(name))
            .find(|program| is_executable(program));
        found.unwrap_or_else(|| PathBuf::from(name))
    }

    fn presets(&mut self, document: &Document) -> Vec<PresetDocument> {
        let Some(dir) = &document.presets.dir else {
            return Vec::new();
        };
        let read = read_presets(&self.path(dir));
        self.ok("presets.dir", read).unwrap_or_default()
    }

    fn filter(&mut self, document: &Document) -> Option<String> {
        let filter = document.log.level.clone();
        let parsed = tracing_subscriber::EnvFilter::try_new(&filter);
        self.ok(
            "log.level",
            parsed.map_err(|_| "expected error, warn, info, debug, trace or directives"),
        )?;
        Some(filter)
    }
}

fn read_presets(dir: &Path) -> Result<Vec<PresetDocument>, String> {
    let unreadable = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("cannot read {path}: {error}")
    };
    let mut documents = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable(dir))? {
        let path = entry.map_err(unreadable(dir))?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let size = std::fs::metadata(&path).map_err(unreadable(&path))?.len();
        if size > MAX_PRESET_BYTES {
            return Err(format!("{} is larger than 1 MiB", path.display()));
        }
        let text = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        documents.push(PresetDocument { file, text });
    }
    documents.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(documents)
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The host's name in the alphabet of [`WorkerId`].
fn worker_name(hostname: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = hostname.chars().map(safe).take(64).collect();
    if name.is_empty() {
        "worker".to_owned()
    } else {
        name
    }
}

fn hex_32(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits: [u8; 64] = digits?.try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |value, digit| value << 4 | digit);
    }
    Some(bytes)
}

//! Configuration: the only reader of configuration files and of the environment.
//!
//! Owns the keys (`config/flux.toml` is their reference), their defaults, and the order of their sources:
//! defaults < file < the seeds' variables < `FLUX__SECTION__KEY` < command-line flags.
//! Must not know: what a value is used for. It hands out typed settings; `cli` gives each room its part.
//! Invariant: a [`Config`] is legal as a whole, and no key is accepted that nothing uses; what is wrong is
//! reported all at once, each fault with its key and the place it was written.
//! To add a key: a field and default in `document`, its meaning in `typed`, an entry in `config/flux.toml`
//! (a test compares the three).

mod document;
mod fault;
mod layers;
mod place;
mod plan;
mod seeds;
#[cfg(test)]
mod tests;
mod typed;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;

pub use fault::{Error, Fault, Faults, Origin};
pub use place::AllowRule;
pub use plan::{
    CallerTls, Common, ControlPlan, Listener, ListenerTls, PemIdentity, Plan, Role, WorkerPlan, WorkersAccess,
};

use crate::domain::limits::SourceLimits;
use crate::domain::webhook::{WebhookEvent, WebhookSecret};
use crate::domain::{
    Bucket, BucketAccess, Credentials, ObjectPath, Results, SandboxMode, Tenant, VerifyLevel, WorkerId,
};

/// Everything a process is told, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address, data folder, shutdown.
    pub server: Server,
    /// Who may use the API. Empty only when the server listens on loopback.
    pub keys: Vec<ApiKey>,
    /// Submissions a minute of a key that says nothing else, and of a server without keys; `None` = no bound.
    pub rate_per_minute: Option<NonZeroU32>,
    /// Where jobs are recorded.
    pub store: Store,
    /// Where results without a place of their own go.
    pub storage: Storage,
    /// With whose credentials buckets of requests are used.
    pub buckets: BucketAccess,
    /// Keys for secrets at rest: the first seals, all open. Empty: a key file below the data folder.
    pub sealing_keys: Vec<SealingKey>,
    /// What may be read.
    pub sources: Sources,
    /// Folders below which `file` destinations may be written.
    pub destination_roots: Vec<PathBuf>,
    /// Bounds of the queue.
    pub queue: Queue,
    /// Workers on other machines, as a control looks for them.
    pub workers: Workers,
    /// Slots and tools.
    pub worker: Worker,
    /// How a worker is reached from other machines.
    pub network: Network,
    /// How closely outputs are checked when the job does not say.
    pub verify: VerifyLevel,
    /// The operator's preset documents, in order of their names.
    pub presets: Vec<PresetDocument>,
    /// How receivers are told.
    pub webhooks: Webhooks,
    /// What goes when.
    pub retention: Retention,
    /// Logs.
    pub log: Log,
    /// What the operator should know and what does not stop the start.
    pub warnings: Vec<String>,
    effective: document::Document,
    origins: layers::Origins,
    cwd: PathBuf,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where REST, SSE, dashboard and metrics are served.
    pub listen: SocketAddr,
    /// The data folder, absolute.
    pub data_dir: PathBuf,
    /// How long running tasks may finish after the first signal.
    pub drain_timeout: Duration,
    /// How long a connection may take to send a request's head, and stay idle between two.
    pub header_timeout: Duration,
    /// Open event streams at most.
    pub max_streams: usize,
}

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// See jobs, progress, results, presets.
    #[serde(rename = "jobs:read")]
    JobsRead,
    /// Submit, cancel, retry and delete jobs.
    #[serde(rename = "jobs:write")]
    JobsWrite,
    /// Submit jobs with a priority above 0.
    #[serde(rename = "jobs:priority")]
    JobsPriority,
    /// All of it, for every tenant, and workers and metrics.
    #[serde(rename = "admin")]
    Admin,
}

/// An API key, known by its hash only.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// For logs and for `flux config show`.
    pub name: String,
    /// Whose jobs it sees; by default the key's name.
    pub tenant: Tenant,
    /// SHA-256 of the key's text.
    pub hash: KeyHash,
    /// Sorted, without repeats, never empty.
    pub scopes: Vec<Scope>,
    /// Submissions a minute; `None` = no bound.
    pub rate_per_minute: Option<NonZeroU32>,
}

impl ApiKey {
    /// Whether the key may do this; `admin` may do everything.
    #[must_use]
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&Scope::Admin) || self.scopes.contains(&scope)
    }
}

/// SHA-256 of an API key. Compare in constant time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// `[retention]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long the record of a finished job is kept.
    pub keep: Duration,
    /// What becomes of its results then.
    pub results: Results,
}

/// `[webhooks]`.
#[derive(Debug, Clone)]
pub struct Webhooks {
    /// What messages are signed with, each of them. Empty: a file below the data folder, where the record is a file.
    pub secrets: Vec<WebhookSecret>,
    /// What a job that does not say is told of; never empty.
    pub events: Vec<WebhookEvent>,
    /// Private addresses that may be told.
    pub allow: Vec<AllowRule>,
    /// How long a receiver may take to answer.
    pub timeout: Duration,
    /// How long a delivery is tried.
    pub give_up_after: Duration,
    /// Messages on their way at once.
    pub concurrency: NonZeroU32,
    /// Messages on their way to one receiver at once.
    pub per_host: NonZeroU32,
}

/// `[store]`.
#[derive(Debug, Clone)]
pub enum Store {
    /// A file below the data folder, for one control.
    Sqlite,
    /// A database that several controls may share.
    Postgres(Postgres),
}

/// A database of PostgreSQL and how to get in.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// Without the password.
    pub url: Url,
    /// Given in the address or beside it.
    pub password: Option<SecretString>,
    /// The file that holds it instead, absolute.
    pub password_file: Option<PathBuf>,
}

impl Postgres {
    /// The password, wherever it is.
    pub fn read_password(&self) -> Result<Option<SecretString>, String> {
        let Some(path) = &self.password_file else { return Ok(self.password.clone()) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            Err(format!("{} is empty", path.display()))
        } else {
            Ok(Some(password.into()))
        }
    }
}

/// `[storage]`.
#[derive(Debug, Clone)]
pub enum Storage {
    /// A folder.
    Local {
        /// Absolute; made when missing.
        root: PathBuf,
    },
    /// A bucket of S3, of a store that speaks its protocol, or of Google; or a container of Azure.
    Bucket {
        /// Which, with its endpoint.
        bucket: Bucket,
        /// What all keys begin with.
        prefix: Option<ObjectPath>,
        /// `None`: the machine's own role.
        credentials: Option<Credentials>,
    },
}

/// A key that seals secrets in the store.
#[derive(Clone)]
pub struct SealingKey(Arc<secrecy::SecretBox<[u8; 32]>>);

impl SealingKey {
    /// The 32 bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        secrecy::ExposeSecret::expose_secret(&*self.0)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

/// `[sources]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Folders below which `file` sources may be read, absolute.
    pub file_roots: Vec<PathBuf>,
    /// Private addresses and hosts that may be fetched.
    pub allow: Vec<AllowRule>,
    /// Bounds on one source.
    pub limits: SourceLimits,
    /// What the cache of one remote source takes of the disk of `worker.work_dir` at most, 64 MiB to 1 PiB.
    pub cache_bytes: u64,
    /// Silence of an origin after which a request to it is given up and said again.
    pub stall_timeout: Duration,
    /// Tries after the first before an origin counts as unreachable; each new block of bytes starts over.
    pub retries: u32,
}

/// `[queue]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Jobs that may wait; one more is refused with 503. With 0 a job is taken only while a slot is free.
    pub max_pending: u64,
    /// Jobs of one tenant that may wait; one more is refused with 429. `None` = no bound of its own.
    pub max_pending_per_tenant: Option<NonZeroU64>,
    /// Attempts charged to a task before its failure is final, 1 to 100.
    pub max_attempts: NonZeroU32,
}

/// `[workers]`.
#[derive(Debug, Clone)]
pub struct Workers {
    /// `HOST:PORT` of each.
    pub nodes: Vec<String>,
    /// `HOST:PORT` whose host has one address per worker.
    pub dns: Option<String>,
    /// What workers ask for, and what they register with.
    pub token: Option<SecretString>,
    /// Whether calls are encrypted.
    pub tls: bool,
    /// Jobs with their secrets may be sent in the clear to other machines.
    pub trusted_network: bool,
    /// How workers that are down are brought up.
    pub waking: Waking,
}

/// How workers that are down are brought up when jobs wait.
#[derive(Debug, Clone)]
pub struct Waking {
    /// Who does it.
    pub waker: Waker,
    /// How long a worker may take to come up.
    pub startup_timeout: Duration,
    /// No more are brought up while so many are up or coming.
    pub most: NonZeroU32,
}

/// Who brings workers up.
#[derive(Debug, Clone)]
pub enum Waker {
    /// Nobody: workers stay up, or come up by themselves.
    Nobody,
    /// Whatever starts a worker when it is connected to.
    Connect,
    /// The control, as children on its own machine.
    Process(Children),
    /// The operator's program with its arguments; the program's path is absolute.
    Command(Vec<String>),
    /// Fly's Machines API.
    Fly(Fly),
}

/// What worker processes that a control starts have in common with it.
#[derive(Debug, Clone)]
pub struct Children {
    /// The configuration file both read.
    pub file: Option<PathBuf>,
    /// Where relative paths begin.
    pub cwd: PathBuf,
    /// The data folder, absolute.
    pub data_dir: PathBuf,
    /// Their names begin with this.
    pub id: WorkerId,
    /// Slots of each.
    pub slots: NonZeroU32,
    /// Each ends after so long without work.
    pub idle_timeout: Duration,
}

/// Where workers are machines on Fly.
#[derive(Debug, Clone)]
pub struct Fly {
    /// The workers' app.
    pub app: String,
    /// Only machines of this process group; `None` = all of the app.
    pub group: Option<String>,
    /// Allowed to start the app's machines.
    pub token: SecretString,
    /// Where the Machines API is.
    pub api_url: Url,
}

/// The part of `[worker]` about the network.
#[derive(Debug, Clone)]
pub struct Network {
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// `HOST:PORT` for others; `None`: made of `listen` and the route to the control.
    pub advertise: Option<String>,
    /// Controls to register with.
    pub control: Vec<Url>,
    /// What callers must carry, and what is carried to controls.
    pub token: Option<SecretString>,
}

/// `[worker]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Name of this worker; by default the host's.
    pub id: WorkerId,
    /// Tasks at a time; by default one per core.
    pub slots: NonZeroUsize,
    /// Where tasks keep their files while they run, absolute.
    pub work_dir: PathBuf,
    /// The ffmpeg program: a path, or a bare name when `PATH` has none of that name.
    pub ffmpeg: PathBuf,
    /// The ffprobe program, likewise.
    pub ffprobe: PathBuf,
    /// Niceness of ffmpeg, 0 to 19.
    pub nice: u8,
    /// An encoder without progress for this long is killed.
    pub stall_timeout: Duration,
    /// A task that runs longer is killed.
    pub task_timeout: Duration,
    /// How long a run goes on without hearing from a control.
    pub orphan_grace: Duration,
    /// Disk set aside for each run beside what it will write, bytes; 0 = none is set aside.
    pub disk_floor: u64,
    /// A process of the role worker ends after so long without work; `None` = never.
    pub idle_timeout: Option<Duration>,
    /// How its tools are confined.
    pub sandbox: Sandbox,
}

/// `[sandbox]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// What must be there.
    pub mode: SandboxMode,
    /// What tools may read and run besides what belongs to the system, absolute.
    pub readable: Vec<PathBuf>,
    /// Private memory of one tool.
    pub memory: MemoryBound,
    /// Largest file of one encoder, bytes.
    pub file_size: u64,
    /// Most open files of one tool.
    pub open_files: u32,
}

/// `sandbox.memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryBound {
    /// As much as the machine has.
    Machine,
    /// So many bytes.
    Bytes(u64),
    /// None.
    Unbounded,
}

/// A preset document as found in `presets.dir`; the domain reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresetDocument {
    /// File name, for messages.
    pub file: String,
    /// TOML text.
    pub text: String,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Form of the lines.
    pub format: LogFormat,
    /// A level, or directives such as `info,flux::worker=debug`.
    pub filter: String,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One object a line.
    Json,
}

/// What the process finds around itself; tests make their own.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Relative paths begin here.
    pub cwd: PathBuf,
    /// The host's name.
    pub hostname: String,
    /// Cores this process may use.
    pub cores: NonZeroUsize,
}

impl Surroundings {
    /// The surroundings of this process. Variables that are not UTF-8 cannot be ours and are left out.
    pub fn of_process() -> Result<Self, Error> {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Ok(Self {
            env: std::env::vars_os().filter_map(text).collect(),
            cwd: std::env::current_dir().map_err(Error::CurrentFolder)?,
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        })
    }
}

/// This program's own file, for the launcher that becomes ffmpeg.
pub fn program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// Where the system keeps files of a moment (`TMPDIR`).
#[must_use]
pub fn temporary_folder() -> PathBuf {
    std::env::temp_dir()
}

/// What the command line says; it has the last word.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`: this file, which must exist. Otherwise `./flux.toml`, then `flux/flux.toml` below
    /// `XDG_CONFIG_HOME` (`~/.config`), then none.
    pub file: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--grpc-listen`.
    pub grpc_listen: Option<String>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--log-level`.
    pub log_level: Option<String>,
}

impl Config {
    /// Reads and checks everything; all faults at once.
    pub fn load(around: &Surroundings, overrides: &Overrides) -> Result<Self, Error> {
        typed::convert(layers::merge(around, overrides)?, around)
    }

    /// The effective configuration as TOML, secrets as `<redacted>`. Without secrets it reads back as itself.
    #[must_use]
    pub fn show(&self) -> String {
        // Serialising plain structs of texts, numbers and lists cannot fail; a test shows every key.
        toml::to_string(&self.effective).unwrap_or_default()
    }
}

//! What a role needs of a configuration, and nothing else: a worker has no record and no API that could be wrong, a
//! control no ffmpeg, no slots, no work folder.
//!
//! Certificates are read here, because each role has its own and a shared file may name those of the other.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::document::Document;
use super::fault::{Error, Fault};
use super::typed::invalid;
use super::{
    ApiKey, Config, Network, PresetDocument, Queue, Retention, SealingKey, Server, Sources, Storage, Store,
    Waker, Waking, Webhooks, Worker, place,
};
use crate::domain::{BucketAccess, VerifyLevel, WorkerId};

/// Most bytes of one file of certificates.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// What a process is on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Control and worker in one process.
    All,
    /// API, store and dispatch.
    Control,
    /// Slots and ffmpeg.
    Worker,
}

/// What `serve` starts.
#[derive(Debug, Clone)]
pub enum Plan {
    /// API, store and dispatch.
    Control(Box<ControlPlan>),
    /// Slots and ffmpeg, behind a listener.
    Worker(Box<WorkerPlan>, Box<Listener>),
    /// Control and worker in one process.
    All(Box<ControlPlan>, Box<WorkerPlan>),
}

/// What every role needs.
#[derive(Debug, Clone)]
pub struct Common {
    /// The worker's name, and the first part of the name of a control's session.
    pub id: WorkerId,
    /// The data folder, absolute.
    pub data_dir: PathBuf,
    /// How long running tasks may finish after the first signal.
    pub drain_timeout: Duration,
    /// Where results without a place of their own go.
    pub storage: Storage,
    /// With whose credentials buckets of requests are used.
    pub buckets: BucketAccess,
    /// What may be read.
    pub sources: Sources,
    /// Folders below which `file` destinations may be written.
    pub destination_roots: Vec<PathBuf>,
}

/// What a control needs.
#[derive(Debug, Clone)]
pub struct ControlPlan {
    /// Shared with workers.
    pub common: Common,
    /// The API.
    pub server: Server,
    /// Who may use it.
    pub keys: Vec<ApiKey>,
    /// Submissions a minute of everybody together, on a server without keys.
    pub rate_per_minute: Option<NonZeroU32>,
    /// Where jobs are recorded.
    pub store: Store,
    /// Keys for secrets at rest.
    pub sealing_keys: Vec<SealingKey>,
    /// Bounds of the queue.
    pub queue: Queue,
    /// The operator's preset documents.
    pub presets: Vec<PresetDocument>,
    /// How receivers are told.
    pub webhooks: Webhooks,
    /// What goes when.
    pub retention: Retention,
    /// Workers on other machines.
    pub workers: WorkersAccess,
}

/// How a control finds workers on other machines and speaks to them.
#[derive(Debug, Clone)]
pub struct WorkersAccess {
    /// `HOST:PORT` of each.
    pub nodes: Vec<String>,
    /// `HOST:PORT` whose host has one address per worker.
    pub dns: Option<String>,
    /// What workers ask for, and what they register with.
    pub token: Option<SecretString>,
    /// How calls are encrypted; `None` = they are not.
    pub tls: Option<CallerTls>,
    /// Jobs with their secrets may be sent in the clear to other machines.
    pub trusted_network: bool,
    /// How workers that are down are brought up.
    pub waking: Waking,
}

/// TLS of calls to workers.
#[derive(Debug, Clone)]
pub struct CallerTls {
    /// Authorities to trust (PEM); `None` = the machine's own.
    pub ca: Option<Vec<u8>>,
    /// What is shown to workers that ask.
    pub identity: Option<PemIdentity>,
    /// The name expected in certificates; `None` = the host called.
    pub domain: Option<String>,
}

/// A certificate chain and its key.
#[derive(Debug, Clone)]
pub struct PemIdentity {
    /// PEM, leaf first.
    pub certificates: Vec<u8>,
    /// PEM.
    pub key: SecretString,
}

/// What a worker needs.
#[derive(Debug, Clone)]
pub struct WorkerPlan {
    /// Shared with controls.
    pub common: Common,
    /// Slots and tools.
    pub worker: Worker,
    /// How closely outputs are checked when the job does not say.
    pub verify: VerifyLevel,
}

/// How a worker is reached from other machines.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Address, token, controls.
    pub network: Network,
    /// How calls are encrypted; `None` = they are not.
    pub tls: Option<ListenerTls>,
}

/// TLS of a worker's listener.
#[derive(Debug, Clone)]
pub struct ListenerTls {
    /// What it shows.
    pub identity: PemIdentity,
    /// Authorities of callers (PEM); `None` = callers show nothing.
    pub client_ca: Option<Vec<u8>>,
}

impl Plan {
    /// The part of a configuration that a role needs; all that is wrong with it for this role at once.
    pub fn resolve(role: Role, config: &Config) -> Result<Self, Error> {
        let mut check = Check { config, faults: Vec::new() };
        let plan = match role {
            Role::Control => Self::Control(Box::new(check.control())),
            Role::Worker => Self::Worker(Box::new(worker(config)), Box::new(check.listener())),
            Role::All => Self::All(Box::new(check.control()), Box::new(worker(config))),
        };
        if check.faults.is_empty() { Ok(plan) } else { Err(invalid(check.faults)) }
    }
}

impl Config {
    /// Control and worker in one process, with no worker besides.
    #[must_use]
    pub fn alone(&self) -> (ControlPlan, WorkerPlan) {
        let nobody = WorkersAccess {
            nodes: Vec::new(),
            dns: None,
            token: None,
            tls: None,
            trusted_network: false,
            waking: Waking { waker: Waker::Nobody, ..self.workers.waking.clone() },
        };
        (control(self, Store::Sqlite, nobody), worker(self))
    }

    /// What every role needs.
    #[must_use]
    pub fn common(&self) -> Common {
        Common {
            id: self.worker.id.clone(),
            data_dir: self.server.data_dir.clone(),
            drain_timeout: self.server.drain_timeout,
            storage: self.storage.clone(),
            buckets: self.buckets.clone(),
            sources: self.sources.clone(),
            destination_roots: self.destination_roots.clone(),
        }
    }
}

fn control(config: &Config, store: Store, workers: WorkersAccess) -> ControlPlan {
    ControlPlan {
        common: config.common(),
        server: config.server.clone(),
        keys: config.keys.clone(),
        rate_per_minute: config.rate_per_minute,
        store,
        sealing_keys: config.sealing_keys.clone(),
        queue: config.queue,
        presets: config.presets.clone(),
        webhooks: config.webhooks.clone(),
        retention: config.retention,
        workers,
    }
}

fn worker(config: &Config) -> WorkerPlan {
    WorkerPlan { common: config.common(), worker: config.worker.clone(), verify: config.verify }
}

/// Notes what is wrong and goes on with something empty: the fault keeps it from being used.
struct Check<'a> {
    config: &'a Config,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn fault(&mut self, key: &str, problem: impl Into<String>) {
        let origin = self.config.origins.of(key);
        self.faults.push(Fault { key: key.to_owned(), problem: problem.into(), origin });
    }

    /// Without keys everybody who can connect is an administrator, so nobody else may be able to connect.
    fn control(&mut self) -> ControlPlan {
        let listen = self.config.server.listen;
        if !listen.ip().is_loopback() && self.config.keys.is_empty() {
            let problem = format!(
                "{listen} can be reached from other machines and there is no API key; \
                 add one to auth.keys (`flux key new`) or listen on 127.0.0.1"
            );
            self.fault("server.listen", problem);
        }
        let store = self.store();
        let access = self.access();
        control(self.config, store, access)
    }

    /// What one control seals every other must be able to open, so a key that only one of them has is of no use.
    fn store(&mut self) -> Store {
        let Store::Postgres(postgres) = &self.config.store else { return Store::Sqlite };
        if self.config.sealing_keys.is_empty() {
            let problem = "a record in PostgreSQL needs a key that all its controls know; make one with \
                           `openssl rand -base64 32`";
            self.fault("secrets.keys", problem);
        }
        let password = postgres.read_password().map_err(|problem| self.fault("store.password_file", problem));
        Store::Postgres(super::Postgres {
            password: password.ok().flatten(),
            password_file: None,
            ..postgres.clone()
        })
    }

    /// Jobs carry passwords, so what goes to another machine is encrypted, or somebody said that nobody listens there.
    fn access(&mut self) -> WorkersAccess {
        let workers = &self.config.workers;
        let nodes = workers.nodes.iter().enumerate().map(|(n, node)| (format!("workers.nodes[{n}]"), node));
        let dns = workers.dns.iter().map(|dns| ("workers.dns".to_owned(), dns));
        if !workers.tls && !workers.trusted_network {
            for (key, node) in nodes.chain(dns).filter(|(_, node)| !place::is_loopback(node)) {
                let problem = format!(
                    "{node} is on another machine and would be sent jobs with their secrets in the clear; \
                     set workers.tls = true, or workers.trusted_network = true where nobody else can listen"
                );
                self.fault(&key, problem);
            }
        }
        let document = &self.config.effective.workers;
        let tls = workers.tls.then(|| CallerTls {
            ca: self.pem("workers.tls_ca_file", document.tls_ca_file.as_deref()),
            identity: self.identity(
                "workers",
                document.tls_cert_file.as_deref(),
                document.tls_key_file.as_deref(),
            ),
            domain: document.tls_domain.clone(),
        });
        WorkersAccess {
            nodes: workers.nodes.clone(),
            dns: workers.dns.clone(),
            token: workers.token.clone(),
            tls,
            trusted_network: workers.trusted_network,
            waking: workers.waking.clone(),
        }
    }

    /// Whoever may call a worker may run jobs on it, so somebody must be kept out unless nobody else can call.
    fn listener(&mut self) -> Listener {
        let network = self.config.network.clone();
        let Document { worker, .. } = &self.config.effective;
        if !network.listen.ip().is_loopback()
            && network.token.is_none()
            && worker.tls_client_ca_file.is_none()
        {
            let problem = format!(
                "{} can be reached from other machines and nothing says who may call; set worker.token, or \
                 worker.tls_client_ca_file with worker.tls_cert_file and worker.tls_key_file, or listen on 127.0.0.1",
                network.listen
            );
            self.fault("worker.listen", problem);
        }
        let identity =
            self.identity("worker", worker.tls_cert_file.as_deref(), worker.tls_key_file.as_deref());
        let client_ca = self.pem("worker.tls_client_ca_file", worker.tls_client_ca_file.as_deref());
        Listener { network, tls: identity.map(|identity| ListenerTls { identity, client_ca }) }
    }

    fn identity(
        &mut self,
        section: &str,
        certificate: Option<&str>,
        key: Option<&str>,
    ) -> Option<PemIdentity> {
        let certificates = self.pem(&format!("{section}.tls_cert_file"), certificate);
        let at = format!("{section}.tls_key_file");
        let key = self.pem(&at, key)?;
        let Ok(key) = String::from_utf8(key) else {
            self.fault(&at, "is not PEM");
            return None;
        };
        Some(PemIdentity { certificates: certificates?, key: key.into() })
    }

    fn pem(&mut self, key: &str, file: Option<&str>) -> Option<Vec<u8>> {
        let path = self.config.cwd.join(file?);
        let read = read_pem(&path).map_err(|problem| self.fault(key, problem));
        Some(read.unwrap_or_default())
    }
}

fn read_pem(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_PEM_BYTES {
        return Err(format!("{} is larger than 1 MiB", path.display()));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let begins = bytes.windows(11).any(|window| window == b"-----BEGIN ");
    if begins { Ok(bytes) } else { Err(format!("{} is not PEM", path.display())) }
}

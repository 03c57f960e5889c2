//! The processes under attack: one control with a record of its own or two that share one, workers behind proxies, one
//! storage folder, one ffmpeg that breaks down.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::sync::watch;

use super::history::Job;
use super::plan::{Move, Record, Who};
use super::record;
use crate::support::fake::Fake;
use crate::support::postgres;
use crate::support::proxy::{Mode, Proxy};
use crate::support::server::{Role, Server, Start, left_behind};
use crate::support::{PATIENCE, eventually};

/// What controls that share a record seal with.
const SEAL: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

pub struct Cluster {
    pub dir: Arc<tempfile::TempDir>,
    pub fake: Fake,
    pub controls: Vec<Process>,
    pub workers: Vec<Process>,
    pub proxies: Vec<Proxy>,
    /// Where the controls are.
    pub urls: watch::Sender<Vec<String>>,
    database: Option<postgres::Server>,
    database_is: Database,
}

/// Sets the clock that sessions live by.
fn clock(hours: i64) -> String {
    let ahead = hours * 3_600_000_000;
    format!(
        "create or replace function flux_now() returns bigint language sql volatile \
         as $$ select (extract(epoch from clock_timestamp()) * 1000000)::bigint + {ahead} $$"
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Database {
    Up,
    Down,
}

/// A process that comes and goes.
pub struct Process {
    start: Start,
    running: Option<Server>,
    /// What its predecessors logged.
    log: Vec<String>,
}

impl Process {
    async fn start(start: Start) -> Self {
        let running = start.clone().server().await;
        Self { start, running: Some(running), log: Vec::new() }
    }

    /// It as it runs; only between `start` and `kill`.
    pub fn server(&self) -> &Server {
        self.running.as_ref().unwrap()
    }

    fn send(&self, signal: Signal) {
        if let Some(server) = &self.running {
            server.send(signal);
        }
    }

    fn kill(&mut self) {
        if let Some(mut server) = self.running.take() {
            server.kill();
            self.log.push(server.log());
        }
    }

    /// Starts it, if it is down; whether it was.
    async fn up(&mut self) -> bool {
        let down = self.running.is_none();
        if down {
            self.running = Some(self.start.clone().server().await);
        }
        down
    }

    /// Asks it to stop and waits for it; what is left of it then.
    async fn stop(&mut self) -> Vec<String> {
        let mut server = self.running.take().unwrap();
        let ended = tokio::time::timeout(PATIENCE, server.signal(Signal::TERM)).await;
        let badly = (ended != Ok(Some(0))).then(|| format!("a process that ended with {ended:?}"));
        self.log.push(server.log());
        let folders = left_behind(&server.data());
        badly.into_iter().chain(folders.iter().map(|path| path.display().to_string())).collect()
    }

    /// All that it and its predecessors logged.
    pub fn log(&self) -> String {
        let now = self.running.as_ref().map(Server::log);
        self.log.iter().cloned().chain(now).collect::<Vec<_>>().join("\n")
    }
}

impl Cluster {
    pub async fn start(record: Record, workers: usize, slots: u32) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let fake = Fake::install(&dir.path().join("bin"));
        let storage = format!("file:{}", dir.path().join("storage").display());
        let common = |role, name: &str| {
            let own = dir.path().join(name);
            std::fs::create_dir_all(&own).unwrap();
            Start::role(role).set("FLUX__STORAGE__URL", &storage).folder(&own)
        };
        let worker = async |n: usize| {
            let name = format!("w{n}");
            let start = common(Role::Worker, &name)
                .set("FLUX__WORKER__ID", &name)
                .set("FLUX__WORKER__SLOTS", slots.to_string())
                .set("FLUX__WORKER__FFMPEG", fake.program().display().to_string())
                // It keeps its accounts in a folder of its own.
                .set("FLUX__SANDBOX__MODE", "off")
                .set("FLUX__WORKER__STALL_TIMEOUT", "8s")
                // On a busy machine a nice encoder may stand still for longer than that.
                .set("FLUX__WORKER__NICE", "0")
                // Results that no control will ask for any more are not waited for long.
                .set("FLUX__SERVER__DRAIN_TIMEOUT", "1s");
            let process = Process::start(start).await;
            let proxy = Proxy::before(process.server().address());
            (process, proxy)
        };
        let (workers, proxies): (Vec<_>, Vec<_>) =
            join_all((0..workers).map(worker)).await.into_iter().unzip();
        let nodes: Vec<_> = proxies.iter().map(Proxy::address).collect();
        let database = (record == Record::Shared).then(postgres::Server::start);
        let control = async |n: usize| {
            let start =
                common(Role::Control, &format!("control{n}")).set("FLUX__WORKERS__NODES", nodes.join(","));
            let start = match &database {
                Some(database) => {
                    start.set("FLUX__STORE__URL", database.url()).set("FLUX__SECRETS__KEYS", SEAL)
                }
                None => start,
            };
            Process::start(start).await
        };
        let controls = join_all((0..record.controls()).map(control)).await;
        let cluster = Self {
            dir,
            fake,
            controls,
            workers,
            proxies,
            urls: watch::Sender::default(),
            database_is: Database::Up,
            database,
        };
        cluster.tell();
        cluster
    }

    /// The first control.
    pub fn control(&self) -> &Server {
        self.controls[0].server()
    }

    /// Every job on record.
    pub async fn jobs(&self) -> Vec<Job> {
        match &self.database {
            Some(database) => record::of_server(&database.url()).await,
            None => record::of_folder(&self.dir.path().join("control0/data")).await,
        }
    }

    /// Clients go to those that run.
    fn tell(&self) {
        let running = self.controls.iter().filter_map(|control| control.running.as_ref());
        self.urls.send_replace(running.map(|server| server.url.clone()).collect());
    }

    pub async fn make(&mut self, step: Move) {
        match step {
            Move::Kill(Who::Control(n), _) => {
                self.controls[n].kill();
                self.tell();
            }
            Move::Kill(Who::Worker(n), shown) => {
                self.workers[n].kill();
                self.proxies[n].reset();
                self.proxies[n].set(shown);
            }
            Move::Start(Who::Control(n)) => {
                if self.controls[n].up().await {
                    self.tell();
                }
            }
            Move::Start(Who::Worker(n)) => {
                if self.workers[n].up().await {
                    self.proxies[n].lead(self.workers[n].server().address());
                    self.proxies[n].set(Mode::Pass);
                }
            }
            Move::Freeze(who) => self.process(who).send(Signal::STOP),
            Move::Thaw(who) => self.process(who).send(Signal::CONT),
            Move::Network(n, mode) => self.proxies[n].set(mode),
            Move::Reset(n) => self.proxies[n].reset(),
            Move::HalfClose(n) => self.proxies[n].half_close(),
            Move::CrashRecord => {
                self.database.iter_mut().for_each(postgres::Server::crash);
                self.database_is = Database::Down;
            }
            Move::ResumeRecord if self.database_is == Database::Down => {
                self.database.iter_mut().for_each(postgres::Server::resume);
                self.database_is = Database::Up;
            }
            Move::SetClock(hours) if self.database_is == Database::Up => {
                if let Some(database) = &self.database {
                    postgres::run(&database.url(), &clock(hours)).await;
                }
            }
            Move::ResumeRecord | Move::SetClock(_) => {}
        }
    }

    fn process(&self, who: Who) -> &Process {
        match who {
            Who::Control(n) => &self.controls[n],
            Who::Worker(n) => &self.workers[n],
        }
    }

    /// Everybody runs and hears everybody.
    pub async fn heal(&mut self) {
        self.make(Move::ResumeRecord).await;
        self.make(Move::SetClock(0)).await;
        for who in self.everybody() {
            self.make(Move::Thaw(who)).await;
            self.make(Move::Start(who)).await;
        }
        for proxy in &self.proxies {
            proxy.set(Mode::Pass);
        }
    }

    fn everybody(&self) -> Vec<Who> {
        let controls = (0..self.controls.len()).map(Who::Control);
        (0..self.workers.len()).map(Who::Worker).chain(controls).collect()
    }

    /// Where results go.
    pub fn storage(&self) -> PathBuf {
        self.dir.path().join("storage")
    }

    /// Tools that run for any worker.
    pub fn tools(&self) -> Vec<i32> {
        let of = |n| crate::support::server::processes_below(&self.dir.path().join(format!("w{n}")));
        (0..self.workers.len()).flat_map(of).collect()
    }

    /// Asks everybody to stop, workers last, and waits for it; what is left then, besides results.
    pub async fn stop(&mut self) -> Vec<String> {
        let mut left = join_all(self.controls.iter_mut().map(Process::stop)).await.concat();
        left.extend(join_all(self.workers.iter_mut().map(Process::stop)).await.concat());
        left.extend(self.tools().iter().map(|pid| format!("process {pid}")));
        left.extend(record::files(&self.storage()).1);
        left
    }

    /// Waits until no tool runs and what controls that died left at the destination is swept.
    pub async fn quiet(&self) {
        eventually("tools of runs that are over have ended", async || self.tools().is_empty().then_some(()))
            .await;
        let tokens = || record::files(&self.storage()).1.iter().any(|name| name.contains(".token"));
        eventually("test files are swept", async || (!tokens()).then_some(())).await;
    }
}

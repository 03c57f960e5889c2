//! The worker as its control sees it: [`WorkerApi`] over the slot table.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::log::RunLog;
use super::run::{self, Stop, StopReason};
use super::slots::{Admission, Slots, Wanted};
use super::transcode::Limits;
use super::workspace::WorkRoot;
use crate::domain::{BootId, Failure, IdSource, RunId, SessionId, WorkerId};
use crate::lifecycle::{Lifecycle, TaskKind};
use crate::media::Toolbox;
use crate::media::tools::Capabilities;
use crate::rpc::wire::{
    Action, PermitGrant, Renewal, Renewed, ReservationId, Reserved, RunEvent, RunRequest, WorkerReport,
};
use crate::rpc::{Refusal, WorkerApi};
use crate::storage::{Destinations, Handle, Sources};

/// Publications that may be sent at once per slot: sending needs no CPU slot, but it is not free either.
const SENDS_PER_SLOT: usize = 2;

/// What every ffmpeg and ffprobe of this worker runs under (see `media::process`).
const PROTECTIONS: &[&str] =
    &["no environment", "process group", "parent-death signal", "demuxer allow-list"];

/// How often runs without a control are looked for.
const ORPHAN_TICK: Duration = Duration::from_secs(30);

/// What a worker is told about itself.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Its name.
    pub id: WorkerId,
    /// Its incarnation.
    pub boot: BootId,
    /// Tasks it runs at once.
    pub slots: usize,
    /// Cores it may use.
    pub cores: usize,
    /// How long a run goes on without a control; its result is held that long too.
    pub orphan_grace: Duration,
    /// Bounds of a run.
    pub limits: Limits,
}

/// What a worker is made of.
pub struct Deps {
    /// Where sources come from.
    pub sources: Sources,
    /// Where results go.
    pub destinations: Destinations,
    /// ffmpeg, ffprobe and the thread that starts them.
    pub toolbox: Toolbox,
    /// What they can do; `None` until it was tried.
    pub capabilities: watch::Receiver<Option<Capabilities>>,
    /// Fresh ids.
    pub ids: Arc<dyn IdSource>,
    /// Who waits for its tasks at shutdown.
    pub lifecycle: Lifecycle,
    /// Its work folder.
    pub root: WorkRoot,
}

/// A worker. Cheap to clone.
#[derive(Clone)]
pub struct Worker(Arc<Inner>);

pub(super) struct Inner {
    pub(super) settings: WorkerSettings,
    pub(super) deps: Deps,
    pub(super) sends: Semaphore,
    started: Instant,
    slots: Mutex<Slots<RunHandle>>,
}

/// What the table keeps of a run.
#[derive(Debug)]
struct RunHandle {
    log: RunLog,
    stop: Stop,
    permits: mpsc::Sender<PermitGrant>,
    /// Fires when the run's body has ended and its processes are gone.
    ended: CancellationToken,
    last_heard: Mutex<Instant>,
}

/// What a run's body is given.
pub(super) struct RunContext {
    pub(super) worker: Arc<Inner>,
    pub(super) run: RunId,
    pub(super) log: RunLog,
    pub(super) stop: Stop,
    pub(super) permits: mpsc::Receiver<PermitGrant>,
}

impl Worker {
    /// Starts its housekeeping and returns it.
    #[must_use]
    pub fn start(settings: WorkerSettings, deps: Deps) -> Self {
        let slots = Mutex::new(Slots::new(settings.slots));
        let sends = Semaphore::new(settings.slots * SENDS_PER_SLOT);
        let inner = Arc::new(Inner { settings, deps, sends, started: Instant::now(), slots });
        let lifecycle = inner.deps.lifecycle.clone();
        lifecycle.spawn(TaskKind::Background, "sweep", Arc::clone(&inner).sweep());
        lifecycle.spawn(TaskKind::Background, "orphans", Arc::clone(&inner).end_orphans());
        Self(inner)
    }

    /// Takes nothing more; what runs goes on.
    pub fn drain(&self) {
        self.0.slots().drain();
    }

    /// Gives back what runs: ffmpeg is killed, the control is told, nothing is charged.
    pub fn release_all(&self) {
        let mut slots = self.0.slots();
        slots.drain();
        for (_, held) in slots.iter() {
            held.handle.stop.request(StopReason::Drain);
        }
    }

    /// Whether nothing is held, reserved or unacknowledged.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.0.slots().idle(Instant::now())
    }
}

impl Inner {
    /// Time since the worker began: what heartbeats carry and permits are counted from.
    pub(super) fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    /// Frees the CPU slot of a run that only sends, or that only waits for its acknowledgement.
    pub(super) fn vacate(&self, run: RunId) {
        self.slots().vacate(run);
    }

    /// Runs that use a CPU slot now.
    pub(super) fn busy(&self) -> usize {
        self.slots().busy()
    }

    fn slots(&self) -> MutexGuard<'_, Slots<RunHandle>> {
        // The table is consistent between statements; a panicking holder leaves it usable.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, wanted: Wanted, older: Vec<CancellationToken>, request: RunRequest) -> RunLog {
        let log = RunLog::new(self.started);
        let stop = Stop::new(self.deps.lifecycle.hard());
        // One waits for its permit at a time; a second answer to the same question is dropped.
        let (permits, receiver) = mpsc::channel(4);
        let ended = CancellationToken::new();
        let handle = RunHandle {
            log: log.clone(),
            stop: stop.clone(),
            permits,
            ended: ended.clone(),
            last_heard: Mutex::new(Instant::now()),
        };
        self.slots().occupy(wanted, handle);
        let context = RunContext {
            worker: Arc::clone(self),
            run: wanted.run,
            log: log.clone(),
            stop,
            permits: receiver,
        };
        let worker = Arc::clone(self);
        self.deps.lifecycle.spawn(TaskKind::Background, "run", async move {
            // PROTOCOL F2: the old run's processes are gone before the new one begins.
            for token in older {
                token.cancelled().await;
            }
            let forgotten = run::run(context, request).await;
            ended.cancel();
            worker.vacate(wanted.run);
            if forgotten {
                worker.slots().remove(wanted.run);
            }
        });
        log
    }

    fn attach(&self, run: RunId) -> Option<RunLog> {
        let slots = self.slots();
        let handle = &slots.get(run)?.handle;
        handle.heard();
        Some(handle.log.clone())
    }

    fn stop(&self, run: RunId, reason: StopReason) -> Option<CancellationToken> {
        let slots = self.slots();
        let handle = &slots.get(run)?.handle;
        handle.stop.request(reason);
        Some(handle.ended.clone())
    }

    async fn sweep(self: Arc<Self>) {
        let worker = Arc::clone(&self);
        let stale = match tokio::task::spawn_blocking(move || worker.deps.root.stale()).await {
            Ok(Ok(stale)) => stale,
            Ok(Err(error)) => return tracing::warn!(error = ?error, "could not look for stale work folders"),
            Err(_) => return,
        };
        for folder in stale {
            for handle in &folder.handles {
                if let Err(failure) = self.destroy(handle).await {
                    tracing::warn!(%failure, detail = failure.detail, "could not destroy a stale publishing handle");
                }
            }
            tracing::info!(handles = folder.handles.len(), "swept a stale work folder");
            let _ = tokio::task::spawn_blocking(move || folder.remove()).await;
        }
    }

    async fn destroy(&self, handle: &str) -> Result<(), Failure> {
        self.deps.destinations.destroy(&Handle::from_json(handle)?).await.map(drop)
    }

    async fn end_orphans(self: Arc<Self>) {
        let soft = self.deps.lifecycle.soft();
        loop {
            tokio::select! {
                () = soft.cancelled() => return,
                () = tokio::time::sleep(ORPHAN_TICK) => {}
            }
            let grace = self.settings.orphan_grace;
            let orphans: Vec<_> = {
                let slots = self.slots();
                slots.iter().filter(|(_, held)| held.handle.silence() > grace).map(|(run, _)| run).collect()
            };
            for run in orphans {
                tracing::warn!(run.id = %run, "no control asked for this run; giving it up");
                self.stop(run, StopReason::Orphan);
                let over = self.slots().get(run).is_some_and(|held| held.handle.log.over());
                if over {
                    self.slots().remove(run);
                }
            }
        }
    }

    fn feed(&self, log: &RunLog) -> mpsc::Receiver<RunEvent> {
        let (events, feed) = log.read();
        self.deps.lifecycle.spawn(TaskKind::Background, "run events", feed);
        events
    }
}

impl RunHandle {
    fn heard(&self) {
        *self.last_heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn silence(&self) -> Duration {
        self.last_heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

#[async_trait]
impl WorkerApi for Worker {
    async fn run(&self, request: RunRequest) -> Result<mpsc::Receiver<RunEvent>, Refusal> {
        if request.boot != self.0.settings.boot {
            return Err(Refusal::NotFound);
        }
        let run = request.run;
        let Action::Start(start) = &request.action else {
            return self.0.attach(run).map(|log| self.0.feed(&log)).ok_or(Refusal::NotFound);
        };
        let wanted = Wanted { job: request.job, task: request.task, run, epoch: request.epoch };
        let admission = self.0.slots().admit(wanted, start.reservation, Instant::now())?;
        let log = match admission {
            Admission::Known => self.0.attach(run).ok_or(Refusal::NotFound)?,
            Admission::Begin { older } => {
                let older =
                    older.into_iter().filter_map(|run| self.0.stop(run, StopReason::Superseded)).collect();
                self.0.begin(wanted, older, request)
            }
        };
        Ok(self.0.feed(&log))
    }

    async fn status(&self) -> WorkerReport {
        let (busy, jobs, draining, total) = {
            let slots = self.0.slots();
            let jobs = slots.iter().filter(|(_, held)| held.occupies).map(|(_, held)| held.job).collect();
            (slots.busy(), jobs, slots.draining(), slots.total())
        };
        let known = self.0.deps.capabilities.borrow().clone();
        let (encoders, ffmpeg_version) = known.map_or_else(Default::default, |known| {
            (known.encoders.iter().map(|name| (*name).to_owned()).collect(), known.version)
        });
        WorkerReport {
            worker: self.0.settings.id.clone(),
            boot: self.0.settings.boot,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: u32::try_from(total).unwrap_or(u32::MAX),
            busy: u32::try_from(busy).unwrap_or(u32::MAX),
            jobs,
            draining,
            encoders,
            ffmpeg_version,
            sandbox: PROTECTIONS.iter().map(|name| (*name).to_owned()).collect(),
            disk_free: disk_free(self.0.deps.root.path()),
        }
    }

    async fn cancel(&self, run: RunId) -> bool {
        self.0.stop(run, StopReason::Cancelled).is_some()
    }

    async fn reserve(&self, slots: u32, _: SessionId) -> Reserved {
        let wanted = usize::try_from(slots).unwrap_or(usize::MAX);
        let mut table = self.0.slots();
        let reservations = table.reserve(wanted, Instant::now(), || ReservationId(self.0.deps.ids.random()));
        Reserved { boot: self.0.settings.boot, reservations, draining: table.draining() }
    }

    async fn renew(&self, renewal: Renewal) -> Renewed {
        let slots = self.0.slots();
        for run in &renewal.runs {
            if let Some(held) = slots.get(*run) {
                held.handle.heard();
            }
        }
        Renewed { boot: self.0.settings.boot, runs: slots.iter().map(|(run, _)| run).collect() }
    }

    async fn permit(&self, grant: PermitGrant) -> Result<(), Refusal> {
        let slots = self.0.slots();
        let handle = &slots.get(grant.run).ok_or(Refusal::NotFound)?.handle;
        handle.heard();
        // Full means that answers to the same question wait already.
        let _ = handle.permits.try_send(grant);
        Ok(())
    }

    async fn ack(&self, run: RunId) {
        let mut slots = self.0.slots();
        if slots.get(run).is_some_and(|held| held.handle.log.over()) {
            slots.remove(run);
        }
    }
}

/// Bytes free for us where work folders live; 0 when the question fails.
fn disk_free(path: &std::path::Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

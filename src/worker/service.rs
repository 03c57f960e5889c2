//! The worker as its control sees it: [`WorkerApi`] over the slot table.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::delivery::Delivery;
use super::disk::{self, Disk, Share};
use super::log::RunLog;
use super::probe::{Prober, ProberParts};
use super::run::{self, Stop, StopReason};
use super::slots::{Admission, Leave, Slots, Wanted};
use super::transcode::Limits;
use super::workspace::{Stale, WorkRoot};
use crate::domain::{BootId, IdSource, RunId, SessionId, WorkerId};
use crate::lifecycle::{Lifecycle, TaskKind};
use crate::media::Toolbox;
use crate::media::tools::Capabilities;
use crate::rpc::wire::{
    Action, Given, PROTOCOL, PermitGrant, Renewal, Renewed, ReservationId, Reserved, RunEvent, RunRequest,
    WorkerReport,
};
use crate::rpc::{Refusal, WorkerApi};
use crate::storage::{Destinations, Handle, Sources};

/// Publications that may be sent at once per slot: sending needs no CPU slot, but it is not free either.
const SENDS_PER_SLOT: usize = 2;

/// What every ffmpeg and ffprobe runs under on every kernel (see `media::process`).
const PROTECTIONS: &[&str] = &[
    "no environment",
    "no new privileges",
    "process group",
    "parent-death signal",
    "rlimits (core, cpu, data, fsize, nofile)",
    "demuxer allow-list",
];

/// How often runs without a control and handles that were left are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(30);

/// A session that was silent for so long is over (30 s, PROTOCOL §1.6), and another one had time to take its runs up.
const SESSION_LIFE: Duration = Duration::from_secs(90);

/// Renewals without a run after which it is stopped (PROTOCOL §1.7).
const MOST_MISSED: u32 = 2;

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
    /// Disk that is set aside for each run beside what it will write, bytes; 0 = none is set aside at all.
    pub disk_floor: u64,
    /// What of the sandbox was found to hold here.
    pub protections: Vec<String>,
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
pub struct Worker(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) settings: WorkerSettings,
    pub(super) deps: Deps,
    pub(super) sends: Semaphore,
    pub(super) disk: Arc<Disk>,
    started: Instant,
    slots: Mutex<Slots<RunHandle>>,
}

/// What the table keeps of a run.
#[derive(Debug)]
struct RunHandle {
    log: RunLog,
    stop: Stop,
    /// The latest answer; the run asks one question at a time.
    permits: watch::Sender<Option<PermitGrant>>,
    delivery: Delivery,
    /// Fires when the run's body has ended and its processes are gone.
    ended: CancellationToken,
    contact: Mutex<Contact>,
}

/// When a control last spoke of a run.
#[derive(Debug)]
struct Contact {
    /// The session that holds it.
    session: SessionId,
    heard: Instant,
    /// Renewals in a row that did not list it.
    missed: u32,
}

/// What a run's body is given.
pub(super) struct RunContext {
    pub(super) worker: Arc<Inner>,
    pub(super) run: RunId,
    pub(super) log: RunLog,
    pub(super) stop: Stop,
    pub(super) permits: watch::Receiver<Option<PermitGrant>>,
    pub(super) delivery: Delivery,
    /// Its part of the disk.
    pub(super) share: Share,
}

impl Worker {
    /// Starts its housekeeping and returns it.
    #[must_use]
    pub fn start(settings: WorkerSettings, deps: Deps) -> Self {
        Self::start_on(settings, deps, Box::new(disk::look))
    }

    /// On a disk as `look` shows it.
    pub(super) fn start_on(settings: WorkerSettings, deps: Deps, look: disk::Look) -> Self {
        let disk = Arc::new(Disk::new(deps.root.path(), settings.disk_floor, look));
        let started = Instant::now();
        let slots = Mutex::new(Slots::new(settings.slots, started));
        let sends = Semaphore::new(settings.slots * SENDS_PER_SLOT);
        let inner = Arc::new(Inner { settings, deps, sends, disk, started, slots });
        let lifecycle = inner.deps.lifecycle.clone();
        lifecycle.spawn(TaskKind::Background, "sweep", Arc::clone(&inner).sweep());
        lifecycle.spawn(TaskKind::Background, "housekeeping", Arc::clone(&inner).housekeeping());
        Self(inner)
    }

    /// Answers what sources are, with this worker's tools and limits, beside its slots.
    #[must_use]
    pub fn prober(&self) -> Prober {
        let Deps { sources, toolbox, ids, root, .. } = &self.0.deps;
        Prober::new(ProberParts {
            sources: sources.clone(),
            toolbox: toolbox.clone(),
            ids: Arc::clone(ids),
            limits: self.0.settings.limits.source,
            folder: root.path().to_owned(),
        })
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

    /// Resolves when this worker has decided to leave because nothing was held or wanted here for `timeout`: it
    /// drains from then on. Never, once somebody else drains it.
    ///
    /// The time begins when it is known what this worker can do: before that it gets no work.
    pub async fn idle_out(&self, timeout: Duration) {
        // An error means that it will never be known.
        let _ = self.0.deps.capabilities.clone().wait_for(Option::is_some).await;
        self.0.slots().wanted(Instant::now());
        loop {
            let leave = self.0.slots().leave_if_idle(Instant::now(), timeout);
            match leave {
                Leave::Now => return,
                Leave::NotBefore(at) => tokio::time::sleep_until(at).await,
                Leave::Draining => std::future::pending().await,
            }
        }
    }

    /// Tasks it runs at once.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.0.settings.slots
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

    fn protections(&self) -> Vec<String> {
        let always = PROTECTIONS.iter().map(|name| (*name).to_owned());
        always.chain(self.settings.protections.iter().cloned()).collect()
    }

    /// Runs that use a CPU slot now.
    pub(super) fn busy(&self) -> usize {
        self.slots().busy()
    }

    /// Runs that are kept, ended or not.
    #[cfg(test)]
    pub(super) fn runs(&self) -> Vec<RunId> {
        self.slots().iter().map(|(run, _)| run).collect()
    }

    fn slots(&self) -> MutexGuard<'_, Slots<RunHandle>> {
        // The table is consistent between statements; a panicking holder leaves it usable.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins what was admitted, under the same lock, so that the slot is never free in between.
    fn begin(
        self: &Arc<Self>,
        slots: &mut Slots<RunHandle>,
        wanted: Wanted,
        older: &[RunId],
        request: RunRequest,
    ) -> RunLog {
        let stopped = |run: &RunId| {
            let handle = &slots.get(*run)?.handle;
            handle.stop.request(StopReason::Superseded);
            Some(handle.ended.clone())
        };
        let older: Vec<_> = older.iter().filter_map(stopped).collect();
        let log = RunLog::new(self.started);
        let stop = Stop::new(self.deps.lifecycle.hard());
        let (permits, receiver) = watch::channel(None);
        let (ended, delivery) = (CancellationToken::new(), Delivery::default());
        let contact = Contact { session: request.session, heard: Instant::now(), missed: 0 };
        let handle = RunHandle {
            log: log.clone(),
            stop: stop.clone(),
            permits,
            delivery: delivery.clone(),
            ended: ended.clone(),
            contact: Mutex::new(contact),
        };
        slots.occupy(wanted, handle);
        let over = stop.clone();
        let context = RunContext {
            worker: Arc::clone(self),
            run: wanted.run,
            log: log.clone(),
            stop,
            permits: receiver,
            delivery,
            share: self.disk.hold(wanted.run),
        };
        let worker = Arc::clone(self);
        self.deps.lifecycle.spawn(TaskKind::Background, "run", async move {
            // PROTOCOL F2: the old run's processes are gone before the new one begins.
            for token in older {
                token.cancelled().await;
            }
            run::run(context, request).await;
            ended.cancel();
            worker.vacate(wanted.run);
            if over.unwanted() {
                worker.slots().remove(wanted.run, Instant::now());
            }
        });
        log
    }

    fn attach(&self, run: RunId, session: SessionId) -> Option<RunLog> {
        let slots = self.slots();
        let handle = &slots.get(run)?.handle;
        handle.heard(Some(session));
        Some(handle.log.clone())
    }

    /// Forgets a run that has told its end.
    fn put_away(&self, run: RunId) {
        let mut slots = self.slots();
        if slots.get(run).is_some_and(|held| held.handle.log.over()) {
            slots.remove(run, Instant::now());
        }
    }

    /// Whether a session other than this one holds the run.
    fn taken_up_by_another(&self, run: RunId, session: SessionId) -> bool {
        self.slots().get(run).is_some_and(|held| held.handle.contact().session != session)
    }

    /// Whether there is such a run to stop.
    fn stop(&self, run: RunId, reason: StopReason) -> bool {
        let slots = self.slots();
        let held = slots.get(run);
        if let Some(held) = held {
            held.handle.stop.request(reason);
        }
        held.is_some()
    }

    async fn sweep(self: Arc<Self>) {
        let worker = Arc::clone(&self);
        let stale = match tokio::task::spawn_blocking(move || worker.deps.root.stale()).await {
            Ok(Ok(stale)) => stale,
            Ok(Err(error)) => return tracing::warn!(error = ?error, "could not look for stale work folders"),
            Err(_) => return,
        };
        for folder in stale {
            tracing::info!(handles = folder.handles.len(), "sweeping a stale work folder");
            self.clear(folder).await;
        }
    }

    /// Destroys what a folder's journals name; what cannot be destroyed now stays journaled.
    async fn clear(&self, stale: Stale) {
        let mut open = 0;
        for handle in &stale.handles {
            let destroyed = match Handle::from_json(handle) {
                // What the record knows of it, the next run of its task resolves with the credentials that it brings.
                Ok(handle) if handle.needs_secrets() => {
                    let publication = handle.publication();
                    tracing::warn!(%publication, "an unfinished upload stays where its request's credentials are needed");
                    Ok(())
                }
                Ok(handle) => self.deps.destinations.destroy(&handle).await.map(drop),
                // The last line of a torn journal was never sent anywhere.
                Err(failure) => {
                    tracing::warn!(%failure, detail = failure.detail, "a journal has a line that is no handle");
                    Ok(())
                }
            };
            if let Err(failure) = destroyed {
                open += 1;
                tracing::warn!(%failure, detail = failure.detail, "could not destroy a stale publishing handle");
            }
        }
        let clear = move || if open == 0 { stale.remove() } else { stale.shrink() };
        let _ = tokio::task::spawn_blocking(clear).await;
    }

    async fn housekeeping(self: Arc<Self>) {
        let soft = self.deps.lifecycle.soft();
        loop {
            tokio::select! {
                () = soft.cancelled() => return,
                () = tokio::time::sleep(HOUSEKEEPING) => {}
            }
            self.end_orphans();
            self.sweep_own().await;
        }
    }

    /// Gives up runs that no control asked for in `orphan_grace`.
    pub(super) fn end_orphans(&self) {
        let grace = self.settings.orphan_grace;
        let orphans: Vec<_> = {
            let slots = self.slots();
            slots.iter().filter(|(_, held)| held.handle.silence() > grace).map(|(run, _)| run).collect()
        };
        for run in orphans {
            tracing::warn!(run.id = %run, "no control asked for this run; giving it up");
            self.stop(run, StopReason::Orphan);
            self.put_away(run);
        }
    }

    /// Destroys handles that ended runs could not.
    pub(super) async fn sweep_own(self: &Arc<Self>) {
        let worker = Arc::clone(self);
        let lives = move |run| worker.slots().get(run).is_some_and(|held| !held.handle.log.over());
        let worker = Arc::clone(self);
        match tokio::task::spawn_blocking(move || worker.deps.root.left(lives)).await {
            Ok(Ok(left)) => {
                for stale in left {
                    self.clear(stale).await;
                }
            }
            Ok(Err(error)) => tracing::warn!(error = ?error, "could not look for journals"),
            Err(_) => {}
        }
    }

    fn feed(&self, log: &RunLog) -> mpsc::Receiver<RunEvent> {
        let (events, feed) = log.read();
        self.deps.lifecycle.spawn(TaskKind::Background, "run events", feed);
        events
    }
}

impl RunHandle {
    fn contact(&self) -> MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A control spoke of the run; a session that does holds it from now on.
    fn heard(&self, session: Option<SessionId>) {
        let mut contact = self.contact();
        let session = session.unwrap_or(contact.session);
        *contact = Contact { session, heard: Instant::now(), missed: 0 };
    }

    fn silence(&self) -> Duration {
        self.contact().heard.elapsed()
    }

    /// A session renewed without listing the run; whether that was once too often. Another session's list says nothing
    /// about it, unless its own is over.
    fn missed(&self, session: SessionId) -> bool {
        let mut contact = self.contact();
        if contact.session == session || contact.heard.elapsed() > SESSION_LIFE {
            contact.missed += 1;
        }
        contact.missed >= MOST_MISSED
    }
}

#[async_trait]
impl WorkerApi for Worker {
    async fn run(&self, request: RunRequest) -> Result<mpsc::Receiver<RunEvent>, Refusal> {
        if request.boot != self.0.settings.boot {
            return Err(Refusal::NotFound);
        }
        let (run, session) = (request.run, request.session);
        let Action::Start(start) = &request.action else {
            let log = self.0.attach(run, request.session);
            return log.map(|log| self.0.feed(&log)).ok_or(Refusal::NotFound);
        };
        let (job, task, epoch) = (request.job, request.task, request.epoch);
        let wanted = Wanted { job, task, run, epoch, company: start.company };
        let begun = {
            let mut slots = self.0.slots();
            match slots.admit(wanted, start.reservation, Instant::now())? {
                Admission::Known => None,
                Admission::Begin { older } => Some(self.0.begin(&mut slots, wanted, &older, request)),
            }
        };
        let log = match begun {
            Some(log) => log,
            None => self.0.attach(run, session).ok_or(Refusal::NotFound)?,
        };
        Ok(self.0.feed(&log))
    }

    async fn status(&self) -> WorkerReport {
        let (busy, jobs, draining, total) = {
            let slots = self.0.slots();
            let runs = slots.iter().filter(|(_, held)| !held.handle.log.over());
            let jobs = runs.map(|(_, held)| held.job).collect();
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
            sandbox: self.0.protections(),
            disk_free: disk::look(self.0.deps.root.path()).free,
            protocol: PROTOCOL,
        }
    }

    async fn cancel(&self, run: RunId, by: Option<SessionId>) -> bool {
        if by.is_some_and(|session| self.0.taken_up_by_another(run, session)) {
            tracing::info!(run.id = %run, "a session that does not hold this run any more wants it stopped: it goes on");
            return false;
        }
        let known = self.0.stop(run, StopReason::Cancelled);
        // Whoever cancels a run that has ended will not acknowledge it.
        self.0.put_away(run);
        known
    }

    async fn reserve(&self, slots: u32, _: SessionId) -> Reserved {
        let wanted = usize::try_from(slots).unwrap_or(usize::MAX);
        let mut table = self.0.slots();
        let now = Instant::now();
        let fitting = wanted.min(self.0.disk.room(table.promised(now)));
        if fitting < wanted && !table.draining() {
            tracing::warn!(wanted, fitting, "the disk of worker.work_dir has no room for more runs");
        }
        let reservations = table.reserve(fitting, now, || ReservationId(self.0.deps.ids.random()));
        Reserved { boot: self.0.settings.boot, reservations, draining: table.draining() }
    }

    async fn hand_back(&self, reservations: Vec<ReservationId>) {
        self.0.slots().hand_back(&reservations);
    }

    async fn renew(&self, renewal: Renewal) -> Renewed {
        let (runs, unlisted): (Vec<_>, Vec<_>) = {
            let slots = self.0.slots();
            let listed = |run: RunId, handle: &RunHandle| {
                if renewal.runs.contains(&run) {
                    handle.heard(Some(renewal.session));
                    return true;
                }
                !handle.missed(renewal.session)
            };
            slots.iter().map(|(run, held)| (run, listed(run, &held.handle))).partition(|(_, listed)| *listed)
        };
        for (run, _) in unlisted {
            tracing::warn!(run.id = %run, "no control holds this run any more; stopping it");
            self.0.stop(run, StopReason::Cancelled);
            self.0.put_away(run);
        }
        Renewed { boot: self.0.settings.boot, runs: runs.into_iter().map(|(run, _)| run).collect() }
    }

    async fn permit(&self, grant: PermitGrant) -> Result<(), Refusal> {
        let slots = self.0.slots();
        let handle = &slots.get(grant.run).ok_or(Refusal::NotFound)?.handle;
        handle.heard(None);
        handle.permits.send_replace(Some(grant));
        Ok(())
    }

    async fn put_source(&self, run: RunId, given: Given) -> Result<(), Refusal> {
        let delivery = self.0.slots().get(run).map(|held| held.handle.delivery.clone());
        delivery.ok_or(Refusal::NotFound)?.take(given).await
    }

    async fn read_token(&self, id: Uuid) -> Result<Option<String>, String> {
        let read = self.0.deps.destinations.read_token(id).await;
        read.map_err(|failure| failure.to_string())
    }

    async fn ack(&self, run: RunId) {
        self.0.put_away(run);
    }
}

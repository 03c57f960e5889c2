//! The control role: accepts, plans, dispatches, watches and cleans up.
//!
//! Owns dispatch, the fleet of workers, sessions, live progress and the reconcilers (retention, secrets, garbage).
//! Must not know: HTTP, SQL, ffmpeg, destinations' details. Media never passes through here.
//! Invariant: time never decides safety; every decision about a run is a fenced verb of the store, and an answer of
//! `Lost` makes the control forget the run and stop it.
//!
//! Who does what, each in its file: `dispatch` fills slots, `driver` follows one run, `minder` looks after one worker,
//! `discovery` finds workers, `waker` brings them up, `storage` sees that they share it, `carry` sends them sources, `session` keeps the lease, `takeover` takes up what others left, `roster` writes down where workers are, `hub` lets
//! readers follow, `pulse` what other controls run, `reconcile` cleans up, `webhooks` tells receivers, `progress` writes high-water marks.
//! What they share is `shared`; tables that several touch (`runs`, `fleet`) are leaves that no wait happens under.
//! To add upkeep, write a `Reconciler`; to add a way for workers to be found, see `discovery`; to be woken, `waker`.

mod carry;
mod discovery;
mod dispatch;
mod driver;
mod ending;
mod fleet;
mod hub;
mod minder;
mod progress;
mod pulse;
mod reconcile;
mod reservations;
mod roster;
mod runs;
mod session;
mod settings;
mod shared;
mod storage;
mod takeover;
#[cfg(test)]
mod tests;
mod waker;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

pub use self::carry::GivenSources;
pub use self::discovery::Discovery;
pub use self::reconcile::Sweeper;
pub use self::settings::{ControlSettings, Pace};
pub use self::waker::{Children, Command, Fly, How, Waking};
pub use self::webhooks::{WebhookSettings, Webhooks};

use self::shared::Shared;
use crate::domain::webhook::{Delivery, WebhookEvent};
use crate::domain::{
    BootId, Clock, DeliveryId, Folder, IdSource, JobId, TaskId, TaskReport, Tenant, Timestamp, WorkerId,
};
use crate::lifecycle::Lifecycle;
use crate::rpc::{self, WorkerClient};
use crate::store::{
    self, Cancelled, Deleted, Doomed, DynStore, NewJob, OutboxStats, QueueStats, Redelivered, Retried,
    Submitted,
};
use crate::telemetry::metrics;

/// The control as other rooms hold it: cheap to clone, lives as long as the process.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

/// What a control is made of.
pub struct Deps {
    /// The durable record.
    pub store: DynStore,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where ids and fencing tokens come from.
    pub ids: Arc<dyn IdSource>,
    /// Workers known from the start.
    pub workers: Vec<WorkerHandle>,
    /// How workers on other machines are found.
    pub discovery: Discovery,
    /// Removes garbage.
    pub sweeper: Arc<dyn Sweeper>,
    /// How receivers are told; `None` = nobody is.
    pub webhooks: Option<Webhooks>,
    /// Joins every task of the control. Soft: claim nothing more, finish what runs. Hard: drop everything now; what
    /// was held is requeued by the next session.
    pub lifecycle: Lifecycle,
}

/// A worker to talk to.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    /// How to call it.
    pub client: WorkerClient,
    /// Where it is; `in-process` for `--role all`. No two workers of a fleet have the same.
    pub address: String,
    /// How it was found.
    pub found: Found,
}

/// How a control came to know a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is part of this process.
    InProcess,
    /// It is on the configured list.
    Listed,
    /// A name resolves to it.
    Resolved,
    /// It registered.
    Registered,
    /// Another control, or one before this, wrote it down.
    Recorded,
    /// This control started it.
    Started,
}

/// Why a control did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store gave no session.
    #[error("cannot open a session in the store")]
    OpenSession(#[source] store::Error),
    /// The token or the certificates for calls to workers cannot be used.
    #[error("cannot speak to workers")]
    Dial(#[source] rpc::DialError),
}

/// What a reader of one job follows: changes of `revision` say that the stored record changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Live {
    /// Grows with every committed change of the job that this control heard of.
    pub revision: u64,
    /// The latest live report, while a worker runs it.
    pub report: Option<TaskReport>,
}

/// A worker as `GET /workers` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// Its name; one made of the address as long as it never answered.
    pub id: WorkerId,
    /// Its incarnation; nil as long as it never answered.
    pub boot: BootId,
    /// Where it is reached; `in-process` for `--role all`.
    pub address: String,
    /// Its build.
    pub version: String,
    /// State.
    pub state: WorkerState,
    /// Why it gets no work, where that is not plain from its state.
    pub reason: Option<String>,
    /// How it was found.
    pub found: Found,
    /// Slots in all.
    pub slots: u32,
    /// Tasks it runs for this control.
    pub running: Vec<RunningTask>,
    /// Encoders it has proved.
    pub encoders: Vec<String>,
    /// ffmpeg's version.
    pub ffmpeg_version: String,
    /// Parts of the sandbox that are active.
    pub sandbox: Vec<String>,
    /// Bytes free where work folders live.
    pub disk_free: u64,
    /// When it last answered; when it joined, as long as it never did.
    pub last_seen: Timestamp,
}

/// Whether a worker takes work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// Takes work.
    Ready,
    /// Finishes what it has.
    Draining,
    /// Does not answer.
    Unreachable,
    /// Answers and gets no work all the same: a wrong token or certificate, another protocol.
    Refused,
}

/// A task on a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningTask {
    /// Its job.
    pub job: JobId,
    /// The task.
    pub task: TaskId,
    /// When it was claimed.
    pub since: Timestamp,
    /// Its latest report.
    pub report: Option<TaskReport>,
}

impl Control {
    /// Opens a session and starts every actor.
    pub async fn start(settings: ControlSettings, deps: Deps) -> Result<Self, Error> {
        let ControlSettings { name, retention, pace, waking } = settings;
        let Deps { store, clock, ids, workers, discovery, sweeper, webhooks, lifecycle } = deps;
        let listed = discovery.listed().map_err(Error::Dial)?;
        let (hub, follower) = hub::Hub::new(store.changes());
        let session = store.open_session(&name, clock.now()).await.map_err(Error::OpenSession)?;
        let shared = Arc::new(Shared {
            store: Arc::clone(&store),
            clock,
            ids,
            name,
            pace,
            fleet: fleet::Fleet::new(),
            runs: Arc::new(runs::Runs::new()),
            hub,
            discovery,
            session: watch::Sender::new(session),
            dispatch: Notify::new(),
            alarm: Notify::new(),
            resign: Notify::new(),
            wakes: waker::Wakes::new(&waking.how),
            keep: retention,
            outbox: webhooks.as_ref().map(|webhooks| Arc::clone(&webhooks.outbox)),
            webhook_events: webhooks.as_ref().map(|webhooks| webhooks.settings.events.clone()),
            done: lifecycle.hard().child_token(),
            lifecycle,
        });
        shared.spawn_essential("hub", follower.run(shared.done.clone()));
        for worker in workers.into_iter().chain(listed) {
            shared.join(worker);
        }
        shared.spawn_essential("takeover", takeover::run(Arc::clone(&shared)));
        shared.spawn("roster", roster::rounds(Arc::clone(&shared)));
        shared.spawn("pulse", pulse::follow(Arc::clone(&shared)));
        shared.spawn_essential("discovery", discovery::run(Arc::clone(&shared)));
        shared.spawn_essential("dispatcher", dispatch::run(Arc::clone(&shared)));
        shared.spawn("waker", waker::run(Arc::clone(&shared), waking));
        shared.spawn_essential("session", session::keep(Arc::clone(&shared)));
        shared.spawn("progress", progress::write(Arc::clone(&shared)));
        shared.spawn_essential("alarm", reconcile::alarm(Arc::clone(&shared)));
        let secrets = reconcile::Secrets(Arc::clone(&store));
        shared.spawn("secrets", reconcile::clean(Arc::clone(&shared), secrets));
        let leavings = reconcile::Leavings { store, keep: retention, sweeper, folder: shared.folder() };
        shared.spawn("leavings", reconcile::clean(Arc::clone(&shared), leavings));
        if let Some(webhooks) = webhooks {
            shared.spawn("webhooks", webhooks::run(Arc::clone(&shared), webhooks));
        }
        let finish = Arc::clone(&shared);
        shared.spawn("drain", async move {
            finish.runs.drained().await;
            finish.close_session().await;
            finish.done.cancel();
        });
        Ok(Self(shared))
    }

    /// What the ids of jobs and uploads that this control accepts are marked with.
    #[must_use]
    pub fn folder(&self) -> Folder {
        self.0.folder()
    }

    /// The store, for reads.
    #[must_use]
    pub fn store(&self) -> &DynStore {
        &self.0.store
    }

    /// Accepts a job and wakes the dispatcher.
    pub async fn submit(&self, job: NewJob) -> store::Result<Submitted> {
        let submitted = self.0.store.submit(job).await?;
        if submitted == Submitted::Created {
            metrics::job_submitted();
            self.0.dispatch.notify_one();
        }
        Ok(submitted)
    }

    /// Cancels in the record first, then stops the runs.
    pub async fn cancel(&self, tenant: Option<&Tenant>, job: JobId) -> store::Result<Cancelled> {
        let cancelled = self.0.store.cancel(tenant, job, self.0.clock.now()).await?;
        match &cancelled {
            Cancelled::Now(runs) => {
                self.0.runs.stop(runs);
                ending::count(&self.0, job).await;
            }
            Cancelled::Requested => self.resolve_soon(job),
            Cancelled::Already(_) | Cancelled::NotFound => {}
        }
        Ok(cancelled)
    }

    /// Starts the next run of a failed job.
    pub async fn retry(&self, tenant: Option<&Tenant>, job: JobId) -> store::Result<Retried> {
        let now = self.0.clock.now();
        let task = TaskId::from_uuid(self.0.ids.sortable(now));
        let retried = self.0.store.retry(tenant, job, task, now).await?;
        if retried == Retried::Queued {
            self.0.dispatch.notify_one();
        }
        Ok(retried)
    }

    /// Deletes, cancelling first.
    pub async fn delete(&self, tenant: Option<&Tenant>, job: JobId) -> store::Result<Deleted> {
        let deleted = self.0.store.delete(tenant, job, self.0.clock.now()).await?;
        match &deleted {
            Deleted::Done(runs) => self.0.runs.stop(runs),
            Deleted::Cancelling => self.resolve_soon(job),
            Deleted::NotFound => {}
        }
        Ok(deleted)
    }

    /// What a job that does not say is told of; `None` = this control tells nobody anything.
    #[must_use]
    pub fn webhook_events(&self) -> Option<&[WebhookEvent]> {
        self.0.webhook_events.as_deref()
    }

    /// The deliveries of a job, oldest first; `None` = no such job of this tenant.
    pub async fn deliveries(
        &self,
        tenant: Option<&Tenant>,
        job: JobId,
    ) -> store::Result<Option<Vec<Delivery>>> {
        match &self.0.outbox {
            Some(outbox) => outbox.deliveries(tenant, job).await,
            None => Ok(self.0.store.get(tenant, job).await?.map(|_| Vec::new())),
        }
    }

    /// Makes a delivery due now.
    pub async fn redeliver(
        &self,
        tenant: Option<&Tenant>,
        job: JobId,
        delivery: DeliveryId,
    ) -> store::Result<Redelivered> {
        match &self.0.outbox {
            Some(outbox) => outbox.redeliver(tenant, job, delivery, self.0.clock.now()).await,
            None => Ok(Redelivered::NotFound),
        }
    }

    /// Figures of the outbox, for metrics.
    pub async fn outbox_stats(&self) -> store::Result<OutboxStats> {
        match &self.0.outbox {
            Some(outbox) => outbox.outbox_stats().await,
            None => Ok(OutboxStats::default()),
        }
    }

    /// What the next round of retention would remove, or would with another time to keep jobs.
    pub async fn doomed(&self, keep: Option<Duration>, most: u32) -> store::Result<(Timestamp, Doomed)> {
        let now = self.0.clock.now();
        let keep = keep.or(self.0.keep);
        let before = keep.map_or(Timestamp::from_micros(i64::MIN), |keep| now.minus(keep));
        Ok((before, self.0.store.doomed(before, now, most).await?))
    }

    /// Follows one job. Any number of readers; none can slow anything.
    pub async fn watch(&self, job: JobId) -> watch::Receiver<Live> {
        self.0.hub.channel(job).await.subscribe()
    }

    /// The latest live report of a job, if it runs.
    pub async fn report(&self, job: JobId) -> Option<TaskReport> {
        self.0.hub.peek(job).await
    }

    /// All workers known, in the order they joined.
    #[expect(
        clippy::unused_async,
        reason = "the face of the room: a registry over the network would wait here"
    )]
    pub async fn workers(&self) -> Vec<WorkerView> {
        self.0.fleet.views(&self.0.runs)
    }

    /// Figures of the queue, for metrics and back-pressure.
    pub async fn stats(&self) -> store::Result<QueueStats> {
        self.0.store.stats().await
    }

    /// Stops following runs and writes nothing more about them: they go on without this control, and the next session
    /// takes them up, at once.
    pub async fn leave(&self) {
        self.0.done.cancel();
        self.0.close_session().await;
    }

    /// Resolves when, after the soft stop, no run is held any more, or at the hard stop.
    pub async fn drained(&self) {
        self.0.done.cancelled().await;
    }

    /// A publication has to be resolved first: its driver is told, and the task may be claimable for resolving.
    fn resolve_soon(&self, job: JobId) {
        self.0.runs.cancelling(job);
        self.0.dispatch.notify_one();
    }
}

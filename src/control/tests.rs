//! The control against scripted workers and the real state machine, on paused time.

mod discovery;
mod failures;
mod fly;
mod memory;
mod normal;
mod random;
mod simulation;
mod sqlite;
mod takeover;
mod waker;
mod webhooks;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use self::memory::Memory;
use self::worker::{Destination, FakeWorker, Handle};
use super::{Control, ControlSettings, Deps, Discovery, Found, Sweeper, WorkerHandle};
use crate::domain::fixtures::spec;
use crate::domain::testing::SeededIds;
use crate::domain::{
    Clock, IdSource, JobId, JobSecrets, JobStatus, OutputStatus, TaskId, Tenant, Timestamp, Waste,
};
use crate::lifecycle::Lifecycle;
use crate::rpc::WorkerClient;
use crate::store::{DynStore, NewJob};

/// Short, because each paused hour is worth a second of polls.
const RETENTION: Duration = Duration::from_mins(20);

/// Wall time that follows tokio's, so that pausing one pauses both; and that somebody may set.
struct TokioClock {
    began: Instant,
    ahead: AtomicI64,
    jumped: AtomicBool,
}

impl TokioClock {
    fn new() -> Self {
        Self { began: Instant::now(), ahead: AtomicI64::new(0), jumped: AtomicBool::new(false) }
    }

    /// Sets it so many hours ahead, or back.
    fn jump(&self, hours: i64) {
        self.ahead.store(hours * 3_600_000_000, Ordering::Relaxed);
        self.jumped.store(true, Ordering::Relaxed);
    }

    /// Whether it ever was set.
    fn jumped(&self) -> bool {
        self.jumped.load(Ordering::Relaxed)
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let at = Timestamp::from_micros(1_700_000_000_000_000).plus(self.began.elapsed());
        Timestamp::from_micros(at.micros() + self.ahead.load(Ordering::Relaxed))
    }
}

#[derive(Default)]
struct Broom(AtomicBool);

#[async_trait]
impl Sweeper for Broom {
    async fn sweep(&self, _: &Waste) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A control with everything around it.
struct Bench {
    control: Control,
    store: Arc<Memory>,
    workers: Vec<Arc<FakeWorker>>,
    destination: Arc<Destination>,
    lifecycle: Lifecycle,
    broom: Arc<Broom>,
    clock: Arc<TokioClock>,
    ids: Arc<SeededIds>,
    retention: Option<Duration>,
}

/// What outlives a control.
struct Ground {
    store: Arc<Memory>,
    workers: Vec<Arc<FakeWorker>>,
    destination: Arc<Destination>,
    broom: Arc<Broom>,
    clock: Arc<TokioClock>,
    ids: Arc<SeededIds>,
    retention: Option<Duration>,
}

impl Ground {
    fn new(slots: &[u32], seed: u64) -> Self {
        let destination = Arc::new(Destination::default());
        let worker =
            |(n, slots): (u64, &u32)| FakeWorker::new(&format!("w{n}"), *slots, seed * 100 + n, &destination);
        let workers = (0..).zip(slots).map(worker).collect();
        let (store, broom) = (Arc::new(Memory::new(seed)), Arc::new(Broom::default()));
        let (clock, ids) = (Arc::new(TokioClock::new()), Arc::new(SeededIds::new(seed + 7)));
        Self { store, workers, destination, broom, clock, ids, retention: Some(RETENTION) }
    }
}

impl Bench {
    /// A control with workers of so many slots.
    async fn start(slots: &[u32]) -> Self {
        let bench = Self::start_with(slots, 1, |_| {}).await;
        bench.settled().await;
        bench
    }

    async fn start_with(slots: &[u32], seed: u64, prepare: impl FnOnce(&[Arc<FakeWorker>])) -> Self {
        Self::start_full(slots, seed, Discovery::default(), prepare).await
    }

    async fn start_full(
        slots: &[u32],
        seed: u64,
        discovery: Discovery,
        prepare: impl FnOnce(&[Arc<FakeWorker>]),
    ) -> Self {
        Self::on(Ground::new(slots, seed), (discovery, Found::InProcess), prepare).await
    }

    /// A control whose workers are processes of their own.
    async fn start_elsewhere(slots: &[u32], seed: u64) -> Self {
        let bench = Self::on(Ground::new(slots, seed), (Discovery::default(), Found::Listed), |_| {}).await;
        bench.settled().await;
        bench
    }

    /// The next control with the same record and the same workers, after `end` of this one.
    async fn replaced(self, end: impl AsyncFnOnce(&Self)) -> Self {
        end(&self).await;
        let Self { store, workers, destination, broom, clock, ids, retention, .. } = self;
        let ground = Ground { store, workers, destination, broom, clock, ids, retention };
        Self::on(ground, (Discovery::default(), Found::Listed), |_| {}).await
    }

    async fn on(
        ground: Ground,
        (discovery, found): (Discovery, Found),
        prepare: impl FnOnce(&[Arc<FakeWorker>]),
    ) -> Self {
        let Ground { store, workers, destination, broom, clock, ids, retention } = ground;
        prepare(&workers);
        let lifecycle = Lifecycle::new();
        let deps = Deps {
            store: Arc::clone(&store) as DynStore,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ids: Arc::clone(&ids) as Arc<dyn IdSource>,
            workers: workers.iter().map(|worker| WorkerHandle { found, ..in_process(worker) }).collect(),
            discovery,
            sweeper: Arc::clone(&broom) as Arc<dyn Sweeper>,
            webhooks: None,
            lifecycle: lifecycle.clone(),
        };
        let settings = ControlSettings { retention, ..ControlSettings::default() };
        let control = Control::start(settings, deps).await.unwrap();
        Self { control, store, workers, destination, lifecycle, broom, clock, ids, retention }
    }

    /// Everything that can happen without time passing has happened.
    async fn settled(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }

    async fn submit(&self, outputs: u16) -> JobId {
        self.submit_job(self.job(outputs)).await
    }

    async fn submit_job(&self, job: NewJob) -> JobId {
        let id = job.id;
        self.control.submit(job).await.unwrap();
        id
    }

    fn job(&self, outputs: u16) -> NewJob {
        NewJob {
            id: JobId::from_uuid(self.ids.sortable(self.clock.now())),
            task: TaskId::from_uuid(self.ids.sortable(self.clock.now())),
            tenant: Tenant::local(),
            spec: spec(outputs),
            secrets: JobSecrets::default(),
            idempotency: None,
            now: self.clock.now(),
        }
    }

    /// Waits for a condition as a reader would: woken by the job's changes and by reports.
    async fn until(&self, job: JobId, what: impl Fn(&Self) -> bool) {
        let mut live = self.control.watch(job).await;
        let reached = async {
            while !what(self) {
                // Conditions about workers change without the job: looked at again on a coarse beat.
                let _ = tokio::time::timeout(Duration::from_millis(500), live.changed()).await;
            }
        };
        tokio::time::timeout(Duration::from_hours(6), reached).await.expect("it never happened");
    }

    async fn ended(&self, job: JobId) -> JobStatus {
        self.until(job, |bench| bench.store.status(job).is_terminal()).await;
        self.settled().await;
        self.check(job);
        self.store.status(job)
    }

    /// What must hold of every ended job (PROTOCOL §2, I1 to I4 as far as one look can show).
    fn check(&self, job: JobId) {
        let stored = self.store.job(job);
        let recorded: Vec<_> =
            stored.aggregate.outputs.iter().filter_map(|o| Some((o.index, o.publication?))).collect();
        assert_eq!(self.destination.visible(job), recorded, "visible is what is recorded");
        if stored.aggregate.job.status == JobStatus::Completed {
            assert!(stored.aggregate.outputs.iter().all(|o| o.status == OutputStatus::Completed));
        }
        assert!(stored.aggregate.tasks.iter().all(|task| task.state.is_over() && task.hold.is_none()));
        assert!(stored.attempts.is_sorted_by_key(|attempt| attempt.epoch));
        assert!(stored.attempts.iter().all(|attempt| attempt.outcome.is_some()));
        let terminal = |event: &&crate::domain::Event| {
            event.kind == crate::domain::EventKind::Status && event.status.is_terminal()
        };
        let run = stored.aggregate.job.run;
        let ends = self.store.events_of(job).iter().filter(terminal).filter(|event| event.run == run).count();
        assert_eq!(ends, 1, "one terminal state per run");
    }
}

fn in_process(worker: &Arc<FakeWorker>) -> WorkerHandle {
    WorkerHandle {
        client: WorkerClient::in_process(Arc::new(Handle(Arc::clone(worker)))),
        address: worker.id.to_string(),
        found: Found::InProcess,
    }
}

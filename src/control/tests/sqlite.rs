//! The same control over the real store, on real time.

use super::worker::{At, Deed};
use super::*;
use crate::domain::{RunOutcome, SystemClock, SystemIds};
use crate::store::{Cancelled, Options, SqliteStore};

struct Real {
    control: Control,
    workers: Vec<Arc<FakeWorker>>,
    destination: Arc<Destination>,
    lifecycle: Lifecycle,
}

impl Real {
    async fn start(store: DynStore, slots: &[u32]) -> Self {
        let destination = Arc::new(Destination::default());
        let worker = |(n, slots): (u64, &u32)| FakeWorker::new(&format!("w{n}"), *slots, n, &destination);
        let workers: Vec<_> = (0..).zip(slots).map(worker).collect();
        let lifecycle = Lifecycle::new();
        let deps = Deps {
            store,
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            workers: workers.iter().map(in_process).collect(),
            discovery: Discovery::default(),
            sweeper: Arc::new(Broom::default()),
            webhooks: None,
            lifecycle: lifecycle.clone(),
        };
        let control = Control::start(ControlSettings::default(), deps).await.unwrap();
        Self { control, workers, destination, lifecycle }
    }

    async fn submit(&self, outputs: u16) -> JobId {
        let now = SystemClock.now();
        let id = JobId::from_uuid(SystemIds.sortable(now));
        let job = NewJob {
            id,
            task: TaskId::from_uuid(SystemIds.sortable(now)),
            tenant: Tenant::local(),
            spec: spec(outputs),
            secrets: JobSecrets::default(),
            idempotency: None,
            now,
        };
        self.control.submit(job).await.unwrap();
        id
    }

    async fn until(
        &self,
        job: JobId,
        what: impl Fn(&crate::store::StoredJob) -> bool,
    ) -> crate::store::StoredJob {
        let mut live = self.control.watch(job).await;
        let reached = async {
            loop {
                let stored = self.control.store().get(None, job).await.unwrap().unwrap();
                if what(&stored) {
                    return stored;
                }
                live.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reached).await.expect("it never happened")
    }

    async fn ended(&self, job: JobId) -> crate::store::StoredJob {
        let stored = self.until(job, |stored| stored.aggregate.job.status.is_terminal()).await;
        let recorded = stored.aggregate.outputs.iter().filter_map(|o| Some((o.index, o.publication?)));
        assert_eq!(self.destination.visible(job), recorded.collect::<Vec<_>>());
        stored
    }
}

async fn memory() -> DynStore {
    Arc::new(SqliteStore::ephemeral(Options::default()).await.unwrap())
}

#[tokio::test]
async fn many_jobs_over_two_workers_all_complete() {
    let real = Real::start(memory().await, &[2, 1]).await;
    let mut jobs = Vec::new();
    for n in 0..30 {
        jobs.push(real.submit(1 + n % 3).await);
    }
    for job in jobs {
        assert_eq!(real.ended(job).await.aggregate.job.status, JobStatus::Completed);
    }
    assert!(real.workers.iter().all(|worker| !worker.started().is_empty()));
    real.lifecycle.shut_down(crate::lifecycle::ShutdownReason::Requested);
    real.control.drained().await;
}

#[tokio::test]
async fn a_lost_run_a_broken_stream_and_a_cancel_are_told_apart() {
    let real = Real::start(memory().await, &[1]).await;
    real.workers[0].plan(vec![(At::AfterCommit, Deed::Die)]);
    real.workers[0].plan(vec![]);
    real.workers[0].plan(vec![(At::BeforeCommit, Deed::Break)]);
    real.workers[0].plan(vec![(At::Encoding, Deed::Wait(Arc::default()))]);
    let outcomes = |stored: &crate::store::StoredJob| -> Vec<_> {
        stored.attempts.iter().filter_map(|attempt| attempt.outcome).collect()
    };
    let lost = real.submit(2).await;
    let stored = real.ended(lost).await;
    assert_eq!(outcomes(&stored), [RunOutcome::Lost, RunOutcome::Done]);
    let broken = real.submit(2).await;
    let stored = real.ended(broken).await;
    assert_eq!(outcomes(&stored), [RunOutcome::Done]);
    let cancelled = real.submit(2).await;
    real.until(cancelled, |stored| stored.aggregate.job.status == JobStatus::Running).await;
    assert!(matches!(real.control.cancel(None, cancelled).await.unwrap(), Cancelled::Now(_)));
    let stored = real.ended(cancelled).await;
    assert_eq!(
        (stored.aggregate.job.status, outcomes(&stored)),
        (JobStatus::Cancelled, vec![RunOutcome::Cancelled])
    );
}

#[tokio::test]
async fn a_killed_control_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let job = {
        let store = Arc::new(SqliteStore::open(folder.path(), Options::default()).await.unwrap());
        let closed = store.closed();
        let real = Real::start(store, &[1]).await;
        real.workers[0].plan(vec![(At::Encoding, Deed::Wait(Arc::default()))]);
        let job = real.submit(1).await;
        real.until(job, |stored| stored.aggregate.job.status == JobStatus::Running).await;
        real.lifecycle.stop_now(crate::lifecycle::ShutdownReason::Requested);
        real.control.drained().await;
        real.lifecycle.drain(Duration::from_secs(5)).await;
        drop(real);
        closed.await;
        job
    };
    let store = Arc::new(SqliteStore::open(folder.path(), Options::default()).await.unwrap());
    let real = Real::start(store, &[1]).await;
    let stored = real.ended(job).await;
    assert_eq!(stored.aggregate.job.status, JobStatus::Completed);
    assert_eq!(stored.aggregate.tasks[0].charged, 0, "a restart costs no attempt");
}

/// The target is 2 ms on a quiet machine; the bound here only tells a nudge from the polling fallback.
#[tokio::test]
async fn a_submitted_job_starts_without_waiting_for_a_poll() {
    let folder = tempfile::tempdir().unwrap();
    let store: DynStore = Arc::new(SqliteStore::open(folder.path(), Options::default()).await.unwrap());
    store.ping().await.unwrap();
    let real = Real::start(store, &[1]).await;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let job = real.submit(1).await;
        let accepted = Instant::now();
        real.ended(job).await;
        let started = real.workers[0].started().iter().find(|(of, _)| *of == job).unwrap().1;
        waits.push(started.saturating_duration_since(accepted));
    }
    waits.sort_unstable();
    assert!(waits[10] < Duration::from_millis(500), "{waits:?}");
}

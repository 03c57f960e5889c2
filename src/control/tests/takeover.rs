//! Controls that come after others, workers that die, and what runs where.

use super::memory::Fault;
use super::worker::{At, Deed};
use super::*;
use crate::domain::preset::Presets;
use crate::domain::{Company, RunOutcome};
use tokio::sync::Notify;

fn outcomes(bench: &Bench, job: JobId) -> Vec<RunOutcome> {
    bench.store.job(job).attempts.iter().filter_map(|attempt| attempt.outcome).collect()
}

/// A job whose encode waits for the notification.
async fn encoding(bench: &Bench) -> (JobId, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    bench.workers[0].plan(vec![(At::Encoding, Deed::Wait(Arc::clone(&go)))]);
    let job = bench.submit(1).await;
    bench.until(job, |b| b.store.status(job) == JobStatus::Running).await;
    (job, go)
}

#[tokio::test(start_paused = true)]
async fn the_next_control_takes_up_what_runs() {
    let bench = Bench::start_elsewhere(&[2], 1).await;
    let (job, go) = encoding(&bench).await;
    let bench = bench.replaced(async |bench| bench.control.leave().await).await;
    let mut live = bench.control.watch(job).await;
    live.wait_for(|live| live.report.is_some()).await.unwrap();
    go.notify_one();
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert_eq!(outcomes(&bench, job), [RunOutcome::Done], "it is the same attempt");
    assert_eq!(bench.workers[0].started().len(), 1);
    assert_eq!((bench.workers[0].cancelled(), bench.workers[0].kept()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_publication_that_was_permitted_before_is_finished() {
    for at in [At::BeforeCommit, At::AfterCommit, At::BeforeFinish] {
        let bench = Bench::start_elsewhere(&[1], 1).await;
        let go = Arc::new(Notify::new());
        bench.workers[0].plan(vec![(at, Deed::Wait(Arc::clone(&go)))]);
        let job = bench.submit(1).await;
        bench.until(job, |b| b.store.said("permit") == 1).await;
        let bench = bench.replaced(async |bench| bench.control.leave().await).await;
        bench.settled().await;
        bench.control.cancel(None, job).await.unwrap();
        go.notify_one();
        let status = bench.ended(job).await;
        assert!(matches!(status, JobStatus::Completed | JobStatus::Cancelled), "{at:?}: {status:?}");
        assert_eq!(bench.workers[0].started().len(), 1, "{at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_went_with_the_control_is_not_waited_for() {
    let bench = Bench::start_elsewhere(&[1, 1], 1).await;
    let (job, _) = encoding(&bench).await;
    let bench = bench
        .replaced(async |bench| {
            bench.control.leave().await;
            bench.workers[0].hang();
        })
        .await;
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert_eq!(outcomes(&bench, job), [RunOutcome::Lost, RunOutcome::Done]);
    assert_eq!(bench.workers[1].started().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_takeover_of_unknown_outcome_loses_nothing() {
    for fault in [Fault::AnswerLost, Fault::Refused] {
        let bench = Bench::start_elsewhere(&[2], 1).await;
        let (job, go) = encoding(&bench).await;
        let bench = bench
            .replaced(async |bench| {
                bench.control.leave().await;
                bench.store.inject(&[Some(fault)]);
            })
            .await;
        bench.until(job, |b| b.store.said("takeover") > 3).await;
        go.notify_one();
        assert_eq!(bench.ended(job).await, JobStatus::Completed, "{fault:?}");
        assert_eq!(outcomes(&bench, job), [RunOutcome::Done], "{fault:?}");
        assert_eq!(bench.workers[0].started().len(), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_takes_its_own_runs_up_again() {
    let bench = Bench::start_elsewhere(&[2], 1).await;
    let (job, go) = encoding(&bench).await;
    bench.store.end_session();
    bench.until(job, |b| b.store.sessions() == 2).await;
    bench.settled().await;
    go.notify_one();
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert_eq!(outcomes(&bench, job), [RunOutcome::Done]);
    assert_eq!((bench.workers[0].started().len(), bench.workers[0].cancelled()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn suspects_of_a_dead_worker_run_alone_one_after_the_other() {
    let bench = Bench::start_elsewhere(&[3, 1], 1).await;
    let go: Arc<Notify> = Arc::default();
    for worker in [0, 0, 0, 1] {
        bench.workers[worker].plan(vec![(At::Encoding, Deed::Wait(Arc::clone(&go)))]);
    }
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(bench.submit(1).await);
    }
    let last = jobs[3];
    bench.until(last, |b| b.store.status(last) == JobStatus::Running).await;
    bench.workers[0].restart();
    for job in &jobs {
        bench.until(*job, |b| b.store.job(*job).aggregate.tasks[0].class.is_solo() || *job == jobs[1]).await;
    }
    go.notify_waiters();
    for job in &jobs {
        assert_eq!(bench.ended(*job).await, JobStatus::Completed);
    }
    let companies: Vec<_> = bench.workers.iter().flat_map(|worker| worker.companies()).collect();
    let alone = companies.iter().filter(|company| **company == Company::Alone).count();
    assert_eq!((companies.len(), alone), (7, 3), "{companies:?}");
}

/// The slot that the first claim left is reserved, and nobody else has one.
#[tokio::test(start_paused = true)]
async fn a_suspect_starts_at_once_where_a_slot_is_reserved() {
    let bench = Bench::start_elsewhere(&[1, 1], 1).await;
    let (job, _) = encoding(&bench).await;
    assert_eq!(bench.workers[1].reserved(), 1);
    let before = Instant::now();
    bench.workers[0].restart();
    bench.workers[0].drain();
    bench.until(job, |b| !b.workers[1].started().is_empty()).await;
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    assert_eq!(bench.workers[1].companies(), [Company::Alone]);
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_kills_its_worker_ends_after_two_more_deaths() {
    let bench = Bench::start_elsewhere(&[2], 1).await;
    for _ in 0..3 {
        bench.workers[0].plan(vec![(At::Encoding, Deed::Wait(Arc::default()))]);
    }
    let job = bench.submit(1).await;
    for deaths in 1..=3 {
        bench.until(job, |b| b.workers[0].started().len() == deaths && b.workers[0].kept() == 1).await;
        bench.settled().await;
        bench.workers[0].restart();
    }
    assert_eq!(bench.ended(job).await, JobStatus::Failed);
    let failure = bench.store.job(job).aggregate.job.failure.unwrap();
    assert_eq!(failure.code, crate::domain::Code::WorkerLost);
    assert_eq!(bench.workers[0].companies(), [Company::Shared, Company::Alone, Company::Alone]);
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_for_a_worker_that_has_its_encoder() {
    let bench = Bench::start_elsewhere(&[1, 1], 1).await;
    let mut job = bench.job(1);
    job.spec.outputs[0].encode = Presets::builtin().get("1080p_vp9").unwrap().clone();
    let id = bench.submit_job(job).await;
    let easy = bench.submit(1).await;
    assert_eq!(bench.ended(easy).await, JobStatus::Completed, "it does not stand in the way");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(bench.store.status(id), JobStatus::Queued);
    bench.workers[1].proves(&["libx264", "libvpx-vp9", "libopus"]);
    assert_eq!(bench.ended(id).await, JobStatus::Completed);
    assert!(bench.workers[1].started().iter().any(|(job, _)| *job == id));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_has_not_tried_its_encoders_gets_nothing_yet() {
    let bench = Bench::start_elsewhere(&[1], 1).await;
    bench.workers[0].proves(&[]);
    let bench = bench.replaced(async |bench| bench.control.leave().await).await;
    bench.settled().await;
    let job = bench.submit(1).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(bench.store.status(job), JobStatus::Queued);
    let before = Instant::now();
    bench.workers[0].proves(&["libx264"]);
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert!(before.elapsed() < Duration::from_millis(500), "{:?}", before.elapsed());
}

use super::worker::{At, Deed};
use super::*;
use crate::domain::{Code, Folder, Progress, RunOutcome, UploadId};
use crate::store::{Cancelled, Deleted, Retried};
use tokio::sync::Notify;

#[tokio::test(start_paused = true)]
async fn a_job_runs_to_its_end_at_once() {
    let bench = Bench::start(&[1]).await;
    let before = Instant::now();
    let job = bench.submit(1).await;
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    let stored = bench.store.job(job);
    assert_eq!(stored.aggregate.job.progress, Progress::DONE);
    assert!(stored.aggregate.job.media.is_some());
    assert_eq!(stored.attempts.len(), 1);
    assert_eq!(stored.attempts[0].outcome, Some(RunOutcome::Done));
    // No timer was needed on the way: paused time stood still until the start.
    assert_eq!(bench.workers[0].started()[0].1, before);
    assert_eq!(bench.workers[0].kept(), 0, "acknowledged");
}

#[tokio::test(start_paused = true)]
async fn every_output_has_its_permit_before_it_is_visible() {
    let bench = Bench::start(&[1]).await;
    let go = Arc::new(Notify::new());
    bench.workers[0].plan(vec![(At::BeforeCommit, Deed::Wait(Arc::clone(&go)))]);
    let job = bench.submit(2).await;
    bench.until(job, |b| !b.store.job(job).aggregate.publications.is_empty()).await;
    bench.settled().await;
    assert!(bench.destination.visible(job).is_empty());
    assert_eq!(bench.store.said("permit"), 1);
    go.notify_one();
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert_eq!(bench.destination.visible(job).len(), 2);
    assert_eq!(bench.store.said("permit"), 2);
}

#[tokio::test(start_paused = true)]
async fn two_jobs_fill_two_slots_and_the_third_waits() {
    let bench = Bench::start(&[2]).await;
    let go = Arc::new(Notify::new());
    for _ in 0..2 {
        bench.workers[0].plan(vec![(At::Encoding, Deed::Wait(Arc::clone(&go)))]);
    }
    let jobs = [bench.submit(1).await, bench.submit(1).await, bench.submit(1).await];
    bench.until(jobs[1], |b| b.store.status(jobs[1]) == JobStatus::Running).await;
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!(bench.store.status(jobs[2]), JobStatus::Queued);
    assert_eq!(bench.store.job(jobs[2]).attempts.len(), 0, "waiting costs no attempt");
    assert_eq!(bench.control.workers().await[0].running.len(), 2);
    let before = Instant::now();
    go.notify_one();
    assert_eq!(bench.ended(jobs[2]).await, JobStatus::Completed);
    assert!(
        before.elapsed() < Duration::from_secs(1),
        "the freed slot is filled by a nudge, not by the poll"
    );
    go.notify_one();
    for job in jobs {
        assert_eq!(bench.ended(job).await, JobStatus::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn workers_take_turns() {
    let bench = Bench::start(&[4, 4]).await;
    for _ in 0..6 {
        let job = bench.submit(1).await;
        assert_eq!(bench.ended(job).await, JobStatus::Completed);
    }
    let counts: Vec<_> = bench.workers.iter().map(|worker| worker.started().len()).collect();
    assert_eq!(counts, [3, 3]);
}

#[tokio::test(start_paused = true)]
async fn cancel_before_a_permit_is_immediate_and_stops_the_run() {
    let bench = Bench::start(&[1]).await;
    bench.workers[0].plan(vec![(At::Encoding, Deed::Wait(Arc::default()))]);
    let job = bench.submit(1).await;
    bench.until(job, |b| b.store.status(job) == JobStatus::Running).await;
    assert!(matches!(bench.control.cancel(None, job).await.unwrap(), Cancelled::Now(_)));
    assert_eq!(bench.ended(job).await, JobStatus::Cancelled);
    assert_eq!((bench.workers[0].cancelled(), bench.workers[0].kept()), (1, 0));
    let next = bench.submit(1).await;
    assert_eq!(bench.ended(next).await, JobStatus::Completed, "the slot is free again");
}

#[tokio::test(start_paused = true)]
async fn cancel_of_a_waiting_job_needs_no_worker() {
    let bench = Bench::start(&[]).await;
    let job = bench.submit(1).await;
    assert_eq!(bench.control.cancel(None, job).await.unwrap(), Cancelled::Now(Vec::new()));
    assert_eq!(bench.ended(job).await, JobStatus::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn cancel_after_a_permit_ends_when_the_publication_is_resolved() {
    let bench = Bench::start(&[1]).await;
    let go = Arc::new(Notify::new());
    bench.workers[0].plan(vec![(At::BeforeCommit, Deed::Wait(Arc::clone(&go)))]);
    let job = bench.submit(2).await;
    bench.until(job, |b| !b.store.job(job).aggregate.publications.is_empty()).await;
    assert_eq!(bench.control.cancel(None, job).await.unwrap(), Cancelled::Requested);
    bench.settled().await;
    assert_eq!(bench.store.status(job), JobStatus::Running);
    go.notify_one();
    assert_eq!(bench.ended(job).await, JobStatus::Cancelled);
    assert_eq!(
        bench.destination.visible(job).len(),
        1,
        "the permitted output stays, the other is never begun"
    );
    assert_eq!(bench.workers[0].kept(), 0);
}

#[tokio::test(start_paused = true)]
async fn cancel_after_the_last_permit_may_come_too_late() {
    let bench = Bench::start(&[1]).await;
    let go = Arc::new(Notify::new());
    bench.workers[0].plan(vec![(At::AfterCommit, Deed::Wait(Arc::clone(&go)))]);
    let job = bench.submit(1).await;
    bench.until(job, |b| b.destination.visible(job).len() == 1).await;
    assert_eq!(bench.control.cancel(None, job).await.unwrap(), Cancelled::Requested);
    go.notify_one();
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_worker_lost_after_a_cancel_is_resolved_by_another() {
    let bench = Bench::start(&[1, 1]).await;
    let go = Arc::new(Notify::new());
    for worker in &bench.workers {
        worker.plan(vec![(At::BeforeCommit, Deed::Wait(Arc::clone(&go))), (At::AfterCommit, Deed::Die)]);
    }
    let job = bench.submit(1).await;
    bench.until(job, |b| !b.store.job(job).aggregate.publications.is_empty()).await;
    assert_eq!(bench.control.cancel(None, job).await.unwrap(), Cancelled::Requested);
    go.notify_one();
    assert_eq!(bench.ended(job).await, JobStatus::Completed, "it was visible already: adopted");
}

#[tokio::test(start_paused = true)]
async fn delete_cancels_and_stops() {
    let bench = Bench::start(&[1]).await;
    bench.workers[0].plan(vec![(At::Encoding, Deed::Wait(Arc::default()))]);
    let job = bench.submit(1).await;
    bench.until(job, |b| b.store.status(job) == JobStatus::Running).await;
    assert!(matches!(bench.control.delete(None, job).await.unwrap(), Deleted::Done(runs) if runs.len() == 1));
    bench.until(job, |b| b.workers[0].kept() == 0).await;
    assert!(bench.control.store().get(None, job).await.unwrap().is_none());
    assert_eq!(bench.control.delete(None, job).await.unwrap(), Deleted::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_failed_job_is_retried_and_keeps_what_is_done() {
    let bench = Bench::start(&[1]).await;
    bench.workers[0].plan(vec![(At::BeforeFinish, Deed::Fail(Code::MediaCorrupt))]);
    bench.workers[0].plan(vec![(At::Encoding, Deed::Fail(Code::MediaCorrupt))]);
    let early = bench.submit(2).await;
    assert_eq!(
        bench.ended(early).await,
        JobStatus::Completed,
        "all outputs were published: nothing is left to fail"
    );
    let job = bench.submit(2).await;
    assert_eq!(bench.ended(job).await, JobStatus::Failed);
    let attempt = &bench.store.job(job).attempts[0];
    assert_eq!((attempt.code, attempt.log.as_deref()), (Some(Code::MediaCorrupt), Some("one\ntwo")));
    assert_eq!(bench.control.retry(None, job).await.unwrap(), Retried::Queued);
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert_eq!(bench.control.retry(None, job).await.unwrap(), Retried::NotFailed(JobStatus::Completed));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_task_runs_when_it_is_due() {
    let bench = Bench::start(&[1]).await;
    bench.workers[0].plan(vec![(At::Encoding, Deed::Fail(Code::EncodeTimeout))]);
    let job = bench.submit(1).await;
    bench.until(job, |b| b.store.job(job).attempts.first().is_some_and(|a| a.outcome.is_some())).await;
    let due = bench.store.job(job).aggregate.tasks[0].not_before.expect("it waits");
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    let again = bench.store.job(job).attempts[1].started_at;
    assert!(again >= due && again.since(due) < Duration::from_millis(5), "{:?} late", again.since(due));
}

#[tokio::test(start_paused = true)]
async fn progress_reaches_readers_and_never_goes_back() {
    let bench = Bench::start(&[1, 1]).await;
    let go = Arc::new(Notify::new());
    // The first beats 300 before its publication, the second 200 while it waits.
    bench.workers[0]
        .plan(vec![(At::BeforeCommit, Deed::Wait(Arc::clone(&go))), (At::AfterCommit, Deed::Release)]);
    bench.workers[1].plan(vec![(At::Encoding, Deed::Wait(Arc::clone(&go)))]);
    let job = bench.submit(2).await;
    bench.until(job, |b| b.store.progress_written().contains(&(job, Progress::from_permille(300)))).await;
    assert_eq!(bench.control.report(job).await.unwrap().progress.permille(), 300);
    go.notify_one();
    bench.until(job, |b| b.workers[1].started().len() == 1).await;
    let mut live = bench.control.watch(job).await;
    live.wait_for(|live| live.report.is_some()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        bench.control.report(job).await.unwrap().progress.permille(),
        300,
        "not the 200 of the second run"
    );
    go.notify_one();
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    let written: Vec<_> = bench.store.progress_written().into_iter().map(|(_, mark)| mark).collect();
    assert!(written.is_sorted(), "{written:?}");
    assert!(bench.control.report(job).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_idle_control_says_nothing_to_the_store() {
    let bench = Bench::start(&[2]).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(bench.store.said("claim"), 0, "there is nothing to claim");
    assert!(bench.store.said("wake_delayed") <= 14, "{} looks", bench.store.said("wake_delayed"));
    assert!(bench.store.progress_written().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_runs_and_claims_nothing() {
    let bench = Bench::start(&[1]).await;
    let go = Arc::new(Notify::new());
    bench.workers[0].plan(vec![(At::Encoding, Deed::Wait(Arc::clone(&go)))]);
    let (running, waiting) = (bench.submit(1).await, bench.submit(1).await);
    bench.until(running, |b| b.store.status(running) == JobStatus::Running).await;
    bench.lifecycle.shut_down(crate::lifecycle::ShutdownReason::Requested);
    bench.settled().await;
    assert!(tokio::time::timeout(Duration::from_mins(1), bench.control.drained()).await.is_err());
    go.notify_one();
    bench.control.drained().await;
    assert_eq!(bench.store.status(running), JobStatus::Completed);
    assert_eq!(bench.store.status(waiting), JobStatus::Queued);
    assert_eq!(bench.lifecycle.drain(Duration::from_secs(1)).await, crate::lifecycle::Drained::Clean);
}

#[tokio::test(start_paused = true)]
async fn a_run_released_while_draining_is_requeued_uncharged() {
    let bench = Bench::start(&[1]).await;
    bench.workers[0].plan(vec![(At::Encoding, Deed::Wait(Arc::default()))]);
    let job = bench.submit(1).await;
    bench.until(job, |b| b.store.status(job) == JobStatus::Running).await;
    bench.lifecycle.shut_down(crate::lifecycle::ShutdownReason::Requested);
    bench.workers[0].drain();
    bench.control.drained().await;
    let stored = bench.store.job(job);
    assert_eq!(stored.attempts[0].outcome, Some(RunOutcome::Released));
    let task = &stored.aggregate.tasks[0];
    assert_eq!((task.charged, task.losses, stored.aggregate.job.status), (0, 0, JobStatus::Queued));
}

#[tokio::test(start_paused = true)]
async fn garbage_is_offered_until_it_is_gone_and_old_jobs_expire() {
    let bench = Bench::start(&[1]).await;
    let job = bench.submit(1).await;
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    bench.store.litter(Waste::Upload { id: UploadId::from_uuid(uuid::Uuid::nil()) });
    tokio::time::sleep(Duration::from_mins(3)).await;
    assert_eq!(bench.control.store().garbage(Folder::ONLY, bench.clock.now()).await.unwrap().len(), 1);
    bench.broom.0.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert!(bench.control.store().garbage(Folder::ONLY, bench.clock.now()).await.unwrap().is_empty());
    assert!(bench.store.said("wipe_secrets") > 3);
    tokio::time::sleep(RETENTION).await;
    assert!(bench.control.store().get(None, job).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_view_of_a_worker_says_what_it_runs() {
    let bench = Bench::start(&[2]).await;
    let go = Arc::new(Notify::new());
    bench.workers[0].plan(vec![(At::Encoding, Deed::Wait(Arc::clone(&go)))]);
    let job = bench.submit(1).await;
    bench.until(job, |b| b.store.status(job) == JobStatus::Running).await;
    let views = bench.control.workers().await;
    assert_eq!((views[0].slots, views[0].state), (2, crate::control::WorkerState::Ready));
    assert_eq!(views[0].running[0].job, job);
    go.notify_one();
    bench.ended(job).await;
    assert!(bench.control.workers().await[0].running.is_empty());
}

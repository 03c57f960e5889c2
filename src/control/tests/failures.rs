use super::memory::Fault;
use super::worker::{At, Deed};
use super::*;
use crate::control::WorkerState;
use crate::domain::{Code, RunOutcome};
use tokio::sync::Notify;

fn outcomes(bench: &Bench, job: JobId) -> Vec<RunOutcome> {
    bench.store.job(job).attempts.iter().filter_map(|attempt| attempt.outcome).collect()
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_never_answers_delays_nobody() {
    let bench = Bench::start_with(&[1, 1], 1, |workers| workers[0].hang()).await;
    bench.settled().await;
    let before = Instant::now();
    let job = bench.submit(1).await;
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(bench.control.workers().await[0].state, WorkerState::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stops_answering_delays_a_job_only_until_the_others_answered() {
    let bench = Bench::start(&[1, 1]).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    bench.workers[0].hang();
    let before = Instant::now();
    let job = bench.submit(1).await;
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert!(before.elapsed() <= Duration::from_millis(25), "{:?}", before.elapsed());
    let before = Instant::now();
    let job = bench.submit(1).await;
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert!(
        before.elapsed() <= Duration::from_millis(25),
        "nor is it waited for again: {:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_taken_up_again_anywhere() {
    for at in [At::Start, At::Encoding, At::BeforeCommit, At::AfterCommit, At::BeforeFinish] {
        let bench = Bench::start(&[1]).await;
        bench.workers[0].plan(vec![(at, Deed::Break)]);
        let job = bench.submit(2).await;
        assert_eq!(bench.ended(job).await, JobStatus::Completed, "{at:?}");
        assert_eq!(outcomes(&bench, job), [RunOutcome::Done], "{at:?}");
        assert_eq!(bench.workers[0].started().len(), 1, "{at:?}: one run, begun once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_run_is_done_by_another_wherever_it_died() {
    for at in [At::Start, At::Encoding, At::BeforeCommit, At::AfterCommit, At::BeforeFinish] {
        let bench = Bench::start(&[1, 1]).await;
        bench.workers[0].plan(vec![(at, Deed::Die)]);
        bench.workers[1].plan(vec![(at, Deed::Die)]);
        let job = bench.submit(2).await;
        assert_eq!(bench.ended(job).await, JobStatus::Completed, "{at:?}");
        let outcomes = outcomes(&bench, job);
        match at {
            // A start whose stream broke before anything was heard is said again: the same run begins once more.
            At::Start => assert!(outcomes.ends_with(&[RunOutcome::Done]), "{outcomes:?}"),
            // Everything was published: the record needs no other run to know that the job is completed.
            At::BeforeFinish => assert_eq!(outcomes, [RunOutcome::Lost]),
            At::Encoding | At::BeforeCommit | At::AfterCommit => {
                assert_eq!(outcomes, [RunOutcome::Lost, RunOutcome::Lost, RunOutcome::Done], "{at:?}");
            }
        }
        assert_eq!(bench.store.job(job).aggregate.tasks[0].charged, 0, "{at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_run_is_given_to_another_after_30_s() {
    let bench = Bench::start(&[1, 1]).await;
    for worker in &bench.workers {
        worker.plan(vec![(At::Encoding, Deed::FallSilent)]);
    }
    let before = Instant::now();
    let job = bench.submit(1).await;
    bench.until(job, |b| b.store.job(job).attempts.first().is_some_and(|a| a.outcome.is_some())).await;
    assert!(before.elapsed() >= Duration::from_secs(30) && before.elapsed() < Duration::from_secs(31));
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert_eq!(outcomes(&bench, job), [RunOutcome::Lost, RunOutcome::Lost, RunOutcome::Done]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_hangs_mid_run_loses_it() {
    let bench = Bench::start(&[1, 1]).await;
    let go = Arc::new(Notify::new());
    for worker in &bench.workers {
        worker.plan(vec![(At::Encoding, Deed::Wait(Arc::clone(&go)))]);
    }
    let job = bench.submit(1).await;
    bench.until(job, |b| b.store.status(job) == JobStatus::Running).await;
    let first = usize::from(bench.workers[0].started().is_empty());
    bench.workers[first].hang();
    bench.until(job, |b| !b.workers[1 - first].started().is_empty()).await;
    bench.settled().await;
    go.notify_waiters();
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert_eq!(outcomes(&bench, job), [RunOutcome::Lost, RunOutcome::Done]);
    assert_eq!(bench.control.workers().await[first].state, WorkerState::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn a_refused_start_costs_nothing_and_does_not_spin() {
    let bench = Bench::start(&[1]).await;
    bench.workers[0].refuse_starts(3);
    let before = Instant::now();
    let job = bench.submit(1).await;
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert!(before.elapsed() >= Duration::from_secs(3), "it rested: {:?}", before.elapsed());
    let task = bench.store.job(job).aggregate.tasks[0].clone();
    assert_eq!((task.charged, task.losses), (0, 0));
    assert_eq!(outcomes(&bench, job).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_draining_worker_gives_its_work_to_another() {
    let bench = Bench::start(&[1, 1]).await;
    for worker in &bench.workers {
        worker.plan(vec![(At::Encoding, Deed::Wait(Arc::default()))]);
        worker.plan(vec![]);
    }
    let job = bench.submit(1).await;
    bench.until(job, |b| b.store.status(job) == JobStatus::Running).await;
    let first = usize::from(bench.workers[0].started().is_empty());
    let other = &bench.workers[1 - first];
    bench.workers[first].drain();
    bench.until(job, |_| !other.started().is_empty()).await;
    other.drain();
    bench.until(job, |b| b.control_states() == [WorkerState::Draining; 2]).await;
    assert_eq!(bench.store.status(job), JobStatus::Queued);
    assert_eq!(outcomes(&bench, job), [RunOutcome::Released; 2]);
}

#[tokio::test(start_paused = true)]
async fn every_verb_is_repeated_until_it_is_answered() {
    for fault in [Fault::Refused, Fault::AnswerLost, Fault::NoSpace] {
        for verb in 0..10 {
            let bench = Bench::start(&[1]).await;
            let mut faults = vec![None; verb];
            faults.extend([Some(fault); 4]);
            bench.store.inject(&faults);
            let job = bench.submit(2).await;
            assert_eq!(bench.ended(job).await, JobStatus::Completed, "{fault:?} at {verb}");
            assert_eq!(outcomes(&bench, job), [RunOutcome::Done], "{fault:?} at {verb}");
            assert_eq!(bench.workers[0].started().len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_contradiction_ends_the_run_and_is_charged() {
    let bench = Bench::start(&[1]).await;
    bench.store.inject(&[None, None, Some(Fault::Contradiction)]);
    let job = bench.submit(1).await;
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert_eq!(outcomes(&bench, job), [RunOutcome::Failed, RunOutcome::Done]);
    assert_eq!(bench.store.job(job).attempts[0].code, Some(Code::Internal));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_is_replaced_and_its_runs_are_stopped() {
    let bench = Bench::start(&[1]).await;
    bench.workers[0].plan(vec![(At::Encoding, Deed::Wait(Arc::default()))]);
    let job = bench.submit(1).await;
    bench.until(job, |b| b.store.status(job) == JobStatus::Running).await;
    bench.store.end_session();
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    assert_eq!(bench.store.sessions(), 2);
    assert_eq!(bench.workers[0].cancelled(), 1, "the run of the dead session was stopped");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_lost_its_task_is_stopped_and_writes_nothing() {
    let bench = Bench::start(&[1]).await;
    let go = Arc::new(Notify::new());
    bench.workers[0].plan(vec![(At::Encoding, Deed::Wait(Arc::clone(&go)))]);
    let job = bench.submit(1).await;
    bench.until(job, |b| b.store.status(job) == JobStatus::Running).await;
    // Cancelled behind this control's back: it hears of it by the next verb.
    bench.control.store().cancel(None, job, bench.clock.now()).await.unwrap();
    let said = bench.store.said("output_status");
    go.notify_one();
    bench.until(job, |b| b.workers[0].kept() == 0).await;
    assert_eq!(bench.store.said("output_status"), said + 1, "one question, answered with LOST");
    assert_eq!(bench.ended(job).await, JobStatus::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_kills_every_worker_ends() {
    let bench = Bench::start(&[1]).await;
    for _ in 0..20 {
        bench.workers[0].plan(vec![(At::Encoding, Deed::Die)]);
    }
    let job = bench.submit(1).await;
    assert_eq!(bench.ended(job).await, JobStatus::Failed);
    assert_eq!(bench.store.job(job).aggregate.job.failure.unwrap().code, Code::WorkerLost);
}

impl Bench {
    fn control_states(&self) -> Vec<WorkerState> {
        self.control.0.fleet.views(&self.control.0.runs).iter().map(|view| view.state).collect()
    }
}

//! Named histories: one rule each.

use std::time::Duration;

use super::*;

/// A job whose task is held by the first run.
fn running(outputs: u16) -> (World, RunKey) {
    let mut world = World::new(outputs);
    world.claim();
    let key = world.runs[0].0;
    world.step(Some(key), |m| m.started(&key));
    (world, key)
}

fn permitted(world: &mut World, key: RunKey, output: u16) -> Publication {
    let publication = world.publication(key, OutputIndex(output));
    assert!(matches!(world.step(Some(key), |m| m.permit(&key, &publication)), Ok(Fenced::Done(_))));
    publication
}

fn done(publication: &Publication) -> OutputDone {
    OutputDone { output: publication.output, publication: publication.id, result: result() }
}

#[test]
fn a_retryable_failure_waits_in_the_queue_and_the_third_is_final() {
    let (mut world, mut key) = running(1);
    let failure = Kind::Retryable.failure();
    for _ in 0..2 {
        world.step(Some(key), |m| m.fail(&key, &failure, &[]));
        assert_eq!(world.job.job.status, JobStatus::Queued);
        assert_eq!(world.job.job.failure, Some(failure.clone()));
        let task = &world.job.tasks[0];
        assert!(task.not_before.unwrap() <= NOW.plus(backoff_ceiling(task.charged)));
        world.apply(&Op::Wake, Speaker::Newest);
        world.claim();
        key = world.runs.last().unwrap().0;
    }
    world.step(Some(key), |m| m.fail(&key, &failure, &[]));
    assert_eq!(world.job.job.status, JobStatus::Failed);
    assert_eq!(world.job.outputs[0].failure, Some(failure));
}

#[test]
fn losses_cost_no_attempts_up_to_their_bound() {
    let (mut world, mut key) = running(1);
    for lost in 1..=3 {
        assert_eq!(world.step(Some(key), |m| m.requeue(&key, RequeueReason::Lost)), Fenced::Done(()));
        assert_eq!(world.job.tasks[0].charged, 0);
        assert_eq!(world.job.job.status == JobStatus::Failed, lost == 3);
        if lost < 3 {
            world.claim();
            key = world.runs.last().unwrap().0;
        }
    }
    assert_eq!(world.job.job.failure.as_ref().unwrap().code, crate::domain::Code::WorkerLost);
}

#[test]
fn a_permit_before_the_cancel_makes_the_cancel_wait() {
    let (mut world, key) = running(1);
    let publication = permitted(&mut world, key, 0);
    assert_eq!(world.step(None, Machine::cancel), Cancelled::Requested);
    assert_eq!(world.step(None, Machine::cancel), Cancelled::Requested);
    assert_eq!(world.step(Some(key), |m| m.output_done(&key, &done(&publication))), Ok(Fenced::Done(())));
    assert_eq!(world.job.job.status, JobStatus::Completed);
    assert_eq!(
        world.step(Some(key), |m| m.complete(&key)),
        Fenced::Done(()),
        "it was completed by the last output"
    );
}

#[test]
fn a_committed_publication_leaves_no_open_rival() {
    for adopted in [true, false] {
        let (mut world, key) = running(1);
        let first = permitted(&mut world, key, 0);
        world.step(Some(key), |m| m.requeue(&key, RequeueReason::Lost));
        world.claim();
        let key = world.runs.last().unwrap().0;
        let second = world.publication(key, OutputIndex(0));
        let permit = world.step(Some(key), |m| m.permit(&key, &second));
        assert_eq!(permit, Ok(Fenced::Done(Permit { lower: vec![first.clone()] })));
        let visible = if adopted { first } else { second };
        world.step(Some(key), |m| m.output_done(&key, &done(&visible))).unwrap();
        world.step(Some(key), |m| m.complete(&key));
        assert_eq!(world.job.job.status, JobStatus::Completed);
    }
}

#[test]
fn a_cancel_before_the_permit_refuses_the_permit() {
    let (mut world, key) = running(1);
    assert_eq!(world.step(None, Machine::cancel), Cancelled::Now(vec![key.run]));
    let publication = world.publication(key, OutputIndex(0));
    assert_eq!(world.step(Some(key), |m| m.permit(&key, &publication)), Ok(Fenced::Lost));
}

#[test]
fn a_cancelled_job_with_a_lost_publisher_ends_through_a_resolving_run() {
    for adopted in [true, false] {
        let (mut world, key) = running(2);
        let publication = permitted(&mut world, key, 0);
        world.step(None, Machine::cancel);
        world.step(Some(key), |m| m.requeue(&key, RequeueReason::Lost));
        assert!(!world.job.job.status.is_terminal());
        world.claim();
        let key = world.runs.last().unwrap().0;
        if adopted {
            world.step(Some(key), |m| m.output_done(&key, &done(&publication))).unwrap();
        } else {
            world.step(Some(key), |m| m.publications_dead(&key, &[publication.id])).unwrap();
        }
        assert_eq!(world.job.job.status, JobStatus::Cancelled);
        let first = world.job.outputs[0].status;
        assert_eq!(first, if adopted { OutputStatus::Completed } else { OutputStatus::Cancelled });
    }
}

#[test]
fn a_final_failure_waits_for_its_publication_and_adoption_of_all_completes() {
    let (mut world, key) = running(1);
    let publication = permitted(&mut world, key, 0);
    world.step(Some(key), |m| m.fail(&key, &Kind::Final.failure(), &[]));
    assert_eq!(world.job.job.status, JobStatus::Running);
    assert_eq!(world.job.tasks[0].state, TaskState::Ready, "a resolving run is due at once");
    world.claim();
    let key = world.runs.last().unwrap().0;
    world.step(Some(key), |m| m.output_done(&key, &done(&publication))).unwrap();
    assert_eq!(world.job.job.status, JobStatus::Completed);
}

#[test]
fn a_silent_destination_ends_the_job_after_a_day_and_says_so() {
    let (mut world, key) = running(1);
    permitted(&mut world, key, 0);
    world.step(None, Machine::cancel);
    let unreachable = Failure::new(crate::domain::Code::DestinationUnreachable, "no answer");
    let at = |hours| Context {
        policy: Policy::default(),
        now: NOW.plus(Duration::from_hours(hours)),
        random: 1,
        past: None,
        oldest_permit: Some(NOW),
        secrets: SecretsState::Usable,
    };
    let failed = |hours| {
        let mut machine = Machine::new(world.job.clone(), at(hours));
        machine.fail(&key, &unreachable, &[]);
        machine.into_parts().0
    };
    assert_eq!(failed(23).tasks[0].state, TaskState::Delayed);
    let late = failed(24);
    assert_eq!(late.job.status, JobStatus::Cancelled);
    assert!(late.outputs[0].failure.as_ref().unwrap().message.contains("publication_unknown"));
}

#[test]
fn a_retry_keeps_what_is_done_and_goes_on_counting() {
    let (mut world, key) = running(2);
    let publication = permitted(&mut world, key, 0);
    world.step(Some(key), |m| m.output_done(&key, &done(&publication))).unwrap();
    world.step(Some(key), |m| m.fail(&key, &Kind::Final.failure(), &[]));
    assert_eq!(world.job.job.status, JobStatus::Failed);
    world.apply(&Op::Retry, Speaker::Newest);
    assert_eq!(world.job.job.run, RunNumber(2));
    assert_eq!(world.job.outputs[0].status, OutputStatus::Completed);
    assert_eq!(world.job.outputs[1].status, OutputStatus::Pending);
    assert_eq!(world.job.tasks[0].epoch, Epoch(1));
}

#[test]
fn retry_needs_its_secrets_and_is_repeatable() {
    let (mut world, key) = running(1);
    world.step(Some(key), |m| m.fail(&key, &Kind::Final.failure(), &[]));
    let task = TaskId::from_uuid(id(77));
    let context = |secrets| Context {
        policy: Policy::default(),
        now: NOW,
        random: 0,
        past: None,
        oldest_permit: None,
        secrets,
    };
    assert_eq!(
        Machine::new(world.job.clone(), context(SecretsState::Wiped)).retry(task),
        Retried::SecretsGone
    );
    let mut machine = Machine::new(world.job, context(SecretsState::Usable));
    assert_eq!(machine.retry(task), Retried::Queued);
    assert_eq!(machine.retry(task), Retried::Queued);
    assert_eq!(machine.aggregate().job.run, RunNumber(2));
}

#[test]
fn ending_without_every_output_is_a_failure_and_not_a_success() {
    let (mut world, key) = running(2);
    world.step(Some(key), |m| m.complete(&key));
    assert_eq!(world.job.job.failure.as_ref().unwrap().code, crate::domain::Code::Internal);
    assert_eq!(world.job.job.status, JobStatus::Queued);
}

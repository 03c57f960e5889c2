//! Runs: the fence, publishing, failing, coming back.

use std::time::Duration;

use super::*;
use crate::domain::{Demuxer, Epoch, Phase, RunNumber, RunOutcome, TaskState};

pub(super) async fn the_whole_way_to_completed(desk: Desk) {
    let id = desk.submit_outputs(2).await;
    let claimed = desk.start().await;
    assert_eq!((claimed.epoch, claimed.resolve_only, claimed.earlier_failures), (Epoch(1), false, 0));
    assert_eq!(desk.status(id).await, JobStatus::Running);
    for status in [OutputStatus::Encoding, OutputStatus::Verifying, OutputStatus::Encoding] {
        let answer = desk.store.output_status(claimed.key, OutputIndex(0), status, desk.now()).await.unwrap();
        assert_eq!(answer, Fenced::Done(()));
    }
    assert_eq!(desk.get(id).await.aggregate.outputs[0].status, OutputStatus::Verifying, "never backwards");
    let publications = [desk.publish(&claimed, 0).await, desk.publish(&claimed, 1).await];
    assert_eq!(desk.status(id).await, JobStatus::Running, "the last output completes nothing by itself");
    for _ in 0..2 {
        assert_eq!(desk.store.complete(claimed.key, desk.now()).await.unwrap(), Fenced::Done(()));
    }
    let StoredJob { aggregate, attempts, .. } = desk.get(id).await;
    assert_eq!((aggregate.job.status, aggregate.job.progress), (JobStatus::Completed, Progress::DONE));
    let recorded: Vec<_> = aggregate.outputs.iter().map(|o| o.publication.unwrap()).collect();
    assert_eq!(recorded, publications.map(|p| p.id));
    assert_eq!(aggregate.outputs[0].result, Some(result()));
    assert_eq!(aggregate.tasks[0].state, TaskState::Done);
    assert_eq!(attempts[0].outcome, Some(RunOutcome::Done));
    desk.check_history(id).await;
}

/// Every fenced verb of `key` is lost and changes nothing.
async fn all_lost(desk: &Desk, key: RunKey, publication: &Publication) {
    let (store, now, before) = (&desk.store, desk.now(), desk.get(key.job).await);
    assert_eq!(store.started(key, now).await.unwrap(), Fenced::Lost);
    assert_eq!(
        store.output_status(key, OutputIndex(0), OutputStatus::Encoding, now).await.unwrap(),
        Fenced::Lost
    );
    assert_eq!(store.permit(key, publication.clone(), now).await.unwrap(), Fenced::Lost);
    assert_eq!(store.publications_dead(key, &[publication.id], now).await.unwrap(), Fenced::Lost);
    assert_eq!(desk.done(key, publication).await, Fenced::Lost);
    assert_eq!(store.complete(key, now).await.unwrap(), Fenced::Lost);
    assert_eq!(store.fail(key, broken(), vec![], now).await.unwrap(), Fenced::Lost);
    assert_eq!(desk.get(key.job).await, before);
}

pub(super) async fn only_the_holder_writes(desk: Desk) {
    desk.submit_outputs(1).await;
    let old = desk.start().await;
    let stale = desk.publication(&old, 0);
    for _ in 0..2 {
        let answer = desk.store.requeue(old.key, RequeueReason::Lost, desk.now()).await.unwrap();
        assert_eq!(answer, Fenced::Done(()), "requeue is repeatable");
    }
    all_lost(&desk, old.key, &stale).await;
    let new = desk.start().await;
    assert_eq!((new.epoch, new.earlier_failures), (Epoch(2), 1));
    all_lost(&desk, old.key, &stale).await;
    assert_eq!(desk.store.requeue(old.key, RequeueReason::Lost, desk.now()).await.unwrap(), Fenced::Done(()));
    assert_eq!(desk.store.started(new.key, desk.now()).await.unwrap(), Fenced::Done(()));
    let foreign = RunKey { job: JobId::from_uuid(desk.ids.random()), ..new.key };
    assert_eq!(desk.store.complete(foreign, desk.now()).await.unwrap(), Fenced::Lost);
}

pub(super) async fn a_stale_session_writes_nothing(desk: Desk) {
    desk.submit_outputs(1).await;
    let claimed = desk.start().await;
    let key = RunKey { session: SessionId::from_uuid(desk.ids.random()), ..claimed.key };
    all_lost(&desk, key, &desk.publication(&claimed, 0)).await;
    assert_eq!(desk.store.requeue(key, RequeueReason::Lost, desk.now()).await.unwrap(), Fenced::Lost);
}

pub(super) async fn a_permit_before_the_cancel_wins(desk: Desk) {
    let id = desk.submit_outputs(1).await;
    let claimed = desk.start().await;
    let (publication, permit) = desk.permit(&claimed, 0).await;
    assert_eq!(permit, Fenced::Done(Permit { lower: vec![] }));
    assert_eq!(desk.store.cancel(None, id, desk.now()).await.unwrap(), Cancelled::Requested);
    let again = desk.store.permit(claimed.key, publication.clone(), desk.now()).await.unwrap();
    assert_eq!(again, permit, "a permit is repeated as it was");
    assert_eq!(desk.done(claimed.key, &publication).await, Fenced::Done(()));
    assert_eq!(desk.store.complete(claimed.key, desk.now()).await.unwrap(), Fenced::Done(()));
    assert_eq!(desk.status(id).await, JobStatus::Completed);
    desk.check_history(id).await;
}

pub(super) async fn a_cancel_before_the_permit_wins(desk: Desk) {
    let id = desk.submit_outputs(1).await;
    let claimed = desk.start().await;
    let cancelled = desk.store.cancel(None, id, desk.now()).await.unwrap();
    assert_eq!(cancelled, Cancelled::Now(vec![claimed.key.run]));
    assert_eq!(desk.permit(&claimed, 0).await.1, Fenced::Lost);
    assert_eq!(desk.get(id).await.attempts[0].outcome, Some(RunOutcome::Cancelled));
    desk.check_history(id).await;
}

pub(super) async fn the_next_epoch_learns_of_open_publications(desk: Desk) {
    let id = desk.submit_outputs(2).await;
    let first = desk.start().await;
    let (left, _) = desk.permit(&first, 0).await;
    desk.store.requeue(first.key, RequeueReason::Lost, desk.now()).await.unwrap();
    assert_eq!(desk.store.cancel(None, id, desk.now()).await.unwrap(), Cancelled::Requested);
    let second = desk.start().await;
    assert!(second.resolve_only);
    assert_eq!(second.open, vec![left.clone()]);
    let dead = desk.store.publications_dead(second.key, &[left.id], desk.now()).await.unwrap();
    assert_eq!(dead, Fenced::Done(()));
    assert_eq!(desk.status(id).await, JobStatus::Cancelled);
    assert_eq!(desk.store.complete(second.key, desk.now()).await.unwrap(), Fenced::Lost);
    desk.check_history(id).await;

    let id = desk.submit_outputs(1).await;
    let first = desk.start().await;
    let (left, _) = desk.permit(&first, 0).await;
    desk.store.requeue(first.key, RequeueReason::Lost, desk.now()).await.unwrap();
    let second = desk.start().await;
    assert!(!second.resolve_only);
    assert_eq!(desk.permit(&second, 0).await.1, Fenced::Done(Permit { lower: vec![left.clone()] }));
    assert_eq!(desk.done(second.key, &left).await, Fenced::Done(()), "a lower one may be adopted");
    desk.store.complete(second.key, desk.now()).await.unwrap();
    let job = desk.get(id).await.aggregate;
    assert_eq!((job.job.status, job.outputs[0].publication), (JobStatus::Completed, Some(left.id)));
}

pub(super) async fn failures_wait_and_then_end_the_job(desk: Desk) {
    let id = desk.submit_outputs(1).await;
    for attempt in 1..=3 {
        let claimed = desk.start().await;
        for _ in 0..2 {
            let answer = desk.store.fail(claimed.key, crashed(), vec![], desk.now()).await.unwrap();
            assert_eq!(answer, Fenced::Done(()), "fail is repeatable");
        }
        if attempt < 3 {
            assert_eq!(desk.status(id).await, JobStatus::Queued);
            assert_eq!(desk.get(id).await.aggregate.job.failure, Some(crashed()));
            assert!(desk.claim(1).await.is_empty(), "it waits");
            let (_, due) = desk.store.wake_delayed(desk.now()).await.unwrap();
            desk.clock.advance(due.expect("it has a time").since(desk.now()));
            assert_eq!(desk.store.wake_delayed(desk.now()).await.unwrap(), (1, None));
        }
    }
    let StoredJob { aggregate, attempts, .. } = desk.get(id).await;
    assert_eq!(aggregate.job.status, JobStatus::Failed);
    assert_eq!(aggregate.outputs[0].failure, Some(crashed()));
    let seen: Vec<_> = attempts.iter().map(|a| (a.epoch.0, a.outcome, a.code, a.log.as_deref())).collect();
    let each = |epoch| (epoch, Some(RunOutcome::Failed), Some(Code::EncoderCrashed), Some("line"));
    assert_eq!(seen, [each(1), each(2), each(3)]);
    desk.check_history(id).await;
}

/// The clock of a machine was wrong by hours, and is set right.
pub(super) async fn a_clock_that_goes_back_holds_nothing_up(desk: Desk) {
    let id = desk.submit_outputs(1).await;
    let wrong = desk.now().plus(Duration::from_hours(8));
    let claimed = desk.start().await;
    desk.store.fail(claimed.key, crashed(), vec![], wrong).await.unwrap();
    let woken = desk.store.wake_delayed(desk.now()).await.unwrap();
    assert_eq!(woken, (1, None), "no wait is longer than the longest backoff");
    let claimed = desk.start().await;
    let (publication, _) = desk.permit(&claimed, 0).await;
    assert_eq!(desk.store.cancel(None, id, wrong).await.unwrap(), Cancelled::Requested);
    assert_eq!(desk.done(claimed.key, &publication).await, Fenced::Done(()));
    desk.store.complete(claimed.key, desk.now()).await.unwrap();
    let job = desk.get(id).await.aggregate.job;
    assert_eq!(
        (job.status, job.finished_at),
        (JobStatus::Completed, Some(wrong)),
        "it ends after its cancel"
    );
}

pub(super) async fn outputs_are_completed_one_by_one_and_survive_a_retry(desk: Desk) {
    let id = desk.submit_outputs(2).await;
    let claimed = desk.start().await;
    let kept = desk.publish(&claimed, 0).await;
    let own = Failure::new(Code::DestinationForbidden, "the bucket refused");
    let outputs = vec![(OutputIndex(1), own.clone())];
    desk.store.fail(claimed.key, own.clone(), outputs, desk.now()).await.unwrap();
    let failed = desk.get(id).await.aggregate;
    assert_eq!((failed.job.status, failed.outputs[0].status), (JobStatus::Failed, OutputStatus::Completed));
    assert_eq!(
        (failed.outputs[1].status, failed.outputs[1].failure.clone()),
        (OutputStatus::Failed, Some(own))
    );

    let task = desk.task();
    for _ in 0..2 {
        assert_eq!(desk.store.retry(None, id, task, desk.now()).await.unwrap(), Retried::Queued);
    }
    let claimed = desk.start().await;
    assert_eq!((claimed.epoch, claimed.key.task), (Epoch(2), task), "epochs go on over runs");
    assert_eq!(claimed.completed, vec![OutputIndex(0)]);
    desk.publish(&claimed, 1).await;
    desk.store.complete(claimed.key, desk.now()).await.unwrap();
    let job = desk.get(id).await;
    assert_eq!((job.aggregate.job.status, job.aggregate.job.run), (JobStatus::Completed, RunNumber(2)));
    assert_eq!(job.aggregate.outputs[0].publication, Some(kept.id));
    assert_eq!(job.attempts.len(), 2);
    let again = desk.store.retry(None, id, desk.task(), desk.now()).await.unwrap();
    assert_eq!(again, Retried::NotFailed(JobStatus::Completed));
    desk.check_history(id).await;
}

fn reported(job: JobId, permille: u16) -> Reported {
    let progress = Progress::from_permille(permille);
    let report = TaskReport { phase: Phase::Encoding, progress, fps: None, speed: None, eta_seconds: None };
    Reported { task: TaskId::from_uuid(job.uuid()), job, report }
}

pub(super) async fn progress_only_rises(desk: Desk) {
    let (id, waiting) = (desk.submit_outputs(1).await, desk.submit_outputs(1).await);
    desk.start().await;
    for permille in [300, 700, 100] {
        let reports = [reported(id, permille), reported(waiting, permille)];
        desk.store.progress(&reports).await.unwrap();
    }
    assert_eq!(desk.get(id).await.aggregate.job.progress, Progress::from_permille(700));
    assert_eq!(desk.get(waiting).await.aggregate.job.progress, Progress::ZERO, "it does not run");
    assert_eq!(desk.store.events(id, 0).await.unwrap().len(), 2, "progress is no event");
}

pub(super) async fn a_new_session_requeues_what_was_held(desk: Desk) {
    let (running, publishing) = (desk.submit_outputs(1).await, desk.submit_outputs(1).await);
    let (first, second) = (desk.start().await, desk.start().await);
    let (left, _) = desk.permit(&second, 0).await;
    let session = desk.store.open_session("next", desk.now()).await.unwrap();
    assert_eq!(desk.store.renew_session(first.key.session, desk.now()).await.unwrap(), Fenced::Lost);
    assert_eq!(desk.store.renew_session(session, desk.now()).await.unwrap(), Fenced::Done(()));
    for (id, key) in [(running, first.key), (publishing, second.key)] {
        let job = desk.get(id).await;
        assert_eq!(job.aggregate.job.status, JobStatus::Queued);
        assert_eq!(
            (job.aggregate.tasks[0].charged, job.aggregate.tasks[0].losses),
            (0, 1),
            "a loss, because it ran; no attempt is charged"
        );
        assert_eq!(job.attempts[0].outcome, Some(RunOutcome::Lost));
        assert_eq!(desk.store.complete(key, desk.now()).await.unwrap(), Fenced::Lost);
    }
    let claimed = desk.store.claim(session, &[desk.grant(5)], desk.now()).await.unwrap();
    let open: Vec<_> = claimed.iter().map(|c| (c.key.job, c.epoch, c.open.clone())).collect();
    assert_eq!(open, [(running, Epoch(2), vec![]), (publishing, Epoch(2), vec![left])]);
}

pub(super) async fn a_job_that_kills_its_process_ends(desk: Desk) {
    let bystander = desk.submit_outputs(1).await;
    let poison = desk.submit_outputs(1).await;
    let mut session = desk.session;
    for start in 0..6 {
        let claimed = desk.store.claim(session, &[desk.grant(2)], desk.now()).await.unwrap();
        assert_eq!(claimed.len(), 2, "start {start}");
        // The bystander is claimed each time and never begins: that says nothing about it.
        let held = claimed.iter().find(|c| c.key.job == poison).unwrap();
        assert_eq!(held.earlier_failures, start, "verification is full after the first");
        desk.store.started(held.key, desk.now()).await.unwrap();
        session = desk.store.open_session("next", desk.now()).await.unwrap();
    }
    let ended = desk.get(poison).await.aggregate;
    assert_eq!(ended.job.status, JobStatus::Failed);
    assert_eq!(ended.job.failure.map(|f| f.code), Some(Code::WorkerLost));
    assert_eq!(desk.status(bystander).await, JobStatus::Queued);
    assert_eq!(desk.get(bystander).await.aggregate.tasks[0].losses, 0);
    desk.check_history(poison).await;
}

pub(super) async fn media_is_kept(desk: Desk) {
    let id = desk.submit_outputs(1).await;
    let claimed = desk.start().await;
    let media = MediaInfo {
        container: Demuxer::Mov,
        size: 7,
        duration_seconds: Some(1.5),
        video: Vec::new(),
        audio: Vec::new(),
        subtitles: vec![],
        other: Vec::new(),
    };
    assert_eq!(desk.store.media(claimed.key, &media, desk.now()).await.unwrap(), Fenced::Done(()));
    desk.store.requeue(claimed.key, RequeueReason::Released, desk.now()).await.unwrap();
    assert_eq!(desk.store.media(claimed.key, &media, desk.now()).await.unwrap(), Fenced::Lost);
    assert_eq!(desk.get(id).await.aggregate.job.media, Some(media));
}

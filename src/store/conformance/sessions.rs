//! Sessions that end, tasks that are taken over, and what a worker must be for a task.

use std::time::Duration;

use super::*;
use crate::domain::preset::Presets;
use crate::domain::{Epoch, RunOutcome, TaskState};

fn seen(grant: &Grant, at: Timestamp) -> WorkerSeen {
    WorkerSeen {
        worker: grant.worker.clone(),
        boot: grant.boot,
        address: "10.0.0.7:50051".into(),
        seen_at: at,
    }
}

/// A run on a worker that the record knows, of a session that is over.
async fn left_behind(desk: &Desk) -> (JobId, Claimed, SessionId) {
    let id = desk.submit_outputs(1).await;
    let grant = desk.grant(1);
    desk.store.see_workers(desk.session, &[seen(&grant, desk.now())]).await.unwrap();
    let claimed = desk.store.claim(desk.session, &[grant], desk.now()).await.unwrap().remove(0);
    desk.store.started(claimed.key, desk.now()).await.unwrap();
    desk.store.close_session(desk.session).await.unwrap();
    let session = desk.store.open_session("next", desk.now()).await.unwrap();
    (id, claimed, session)
}

pub(super) async fn a_run_elsewhere_is_taken_over_as_it_is(desk: Desk) {
    let (id, old, session) = left_behind(&desk).await;
    assert_eq!(desk.status(id).await, JobStatus::Running, "nothing happened to the job");
    let taken = desk.store.takeover(session, 10, desk.now()).await.unwrap();
    let [taken] = taken.as_slice() else { panic!("{taken:?}") };
    let claimed = &taken.claimed;
    assert_eq!((claimed.key.run, claimed.epoch, claimed.boot), (old.key.run, Epoch(1), old.boot));
    assert_eq!((claimed.key.session, taken.address.as_deref()), (session, Some("10.0.0.7:50051")));
    assert_eq!(claimed.spec, old.spec);
    assert!(desk.store.takeover(session, 10, desk.now()).await.unwrap().is_empty(), "once");
    assert_eq!(
        desk.store.complete(old.key, desk.now()).await.unwrap(),
        Fenced::Lost,
        "the old session is over"
    );
    desk.publish(claimed, 0).await;
    assert_eq!(desk.store.complete(claimed.key, desk.now()).await.unwrap(), Fenced::Done(()));
    assert_eq!(desk.status(id).await, JobStatus::Completed);
    assert_eq!(desk.get(id).await.attempts.len(), 1, "it is the same attempt");
    desk.check_history(id).await;
}

pub(super) async fn a_session_that_is_over_does_nothing_more(desk: Desk) {
    let (_, old, session) = left_behind(&desk).await;
    let waiting = desk.submit_outputs(1).await;
    assert_eq!(
        desk.store.renew_session(desk.session, desk.now()).await.unwrap(),
        Fenced::Lost,
        "never revived"
    );
    assert!(desk.store.takeover(desk.session, 10, desk.now()).await.unwrap().is_empty());
    assert!(desk.store.claim(desk.session, &[desk.grant(1)], desk.now()).await.unwrap().is_empty());
    assert_eq!(desk.status(waiting).await, JobStatus::Queued);
    assert_eq!(
        desk.store.started(old.key, desk.now()).await.unwrap(),
        Fenced::Done(()),
        "held until taken over"
    );
    desk.store.takeover(session, 10, desk.now()).await.unwrap();
    assert_eq!(desk.store.started(old.key, desk.now()).await.unwrap(), Fenced::Lost);
}

pub(super) async fn takeover_goes_in_steps(desk: Desk) {
    let grant = desk.grant(5);
    desk.store.see_workers(desk.session, &[seen(&grant, desk.now())]).await.unwrap();
    for _ in 0..5 {
        desk.submit_outputs(1).await;
    }
    assert_eq!(desk.store.claim(desk.session, &[grant], desk.now()).await.unwrap().len(), 5);
    desk.store.close_session(desk.session).await.unwrap();
    let session = desk.store.open_session("next", desk.now()).await.unwrap();
    let mut counts = Vec::new();
    for _ in 0..4 {
        counts.push(desk.store.takeover(session, 2, desk.now()).await.unwrap().len());
    }
    assert_eq!(counts, [2, 2, 1, 0]);
}

pub(super) async fn workers_are_remembered(desk: Desk) {
    let (one, two) = (desk.grant(1), desk.grant(1));
    let first = seen(&one, desk.now());
    desk.store.see_workers(desk.session, std::slice::from_ref(&first)).await.unwrap();
    desk.clock.advance(Duration::from_secs(40));
    let moved = WorkerSeen { address: "10.0.0.8:50051".into(), seen_at: desk.now(), ..first };
    let second = seen(&two, desk.now());
    desk.store.see_workers(desk.session, &[moved.clone(), second.clone()]).await.unwrap();
    let mut known = desk.store.workers_seen(desk.now()).await.unwrap();
    known.sort_by_key(|seen| seen.address.clone());
    assert_eq!(known, [second, moved]);
    desk.clock.advance(Duration::from_secs(1));
    assert!(desk.store.workers_seen(desk.now()).await.unwrap().is_empty());
}

pub(super) async fn one_session_has_a_duty(desk: Desk) {
    for _ in 0..2 {
        assert!(desk.store.holds(desk.session, Duty::Waking, desk.now()).await.unwrap());
    }
}

pub(super) async fn a_pulse_says_how_far_the_history_is(desk: Desk) {
    let (id, other) = (desk.submit_outputs(1).await, JobId::from_uuid(desk.ids.random()));
    let seq = async || {
        let pulses = desk.store.pulse(&[id, other]).await.unwrap();
        pulses.iter().map(|p| (p.job, p.seq, p.status, p.cancel_asked)).collect::<Vec<_>>()
    };
    assert_eq!(seq().await, [(id, 1, JobStatus::Queued, false)]);
    desk.start().await;
    assert_eq!(seq().await, [(id, 2, JobStatus::Running, false)]);
    desk.store.cancel(None, id, desk.now()).await.unwrap();
    assert_eq!(seq().await, [(id, 4, JobStatus::Cancelled, true)]);
    desk.store.delete(None, id, desk.now()).await.unwrap();
    assert_eq!(seq().await, []);
}

pub(super) async fn a_worker_gets_only_what_it_can_do(desk: Desk) {
    let mut vp9 = spec(1);
    vp9.outputs[0].encode = Presets::builtin().get("1080p_vp9").unwrap().clone();
    let (hard, easy) = (desk.submit(NewJob { spec: vp9, ..desk.job() }).await, desk.submit_outputs(1).await);
    let can = Abilities::of(["libx264", "aac"]);
    let grant = Grant { can, ..desk.grant(5) };
    let claimed = desk.store.claim(desk.session, &[grant], desk.now()).await.unwrap();
    assert_eq!(claimed.iter().map(|c| c.key.job).collect::<Vec<_>>(), [easy]);
    let able = Grant { can: Abilities::of(["libvpx-vp9", "libopus"]), ..desk.grant(5) };
    let claimed =
        desk.store.claim(desk.session, &[Grant { can, ..desk.grant(5) }, able], desk.now()).await.unwrap();
    assert_eq!(claimed.iter().map(|c| c.key.job).collect::<Vec<_>>(), [hard]);
    assert_eq!(desk.get(hard).await.queue_position, None);
}

pub(super) async fn a_suspect_runs_alone_and_two_more_deaths_end_it(desk: Desk) {
    let (poison, bystander) = (desk.submit_outputs(1).await, desk.submit_outputs(1).await);
    let both = desk.claim(2).await;
    for claimed in &both {
        desk.store.started(claimed.key, desk.now()).await.unwrap();
        desk.store.requeue(claimed.key, RequeueReason::Died, desk.now()).await.unwrap();
    }
    assert_eq!(desk.store.stats().await.unwrap().solo, 2);
    assert!(desk.claim(2).await.is_empty(), "a worker with others on it does not get them");
    let alone = async || {
        let grant = Grant { company: Company::Alone, ..desk.grant(1) };
        desk.store.claim(desk.session, &[grant], desk.now()).await.unwrap().remove(0)
    };
    for death in 1..=2 {
        let claimed = alone().await;
        assert_eq!((claimed.key.job, claimed.class.is_solo()), (poison, true));
        desk.store.requeue(claimed.key, RequeueReason::Died, desk.now()).await.unwrap();
        let status = if death == 2 { JobStatus::Failed } else { JobStatus::Queued };
        assert_eq!(desk.status(poison).await, status);
    }
    let failure = desk.get(poison).await.aggregate.job.failure.map(|failure| failure.code);
    assert_eq!(failure, Some(Code::WorkerLost));
    let claimed = alone().await;
    assert_eq!(claimed.key.job, bystander);
    desk.publish(&claimed, 0).await;
    desk.store.complete(claimed.key, desk.now()).await.unwrap();
    let done = desk.get(bystander).await;
    assert_eq!(done.aggregate.job.status, JobStatus::Completed);
    assert_eq!(done.attempts[0].outcome, Some(RunOutcome::Lost));
    assert!(done.aggregate.tasks.iter().all(|task| task.state == TaskState::Done && task.losses == 0));
    desk.check_history(poison).await;
}

pub(super) async fn sessions_live_side_by_side(desk: Desk) {
    let ids = [desk.submit_outputs(1).await, desk.submit_outputs(1).await];
    let other = desk.store.open_session("other", desk.now()).await.unwrap();
    let mut claimed = Vec::new();
    for session in [desk.session, other] {
        claimed.extend(desk.store.claim(session, &[desk.grant(1)], desk.now()).await.unwrap());
        assert_eq!(desk.store.renew_session(session, desk.now()).await.unwrap(), Fenced::Done(()));
    }
    assert_eq!(claimed.iter().map(|c| c.key.job).collect::<Vec<_>>(), ids);
    for session in [desk.session, other] {
        assert!(desk.store.takeover(session, 10, desk.now()).await.unwrap().is_empty(), "nothing is over");
    }
    for claimed in &claimed {
        assert_eq!(desk.store.started(claimed.key, desk.now()).await.unwrap(), Fenced::Done(()));
    }
    let stolen = RunKey { session: other, ..claimed[0].key };
    assert_eq!(desk.store.complete(stolen, desk.now()).await.unwrap(), Fenced::Lost);
}

pub(super) async fn a_duty_passes_on_when_its_session_is_over(desk: Desk) {
    let other = desk.store.open_session("other", desk.now()).await.unwrap();
    let holds = async |session| desk.store.holds(session, Duty::Waking, desk.now()).await.unwrap();
    assert_eq!(
        (holds(desk.session).await, holds(other).await, holds(desk.session).await),
        (true, false, true)
    );
    desk.store.close_session(desk.session).await.unwrap();
    assert_eq!((holds(desk.session).await, holds(other).await), (false, true));
}

pub(super) async fn reports_are_told_elsewhere(desk: Desk) {
    let id = desk.submit_outputs(1).await;
    let claimed = desk.start().await;
    let told = async || desk.store.pulse(&[id]).await.unwrap().remove(0).report;
    assert_eq!(told().await, None);
    let report = |permille, fps| TaskReport {
        phase: crate::domain::Phase::Encoding,
        progress: Progress::from_permille(permille),
        fps: Some(fps),
        speed: None,
        eta_seconds: Some(2.5),
    };
    for (permille, fps) in [(300, 25.0), (200, 24.0)] {
        let reported = Reported { task: claimed.key.task, job: id, report: report(permille, fps) };
        desk.store.progress(&[reported]).await.unwrap();
    }
    assert_eq!(told().await, Some(report(300, 24.0)), "the latest, and progress never falls");
    desk.store.requeue(claimed.key, RequeueReason::Released, desk.now()).await.unwrap();
    assert_eq!(told().await, None);
    desk.start().await;
    assert_eq!(told().await, None, "what an earlier run reported is forgotten");
}

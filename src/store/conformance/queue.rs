//! Who is next.

use super::*;
use crate::domain::Epoch;

pub(super) async fn priority_orders_within_a_tenant(desk: Desk) {
    let mut ids = Vec::new();
    for priority in [0, 5, -5, 0, 5] {
        let mut job = desk.job();
        job.spec.priority = priority;
        ids.push(desk.submit(job).await);
    }
    let order: Vec<_> = desk.claim(5).await.iter().map(|c| c.key.job).collect();
    assert_eq!(order, [ids[1], ids[4], ids[0], ids[3], ids[2]]);
}

pub(super) async fn tenants_take_turns(desk: Desk) {
    for tenant in ["a", "a", "a", "a", "b", "c", "c"] {
        desk.submit(NewJob { tenant: tenant.parse().unwrap(), ..desk.job() }).await;
    }
    let mut order = Vec::new();
    for slots in [2, 1, 4, 1] {
        order.extend(desk.claim(slots).await.iter().map(|c| c.tenant.to_string()));
    }
    assert_eq!(order, ["a", "b", "c", "a", "c", "a", "a"]);
}

pub(super) async fn positions_are_counted(desk: Desk) {
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(desk.submit_outputs(1).await);
    }
    desk.submit(NewJob { tenant: "other".parse().unwrap(), ..desk.job() }).await;
    desk.store.cancel(None, ids[1], desk.now()).await.unwrap();
    let running = desk.claim_one().await.key.job;
    assert_eq!(running, ids[0]);
    assert_eq!(desk.get(ids[2]).await.queue_position, Some(0));
    assert_eq!(desk.get(ids[3]).await.queue_position, Some(1));
    assert_eq!(desk.get(ids[1]).await.queue_position, None);
}

pub(super) async fn stats_count_by_state(desk: Desk) {
    assert_eq!(desk.store.stats().await.unwrap(), QueueStats::default());
    desk.submit_outputs(1).await;
    let second = desk.job();
    let oldest = second.now;
    desk.submit(second).await;
    desk.submit_outputs(1).await;
    let claimed = desk.start().await;
    let expected = QueueStats { ready: 2, solo: 0, delayed: 0, running: 1, oldest_ready: Some(oldest) };
    assert_eq!(desk.store.stats().await.unwrap(), expected);
    desk.store.fail(claimed.key, crashed(), vec![], desk.now()).await.unwrap();
    assert_eq!(desk.store.stats().await.unwrap(), QueueStats { delayed: 1, running: 0, ..expected });
}

pub(super) async fn waiting_jobs_are_counted_by_tenant(desk: Desk) {
    let (a, b): (Tenant, Tenant) = ("a".parse().unwrap(), "b".parse().unwrap());
    for tenant in [&a, &a, &a, &b] {
        desk.submit(NewJob { tenant: tenant.clone(), ..desk.job() }).await;
    }
    let waiting = async |tenant, most| desk.store.waiting(tenant, most).await.unwrap();
    assert_eq!((waiting(&a, 10).await, waiting(&a, 2).await, waiting(&b, 10).await), (3, 2, 1));
    desk.claim(2).await;
    assert_eq!((waiting(&a, 10).await, waiting(&b, 10).await), (2, 0), "one of each runs");
    assert_eq!(waiting(&Tenant::local(), 10).await, 0);
}

pub(super) async fn an_old_session_claims_nothing(desk: Desk) {
    desk.submit_outputs(1).await;
    desk.store.open_session("next", desk.now()).await.unwrap();
    assert!(desk.claim(1).await.is_empty());
}

pub(super) async fn a_claim_said_again_answers_the_same(desk: Desk) {
    for _ in 0..3 {
        desk.submit_outputs(1).await;
    }
    let grant = desk.grant(2);
    let claim =
        || async { desk.store.claim(desk.session, std::slice::from_ref(&grant), desk.now()).await.unwrap() };
    let names = |claimed: &[Claimed]| -> Vec<_> { claimed.iter().map(|c| (c.key, c.epoch)).collect() };
    let first = claim().await;
    let again = claim().await;
    assert_eq!(names(&first), names(&again));
    assert_eq!(first.len(), 2);
    assert_eq!(desk.store.stats().await.unwrap().ready, 1, "the third job is still there");

    // A run that is over is no answer, and its name is never used for another task.
    desk.store.requeue(first[0].key, RequeueReason::Released, desk.now()).await.unwrap();
    assert_eq!(names(&claim().await), names(&first[1..]));
    let rest = desk.claim(5).await;
    assert_eq!(rest.iter().map(|c| c.epoch).collect::<Vec<_>>(), [Epoch(2), Epoch(1)]);
}

pub(super) async fn without_a_queue_only_free_slots_are_filled(desk: Desk) {
    desk.store.offer(MAX_PENDING);
    desk.submit_outputs(1).await;
    let (bare, _, _place) = (desk.another)(Options { max_pending: Some(0), ..Options::default() }).await;
    let desk = Desk { session: bare.open_session("bare", desk.now()).await.unwrap(), store: bare, ..desk };
    assert_eq!(desk.store.submit(desk.job()).await.unwrap(), Submitted::QueueFull, "nobody works yet");
    desk.store.offer(2);
    let jobs: Vec<_> = (0..5).map(|_| desk.job()).collect();
    let answers = futures_util::future::join_all(jobs.into_iter().map(|job| desk.store.submit(job))).await;
    assert_eq!(answers.iter().filter(|a| matches!(a, Ok(Submitted::Created))).count(), 2);
    let running = desk.start().await;
    assert_eq!(desk.store.submit(desk.job()).await.unwrap(), Submitted::QueueFull, "running is busy too");
    desk.publish(&running, 0).await;
    desk.store.complete(running.key, desk.now()).await.unwrap();
    desk.submit_outputs(1).await;
}

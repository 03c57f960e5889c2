//! Who is next.

use super::*;

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
    let expected = QueueStats { ready: 2, delayed: 0, running: 1, oldest_ready: Some(oldest) };
    assert_eq!(desk.store.stats().await.unwrap(), expected);
    desk.store.fail(claimed.key, crashed(), vec![], desk.now()).await.unwrap();
    assert_eq!(desk.store.stats().await.unwrap(), QueueStats { delayed: 1, running: 0, ..expected });
}

pub(super) async fn an_old_session_claims_nothing(desk: Desk) {
    desk.submit_outputs(1).await;
    desk.store.open_session("next", desk.now()).await.unwrap();
    assert!(desk.claim(1).await.is_empty());
}

//! Accepting jobs.

use std::time::Duration;

use super::*;

pub(super) async fn a_submitted_job_is_read_back_whole(desk: Desk) {
    let mut job = NewJob { spec: spec(3), ..desk.job() };
    job.spec.labels.insert("show".into(), "news".into());
    job.spec.priority = 7;
    let id = desk.submit(job.clone()).await;
    let StoredJob { aggregate, attempts, queue_position } = desk.get(id).await;
    assert_eq!(aggregate, job.accepted());
    assert_eq!((attempts, queue_position), (vec![], Some(0)));
    desk.check_history(id).await;
}

pub(super) async fn one_key_makes_one_job(desk: Desk) {
    let jobs: Vec<_> = (0..50).map(|_| desk.keyed("k", "body")).collect();
    let answers = futures_util::future::join_all(jobs.into_iter().map(|job| {
        let store = Arc::clone(&desk.store);
        async move { (job.id, store.submit(job).await.unwrap()) }
    }))
    .await;
    let created: Vec<_> =
        answers.iter().filter(|(_, a)| *a == Submitted::Created).map(|(id, _)| *id).collect();
    assert_eq!(created.len(), 1);
    assert_eq!(answers.iter().filter(|(_, a)| *a == Submitted::Replayed(created[0])).count(), 49);
    assert_eq!(
        desk.store.list(&JobFilter { limit: 100, ..JobFilter::default() }).await.unwrap().jobs.len(),
        1
    );
}

pub(super) async fn a_key_with_another_body_is_refused(desk: Desk) {
    desk.submit(desk.keyed("k", "body")).await;
    assert_eq!(desk.store.submit(desk.keyed("k", "other")).await.unwrap(), Submitted::KeyReused);
    let elsewhere = NewJob { tenant: "other".parse().unwrap(), ..desk.keyed("k", "other") };
    assert_eq!(desk.store.submit(elsewhere).await.unwrap(), Submitted::Created);
}

pub(super) async fn a_key_outlives_its_deleted_job(desk: Desk) {
    let id = desk.submit(desk.keyed("k", "body")).await;
    assert_eq!(desk.store.delete(None, id, desk.now()).await.unwrap(), Deleted::Done(vec![]));
    desk.store.expire(desk.now(), desk.now()).await.unwrap();
    assert_eq!(desk.store.submit(desk.keyed("k", "body")).await.unwrap(), Submitted::KeyGone);
}

pub(super) async fn a_key_is_free_again_after_its_time(desk: Desk) {
    desk.submit(desk.keyed("k", "body")).await;
    desk.clock.advance(Duration::from_hours(24));
    desk.submit(desk.keyed("k", "other")).await;
}

pub(super) async fn a_full_queue_refuses_and_stores_nothing(desk: Desk) {
    let jobs: Vec<_> = (0..MAX_PENDING + 20).map(|_| desk.job()).collect();
    let answers = futures_util::future::join_all(jobs.into_iter().map(|job| desk.store.submit(job))).await;
    let full = answers.iter().filter(|a| matches!(a, Ok(Submitted::QueueFull))).count();
    assert_eq!(full, 20);
    let page = desk.store.list(&JobFilter { limit: 100, ..JobFilter::default() }).await.unwrap();
    assert_eq!(page.jobs.len() as u64, MAX_PENDING);
    desk.start().await;
    desk.submit(desk.job()).await;
    assert_eq!(desk.store.submit(desk.job()).await.unwrap(), Submitted::QueueFull);
}

pub(super) async fn secrets_come_back_with_the_claim_and_are_wiped(desk: Desk) {
    let secrets = JobSecrets { source_url: Some("https://u:canary@h/".into()), ..JobSecrets::default() };
    let id = desk.submit(NewJob { secrets: secrets.clone(), ..desk.job() }).await;
    let claimed = desk.start().await;
    assert_eq!(claimed.secrets, secrets);
    desk.store.fail(claimed.key, broken(), vec![], desk.now()).await.unwrap();
    assert_eq!(desk.store.wipe_secrets(desk.now()).await.unwrap(), 0, "a failed job keeps them for a day");

    assert_eq!(desk.store.retry(None, id, desk.task(), desk.now()).await.unwrap(), Retried::Queued);
    desk.clock.advance(Duration::from_hours(25));
    assert_eq!(desk.store.wipe_secrets(desk.now()).await.unwrap(), 0, "the retry needs them");
    let claimed = desk.start().await;
    assert_eq!(claimed.secrets, secrets);
    desk.store.fail(claimed.key, broken(), vec![], desk.now()).await.unwrap();

    desk.clock.advance(Duration::from_hours(24));
    assert_eq!(desk.store.wipe_secrets(desk.now()).await.unwrap(), 1);
    assert_eq!(desk.store.retry(None, id, desk.task(), desk.now()).await.unwrap(), Retried::SecretsGone);
}

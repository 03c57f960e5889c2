//! What receivers are told: written with the state, claimed by one, ended for good.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::domain::DeliveryState;
use crate::domain::webhook::{Try, TryError, Verdict, WebhookEvent};

/// A secret in an address.
const URL: &str = "https://u:p@hooks.example/x?key=canary";

/// Tells the status, so that a test can see when a body was made.
pub(super) struct Plain;

impl Letters for Plain {
    fn body(&self, notice: &crate::domain::webhook::Notice, job: &Aggregate, _: Timestamp) -> String {
        format!("{} {} run {}", notice.event.as_str(), job.job.status.as_str(), job.job.run.0)
    }
}

fn told(desk: &Desk) -> NewJob {
    let mut job = desk.job();
    job.spec.notification_url = Some("https://hooks.example/x?…".into());
    job.spec.notification_events = WebhookEvent::ALL.to_vec();
    job.secrets.notification_url = Some(URL.into());
    job
}

fn take(most: u32) -> Take {
    let (among, busy) = (Among::Except(Vec::new()), BTreeMap::new());
    Take { most, per_host: most, among, busy, lease: Duration::from_mins(1) }
}

async fn letters(desk: &Desk) -> Vec<Letter> {
    let mut letters = desk.outbox.claim_deliveries(desk.session, &take(100), desk.now()).await.unwrap();
    letters.sort_by_key(|letter| letter.id);
    letters
}

async fn states(desk: &Desk, job: JobId) -> Vec<(WebhookEvent, DeliveryState)> {
    let deliveries = desk.outbox.deliveries(None, job).await.unwrap().unwrap();
    deliveries.iter().map(|d| (d.event, d.state)).collect()
}

fn delivered(desk: &Desk) -> (Try, Verdict) {
    let wipe_at = desk.now().plus(Duration::from_hours(24));
    let tried = Try { at: desk.now(), status: Some(200), error: None };
    (tried, Verdict::Ended(DeliveryState::Delivered, wipe_at))
}

async fn end(desk: &Desk, letter: &Letter, state: DeliveryState) -> Fenced<()> {
    let (tried, _) = delivered(desk);
    let verdict = Verdict::Ended(state, desk.now().plus(Duration::from_hours(24)));
    desk.outbox.delivery_tried(desk.session, letter, tried, verdict).await.unwrap()
}

pub(super) async fn every_state_is_told_with_its_commit(desk: Desk) {
    let id = desk.submit(told(&desk)).await;
    let quiet = desk.submit_outputs(1).await;
    assert!(letters(&desk).await.is_empty(), "the answer to a submission says it");
    assert_eq!(desk.outbox.next_delivery().await.unwrap(), None);
    desk.finish().await;
    desk.finish().await;
    let got = letters(&desk).await;
    let told: Vec<_> = got.iter().map(|letter| letter.body.as_str()).collect();
    let expected =
        ["job.started running run 1", "output.completed running run 1", "job.completed completed run 1"];
    assert_eq!(told, expected);
    assert!(got.iter().all(|l| l.url.as_deref() == Some(URL)), "the job's own secrets are wiped by now");
    assert!(got.iter().all(|l| l.host == "hooks.example:443" && l.job == id && l.tries == 1));
    assert_eq!(desk.outbox.deliveries(None, quiet).await.unwrap(), Some(vec![]));
    let stats = desk.outbox.outbox_stats().await.unwrap();
    assert_eq!((stats.waiting, stats.oldest), (3, Some(desk.now())));
}

pub(super) async fn only_what_is_wanted_is_told(desk: Desk) {
    let mut job = told(&desk);
    job.spec.notification_events = vec![WebhookEvent::JobCancelled, WebhookEvent::JobFailed];
    let id = desk.submit(job).await;
    let claimed = desk.start().await;
    desk.store.fail(claimed.key, broken(), Vec::new(), desk.now()).await.unwrap();
    desk.store.retry(None, id, desk.task(), desk.now()).await.unwrap();
    desk.store.cancel(None, id, desk.now()).await.unwrap();
    let got = letters(&desk).await;
    let told: Vec<_> = got.iter().map(|letter| letter.body.as_str()).collect();
    assert_eq!(told, ["job.failed failed run 1", "job.cancelled cancelled run 2"]);
}

pub(super) async fn a_delivery_has_one_holder_and_is_crossed_off_once(desk: Desk) {
    desk.submit(told(&desk)).await;
    desk.start().await;
    let first = letters(&desk).await.remove(0);
    assert!(letters(&desk).await.is_empty(), "it is on its way");
    // The session that forgot it finds it again after its lease; the earlier try is no longer the latest.
    desk.clock.advance(Duration::from_secs(61));
    let second = letters(&desk).await.remove(0);
    assert_eq!((second.id, second.body.clone(), second.tries), (first.id, first.body.clone(), 2));
    assert_eq!(end(&desk, &first, DeliveryState::Delivered).await, Fenced::Lost);
    assert_eq!(end(&desk, &second, DeliveryState::Delivered).await, Fenced::Done(()));
    assert_eq!(end(&desk, &second, DeliveryState::Delivered).await, Fenced::Lost);
    desk.clock.advance(Duration::from_hours(1));
    assert!(letters(&desk).await.is_empty());
}

pub(super) async fn what_a_session_left_is_claimed_by_the_next(mut desk: Desk) {
    desk.submit(told(&desk)).await;
    desk.start().await;
    let first = letters(&desk).await.remove(0);
    let old = desk.session;
    assert!(desk.outbox.next_delivery().await.unwrap() > Some(desk.now()), "it is on its way");
    desk.store.close_session(old).await.unwrap();
    assert!(desk.outbox.next_delivery().await.unwrap() <= Some(desk.now()), "nobody waits for its lease");
    assert!(desk.outbox.claim_deliveries(old, &take(9), desk.now()).await.unwrap().is_empty());
    desk.session = desk.store.open_session("next", desk.now()).await.unwrap();
    let second = letters(&desk).await.remove(0);
    assert_eq!((second.id, second.body.clone()), (first.id, first.body.clone()), "at once, as it was");
    let (tried, verdict) = delivered(&desk);
    let late = desk.outbox.delivery_tried(old, &first, tried, verdict).await.unwrap();
    assert_eq!(late, Fenced::Lost);
}

pub(super) async fn a_try_that_failed_is_made_again_at_its_time(desk: Desk) {
    let id = desk.submit(told(&desk)).await;
    desk.start().await;
    let letter = letters(&desk).await.remove(0);
    let next = desk.now().plus(Duration::from_secs(7));
    let tried = Try { at: desk.now(), status: Some(503), error: Some(TryError::Refused) };
    let again = Verdict::Again(next);
    assert_eq!(
        desk.outbox.delivery_tried(desk.session, &letter, tried, again).await.unwrap(),
        Fenced::Done(())
    );
    assert_eq!(desk.outbox.next_delivery().await.unwrap(), Some(next));
    assert!(letters(&desk).await.is_empty());
    let shown = desk.outbox.deliveries(None, id).await.unwrap().unwrap().remove(0);
    assert_eq!((shown.last, shown.tries, shown.next_at), (Some(tried), 1, Some(next)));
    desk.clock.advance(Duration::from_secs(7));
    assert_eq!(letters(&desk).await[0].tries, 2);
}

pub(super) async fn busy_receivers_are_passed_over(desk: Desk) {
    for n in 0..9 {
        let mut job = told(&desk);
        job.secrets.notification_url = Some(format!("http://h{}.example/{n}", n % 2));
        desk.submit(job).await;
        desk.start().await;
    }
    let claim = |most, per_host, among, busy: &[(&str, u32)]| {
        let busy = busy.iter().map(|(host, n)| ((*host).to_owned(), *n)).collect();
        let take = Take { most, per_host, among, busy, lease: Duration::from_mins(1) };
        let (outbox, session, now) = (Arc::clone(&desk.outbox), desk.session, desk.now());
        async move {
            let letters = outbox.claim_deliveries(session, &take, now).await.unwrap();
            let mut hosts: Vec<_> = letters.into_iter().map(|letter| letter.host).collect();
            hosts.sort();
            hosts
        }
    };
    let (even, odd) = ("h0.example:80", "h1.example:80");
    let only = |hosts: &[&str]| Among::Only(hosts.iter().map(|host| (*host).to_owned()).collect());
    let except = |hosts: &[&str]| Among::Except(hosts.iter().map(|host| (*host).to_owned()).collect());
    assert_eq!(claim(9, 1, except(&[]), &[]).await, [even, odd]);
    assert_eq!(claim(9, 2, except(&[]), &[(even, 2), (odd, 1)]).await, [odd]);
    assert_eq!(claim(9, 2, except(&[even]), &[(odd, 1)]).await, [odd]);
    assert_eq!(claim(1, 9, only(&[even]), &[]).await, [even]);
    assert!(claim(9, 9, only(&[]), &[]).await.is_empty() && claim(9, 9, only(&["h2"]), &[]).await.is_empty());
    assert!(claim(9, 9, except(&[even, odd]), &[]).await.is_empty());
    assert_eq!(claim(9, 2, only(&[even, odd]), &[]).await, [even, even, odd]);
}

pub(super) async fn a_receiver_that_is_gone_is_told_nothing_more(desk: Desk) {
    let id = desk.submit(told(&desk)).await;
    let claimed = desk.start().await;
    let started = letters(&desk).await.remove(0);
    desk.publish(&claimed, 0).await;
    assert_eq!(end(&desk, &started, DeliveryState::Gone).await, Fenced::Done(()));
    desk.store.complete(claimed.key, desk.now()).await.unwrap();
    let gone = DeliveryState::Gone;
    let expected = [(WebhookEvent::JobStarted, gone), (WebhookEvent::OutputCompleted, gone)];
    assert_eq!(states(&desk, id).await, expected);
    assert_eq!(desk.outbox.next_delivery().await.unwrap(), None);
}

pub(super) async fn a_delivery_can_be_asked_for_again_for_a_day(desk: Desk) {
    let id = desk.submit(told(&desk)).await;
    desk.start().await;
    let letter = letters(&desk).await.remove(0);
    let other: Tenant = "other".parse().unwrap();
    let again = async |tenant: Option<&Tenant>, job| {
        desk.outbox.redeliver(tenant, job, letter.id, desk.now()).await.unwrap()
    };
    assert!(matches!(again(None, id).await, Redelivered::Due(d) if d.tries == 1), "it is on its way");
    end(&desk, &letter, DeliveryState::GivenUp).await;
    let nobody = JobId::from_uuid(desk.ids.random());
    assert_eq!(again(Some(&other), id).await, Redelivered::NotFound);
    assert_eq!(again(None, nobody).await, Redelivered::NotFound);
    desk.clock.advance(Duration::from_hours(23));
    desk.store.wipe_secrets(desk.now()).await.unwrap();
    assert!(matches!(again(None, id).await, Redelivered::Due(d) if d.tries == 0));
    let second = letters(&desk).await.remove(0);
    assert_eq!((second.since, second.tries, &second.body), (desk.now(), 1, &letter.body));
    assert_eq!(second.url.as_deref(), Some(URL));
    end(&desk, &second, DeliveryState::Delivered).await;
    desk.clock.advance(Duration::from_hours(24));
    desk.store.wipe_secrets(desk.now()).await.unwrap();
    assert_eq!(again(None, id).await, Redelivered::Wiped);
    let shown = desk.outbox.deliveries(None, id).await.unwrap().unwrap();
    assert!(!shown[0].has_url && shown[0].state == DeliveryState::Delivered);
}

pub(super) async fn what_is_to_be_told_outlives_its_job(desk: Desk) {
    let id = desk.submit(told(&desk)).await;
    desk.start().await;
    let started = letters(&desk).await.remove(0);
    end(&desk, &started, DeliveryState::Delivered).await;
    assert!(matches!(desk.store.delete(None, id, desk.now()).await.unwrap(), Deleted::Done(_)));
    assert_eq!(desk.outbox.deliveries(None, id).await.unwrap(), None, "the job is gone");
    desk.store.expire(Timestamp::from_micros(0), desk.now()).await.unwrap();
    let last = letters(&desk).await.remove(0);
    assert_eq!(last.event, WebhookEvent::JobCancelled);
    assert_eq!(last.url.as_deref(), Some(URL));
    end(&desk, &last, DeliveryState::Delivered).await;
    desk.clock.advance(Duration::from_hours(25));
    assert_eq!(desk.store.wipe_secrets(desk.now()).await.unwrap(), 1, "the row goes with its address");
}

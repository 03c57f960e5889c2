//! Deliveries on a clock of the test's own, over the real store and, where it matters, real sockets.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::super::webhooks::{Deliverer, Receivers, WebhookSettings, Webhooks};
use crate::domain::fixtures::spec;
use crate::domain::testing::{ManualClock, SeededIds};
use crate::domain::webhook::{Delivery, Notice, TryError, WebhookEvent, WebhookSecret, verify};
use crate::domain::{
    Aggregate, Clock as _, DeliveryState, IdSource as _, JobId, JobSecrets, SessionId, TaskId, Tenant,
    Timestamp,
};
use crate::storage::{Answer, Message, Messenger};
use crate::store::{JobStore as _, Letter, Letters, NewJob, Options, Outbox as _, SqliteStore};
use std::sync::Arc;

struct Plain;

impl Letters for Plain {
    fn body(&self, notice: &Notice, job: &Aggregate, at: Timestamp) -> String {
        format!("{} of {} at {at}", notice.event.as_str(), job.job.id)
    }
}

/// A receiver that answers as it is told and writes down what it got.
#[derive(Default)]
struct Receiver {
    answers: Mutex<Vec<Answer>>,
    got: Mutex<Vec<(String, String, String, String)>>,
}

impl Receiver {
    /// In turn; the last for ever.
    fn answering(answers: &[Answer]) -> Arc<Self> {
        let answers = Mutex::new(answers.iter().rev().copied().collect());
        Arc::new(Self { answers, got: Mutex::default() })
    }

    fn got(&self) -> Vec<(String, String, String, String)> {
        self.got.lock().unwrap().clone()
    }
}

#[async_trait]
impl Messenger for Receiver {
    async fn post(&self, message: Message<'_>) -> Answer {
        let header = |name| {
            let found = message.headers.iter().find(|(header, _)| *header == name);
            found.map(|(_, value)| value.clone()).unwrap()
        };
        let body = message.body.to_owned();
        let got = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"), body);
        self.got.lock().unwrap().push(got);
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { answers.pop().unwrap() } else { answers[0] }
    }
}

const fn answer(status: u16, error: Option<TryError>) -> Answer {
    Answer { status: Some(status), error, retry_after: None }
}

const OK: Answer = answer(204, None);
const BUSY: Answer = answer(503, Some(TryError::Refused));

fn secret(byte: u8) -> WebhookSecret {
    WebhookSecret::parse(&WebhookSecret::text(&[byte; 32])).unwrap()
}

struct Bench {
    store: Arc<SqliteStore>,
    clock: Arc<ManualClock>,
    ids: SeededIds,
    session: SessionId,
    deliverer: Deliverer,
    receiver: Arc<Receiver>,
}

impl Bench {
    async fn new(receiver: Arc<Receiver>) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000)));
        let options = Options { letters: Some(Arc::new(Plain)), ..Options::default() };
        let store = Arc::new(SqliteStore::ephemeral(options).await.unwrap());
        let session = store.open_session("bench", clock.now()).await.unwrap();
        let webhooks = Webhooks {
            outbox: Arc::clone(&store) as Arc<_>,
            messenger: Arc::clone(&receiver) as Arc<_>,
            settings: WebhookSettings {
                secrets: vec![secret(1), secret(2)],
                events: WebhookEvent::ALL.to_vec(),
                give_up_after: Duration::from_hours(24),
                concurrency: 8,
                per_host: 2,
                timeout: Duration::from_secs(15),
            },
        };
        let deliverer = Deliverer::new(webhooks, Arc::clone(&clock) as Arc<_>, Arc::new(SeededIds::new(3)));
        Self { store, clock, ids: SeededIds::new(4), session, deliverer, receiver }
    }

    /// A job that was cancelled: one thing to tell.
    async fn cancelled(&self, url: &str) -> JobId {
        let now = self.clock.now();
        let id = JobId::from_uuid(self.ids.sortable(now));
        let mut spec = spec(1);
        spec.notification_url = Some(url.into());
        spec.notification_events = WebhookEvent::ALL.to_vec();
        let job = NewJob {
            id,
            task: TaskId::from_uuid(self.ids.sortable(now)),
            tenant: Tenant::local(),
            spec,
            secrets: JobSecrets::default(),
            idempotency: None,
            now,
        };
        self.store.submit(job).await.unwrap();
        self.store.cancel(None, id, now).await.unwrap();
        id
    }

    /// What the actor does while its time stands still; how many letters went out.
    async fn round(&self) -> usize {
        let letters = self.claim(&mut Receivers::default(), Instant::now()).await;
        for letter in &letters {
            self.deliverer.deliver(self.session, letter).await;
        }
        letters.len()
    }

    async fn claim(&self, receivers: &mut Receivers, at: Instant) -> Vec<Letter> {
        self.deliverer.claim(self.session, receivers, (self.clock.now(), at)).await.unwrap()
    }

    async fn shown(&self, job: JobId) -> Delivery {
        self.store.deliveries(None, job).await.unwrap().unwrap().remove(0)
    }

    /// Goes from due time to due time until nothing waits.
    async fn to_the_end(&self) {
        while let Some(due) = self.store.next_delivery().await.unwrap() {
            self.clock.advance(due.since(self.clock.now()));
            assert!(self.round().await > 0, "it was due");
        }
    }
}

#[tokio::test]
async fn every_try_has_one_id_one_body_and_a_signature_of_its_own_time() {
    let bench = Bench::new(Receiver::answering(&[BUSY, BUSY, OK])).await;
    let job = bench.cancelled("https://h.example/").await;
    bench.to_the_end().await;
    let got = bench.receiver.got();
    assert_eq!(got.len(), 3);
    let shown = bench.shown(job).await;
    assert_eq!((shown.state, shown.tries), (DeliveryState::Delivered, 3));
    for (id, at, signatures, body) in &got {
        assert_eq!((id, body), (&shown.id.to_string(), &got[0].3));
        let sent = Timestamp::from_micros(at.parse::<i64>().unwrap() * 1_000_000);
        for secret in [secret(1), secret(2)] {
            assert_eq!(verify(&[secret], (id, at, signatures), body, sent), Ok(()));
        }
    }
    let times: Vec<_> = got.iter().map(|(_, at, ..)| at).collect();
    assert!(times[0] <= times[1] && times[1] < times[2], "{times:?}");
}

#[tokio::test]
async fn a_receiver_that_is_down_for_hours_is_told_when_it_is_back() {
    let bench = Bench::new(Receiver::answering(&[BUSY])).await;
    let job = bench.cancelled("https://h.example/").await;
    let start = bench.clock.now();
    while bench.clock.now().since(start) < Duration::from_hours(9) {
        let due = bench.store.next_delivery().await.unwrap().expect("it is tried again");
        bench.clock.advance(due.since(bench.clock.now()));
        bench.round().await;
    }
    assert_eq!(bench.shown(job).await.state, DeliveryState::Waiting);
    *bench.receiver.answers.lock().unwrap() = vec![OK];
    bench.to_the_end().await;
    let shown = bench.shown(job).await;
    assert_eq!(shown.state, DeliveryState::Delivered);
    assert!(bench.clock.now().since(start) < Duration::from_hours(12), "two hours between tries at most");
    assert!((8..40).contains(&shown.tries), "{} tries", shown.tries);
}

#[tokio::test]
async fn after_a_day_it_is_given_up() {
    let bench = Bench::new(Receiver::answering(&[answer(404, Some(TryError::Refused))])).await;
    let job = bench.cancelled("https://h.example/").await;
    let start = bench.clock.now();
    bench.to_the_end().await;
    let shown = bench.shown(job).await;
    assert_eq!(shown.state, DeliveryState::GivenUp);
    assert_eq!(shown.last.map(|last| last.status), Some(Some(404)));
    assert_eq!(bench.clock.now().since(start), Duration::from_hours(24), "the last try is at the end");
}

#[tokio::test]
async fn a_receiver_decides_when_it_is_asked_again_and_whether() {
    let later = Answer { retry_after: Some(Duration::from_hours(1)), ..BUSY };
    let gone = answer(410, Some(TryError::Gone));
    let bench = Bench::new(Receiver::answering(&[later, gone])).await;
    let job = bench.cancelled("https://h.example/").await;
    assert_eq!(bench.round().await, 1);
    assert_eq!(bench.shown(job).await.next_at, Some(bench.clock.now().plus(Duration::from_hours(1))));
    bench.to_the_end().await;
    assert_eq!(bench.shown(job).await.state, DeliveryState::Gone);
    assert_eq!(bench.receiver.got().len(), 2);
}

fn hosts(letters: &[Letter]) -> Vec<&str> {
    let mut hosts: Vec<_> = letters.iter().map(|letter| letter.host.as_str()).collect();
    hosts.sort_unstable();
    hosts
}

#[tokio::test]
async fn no_receiver_takes_all_the_room() {
    let bench = Bench::new(Receiver::answering(&[OK])).await;
    for _ in 0..5 {
        bench.cancelled("https://one.example/").await;
    }
    bench.cancelled("https://other.example/").await;
    let (mut receivers, at) = (Receivers::default(), Instant::now());
    let first = bench.claim(&mut receivers, at).await;
    assert_eq!(hosts(&first), ["one.example:443", "other.example:443"], "strangers have one place each");
    assert!(bench.claim(&mut receivers, at).await.is_empty());
    for letter in &first {
        let took = bench.deliverer.deliver(bench.session, letter).await;
        bench.deliverer.ended(&mut receivers, &letter.host, at, took);
    }
    assert_eq!(hosts(&bench.claim(&mut receivers, at).await), ["one.example:443"; 2], "it was prompt");
    assert!(bench.claim(&mut receivers, at).await.is_empty());
}

/// Whoever hangs, and however many: what is due to a prompt receiver goes out before any of them gives its place back.
#[tokio::test]
async fn receivers_that_hang_leave_room_for_those_that_do_not() {
    let bench = Bench::new(Receiver::answering(&[OK])).await;
    let (mut receivers, mut at) = (Receivers::default(), Instant::now());
    bench.cancelled("https://prompt.example/").await;
    let first = bench.claim(&mut receivers, at).await.remove(0);
    let took = bench.deliverer.deliver(bench.session, &first).await;
    bench.deliverer.ended(&mut receivers, &first.host, at, took);
    for n in 0..40 {
        bench.cancelled(&format!("https://hanging{}.example/", n % 10)).await;
        bench.cancelled("https://prompt.example/").await;
    }
    // As many as may be on their way; those of the hanging are never told to have ended.
    let (mut delivered, mut hanging) = (0, 0);
    while delivered < 40 {
        let letters = bench.claim(&mut receivers, at).await;
        assert!(!letters.is_empty(), "after {delivered}, {hanging} hang");
        for letter in &letters {
            if letter.host == "prompt.example:443" {
                let took = bench.deliverer.deliver(bench.session, letter).await;
                bench.deliverer.ended(&mut receivers, &letter.host, at, took);
                delivered += 1;
            } else {
                hanging += 1;
            }
        }
    }
    assert_eq!(hanging, 4, "half of eight places");
    // What they hold is late: the next strangers are heard, one after another of those that hang is found out.
    at += Duration::from_secs(4);
    let next = bench.claim(&mut receivers, at).await;
    assert_eq!(next.len(), 4, "{:?}", hosts(&next));
    assert!(hosts(&next).iter().all(|host| host.starts_with("hanging")));
}

//! Delivers what the outbox holds: claims what is due, sends it, writes down what came of it.
//!
//! Everything that must survive is in the record before it is acted upon, so this actor may die anywhere: what it had
//! claimed is claimed again, with the same id and the same bytes. Receivers are kept apart: none has more than a few
//! messages on their way, and a claim passes over those that have as many as they may.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::settings::Backoff;
use super::shared::Shared;
use crate::domain::webhook::{Retrying, Try, TryError, Verdict, WebhookEvent, WebhookSecret, sign};
use crate::domain::{Clock, DeliveryState, IdSource, SessionId, Timestamp};
use crate::storage::{Answer, Message, Messenger};
use crate::store::{Fenced, Letter, Outbox, Result, Take};
use crate::telemetry::metrics;

/// How messages are sent.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// What they are signed with: each signs, never empty.
    pub secrets: Vec<WebhookSecret>,
    /// What a job that does not say is told of.
    pub events: Vec<WebhookEvent>,
    /// How long a delivery is tried.
    pub give_up_after: Duration,
    /// Messages on their way at once.
    pub concurrency: u32,
    /// Messages on their way to one receiver at once.
    pub per_host: u32,
    /// How long the messenger takes at most; a claim lasts longer.
    pub timeout: Duration,
}

/// What a control needs to tell anything.
pub struct Webhooks {
    /// What is to be told.
    pub outbox: Arc<dyn Outbox>,
    /// Who carries it.
    pub messenger: Arc<dyn Messenger>,
    /// How.
    pub settings: WebhookSettings,
}

/// Sends letters; knows nothing of when.
pub(super) struct Deliverer {
    webhooks: Webhooks,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
}

impl Deliverer {
    pub(super) fn new(webhooks: Webhooks, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Self {
        Self { webhooks, clock, ids }
    }

    /// Claims what is due and there is room for; `busy` counts the messages on their way, by receiver.
    pub(super) async fn claim(
        &self,
        session: SessionId,
        busy: &HashMap<String, u32>,
        now: Timestamp,
    ) -> Result<Vec<Letter>> {
        let settings = &self.webhooks.settings;
        let under_way: u32 = busy.values().sum();
        let most = settings.concurrency.saturating_sub(under_way);
        if most == 0 {
            return Ok(Vec::new());
        }
        let full = |(host, n): (&String, &u32)| (*n >= settings.per_host).then(|| host.clone());
        let take = Take {
            most,
            per_host: settings.per_host,
            busy: busy.iter().filter_map(full).collect(),
            lease: settings.timeout.saturating_mul(2) + Duration::from_mins(1),
        };
        let mut letters = self.webhooks.outbox.claim_deliveries(session, &take, now).await?;
        letters.sort_by_key(|letter| (letter.since, letter.id));
        Ok(letters)
    }

    /// Sends one letter and writes down what came of it.
    pub(super) async fn deliver(&self, session: SessionId, letter: &Letter) {
        let answer = self.send(letter).await;
        let now = self.clock.now();
        let retrying = Retrying {
            tries: letter.tries,
            since: letter.since,
            give_up_after: self.webhooks.settings.give_up_after,
            retry_after: answer.retry_after,
            random: self.ids.random().as_u64_pair().1,
        };
        let verdict = retrying.verdict(answer.error, now);
        tell(letter, answer, verdict);
        let tried = Try { at: now, status: answer.status, error: answer.error };
        match self.webhooks.outbox.delivery_tried(session, letter, tried, verdict).await {
            Ok(Fenced::Done(())) => metrics::webhook_tried(outcome(answer.error, verdict)),
            Ok(Fenced::Lost) => {
                tracing::warn!(delivery = %letter.id, "another control has taken this delivery over");
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(delivery = %letter.id, error, "a try was not written down; it is made again");
            }
        }
    }

    async fn send(&self, letter: &Letter) -> Answer {
        let Some(url) = &letter.url else {
            return Answer { status: None, error: Some(TryError::Unsealable), retry_after: None };
        };
        let now = self.clock.now();
        let seconds = now.micros().div_euclid(1_000_000);
        let id = letter.id.to_string();
        let signature = sign(&self.webhooks.settings.secrets, &id, seconds, &letter.body);
        let headers = [
            ("webhook-id", id),
            ("webhook-timestamp", seconds.to_string()),
            ("webhook-signature", signature),
        ];
        self.webhooks.messenger.post(Message { url, headers: &headers, body: &letter.body, now }).await
    }
}

fn outcome(error: Option<TryError>, verdict: Verdict) -> metrics::WebhookOutcome {
    match (error, verdict) {
        (None, _) => metrics::WebhookOutcome::Delivered,
        (Some(_), Verdict::Again(_)) => metrics::WebhookOutcome::Failed,
        (Some(_), Verdict::Ended(DeliveryState::Gone, _)) => metrics::WebhookOutcome::Gone,
        (Some(_), Verdict::Ended(..)) => metrics::WebhookOutcome::GivenUp,
    }
}

/// Never with the address: it may be a secret.
fn tell(letter: &Letter, answer: Answer, verdict: Verdict) {
    let (id, job, tries) = (letter.id, letter.job, letter.tries);
    let error = answer.error.map(TryError::as_str);
    match (answer.error, verdict) {
        (None, _) => tracing::debug!(delivery = %id, %job, tries, "webhook delivered"),
        (Some(_), Verdict::Again(next)) => {
            tracing::info!(delivery = %id, %job, tries, error, status = answer.status, %next, "webhook failed");
        }
        (Some(_), Verdict::Ended(state, _)) => {
            let state = state.as_str();
            tracing::warn!(delivery = %id, %job, tries, error, status = answer.status, state, "webhook ended");
        }
    }
}

/// Delivers until the control is done: as soon as something is written here, or due, and at the polling pace at the
/// latest for what other controls wrote.
pub(super) async fn run(shared: Arc<Shared>, webhooks: Webhooks) {
    let outbox = Arc::clone(&webhooks.outbox);
    let posted = outbox.posted();
    let deliverer = Deliverer::new(webhooks, Arc::clone(&shared.clock), Arc::clone(&shared.ids));
    let mut busy: HashMap<String, u32> = HashMap::new();
    let mut under_way = FuturesUnordered::new();
    let mut backoff = Backoff::new(&shared.pace);
    loop {
        let now = shared.clock.now();
        let session = *shared.session.borrow();
        let round = round(&deliverer, &outbox, session, &busy, now).await;
        let wait = match round {
            Ok((letters, due)) => {
                backoff = Backoff::new(&shared.pace);
                for letter in letters {
                    *busy.entry(letter.host.clone()).or_default() += 1;
                    let deliverer = &deliverer;
                    under_way.push(async move {
                        deliverer.deliver(session, &letter).await;
                        letter.host
                    });
                }
                due.map_or(shared.pace.poll, |due| due.since(now).clamp(SOON, shared.pace.poll))
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot look for webhooks, trying again");
                backoff.step()
            }
        };
        tokio::select! {
            biased;
            Some(host) = under_way.next() => done(&mut busy, host),
            () = posted.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// What is due but cannot be sent yet is looked at again no sooner than this.
const SOON: Duration = Duration::from_millis(250);

async fn round(
    deliverer: &Deliverer,
    outbox: &Arc<dyn Outbox>,
    session: SessionId,
    busy: &HashMap<String, u32>,
    now: Timestamp,
) -> Result<(Vec<Letter>, Option<Timestamp>)> {
    // Looking costs a reader; only what is due is worth a commit.
    let due = outbox.next_delivery().await?;
    if due.is_none_or(|due| due > now) {
        return Ok((Vec::new(), due));
    }
    let letters = deliverer.claim(session, busy, now).await?;
    Ok((letters, outbox.next_delivery().await?))
}

fn done(busy: &mut HashMap<String, u32>, host: String) {
    let left = busy.get(&host).map_or(0, |n| n.saturating_sub(1));
    if left == 0 {
        busy.remove(&host);
    } else {
        busy.insert(host, left);
    }
}

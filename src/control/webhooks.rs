//! Delivers what the outbox holds: claims what is due, sends it, writes down what came of it.
//!
//! Everything that must survive is in the record before it is acted upon, so this actor may die anywhere: what it had
//! claimed is claimed again, with the same id and the same bytes. Receivers are kept apart: none has more than a few
//! messages on their way, and those that are slow cannot take the room of the others (`receivers`).

mod receivers;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

pub(super) use self::receivers::Receivers;
use self::receivers::Standing;
use super::settings::Backoff;
use super::shared::Shared;
use crate::domain::webhook::{Retrying, Try, TryError, Verdict, WebhookEvent, WebhookSecret, sign};
use crate::domain::{Clock, DeliveryState, IdSource, SessionId, Timestamp};
use crate::storage::{Answer, Message, Messenger};
use crate::store::{Fenced, Letter, Outbox, Result};
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

    /// Claims what is due and there is room for; `receivers` counts it as on its way since `instant`.
    pub(super) async fn claim(
        &self,
        session: SessionId,
        receivers: &mut Receivers,
        (now, instant): (Timestamp, Instant),
    ) -> Result<Vec<Letter>> {
        let mut letters = Vec::new();
        for standing in Standing::ALL {
            let Some(take) = receivers.take(standing, &self.webhooks.settings, instant) else { continue };
            let claimed = match self.webhooks.outbox.claim_deliveries(session, &take, now).await {
                Ok(claimed) => claimed,
                Err(error) if letters.is_empty() => return Err(error),
                // What is claimed goes out; the next round says what is wrong.
                Err(_) => break,
            };
            for letter in &claimed {
                receivers.sent(&letter.host, instant);
            }
            letters.extend(claimed);
        }
        letters.sort_by_key(|letter| (letter.since, letter.id));
        Ok(letters)
    }

    /// A letter of that claim has ended, after so long.
    pub(super) fn ended(&self, receivers: &mut Receivers, host: &str, claimed: Instant, took: Duration) {
        receivers.ended(host, claimed, took, &self.webhooks.settings);
    }

    /// Sends one letter and writes down what came of it; how long the receiver took.
    pub(super) async fn deliver(&self, session: SessionId, letter: &Letter) -> Duration {
        let begun = Instant::now();
        let answer = self.send(letter).await;
        let took = begun.elapsed();
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
        took
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
    let posted = webhooks.outbox.posted();
    let deliverer = Deliverer::new(webhooks, Arc::clone(&shared.clock), Arc::clone(&shared.ids));
    let mut receivers = Receivers::default();
    let mut under_way = FuturesUnordered::new();
    let mut backoff = Backoff::new(&shared.pace);
    loop {
        let (now, claimed) = (shared.clock.now(), Instant::now());
        let session = *shared.session.borrow();
        let wait = match round(&deliverer, session, &mut receivers, (now, claimed)).await {
            Ok((letters, due)) => {
                backoff = Backoff::new(&shared.pace);
                for letter in letters {
                    let deliverer = &deliverer;
                    under_way.push(async move {
                        let took = deliverer.deliver(session, &letter).await;
                        (letter.host, claimed, took)
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
            Some((host, claimed, took)) = under_way.next() => deliverer.ended(&mut receivers, &host, claimed, took),
            () = posted.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// What is due but cannot be sent yet is looked at again no sooner than this.
const SOON: Duration = Duration::from_millis(250);

async fn round(
    deliverer: &Deliverer,
    session: SessionId,
    receivers: &mut Receivers,
    now: (Timestamp, Instant),
) -> Result<(Vec<Letter>, Option<Timestamp>)> {
    let outbox = &deliverer.webhooks.outbox;
    // Looking costs a reader; only what is due is worth a commit.
    let due = outbox.next_delivery().await?;
    if due.is_none_or(|due| due > now.0) {
        return Ok((Vec::new(), due));
    }
    let letters = deliverer.claim(session, receivers, now).await?;
    // An error now would lose them.
    let due = outbox.next_delivery().await.unwrap_or(due);
    Ok((letters, due))
}

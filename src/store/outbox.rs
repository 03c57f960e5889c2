//! What is to be told to receivers: rows written with the state they tell, claimed and crossed off by controls.
//!
//! A row's body is fixed when it is written, so every try sends the same bytes. Its address is sealed with the row's id
//! as associated data: it outlives the job's own secrets and is wiped a day after the delivery ended (PROTOCOL §1.9).
//! A claim belongs to a session: no other takes the row while that session lives, whatever the clocks say, and the
//! answer of a claim that is not the latest changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use url::Url;

use super::columns::{Cells, Columns};
use super::delta::Delta;
use super::row::{from_json, inconsistent, narrow};
use super::seal::{SealKeys, Sealed};
use super::shared::Shared;
use super::{Fenced, Result};
use crate::domain::webhook::{Delivery, Notice, Try, Verdict, WebhookEvent, notices};
use crate::domain::{Aggregate, DeliveryId, DeliveryState, JobId, JobSecrets, SessionId, Tenant, Timestamp};

/// Writes bodies; given by the room that knows the public shapes.
pub trait Letters: Send + Sync + 'static {
    /// The body that tells this, about a job as it is after the transition: never with a secret.
    fn body(&self, notice: &Notice, job: &Aggregate, at: Timestamp) -> String;
}

/// What a control may take at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// Deliveries.
    pub most: u32,
    /// Deliveries of one host, those on their way included.
    pub per_host: u32,
    /// Of which hosts.
    pub among: Among,
    /// How many are on their way, by host; those with none need no entry.
    pub busy: BTreeMap<String, u32>,
    /// How long a claim lasts should its own session forget it.
    pub lease: Duration,
}

/// Hosts whose deliveries may be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Among {
    /// These.
    Only(Vec<String>),
    /// All others.
    Except(Vec<String>),
}

impl Among {
    /// The hosts that are named, and whether those are meant.
    pub(super) const fn parts(&self) -> (&Vec<String>, bool) {
        match self {
            Self::Only(hosts) => (hosts, true),
            Self::Except(hosts) => (hosts, false),
        }
    }
}

/// A claimed delivery.
#[derive(Clone)]
pub struct Letter {
    /// Which.
    pub id: DeliveryId,
    /// Of which job.
    pub job: JobId,
    /// What it tells.
    pub event: WebhookEvent,
    /// This try's number, from 1.
    pub tries: u32,
    /// When it was written, or asked for again.
    pub since: Timestamp,
    /// `host:port` of its receiver.
    pub host: String,
    /// The exact bytes to send.
    pub body: String,
    /// The opened address; `None` when no key opens it.
    pub url: Option<String>,
}

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Letter").field("id", &self.id).field("tries", &self.tries).finish_non_exhaustive()
    }
}

/// What became of a request to send a delivery again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redelivered {
    /// It is due.
    Due(Delivery),
    /// Its URL was wiped.
    Wiped,
    /// No such delivery of such a job.
    NotFound,
}

/// Figures for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxStats {
    /// Deliveries that wait, due or not.
    pub waiting: u64,
    /// When the oldest of them was written.
    pub oldest: Option<Timestamp>,
}

/// The outbox of a record. All verbs are idempotent but claims, which count tries.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// When the next delivery is due; long ago where a session that is over left one on its way.
    async fn next_delivery(&self) -> Result<Option<Timestamp>>;
    /// Claims due deliveries, oldest first. Nothing once the session is over.
    async fn claim_deliveries(&self, session: SessionId, take: &Take, now: Timestamp) -> Result<Vec<Letter>>;
    /// Writes down how a try ended, if it is still the latest. A receiver that is gone ends all that waits for it.
    async fn delivery_tried(
        &self,
        session: SessionId,
        letter: &Letter,
        tried: Try,
        verdict: Verdict,
    ) -> Result<Fenced<()>>;
    /// The deliveries of a job, oldest first; `None` = no such job of this tenant.
    async fn deliveries(&self, tenant: Option<&Tenant>, job: JobId) -> Result<Option<Vec<Delivery>>>;
    /// Makes a delivery due now, with all its time before it.
    async fn redeliver(
        &self,
        tenant: Option<&Tenant>,
        job: JobId,
        delivery: DeliveryId,
        now: Timestamp,
    ) -> Result<Redelivered>;
    /// Figures for metrics.
    async fn outbox_stats(&self) -> Result<OutboxStats>;
    /// Wakes when this process wrote a delivery.
    fn posted(&self) -> Arc<Notify>;
}

/// A row to write.
pub(super) struct NewDelivery {
    pub(super) id: DeliveryId,
    pub(super) job: JobId,
    pub(super) seq: i64,
    pub(super) event: WebhookEvent,
    pub(super) host: String,
    pub(super) body: String,
    pub(super) sealed: Sealed,
    pub(super) at: Timestamp,
}

/// What a transition has to tell, if this record tells anything.
pub(super) fn untold(shared: &Shared, delta: &Delta) -> Vec<Notice> {
    if shared.letters.is_some() { notices(delta.before(), &delta.after) } else { Vec::new() }
}

/// The rows that tell it. None when the address cannot be known: then there is nobody to tell.
pub(super) fn write(
    shared: &Shared,
    delta: &Delta,
    notices: &[Notice],
    secrets: Option<JobSecrets>,
) -> Result<Vec<NewDelivery>> {
    let Some(letters) = &shared.letters else { return Ok(Vec::new()) };
    let job = &delta.after.job;
    let shown = job.spec.notification_url.clone();
    let sealed_away = shown.as_ref().is_some_and(|url| url.ends_with('…'));
    let whole = secrets.and_then(|secrets| secrets.notification_url);
    let Some(url) = whole.or_else(|| shown.filter(|_| !sealed_away)) else {
        tracing::error!(job = %job.id, "the address of its webhooks cannot be opened; nothing is told");
        return Ok(Vec::new());
    };
    let one = |notice: &Notice| {
        let id = DeliveryId::from_uuid(shared.ids.sortable(delta.now));
        Ok(NewDelivery {
            id,
            job: job.id,
            seq: job.seq,
            event: notice.event,
            host: host(&url),
            body: letters.body(notice, &delta.after, delta.now),
            sealed: shared.keys.seal(id.uuid().as_bytes(), url.clone().into_bytes())?,
            at: delta.now,
        })
    };
    notices.iter().map(one).collect()
}

/// Who is not to be asked too much at once: never with a user or a path.
fn host(url: &str) -> String {
    let parsed = Url::parse(url).ok();
    let host = parsed.as_ref().and_then(|url| Some((url.host_str()?, url.port_or_known_default()?)));
    host.map(|(host, port)| format!("{host}:{port}")).unwrap_or_default()
}

/// A claimed row.
pub(super) fn letter<R: Cells>(columns: &Columns<'_, R>, keys: &SealKeys) -> Result<Letter> {
    let id = columns.id("id")?;
    let sealed = Sealed { key_id: columns.text("key_id")?, bytes: columns.bytes("sealed_url")? };
    let url = keys.open(id.as_bytes(), &sealed).and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(Letter {
        id: DeliveryId::from_uuid(id),
        job: JobId::from_uuid(columns.id("job_id")?),
        event: event(columns)?,
        tries: columns.narrow("tries")?,
        since: columns.time("since")?,
        host: columns.text("host")?,
        body: columns.text("body")?,
        url,
    })
}

/// A row as it may be shown.
pub(super) fn delivery<R: Cells>(columns: &Columns<'_, R>) -> Result<Delivery> {
    let last = columns.maybe_text("last")?;
    Ok(Delivery {
        id: DeliveryId::from_uuid(columns.id("id")?),
        job: JobId::from_uuid(columns.id("job_id")?),
        event: event(columns)?,
        state: columns.state("state", DeliveryState::from_number)?,
        tries: columns.narrow("tries")?,
        created_at: columns.time("created_at")?,
        next_at: columns.maybe_time("next_at")?,
        last: last.map(|text| from_json("deliveries", "last", &text)).transpose()?,
        wipe_at: columns.maybe_time("wipe_at")?,
        has_url: columns.int("has_url")? == 1,
    })
}

/// Counts, by the names of their columns.
pub(super) fn stats<R: Cells>(row: &R) -> Result<OutboxStats> {
    let columns = Columns { table: "deliveries", row };
    let waiting = narrow("deliveries", "waiting", columns.int("waiting")?)?;
    Ok(OutboxStats { waiting, oldest: columns.maybe_time("oldest")? })
}

fn event<R: Cells>(columns: &Columns<'_, R>) -> Result<WebhookEvent> {
    let name = columns.text("event")?;
    WebhookEvent::named(&name).ok_or_else(|| inconsistent("deliveries", format!("event is {name:?}")))
}

/// What a try leaves in its row: state, next try, when the address goes.
pub(super) struct Left {
    pub(super) state: DeliveryState,
    pub(super) next_at: Option<Timestamp>,
    pub(super) wipe_at: Option<Timestamp>,
}

impl From<Verdict> for Left {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Again(at) => Self { state: DeliveryState::Waiting, next_at: Some(at), wipe_at: None },
            Verdict::Ended(state, wipe_at) => Self { state, next_at: None, wipe_at: Some(wipe_at) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_port_and_nothing_secret() {
        assert_eq!(host("https://u:p@Example.com/hook?key=1"), "example.com:443");
        assert_eq!(host("http://127.0.0.1:9000/"), "127.0.0.1:9000");
        assert_eq!(host("http://[::1]/x"), "[::1]:80");
    }
}

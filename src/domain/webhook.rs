//! What is told to a job's `notification_url`, when it is tried again, and how it is signed (Standard Webhooks 1.0).
//!
//! A notice is found by comparing a job before and after a transition, so whatever leads to a state tells it.

mod policy;
mod signing;

use serde::{Deserialize, Serialize};

use super::{Aggregate, DeliveryId, DeliveryState, JobId, JobStatus, OutputIndex, OutputStatus, Timestamp};

pub use policy::{MAX_RETRY_AFTER, Retrying, URL_AFTER_END, Verdict, ceiling};
pub use signing::{InvalidSecret, SignatureError, TOLERANCE, WebhookSecret, sign, verify};

/// What receivers may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WebhookEvent {
    /// A worker started the job; told again by each later start.
    #[serde(rename = "job.started")]
    JobStarted,
    /// All outputs are published.
    #[serde(rename = "job.completed")]
    JobCompleted,
    /// An output failed for good.
    #[serde(rename = "job.failed")]
    JobFailed,
    /// Somebody cancelled the job.
    #[serde(rename = "job.cancelled")]
    JobCancelled,
    /// One output is published.
    #[serde(rename = "output.completed")]
    OutputCompleted,
}

impl WebhookEvent {
    /// Every event, in the order of a job's life.
    pub const ALL: &'static [Self] =
        &[Self::JobStarted, Self::OutputCompleted, Self::JobCompleted, Self::JobFailed, Self::JobCancelled];

    /// Its `type` in a body.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JobStarted => "job.started",
            Self::JobCompleted => "job.completed",
            Self::JobFailed => "job.failed",
            Self::JobCancelled => "job.cancelled",
            Self::OutputCompleted => "output.completed",
        }
    }

    /// The event with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|event| event.as_str() == name)
    }
}

/// One thing to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub event: WebhookEvent,
    /// To which output, for [`WebhookEvent::OutputCompleted`].
    pub output: Option<OutputIndex>,
}

/// What a transition has to tell, outputs before their job. Empty for a job without a `notification_url`.
#[must_use]
pub fn notices(before: &Aggregate, after: &Aggregate) -> Vec<Notice> {
    let spec = &after.job.spec;
    if spec.notification_url.is_none() {
        return Vec::new();
    }
    let published =
        before.outputs.iter().zip(&after.outputs).filter(|(was, is)| {
            was.status != OutputStatus::Completed && is.status == OutputStatus::Completed
        });
    let outputs =
        published.map(|(_, is)| Notice { event: WebhookEvent::OutputCompleted, output: Some(is.index) });
    let status = (before.job.status != after.job.status).then_some(after.job.status);
    let event = status.and_then(|status| match status {
        JobStatus::Queued => None,
        JobStatus::Running => Some(WebhookEvent::JobStarted),
        JobStatus::Completed => Some(WebhookEvent::JobCompleted),
        JobStatus::Failed => Some(WebhookEvent::JobFailed),
        JobStatus::Cancelled => Some(WebhookEvent::JobCancelled),
    });
    let wanted = |notice: &Notice| spec.notification_events.contains(&notice.event);
    outputs.chain(event.map(|event| Notice { event, output: None })).filter(wanted).collect()
}

/// A delivery's row, without its address and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id: `webhook-id` of every try.
    pub id: DeliveryId,
    /// Its job.
    pub job: JobId,
    /// What it tells.
    pub event: WebhookEvent,
    /// State.
    pub state: DeliveryState,
    /// Tries begun since it was written or asked for again.
    pub tries: u32,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it is tried next, exactly while it waits.
    pub next_at: Option<Timestamp>,
    /// How the last try ended.
    pub last: Option<Try>,
    /// Until when it can be asked for again after its end: then its sealed URL is wiped. `None` while it waits.
    pub wipe_at: Option<Timestamp>,
    /// Whether the sealed URL is still there.
    pub has_url: bool,
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    /// When.
    pub at: Timestamp,
    /// The receiver's status, if it answered.
    pub status: Option<u16>,
    /// What was wrong; `None` = nothing.
    pub error: Option<TryError>,
}

/// Why a try failed. Says nothing of what answers inside this network: a refused and a silent port are one error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TryError {
    /// The address, its port or its scheme is not allowed (`webhooks.allow`).
    Blocked,
    /// Nobody answered: no such name, no connection, no TLS, or it broke off.
    Unreachable,
    /// No answer within `webhooks.timeout`.
    TimedOut,
    /// A redirect: those are not followed.
    Redirected,
    /// An answer that is not 2xx.
    Refused,
    /// 410: the receiver wants no more of this job.
    Gone,
    /// The sealed URL could not be opened.
    Unsealable,
}

impl TryError {
    /// The name in the API and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Redirected => "redirected",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Unsealable => "unsealable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    fn job() -> Aggregate {
        let mut job = fixtures::queued(2, Timestamp::from_micros(0));
        job.job.spec.notification_url = Some("https://h/".into());
        job.job.spec.notification_events = WebhookEvent::ALL.to_vec();
        job
    }

    #[test]
    fn a_change_of_state_is_told_and_nothing_else() {
        let before = job();
        assert_eq!(notices(&before, &before), []);
        for (status, event) in [
            (JobStatus::Running, WebhookEvent::JobStarted),
            (JobStatus::Completed, WebhookEvent::JobCompleted),
            (JobStatus::Failed, WebhookEvent::JobFailed),
            (JobStatus::Cancelled, WebhookEvent::JobCancelled),
        ] {
            let mut after = before.clone();
            after.job.status = status;
            assert_eq!(notices(&before, &after), [Notice { event, output: None }]);
            assert_eq!(notices(&after, &before), [], "a job that goes back to the queue");
        }
    }

    #[test]
    fn outputs_come_before_their_job_and_unwanted_events_not_at_all() {
        let before = job();
        let mut after = before.clone();
        after.job.status = JobStatus::Completed;
        after.outputs[1].status = OutputStatus::Completed;
        let told: Vec<_> = notices(&before, &after).iter().map(|n| (n.event, n.output)).collect();
        let output = (WebhookEvent::OutputCompleted, Some(OutputIndex(1)));
        assert_eq!(told, [output, (WebhookEvent::JobCompleted, None)]);
        after.job.spec.notification_events = vec![WebhookEvent::JobFailed];
        assert_eq!(notices(&before, &after), []);
        after.job.spec.notification_events = WebhookEvent::ALL.to_vec();
        after.job.spec.notification_url = None;
        assert_eq!(notices(&before, &after), []);
    }

    #[test]
    fn names_are_those_of_the_body() {
        for event in WebhookEvent::ALL {
            assert_eq!(serde_json::to_value(event).unwrap(), event.as_str());
            assert_eq!(WebhookEvent::named(event.as_str()), Some(*event));
        }
        assert_eq!(WebhookEvent::named("job.queued"), None);
    }
}

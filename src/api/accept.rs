//! Accepting a job: what is left to check once the text is legal, and handing it over.

use std::time::Duration;

use super::Api;
use super::auth::{Principal, Scope};
use super::body::{self, Json};
use super::json;
use super::problem::{Kind, Problem};
use super::submission::{self, Submission};
use super::uploads;
use crate::domain::uploads::Claim;
use crate::domain::{Fault, JobId, OutputIndex, Source, TaskId, Tenant, UploadId};
use crate::store::{Idempotency, NewJob, StoredJob, Submitted};
use crate::worker::Given;

/// How long an idempotency key is remembered.
const KEY_MEMORY: Duration = Duration::from_hours(24);

/// A job that is on disk.
pub(super) enum Accepted {
    /// As it is on record; it was not read back.
    New(Box<StoredJob>),
    /// The same request came before.
    Replayed(JobId),
}

/// A checked submission and how to recognise its repetition.
pub(super) struct Checked {
    id: JobId,
    pub(super) submission: Submission,
    idempotency: Option<Idempotency>,
}

/// Checks everything that can be checked before a worker opens the source.
pub(super) async fn check(
    api: &Api,
    who: &Principal,
    key: Option<String>,
    body: Json<'_>,
) -> Result<Checked, Problem> {
    let now = api.clock.now();
    let id = JobId::from_uuid(api.control.folder().mark(api.ids.sortable(now)));
    let idempotency = key.map(|key| Idempotency {
        key,
        fingerprint: api.control.store().fingerprint(&json::canonical(&body.value)),
        until: now.plus(KEY_MEMORY),
    });
    let large = body.large;
    let mut submission =
        submission::read(body.value, body.faults, &api.presets, id).map_err(Problem::invalid)?;
    if large && submission.inline.is_none() {
        return Err(body::too_large());
    }
    if submission.spec.priority > 0 {
        who.needs(Scope::JobsPriority)?;
    }
    settle_upload(api, &who.tenant, &mut submission).await?;
    let mut faults = check_places(api, &submission);
    faults.extend(settle_events(api, &mut submission));
    if faults.is_empty() {
        Ok(Checked { id, submission, idempotency })
    } else {
        Err(Problem::invalid(faults))
    }
}

/// Checks a source that is only asked about, as one of a job is checked.
pub(super) async fn check_source(api: &Api, who: &Principal, body: Json<'_>) -> Result<Given, Problem> {
    let id = JobId::from_uuid(api.ids.random());
    let large = body.large;
    let mut submission =
        submission::read_source(body.value, body.faults, &api.presets, id).map_err(Problem::invalid)?;
    if large && submission.inline.is_none() {
        return Err(body::too_large());
    }
    settle_upload(api, &who.tenant, &mut submission).await?;
    let faults = check_places(api, &submission);
    if !faults.is_empty() {
        return Err(Problem::invalid(faults));
    }
    let Submission { spec, secrets, inline, .. } = submission;
    Ok(inline.map_or_else(|| Given::Source(spec.source, Box::new(secrets)), Given::Bytes))
}

/// Stores the inline source, then the job. When this returns `Ok`, the job survives any crash.
pub(super) async fn submit(api: &Api, who: &Principal, checked: Checked) -> Result<Accepted, Problem> {
    let Checked { id, submission, idempotency } = checked;
    let Submission { spec, secrets, inline, .. } = submission;
    if let Some(most) = api.limits.pending_per_tenant {
        api.0.queues.admit(api.control.store(), &who.tenant, most, api.clock.now()).await?;
    }
    let inline_key = match (&spec.source, inline) {
        (Source::Inline { key, .. }, Some(bytes)) => {
            api.files.store_inline(key, bytes).await?;
            Some(key.clone())
        }
        _ => None,
    };
    let now = api.clock.now();
    let task = TaskId::from_uuid(api.ids.sortable(now));
    let job = NewJob { id, task, tenant: who.tenant.clone(), spec, secrets, idempotency, now };
    let accepted = StoredJob { aggregate: job.accepted(), attempts: Vec::new(), queue_position: None };
    let submitted = api.control.submit(job).await;
    if let (
        Some(key),
        Ok(Submitted::Replayed(_) | Submitted::KeyReused | Submitted::KeyGone | Submitted::QueueFull),
    ) = (&inline_key, &submitted)
    {
        // After an error the outcome is unknown, so the bytes stay: the job may exist.
        api.files.discard_inline(key).await;
    }
    match submitted? {
        Submitted::Created => Ok(Accepted::New(Box::new(accepted))),
        Submitted::Replayed(id) => Ok(Accepted::Replayed(id)),
        Submitted::KeyReused => Err(Problem::new(
            Kind::IdempotencyKeyReused,
            "the key was used within 24 hours with another body",
        )),
        Submitted::KeyGone => Err(Problem::new(Kind::Gone, "the job of this idempotency key was deleted")),
        Submitted::QueueFull => Err(Problem::new(Kind::QueueFull, "as many jobs wait as the queue takes")
            .retry_after(Duration::from_secs(10))),
    }
}

/// An upload must be whole and the tenant's own. A storage key that looks like one of an upload becomes that upload.
async fn settle_upload(api: &Api, tenant: &Tenant, submission: &mut Submission) -> Result<(), Problem> {
    // What is wrong with an upload; `None` = there is none.
    let look = |id: UploadId| async move {
        let upload = api.control.store().upload(Some(tenant), id).await?;
        let Some(upload) = upload.filter(|u| u.expires_at > api.clock.now()) else { return Ok(None) };
        Ok::<_, Problem>(Some(match upload.etag {
            Some(_) => Ok(()),
            None => match uploads::claim(api, &upload).await? {
                Claim::Whole { .. } => Ok(()),
                Claim::Missing => Err("the upload is not whole yet".to_owned()),
                Claim::Size(found) => Err(uploads::is_of(found, &upload)),
            },
        }))
    };
    let refuse = |at: &str, detail: &str| {
        Err(Problem::invalid(vec![Fault { pointer: at.to_owned(), detail: detail.to_owned() }]))
    };
    if let Some(id) = submission.maybe_upload {
        return match look(id).await? {
            None => Ok(()),
            Some(Ok(())) => {
                submission.spec.source = Source::Upload { id };
                Ok(())
            }
            Some(Err(detail)) => refuse(&submission.source_at, &detail),
        };
    }
    if let Source::Upload { id } = submission.spec.source {
        let at = format!("{}/id", submission.source_at);
        return match look(id).await? {
            None => refuse(&at, "no such upload"),
            Some(Err(detail)) => refuse(&at, &detail),
            Some(Ok(())) => Ok(()),
        };
    }
    Ok(())
}

/// A job that does not say is told what the server's configuration says.
fn settle_events(api: &Api, submission: &mut Submission) -> Option<Fault> {
    let spec = &mut submission.spec;
    spec.notification_url.as_ref()?;
    let Some(events) = api.control.webhook_events() else {
        let detail = "this server has nothing to sign webhooks with: webhooks.secret is not configured";
        return Some(Fault { pointer: "/notification_url".to_owned(), detail: detail.to_owned() });
    };
    if spec.notification_events.is_empty() {
        spec.notification_events = events.to_vec();
    }
    None
}

fn check_places(api: &Api, submission: &Submission) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Err(failure) = api.files.check_source(&submission.spec.source, &submission.secrets) {
        tracing::debug!(code = %failure.code, detail = failure.detail, "source refused");
        faults.push(Fault { pointer: submission.source_at.clone(), detail: failure.message });
    }
    let outputs = submission.spec.outputs.iter().zip(&submission.destinations_at);
    for (index, (output, at)) in (0..).map(OutputIndex).zip(outputs) {
        let secrets = submission.secrets.output(index);
        if let Err(failure) = api.files.check_destination(&output.destination, secrets) {
            tracing::debug!(code = %failure.code, detail = failure.detail, "destination refused");
            faults.push(Fault { pointer: at.clone(), detail: failure.message });
        }
    }
    faults
}

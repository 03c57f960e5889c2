//! Jobs: submit, show, list, cancel, retry, delete, and the tools' logs.

use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use serde::Serialize;
use serde_json::{Value, json};

use super::accept::{self, Accepted};
use super::auth::Principal;
use super::params::{self, Params};
use super::problem::{Kind, Problem};
use super::submission::Submission;
use super::view::{self, Dialect, JobView};
use super::{Api, PREFIX, body, idempotency};
use crate::domain::{JobId, JobStatus};
use crate::store::{Cancelled, Deleted, JobFilter, Retried, StoredJob};

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Jobs of a page when `limit` is not given.
const PAGE: u32 = 25;

impl<S: Send + Sync> FromRequestParts<S> for Dialect {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(if parts.uri.path().starts_with(PREFIX) { Self::Canonical } else { Self::Legacy })
    }
}

/// `POST /jobs`: 202 once the job is on disk. `?dry_run=true` checks and shows what would be stored.
///
/// The answer is made from what was stored, so it has no place in the queue: to read that back would cost more than
/// storing the job did.
pub(super) async fn create(
    State(api): State<Api>,
    who: Principal,
    dialect: Dialect,
    request: Request,
) -> Result<Response, Problem> {
    let params = Params::of(request.uri());
    params.only(&["dry_run"])?;
    let dry = params.parsed("dry_run", |text| text.parse::<bool>().ok(), "true or false")?.unwrap_or(false);
    who.admit_submission(&api)?;
    let key = idempotency::key(request.headers())?;
    let body = body::read_json(&api, request).await?;
    let checked = accept::check(&api, &who, key, body).await?;
    if dry {
        return Ok(axum::Json(resolved(&checked.submission)).into_response());
    }
    match accept::submit(&api, &who, checked).await? {
        Accepted::New(stored) => {
            Ok(show(&api, &stored, dialect, StatusCode::ACCEPTED, Showing::Accepted).await)
        }
        Accepted::Replayed(id) => {
            let gone = || Problem::new(Kind::Gone, "the job of this idempotency key was deleted");
            let stored = api.control.store().get(Some(&who.tenant), id).await?.ok_or_else(gone)?;
            let mut response = show(&api, &stored, dialect, StatusCode::ACCEPTED, Showing::Accepted).await;
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
    }
}

/// `GET /jobs`: newest first, a page at a time.
pub(super) async fn list(
    State(api): State<Api>,
    who: Principal,
    dialect: Dialect,
    uri: Uri,
) -> Result<Response, Problem> {
    let filter = filter(&Params::of(&uri), &who)?;
    let page = api.control.store().list(&filter).await?;
    let mut jobs = Vec::with_capacity(page.jobs.len());
    for stored in &page.jobs {
        jobs.push(json_of(&api, stored, dialect).await);
    }
    let last = page.jobs.last().map(|stored| cursor(stored.aggregate.job.id));
    let next = last.filter(|_| page.more);
    Ok(axum::Json(json!({"jobs": jobs, "next_cursor": next})).into_response())
}

/// `GET /jobs/{id}`.
pub(super) async fn get(
    State(api): State<Api>,
    who: Principal,
    dialect: Dialect,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let stored = find(&api, &who, &id).await?;
    Ok(show(&api, &stored, dialect, StatusCode::OK, Showing::Job).await)
}

/// `POST /jobs/{id}/cancel`: 200 when it is cancelled, 202 when an open publication must be resolved first.
pub(super) async fn cancel(
    State(api): State<Api>,
    who: Principal,
    dialect: Dialect,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let job = params::id(&id, "job")?;
    let status = match api.control.cancel(who.reach(), job).await? {
        Cancelled::Now(_) | Cancelled::Already(JobStatus::Cancelled) => StatusCode::OK,
        Cancelled::Requested => StatusCode::ACCEPTED,
        Cancelled::Already(status) => {
            return Err(Problem::new(Kind::JobFinished, format!("the job is {} already", status.as_str())));
        }
        Cancelled::NotFound => return Err(Problem::no_such("job")),
    };
    let stored = find(&api, &who, &id).await?;
    Ok(show(&api, &stored, dialect, status, Showing::Job).await)
}

/// `POST /jobs/{id}/retry`: starts the next run of a failed job.
pub(super) async fn retry(
    State(api): State<Api>,
    who: Principal,
    dialect: Dialect,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    match api.control.retry(who.reach(), params::id(&id, "job")?).await? {
        Retried::Queued => {}
        Retried::NotFailed(status) => {
            return Err(Problem::new(Kind::JobNotFailed, format!("the job is {}", status.as_str())));
        }
        Retried::SecretsGone => {
            return Err(Problem::new(Kind::SecretsGone, "submit the job again with its credentials"));
        }
        Retried::NotFound => return Err(Problem::no_such("job")),
    }
    let stored = find(&api, &who, &id).await?;
    Ok(show(&api, &stored, dialect, StatusCode::ACCEPTED, Showing::Accepted).await)
}

/// `DELETE /jobs/{id}`: 204 when it is gone, 202 when it must be cancelled first.
pub(super) async fn delete(
    State(api): State<Api>,
    who: Principal,
    dialect: Dialect,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    match api.control.delete(who.reach(), params::id(&id, "job")?).await? {
        Deleted::Done(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        Deleted::Cancelling => {
            let stored = find(&api, &who, &id).await?;
            Ok(show(&api, &stored, dialect, StatusCode::ACCEPTED, Showing::Job).await)
        }
        Deleted::NotFound => Err(Problem::no_such("job")),
    }
}

/// `GET /jobs/{id}/log`: what the tools said last, per attempt.
pub(super) async fn log(
    State(api): State<Api>,
    who: Principal,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Log<'a> {
        number: usize,
        worker_id: &'a str,
        outcome: Option<&'static str>,
        code: Option<&'static str>,
        lines: Vec<&'a str>,
    }
    let stored = find(&api, &who, &id).await?;
    let logs: Vec<_> = stored
        .attempts
        .iter()
        .enumerate()
        .map(|(index, attempt)| Log {
            number: index + 1,
            worker_id: attempt.worker.as_str(),
            outcome: attempt.outcome.map(crate::domain::RunOutcome::as_str),
            code: attempt.code.map(crate::domain::Code::as_str),
            lines: attempt.log.as_deref().unwrap_or_default().lines().collect(),
        })
        .collect();
    Ok(axum::Json(json!({"job_id": stored.aggregate.job.id, "attempts": logs})).into_response())
}

/// The job of a path, if it exists for this caller.
pub(super) async fn find(api: &Api, who: &Principal, id: &str) -> Result<StoredJob, Problem> {
    let id: JobId = params::id(id, "job")?;
    api.control.store().get(who.reach(), id).await?.ok_or_else(|| Problem::no_such("job"))
}

/// The job resource as lists have it: without command lines, with what its worker reports just now.
pub(super) async fn json_of(api: &Api, stored: &StoredJob, dialect: Dialect) -> Value {
    let live = live(api, stored).await;
    serde_json::to_value(JobView::of(stored, live.as_ref(), dialect).brief()).unwrap_or_default()
}

/// Whether an answer is that to a submission.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Showing {
    Job,
    Accepted,
}

async fn show(
    api: &Api,
    stored: &StoredJob,
    dialect: Dialect,
    status: StatusCode,
    showing: Showing,
) -> Response {
    let live = live(api, stored).await;
    let view = JobView::of(stored, live.as_ref(), dialect);
    match showing {
        Showing::Job => (status, axum::Json(view)).into_response(),
        Showing::Accepted => {
            let location = view::job_url(stored.aggregate.job.id);
            (status, [(header::LOCATION, location)], axum::Json(view.accepted())).into_response()
        }
    }
}

async fn live(api: &Api, stored: &StoredJob) -> Option<crate::domain::TaskReport> {
    let job = &stored.aggregate.job;
    if job.status == JobStatus::Running { api.control.report(job.id).await } else { None }
}

/// What a dry run shows: the job as it would be stored. Renditions and commands need the source's probe.
fn resolved(submission: &Submission) -> Value {
    let spec = &submission.spec;
    let outputs: Vec<_> = spec
        .outputs
        .iter()
        .enumerate()
        .map(|(index, output)| {
            json!({
                "index": index,
                "preset": output.preset,
                "settings": output.encode,
                "destination": view::destination(&output.destination),
                "warnings": output.warnings,
            })
        })
        .collect();
    json!({
        "dry_run": true,
        "source": view::source(&spec.source),
        "outputs": outputs,
        "priority": spec.priority,
        "labels": spec.labels,
        "metadata": spec.metadata,
        "notification_url": spec.notification_url,
        "notification_events": spec.notification_events,
        "options": spec.options,
    })
}

fn filter(params: &Params, who: &Principal) -> Result<JobFilter, Problem> {
    params.only(&["status", "label", "limit", "cursor"])?;
    let status = |text: &str| JobStatus::ALL.iter().copied().find(|s| s.as_str() == text);
    let label =
        |text: &str| text.split_once(['=', ':']).map(|(key, value)| (key.to_owned(), value.to_owned()));
    let limit = |text: &str| text.parse().ok().filter(|n| (1..=100).contains(n));
    Ok(JobFilter {
        tenant: who.reach().cloned(),
        status: params.parsed("status", status, "queued, running, completed, failed or cancelled")?,
        label: params.parsed("label", label, "KEY=VALUE")?,
        before: params.parsed("cursor", job_of_cursor, "a next_cursor of an earlier page")?,
        limit: params.parsed("limit", limit, "from 1 to 100")?.unwrap_or(PAGE),
    })
}

fn cursor(last: JobId) -> String {
    URL_SAFE_NO_PAD.encode(last.uuid().as_bytes())
}

fn job_of_cursor(text: &str) -> Option<JobId> {
    let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    Some(JobId::from_uuid(uuid::Uuid::from_bytes(bytes)))
}

//! What retention is about to remove, for admins. Looking changes nothing; the control removes by itself.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Uri;
use serde_json::{Value, json};

use super::params::Params;
use super::problem::Problem;
use super::{Api, view};
use crate::domain::Results;
use crate::store::{DoomedJob, UploadRecord};

/// Jobs and uploads shown when `limit` is not given.
const PAGE: u32 = 100;
/// Longest `hours`: ten years.
const MAX_HOURS: u64 = 24 * 365 * 10;

/// `GET /retention`: `?hours=` asks what another time would remove.
pub(super) async fn look(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    let params = Params::of(&uri);
    params.only(&["hours", "limit"])?;
    let hours = |text: &str| text.parse().ok().filter(|hours| *hours <= MAX_HOURS);
    let hours = params.parsed("hours", hours, "a number of hours, up to ten years")?;
    let limit = |text: &str| text.parse().ok().filter(|n| (1..=1000).contains(n));
    let limit = params.parsed("limit", limit, "from 1 to 1000")?.unwrap_or(PAGE);
    let (before, doomed) = api.control.doomed(hours.map(Duration::from_hours), limit).await?;
    let results = api.results;
    Ok(axum::Json(json!({
        "finished_before": before,
        "delete_results": results == Results::Remove,
        "jobs": doomed.jobs.iter().map(|it| job(it, results)).collect::<Vec<_>>(),
        "uploads": doomed.uploads.iter().map(upload).collect::<Vec<_>>(),
        "garbage": doomed.garbage,
        "more": doomed.more,
    }))
    .into_response())
}

fn job(job: &DoomedJob, results: Results) -> Value {
    let shown = match results {
        Results::Keep => Vec::new(),
        Results::Remove => job.results.iter().map(view::destination).collect(),
    };
    json!({
        "id": job.id,
        "tenant": job.tenant,
        "status": job.status,
        "finished_at": job.finished_at,
        "results": shown,
    })
}

fn upload(upload: &UploadRecord) -> Value {
    json!({
        "id": upload.id,
        "tenant": upload.tenant,
        "filename": upload.name,
        "size": upload.size,
        "expires_at": upload.expires_at,
    })
}

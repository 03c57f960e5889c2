//! What probes, scrapers and people ask of the server itself.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde_json::json;

use super::Api;
use super::problem::{Kind, Problem, SOURCE_TITLE};
use crate::domain::Code;
use crate::telemetry::metrics::{self, SlotState};

/// Longest wait for the store's answer to a readiness probe.
const PING: Duration = Duration::from_secs(2);

const INDEX: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>flux</title>\
<h1>flux</h1><p>Distributed video encoding. The API is at <code>/api/v1</code>.</p><ul>\
<li><a href=/api/v1/jobs>jobs</a><li><a href=/api/v1/presets>presets</a><li><a href=/api/v1/workers>workers</a>\
<li><a href=/health>health</a><li><a href=/ready>readiness</a><li><a href=/metrics>metrics</a></ul></html>\n";

/// `GET /health`: the process answers. It asks nobody else, so that a database's trouble restarts nothing.
pub(super) async fn health() -> Response {
    axum::Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")})).into_response()
}

/// `GET /ready`: the store answers and the process is not stopping.
pub(super) async fn ready(State(api): State<Api>) -> Result<Response, Problem> {
    let not_ready = |what: &str| Problem::new(Kind::Unavailable, what).retry_after(Duration::from_secs(2));
    if api.closing.is_cancelled() {
        return Err(not_ready("the server is stopping"));
    }
    match tokio::time::timeout(PING, api.control.store().ping()).await {
        Ok(Ok(())) => Ok(axum::Json(json!({"status": "ready"})).into_response()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(not_ready("the job store does not answer")),
    }
}

/// `GET /metrics`: figures without ids, names or URLs, so that a scraper needs no key.
pub(super) async fn scrape(State(api): State<Api>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    gauges(&api).await;
    ([(header::CONTENT_TYPE, kind)], (api.metrics)()).into_response()
}

/// Asks once per scrape, so that a server nobody scrapes asks nothing.
async fn gauges(api: &Api) {
    if let Ok(Ok(stats)) = tokio::time::timeout(PING, api.control.stats()).await {
        metrics::queue(metrics::Queue {
            ready: stats.ready,
            delayed: stats.delayed,
            running: stats.running,
            oldest_ready: stats.oldest_ready.map_or(Duration::ZERO, |at| api.clock.now().since(at)),
        });
    }
    if let Ok(Ok(stats)) = tokio::time::timeout(PING, api.control.outbox_stats()).await {
        let age = stats.oldest.map_or(Duration::ZERO, |at| api.clock.now().since(at));
        metrics::outbox(stats.waiting, age);
    }
    let workers = api.control.workers().await;
    let busy: usize = workers.iter().map(|worker| worker.running.len()).sum();
    let slots: usize = workers.iter().filter_map(|worker| usize::try_from(worker.slots).ok()).sum();
    metrics::worker_slots(SlotState::Busy, busy);
    metrics::worker_slots(SlotState::Free, slots.saturating_sub(busy));
}

/// `GET /`.
pub(super) async fn index() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], INDEX).into_response()
}

/// `GET /problems/{code}`: what the `type` of a problem points at.
pub(super) async fn problem(Path(code): Path<String>) -> Result<Response, Problem> {
    if let Some(kind) = Kind::ALL.iter().find(|kind| kind.code() == code) {
        let (code, title, retryable) = (kind.code(), kind.title(), kind.retryable());
        return Ok(axum::Json(json!({"code": code, "title": title, "retryable": retryable})).into_response());
    }
    // A source that cannot be probed has the code that its job would have.
    let failure = Code::ALL.iter().find(|known| known.as_str() == code);
    let failure = failure.ok_or_else(|| Problem::no_such("problem type"))?;
    let (code, class, retryable) = (failure.as_str(), failure.class(), failure.retryable());
    let body = json!({"code": code, "title": SOURCE_TITLE, "class": class, "retryable": retryable});
    Ok(axum::Json(body).into_response())
}

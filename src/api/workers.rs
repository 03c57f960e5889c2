//! The fleet as clients see it. Addresses and other tenants' jobs are for admins.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Api;
use super::auth::Principal;
use crate::control::{Found, RunningTask, WorkerState, WorkerView};

/// `GET /workers`.
pub(super) async fn list(State(api): State<Api>, who: Principal) -> Response {
    let workers: Vec<_> = api.control.workers().await.iter().map(|worker| view(worker, &who)).collect();
    axum::Json(json!({"workers": workers})).into_response()
}

fn view(worker: &WorkerView, who: &Principal) -> Value {
    let state = match worker.state {
        WorkerState::Ready => "ready",
        WorkerState::Draining => "draining",
        WorkerState::Unreachable => "unreachable",
        WorkerState::Refused => "refused",
    };
    let found = match worker.found {
        Found::InProcess => "in_process",
        Found::Listed => "listed",
        Found::Resolved => "dns",
        Found::Registered => "registered",
        Found::Recorded => "recorded",
        Found::Started => "started",
    };
    let tasks: Vec<_> = if who.admin { worker.running.iter().map(task).collect() } else { Vec::new() };
    json!({
        "id": worker.id,
        "boot_id": worker.boot,
        "address": who.admin.then_some(&worker.address),
        "version": worker.version,
        "state": state,
        "reason": who.admin.then_some(&worker.reason),
        "found": found,
        "slots": worker.slots,
        "running": worker.running.len(),
        "tasks": tasks,
        "capabilities": {
            "encoders": worker.encoders,
            "ffmpeg": worker.ffmpeg_version,
            "sandbox": worker.sandbox,
        },
        "disk_free": worker.disk_free,
        "last_seen": worker.last_seen,
    })
}

fn task(task: &RunningTask) -> Value {
    json!({
        "job_id": task.job,
        "task_id": task.task,
        "since": task.since,
        "phase": task.report.as_ref().map(|r| r.phase),
        "progress": task.report.as_ref().map(|r| r.progress.percent()),
    })
}

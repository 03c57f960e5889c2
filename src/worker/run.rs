//! One run from admission to its last fact, whatever happens in between.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::service::RunContext;
use super::transcode;
use crate::domain::{Code, Failure, OutputIndex};
use crate::rpc::wire::{Action, RunEvent, RunFailure, RunRequest};
use crate::telemetry::task_span;

/// Longest log tail that travels with a failure, bytes (PROTOCOL §1.35).
const LOG_TAIL: usize = 16 * 1024;

/// Why a run is stopped from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The record says so: cancelled, or lost to another run.
    Cancelled,
    /// A higher epoch of the same task starts here.
    Superseded,
    /// No control asked for it for too long.
    Orphan,
    /// The worker stops.
    Drain,
    /// The disk has no room for it, and did not get any for a while.
    NoRoom,
}

/// Stops a run; the first reason wins.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    token: CancellationToken,
    reason: Arc<OnceLock<StopReason>>,
}

impl Stop {
    /// Also stops when `hard` fires: the process ends now.
    pub(super) fn new(hard: &CancellationToken) -> Self {
        Self { token: hard.child_token(), reason: Arc::new(OnceLock::new()) }
    }

    pub(super) fn request(&self, reason: StopReason) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    pub(super) const fn token(&self) -> &CancellationToken {
        &self.token
    }

    fn reason(&self) -> StopReason {
        self.reason.get().copied().unwrap_or(StopReason::Drain)
    }

    /// Whether the run is over on the record: nobody will acknowledge its end.
    pub(super) fn unwanted(&self) -> bool {
        matches!(self.reason.get(), Some(StopReason::Cancelled | StopReason::Superseded))
    }
}

/// Why a run did not finish.
#[derive(Debug)]
pub(super) enum Ended {
    /// Somebody asked for it.
    Stopped,
    /// It failed; outputs may have reasons of their own.
    Failed { failure: Failure, outputs: Vec<(OutputIndex, Failure)> },
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed { failure, outputs: Vec::new() }
    }
}

/// Runs to the end and tells the last fact.
pub(super) async fn run(context: RunContext, request: RunRequest) {
    let RunRequest { job, task, run, epoch, action, .. } = request;
    let Action::Start(start) = action else { return };
    let span = task_span(job, epoch, &context.worker.settings.id);
    span.in_scope(|| tracing::info!(task.id = %task, run.id = %run, tenant = %start.tenant, "run begins"));
    let (log, stop) = (context.log.clone(), context.stop.clone());
    let body = transcode::transcode(context, job, epoch, start.work).instrument(span.clone());
    let ending = AssertUnwindSafe(Box::pin(body)).catch_unwind().await;
    let _entered = span.enter();
    match ending {
        Ok(Ok(())) => {
            tracing::info!("run finished");
            log.tell(RunEvent::Finished);
        }
        Ok(Err(Ended::Failed { failure, outputs })) => {
            tracing::warn!(code = %failure.code, detail = failure.detail, "run failed: {}", failure.message);
            let log_tail = tail(&failure.log);
            log.tell(RunEvent::Failed(Box::new(RunFailure { failure, outputs, log_tail })));
        }
        Ok(Err(Ended::Stopped)) => {
            let reason = stop.reason();
            tracing::info!(?reason, "run stopped");
            let said = match reason {
                StopReason::Drain => "the worker stops",
                StopReason::Orphan => "no control asked for it",
                StopReason::NoRoom => "the worker's disk has no room for it",
                StopReason::Cancelled | StopReason::Superseded => "stopped",
            };
            log.tell(RunEvent::Released(said.to_owned()));
        }
        Err(panic) => {
            let what = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            tracing::error!(what, "run panicked");
            let failure =
                Failure::new(Code::Internal, "flux failed while running this job").with_detail(what);
            log.tell(RunEvent::Failed(Box::new(RunFailure {
                failure,
                outputs: Vec::new(),
                log_tail: String::new(),
            })));
        }
    }
}

/// The last lines that fit [`LOG_TAIL`].
fn tail(lines: &[String]) -> String {
    let mut size = 0;
    let fitting = lines.iter().rev().take_while(|line| {
        size += line.len() + 1;
        size <= LOG_TAIL
    });
    let mut kept: Vec<&str> = fitting.map(String::as_str).collect();
    kept.reverse();
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_whole_last_lines() {
        let lines: Vec<String> = (0..10_000).map(|n| format!("line {n}")).collect();
        let kept = tail(&lines);
        assert!(
            kept.len() <= LOG_TAIL && kept.ends_with("line 9999") && kept.starts_with("line "),
            "{}",
            &kept[..20]
        );
    }

    #[test]
    fn the_first_reason_wins_and_a_hard_stop_counts_as_drain() {
        let hard = CancellationToken::new();
        let stop = Stop::new(&hard);
        stop.request(StopReason::Superseded);
        stop.request(StopReason::Drain);
        assert_eq!(stop.reason(), StopReason::Superseded);
        let other = Stop::new(&hard);
        hard.cancel();
        assert!(other.token().is_cancelled());
        assert_eq!(other.reason(), StopReason::Drain);
    }
}

//! What a reader of one job's stream is told, and in which bytes. Pure: [`super::stream`] feeds it.
//!
//! State events carry `id:`, the job's sequence number; progress carries none and may be skipped (PROTOCOL §1.14).
//! A stream ends with exactly one event named after the terminal status.

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::Value;

use super::view::{self, ErrorView, finite};
use crate::domain::{
    Event, EventKind, JobId, JobStatus, OutputIndex, OutputStatus, Phase, Progress, TaskReport, Timestamp,
};
use crate::store::StoredJob;

/// How long a client waits before it connects again, milliseconds.
const RETRY_MS: u32 = 2_000;

/// A comment that keeps proxies and clients from giving up.
pub(super) const HEARTBEAT: &[u8] = b": still here\n\n";

/// The first bytes of every stream.
pub(super) fn opening(out: &mut BytesMut) {
    out.put_slice(format!("retry: {RETRY_MS}\n\n").as_bytes());
}

/// Writes one event. JSON has no raw line breaks, so one `data:` line holds it.
pub(super) fn write(out: &mut BytesMut, event: &str, id: Option<i64>, data: &impl Serialize) {
    if let Some(id) = id {
        out.put_slice(format!("id: {id}\n").as_bytes());
    }
    out.put_slice(format!("event: {event}\ndata: ").as_bytes());
    let mut writer = out.writer();
    // Writing to memory cannot fail, and our own types have string keys only.
    let _ = serde_json::to_writer(&mut writer, data);
    writer.into_inner().put_slice(b"\n\n");
}

/// Tells a reader of all jobs what one of them is now.
pub(super) fn change(out: &mut BytesMut, stored: &StoredJob, live: Option<&TaskReport>, now: Timestamp) {
    let mut follower = Follower::new(stored, None);
    follower.high = view::progress(stored, live);
    let whole = serde_json::to_value(view::JobView::of(stored, live, view::Dialect::Canonical).brief());
    write(out, "status", None, &Data { job: whole.ok(), ..follower.data(live, now) });
}

/// The data of every event of a job.
#[derive(Debug, Serialize)]
struct Data<'a> {
    job_id: JobId,
    status: JobStatus,
    phase: Option<Phase>,
    progress: f64,
    fps: Option<f64>,
    speed: Option<f64>,
    eta_seconds: Option<f64>,
    output: Option<OutputChange>,
    message: Option<&'a str>,
    timestamp: Timestamp,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    last: Option<Last<'a>>,
    /// The whole resource: on a snapshot, and for readers of all jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<Value>,
}

/// What only the last event says.
#[derive(Debug, Serialize)]
struct Last<'a> {
    output_url: Option<String>,
    error: Option<ErrorView<'a>>,
}

#[derive(Debug, Serialize)]
struct OutputChange {
    index: OutputIndex,
    status: OutputStatus,
}

/// Where a reader stands in a job's history.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Follower {
    job: JobId,
    /// The last sequence number the reader has; `None` before its snapshot.
    seen: Option<i64>,
    status: JobStatus,
    /// Progress never goes back for one reader.
    high: Progress,
    /// The last live report that was sent.
    sent: Option<TaskReport>,
    ended: bool,
}

impl Follower {
    /// A reader that says it has `last_event_id`. What the job's history does not know gets a new snapshot.
    pub(super) fn new(stored: &StoredJob, last_event_id: Option<&str>) -> Self {
        let job = &stored.aggregate.job;
        let seen =
            last_event_id.and_then(|text| text.trim().parse().ok()).filter(|id| (1..=job.seq).contains(id));
        Self { job: job.id, seen, status: job.status, high: Progress::ZERO, sent: None, ended: false }
    }

    /// From where the job's events are wanted; a fresh reader wants none, its snapshot tells all.
    pub(super) fn wants_after(&self, stored: &StoredJob) -> i64 {
        self.seen.unwrap_or(stored.aggregate.job.seq)
    }

    /// Whether the terminal event was sent.
    pub(super) const fn ended(&self) -> bool {
        self.ended
    }

    /// Tells what the record knows and the reader does not: `events` are those after [`Self::wants_after`].
    pub(super) fn catch_up(
        &mut self,
        out: &mut BytesMut,
        stored: &StoredJob,
        events: &[Event],
        live: Option<&TaskReport>,
        now: Timestamp,
    ) {
        let job = &stored.aggregate.job;
        self.status = job.status;
        let live = live.filter(|_| job.status == JobStatus::Running);
        self.high = self.high.raise(view::progress(stored, live));
        if self.seen.is_none() {
            let whole =
                serde_json::to_value(view::JobView::of(stored, live, view::Dialect::Canonical).brief());
            let data = Data { job: whole.ok(), ..self.data(live, now) };
            write(out, "snapshot", Some(job.seq), &data);
            self.sent = live.cloned();
        }
        for event in events {
            // Newer than the record we read: it comes with the next reading.
            if event.seq <= self.wants_after(stored) || event.seq > job.seq {
                continue;
            }
            self.seen = Some(event.seq);
            let ends = job.status.is_terminal() && event.run == job.run;
            if !(ends && event.kind == EventKind::Status && event.status.is_terminal()) {
                self.tell(out, event);
            }
        }
        self.seen = Some(self.seen.map_or(job.seq, |seen| seen.max(job.seq)));
        if job.status.is_terminal() {
            self.end(out, stored, now);
        }
    }

    /// Tells a live report, unless the reader has just that.
    pub(super) fn progress(&mut self, out: &mut BytesMut, report: &TaskReport, now: Timestamp) {
        if self.ended
            || self.seen.is_none()
            || self.status != JobStatus::Running
            || self.sent.as_ref() == Some(report)
        {
            return;
        }
        self.high = self.high.raise(report.progress);
        write(out, "progress", None, &self.data(Some(report), now));
        self.sent = Some(report.clone());
    }

    fn tell(&self, out: &mut BytesMut, event: &Event) {
        let output =
            event.output.zip(event.output_status).map(|(index, status)| OutputChange { index, status });
        let name = match event.kind {
            EventKind::Status => "status",
            EventKind::Output => "output",
        };
        let message = Some(event.message.as_str()).filter(|m| !m.is_empty());
        let data = Data { status: event.status, output, message, ..self.data(None, event.at) };
        write(out, name, Some(event.seq), &data);
    }

    fn end(&mut self, out: &mut BytesMut, stored: &StoredJob, now: Timestamp) {
        let job = &stored.aggregate.job;
        let published = stored.aggregate.outputs.iter().find(|o| o.status == OutputStatus::Completed);
        let data = Data {
            message: job.failure.as_ref().map(|f| f.message.as_str()),
            last: Some(Last {
                output_url: published.map(|o| view::result_url(job.id, o)),
                error: job.failure.as_ref().map(ErrorView::of),
            }),
            ..self.data(None, job.finished_at.unwrap_or(now))
        };
        write(out, job.status.as_str(), self.seen, &data);
        self.ended = true;
    }

    fn data(&self, live: Option<&TaskReport>, timestamp: Timestamp) -> Data<'static> {
        Data {
            job_id: self.job,
            status: self.status,
            phase: live.map(|r| r.phase),
            progress: self.high.percent(),
            fps: live.and_then(|r| finite(r.fps)),
            speed: live.and_then(|r| finite(r.speed)),
            eta_seconds: live.and_then(|r| finite(r.eta_seconds)),
            output: None,
            message: None,
            timestamp,
            last: None,
            job: None,
        }
    }
}

#[cfg(test)]
#[path = "sse/tests.rs"]
mod tests;

//! Every metric: its name, its meaning, and the one function that records it.
//!
//! Rooms call the functions, so names and labels are written once. All of it is a few atomic additions; without a
//! recorder (commands, tests) it does nothing.

use std::time::Duration;

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::{Error, process};
use crate::domain::{Code, JobStatus, RunOutcome};

/// Tasks that a worker could take now.
pub const QUEUE_READY: &str = "flux_queue_ready";
/// Tasks that wait for a time.
pub const QUEUE_DELAYED: &str = "flux_queue_delayed";
/// Tasks held by workers.
pub const QUEUE_RUNNING: &str = "flux_queue_running";
/// Age of the oldest ready task.
pub const QUEUE_OLDEST_READY: &str = "flux_queue_oldest_ready_seconds";
/// Jobs accepted.
pub const JOBS_SUBMITTED: &str = "flux_jobs_submitted_total";
/// Jobs ended, by status.
pub const JOBS_FINISHED: &str = "flux_jobs_finished_total";
/// From acceptance to the end of a job.
pub const JOB_DURATION: &str = "flux_job_duration_seconds";
/// Runs of tasks ended, by outcome.
pub const TASKS_FINISHED: &str = "flux_tasks_finished_total";
/// Failures, by code.
pub const FAILURES: &str = "flux_failures_total";
/// Slots of this worker, by state.
pub const WORKER_SLOTS: &str = "flux_worker_slots";
/// Time in the encoder, per task.
pub const ENCODE: &str = "flux_encode_seconds";
/// Time spent checking, per output.
pub const VERIFY: &str = "flux_verify_seconds";
/// Time spent sending and publishing, per output.
pub const PUBLISH: &str = "flux_publish_seconds";
/// Bytes read from sources, by their kind.
pub const SOURCE_BYTES: &str = "flux_source_bytes_total";
/// Bytes published.
pub const OUTPUT_BYTES: &str = "flux_output_bytes_total";
/// Requests answered.
pub const HTTP_REQUESTS: &str = "flux_http_requests_total";
/// Time to the head of the answer.
pub const HTTP_REQUEST: &str = "flux_http_request_seconds";
/// Open event streams.
pub const SSE_READERS: &str = "flux_sse_readers";
/// Webhooks sent, by outcome.
pub const WEBHOOKS: &str = "flux_webhook_tries_total";
/// Webhooks that wait.
pub const WEBHOOKS_WAITING: &str = "flux_webhooks_waiting";
/// Age of the oldest webhook that waits.
pub const WEBHOOKS_OLDEST: &str = "flux_webhooks_oldest_waiting_seconds";
/// Always 1; the version is a label.
pub const BUILD_INFO: &str = "flux_build_info";
/// Memory in use. The `process_` names are the usual ones.
pub const PROCESS_MEMORY: &str = "process_resident_memory_bytes";
/// Processor time.
pub const PROCESS_CPU: &str = "process_cpu_seconds_total";
/// Open files.
pub const PROCESS_FDS: &str = "process_open_fds";
/// Threads.
pub const PROCESS_THREADS: &str = "process_threads";

/// Requests take milliseconds.
const REQUEST_BUCKETS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Encodes take seconds to hours.
const WORK_BUCKETS: &[f64] =
    &[0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0];

/// The process's recorder; the API renders it at `/metrics`. Clones are the same recorder.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Makes the recorder the process's own. Once per process.
    pub fn install() -> Result<Self, Error> {
        let handle = builder().map_err(Error::Recorder)?.install_recorder().map_err(Error::Recorder)?;
        describe();
        Ok(Self { handle })
    }

    /// All series in Prometheus' text form, with fresh figures about the process.
    #[must_use]
    pub fn render(&self) -> String {
        record_process(process::read());
        self.handle.render()
    }

    /// Folds finished histogram samples away; to be called every few seconds, or memory grows between scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// A recorder for one test, which passes it to `metrics::with_local_recorder`, and its handle.
pub fn local() -> Result<(PrometheusRecorder, Metrics), Error> {
    let recorder = builder().map_err(Error::Recorder)?.build_recorder();
    let handle = recorder.handle();
    Ok((recorder, Metrics { handle }))
}

fn builder() -> Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    let mut builder = PrometheusBuilder::new();
    for name in [JOB_DURATION, ENCODE, VERIFY, PUBLISH] {
        builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), WORK_BUCKETS)?;
    }
    builder.set_buckets_for_metric(Matcher::Full(HTTP_REQUEST.to_owned()), REQUEST_BUCKETS)
}

/// Registers the descriptions, and the series that should exist before their first event: a rate over a series
/// that appears with its first failure misses that failure.
fn describe() {
    describe_gauge!(QUEUE_READY, "Tasks that a worker could take now.");
    describe_gauge!(QUEUE_DELAYED, "Tasks that wait for a time.");
    describe_gauge!(QUEUE_RUNNING, "Tasks held by workers.");
    describe_gauge!(QUEUE_OLDEST_READY, Unit::Seconds, "Age of the oldest ready task; 0 with none.");
    describe_counter!(JOBS_SUBMITTED, "Jobs accepted.");
    describe_counter!(JOBS_FINISHED, "Jobs ended, by status.");
    describe_histogram!(JOB_DURATION, Unit::Seconds, "From acceptance to the end of a job, by status.");
    describe_counter!(TASKS_FINISHED, "Runs of tasks ended, by outcome.");
    describe_counter!(FAILURES, "Failures of runs, by code and class.");
    describe_gauge!(WORKER_SLOTS, "Slots of this worker, by state.");
    describe_histogram!(ENCODE, Unit::Seconds, "Time in the encoder, per task.");
    describe_histogram!(VERIFY, Unit::Seconds, "Time spent checking, per output.");
    describe_histogram!(PUBLISH, Unit::Seconds, "Time spent sending and publishing, per output.");
    describe_counter!(SOURCE_BYTES, Unit::Bytes, "Bytes read from sources, by their kind.");
    describe_counter!(OUTPUT_BYTES, Unit::Bytes, "Bytes published.");
    describe_counter!(HTTP_REQUESTS, "Requests answered, by route, method and status.");
    describe_histogram!(HTTP_REQUEST, Unit::Seconds, "Time to the head of the answer, by route and method.");
    describe_gauge!(SSE_READERS, "Open event streams.");
    describe_counter!(WEBHOOKS, "Tries to deliver a webhook, by outcome.");
    describe_gauge!(WEBHOOKS_WAITING, "Webhooks that are to be delivered, now or at a later try.");
    describe_gauge!(WEBHOOKS_OLDEST, Unit::Seconds, "Age of the oldest webhook that waits; 0 with none.");
    describe_gauge!(BUILD_INFO, "Always 1; the version is a label.");
    describe_gauge!(PROCESS_MEMORY, Unit::Bytes, "Memory in use.");
    describe_counter!(PROCESS_CPU, Unit::Seconds, "Processor time in whole seconds, without children.");
    describe_gauge!(PROCESS_FDS, "Open file descriptors.");
    describe_gauge!(PROCESS_THREADS, "Threads.");

    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);
    counter!(JOBS_SUBMITTED).increment(0);
    for status in JobStatus::ALL.iter().filter(|status| is_final(**status)) {
        counter!(JOBS_FINISHED, "status" => status.as_str()).increment(0);
    }
    for outcome in RunOutcome::ALL {
        counter!(TASKS_FINISHED, "outcome" => outcome.as_str()).increment(0);
    }
    for code in Code::ALL {
        counter!(FAILURES, "code" => code.as_str()).increment(0);
    }
    for outcome in WebhookOutcome::ALL {
        counter!(WEBHOOKS, "outcome" => outcome.as_str()).increment(0);
    }
    counter!(OUTPUT_BYTES).increment(0);
    gauge!(SSE_READERS).set(0);
}

const fn is_final(status: JobStatus) -> bool {
    match status {
        JobStatus::Queued | JobStatus::Running => false,
        JobStatus::Completed | JobStatus::Failed | JobStatus::Cancelled => true,
    }
}

/// Depths of the queue, as counted by the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Queue {
    /// Could be taken now.
    pub ready: u64,
    /// Wait for a time.
    pub delayed: u64,
    /// Held by workers.
    pub running: u64,
    /// Age of the oldest ready one.
    pub oldest_ready: Duration,
}

/// Sets the queue's gauges.
pub fn queue(queue: Queue) {
    gauge!(QUEUE_READY).set(whole(queue.ready));
    gauge!(QUEUE_DELAYED).set(whole(queue.delayed));
    gauge!(QUEUE_RUNNING).set(whole(queue.running));
    gauge!(QUEUE_OLDEST_READY).set(queue.oldest_ready.as_secs_f64());
}

/// How a try to deliver a webhook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookOutcome {
    /// The receiver took it.
    Delivered,
    /// It is tried again.
    Failed,
    /// Its time was over.
    GivenUp,
    /// The receiver wants no more.
    Gone,
}

impl WebhookOutcome {
    const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::GivenUp, Self::Gone];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::GivenUp => "given_up",
            Self::Gone => "gone",
        }
    }
}

/// A try to deliver a webhook ended.
pub fn webhook_tried(outcome: WebhookOutcome) {
    counter!(WEBHOOKS, "outcome" => outcome.as_str()).increment(1);
}

/// Sets the outbox's gauges.
pub fn outbox(waiting: u64, oldest: Duration) {
    gauge!(WEBHOOKS_WAITING).set(whole(waiting));
    gauge!(WEBHOOKS_OLDEST).set(oldest.as_secs_f64());
}

/// A job was accepted.
pub fn job_submitted() {
    counter!(JOBS_SUBMITTED).increment(1);
}

/// A job ended, this long after its acceptance.
pub fn job_finished(status: JobStatus, took: Duration) {
    counter!(JOBS_FINISHED, "status" => status.as_str()).increment(1);
    histogram!(JOB_DURATION, "status" => status.as_str()).record(took.as_secs_f64());
}

/// A run of a task ended.
pub fn task_finished(outcome: RunOutcome) {
    counter!(TASKS_FINISHED, "outcome" => outcome.as_str()).increment(1);
}

/// A run failed.
pub fn failure(code: Code) {
    counter!(FAILURES, "code" => code.as_str()).increment(1);
}

/// The encoder of a task ran this long.
pub fn encoded(took: Duration) {
    histogram!(ENCODE).record(took.as_secs_f64());
}

/// Checking an output took this long.
pub fn verified(took: Duration) {
    histogram!(VERIFY).record(took.as_secs_f64());
}

/// Publishing an output of this size took this long.
pub fn published(took: Duration, bytes: u64) {
    histogram!(PUBLISH).record(took.as_secs_f64());
    counter!(OUTPUT_BYTES).increment(bytes);
}

/// Where bytes of a source came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// `http` or `https`.
    Http,
    /// `ftp` or `ftps`.
    Ftp,
    /// A folder, an upload or an inline source.
    Local,
    /// An object store.
    ObjectStore,
}

impl SourceKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Ftp => "ftp",
            Self::Local => "local",
            Self::ObjectStore => "object_store",
        }
    }
}

/// Bytes were read from a source.
pub fn source_read(kind: SourceKind, bytes: u64) {
    counter!(SOURCE_BYTES, "kind" => kind.as_str()).increment(bytes);
}

/// One request, answered.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The route's template (`/api/v1/jobs/{id}`), never the path.
    pub route: &'a str,
    /// Method.
    pub method: &'static str,
    /// Status.
    pub status: u16,
    /// Time to the head of the answer.
    pub took: Duration,
}

/// A request was answered.
pub fn request(request: Request<'_>) {
    let Request { route, method, status, took } = request;
    let labels = [("route", route.to_owned()), ("method", method.to_owned())];
    histogram!(HTTP_REQUEST, &labels).record(took.as_secs_f64());
    let [route, method] = labels;
    counter!(HTTP_REQUESTS, &[route, method, ("status", status.to_string())]).increment(1);
}

/// What a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// Waiting for a task.
    Free,
    /// Promised to a control.
    Reserved,
    /// Running a task.
    Busy,
}

impl SlotState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Reserved => "reserved",
            Self::Busy => "busy",
        }
    }
}

/// Sets the number of slots in a state.
pub fn worker_slots(state: SlotState, slots: usize) {
    gauge!(WORKER_SLOTS, "state" => state.as_str()).set(whole(u64::try_from(slots).unwrap_or(u64::MAX)));
}

/// Counts one more while it lives: no path can forget to count down.
#[derive(Debug)]
#[must_use = "the gauge goes down again when this is dropped"]
pub struct Counted {
    name: &'static str,
}

impl Counted {
    fn up(name: &'static str) -> Self {
        gauge!(name).increment(1);
        Self { name }
    }

    /// An open event stream.
    pub fn sse_reader() -> Self {
        Self::up(SSE_READERS)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        gauge!(self.name).decrement(1);
    }
}

fn record_process(reading: process::Reading) {
    let gauges =
        [(PROCESS_MEMORY, reading.resident), (PROCESS_FDS, reading.fds), (PROCESS_THREADS, reading.threads)];
    for (name, value) in gauges {
        if let Some(value) = value {
            gauge!(name).set(whole(value));
        }
    }
    if let Some(seconds) = reading.cpu_seconds {
        counter!(PROCESS_CPU).absolute(seconds);
    }
}

/// Prometheus has floats only; counts stay exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes of one process are far below 2^53")]
fn whole(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(work: impl FnOnce()) -> String {
        let (recorder, metrics) = local().unwrap();
        ::metrics::with_local_recorder(&recorder, || {
            describe();
            work();
            metrics.upkeep();
            metrics.render()
        })
    }

    #[test]
    fn every_name_is_described_once_something_happened() {
        let text = rendered(|| {
            queue(Queue { ready: 3, delayed: 1, running: 2, oldest_ready: Duration::from_millis(1500) });
            job_submitted();
            job_finished(JobStatus::Completed, Duration::from_secs(3));
            task_finished(RunOutcome::Done);
            failure(Code::DiskFull);
            worker_slots(SlotState::Free, 2);
            encoded(Duration::from_secs(1));
            verified(Duration::from_secs(1));
            published(Duration::from_secs(1), 10);
            source_read(SourceKind::Http, 7);
            webhook_tried(WebhookOutcome::Delivered);
            outbox(3, Duration::from_secs(2));
            request(Request {
                route: "/jobs/{id}",
                method: "GET",
                status: 200,
                took: Duration::from_millis(3),
            });
        });
        let names = [
            QUEUE_READY,
            QUEUE_DELAYED,
            QUEUE_RUNNING,
            QUEUE_OLDEST_READY,
            JOBS_SUBMITTED,
            JOBS_FINISHED,
            JOB_DURATION,
            TASKS_FINISHED,
            FAILURES,
            WORKER_SLOTS,
            ENCODE,
            VERIFY,
            PUBLISH,
            SOURCE_BYTES,
            OUTPUT_BYTES,
            HTTP_REQUESTS,
            HTTP_REQUEST,
            SSE_READERS,
            WEBHOOKS,
            WEBHOOKS_WAITING,
            WEBHOOKS_OLDEST,
            BUILD_INFO,
            PROCESS_MEMORY,
            PROCESS_CPU,
            PROCESS_FDS,
            PROCESS_THREADS,
        ];
        for name in names {
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no description in:\n{text}");
        }
        let described = text.lines().filter(|line| line.starts_with("# HELP ")).count();
        assert_eq!(described, names.len(), "a name is missing from this test");
        for line in [
            "flux_queue_ready 3",
            "flux_queue_oldest_ready_seconds 1.5",
            "flux_jobs_finished_total{status=\"completed\"} 1",
            "flux_jobs_finished_total{status=\"failed\"} 0",
            "flux_failures_total{code=\"disk_full\"} 1",
            "flux_worker_slots{state=\"free\"} 2",
            "flux_source_bytes_total{kind=\"http\"} 7",
            "flux_output_bytes_total 10",
            "flux_webhook_tries_total{outcome=\"delivered\"} 1",
            "flux_webhook_tries_total{outcome=\"gone\"} 0",
            "flux_webhooks_waiting 3",
            "flux_webhooks_oldest_waiting_seconds 2",
            "flux_http_requests_total{route=\"/jobs/{id}\",method=\"GET\",status=\"200\"} 1",
            "flux_http_request_seconds_bucket{route=\"/jobs/{id}\",method=\"GET\",le=\"0.005\"} 1",
            "flux_job_duration_seconds_bucket{status=\"completed\",le=\"5\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in:\n{text}");
        }
        assert!(!text.contains("status=\"queued\""), "{text}");
    }

    #[test]
    fn a_reader_is_counted_while_it_lives() {
        let text = rendered(|| {
            let one = Counted::sse_reader();
            drop(Counted::sse_reader());
            assert_eq!(one.name, SSE_READERS);
            std::mem::forget(one);
        });
        assert!(text.contains("flux_sse_readers 1\n"), "{text}");
    }
}

//! The public shapes of a job (DESIGN §6). Absent values are `null`, never left out; secrets never appear.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::PREFIX;
use crate::domain::{
    Access, Attempt, Bucket, Class, Code, CommandReport, Destination, Failure, JobId, JobStatus, MediaInfo,
    ObjectOptions, ObjectPath, OutputFile, OutputIndex, OutputRecord, OutputStatus, Phase, Progress,
    RenditionResult, RunOutcome, Source, StreamReport, TaskReport, Timestamp, WorkerId,
};
use crate::store::StoredJob;

/// Which spelling of the API asked: the versioned one, or the root aliases of the seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Canonical,
    /// Adds `uuid`, which the seed's clients read.
    Legacy,
}

/// The job resource.
#[derive(Debug, Serialize)]
pub(super) struct JobView<'a> {
    id: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<JobId>,
    /// Only in the answer to a submission.
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<JobId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_url: Option<String>,
    status: JobStatus,
    phase: Option<Phase>,
    progress: f64,
    eta_seconds: Option<f64>,
    queue_position: Option<u32>,
    cancel_requested: bool,
    priority: i16,
    labels: &'a BTreeMap<String, String>,
    metadata: &'a Map<String, Value>,
    source: Value,
    media: Option<MediaView<'a>>,
    outputs: Vec<OutputView<'a>>,
    attempts: Vec<AttemptView<'a>>,
    error: Option<ErrorView<'a>>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct MediaView<'a> {
    container: &'static str,
    size: u64,
    duration_seconds: Option<f64>,
    video: Option<VideoView<'a>>,
    audio: Vec<AudioView<'a>>,
}

#[derive(Debug, Serialize)]
struct VideoView<'a> {
    codec: &'a str,
    width: u32,
    height: u32,
    frame_rate: Option<f64>,
    variable_frame_rate: bool,
    bit_depth: u8,
    rotation: u16,
    hdr: bool,
}

#[derive(Debug, Serialize)]
struct AudioView<'a> {
    codec: &'a str,
    channels: u16,
    sample_rate: u32,
    language: Option<&'a str>,
}

/// Files of one output that are listed: lists and init segments come first, and the segments of a film are thousands.
const MAX_FILES: usize = 100;

#[derive(Debug, Serialize)]
struct OutputView<'a> {
    index: OutputIndex,
    preset: Option<&'a str>,
    status: OutputStatus,
    progress: f64,
    destination: Value,
    result: Option<ResultView<'a>>,
    error: Option<ErrorView<'a>>,
}

#[derive(Debug, Serialize)]
struct ResultView<'a> {
    url: String,
    files: &'a [OutputFile],
    file_count: usize,
    duration_seconds: f64,
    frames: Option<u64>,
    width: Option<u32>,
    height: Option<u32>,
    renditions: &'a [RenditionResult],
    streams: &'a [StreamReport],
    command: Option<&'a CommandReport>,
    tools: Option<&'a BTreeMap<String, String>>,
    warnings: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct AttemptView<'a> {
    number: usize,
    worker_id: &'a WorkerId,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
    outcome: Option<RunOutcome>,
    code: Option<Code>,
}

/// A failure as clients read it; the operator's detail stays behind.
#[derive(Debug, Serialize)]
pub(super) struct ErrorView<'a> {
    code: Code,
    class: Class,
    retryable: bool,
    message: &'a str,
    log: &'a [String],
}

/// Where a job's events are.
pub(super) fn stream_url(job: JobId) -> String {
    format!("{PREFIX}/jobs/{job}/stream")
}

/// Where a job is.
pub(super) fn job_url(job: JobId) -> String {
    format!("{PREFIX}/jobs/{job}")
}

/// Where a result is fetched: from this server, or where it was sent to, if this server cannot read it there.
pub(super) fn result_url(job: JobId, output: &OutputRecord) -> String {
    match &output.result {
        Some(result) if output.spec.destination.needs_request() => result.url.clone(),
        _ => content_url(job, output.index),
    }
}

/// Where an output's first file is.
pub(super) fn content_url(job: JobId, output: OutputIndex) -> String {
    format!("{PREFIX}/jobs/{job}/outputs/{output}/content")
}

impl<'a> JobView<'a> {
    /// The job with what is known of its run just now.
    pub(super) fn of(stored: &'a StoredJob, live: Option<&TaskReport>, dialect: Dialect) -> Self {
        let job = &stored.aggregate.job;
        let live = live.filter(|_| job.status == JobStatus::Running);
        let progress = progress(stored, live);
        Self {
            id: job.id,
            uuid: (dialect == Dialect::Legacy).then_some(job.id),
            job_id: None,
            stream_url: None,
            status: job.status,
            phase: live.map(|report| report.phase),
            progress: progress.percent(),
            eta_seconds: live.and_then(|report| finite(report.eta_seconds)),
            queue_position: stored.queue_position,
            cancel_requested: job.cancel_at.is_some(),
            priority: job.spec.priority,
            labels: &job.spec.labels,
            metadata: &job.spec.metadata,
            source: source(&job.spec.source),
            media: job.media.as_ref().map(media),
            outputs: stored
                .aggregate
                .outputs
                .iter()
                .map(|output| output_view(job.id, output, progress))
                .collect(),
            attempts: stored.attempts.iter().enumerate().map(attempt).collect(),
            error: job.failure.as_ref().map(ErrorView::of),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
        }
    }

    /// Without command lines: for lists, events and webhooks, where many jobs are shown, or one again and again.
    pub(super) fn brief(mut self) -> Self {
        for output in &mut self.outputs {
            if let Some(result) = &mut output.result {
                result.command = None;
            }
        }
        self
    }

    /// As the answer to a submission.
    pub(super) fn accepted(mut self) -> Self {
        self.job_id = Some(self.id);
        self.stream_url = Some(stream_url(self.id));
        self
    }
}

/// The high-water mark on record raised by the live report; a completed job is done whatever they say.
pub(super) fn progress(stored: &StoredJob, live: Option<&TaskReport>) -> Progress {
    let job = &stored.aggregate.job;
    match job.status {
        JobStatus::Completed => Progress::DONE,
        JobStatus::Queued | JobStatus::Running | JobStatus::Failed | JobStatus::Cancelled => {
            live.map_or(job.progress, |report| job.progress.raise(report.progress))
        }
    }
}

/// JSON has no NaN; a figure that is not one is unknown.
pub(super) fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite())
}

impl<'a> ErrorView<'a> {
    pub(super) fn of(failure: &'a Failure) -> Self {
        Self {
            code: failure.code,
            class: failure.code.class(),
            retryable: failure.retryable(),
            message: &failure.message,
            log: &failure.log,
        }
    }
}

fn output_view(job: JobId, output: &OutputRecord, of_job: Progress) -> OutputView<'_> {
    let progress = match output.status {
        OutputStatus::Completed => Progress::DONE,
        OutputStatus::Encoding | OutputStatus::Verifying | OutputStatus::Uploading => of_job,
        OutputStatus::Pending | OutputStatus::Failed | OutputStatus::Cancelled => Progress::ZERO,
    };
    let result = output.result.as_ref().map(|result| {
        let mut warnings: Vec<&str> = output.spec.warnings.iter().map(String::as_str).collect();
        warnings.extend(
            result
                .warnings
                .iter()
                .map(String::as_str)
                .filter(|w| !output.spec.warnings.iter().any(|s| s == w)),
        );
        let report = result.report.as_deref();
        ResultView {
            url: result_url(job, output),
            files: result.files.get(..MAX_FILES).unwrap_or(&result.files),
            file_count: result.files.len(),
            duration_seconds: result.duration_seconds,
            frames: result.frames,
            width: result.width,
            height: result.height,
            renditions: &result.renditions,
            streams: report.map_or(&[], |report| &report.streams),
            command: report.and_then(|report| report.command.as_ref()),
            tools: report.map(|report| &report.tools),
            warnings,
        }
    });
    OutputView {
        index: output.index,
        preset: output.spec.preset.as_ref().map(crate::domain::preset::PresetName::as_str),
        status: output.status,
        progress: progress.percent(),
        destination: destination(&output.spec.destination),
        result,
        error: output.failure.as_ref().map(ErrorView::of),
    }
}

fn attempt((index, attempt): (usize, &Attempt)) -> AttemptView<'_> {
    AttemptView {
        number: index + 1,
        worker_id: &attempt.worker,
        started_at: attempt.started_at,
        ended_at: attempt.ended_at,
        outcome: attempt.outcome,
        code: attempt.code,
    }
}

fn media(info: &MediaInfo) -> MediaView<'_> {
    MediaView {
        container: info.container.ffmpeg_name(),
        size: info.size,
        duration_seconds: finite(info.duration_seconds),
        video: info.main_video().map(|v| VideoView {
            codec: &v.codec,
            width: v.width,
            height: v.height,
            frame_rate: v.frame_rate.map(|rate| (rate.as_f64() * 1000.0).round() / 1000.0),
            variable_frame_rate: v.variable_rate,
            bit_depth: v.bit_depth,
            rotation: v.rotation.into(),
            hdr: v.color.is_hdr(),
        }),
        audio: info
            .audio
            .iter()
            .map(|a| AudioView {
                codec: &a.codec,
                channels: a.channels,
                sample_rate: a.sample_rate,
                language: a.language.as_deref(),
            })
            .collect(),
    }
}

/// The source without what was sealed (the stored form never had it).
pub(super) fn source(source: &Source) -> Value {
    match source {
        Source::Http { url } => json!({"kind": "http", "url": url}),
        Source::Ftp { url } => json!({"kind": "ftp", "url": url}),
        Source::Bucket { bucket: place, path, access } => bucket(place, path, access),
        Source::File { path } => json!({"kind": "file", "path": path}),
        Source::Inline { key: _, size } => json!({"kind": "inline", "size": size}),
        Source::Upload { id } => json!({"kind": "upload", "id": id}),
        Source::Storage { path } => json!({"kind": "storage", "path": path}),
    }
}

/// The destination as asked, with its path filled in.
pub(super) fn destination(destination: &Destination) -> Value {
    match destination {
        Destination::Storage { path, overwrite, metadata } => {
            json!({"kind": "storage", "path": path, "overwrite": overwrite, "metadata": metadata})
        }
        Destination::File { path, overwrite } => {
            json!({"kind": "file", "path": path, "overwrite": overwrite})
        }
        Destination::Bucket { bucket: place, path, access, overwrite, object } => {
            let mut shown = bucket(place, path, access);
            shown["overwrite"] = json!(overwrite);
            let ObjectOptions { acl, storage_class, content_type, cache_control, metadata } = object;
            shown["acl"] = json!(acl);
            shown["storage_class"] = json!(storage_class);
            shown["content_type"] = json!(content_type);
            shown["cache_control"] = json!(cache_control);
            shown["metadata"] = json!(metadata);
            shown
        }
        Destination::Http { url, method } => json!({"kind": "http", "url": url, "method": method}),
        Destination::Ftp { url, overwrite } => json!({"kind": "ftp", "url": url, "overwrite": overwrite}),
    }
}

/// A bucket as the request named it; of its credentials only that there were some.
fn bucket(bucket: &Bucket, path: &ObjectPath, access: &Access) -> Value {
    let mut shown = match bucket {
        Bucket::S3 { name, region, endpoint, path_style } => {
            json!({"kind": "s3", "bucket": name, "region": region, "endpoint": endpoint, "path_style": path_style})
        }
        Bucket::Gcs { name, endpoint } => json!({"kind": "gcs", "bucket": name, "endpoint": endpoint}),
        Bucket::Azure { account, container, endpoint } => {
            json!({"kind": "azure", "account": account, "container": container, "endpoint": endpoint})
        }
    };
    shown["path"] = json!(path);
    let (credentials, profile) = match access {
        Access::Unsaid => ("unsaid", None),
        Access::Anonymous => ("anonymous", None),
        Access::Request => ("request", None),
        Access::Profile { name } => ("profile", Some(name)),
    };
    shown["credentials"] = json!(credentials);
    shown["profile"] = json!(profile);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testkit::{report, stored};
    use crate::domain::Code;

    #[test]
    fn the_job_resource_while_it_runs() {
        let job = stored(JobStatus::Running);
        insta::assert_json_snapshot!(JobView::of(&job, Some(&report(417)), Dialect::Canonical).accepted());
    }

    #[test]
    fn the_job_resource_when_completed() {
        let job = stored(JobStatus::Completed);
        let json = serde_json::to_value(JobView::of(&job, Some(&report(10)), Dialect::Legacy)).unwrap();
        assert!(!json.to_string().contains("/srv/secret"), "host paths stay here");
        insta::assert_json_snapshot!(json);
    }

    #[test]
    fn errors_are_shown_without_the_operators_detail() {
        let mut job = stored(JobStatus::Failed);
        job.aggregate.job.failure = Some(
            Failure::new(Code::EncodeFailed, "the encoder failed")
                .with_detail("/host")
                .with_log(["x".into()]),
        );
        let json = serde_json::to_value(JobView::of(&job, None, Dialect::Canonical)).unwrap();
        assert!(!json.to_string().contains("/host"));
        insta::assert_json_snapshot!(json["error"]);
    }
}

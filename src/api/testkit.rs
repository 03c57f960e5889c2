//! Fixtures of this room's tests.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::domain::preset::Presets;
use crate::domain::{
    Aggregate, Attempt, Destination, Epoch, Event, EventKind, JobId, JobOptions, JobRecord, JobSpec,
    JobStatus, ObjectPath, OutputFile, OutputIndex, OutputRecord, OutputResult, OutputSpec, OutputStatus,
    Overwrite, Phase, Progress, RunId, RunNumber, RunOutcome, Source, TaskId, TaskReport, Tenant, Timestamp,
};
use crate::store::StoredJob;

/// The start of every test's time.
pub(super) const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// A running job with one output, two events and one attempt.
pub(super) fn stored(status: JobStatus) -> StoredJob {
    let encode = Presets::builtin()
        .get("720p_h264")
        .expect("a built-in preset")
        .clone();
    let output = OutputSpec {
        preset: Some("720p_h264".parse().expect("a name")),
        encode,
        destination: Destination::Storage {
            path: ObjectPath::parse("out/720p.mp4").expect("a path"),
            overwrite: Overwrite::Replace,
            metadata: BTreeMap::new(),
        },
        warnings: vec!["a field was ignored".into()],
    };
    let done = status == JobStatus::Completed;
    let result = OutputResult {
        url: "file:///srv/secret/root/out/720p.mp4".into(),
        files: vec![OutputFile {
            path: "out/720p.mp4".into(),
            size: 1000,
            sha256: "ab".repeat(32),
            content_type: "video/mp4".into(),
        }],
        duration_seconds: 30.03,
        frames: Some(900),
        width: Some(1280),
        height: Some(720),
        warnings: vec!["not_upscaled".into()],
    };
    let spec = JobSpec {
        source: Source::Http {
            url: "https://example.com/in.mp4?…".into(),
        },
        outputs: vec![output.clone()],
        priority: 0,
        labels: BTreeMap::new(),
        metadata: serde_json::Map::new(),
        notification_url: None,
        options: JobOptions::default(),
    };
    let job = JobRecord {
        id: JobId::from_uuid(Uuid::from_u128(1)),
        tenant: Tenant::local(),
        status,
        run: RunNumber(1),
        seq: 2,
        cancel_at: None,
        spec,
        media: None,
        progress: Progress::from_permille(400),
        failure: None,
        created_at: START,
        started_at: Some(START),
        finished_at: status.is_terminal().then_some(START),
    };
    let output = OutputRecord {
        index: OutputIndex(0),
        status: if done {
            OutputStatus::Completed
        } else {
            OutputStatus::Encoding
        },
        spec: output,
        result: done.then_some(result),
        failure: None,
        publication: None,
    };
    let attempt = Attempt {
        run: RunId::from_uuid(Uuid::from_u128(2)),
        task: TaskId::from_uuid(Uuid::from_u128(3)),
        epoch: Epoch(1),
        worker: "w1".parse().expect("a name"),
        started_at: START,
        ended_at: done.then_some(START),
        outcome: done.then_some(RunOutcome::Done),
        code: None,
        log: None,
    };
    StoredJob {
        aggregate: Aggregate {
            job,
            outputs: vec![output],
            tasks: vec![],
            publications: vec![],
        },
        attempts: vec![attempt],
        queue_position: None,
    }
}

/// A state event of a job's first run.
pub(super) fn event(seq: i64, status: JobStatus) -> Event {
    Event {
        seq,
        kind: EventKind::Status,
        at: START,
        status,
        run: RunNumber(1),
        output: None,
        output_status: None,
        message: String::new(),
    }
}

/// A live report.
pub(super) fn report(permille: u16) -> TaskReport {
    TaskReport {
        phase: Phase::Encoding,
        progress: Progress::from_permille(permille),
        fps: Some(25.0),
        speed: Some(1.5),
        eta_seconds: Some(12.3),
    }
}

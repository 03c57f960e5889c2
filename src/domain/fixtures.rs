//! Jobs as tests of every room need them: legal, small, and the same everywhere.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::preset::{Container, EncodeSpec};
use super::{
    Aggregate, Destination, Epoch, JobId, JobOptions, JobRecord, JobSpec, JobStatus, ObjectPath, OutputIndex,
    OutputRecord, OutputResult, OutputSpec, OutputStatus, Overwrite, Progress, RunNumber, Source, TaskClass,
    TaskId, TaskKind, TaskRecord, TaskState, Tenant, Timestamp,
};

/// A job from a file, with so many outputs.
pub(crate) fn spec(outputs: u16) -> JobSpec {
    JobSpec {
        source: Source::File { path: "in.mp4".into() },
        outputs: (0..outputs).map(output).collect(),
        priority: 0,
        labels: BTreeMap::new(),
        metadata: serde_json::Map::new(),
        notification_url: None,
        notification_events: Vec::new(),
        options: JobOptions::default(),
    }
}

/// A job that was accepted now and waits: its id is 1, that of its task 2.
pub(crate) fn queued(outputs: u16, now: Timestamp) -> Aggregate {
    let spec = spec(outputs);
    let record = |(n, spec): (u16, &OutputSpec)| OutputRecord {
        index: OutputIndex(n),
        status: OutputStatus::Pending,
        spec: spec.clone(),
        result: None,
        failure: None,
        publication: None,
    };
    Aggregate {
        outputs: (0..).zip(&spec.outputs).map(record).collect(),
        job: JobRecord {
            id: JobId::from_uuid(Uuid::from_u128(1)),
            tenant: Tenant::local(),
            status: JobStatus::Queued,
            run: RunNumber(1),
            seq: 1,
            cancel_at: None,
            spec,
            media: None,
            progress: Progress::ZERO,
            failure: None,
            created_at: now,
            started_at: None,
            finished_at: None,
        },
        tasks: vec![TaskRecord {
            id: TaskId::from_uuid(Uuid::from_u128(2)),
            job_run: RunNumber(1),
            kind: TaskKind::Transcode,
            state: TaskState::Ready,
            rank: 0,
            not_before: None,
            epoch: Epoch(0),
            hold: None,
            charged: 0,
            losses: 0,
            crashes: 0,
            class: TaskClass::default(),
        }],
        publications: Vec::new(),
    }
}

/// An output that goes to `{n}.mp4` of the storage.
pub(crate) fn output(n: u16) -> OutputSpec {
    OutputSpec {
        preset: None,
        encode: EncodeSpec {
            container: Container::Mp4,
            video: None,
            audio: None,
            ladder: Vec::new(),
            package: None,
            clip: None,
            stills: None,
            poster: false,
            captions: None,
        },
        destination: destination(n, Overwrite::Replace),
        warnings: Vec::new(),
    }
}

/// `{n}.mp4` of the storage.
pub(crate) fn destination(n: u16, overwrite: Overwrite) -> Destination {
    let path = ObjectPath::parse(format!("{n}.mp4")).expect("a legal path");
    Destination::Storage { path, overwrite, metadata: BTreeMap::new() }
}

/// What became of an output of one second.
pub(crate) fn result() -> OutputResult {
    OutputResult {
        url: "file:///out.mp4".into(),
        files: Vec::new(),
        duration_seconds: 1.0,
        frames: Some(25),
        width: None,
        height: None,
        renditions: Vec::new(),
        warnings: Vec::new(),
        report: None,
    }
}

//! Jobs as tests of every room need them: legal, small, and the same everywhere.

use std::collections::BTreeMap;

use super::preset::{Container, EncodeSpec};
use super::{Destination, JobOptions, JobSpec, ObjectPath, OutputResult, OutputSpec, Overwrite, Source};

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

/// An output that goes to `{n}.mp4` of the storage.
pub(crate) fn output(n: u16) -> OutputSpec {
    OutputSpec {
        preset: None,
        encode: EncodeSpec { container: Container::Mp4, video: None, audio: None },
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
        warnings: Vec::new(),
    }
}

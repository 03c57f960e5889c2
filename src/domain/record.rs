//! The durable record of a job: the rows of PROTOCOL §3 as types. Transitions over them live in `machine`.

use serde::{Deserialize, Serialize};

use super::{
    BootId, Epoch, Failure, JobId, JobSpec, MediaInfo, OutputIndex, OutputReport, OutputSpec, Progress,
    PublicationId, RunId, RunNumber, SessionId, TaskClass, TaskId, Tenant, Timestamp, WorkerId,
};

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal, $text:literal;)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {$($(#[$vdoc])* $variant,)*}

        impl $name {
            /// Every state.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The number in the store (PROTOCOL §3).
            #[must_use]
            pub const fn number(self) -> i64 { match self {$(Self::$variant => $number),*} }
            /// The state with this number.
            #[must_use]
            pub const fn from_number(number: i64) -> Option<Self> { match number {$($number => Some(Self::$variant),)* _ => None} }
            /// The name in the API.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self {$(Self::$variant => $text),*} }
        }
    )*};
}

states! {
    /// State of a job's current run.
    JobStatus {
        /// Waiting for a worker.
        Queued = 0, "queued";
        /// A worker accepted it.
        Running = 1, "running";
        /// All outputs are published.
        Completed = 2, "completed";
        /// An output failed for good.
        Failed = 3, "failed";
        /// Somebody cancelled it.
        Cancelled = 4, "cancelled";
    }
    /// State of an output.
    OutputStatus {
        /// Not begun.
        Pending = 0, "pending";
        /// In the encoder.
        Encoding = 1, "encoding";
        /// Being checked.
        Verifying = 2, "verifying";
        /// Being sent.
        Uploading = 3, "uploading";
        /// Published; stays so whatever becomes of the job.
        Completed = 4, "completed";
        /// Will not be published in this run.
        Failed = 5, "failed";
        /// Its job was cancelled first.
        Cancelled = 6, "cancelled";
    }
    /// State of a task.
    TaskState {
        /// Waits for other tasks (a gate).
        Blocked = 0, "blocked";
        /// Waits for a time (backoff).
        Delayed = 1, "delayed";
        /// May be claimed.
        Ready = 2, "ready";
        /// Claimed by a session for a worker.
        Running = 3, "running";
        /// Running, and a publication was permitted.
        Committing = 4, "committing";
        /// Ended well.
        Done = 5, "done";
        /// Ended badly.
        Failed = 6, "failed";
        /// No longer wanted.
        Cancelled = 7, "cancelled";
    }
    /// What a task does.
    TaskKind {
        /// A whole job in one go.
        Transcode = 0, "transcode";
    }
    /// How a run of a task ended.
    RunOutcome {
        /// Completed.
        Done = 0, "done";
        /// Failed with a failure code.
        Failed = 1, "failed";
        /// The worker died or fell silent.
        Lost = 2, "lost";
        /// Given back (drain, refusal); nothing charged.
        Released = 3, "released";
        /// Cancelled.
        Cancelled = 4, "cancelled";
    }
    /// State of a publishing handle.
    PublicationState {
        /// Permitted, not known to be visible.
        Open = 0, "open";
        /// Visible; the record of an output.
        Committed = 1, "committed";
        /// Destroyed: can never become visible.
        Dead = 2, "dead";
    }
    /// State of a webhook delivery.
    DeliveryState {
        /// It is tried now, or at its time.
        Waiting = 0, "waiting";
        /// The receiver took it.
        Delivered = 1, "delivered";
        /// Its time was over.
        GivenUp = 2, "given_up";
        /// The receiver wants no more (410).
        Gone = 3, "gone";
    }
    /// What a job event tells.
    EventKind {
        /// The job's status changed (or it was created).
        Status = 0, "status";
        /// An output's status changed.
        Output = 1, "output";
    }
}

impl JobStatus {
    /// Whether nothing follows within this run.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl OutputStatus {
    /// Whether nothing follows within this run.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl TaskState {
    /// Whether a worker holds it.
    #[must_use]
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Running | Self::Committing)
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// A job's row.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Its owner.
    pub tenant: Tenant,
    /// State of the current run.
    pub status: JobStatus,
    /// Current run number, from 1.
    pub run: RunNumber,
    /// Sequence number of the last event, from 1.
    pub seq: i64,
    /// When somebody asked to cancel.
    pub cancel_at: Option<Timestamp>,
    /// What was asked.
    pub spec: JobSpec,
    /// What the source turned out to be.
    pub media: Option<MediaInfo>,
    /// High-water mark of progress.
    pub progress: Progress,
    /// Why it failed (also kept while it waits for the next try).
    pub failure: Option<Failure>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When a worker first accepted it in this run.
    pub started_at: Option<Timestamp>,
    /// When this run became terminal.
    pub finished_at: Option<Timestamp>,
}

/// An output's row.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputRecord {
    /// Position in the job.
    pub index: OutputIndex,
    /// State.
    pub status: OutputStatus,
    /// What was asked.
    pub spec: OutputSpec,
    /// What was published.
    pub result: Option<OutputResult>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// The publication on record (set exactly when completed).
    pub publication: Option<PublicationId>,
}

/// What was published for an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputResult {
    /// Where it is, for people and tools (`file:///…`, `s3://…`).
    pub url: String,
    /// The files, the first being the one to open.
    pub files: Vec<OutputFile>,
    /// Measured span, seconds.
    pub duration_seconds: f64,
    /// Frames in the picture stream.
    pub frames: Option<u64>,
    /// Width of the picture, pixels.
    pub width: Option<u32>,
    /// Height of the picture, pixels.
    pub height: Option<u32>,
    /// The streams of a set; empty for a single file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renditions: Vec<RenditionResult>,
    /// What the client should know (`not_upscaled`, damage, ignored fields).
    #[serde(default)]
    pub warnings: Vec<String>,
    /// How it was made and what its streams are; none in records from before there were reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<OutputReport>>,
}

impl OutputResult {
    /// The files beside the first, by their paths from its folder; those of a set.
    #[must_use]
    pub fn others(&self) -> Vec<String> {
        let Some((entry, others)) = self.files.split_first() else { return Vec::new() };
        let folder = entry.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let within = |file: &OutputFile| {
            let path = file.path.strip_prefix(folder)?;
            Some(path.strip_prefix('/').unwrap_or(path).to_owned())
        };
        others.iter().filter_map(within).collect()
    }
}

/// One published file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Path at the destination.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// MIME type.
    pub content_type: String,
    /// What it is in a set; absent for a single file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<FileRole>,
}

/// What a file is in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileRole {
    /// The multivariant playlist of HLS.
    Master,
    /// A playlist of one rendition.
    Playlist,
    /// A playlist of key frames.
    IframePlaylist,
    /// The MPD of DASH.
    Manifest,
    /// What a decoder needs first.
    Init,
    /// Media: a segment, or a whole rendition.
    Segment,
    /// Subtitles: a segment, or all of them.
    Captions,
    /// A picture of the film, beside it.
    Poster,
    /// A list of stills (`WebVTT`).
    Thumbnails,
    /// One picture.
    Still,
    /// Many stills in one picture.
    Sprite,
}

impl FileRole {
    /// Whether it names other files.
    #[must_use]
    pub const fn is_list(self) -> bool {
        match self {
            Self::Master | Self::Playlist | Self::IframePlaylist | Self::Manifest | Self::Thumbnails => true,
            Self::Init | Self::Segment | Self::Captions | Self::Poster | Self::Still | Self::Sprite => false,
        }
    }
}

/// A stream of a set, as measured on its bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenditionResult {
    /// Its name in the ladder; `audio_0`, … for sound.
    pub name: String,
    /// As manifests name them (RFC 6381).
    pub codecs: String,
    /// Pixels.
    pub width: Option<u32>,
    /// Pixels.
    pub height: Option<u32>,
    /// Frames per second.
    pub frame_rate: Option<f64>,
    /// Bit/s over all segments.
    pub average_bandwidth: u64,
    /// Bit/s of the largest segment.
    pub peak_bandwidth: u64,
    /// How many.
    pub segments: u32,
}

/// A task's row.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// Its id.
    pub id: TaskId,
    /// The job's run it belongs to.
    pub job_run: RunNumber,
    /// What it does.
    pub kind: TaskKind,
    /// State.
    pub state: TaskState,
    /// What it needs of a worker.
    pub class: TaskClass,
    /// Order among ready tasks: `ready_at − priority × 60 s`, microseconds (PROTOCOL §1.16).
    pub rank: i64,
    /// Earliest claim, exactly when delayed.
    pub not_before: Option<Timestamp>,
    /// Number of claims so far.
    pub epoch: Epoch,
    /// The holder, exactly while held.
    pub hold: Option<Hold>,
    /// Failed runs that count against `queue.max_attempts`.
    pub charged: u32,
    /// Runs whose worker fell silent or was stopped with its control.
    pub losses: u32,
    /// Runs whose worker died while it ran nothing else.
    pub crashes: u32,
}

/// Who holds a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The fencing token.
    pub run: RunId,
    /// The control session.
    pub session: SessionId,
    /// The worker's name.
    pub worker: WorkerId,
    /// The worker's incarnation.
    pub boot: BootId,
}

/// One run of a task, as history.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The run.
    pub run: RunId,
    /// Its task.
    pub task: TaskId,
    /// Its order, from 1.
    pub epoch: Epoch,
    /// Where it ran.
    pub worker: WorkerId,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended (set exactly when it has).
    pub outcome: Option<RunOutcome>,
    /// Why, when it failed.
    pub code: Option<super::Code>,
    /// The tool's last lines, at most 16 KiB.
    pub log: Option<String>,
}

/// A publishing handle's row. `handle` is opaque here: the storage room reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Its id.
    pub id: PublicationId,
    /// Its output.
    pub output: OutputIndex,
    /// The run that made it.
    pub run: RunId,
    /// That run's order.
    pub epoch: Epoch,
    /// What the storage room needs to commit or destroy it, as JSON.
    pub handle: String,
    /// The [`OutputResult`] it will be once visible, as JSON.
    pub manifest: String,
    /// State.
    pub state: PublicationState,
}

/// One entry of a job's history, in `seq` order; what SSE replays and webhooks tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the job's history, from 1.
    pub seq: i64,
    /// What changed.
    pub kind: EventKind,
    /// When.
    pub at: Timestamp,
    /// The job's status after the change.
    pub status: JobStatus,
    /// The job's run number.
    pub run: RunNumber,
    /// The output, for [`EventKind::Output`].
    pub output: Option<OutputIndex>,
    /// The output's status, for [`EventKind::Output`].
    pub output_status: Option<OutputStatus>,
    /// One sentence for people.
    pub message: String,
}

/// Everything one transition may read and change: a job with its outputs, tasks and publications.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// The job.
    pub job: JobRecord,
    /// Its outputs, by index.
    pub outputs: Vec<OutputRecord>,
    /// Its tasks of the current run.
    pub tasks: Vec<TaskRecord>,
    /// Its publications of all runs.
    pub publications: Vec<Publication>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_from_before_there_were_reports_are_read() {
        let old = r#"{"url": "file:///a", "files": [], "duration_seconds": 1.0, "frames": 25, "width": 2, "height": 2}"#;
        let result: OutputResult = serde_json::from_str(old).unwrap();
        assert_eq!(result.report, None);
        assert!(!serde_json::to_string(&result).unwrap().contains("report"));
    }

    #[test]
    fn numbers_and_names_round_trip() {
        for s in JobStatus::ALL {
            assert_eq!(JobStatus::from_number(s.number()), Some(*s));
            assert_eq!(serde_json::to_string(s).unwrap(), format!("\"{}\"", s.as_str()));
        }
        for s in TaskState::ALL {
            assert_eq!(TaskState::from_number(s.number()), Some(*s));
        }
        assert_eq!(JobStatus::from_number(99), None);
    }
}

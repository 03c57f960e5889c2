//! The messages as domain types. Their conversions from and to the generated ones are in `convert`.

mod convert;

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use uuid::Uuid;

use crate::domain::{
    BootId, Company, Epoch, Failure, JobId, JobSecrets, JobSpec, MediaInfo, OutputIndex, OutputResult,
    OutputStatus, Publication, PublicationId, RunId, SessionId, TaskId, TaskReport, Tenant, WorkerId,
};

pub(super) use convert::{raw, uuid};

/// The protocol this build speaks. It grows when a worker and a control of different builds would misunderstand each
/// other; fields that may be absent do not count.
pub const PROTOCOL: u32 = 1;

/// A message that is not what the protocol says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field} is missing or not valid")]
pub struct InvalidMessage {
    /// The proto field.
    pub field: &'static str,
}

/// Begin a run, or take up one that should exist.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRequest {
    /// The task.
    pub task: TaskId,
    /// Its job.
    pub job: JobId,
    /// Fencing token.
    pub run: RunId,
    /// Order of the run.
    pub epoch: Epoch,
    /// The worker incarnation it is meant for.
    pub boot: BootId,
    /// The control session that holds the task.
    pub session: SessionId,
    /// Begin or take up.
    pub action: Action,
}

/// What a [`RunRequest`] asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Begin; a known run is attached to.
    Start(Box<Start>),
    /// Take up; unknown is `NOT_FOUND`.
    Attach,
}

/// All that a worker needs to begin.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// The slot that was granted.
    pub reservation: ReservationId,
    /// The owner, for the log.
    pub tenant: Tenant,
    /// How long the worker goes on without hearing from a control.
    pub ttl: Duration,
    /// Who else may run there meanwhile.
    pub company: Company,
    /// What to do.
    pub work: Transcode,
}

/// A slot granted for a few seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReservationId(pub Uuid);

/// A whole job in one go.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcode {
    /// What was asked.
    pub spec: JobSpec,
    /// What must not be stored or logged.
    pub secrets: JobSecrets,
    /// Outputs that an earlier run completed.
    pub completed: Vec<OutputIndex>,
    /// Open publications of earlier runs: destroy or adopt first.
    pub open: Vec<Publication>,
    /// Encode nothing, only resolve `open`.
    pub resolve_only: bool,
    /// Earlier runs that ended badly.
    pub earlier_failures: u32,
}

/// What a run tells, in order. `Accepted` comes first, one of the last three ends it.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEvent {
    /// The run exists on the worker.
    Accepted,
    /// Alive, at least every 5 s.
    Heartbeat {
        /// The worker's monotonic clock.
        monotonic: Duration,
        /// How far it is.
        report: TaskReport,
    },
    /// What the source is.
    Media(Box<MediaInfo>),
    /// An output moved on.
    OutputMoved(OutputIndex, OutputStatus),
    /// Verified and staged: asks for a permit.
    Ready(Publication),
    /// Visible: own publication or an adopted one.
    OutputDone {
        /// The output.
        output: OutputIndex,
        /// What is visible.
        publication: PublicationId,
        /// What it is.
        result: Box<OutputResult>,
    },
    /// Publications that can never become visible.
    Resolved(Vec<PublicationId>),
    /// Ended well.
    Finished,
    /// Ended badly.
    Failed(Box<RunFailure>),
    /// Given back; nothing is charged.
    Released(String),
    /// The source is with the control, and should be sent.
    NeedSource,
}

impl RunEvent {
    /// Whether nothing follows.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Finished | Self::Failed(_) | Self::Released(_))
    }
}

/// A source that a client gave to the control, on its way to a run.
pub enum Given {
    /// It is not there any more.
    Gone,
    /// Its bytes.
    Bytes {
        /// How many.
        size: u64,
        /// In chunks of at most 1 MiB. An error ends them; what came is worth nothing then.
        chunks: BoxStream<'static, std::io::Result<Bytes>>,
    },
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone => f.write_str("Gone"),
            Self::Bytes { size, .. } => write!(f, "{size} bytes"),
        }
    }
}

/// How a run ended badly.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFailure {
    /// Why.
    pub failure: Failure,
    /// Outputs with reasons of their own.
    pub outputs: Vec<(OutputIndex, Failure)>,
    /// Last lines of the tool's log, at most 16 KiB.
    pub log_tail: String,
}

/// The control's answer to [`RunEvent::Ready`].
#[derive(Debug, Clone, PartialEq)]
pub struct PermitGrant {
    /// The run.
    pub run: RunId,
    /// The output.
    pub output: OutputIndex,
    /// The publication asked for.
    pub publication: PublicationId,
    /// `None` = refused, the job is being cancelled.
    pub granted: Option<Permitted>,
}

/// A granted permit.
#[derive(Debug, Clone, PartialEq)]
pub struct Permitted {
    /// Destroy or adopt these before committing.
    pub lower: Vec<Publication>,
    /// How long it holds, counted from `echo` on the worker's monotonic clock.
    pub ttl: Duration,
    /// The worker's clock as of the last heartbeat before the permit was recorded.
    pub echo: Duration,
}

/// A worker's own account of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerReport {
    /// Its name.
    pub worker: WorkerId,
    /// Its incarnation.
    pub boot: BootId,
    /// Its build.
    pub version: String,
    /// Slots in all.
    pub slots: u32,
    /// Slots in use.
    pub busy: u32,
    /// Jobs it runs.
    pub jobs: Vec<JobId>,
    /// Whether it finishes and takes nothing more.
    pub draining: bool,
    /// Encoders it has proved.
    pub encoders: Vec<String>,
    /// ffmpeg's version.
    pub ffmpeg_version: String,
    /// Parts of the sandbox that are active.
    pub sandbox: Vec<String>,
    /// Bytes free where work folders live.
    pub disk_free: u64,
    /// The protocol it speaks.
    pub protocol: u32,
}

/// The answer to a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// The worker's incarnation.
    pub boot: BootId,
    /// One per granted slot.
    pub reservations: Vec<ReservationId>,
    /// Whether it takes nothing more.
    pub draining: bool,
}

/// Extends what a control holds on one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The session.
    pub session: SessionId,
    /// The runs it holds there.
    pub runs: Vec<RunId>,
    /// For how long.
    pub ttl: Duration,
    /// The worker's clock as of the last heartbeat before the session was confirmed.
    pub echo: Duration,
}

/// What a worker really runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// Its incarnation.
    pub boot: BootId,
    /// Its runs.
    pub runs: Vec<RunId>,
}

/// A worker makes itself known to a control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its name.
    pub worker: WorkerId,
    /// Its incarnation.
    pub boot: BootId,
    /// Where it is reached, `HOST:PORT`.
    pub address: String,
    /// Slots in all.
    pub slots: u32,
    /// Its build.
    pub version: String,
    /// The protocol it speaks.
    pub protocol: u32,
}

/// The answer to a [`Registration`] that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// When it should be said again.
    pub again: Duration,
}

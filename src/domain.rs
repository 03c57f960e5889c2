//! Pure types and transitions: what a job is and what may happen to it.
//!
//! Owns the vocabulary (job, output, task, run, publication, preset, media, failure) and the state machine.
//! Must not know: files, sockets, processes, async, the clock, randomness; those come in as arguments.
//! Invariant: a value of these types is always legal; illegal input is refused where it is parsed.
//! To add a state or a failure code, add the variant and follow the compiler: no `match` here has a `_` arm.

mod class;
mod failure;
mod fault;
#[cfg(test)]
pub(crate) mod fixtures;
mod ids;
pub mod limits;
pub mod machine;
mod measured;
mod media;
mod path;
mod place;
pub mod preset;
mod progress;
mod rational;
mod record;
mod remarks;
mod report;
mod sandbox;
mod secrets;
mod spec;
pub mod testing;
mod time;
pub mod uploads;
mod waste;
pub mod webhook;

pub use class::{Abilities, Company, Folder, TaskClass};
pub use failure::{Class, Code, Failure};
pub use fault::Fault;
pub use ids::{
    BootId, DeliveryId, Epoch, IdSource, InvalidId, JobId, OutputIndex, PublicationId, RunId, RunNumber,
    SessionId, SystemIds, TaskId, Tenant, UploadId, WorkerId,
};
pub use measured::{Area, ContentLight, Mastering, MasteringDisplay, Measured, Scan};
pub use media::{
    AudioStream, ColorRange, ColorSpace, Demuxer, FieldOrder, MediaInfo, OtherStream, Rotation,
    SubtitleStream, VideoStream,
};
pub use path::{InvalidPath, ObjectPath, PathTemplate, PathValues, beside};
pub use place::{Access, Acl, Bucket, HttpMethod, ObjectOptions};
pub use progress::{Phase, Progress, TaskReport};
pub use rational::{InvalidRational, Rational};
pub use record::{
    Aggregate, Attempt, DeliveryState, Event, EventKind, FileRole, Hold, JobRecord, JobStatus, OutputFile,
    OutputRecord, OutputResult, OutputStatus, Publication, PublicationState, RenditionResult, RunOutcome,
    TaskKind, TaskRecord, TaskState,
};
pub use remarks::Remark;
pub use report::{
    CommandReport, KindReport, LoudnessMode, LoudnessReport, MAX_COMMAND, OutputReport, PlannedAudio,
    PlannedVideo, StreamReport,
};
pub use sandbox::SandboxMode;
pub use secrets::{BucketAccess, Credentials, JobSecrets, OutputSecrets, Profile};
pub use spec::{Destination, JobOptions, JobSpec, OnDamage, OutputSpec, Overwrite, Source, VerifyLevel};
pub use time::{Clock, SystemClock, Timestamp};
pub use waste::{Results, Waste};

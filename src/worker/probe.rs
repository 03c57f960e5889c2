//! What a source is: the first steps of a job, and the same steps for somebody who only asks.
//!
//! A question has no job, no slot and no record. It is bounded by the number of questions at a time and by a deadline,
//! its folder and its processes go with the future that asks, so a client that hangs up ends it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::delivery::NAME;
use super::encoding::source_kind;
use super::publish::disk_failure;
use super::workspace::RunFolder;
use crate::domain::limits::SourceLimits;
use crate::domain::{Code, Failure, IdSource, JobSecrets, MediaInfo, Source};
use crate::media::structure::Facts;
use crate::media::{self, Input, RandomRead, Toolbox};
use crate::storage::{OpenSource, SourceInput, Sources};
use crate::telemetry::metrics;

/// Questions at a time: each may hold two short processes and what its source needs on disk.
const AT_ONCE: usize = 4;

/// Longest answer. The API gives a request a minute in all.
const DEADLINE: Duration = Duration::from_secs(45);

/// Reads the source for `media`, through the same cache that ffmpeg reads from.
struct Reader<'a>(&'a OpenSource);

#[async_trait]
impl RandomRead for Reader<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    async fn read_at(&self, offset: u64, len: usize) -> std::io::Result<Bytes> {
        self.0.read_at(offset, len).await.map_err(std::io::Error::other)
    }
}

/// Sniffs, checks the structure and probes.
pub(super) async fn look(
    toolbox: &Toolbox,
    source: &OpenSource,
    limits: &SourceLimits,
) -> Result<(MediaInfo, Facts), Failure> {
    let reader = Reader(source);
    let demuxer = media::sniff::sniff(&reader).await?;
    let facts = media::structure::check(&reader, demuxer).await?;
    tracing::debug!(target: "flux::media", "probe started");
    let info = media::probe::probe(toolbox, &input(source), demuxer, source.size(), limits).await?;
    tracing::debug!(target: "flux::media", "probe ended");
    Ok((info, facts))
}

/// What ffmpeg opens.
pub(super) fn input(source: &OpenSource) -> Input {
    match source.input() {
        SourceInput::File(path) => Input::File(path),
        SourceInput::Loopback { url } => Input::Loopback { url },
    }
}

/// What is asked about.
#[derive(Debug, Clone)]
pub enum Given {
    /// A source as a job has it.
    Source(Source, Box<JobSecrets>),
    /// The bytes themselves.
    Bytes(Bytes),
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Looked {
    /// What the source is.
    pub media: MediaInfo,
    /// Codec strings (RFC 6381) by stream index, of the streams where one can be told.
    pub codecs: BTreeMap<u32, String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many questions as are answered at a time are being answered.
    #[error("{AT_ONCE} sources are being probed already")]
    Full,
    /// The failure that a job of this source would have.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What answering needs.
pub struct ProberParts {
    /// Where sources come from.
    pub sources: Sources,
    /// ffprobe and the thread that starts it.
    pub toolbox: Toolbox,
    /// Fresh ids.
    pub ids: Arc<dyn IdSource>,
    /// What a source may be.
    pub limits: SourceLimits,
    /// An absolute folder of this process: each question has one of its own below it.
    pub folder: PathBuf,
}

/// Answers what sources are. Cheap to clone.
#[derive(Clone)]
pub struct Prober(Arc<Inner>);

struct Inner {
    parts: ProberParts,
    seats: Semaphore,
}

impl Prober {
    /// One that answers four questions at a time.
    #[must_use]
    pub fn new(parts: ProberParts) -> Self {
        Self(Arc::new(Inner { parts, seats: Semaphore::new(AT_ONCE) }))
    }

    /// Opens the source and looks. Dropping the future ends everything that was begun for it.
    ///
    /// # Errors
    /// [`Refused::Full`] at once where too many ask; else what a job of the source would fail with before its encode,
    /// `encode_timeout` after 45 s.
    pub async fn probe(&self, given: Given) -> Result<Looked, Refused> {
        let _seat = self.0.seats.try_acquire().map_err(|_| Refused::Full)?;
        let late = |_| {
            let late = format!("What the source is was not known after {} s.", DEADLINE.as_secs());
            Failure::new(Code::EncodeTimeout, late)
        };
        Ok(tokio::time::timeout(DEADLINE, self.answer(given)).await.map_err(late)??)
    }

    async fn answer(&self, given: Given) -> Result<Looked, Failure> {
        let ProberParts { sources, ids, folder, .. } = &self.0.parts;
        let folder = RunFolder::apart(folder, ids.random()).map_err(|error| disk_failure(&error))?;
        let (source, kind) = match given {
            Given::Source(source, secrets) => {
                (sources.open(&source, &secrets, folder.path(), &**ids).await?, source_kind(&source))
            }
            Given::Bytes(bytes) => {
                let written = tokio::fs::write(folder.path().join(NAME), bytes).await;
                written.map_err(|error| kept(&error))?;
                (sources.open_given(folder.path(), NAME, &**ids).await?, metrics::SourceKind::Local)
            }
        };
        let looked = tokio::select! {
            // A definite verdict on the source outranks whatever ffprobe makes of a stream that stands still.
            biased;
            failure = source.failed() => Err(failure),
            looked = self.looked(&source) => looked,
        };
        metrics::source_read(kind, source.traffic().fetched);
        source.verdict().await?;
        looked
    }

    async fn looked(&self, source: &OpenSource) -> Result<Looked, Failure> {
        let ProberParts { toolbox, limits, .. } = &self.0.parts;
        let (media, _) = look(toolbox, source, limits).await?;
        let codecs = media::probe::codecs(toolbox, &input(source), media.container, limits).await;
        Ok(Looked { media, codecs })
    }
}

fn kept(error: &std::io::Error) -> Failure {
    let full = error.kind() == std::io::ErrorKind::StorageFull;
    let code = if full { Code::DiskFull } else { Code::Internal };
    Failure::new(code, "The source could not be kept on the worker.").with_detail(error.to_string())
}

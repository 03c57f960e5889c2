//! From a source to the files that ffmpeg made of it: open, probe, plan, encode.

use std::time::Duration;

use super::delivery;
use super::disk::Ever;
use super::probe;
use super::processes::{Made, Processes, threads};
use super::progress::{Figures, Step};
use super::run::{Ended, StopReason};
use super::service::RunContext;
use super::stills;
use super::transcode::{Failed, stoppable, stopped_or};
use super::workspace::RunFolder;
use crate::domain::preset::EncodeSpec;
use crate::domain::{Code, Failure, MediaInfo, OutputIndex, OutputSpec, OutputStatus, Source};
use crate::media::argv::{self, Reading};
use crate::media::plan::{Policy, StillsPlan};
use crate::media::structure::Facts;
use crate::media::{self, Input};
use crate::rpc::wire::{RunEvent, Transcode};
use crate::storage::OpenSource;
use crate::telemetry::metrics::{self, SourceKind};

/// How long a run that found its source waits in its slot for room on the disk. It goes back to the queue uncharged, so
/// this is also the pace at which it comes again.
const ROOM_PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks meanwhile.
const ROOM_LOOK: Duration = Duration::from_secs(2);

/// What the encoder left in the work folder, and what it was made from.
pub(super) struct Encoded {
    pub(super) media: MediaInfo,
    pub(super) facts: Facts,
    /// What each process made.
    pub(super) made: Vec<Made>,
    /// What was made without any of them.
    pub(super) stills: Vec<stills::Made>,
    /// Outputs of which nothing was made.
    pub(super) failed: Failed,
}

pub(super) async fn encode(
    context: &RunContext,
    folder: &RunFolder,
    work: &Transcode,
    wanted: &[(OutputIndex, &OutputSpec)],
) -> Result<Encoded, Ended> {
    context.log.report(&Step::Fetching.report(Figures::default()));
    let source = stoppable(context, open(context, folder, work)).await?;
    let encoded = tokio::select! {
        // A definite verdict on the source outranks whatever ffmpeg makes of a stream that stands still.
        biased;
        failure = source.failed() => Err(failure.into()),
        encoded = encode_from(context, folder, work, wanted, &source) => encoded,
    };
    // Read or not, the bytes were moved: the operator pays for them.
    metrics::source_read(source_kind(&work.spec.source), source.traffic().fetched);
    // What became of the source explains what became of the encode, and not the other way round.
    match (encoded, source.verdict().await) {
        (Err(Ended::Stopped), _) => Err(Ended::Stopped),
        (_, Err(failure)) => Err(failure.into()),
        (encoded, Ok(())) => encoded,
    }
}

/// Opens the source where it is; one that a client gave to a control on another machine is sent from there first.
async fn open(context: &RunContext, folder: &RunFolder, work: &Transcode) -> Result<OpenSource, Failure> {
    let (sources, ids) = (&context.worker.deps.sources, &*context.worker.deps.ids);
    let (source, secrets) = (&work.spec.source, &work.secrets);
    match sources.open(source, secrets, folder.path(), ids).await {
        Err(failure) if failure.code == Code::SourceNotFound && source.is_given() => {
            let ask = || context.log.tell(RunEvent::NeedSource);
            context.delivery.await_in(folder.path(), ask).await?;
            sources.open_given(folder.path(), delivery::NAME, ids).await
        }
        opened => opened,
    }
}

async fn encode_from(
    context: &RunContext,
    folder: &RunFolder,
    work: &Transcode,
    wanted: &[(OutputIndex, &OutputSpec)],
    source: &OpenSource,
) -> Result<Encoded, Ended> {
    let limits = &context.worker.settings.limits;
    context.log.report(&Step::Probing.report(Figures::default()));
    let (media, facts) =
        stoppable(context, probe::look(&context.worker.deps.toolbox, source, &limits.source)).await?;
    let input = probe::input(source);
    let bounds = argv::Limits::new(&limits.source, threads(context));
    let reading = Reading { input: &input, demuxer: media.container, limits: &bounds };
    let media = look(context, &reading, media, wanted).await?;
    context.log.tell(RunEvent::Media(Box::new(media.clone())));

    let films = wanted.iter().filter(|(_, output)| output.encode.stills.is_none());
    let specs: Vec<(OutputIndex, EncodeSpec)> =
        films.map(|(index, output)| (*index, output.encode.clone())).collect();
    let policy = Policy { max_seconds: limits.source.max_duration.as_secs_f64(), ..Policy::default() };
    let (plans, mut refused) = media::plan::processes(&media, &specs, &policy);
    let stills = stills::plan_all(&media, wanted, &mut refused);
    for (index, _) in wanted.iter().filter(|(index, _)| refused.iter().all(|(other, _)| other != index)) {
        context.log.tell(RunEvent::OutputMoved(*index, OutputStatus::Encoding));
    }
    let cache = if matches!(input, Input::File(_)) { 0 } else { source.cached_at_most() };
    let outputs: u64 = plans.iter().map(|plan| plan.expected_bytes(source.size())).sum();
    let pictures = stills.iter().map(StillsPlan::expected_bytes).fold(0, u64::saturating_add);
    room(context, cache.saturating_add(outputs).saturating_add(pictures)).await?;
    let processes = Processes {
        context,
        work: folder.path(),
        source,
        reading,
        media: &media,
        policy,
        total: work.spec.options.timeout_seconds.map_or(limits.timeout, Duration::from_secs),
    };
    let (made, failed) = processes.run(plans, &specs, refused).await?;
    let input = probe::input(source);
    let stills = stills::make_all(context, folder, stills, &Reading { input: &input, ..reading }).await?;
    match failed.first() {
        Some((_, first)) if made.is_empty() && stills.is_empty() => {
            Err(Ended::Failed { failure: first.clone(), outputs: failed })
        }
        _ => Ok(Encoded { media, facts, made, stills, failed }),
    }
}

/// Measures what outputs need to know of the picture.
async fn look(
    context: &RunContext,
    reading: &Reading<'_>,
    media: MediaInfo,
    wanted: &[(OutputIndex, &OutputSpec)],
) -> Result<MediaInfo, Ended> {
    let toolbox = &context.worker.deps.toolbox;
    let outputs: Vec<&EncodeSpec> = wanted.iter().map(|(_, output)| &output.encode).collect();
    let looking = media::analyze::measure(toolbox, reading, media, &outputs, context.stop.token());
    looking.await.map_err(|failure| stopped_or(context, failure))
}

/// Waits until the disk has room for what will be written; gives the run back where that takes too long.
async fn room(context: &RunContext, need: u64) -> Result<(), Ended> {
    let until = tokio::time::Instant::now() + ROOM_PATIENCE;
    loop {
        // Before the look: who frees room after it must be heard.
        let freed = context.share.disk().freed();
        let Err(short) = context.share.grow(need) else { return Ok(()) };
        let (needs, free) = (short.need, short.free);
        if short.ever == Ever::Never {
            let said =
                format!("The job needs {needs} bytes of disk, more than the worker's disk has in all.");
            return Err(Failure::new(Code::DiskFull, said).into());
        }
        tracing::info!(needs, free, "waiting for room on the disk");
        tokio::select! {
            biased;
            () = context.stop.token().cancelled() => return Err(Ended::Stopped),
            () = tokio::time::sleep_until(until) => {
                tracing::warn!(needs, free, "the disk has no room for this run; giving it back");
                context.stop.request(StopReason::NoRoom);
                return Err(Ended::Stopped);
            }
            () = freed => {}
            // Others than runs free room too, and runs write less than they said.
            () = tokio::time::sleep(ROOM_LOOK) => {}
        }
    }
}

pub(super) const fn source_kind(source: &Source) -> SourceKind {
    match source {
        Source::Http { .. } => SourceKind::Http,
        Source::Ftp { .. } => SourceKind::Ftp,
        // A folder is read in place and moves nothing; what is counted came from an object store.
        Source::Storage { .. } | Source::Bucket { .. } => SourceKind::ObjectStore,
        Source::File { .. } | Source::Inline { .. } | Source::Upload { .. } => SourceKind::Local,
    }
}

//! A whole job in one go: open, probe, plan, encode, verify, publish.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use super::account::Account;
use super::delivery;
use super::disk::Ever;
use super::packaging::{self, Packing};
use super::probe;
use super::progress::{Figures, Step};
use super::publish::{self, Publishing};
use super::run::{Ended, StopReason};
use super::service::RunContext;
use super::workspace::RunFolder;
use crate::domain::limits::SourceLimits;
use crate::domain::preset::EncodeSpec;
use crate::domain::{
    Code, Epoch, Failure, JobId, LoudnessReport, MediaInfo, OutputFile, OutputIndex, OutputResult,
    OutputSpec, OutputStatus, PublicationId, Source, TaskReport, VerifyLevel,
};
use crate::media::argv::{self, Gains, Reading};
use crate::media::encode::{EncodeLimits, EncodeReport, EncodeRequest, Tick};
use crate::media::plan::{EncodePlan, MeasuredLoudness, OutputPlan, Policy};
use crate::media::structure::Facts;
use crate::media::verify::{Verified, VerifyRequest};
use crate::media::{self, Input};
use crate::rpc::wire::{RunEvent, Transcode};
use crate::storage::OpenSource;
use crate::telemetry::metrics::{self, SourceKind};

/// How long a run that found its source waits in its slot for room on the disk. It goes back to the queue uncharged, so
/// this is also the pace at which it comes again.
const ROOM_PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks meanwhile.
const ROOM_LOOK: Duration = Duration::from_secs(2);

/// Bounds of a run.
#[derive(Debug, Clone)]
pub struct Limits {
    /// What a source may be.
    pub source: SourceLimits,
    /// How closely outputs are checked when the job does not say.
    pub verify: VerifyLevel,
    /// Time without any progress of the encoder.
    pub stall: Duration,
    /// Wall time of one encode when the job does not say.
    pub timeout: Duration,
}

/// Does the whole task. Facts go to the log as they become true.
pub(super) async fn transcode(
    mut context: RunContext,
    job: JobId,
    epoch: Epoch,
    work: Transcode,
) -> Result<(), Ended> {
    let mut done = work.completed.clone();
    done.extend(publish::settle(&context, &work.secrets, &work.open).await?);
    let wanted: Vec<(OutputIndex, &OutputSpec)> = (0..).map(OutputIndex).zip(&work.spec.outputs).collect();
    let wanted: Vec<_> = wanted.into_iter().filter(|(index, _)| !done.contains(index)).collect();
    if work.resolve_only || wanted.is_empty() {
        return Ok(());
    }
    publish::refuse_taken(&context, &work.secrets, &wanted).await?;
    let folder = context.worker.deps.root.run(context.run).map_err(|e| publish::disk_failure(&e))?;
    let encoded = encode(&context, &folder, &work, &wanted).await?;
    finish(&mut context, &folder, Finishing { job, epoch, work: &work, wanted: &wanted, encoded }).await
}

/// What the encoder left in the work folder, and what it was made from.
struct Encoded {
    media: MediaInfo,
    facts: Facts,
    plan: EncodePlan,
    report: EncodeReport,
    account: Account,
}

async fn encode(
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
    let (toolbox, limits) = (&context.worker.deps.toolbox, &context.worker.settings.limits);
    context.log.report(&Step::Probing.report(Figures::default()));
    let (media, facts) = stoppable(context, probe::look(toolbox, source, &limits.source)).await?;
    let input = probe::input(source);
    let bounds = argv::Limits::new(&limits.source, threads(context));
    let reading = Reading { input: &input, demuxer: media.container, limits: &bounds };
    let media = look(context, &reading, media, wanted).await?;
    context.log.tell(RunEvent::Media(Box::new(media.clone())));

    let specs: Vec<(OutputIndex, EncodeSpec)> =
        wanted.iter().map(|(index, output)| (*index, output.encode.clone())).collect();
    let policy = Policy { max_seconds: limits.source.max_duration.as_secs_f64(), ..Policy::default() };
    let plan = media::plan::plan(&media, &specs, &policy).map_err(|(index, failure)| Ended::Failed {
        failure: failure.clone(),
        outputs: vec![(index, failure)],
    })?;
    for (index, _) in wanted {
        context.log.tell(RunEvent::OutputMoved(*index, OutputStatus::Encoding));
    }
    let cache = if matches!(input, Input::File(_)) { 0 } else { source.cached_at_most() };
    room(context, cache.saturating_add(plan.expected_bytes(source.size()))).await?;
    let (gains, notes, loudness) = loudness(context, &plan, &reading).await?;
    // From here on ffmpeg reads from front to end: what it has not asked for yet is fetched meanwhile.
    source.fill_to_end();
    let argv = argv::encode(&plan, &reading, &gains);
    let request = EncodeRequest {
        plan: &plan,
        argv: argv.clone(),
        input: &input,
        work: folder.path(),
        limits: EncodeLimits {
            stall: limits.stall,
            total: work.spec.options.timeout_seconds.map_or(limits.timeout, Duration::from_secs),
            ..EncodeLimits::default()
        },
    };
    let mut on_tick = |tick: Tick| context.log.report(&encoding(&tick, plan.expected_seconds));
    let report = media::encode::encode(toolbox, request, &mut on_tick, context.stop.token()).await;
    let report = report.map_err(|failure| stopped_or(context, failure))?;
    metrics::encoded(report.took);
    let plan = with_notes(plan, notes);
    let account = Account { argv, tools: tools(context, &report), loudness };
    Ok(Encoded { media, facts, plan, report, account })
}

/// Versions of what encoded, as far as they are known.
fn tools(context: &RunContext, report: &EncodeReport) -> BTreeMap<String, String> {
    let ffmpeg = context.worker.deps.capabilities.borrow().as_ref().map(|known| known.version.clone());
    let mut tools = report.encoders.clone();
    tools.extend(ffmpeg.map(|version| ("ffmpeg".to_owned(), version)));
    tools
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

/// The live report for one tick of the encoder.
fn encoding(tick: &Tick, expected: Option<f64>) -> TaskReport {
    let share = expected.zip(tick.out_seconds).map_or(0.0, |(all, at)| at / all);
    let left = expected.zip(tick.out_seconds).map(|(all, at)| (all - at).max(0.0));
    let eta_seconds = left.zip(tick.speed).and_then(|(left, speed)| (speed > 0.0).then(|| left / speed));
    Step::Encoding(share).report(Figures { fps: tick.fps, speed: tick.speed, eta_seconds })
}

/// Measures what has a loudness target; the gains, what the client should know, and what was found by file.
async fn loudness(
    context: &RunContext,
    plan: &EncodePlan,
    reading: &Reading<'_>,
) -> Result<(Gains, Vec<(usize, String)>, BTreeMap<String, LoudnessReport>), Ended> {
    let (mut gains, mut notes, mut found) = (Gains::new(), Vec::new(), BTreeMap::new());
    for (audio, places) in plan.loudness_passes() {
        let measuring = media::encode::measure_loudness(
            &context.worker.deps.toolbox,
            (argv::loudness(audio, reading), reading.input),
            context.worker.settings.limits.timeout,
            context.stop.token(),
        );
        let measured = measuring.await.map_err(|failure| stopped_or(context, failure))?;
        let measured = MeasuredLoudness {
            integrated: measured.integrated,
            true_peak: measured.true_peak,
            seconds: plan.expected_seconds.unwrap_or(f64::MAX),
        };
        let Some(target) = audio.loudness else { continue };
        let chosen = media::plan::gain(target, measured);
        let report = LoudnessReport::of(measured.integrated, measured.true_peak, chosen);
        let files = places.iter().filter_map(|place| plan.outputs.get(*place));
        found.extend(files.map(|output| (output.file_name.clone(), report)));
        let Some((gain, limited)) = chosen else { continue };
        for place in places {
            gains.insert(place, gain);
            if limited {
                notes.push((place, format!("peak_limited: reached {:.1} LUFS", measured.integrated + gain)));
            }
        }
    }
    Ok((gains, notes, found))
}

fn with_notes(mut plan: EncodePlan, notes: Vec<(usize, String)>) -> EncodePlan {
    for (place, note) in notes {
        if let Some(output) = plan.outputs.get_mut(place) {
            output.warnings.push(note);
        }
    }
    plan
}

/// Everything after the encoder.
struct Finishing<'a> {
    job: JobId,
    epoch: Epoch,
    work: &'a Transcode,
    wanted: &'a [(OutputIndex, &'a OutputSpec)],
    encoded: Encoded,
}

/// Outputs that will not be published, with why.
type Failed = Vec<(OutputIndex, Failure)>;

async fn finish(context: &mut RunContext, folder: &RunFolder, finishing: Finishing<'_>) -> Result<(), Ended> {
    let Finishing { job, epoch, work, wanted, encoded } = finishing;
    let check = Checking { seed: seed(job, epoch), work, wanted, encoded: &encoded };
    let (verified, mut failed) = checked(context, folder, &check).await?;
    let ready = ready(context, folder, &check, (epoch, &verified), &mut failed).await?;
    // From here on bytes are sent, not computed: the next task may have the CPU.
    context.worker.vacate(context.run);
    let worker = std::sync::Arc::clone(&context.worker);
    let sending = context.stop.token().run_until_cancelled(worker.sends.acquire()).await;
    let _sending = sending.and_then(Result::ok).ok_or(Ended::Stopped)?;
    let count = ready.len();
    for (n, publishing) in ready.into_iter().enumerate() {
        let output = publishing.output;
        context.log.report(&Step::Uploading(ratio(n, count)).report(Figures::default()));
        context.log.tell(RunEvent::OutputMoved(output, OutputStatus::Uploading));
        let bytes = publishing.result.files.iter().map(|file| file.size).sum();
        let begun = tokio::time::Instant::now();
        match publish::publish(context, folder, &work.secrets, publishing).await {
            Ok(()) => metrics::published(begun.elapsed(), bytes),
            Err(Ended::Stopped) => return Err(Ended::Stopped),
            Err(Ended::Failed { failure, .. }) => failed.push((output, failure)),
        }
    }
    context.log.report(&Step::Uploading(1.0).report(Figures::default()));
    match failed.first() {
        None => Ok(()),
        Some((_, first)) => Err(Ended::Failed { failure: first.clone(), outputs: failed }),
    }
}

/// What is checked, and how.
struct Checking<'a> {
    /// Chooses what is decoded.
    seed: u64,
    work: &'a Transcode,
    wanted: &'a [(OutputIndex, &'a OutputSpec)],
    encoded: &'a Encoded,
}

/// Checks every file that the encoder wrote. One rendition that fails is one failure of its output.
async fn checked<'a>(
    context: &RunContext,
    folder: &RunFolder,
    checking: &Checking<'a>,
) -> Result<(Vec<(&'a OutputPlan, Verified)>, Failed), Ended> {
    let Checking { seed, work, wanted, encoded } = *checking;
    let level = match (work.earlier_failures, work.spec.options.verify) {
        (_, Some(level)) => level,
        (0, None) => context.worker.settings.limits.verify,
        // MEDIA-RULES §1.4: after a failed try nothing is taken on trust.
        (1.., None) => VerifyLevel::Full,
    };
    let count = encoded.plan.outputs.len();
    let (mut verified, mut failed) = (Vec::new(), Failed::new());
    for (n, output) in encoded.plan.outputs.iter().enumerate() {
        context.log.report(&Step::Verifying(ratio(n, count)).report(Figures::default()));
        context.log.tell(RunEvent::OutputMoved(output.index, OutputStatus::Verifying));
        let spec = wanted.iter().find(|(index, _)| *index == output.index).map(|(_, spec)| spec);
        let kept = spec.is_some_and(|spec| context.worker.deps.destinations.keeps_files(&spec.destination));
        if kept && output.rendition.is_none() {
            begin_flush(folder.path().join(&output.file_name));
        }
        let check = VerifyRequest {
            plan: &encoded.plan,
            place: n,
            report: &encoded.report,
            source: &encoded.media,
            facts: &encoded.facts,
            work: folder.path(),
            level,
            seed,
            on_damage: work.spec.options.on_damage,
            time: context.worker.settings.limits.timeout,
        };
        let begun = tokio::time::Instant::now();
        let checking = media::verify::verify(&context.worker.deps.toolbox, check, context.stop.token());
        match checking.await.map_err(|failure| stopped_or(context, failure)) {
            Ok(result) => verified.push((output, result)),
            Err(Ended::Stopped) => return Err(Ended::Stopped),
            Err(Ended::Failed { failure, .. }) if failed.last().is_none_or(|(at, _)| *at != output.index) => {
                failed.push((output.index, failure));
            }
            Err(Ended::Failed { .. }) => {}
        }
        metrics::verified(begun.elapsed());
    }
    Ok((verified, failed))
}

/// What can be published: files as they are, sets once they are cut.
async fn ready<'a>(
    context: &RunContext,
    folder: &RunFolder,
    checking: &Checking<'a>,
    (epoch, verified): (Epoch, &[(&'a OutputPlan, Verified)]),
    failed: &mut Failed,
) -> Result<Vec<Publishing<'a>>, Ended> {
    let mut ready = Vec::new();
    for (index, spec) in checking.wanted {
        let files: Vec<_> = verified.iter().filter(|(output, _)| output.index == *index).collect();
        let Some(first) = files.first().filter(|_| failed.iter().all(|(failed, _)| failed != index)) else {
            continue;
        };
        let report = checking.encoded.account.report(&files);
        let (id, destination) =
            (PublicationId::from_uuid(context.worker.deps.ids.random()), &spec.destination);
        let made = match &spec.encode.package {
            None => Ok(single(folder, spec, first)),
            Some(package) => {
                let packing = Packing {
                    publication: id,
                    package,
                    destination,
                    work: folder.path().to_owned(),
                    renditions: files.into_iter().map(|(plan, found)| (*plan, found)).collect(),
                    warnings: spec.warnings.clone(),
                };
                let packed = stoppable(context, packaging::pack(packing)).await;
                packed.map(|packed| (publish::Files::Set(packed.files), packed.result))
            }
        };
        match made {
            Ok((files, result)) => {
                let result = OutputResult { report: Some(Box::new(report)), ..result };
                let secrets = checking.work.secrets.output(*index);
                ready.push(Publishing { id, output: *index, epoch, destination, secrets, files, result });
            }
            Err(Ended::Stopped) => return Err(Ended::Stopped),
            Err(Ended::Failed { failure, .. }) => failed.push((*index, failure)),
        }
    }
    Ok(ready)
}

/// Begins to write a file out beside its checks. Publishing syncs it again, and then finds little left to wait for.
fn begin_flush(path: PathBuf) {
    let flush = move || std::fs::File::open(path).and_then(|file| file.sync_data());
    drop(tokio::task::spawn_blocking(flush));
}

/// An output that is one file.
fn single(
    folder: &RunFolder,
    spec: &OutputSpec,
    (output, verified): &(&OutputPlan, Verified),
) -> (publish::Files, OutputResult) {
    let content_type = output.format.content_type();
    let path = folder.path().join(&output.file_name);
    let file = publish::staged(&path, verified.size, &verified.sha256, content_type);
    let result = OutputResult {
        url: String::new(),
        files: vec![OutputFile {
            path: spec.destination.text().to_owned(),
            size: verified.size,
            sha256: verified.sha256.clone(),
            content_type: content_type.to_owned(),
            role: None,
        }],
        // Sums of float timestamps carry noise below a microsecond.
        duration_seconds: (verified.duration_seconds * 1e6).round() / 1e6,
        frames: output.video.as_ref().map(|_| verified.frames),
        width: verified.width,
        height: verified.height,
        renditions: Vec::new(),
        warnings: [&spec.warnings[..], &verified.warnings].concat(),
        report: None,
    };
    (publish::Files::One(file), result)
}

async fn stoppable<T>(
    context: &RunContext,
    step: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Ended> {
    tokio::select! {
        biased;
        () = context.stop.token().cancelled() => Err(Ended::Stopped),
        done = step => done.map_err(Ended::from),
    }
}

/// A failure of a step that was stopped is no failure.
fn stopped_or(context: &RunContext, failure: Failure) -> Ended {
    if context.stop.token().is_cancelled() { Ended::Stopped } else { failure.into() }
}

/// DESIGN §8: one slot is one core; a task with nothing beside it may use them all, as ffmpeg sees fit.
fn threads(context: &RunContext) -> Option<NonZeroU16> {
    let busy = context.worker.busy().max(1);
    let share = (context.worker.settings.cores / busy).max(1);
    if busy == 1 { None } else { u16::try_from(share).ok().and_then(NonZeroU16::new) }
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
#[expect(clippy::cast_precision_loss, reason = "at most 50 outputs")]
fn ratio(done: usize, all: usize) -> f64 {
    done as f64 / all.max(1) as f64
}

/// The same GOPs are sampled when the same run is verified again, others in another run.
fn seed(job: JobId, epoch: Epoch) -> u64 {
    let (high, low) = job.uuid().as_u64_pair();
    high ^ low.rotate_left(17) ^ u64::from(epoch.0)
}

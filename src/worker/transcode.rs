//! A whole job in one go: encode, verify, publish.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::captions;
use super::encoding::{Encoded, encode};
use super::packaging::{self, Packing};
use super::poster;
use super::processes::Made;
use super::progress::{Figures, Step};
use super::publish::{self, Publishing};
use super::run::Ended;
use super::service::RunContext;
use super::stills;
use super::workspace::{RunFolder, WorkspaceError};
use crate::domain::limits::SourceLimits;
use crate::domain::{
    Epoch, Failure, JobId, OutputFile, OutputIndex, OutputResult, OutputSpec, OutputStatus, PublicationId,
    VerifyLevel,
};
use crate::media;
use crate::media::plan::OutputPlan;
use crate::media::verify::{Verified, VerifyRequest};
use crate::rpc::wire::{RunEvent, Transcode};
use crate::telemetry::metrics;

/// Most outputs that are checked at once: each takes up to three processes.
const MOST_CHECKS: usize = 4;

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

/// Everything after the encoder.
struct Finishing<'a> {
    job: JobId,
    epoch: Epoch,
    work: &'a Transcode,
    wanted: &'a [(OutputIndex, &'a OutputSpec)],
    encoded: Encoded,
}

/// Outputs that will not be published, with why.
pub(super) type Failed = Vec<(OutputIndex, Failure)>;

async fn finish(context: &mut RunContext, folder: &RunFolder, finishing: Finishing<'_>) -> Result<(), Ended> {
    let Finishing { job, epoch, work, wanted, encoded } = finishing;
    let check = Checking { seed: seed(job, epoch), work, wanted, encoded: &encoded };
    let (verified, mut failed) = checked(context, folder, &check).await?;
    let mut ready = ready(context, folder, &check, (epoch, &verified), &mut failed).await?;
    let readying = stills::Readying { folder, wanted, secrets: &work.secrets, epoch };
    ready.extend(stills::ready(context, &readying, &encoded.stills, &mut failed).await);
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

/// Checks every file that the encoder wrote, some side by side: tools wait for the disk and for each other. One rendition
/// that fails is one failure of its output.
async fn checked<'a>(
    context: &RunContext,
    folder: &RunFolder,
    checking: &Checking<'a>,
) -> Result<(Vec<(&'a OutputPlan, Verified)>, Failed), Ended> {
    let encoded = checking.encoded;
    let count: usize = encoded.made.iter().map(|made| made.plan.outputs.len()).sum();
    let mut checks = Vec::with_capacity(count);
    for made in &encoded.made {
        checks
            .extend((0..made.plan.outputs.len()).map(|place| check(context, folder, checking, made, place)));
    }
    let mut checks = stream::iter(checks).buffered(context.worker.settings.cores.clamp(1, MOST_CHECKS));
    let (mut verified, mut failed) = (Vec::new(), encoded.failed.clone());
    let mut done = 0;
    while let Some((made, place, result)) = checks.next().await {
        done += 1;
        context.log.report(&Step::Verifying(ratio(done, count)).report(Figures::default()));
        let output = &made.plan.outputs[place];
        let twins = made.plan.twins.iter().filter(|twin| twin.of == place);
        let same: Vec<&OutputPlan> = std::iter::once(output).chain(twins.map(|twin| &twin.output)).collect();
        let result = match result {
            Ok(found) => copied(folder, &same).await.map(|()| found),
            Err(failure) => Err(failure),
        };
        match result.map_err(|failure| stopped_or(context, failure)) {
            Ok(found) => verified.extend(same.into_iter().map(|plan| (plan, found.clone()))),
            Err(Ended::Stopped) => return Err(Ended::Stopped),
            Err(Ended::Failed { failure, .. }) => {
                for output in same {
                    if failed.iter().all(|(known, _)| *known != output.index) {
                        failed.push((output.index, failure.clone()));
                    }
                }
            }
        }
    }
    verified.sort_by_key(|(output, _)| (output.index, output.rank));
    Ok((verified, failed))
}

/// Gives every output that is the same file one of its own: publishing takes it away.
async fn copied(folder: &RunFolder, same: &[&OutputPlan]) -> Result<(), Failure> {
    let [made, twins @ ..] = same else { return Ok(()) };
    for twin in twins.iter().filter(|twin| twin.file_name != made.file_name) {
        let (from, path) = (folder.path().join(&made.file_name), folder.path().join(&twin.file_name));
        let copy = tokio::fs::copy(from, &path).await;
        copy.map_err(|source| {
            publish::disk_failure(&WorkspaceError::Io { doing: "copy an output to", path, source })
        })?;
    }
    Ok(())
}

/// Checks one file.
async fn check<'a>(
    context: &RunContext,
    folder: &RunFolder,
    checking: &Checking<'a>,
    made: &'a Made,
    place: usize,
) -> (&'a Made, usize, Result<Verified, Failure>) {
    let Checking { seed, work, wanted, encoded } = *checking;
    let level = match (work.earlier_failures, work.spec.options.verify) {
        (_, Some(level)) => level,
        (0, None) => context.worker.settings.limits.verify,
        // MEDIA-RULES §1.4: after a failed try nothing is taken on trust.
        (1.., None) => VerifyLevel::Full,
    };
    let output = &made.plan.outputs[place];
    let twins = made.plan.twins.iter().filter(|twin| twin.of == place).map(|twin| twin.output.index);
    for index in std::iter::once(output.index).chain(twins) {
        context.log.tell(RunEvent::OutputMoved(index, OutputStatus::Verifying));
    }
    let spec = wanted.iter().find(|(index, _)| *index == output.index).map(|(_, spec)| spec);
    let kept = spec.is_some_and(|spec| context.worker.deps.destinations.keeps_files(&spec.destination));
    if kept && output.rendition.is_none() {
        begin_flush(folder.path().join(&output.file_name));
    }
    let request = VerifyRequest {
        plan: &made.plan,
        place,
        report: &made.report,
        source: &encoded.media,
        facts: &encoded.facts,
        work: folder.path(),
        level,
        seed,
        on_damage: work.spec.options.on_damage,
        time: context.worker.settings.limits.timeout,
    };
    let begun = tokio::time::Instant::now();
    let result = media::verify::verify(&context.worker.deps.toolbox, request, context.stop.token()).await;
    metrics::verified(begun.elapsed());
    (made, place, result)
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
        let source = checking.encoded.made.iter().find(|made| made.holds(*index));
        let report = source.map(|made| {
            let written: Vec<_> = files.iter().map(|(plan, found)| (made.written_as(plan), found)).collect();
            Box::new(made.account.report(&written))
        });
        let (id, destination) =
            (PublicationId::from_uuid(context.worker.deps.ids.random()), &spec.destination);
        let made = match &spec.encode.package {
            None => Ok(single(folder, spec, first)),
            Some(package) => {
                let packed = stoppable(context, async {
                    let captions = match source {
                        Some(made) => captions::of(folder.path(), made, *index).await?,
                        None => <_>::default(),
                    };
                    packaging::pack(Packing {
                        publication: id,
                        package,
                        destination,
                        work: folder.path().to_owned(),
                        renditions: files.into_iter().map(|(plan, found)| (*plan, found)).collect(),
                        captions: captions.0,
                        warnings: [&spec.warnings[..], &captions.1].concat(),
                    })
                    .await
                });
                packed.await.map(|packed| (publish::Files::Set(packed.files), packed.result))
            }
        };
        let mut posters = checking.encoded.made.iter().flat_map(|made| &made.plan.posters);
        let poster = posters.find(|poster| poster.index == *index);
        let made = match (made, poster) {
            (Ok(made), Some(plan)) => poster::attach(folder, plan, spec, made).await.map_err(Ended::from),
            (made, _) => made,
        };
        match made {
            Ok((files, result)) => {
                let result = OutputResult { report, ..result };
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
        frames: verified.width.map(|_| verified.frames),
        width: verified.width,
        height: verified.height,
        renditions: Vec::new(),
        warnings: [&spec.warnings[..], &verified.warnings].concat(),
        report: None,
    };
    (publish::Files::One(file), result)
}

pub(super) async fn stoppable<T>(
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
pub(super) fn stopped_or(context: &RunContext, failure: Failure) -> Ended {
    if context.stop.token().is_cancelled() { Ended::Stopped } else { failure.into() }
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

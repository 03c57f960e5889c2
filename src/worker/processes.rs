//! The ffmpeg processes of a run, one after the other: each decodes once and makes all outputs of one part of the
//! source. Where one of several encoders fails, its siblings do not: each output is then made alone, once.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::account::Account;
use super::progress::{Figures, Step};
use super::run::Ended;
use super::service::RunContext;
use super::transcode::{Failed, stopped_or};
use crate::domain::preset::EncodeSpec;
use crate::domain::{Code, LoudnessReport, MediaInfo, OutputIndex, TaskReport};
use crate::media;
use crate::media::argv::{self, Gains, Reading};
use crate::media::encode::{EncodeLimits, EncodeReport, EncodeRequest, Tick};
use crate::media::plan::{EncodePlan, MeasuredLoudness, OutputPlan, Policy, SoundPlace};
use crate::storage::OpenSource;
use crate::telemetry::metrics;

/// What one process made, by its own account.
pub(super) struct Made {
    pub(super) plan: EncodePlan,
    pub(super) report: EncodeReport,
    pub(super) account: Account,
}

impl Made {
    /// Whether it made this output.
    pub(super) fn holds(&self, index: OutputIndex) -> bool {
        indices(&self.plan).contains(&index)
    }

    /// The name of the file that ffmpeg wrote for this one.
    pub(super) fn written_as<'a>(&'a self, output: &'a OutputPlan) -> &'a str {
        let twin = self.plan.twins.iter().find(|twin| twin.output.rank == output.rank);
        let made = twin.and_then(|twin| self.plan.outputs.get(twin.of)).unwrap_or(output);
        &made.file_name
    }
}

/// What all processes of a run share.
pub(super) struct Processes<'a> {
    pub(super) context: &'a RunContext,
    /// The run's folder.
    pub(super) work: &'a Path,
    pub(super) source: &'a OpenSource,
    /// How it is opened.
    pub(super) reading: Reading<'a>,
    pub(super) media: &'a MediaInfo,
    pub(super) policy: Policy,
    /// Longest time of all of them together.
    pub(super) total: Duration,
}

/// How far all processes are, in seconds of media.
#[derive(Clone, Copy)]
struct Span {
    before: f64,
    all: Option<f64>,
    /// What a second of the process that runs counts for.
    weight: f64,
}

/// The part of an encode that the first of two passes takes: x264's and libvpx's are faster than the second (measured: 4.4
/// of 14.7 s of CPU for x264, x265 and libvpx together), and outputs of one pass join only the second.
const FIRST_PASS: f64 = 0.3;

impl Processes<'_> {
    /// Runs them. `failed` are outputs that were refused before; those that fail here are added.
    pub(super) async fn run(
        &self,
        plans: Vec<EncodePlan>,
        specs: &[(OutputIndex, EncodeSpec)],
        mut failed: Failed,
    ) -> Result<(Vec<Made>, Failed), Ended> {
        let until = Instant::now() + self.total;
        let all = plans.iter().map(|plan| plan.expected_seconds).sum();
        let (mut made, mut span) = (Vec::new(), Span { before: 0.0, all, weight: 1.0 });
        for plan in plans {
            let (indices, apart, seconds) = (indices(&plan), apart(&plan), plan.expected_seconds);
            match self.one(plan, span, until).await {
                Ok(one) => made.push(one),
                Err(Ended::Stopped) => return Err(Ended::Stopped),
                Err(Ended::Failed { failure, .. }) if apart.len() > 1 && may_be_one_of_many(failure.code) => {
                    tracing::warn!(%failure, outputs = indices.len(), "an encode of several outputs failed; making each alone");
                    for alone in apart {
                        let alone: Vec<_> =
                            specs.iter().filter(|(index, _)| alone.contains(index)).cloned().collect();
                        self.alone(&alone, span, until, &mut made, &mut failed).await?;
                    }
                }
                Err(Ended::Failed { failure, .. }) => {
                    failed.extend(indices.into_iter().map(|index| (index, failure.clone())));
                }
            }
            span.before += seconds.unwrap_or_default();
        }
        Ok((made, failed))
    }

    /// One output, with those that are the same, in a process of its own.
    async fn alone(
        &self,
        specs: &[(OutputIndex, EncodeSpec)],
        span: Span,
        until: Instant,
        made: &mut Vec<Made>,
        failed: &mut Failed,
    ) -> Result<(), Ended> {
        let (plans, refused) = media::plan::processes(self.media, specs, &self.policy);
        failed.extend(refused);
        for plan in plans {
            match self.one(plan, span, until).await {
                Ok(one) => made.push(one),
                Err(Ended::Stopped) => return Err(Ended::Stopped),
                Err(Ended::Failed { failure, .. }) => {
                    failed.extend(specs.iter().map(|(index, _)| (*index, failure.clone())));
                }
            }
        }
        Ok(())
    }

    async fn one(&self, mut plan: EncodePlan, span: Span, until: Instant) -> Result<Made, Ended> {
        let worker = &self.context.worker;
        let (gains, notes, loudness) = loudness(self.context, &plan, &self.reading).await?;
        if plan.cut.is_none_or(|cut| !cut.seeks) {
            // From here on ffmpeg reads from front to end: what it has not asked for yet is fetched meanwhile.
            self.source.fill_to_end();
        }
        let span = self.first_pass(&plan, span, until).await?;
        let argv = argv::encode(&plan, &self.reading, &gains);
        let request = self.request(&plan, argv.clone(), until);
        let mut on_tick = |tick: Tick| self.context.log.report(&encoding(&tick, span));
        let (toolbox, stop) = (&worker.deps.toolbox, self.context.stop.token());
        let report = media::encode::encode(toolbox, request, &mut on_tick, stop).await;
        let report = report.map_err(|failure| stopped_or(self.context, failure))?;
        media::encode::forget_passes(self.work).await;
        metrics::encoded(report.took);
        for (place, note) in notes {
            plan.note(place, &note);
        }
        let account = Account { argv, tools: tools(self.context, &report), loudness };
        Ok(Made { plan, report, account })
    }

    /// The first pass of what is encoded twice, where anything is; the rest of the span.
    async fn first_pass(&self, plan: &EncodePlan, span: Span, until: Instant) -> Result<Span, Ended> {
        let Some(first) = plan.first_pass() else { return Ok(span) };
        let request = self.request(&first, argv::first_pass(&first, &self.reading), until);
        let during = Span { weight: FIRST_PASS, ..span };
        let mut on_tick = |tick: Tick| self.context.log.report(&encoding(&tick, during));
        let (toolbox, stop) = (&self.context.worker.deps.toolbox, self.context.stop.token());
        let passing = media::encode::first_pass(toolbox, request, plan, &mut on_tick, stop);
        passing.await.map_err(|failure| stopped_or(self.context, failure))?;
        let done = plan.expected_seconds.unwrap_or_default() * FIRST_PASS;
        Ok(Span { before: span.before + done, weight: 1.0 - FIRST_PASS, ..span })
    }

    /// Both passes have what is left of the time.
    fn request<'r>(&'r self, plan: &'r EncodePlan, argv: Vec<String>, until: Instant) -> EncodeRequest<'r> {
        let limits = EncodeLimits {
            stall: self.context.worker.settings.limits.stall,
            total: until.saturating_duration_since(Instant::now()),
            ..EncodeLimits::default()
        };
        EncodeRequest { plan, argv, input: self.reading.input, work: self.work, limits }
    }
}

/// Versions of what encoded, as far as they are known.
fn tools(context: &RunContext, report: &EncodeReport) -> BTreeMap<String, String> {
    let ffmpeg = context.worker.deps.capabilities.borrow().as_ref().map(|known| known.version.clone());
    let mut tools = report.encoders.clone();
    tools.extend(ffmpeg.map(|version| ("ffmpeg".to_owned(), version)));
    tools
}

/// The outputs of a process, each once.
fn indices(plan: &EncodePlan) -> Vec<OutputIndex> {
    let twins = plan.twins.iter().map(|twin| twin.output.index);
    let mut indices: Vec<_> = plan.outputs.iter().map(|output| output.index).chain(twins).collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}

/// The outputs of a process that can be made without each other: one that is made, and those that are the same.
fn apart(plan: &EncodePlan) -> Vec<Vec<OutputIndex>> {
    let mut apart: Vec<Vec<OutputIndex>> = Vec::new();
    for output in &plan.outputs {
        if apart.iter().all(|group| !group.contains(&output.index)) {
            apart.push(vec![output.index]);
        }
    }
    for twin in &plan.twins {
        let made = plan.outputs.get(twin.of).map(|output| output.index);
        let known = apart.iter().any(|group| group.contains(&twin.output.index));
        let group = apart.iter_mut().find(|group| made.is_some_and(|made| group.contains(&made)));
        if let Some(group) = group.filter(|_| !known) {
            group.push(twin.output.index);
        }
    }
    apart
}

/// Failures that one encoder or muxer alone may have caused. Others say something of the source or the machine.
const fn may_be_one_of_many(code: Code) -> bool {
    matches!(code, Code::EncodeFailed | Code::EncoderCrashed | Code::EncodeTimeout | Code::EncoderUnavailable)
}

/// The live report for one tick of the encoder.
fn encoding(tick: &Tick, span: Span) -> TaskReport {
    let at = tick.out_seconds.map(|seconds| span.before + seconds * span.weight);
    let share = span.all.zip(at).map_or(0.0, |(all, at)| at / all);
    let left = span.all.zip(at).map(|(all, at)| (all - at).max(0.0));
    let eta_seconds = left.zip(tick.speed).and_then(|(left, speed)| (speed > 0.0).then(|| left / speed));
    Step::Encoding(share).report(Figures { fps: tick.fps, speed: tick.speed, eta_seconds })
}

/// Measures what has a loudness target; the gains, what the client should know, and what was found by file.
async fn loudness(
    context: &RunContext,
    plan: &EncodePlan,
    reading: &Reading<'_>,
) -> Result<(Gains, Vec<(usize, String)>, BTreeMap<(String, usize), LoudnessReport>), Ended> {
    let (mut gains, mut notes, mut found) = (Gains::new(), Vec::new(), BTreeMap::new());
    for (audio, places) in plan.loudness_passes() {
        let measuring = media::encode::measure_loudness(
            &context.worker.deps.toolbox,
            (argv::loudness(plan, audio, reading), reading.input),
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
        let named = |place: &SoundPlace| Some((plan.outputs.get(place.file)?.file_name.clone(), place.track));
        found.extend(places.iter().filter_map(named).map(|sound| (sound, report)));
        let Some((gain, limited)) = chosen else { continue };
        for place in places {
            gains.insert(place, gain);
            if limited {
                notes.push((
                    place.file,
                    format!("peak_limited: reached {:.1} LUFS", measured.integrated + gain),
                ));
            }
        }
    }
    Ok((gains, notes, found))
}

/// DESIGN §8: one slot is one core; a task with nothing beside it may use them all, as ffmpeg sees fit.
pub(super) fn threads(context: &RunContext) -> Option<NonZeroU16> {
    let busy = context.worker.busy().max(1);
    let share = (context.worker.settings.cores / busy).max(1);
    if busy == 1 { None } else { u16::try_from(share).ok().and_then(NonZeroU16::new) }
}

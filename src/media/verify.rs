//! Checking that an output is what was planned, whole and playable; nothing is published without it (MEDIA-RULES §2).
//!
//! Two questions with two references. *Was the source whole?* The structure, ffmpeg's own remarks and, one-sided, the
//! declared duration ([`source`]). *Is the output exact?* The encoder's account against the file's packets, the decoded
//! frames against the encoded, the plan against the streams ([`output`]); then its bytes are decoded again, as much of
//! them as the level asks ([`decode`]). Containers' durations are never a reference: they lie in 7 of 43 real clips.

mod decode;
mod digest;
mod output;
mod packets;
mod report;
mod source;

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::argv::{self, LookAhead, Reading};
use super::encode::EncodeReport;
use super::plan::{EncodePlan, OutputPlan};
use super::probe::Document;
use super::process::{Reach, RunError, Spec, Tidy, run, run_lines};
use super::structure::Facts;
use super::{Input, Toolbox};
use crate::domain::preset::FileFormat;
use crate::domain::{Code, Demuxer, Failure, MediaInfo, OnDamage, StreamReport, VerifyLevel};

pub use digest::of as digest;
use packets::PacketTable;

/// What is checked, and against what.
#[derive(Debug, Clone, Copy)]
pub struct VerifyRequest<'a> {
    /// The whole plan, for what it read of the source.
    pub plan: &'a EncodePlan,
    /// Place of the output in the plan.
    pub place: usize,
    /// The encoder's account.
    pub report: &'a EncodeReport,
    /// What the source is.
    pub source: &'a MediaInfo,
    /// What the source's structure told.
    pub facts: &'a Facts,
    /// Folder of the output.
    pub work: &'a Path,
    /// How closely.
    pub level: VerifyLevel,
    /// Chooses the random parts that are decoded; the same seed chooses the same.
    pub seed: u64,
    /// What damage in the source means.
    pub on_damage: OnDamage,
    /// Longest time of any one tool.
    pub time: Duration,
}

/// An output that passed.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// Span of the longest stream, seconds.
    pub duration_seconds: f64,
    /// Frames of the picture; 0 without one.
    pub frames: u64,
    /// Width of the picture, pixels.
    pub width: Option<u32>,
    /// Height of the picture, pixels.
    pub height: Option<u32>,
    /// Its streams, as they were read to be checked.
    pub streams: Vec<StreamReport>,
    /// What the client should know.
    pub warnings: Vec<String>,
}

/// Checks one output.
///
/// # Errors
/// `verification_failed` when it is not what was planned; `media_truncated` or `media_corrupt` when the source was not
/// whole; `clip_out_of_range` when it has nothing of the clip; `encode_timeout`, `cancelled`, `tool_missing`, `internal` when it could not be checked.
pub async fn verify(
    toolbox: &Toolbox,
    request: VerifyRequest<'_>,
    cancel: &CancellationToken,
) -> Result<Verified, Failure> {
    let Some(plan) = request.plan.outputs.get(request.place) else {
        return Err(Failure::new(Code::Internal, "The output is not part of the plan."));
    };
    let input = Input::File(request.work.join(&plan.file_name));
    let checker = Checker { toolbox, input: &input, plan, time: request.time, cancel };

    source::refuse_nothing(&request)?;
    source::refuse_truncation(&request)?;
    let digest = digest::of(request.work.join(&plan.file_name));
    let (digest, document, table) = tokio::try_join!(digest, checker.document(), checker.packets())?;
    if digest.size == 0 {
        return Err(failed("the output is empty"));
    }
    output::check_tracks(plan, &document)?;
    let spans = output::check_counts(&request, plan, &document, &table)?;
    let mut warnings = plan.warnings.clone();
    warnings.extend(source::judge_damage(&request, plan, &spans)?);
    warnings.extend(
        spans
            .silence
            .map(|gap| format!("sound_gaps: the source's timestamps leave {gap:.1} s without sound")),
    );
    match request.level {
        VerifyLevel::Probe => {}
        VerifyLevel::Sampled => decode::sampled(&checker, &table, &spans, request.seed).await?,
        VerifyLevel::Full => decode::full(&checker, &spans).await?,
    }
    let size =
        plan.video.as_ref().map(|video| (video.width, video.height)).or_else(|| document.picture_size());
    Ok(Verified {
        size: digest.size,
        sha256: digest.sha256,
        duration_seconds: spans.seconds(),
        frames: spans.video.as_ref().map_or(0, |video| video.packets),
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        streams: report::streams(plan, &document, &table, request.plan.expected_seconds),
        warnings,
    })
}

/// An output that is not what was planned. `what` is for people and names no paths.
fn failed(what: impl std::fmt::Display) -> Failure {
    Failure::new(Code::VerificationFailed, format!("The output did not pass verification: {what}."))
}

/// Runs tools over one output.
struct Checker<'a> {
    toolbox: &'a Toolbox,
    input: &'a Input,
    plan: &'a OutputPlan,
    time: Duration,
    cancel: &'a CancellationToken,
}

impl Checker<'_> {
    /// The output's own streams, read with the same care as a stranger's file: its bytes come from one.
    async fn document(&self) -> Result<Document, Failure> {
        let shown = [
            "-hide_banner",
            "-loglevel",
            "level+error",
            "-of",
            "json",
            "-show_data",
            "-show_streams",
            "-show_format",
        ];
        let spec = self.probe(&shown);
        let finished = run(&self.toolbox.spawner, spec, (self.time, 1024 * 1024), self.cancel).await?;
        let log = self.tidy(finished.log);
        if !finished.status.success() {
            return Err(failed("it cannot be opened").with_log(log));
        }
        serde_json::from_slice(&finished.stdout)
            .map_err(|error| failed("it cannot be read").with_detail(error.to_string()).with_log(log))
    }

    /// Every packet's header.
    async fn packets(&self) -> Result<PacketTable, Failure> {
        let entries = "packet=stream_index,pts,dts,duration,size,flags";
        let spec = self.probe(&[
            "-hide_banner",
            "-loglevel",
            "level+error",
            "-of",
            "compact=p=0",
            "-show_entries",
            entries,
        ]);
        let mut table = PacketTable::default();
        let finished = run_lines(&self.toolbox.spawner, spec, self.time, self.cancel, |line| {
            table.line(line);
        })
        .await?;
        if !finished.status.success() || !finished.log.is_empty() {
            return Err(failed("its packets cannot be read").with_log(self.tidy(finished.log)));
        }
        Ok(table)
    }

    fn probe(&self, shown: &[&str]) -> Spec {
        let mut args: Vec<String> = shown.iter().copied().map(str::to_owned).collect();
        args.extend(self.input_options());
        Spec::new(&self.toolbox.tools.ffprobe, args, "/").confined(Reach::reading(self.input))
    }

    /// Decodes; any complaint is a failure. `args` come before the outputs.
    async fn decode(&self, args: Vec<String>) -> Result<decode::Decoded, Failure> {
        let head = ["-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+verbose", "-xerror"];
        let mut words: Vec<String> = head.map(str::to_owned).into();
        words.extend(args);
        let spec = Spec::new(&self.toolbox.tools.ffmpeg, words, "/").confined(Reach::reading(self.input));
        let finished = run(&self.toolbox.spawner, spec, (self.time, 0), self.cancel).await;
        let finished = finished.map_err(|error| match error {
            RunError::TimedOut(_) => failed("decoding it takes too long"),
            other => other.into(),
        })?;
        if finished.status.success() {
            return Ok(decode::Decoded::read(&finished.log));
        }
        let complaints =
            finished.log.into_iter().filter(|line| line.contains("[error]") || line.contains("[fatal]"));
        Err(failed("it cannot be decoded without errors").with_log(self.tidy(complaints.collect())))
    }

    fn input_options(&self) -> Vec<String> {
        let demuxer = match self.plan.format {
            FileFormat::Mp4 | FileFormat::Fragments | FileFormat::M4a | FileFormat::Mov => Demuxer::Mov,
            FileFormat::Webm | FileFormat::Matroska => Demuxer::Matroska,
            FileFormat::Ts => Demuxer::Mpegts,
            FileFormat::Mp3 => Demuxer::Mp3,
            FileFormat::Ogg => Demuxer::Ogg,
        };
        let reading = Reading { input: self.input, demuxer, limits: &argv::Limits::default() };
        argv::input_options(&reading, LookAhead::Far)
    }

    fn tidy(&self, lines: Vec<String>) -> Vec<String> {
        Tidy::new(self.input, Path::new("")).lines(lines)
    }
}

#[cfg(test)]
mod tests;

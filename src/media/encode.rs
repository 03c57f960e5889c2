//! Running ffmpeg: progress, watchdogs, and an account of what went in and came out.
//!
//! ffmpeg's exit status says nothing about its input (GATEWAY §4.3: twelve of twelve broken inputs ended with 0), so
//! what is handed on is an [`EncodeReport`]: packets read, frames decoded, frames encoded, and the classes of its log
//! lines. `verify` judges it. Readers of ffmpeg's pipes are tasks of their own with bounded state: a slow consumer of
//! progress misses ticks, it never holds up the encode.

mod log;
mod loudness;
mod progress;
mod twice;
mod versions;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::plan::EncodePlan;
use super::process::{Child, Limits, Reach, Spec, Tidy, each_line};
use super::{Input, Toolbox};
use crate::domain::{Code, Failure};

use log::LogState;
pub use log::{DecodedStream, EncodedStream, GridStatistics};
pub use loudness::{Loudness, measure_loudness};
pub use progress::Tick;
pub use twice::{first_pass, forget_passes};

/// How long the pipes may stay open after ffmpeg has ended and its group was killed.
const DRAIN: Duration = Duration::from_secs(5);
/// By how much codecs' padding and the last frame may pass the longest time without being a runaway, seconds.
const PADDING: f64 = 0.5;
/// A watchdog's precision; progress comes every half second.
const WATCH: Duration = Duration::from_secs(1);

/// What one encode is made of.
#[derive(Debug, Clone)]
pub struct EncodeRequest<'a> {
    /// The plan, for its bounds.
    pub plan: &'a EncodePlan,
    /// The complete command line, made from the plan.
    pub argv: Vec<String>,
    /// What ffmpeg reads; only for keeping its name out of logs.
    pub input: &'a Input,
    /// Working directory; outputs are relative to it.
    pub work: &'a Path,
    /// Bounds.
    pub limits: EncodeLimits,
}

/// Bounds of one encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeLimits {
    /// Longest time without a new frame or byte.
    pub stall: Duration,
    /// Longest time in all.
    pub total: Duration,
    /// Kernel limits.
    pub kernel: Limits,
}

impl Default for EncodeLimits {
    /// ENCODING §6: no new frame for 60 s is a stall; 24 h in all.
    fn default() -> Self {
        Self { stall: Duration::from_mins(1), total: Duration::from_hours(24), kernel: Limits::default() }
    }
}

/// What ffmpeg did, by its own account.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EncodeReport {
    /// What was read and decoded, of the streams in use.
    pub decoded: Vec<DecodedStream>,
    /// What was encoded, by output (in the plan's order) and stream.
    pub encoded: Vec<EncodedStream>,
    /// What each frame-rate filter took and gave.
    pub grids: Vec<GridStatistics>,
    /// ffmpeg noticed that the source ended early.
    pub ended_early: bool,
    /// Complaints of the demuxer: places where the container's own structure or checksums do not hold.
    pub broken_places: u64,
    /// The latest end of a packet over all outputs, seconds.
    pub last_out_seconds: Option<f64>,
    /// Versions of encoders by name, as far as they told.
    pub encoders: BTreeMap<String, String>,
    /// Wall time.
    pub took: Duration,
    /// The last log lines, fit for clients.
    pub log_tail: Vec<String>,
}

impl EncodeReport {
    /// What was decoded of a source stream.
    #[must_use]
    pub fn decoded_stream(&self, index: u32) -> Option<&DecodedStream> {
        self.decoded.iter().find(|stream| stream.index == index)
    }

    /// The streams written to the output at this place of the plan.
    pub fn output(&self, place: usize) -> impl Iterator<Item = &EncodedStream> {
        self.encoded.iter().filter(move |stream| stream.output == place)
    }
}

/// How an encode was ended by us.
enum Stopped {
    Cancelled,
    Stalled,
    TooLong,
    Runaway,
}

/// Runs ffmpeg to its end. `on_tick` is called with progress, at most twice a second; ticks it is too slow for are lost.
///
/// Dropping the future kills ffmpeg and everything it started.
///
/// # Errors
/// `cancelled`, `encode_timeout` (stalled or too long), `media_limit` (the output outgrew the plan), `disk_full`,
/// `encoder_crashed`, `encoder_unavailable`, `media_corrupt` (the source cannot be opened), `encode_failed`,
/// `tool_missing`.
pub async fn encode(
    toolbox: &Toolbox,
    request: EncodeRequest<'_>,
    on_tick: &mut (dyn FnMut(Tick) + Send),
    cancel: &CancellationToken,
) -> Result<EncodeReport, Failure> {
    let EncodeRequest { plan, argv, input, work, limits } = request;
    let started = Instant::now();
    let reach = Reach::reading(input).writing(work);
    let mut spec = Spec::new(&toolbox.tools.ffmpeg, argv, work).confined(reach);
    spec.limits = limits.kernel.within(limits.total);
    let mut child = toolbox.spawner.spawn(spec).await?;
    tracing::debug!(target: "flux::media", "encoder started");
    let (state, ticks, mut readers) = listen(&mut child);

    let lead_in = Duration::from_secs_f64(plan.lead_in_seconds());
    let watchdog = Watchdog { ticks, limits, started, lead_in, max_seconds: plan.max_seconds };
    let status = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Stopped::Cancelled),
        ended = child.wait() => Ok(ended),
        stopped = watchdog.run(on_tick) => Err(stopped),
    };
    if status.is_err() {
        child.kill();
        let _ = child.wait().await;
    }
    // Nothing in the group lives any more, so the pipes end; a stranger holding them must not hold us.
    let _ = tokio::time::timeout(DRAIN, async { while readers.join_next().await.is_some() {} }).await;
    readers.abort_all();

    let log = std::mem::take(&mut *state.lock().unwrap_or_else(PoisonError::into_inner));
    let tidy = Tidy::new(input, work);
    match status {
        // A trailer that found no room is only a line in the log: without `-xerror` ffmpeg ends with 0 all the same.
        Ok(Ok(status)) if status.success() && !log.out_of_room() => {
            let report = log.into_report(started.elapsed(), &tidy);
            if report.last_out_seconds.is_some_and(|seconds| seconds > plan.max_seconds + PADDING) {
                let failure = Stopped::Runaway.into_failure(limits, plan.max_seconds);
                return Err(failure.with_log(report.log_tail));
            }
            Ok(report)
        }
        Ok(Ok(status)) => Err(log.into_failure(status, &tidy)),
        Ok(Err(error)) => Err(Failure::new(Code::Internal, "The encoder's end could not be seen.")
            .with_detail(error.to_string())),
        Err(stopped) => Err(stopped.into_failure(limits, plan.max_seconds).with_log(log.into_lines(&tidy))),
    }
}

impl Stopped {
    fn into_failure(self, limits: EncodeLimits, max_seconds: f64) -> Failure {
        let timeout = |text: String| Failure::new(Code::EncodeTimeout, text);
        match self {
            Self::Cancelled => Failure::new(Code::Cancelled, "The job was cancelled."),
            Self::Stalled => {
                timeout(format!("The encoder made no progress for {} s.", limits.stall.as_secs_f32()))
            }
            Self::TooLong => {
                timeout(format!("The encode took longer than {} s.", limits.total.as_secs_f32()))
            }
            Self::Runaway => Failure::new(
                Code::MediaLimit,
                format!("The output grew longer than {max_seconds:.0} s, more than the source can hold."),
            ),
        }
    }
}

/// Starts the tasks that read ffmpeg's pipes.
fn listen(child: &mut Child) -> (Arc<Mutex<LogState>>, watch::Receiver<Tick>, JoinSet<()>) {
    let (state, mut readers) = (Arc::new(Mutex::new(LogState::default())), JoinSet::new());
    let (sender, ticks) = watch::channel(Tick::default());
    if let Some(stdout) = child.take_stdout() {
        let state = Arc::clone(&state);
        readers.spawn(async move {
            let mut block = progress::Block::default();
            // A broken pipe ends the reading; what ffmpeg did is judged by its end.
            let _ = each_line(stdout, |line| {
                if let Some(tick) = block.line(line) {
                    state.lock().unwrap_or_else(PoisonError::into_inner).tick(tick);
                    sender.send_replace(tick);
                }
            })
            .await;
        });
    }
    if let Some(stderr) = child.take_stderr() {
        let state = Arc::clone(&state);
        readers.spawn(async move {
            let _ = each_line(stderr, |line| {
                state.lock().unwrap_or_else(PoisonError::into_inner).line(line);
            })
            .await;
        });
    }
    (state, ticks, readers)
}

/// Hands ticks on and ends when the encode must be ended.
struct Watchdog {
    ticks: watch::Receiver<Tick>,
    limits: EncodeLimits,
    started: Instant,
    /// What ffmpeg may take to come to the clip, on top of the stall limit: at least as fast as the source plays.
    lead_in: Duration,
    max_seconds: f64,
}

impl Watchdog {
    async fn run(mut self, on_tick: &mut (dyn FnMut(Tick) + Send)) -> Stopped {
        let (mut moved_at, mut best) = (self.started, (0, 0));
        loop {
            // Progress may end before ffmpeg does (it closes the pipe early when it crashes): then only time is watched.
            let closed = match tokio::time::timeout(WATCH, self.ticks.changed()).await {
                Ok(Ok(())) => {
                    let tick = *self.ticks.borrow_and_update();
                    let now = (tick.frame.unwrap_or(0), tick.total_size.unwrap_or(0));
                    if now.0 > best.0 || now.1 > best.1 {
                        (best, moved_at) = ((best.0.max(now.0), best.1.max(now.1)), Instant::now());
                    }
                    if tick.out_seconds.is_some_and(|seconds| seconds > self.max_seconds + PADDING) {
                        return Stopped::Runaway;
                    }
                    on_tick(tick);
                    false
                }
                Ok(Err(_)) => true,
                Err(_) => false,
            };
            if self.started.elapsed() >= self.limits.total {
                return Stopped::TooLong;
            }
            let patience = if best == (0, 0) { self.limits.stall + self.lead_in } else { self.limits.stall };
            if moved_at.elapsed() >= patience {
                return Stopped::Stalled;
            }
            if closed {
                tokio::time::sleep(WATCH).await;
            }
        }
    }
}

#[cfg(test)]
pub(in crate::media) mod tests;

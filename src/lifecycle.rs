//! Starting, stopping, and who waits for whom.
//!
//! Owns the two stages of a shutdown, the tracker of all tasks, the signals, and the reason that becomes the exit code.
//! Must not know: what the tasks do.
//! Invariant: every task of the process is spawned here, so that a drain waits for all of them; the first reason wins.
//! *Soft* means: take nothing new, finish what runs. *Hard* means: stop now; children are killed, work goes back.
//! To add a task, spawn it with the [`TaskKind`] that says what its end means.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long tasks get to leave after the hard stage began: killing children and writing one row each.
const HARD_TIMEOUT: Duration = Duration::from_secs(5);

/// What the end of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// The process is useless without it: any end before shutdown begins one.
    Essential,
    /// Its failure is logged; the process goes on.
    Background,
}

/// Why the process stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShutdownReason {
    /// SIGTERM or SIGINT.
    Signal(Signal),
    /// The program itself is done (a command that served only its own job).
    Requested,
    /// A worker with nothing to do.
    Idle,
    /// It cannot go on.
    Fatal(String),
}

impl ShutdownReason {
    /// 0 for every stop that was meant, 1 for a failure.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Signal(_) | Self::Requested | Self::Idle => 0,
            Self::Fatal(_) => 1,
        }
    }

    /// The same for `main`.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Requested => f.write_str("requested"),
            Self::Idle => f.write_str("idle"),
            Self::Fatal(why) => write!(f, "fatal: {why}"),
        }
    }
}

/// The signals that stop the process.
///
/// SIGHUP is left alone: a closed terminal ends the process like a crash, which loses nothing that was acknowledged,
/// and a handler would undo `nohup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Ctrl-C; also Fly's default way to stop a machine.
    Interrupt,
    /// The usual way to stop a service.
    Terminate,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All tasks finished by themselves.
    Clean,
    /// The hard stage had begun, and all tasks left.
    Forced,
    /// Tasks are still there a while after the hard stage began; the process ends without them.
    Abandoned {
        /// How many.
        tasks: usize,
    },
}

/// The handle that everybody holds. Clones are the same lifecycle.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    soft: CancellationToken,
    hard: CancellationToken,
    tracker: TaskTracker,
    reason: Arc<OnceLock<ShutdownReason>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// A running process. The hard stage always implies the soft one.
    #[must_use]
    pub fn new() -> Self {
        let hard = CancellationToken::new();
        Self { soft: hard.child_token(), hard, tracker: TaskTracker::new(), reason: Arc::default() }
    }

    /// Cancelled when nothing new may be taken.
    #[must_use]
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Cancelled when everything must stop now.
    #[must_use]
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// Whether a shutdown has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Why it stops, once it does. The hard stage without a reason counts as requested.
    #[must_use]
    pub fn reason(&self) -> Option<ShutdownReason> {
        self.reason.get().cloned().or_else(|| self.is_stopping().then_some(ShutdownReason::Requested))
    }

    /// Begins the soft stage. Later reasons are logged and do not replace the first.
    pub fn shut_down(&self, reason: ShutdownReason) {
        match &reason {
            _ if self.is_stopping() => tracing::debug!(%reason, "already shutting down"),
            ShutdownReason::Fatal(why) => {
                tracing::error!(reason = %why, "shutting down because the process cannot go on");
            }
            ShutdownReason::Signal(_) | ShutdownReason::Requested | ShutdownReason::Idle => {
                tracing::info!(%reason, "shutting down");
            }
        }
        // Refused when there is a reason already: the first one is why.
        let _ = self.reason.set(reason);
        self.soft.cancel();
    }

    /// Begins the hard stage.
    pub fn stop_now(&self, reason: ShutdownReason) {
        self.shut_down(reason);
        self.hard.cancel();
    }

    /// Runs a future as a task that a drain waits for. `name` is for logs.
    ///
    /// A panic is caught: it ends this task only, and is treated as its failure.
    pub fn spawn<F>(&self, kind: TaskKind, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output: Ending> + Send + 'static,
    {
        let lifecycle = self.clone();
        self.tracker.spawn(async move {
            let failure = match AssertUnwindSafe(future).catch_unwind().await {
                Ok(ending) => ending.failure(),
                Err(panic) => Some(format!("panicked: {}", panic_text(&*panic))),
            };
            lifecycle.ended(kind, name, failure);
        })
    }

    fn ended(&self, kind: TaskKind, name: &'static str, failure: Option<String>) {
        match (kind, failure) {
            (TaskKind::Background, None) => {}
            (TaskKind::Background, Some(failure)) => tracing::error!(task = name, %failure, "task failed"),
            (TaskKind::Essential, None) => {
                if !self.is_stopping() {
                    self.shut_down(ShutdownReason::Fatal(format!("{name} ended unexpectedly")));
                }
            }
            (TaskKind::Essential, Some(failure)) => {
                self.shut_down(ShutdownReason::Fatal(format!("{name}: {failure}")));
            }
        }
    }

    /// Obeys SIGINT and SIGTERM from now on: the first begins the soft stage, the second the hard one.
    pub fn obey_signals(&self) -> io::Result<()> {
        let both = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let signals = stream::unfold(both, async |(mut interrupt, mut terminate)| {
            let which = tokio::select! {
                _ = interrupt.recv() => Signal::Interrupt,
                _ = terminate.recv() => Signal::Terminate,
            };
            Some((which, (interrupt, terminate)))
        });
        #[expect(
            clippy::disallowed_methods,
            reason = "not tracked: it must outlive the drain to hear the second signal"
        )]
        drop(tokio::spawn(self.clone().obey(Box::pin(signals))));
        Ok(())
    }

    /// Ends with the hard stage: after it there is nothing left to say.
    async fn obey(self, mut signals: impl Stream<Item = Signal> + Unpin + Send) {
        let done = self.hard.clone();
        let obeying = async {
            while let Some(which) = signals.next().await {
                if self.is_stopping() {
                    tracing::warn!(signal = %which, "stopping now");
                    self.stop_now(ShutdownReason::Signal(which));
                } else {
                    self.shut_down(ShutdownReason::Signal(which));
                }
            }
        };
        tokio::select! {
            () = obeying => {}
            () = done.cancelled() => {}
        }
    }

    /// Waits until a shutdown begins.
    pub async fn stopping(&self) {
        self.soft.cancelled().await;
    }

    /// Begins a shutdown if none has begun, waits up to `timeout` for all tasks, then stops the rest hard.
    pub async fn drain(&self, timeout: Duration) -> Drained {
        if !self.is_stopping() {
            self.shut_down(ShutdownReason::Requested);
        }
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => return if self.hard.is_cancelled() { Drained::Forced } else { Drained::Clean },
            () = self.hard.cancelled() => {}
            () = tokio::time::sleep(timeout) => {
                tracing::warn!(tasks = self.tracker.len(), "drain timeout passed, stopping what still runs");
                self.hard.cancel();
            }
        }
        match tokio::time::timeout(HARD_TIMEOUT, self.tracker.wait()).await {
            Ok(()) => Drained::Forced,
            Err(_) => Drained::Abandoned { tasks: self.tracker.len() },
        }
    }
}

/// What a task may end with.
pub trait Ending {
    /// What went wrong, if anything: the whole chain of causes.
    fn failure(self) -> Option<String>;
}

impl Ending for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: std::error::Error> Ending for Result<(), E> {
    fn failure(self) -> Option<String> {
        let error = self.err()?;
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Some(text)
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&'static str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests;

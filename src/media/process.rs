//! Child processes: started by one thread, killed as a group, heard without ever being held up.
//!
//! Linux sends the parent-death signal when the *thread* that forked ends, not when the process does (PROTOCOL §1.29).
//! So one thread that lives as long as any [`Spawner`] or [`Child`] does every fork; nothing else in flux may.
//! A child gets its own process group, no environment but what its spec names (an inherited `http_proxy` would be obeyed
//! even for loopback, GATEWAY §1.1), no stdin, and dies with its [`Child`] value. Cancelling is SIGKILL to the group, at once:
//! ffmpeg that is blocked reading ignores SIGTERM, and otherwise turns it into a short file that looks whole.

mod launch;
mod lines;
mod run;
mod sandbox;
mod tidy;

use std::ffi::OsString;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::{mpsc, oneshot};

use crate::domain::{Code, Failure};

pub use launch::{LAUNCH_COMMAND, launch_main};
pub(in crate::media) use lines::{Tail, each_line};
pub(in crate::media) use run::{Finished, RunError, run, run_lines};
pub use sandbox::{Confined, LookError, Reach, Sandbox};
pub(in crate::media) use tidy::Tidy;

/// Requests that wait for the forking thread. When it is full, callers wait: a fork takes about a millisecond.
const QUEUE: usize = 16;
/// Niceness of tools: encodes must not starve the heartbeat of their own worker.
const NICE: u8 = 10;

/// How a program is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launcher {
    /// Straight away. A SIGKILL of this process leaves the child running, so this is for tests and short-lived tools.
    Direct,
    /// Through `EXE __launch …`, which ties the child to this process's life, limits and confines it before it runs.
    ReExec {
        /// The executable of flux.
        exe: PathBuf,
        /// How programs that have a [`Reach`] are confined.
        sandbox: Sandbox,
    },
}

/// What becomes of a program's standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdout {
    /// Read by us.
    Piped,
    /// Thrown away.
    Null,
}

/// What becomes of a program's standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stderr {
    /// Read by us.
    Piped,
    /// Ours too: the program writes a log of its own.
    Inherited,
}

/// Bounds the kernel keeps for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Largest file it may write, bytes (passing it is SIGXFSZ).
    pub file_size: Option<u64>,
    /// Most private memory that it may ask for, bytes, used or not; files and libraries it maps do not count.
    pub memory: Option<u64>,
    /// Most seconds of all its threads on processors (passing it is SIGKILL).
    pub cpu_seconds: Option<u64>,
    /// Most open files.
    pub open_files: Option<u64>,
}

impl Limits {
    /// What a tool that ends within `wall` can use of all processors. It holds where the worker that watches it does not.
    #[must_use]
    pub fn within(self, wall: Duration) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let cores = u64::try_from(cores).unwrap_or(u64::MAX);
        let seconds = (wall.as_secs() + 1).saturating_mul(cores);
        Self { cpu_seconds: Some(seconds), ..self }
    }
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Absolute path.
    pub program: PathBuf,
    /// Arguments without the program's name.
    pub args: Vec<OsString>,
    /// Working directory.
    pub folder: PathBuf,
    /// Standard output.
    pub stdout: Stdout,
    /// Standard error.
    pub stderr: Stderr,
    /// Its whole environment, besides `LC_ALL=C` where it says nothing of that.
    pub env: Vec<(OsString, OsString)>,
    /// Niceness, 0 to 19; a confined program has its sandbox's.
    pub nice: u8,
    /// Kernel limits.
    pub limits: Limits,
    /// All that it may touch; `None` = whatever this user may, for programs of the operator's.
    pub reach: Option<Reach>,
}

impl Spec {
    /// A program whose output is read, without limits and not confined.
    pub fn new<A: Into<OsString>>(
        program: &Path,
        args: impl IntoIterator<Item = A>,
        folder: impl Into<PathBuf>,
    ) -> Self {
        Self {
            program: program.to_owned(),
            args: args.into_iter().map(Into::into).collect(),
            folder: folder.into(),
            stdout: Stdout::Piped,
            stderr: Stderr::Piped,
            env: Vec::new(),
            nice: NICE,
            limits: Limits::default(),
            reach: None,
        }
    }

    /// The same program, confined.
    #[must_use]
    pub fn confined(self, reach: Reach) -> Self {
        Self { reach: Some(reach), ..self }
    }
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The forking thread has ended, which only a panic in it can cause.
    #[error("the thread that starts programs is gone")]
    Gone,
    /// The kernel refused.
    #[error("starting {program}")]
    Start {
        /// The program's file name.
        program: String,
        /// Why.
        #[source]
        error: io::Error,
    },
}

impl From<SpawnError> for Failure {
    fn from(error: SpawnError) -> Self {
        match error {
            SpawnError::Gone => Self::new(Code::Internal, "The worker can no longer start programs."),
            SpawnError::Start { program, error } if error.kind() == io::ErrorKind::NotFound => {
                Self::new(Code::ToolMissing, format!("{program} is missing on the worker."))
                    .with_detail(error.to_string())
            }
            SpawnError::Start { program, error } => {
                Self::new(Code::EncoderCrashed, format!("{program} could not be started on the worker."))
                    .with_detail(error.to_string())
            }
        }
    }
}

struct Request {
    spec: Spec,
    reply: oneshot::Sender<Result<tokio::process::Child, SpawnError>>,
}

/// Starts programs from the one forking thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spawner {
    requests: mpsc::Sender<Request>,
}

impl Spawner {
    /// Starts the forking thread. Must be called inside a tokio runtime, whose driver will reap the children.
    ///
    /// # Errors
    /// The kernel refused a thread, or there is no runtime.
    pub fn start(launcher: Launcher) -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let (requests, mut queue) = mpsc::channel::<Request>(QUEUE);
        std::thread::Builder::new().name("flux-fork".into()).spawn(move || {
            let _entered = runtime.enter();
            while let Some(Request { spec, reply }) = queue.blocking_recv() {
                // A caller that went away drops the child, and dropping kills it.
                let _ = reply.send(start(&launcher, &spec));
            }
        })?;
        Ok(Self { requests })
    }

    /// Starts a program.
    ///
    /// # Errors
    /// It could not be started. With [`Launcher::ReExec`] a missing program shows as exit status 127 instead.
    pub async fn spawn(&self, spec: Spec) -> Result<Child, SpawnError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { spec, reply }).await.map_err(|_| SpawnError::Gone)?;
        let inner = answer.await.map_err(|_| SpawnError::Gone)??;
        let group = inner.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Child { inner, group, _spawner: self.clone() })
    }
}

/// A running program and everything it started. Dropping it kills the group.
#[derive(Debug)]
pub struct Child {
    inner: tokio::process::Child,
    /// The process group, while it may still exist.
    group: Option<Pid>,
    /// Keeps the forking thread alive: its end would kill the child.
    _spawner: Spawner,
}

impl Child {
    /// Standard output, once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.inner.stdout.take()
    }

    /// Standard error, once.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.inner.stderr.take()
    }

    /// SIGKILL to the whole group, at once. Does nothing after [`Child::wait`] has returned.
    pub fn kill(&self) {
        if let Some(group) = self.group {
            // The group may be gone already, which is what was wanted.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }

    /// Waits for its end, then kills what it left behind in its group (a leftover would hold our pipes open).
    /// Safe to cancel.
    ///
    /// # Errors
    /// The kernel would not say.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.inner.wait().await?;
        self.kill();
        self.group = None;
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // tokio kills and reaps the leader by `kill_on_drop`; the group is ours to kill.
        self.kill();
    }
}

/// Runs on the forking thread.
fn start(launcher: &Launcher, spec: &Spec) -> Result<tokio::process::Child, SpawnError> {
    let failed = |error| SpawnError::Start {
        program: spec
            .program
            .file_name()
            .map_or_else(|| "a program".into(), |n| n.to_string_lossy().into_owned()),
        error,
    };
    let (program, args) = match launcher {
        Launcher::Direct => (spec.program.clone(), spec.args.clone()),
        Launcher::ReExec { exe, sandbox } => (exe.clone(), launch::arguments(spec, sandbox)),
    };
    #[expect(clippy::disallowed_methods, reason = "the one place that starts programs")]
    let mut command = tokio::process::Command::new(program);
    let stdout = match spec.stdout {
        Stdout::Piped => Stdio::piped(),
        Stdout::Null => Stdio::null(),
    };
    let stderr = match spec.stderr {
        Stderr::Piped => Stdio::piped(),
        Stderr::Inherited => Stdio::inherit(),
    };
    command
        .args(args)
        .current_dir(&spec.folder)
        .env_clear()
        .env("LC_ALL", "C")
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .kill_on_drop(true);
    let child = command.spawn().map_err(failed)?;
    if *launcher == Launcher::Direct {
        restrain(&child, spec);
    }
    Ok(child)
}

/// What the launcher would have done, from outside. Best effort: the program may already have ended.
fn restrain(child: &tokio::process::Child, spec: &Spec) {
    let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else {
        return;
    };
    let _ = rustix::process::setpriority_process(Some(pid), i32::from(spec.nice));
    for (resource, most) in launch::resources(spec.limits) {
        let _ = rustix::process::prlimit(
            Some(pid),
            resource,
            Rlimit { current: Some(most), maximum: Some(most) },
        );
    }
}

/// The kernel's names for our limits; no core dumps, ever (they would hold the source).
pub(in crate::media) type Limit = (Resource, u64);

#[cfg(test)]
pub(in crate::media) mod tests;

//! Running a short tool to its end: bounded in time and output.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::sync::CancellationToken;

use super::{SpawnError, Spawner, Spec, Tail, each_line};
use crate::domain::{Code, Failure};

/// Log lines kept of a short tool.
const LOG_LINES: usize = 200;

/// A tool that has ended.
#[derive(Debug)]
pub(in crate::media) struct Finished {
    /// How.
    pub(in crate::media) status: ExitStatus,
    /// What it wrote, at most the asked bytes.
    pub(in crate::media) stdout: Vec<u8>,
    /// The last lines of its log.
    pub(in crate::media) log: Vec<String>,
}

/// Why a tool has no end to report.
#[derive(Debug, thiserror::Error)]
pub(in crate::media) enum RunError {
    /// It did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// It took too long and was killed.
    #[error("the tool took longer than {0:?}")]
    TimedOut(Duration),
    /// Somebody cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// Its pipes or its end could not be read.
    #[error("listening to the tool")]
    Listen(#[source] io::Error),
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Spawn(error) => error.into(),
            RunError::TimedOut(most) => Self::new(
                Code::EncodeTimeout,
                format!("A media tool took longer than {} s.", most.as_secs_f32()),
            ),
            RunError::Cancelled => Self::new(Code::Cancelled, "The job was cancelled."),
            RunError::Listen(error) => Self::new(Code::Internal, "A media tool could not be listened to.")
                .with_detail(error.to_string()),
        }
    }
}

/// Runs a tool and keeps the first `most` bytes of its output; the rest is read and thrown away.
pub(in crate::media) async fn run(
    spawner: &Spawner,
    spec: Spec,
    (time, most): (Duration, usize),
    cancel: &CancellationToken,
) -> Result<Finished, RunError> {
    let mut kept = Vec::new();
    let reader = async |stdout: Option<tokio::process::ChildStdout>| match stdout {
        Some(stdout) => keep(stdout, &mut kept, most).await,
        None => Ok(()),
    };
    let (status, log) = drive(spawner, spec, time, cancel, reader).await?;
    Ok(Finished { status, stdout: kept, log })
}

/// Runs a tool and calls `each` with every line of its output. `each` must be quick: the tool waits for it.
pub(in crate::media) async fn run_lines(
    spawner: &Spawner,
    spec: Spec,
    time: Duration,
    cancel: &CancellationToken,
    each: impl FnMut(&str),
) -> Result<Finished, RunError> {
    let reader = async |stdout: Option<tokio::process::ChildStdout>| match stdout {
        Some(stdout) => each_line(stdout, each).await,
        None => Ok(()),
    };
    let (status, log) = drive(spawner, spec, time, cancel, reader).await?;
    Ok(Finished { status, stdout: Vec::new(), log })
}

async fn drive(
    spawner: &Spawner,
    mut spec: Spec,
    time: Duration,
    cancel: &CancellationToken,
    reader: impl AsyncFnOnce(Option<tokio::process::ChildStdout>) -> io::Result<()>,
) -> Result<(ExitStatus, Vec<String>), RunError> {
    spec.limits = spec.limits.within(time);
    let mut child = spawner.spawn(spec).await?;
    let (stdout, stderr) = (child.take_stdout(), child.take_stderr());
    let mut log = Tail::new(LOG_LINES);
    let listen = async {
        let errors = async {
            match stderr {
                Some(stderr) => each_line(stderr, |line| log.push(line)).await,
                None => Ok(()),
            }
        };
        // All three at once: a full pipe would stop the tool, and its leftovers are killed by `wait`.
        let (out, err, status) = tokio::join!(reader(stdout), errors, child.wait());
        out?;
        err?;
        status
    };
    let status = tokio::select! {
        ended = tokio::time::timeout(time, listen) => match ended {
            Ok(status) => status.map_err(RunError::Listen)?,
            Err(_) => return Err(RunError::TimedOut(time)),
        },
        () = cancel.cancelled() => return Err(RunError::Cancelled),
    };
    Ok((status, log.into_lines()))
}

async fn keep(mut reader: impl AsyncRead + Unpin, kept: &mut Vec<u8>, most: usize) -> io::Result<()> {
    let mut chunk = vec![0_u8; 32 * 1024];
    loop {
        let read = reader.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        let room = most.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
}

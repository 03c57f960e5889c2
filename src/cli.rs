//! The command line: parses, wires, runs, and turns every ending into an exit code.
//!
//! Owns the commands (one file each) and is the only place that puts rooms together. Data goes to stdout, progress
//! and messages to stderr. Must not know: SQL, ffmpeg's arguments, message formats.
//! To add a command: a variant of [`Command`], a file with its arguments and `run`, a line in `dispatch`.

mod args;
mod assemble;
mod bar;
mod client;
mod completions;
mod config;
mod doctor;
mod encode;
mod files;
mod jobs;
mod key;
mod output;
mod presets;
mod probe;
mod retention;
mod serve;
mod sse;
mod submit;
mod validate;
mod watch;
mod webhooks;
mod workers;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use args::{Cli, Command};

use output::fail;

/// How a command ended (DESIGN §10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The job failed or was cancelled, or the command did.
    Failed = 1,
    /// Wrong arguments.
    Usage = 2,
    /// No such thing.
    NotFound = 3,
    /// Not allowed.
    Auth = 4,
    /// Refused as wrong.
    Validation = 5,
    /// The server or a needed program cannot be reached.
    Unavailable = 6,
    /// Interrupted.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with the exit code it stands for.
#[derive(Debug)]
pub(crate) struct Failed {
    exit: Exit,
    error: anyhow::Error,
}

impl Failed {
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }

    pub(crate) fn msg(exit: Exit, message: impl std::fmt::Display) -> Self {
        Self { exit, error: anyhow::anyhow!("{message}") }
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self { exit: Exit::Failed, error }
    }
}

pub(crate) type Outcome = Result<Exit, Failed>;

/// Runs the program on these arguments.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // The launcher becomes ffmpeg within a millisecond: no parser, no runtime, no threads before its exec.
    if arguments.get(1).is_some_and(|first| first == crate::media::process::LAUNCH_COMMAND) {
        return crate::media::process::launch_main(arguments.into_iter().skip(2));
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help to stdout and mistakes to stderr; a closed pipe is nobody's mistake.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("flux").build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(&anyhow::Error::new(error).context("cannot start the runtime"), Exit::Failed);
        }
    };
    let ending = runtime.block_on(dispatch(cli));
    // What still runs here was told to end and given its time; nothing may keep the process.
    runtime.shutdown_background();
    match ending {
        Ok(exit) => exit.into(),
        Err(failed) => fail(&failed.error, failed.exit),
    }
}

async fn dispatch(cli: Cli) -> Outcome {
    match cli.command {
        Command::Serve(args) => Box::pin(serve::run(args)).await,
        Command::Encode(args) => Box::pin(encode::run(args)).await,
        Command::Probe(args) => Box::pin(probe::run(args)).await,
        Command::Submit(args) => submit::run(args).await,
        Command::Jobs(args) => jobs::list(&args).await,
        Command::Job(args) => jobs::show(&args).await,
        Command::Watch(args) => watch::run(&args).await,
        Command::Cancel(args) => jobs::cancel(&args).await,
        Command::Retry(args) => jobs::retry(&args).await,
        Command::Delete(args) => jobs::delete(&args).await,
        Command::Logs(args) => jobs::logs(&args).await,
        Command::Presets(args) => presets::run(&args),
        Command::Retention(args) => retention::run(&args).await,
        Command::Workers(server) => workers::run(&server).await,
        Command::Doctor(args) => Box::pin(doctor::run(&args)).await,
        Command::Config(args) => config::run(&args),
        Command::Key(args) => key::run(&args),
        Command::Validate(args) => validate::run(args).await,
        Command::Webhooks(args) => webhooks::run(args.action).await,
        Command::Completions(args) => completions::run(&args),
    }
}

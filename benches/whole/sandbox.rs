//! What the launcher and its sandbox add to the start of a tool.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use flux::media::tools::Tools;

use super::report::{Report, median, percentile};

const ROUNDS: usize = 50;
const FLUX: &str = env!("CARGO_BIN_EXE_flux");

/// How a tool is started.
#[derive(Clone, Copy)]
enum Side {
    Bare,
    Launched,
    Confined,
}

const SIDES: [Side; 3] = [Side::Bare, Side::Launched, Side::Confined];

pub(crate) fn run(report: &mut Report) {
    eprintln!("sandbox");
    let ffmpeg = Tools::locate(Path::new("ffmpeg"), Path::new("ffprobe")).expect("ffmpeg").ffmpeg;
    let work = tempfile::tempdir().expect("a folder");
    let start = |side: Side| timed(command(side, &ffmpeg, work.path()));
    // Once each, so that nobody reads from the disk what the others then find in memory.
    for side in SIDES {
        if start(side).is_none() {
            report.add("sandbox", "not all of it is in this kernel".to_owned(), "");
            return;
        }
    }
    let mut took = [const { Vec::new() }; SIDES.len()];
    for round in 0..ROUNDS {
        for turn in 0..SIDES.len() {
            let at = (round + turn) % SIDES.len();
            took[at].push(start(SIDES[at]).expect("it ran before"));
        }
    }
    let [bare, launched, confined] = took;
    let pairs = |of: &[f64], to: &[f64]| of.iter().zip(to).map(|(of, to)| of - to).collect::<Vec<_>>();
    add(report, "ffmpeg -version by itself", &bare);
    add(report, "  more through the launcher, without sandbox", &pairs(&launched, &bare));
    add(report, "  more for the sandbox", &pairs(&confined, &launched));
    let ratios: Vec<_> = confined.iter().zip(&bare).map(|(with, without)| with / without).collect();
    report.add("  launcher and sandbox / by itself", format!("{:.3}", median(&ratios)), "");
}

fn add(report: &mut Report, what: &str, seconds: &[f64]) {
    let [middle, low, high] =
        [median(seconds), percentile(seconds, 0.1), percentile(seconds, 0.9)].map(|part| part * 1e3);
    report.add(what, format!("{middle:.2} ms  ({low:.2} to {high:.2})"), "");
}

/// As the worker starts an encoder: with bounds, a folder to write in and a port to read from.
fn command(side: Side, ffmpeg: &PathBuf, work: &Path) -> Command {
    let mut command = match side {
        Side::Bare => Command::new(ffmpeg),
        Side::Launched | Side::Confined => {
            let mut command = Command::new(FLUX);
            command.args(["__launch", "--parent", &std::process::id().to_string(), "--nice", "0"]);
            command.args(["--file-size", "1000000000", "--open-files", "1024"]);
            if matches!(side, Side::Confined) {
                command.args(["--sandbox", "required", "--port", "4000", "--write"]).arg(work);
            }
            command.arg("--").arg(ffmpeg);
            command
        }
    };
    command.arg("-version").env_clear().current_dir(work);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Seconds from its start to its end; `None` where it failed.
fn timed(mut command: Command) -> Option<f64> {
    let begun = Instant::now();
    let ended = command.status().expect("it starts");
    ended.success().then(|| begun.elapsed().as_secs_f64())
}

//! The price of the service: a job through the API against bare ffmpeg with the same arguments, and a folder of clips
//! against a shell script.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use flux::domain::preset::{EncodeSpec, Presets};
use flux::domain::{OutputIndex, limits::SourceLimits};
use flux::media;

use super::clip;
use super::process::{Server, job};
use super::report::{Report, median, percentile};

/// Rounds; each runs every side once, beginning with another one.
const ROUNDS: usize = 4;
pub(crate) const PRESET: &str = "720p_h264";

/// One side of the comparison. `None` leaves the checking to the server's default, which is sampled.
const SIDES: [(&str, Option<&str>, &str); 3] = [
    ("sampled, the default", None, "≤ 1.05"),
    ("probe", Some("probe"), "≤ 1.02"),
    ("full", Some("full"), ""),
];

pub(crate) async fn run(report: &mut Report) {
    eprintln!("overhead");
    let server = Server::start(&[]);
    let clip = clip::hd(30);
    let arguments = bare_arguments(&clip).await;
    let work = tempfile::tempdir().expect("a folder");
    server.settled().await;
    let mut ratios = [const { Vec::new() }; SIDES.len()];
    let mut bares = Vec::new();
    for round in 0..ROUNDS {
        // Each side is as often the first as the last: a machine that warms up or throttles favours none.
        let (mut with, mut without) = ([0.0; SIDES.len()], 0.0);
        for turn in 0..=SIDES.len() {
            match (round + turn) % (SIDES.len() + 1) {
                0 => without = bare(&arguments, work.path()),
                side => with[side - 1] = through_flux(&server, &clip, SIDES[side - 1].1).await,
            }
        }
        eprintln!("  bare {without:.2} s, through flux {with:.2?} s");
        bares.push(without);
        for (ratios, with) in ratios.iter_mut().zip(with) {
            ratios.push(with / without);
        }
    }
    report.add("bare ffmpeg, 30 s of 720p", format!("{:.1} s", median(&bares)), "");
    for ((level, _, target), ratios) in SIDES.iter().zip(&ratios) {
        let (least, most) = (percentile(ratios, 0.0), percentile(ratios, 1.0));
        let figure = format!("{:.3}  ({least:.3} to {most:.3})", median(ratios));
        report.add(&format!("  through the API / bare, verify {level}"), figure, target);
    }
    folder_of_clips(report, &server, work.path()).await;
}

async fn through_flux(server: &Server, clip: &Path, level: Option<&str>) -> f64 {
    let begun = Instant::now();
    let id = server.submit(&job(clip, PRESET, level)).await;
    server.completed(&id).await;
    begun.elapsed().as_secs_f64()
}

pub(crate) fn bare(arguments: &[String], work: &Path) -> f64 {
    let begun = Instant::now();
    // The same niceness as the worker's, the same sinks.
    let status = Command::new("nice")
        .args(["-n", "10", "ffmpeg"])
        .args(arguments)
        .current_dir(work)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.is_ok_and(|s| s.success()), "bare ffmpeg failed");
    begun.elapsed().as_secs_f64()
}

/// What the worker would pass to ffmpeg for this clip.
pub(crate) async fn bare_arguments(clip: &Path) -> Vec<String> {
    planned(clip, Presets::builtin().get(PRESET).expect("a built-in preset").clone()).await
}

/// The same for any output.
pub(crate) async fn planned(clip: &Path, spec: EncodeSpec) -> Vec<String> {
    let spawner = media::process::Spawner::start(media::process::Launcher::Direct).expect("a thread");
    let tools = media::tools::Tools::locate(Path::new("ffmpeg"), Path::new("ffprobe")).expect("ffmpeg");
    let toolbox = media::Toolbox { spawner, tools };
    let input = media::Input::File(clip.to_owned());
    let demuxer = flux::domain::Demuxer::Mov;
    let size = std::fs::metadata(clip).expect("the clip").len();
    let info = media::probe::probe(&toolbox, &input, demuxer, size, &SourceLimits::default())
        .await
        .expect("a probe");
    let plan =
        media::plan::plan(&info, &[(OutputIndex(0), spec)], &media::plan::Policy::default()).expect("a plan");
    let limits = media::argv::Limits::default();
    let reading = media::argv::Reading { input: &input, demuxer, limits: &limits };
    media::argv::encode(&plan, &reading, &media::argv::Gains::new())
}

/// Eight short clips, all at once through flux against one after the other in a loop, as a naive script does it.
async fn folder_of_clips(report: &mut Report, server: &Server, work: &Path) {
    let clip = clip::hd(4);
    let arguments = bare_arguments(&clip).await;
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let mut ids = Vec::new();
        for _ in 0..8 {
            ids.push(server.submit(&job(&clip, PRESET, None)).await);
        }
        for id in ids {
            server.completed(&id).await;
        }
        let through = begun.elapsed().as_secs_f64();
        let script: f64 = (0..8).map(|_| bare(&arguments, work)).sum();
        ratios.push(through / script);
    }
    report.add("8 clips of 4 s, flux / a script's loop", format!("{:.3}", median(&ratios)), "");
}

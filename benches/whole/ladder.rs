//! A ladder through the service against the same pictures one after the other, and against one ffmpeg that makes them all.

use std::path::Path;
use std::time::{Duration, Instant};

use flux::domain::preset::{EncodeSpec, Presets};
use serde_json::{Value, json};

use super::clip;
use super::overhead::{bare, planned};
use super::process::{Children, Server, seconds, spent, ticks};
use super::report::{Report, median, percentile};

/// Each runs every side once, beginning with another one.
const ROUNDS: usize = 2;
/// Speed, and the bound on the ratio to the pictures one after the other (measured by hand: 0.84, and 0.67 to 0.76).
const SPEEDS: [(&str, &str); 2] = [("medium", "≤ 0.88"), ("veryfast", "≤ 0.78")];

/// Between two looks at what the encoder used: what it uses after the last one is missed.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) async fn run(report: &mut Report) {
    eprintln!("ladder");
    let server = Server::start(&[]);
    let clip = clip::hd(20);
    let work = tempfile::tempdir().expect("a folder");
    server.settled().await;
    for (speed, bound) in SPEEDS {
        let (ladder, rungs) = specs(speed);
        let one = planned(&clip, ladder).await;
        let mut apart = Vec::new();
        for rung in rungs {
            apart.push(planned(&clip, rung).await);
        }
        let (mut to_apart, mut to_one, mut checked) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let (mut through, mut whole, mut row, mut single) = (0.0, 0.0, 0.0, 0.0);
            for turn in 0..4 {
                match (round + turn) % 4 {
                    0 => row = apart.iter().map(|arguments| bare(arguments, work.path())).sum(),
                    1 => single = bare(&one, work.path()),
                    2 => through = through_flux(&server, &clip, speed, "probe").await,
                    _ => whole = through_flux(&server, &clip, speed, "sampled").await,
                }
            }
            eprintln!(
                "  {speed}: in a row {row:.2} s, one ffmpeg {single:.2} s, through flux {through:.2} s, sampled {whole:.2} s"
            );
            to_apart.push(through / row);
            to_one.push(through / single);
            checked.push(whole / single);
        }
        let figure = |ratios: &[f64]| {
            let (least, most) = (percentile(ratios, 0.0), percentile(ratios, 1.0));
            format!("{:.3}  ({least:.3} to {most:.3})", median(ratios))
        };
        let name = format!("ladder 720p, 480p, 360p, {speed}: flux, verify probe / in a row");
        report.add(&name, figure(&to_apart), bound);
        report.add("  flux, verify probe / one ffmpeg", figure(&to_one), "≤ 1.03");
        report.add("  flux, verify sampled / one ffmpeg", figure(&checked), "");
    }
    for (speed, bound) in [("medium", "≤ 3 %"), ("veryfast", "≤ 8 %")] {
        let more = beside_the_encode(&server, speed).await;
        let name =
            format!("CPU of flux beside the encode of a minute's ladder, {speed}: probe, checks, packaging");
        report.add(&name, format!("{:.1} %", more * 100.0), bound);
    }
}

/// What flux spends around the encoder of a minute's ladder, as a part of what that encoder itself spends in the same
/// job: another run of it differs by more than what is looked for. A minute, because what is shorter than 20 s is decoded
/// whole.
async fn beside_the_encode(server: &Server, speed: &str) -> f64 {
    let clip = clip::hd(60);
    let (mut children, mut look) = (Children::default(), tokio::time::interval(LOOK));
    let (before, own) = (spent(server.pid()), ticks(server.pid()));
    let mut job = Box::pin(through_flux(server, &clip, speed, "sampled"));
    loop {
        tokio::select! {
            _ = &mut job => break,
            _ = look.tick() => children.look(server.pid()),
        }
    }
    let (all, own) = (spent(server.pid()) - before, seconds(ticks(server.pid()) - own));
    let (encoder, encoders) = children.spent(encodes);
    assert_eq!(encoders, 1, "one encoder makes the ladder");
    let probing = |line: &[String]| line.iter().any(|word| word.ends_with("ffprobe"));
    let (probes, asked) = children.spent(probing);
    let (others, more) = children.spent(|line| !probing(line) && !encodes(line));
    eprintln!(
        "  {speed}: encoder {encoder:.2} s of CPU, all {all:.2} s; the server itself {own:.2} s, \
         ffprobe {probes:.2} s ({asked} seen), other ffmpeg {others:.2} s ({more} seen)"
    );
    all / encoder - 1.0
}

/// Whether this is the command line that makes the ladder: a graph of filters, written in fragments.
fn encodes(line: &[String]) -> bool {
    ["-filter_complex", "frag_keyframe"].iter().all(|word| line.iter().any(|has| has.contains(word)))
}

/// The output that is asked for.
fn output(speed: &str) -> Value {
    let rung = |name: &str, size: &str, max: &str| json!({ "name": name, "box": size, "rate": { "mode": "capped_crf", "crf": 23, "max": max } });
    json!({
        "video": { "speed": speed },
        "ladder": [
            rung("720p", "1280x720", "3000k"),
            rung("480p", "854x480", "1500k"),
            rung("360p", "640x360", "900k"),
        ],
    })
}

/// The ladder, and its rungs one by one; the sound goes with the first.
fn specs(speed: &str) -> (EncodeSpec, Vec<EncodeSpec>) {
    let Value::Object(fields) = output(speed) else { unreachable!("an object") };
    let ladder = Presets::builtin().resolve(Some("hls_1080p_abr"), fields).expect("a good output");
    let alone = |n: usize| EncodeSpec {
        ladder: vec![ladder.ladder[n].clone()],
        audio: ladder.audio.clone().filter(|_| n == 0),
        ..ladder.clone()
    };
    let rungs = (0..ladder.ladder.len()).map(alone).collect();
    (ladder, rungs)
}

async fn through_flux(server: &Server, clip: &Path, speed: &str, verify: &str) -> f64 {
    let mut output = output(speed);
    output["preset"] = "hls_1080p_abr".into();
    output["destination"] = json!({ "kind": "storage", "path": "ladder/{job_id}" });
    let job = json!({ "source": { "kind": "file", "path": clip }, "outputs": [output], "verify": verify });
    let begun = Instant::now();
    let id = server.submit(&job).await;
    server.completed(&id).await;
    begun.elapsed().as_secs_f64()
}

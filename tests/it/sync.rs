//! Picture against sound where players switch, and loudness as it is measured in the result.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::clips;
use crate::support::server::Server;

/// The real ffmpeg; what it wrote, both streams after each other.
fn ffmpeg(arguments: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "tests measure with the real ffmpeg")]
    let run = Command::new("ffmpeg").args(["-hide_banner", "-nostdin"]).args(arguments).output().unwrap();
    assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr)
}

/// The files of one rendition of a set, in order, the init first.
fn files(server: &Server, result: &Value, rendition: &str) -> Vec<PathBuf> {
    let named =
        |file: &Value, role: &str| file["role"] == role && file["path"].as_str().unwrap().contains(rendition);
    let files = result["files"].as_array().unwrap();
    let of = |role: &str| {
        files
            .iter()
            .filter(|file| named(file, role))
            .map(|file| file["path"].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    let storage = server.data().join("storage");
    [of("init"), of("segment")].concat().into_iter().map(|path| storage.join(path)).collect()
}

/// Puts an init and segments together, as a player's buffer does.
fn together(name: &str, folder: &Path, parts: &[PathBuf]) -> String {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| std::fs::read(part).unwrap()).collect();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// When the picture is white, seconds on the presentation's timeline.
fn flashes(file: &str) -> Vec<f64> {
    let filter = "signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=-";
    let told = ffmpeg(&["-v", "error", "-copyts", "-i", file, "-vf", filter, "-f", "null", "-"]);
    let (mut at, mut found) = (0.0, Vec::new());
    for line in told.lines() {
        if let Some((_, time)) = line.split_once("pts_time:") {
            at = time.trim().parse().unwrap();
        } else if let Some((_, bright)) = line.split_once("YAVG=")
            && bright.parse::<f64>().unwrap() > 120.0
        {
            found.push(at);
        }
    }
    found
}

/// When the sound begins after silence.
fn beeps(file: &str) -> Vec<f64> {
    let told = ffmpeg(&["-copyts", "-i", file, "-af", "silencedetect=noise=-30dB:d=0.3", "-f", "null", "-"]);
    let ends = told.split("silence_end: ").skip(1).map(|rest| rest.split([' ', '\n']).next().unwrap());
    ends.map(|end| end.parse().unwrap()).collect()
}

#[tokio::test]
async fn sound_and_picture_stay_together_where_players_switch() {
    let server = Server::start().await;
    let set = json!({
        "preset": "dash_1080p",
        "video": { "speed": "ultrafast", "gop_seconds": 1.0 },
        "package": { "segment_seconds": 2 },
        "ladder": [
            { "name": "big", "box": "320x180", "rate": { "mode": "crf", "crf": 24 } },
            { "name": "small", "box": "160x90", "rate": { "mode": "crf", "crf": 24 } },
        ],
        "destination": { "kind": "storage", "path": "sync" },
    });
    let clip = clips::flash_and_beep();
    let body = json!({ "source": { "kind": "file", "path": clip.to_str().unwrap() }, "outputs": [set] });
    let job = server.finished(&server.submit(&body).await).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    let result = &job["outputs"][0]["result"];
    let (big, small) = (files(&server, result, "big"), files(&server, result, "small"));
    assert_eq!((big.len(), small.len()), (5, 5), "an init and four segments");
    let folder = tempfile::tempdir().unwrap();
    let before = together("before.mp4", folder.path(), &big[..3]);
    let after = together("after.mp4", folder.path(), &[&small[..1], &small[3..]].concat());
    let sound = together("sound.mp4", folder.path(), &files(&server, result, "audio_0"));
    let seen = [flashes(&before), flashes(&after)].concat();
    let heard = beeps(&sound);
    assert_eq!(seen.len(), 8, "{seen:?}");
    // The first beep begins with the sound: no silence ends there. The last silence ends with the sound.
    assert!(heard.len() >= 7, "{heard:?}");
    for (second, (flash, beep)) in (1_u32..).zip(seen.iter().skip(1).zip(&heard)) {
        assert!((flash - f64::from(second)).abs() <= 0.04, "flash {second} at {flash}: {seen:?}");
        assert!((flash - beep).abs() <= 0.04, "flash at {flash}, beep at {beep}");
    }
    server.assert_clean().await;
}

/// Integrated loudness in LUFS and true peak in dBTP.
fn loudness(file: &Path) -> (f64, f64) {
    loudness_of(file, 0)
}

/// The same of one of several sounds.
fn loudness_of(file: &Path, track: usize) -> (f64, f64) {
    let (file, track) = (file.to_str().unwrap(), format!("0:a:{track}"));
    let told = ffmpeg(&["-i", file, "-map", &track, "-af", "ebur128=peak=true", "-f", "null", "-"]);
    let summary = told.rsplit("Summary:").next().unwrap();
    let number = |name: &str| {
        let rest = summary.split(name).nth(1).unwrap().trim_start();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    (number("I:"), number("Peak:"))
}

#[tokio::test]
async fn loudness_is_what_was_asked_for_unless_the_peak_forbids() {
    let server = Server::start().await;
    let target = json!({ "target": -16.0, "true_peak": -1.5 });
    for (name, sound, mode) in [
        ("quiet", "0.05*sin(2*PI*330*t)*(1+0.3*sin(2*PI*0.5*t))", "reached"),
        ("loud", "0.9*sin(2*PI*330*t)", "reached"),
        ("peaks", "0.02*sin(2*PI*330*t)+if(lt(mod(t,2),0.002),0.9*sin(2*PI*1000*t),0)", "peak_limited"),
        ("silence", "0", "untouched"),
    ] {
        let clip = clips::sound(name, sound);
        let output = json!({ "preset": "audio_m4a", "audio": { "loudness": target, "channels": 1 },
            "destination": { "kind": "storage", "path": format!("loud/{name}.m4a") } });
        let body =
            json!({ "source": { "kind": "file", "path": clip.to_str().unwrap() }, "outputs": [output] });
        let job = server.finished(&server.submit(&body).await).await;
        assert_eq!(job["status"], "completed", "{name}: {job:#}");
        let result = &job["outputs"][0]["result"];
        let told = &result["streams"][0]["loudness"];
        assert_eq!(told["mode"], mode, "{name}: {result:#}");
        let (measured, peak) = loudness(&server.data().join(format!("storage/loud/{name}.m4a")));
        match mode {
            "reached" => assert!((measured - -16.0).abs() <= 0.5, "{name}: {measured} LUFS"),
            "peak_limited" => {
                let reached = told["reached_lufs"].as_f64().unwrap();
                assert!(
                    (measured - reached).abs() <= 0.5 && measured < -16.5,
                    "{name}: {measured}, told {reached}"
                );
            }
            _ => assert!(measured <= -70.0, "{name}: {measured} LUFS"),
        }
        assert!(peak <= -1.0, "{name}: {peak} dBTP");
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn every_sound_of_a_file_keeps_its_language_and_reaches_its_loudness() {
    let server = Server::start().await;
    for (extension, codec) in [("mp4", "aac"), ("mkv", "opus"), ("mov", "aac")] {
        let output = json!({
            "container": extension,
            "video": { "codec": "h264", "speed": "ultrafast" },
            "audio": { "codec": codec, "tracks": ["fra", "deu"], "channels": 1, "loudness": { "target": -20.0 } },
            "destination": { "kind": "storage", "path": "two.{ext}" },
        });
        let clip = clips::two_sounds();
        let body =
            json!({ "source": { "kind": "file", "path": clip.to_str().unwrap() }, "outputs": [output] });
        let job = server.finished(&server.submit(&body).await).await;
        assert_eq!(job["status"], "completed", "{extension}: {job:#}");
        let streams = job["outputs"][0]["result"]["streams"].as_array().unwrap();
        let told: Vec<_> = streams.iter().map(|stream| stream["language"].as_str()).collect();
        let german = if extension == "mov" { "ger" } else { "deu" };
        assert_eq!(told, [None, Some("fra"), Some(german)], "{extension}");
        let gains: Vec<_> = streams[1..].iter().map(|s| s["loudness"]["gain_db"].as_f64().unwrap()).collect();
        assert!(gains[0] > 3.0 && gains[1] < -3.0, "{extension}: {gains:?}");
        let file = server.data().join("storage/two").with_extension(extension);
        for track in 0..2 {
            let (measured, _) = loudness_of(&file, track);
            assert!((measured - -20.0).abs() <= 0.5, "{extension}, track {track}: {measured} LUFS");
        }
    }
    server.assert_clean().await;
}

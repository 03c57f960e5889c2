//! Subtitles of a source in sets and in files.

use std::path::PathBuf;
use std::process::Command;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::clips;
use crate::support::server::{Server, flux};

async fn finished(server: &Server, clip: &std::path::Path, output: Value) -> Value {
    let body = json!({ "source": { "kind": "file", "path": clip.to_str().unwrap() }, "outputs": [output] });
    let job = server.finished(&server.submit(&body).await).await;
    assert_eq!(job["status"], "completed", "{}: {job:#}", clip.display());
    job["outputs"][0]["result"].clone()
}

fn set(path: &str, fields: &Value) -> Value {
    let mut output = json!({
        "preset": "hls_1080p_abr",
        "video": { "speed": "ultrafast" },
        "ladder": [{ "name": "small", "box": "160x90", "rate": { "mode": "crf", "crf": 30 } }],
        "destination": { "kind": "storage", "path": path },
    });
    output.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    output
}

/// The texts of all files of a result whose names end so, in order.
fn texts(server: &Server, result: &Value, end: &str) -> Vec<String> {
    let files = result["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap());
    let read = |path: &str| std::fs::read_to_string(server.data().join("storage").join(path)).unwrap();
    files.filter(|path| path.ends_with(end)).map(read).collect()
}

fn passes(server: &Server, place: &str) {
    let checked =
        flux(&["validate", server.data().join("storage").join(place).to_str().unwrap()]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// When each text is shown, seconds, and what it says.
fn shown(text: &str) -> Vec<(f64, f64, String)> {
    let seconds = |time: &str| {
        let parts: Vec<f64> = time.split(':').map(|part| part.parse().unwrap()).collect();
        parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]
    };
    let blocks = text
        .split("\n\n")
        .filter_map(|block| block.split_once('\n').filter(|(line, _)| line.contains(" --> ")));
    blocks
        .map(|(times, text)| {
            let (start, end) = times.split_once(" --> ").unwrap();
            (seconds(start), seconds(end), text.trim_end().to_owned())
        })
        .collect()
}

/// Within a frame: what a codec's first samples only fill the decoder with counts as part of the film.
fn assert_shown(text: &str, wanted: &[(f64, f64, &str)]) {
    let found = shown(text);
    assert_eq!(found.len(), wanted.len(), "{text}");
    for (found, wanted) in found.iter().zip(wanted) {
        let near = |a: f64, b: f64| (a - b).abs() <= 0.04;
        assert!(
            near(found.0, wanted.0) && near(found.1, wanted.1) && found.2 == wanted.2,
            "{found:?}, {wanted:?}"
        );
    }
}

const TEXTS: [(f64, f64, &str); 3] =
    [(0.5, 1.5, "<i>Guten</i> Tag"), (3.5, 5.5, "Tom &amp; Jerry &lt;3\nx --&gt; y"), (6.2, 8.0, "Schluss")];

#[tokio::test]
async fn subtitles_become_renditions_in_hls_and_dash() {
    let server = Server::start().await;
    for source in ["mkv", "mp4"] {
        let place = format!("text/{source}");
        let result = finished(&server, &clips::subtitled(source), set(&place, &json!({}))).await;
        let [master] = &texts(&server, &result, "master.m3u8")[..] else { panic!("{result:#}") };
        let media: Vec<_> = master.lines().filter(|line| line.contains("TYPE=SUBTITLES")).collect();
        assert_eq!(media.len(), 2, "{master}");
        assert!(
            media[0].contains("NAME=\"Deutsch\",LANGUAGE=\"de\",DEFAULT=NO,AUTOSELECT=YES,FORCED=NO,URI="),
            "{}",
            media[0]
        );
        assert!(media[1].contains("NAME=\"English (SDH)\",LANGUAGE=\"en\""), "{}", media[1]);
        assert!(media[1].contains("describes-music-and-sound"), "{}", media[1]);
        let variant = master.lines().find(|line| line.starts_with("#EXT-X-STREAM-INF")).unwrap();
        assert!(variant.contains(",SUBTITLES=\"captions\""), "{variant}");
        let segments = texts(&server, &result, "captions_0_00000.vtt");
        let head = "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0\n";
        assert!(segments[0].starts_with(head), "{}", segments[0]);
        assert_shown(&segments[0], &TEXTS);
        let whole = texts(&server, &result, "captions_1.vtt");
        assert_shown(&whole[0], &TEXTS);
        let [mpd] = &texts(&server, &result, "manifest.mpd")[..] else { panic!("{result:#}") };
        assert!(mpd.contains("contentType=\"text\" mimeType=\"text/vtt\" lang=\"de\""), "{mpd}");
        passes(&server, &format!("{place}/master.m3u8"));
        passes(&server, &format!("{place}/manifest.mpd"));
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn clips_keep_what_is_shown_while_they_last() {
    let server = Server::start().await;
    for source in ["mkv", "mp4"] {
        let fields = json!({
            "clip": { "start": 4.4, "duration": 2 },
            "captions": { "languages": ["eng", "ger"] },
            "package": { "manifests": ["dash"] },
        });
        let clip = set(&format!("clip/{source}"), &fields);
        let result = finished(&server, &clips::subtitled(source), clip).await;
        let whole = texts(&server, &result, "captions_1.vtt");
        assert_shown(&whole[0], &[(0.0, 1.1, TEXTS[1].2), (1.8, 2.0, TEXTS[2].2)]);
        assert_eq!(texts(&server, &result, ".mpd")[0].matches("text/vtt").count(), 2);
        passes(&server, &format!("clip/{source}/manifest.mpd"));
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn transport_streams_say_where_their_clock_is() {
    let server = Server::start().await;
    let output = json!({
        "preset": "hls_720p",
        "video": { "speed": "ultrafast" },
        "captions": { "source": "auto" },
        "destination": { "kind": "storage", "path": "ts/{name}" },
    });
    let result = finished(&server, &clips::subtitled("mkv"), output).await;
    let segments = texts(&server, &result, "captions_0_00000.vtt");
    let clock = segments[0].lines().nth(1).and_then(|line| line.split_once("MPEGTS:")).unwrap().1;
    let storage = server.data().join("storage");
    let media = result["files"].as_array().unwrap().iter().find(|file| file["content_type"] == "video/mp2t");
    let media = storage.join(media.unwrap()["path"].as_str().unwrap());
    let arguments = ["-v", "error", "-select_streams", "v", "-show_entries", "packet=pts", "-of", "csv=p=0"];
    #[expect(clippy::disallowed_methods, reason = "tests measure with the real ffprobe")]
    let probed = Command::new("ffprobe").args(arguments).arg(media).output().unwrap();
    let first = String::from_utf8(probed.stdout).unwrap();
    let first =
        first.lines().filter_map(|line| line.trim_end_matches(',').parse::<u64>().ok()).min().unwrap();
    assert_eq!(clock.parse::<u64>().unwrap(), first);
    assert!(first > 0, "a clock that begins at zero would prove nothing");
    server.assert_clean().await;
}

#[tokio::test]
async fn subtitles_become_tracks_of_files() {
    let server = Server::start().await;
    for (container, codec, text) in [
        ("mp4", json!({ "codec": "h264" }), "mov_text"),
        ("mov", json!({ "codec": "h264" }), "mov_text"),
        ("mkv", json!({ "codec": "copy" }), "subrip"),
    ] {
        let output = json!({
            "container": container,
            "video": codec,
            "captions": { "source": "auto", "languages": ["eng", "ger"] },
            "destination": { "kind": "storage", "path": "muxed.{ext}" },
        });
        let result = finished(&server, &clips::subtitled("mkv"), output).await;
        let streams: Vec<_> = result["streams"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|stream| stream["kind"] == "subtitle")
            .collect();
        let told: Vec<_> = streams.iter().map(|s| (s["codec"].as_str(), s["language"].as_str())).collect();
        assert_eq!(told, [(Some(text), Some("eng")), (Some(text), Some("ger"))], "{container}");
        let file = server.data().join("storage").join(format!("muxed.{container}"));
        let found = extracted(&file);
        assert!(found.contains("Guten</i> Tag") && found.contains("Jerry <3"), "{container}: {found}");
    }
    server.assert_clean().await;
}

/// The second track of subtitles.
fn extracted(file: &PathBuf) -> String {
    #[expect(clippy::disallowed_methods, reason = "tests measure with the real ffmpeg")]
    let run = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(file)
        .args(["-map", "0:s:1", "-f", "srt", "-"])
        .output()
        .unwrap();
    String::from_utf8(run.stdout).unwrap()
}

#[tokio::test]
async fn subtitles_that_cannot_be_are_refused() {
    let server = Server::start().await;
    let clip = clips::subtitled("mkv");
    for (output, pointer, said) in [
        (json!({ "preset": "audio_m4a", "captions": {} }), "/outputs/0/captions", "carries no subtitles"),
        (json!({ "preset": "1080p_vp9", "captions": {} }), "/outputs/0/captions", "carries no subtitles"),
        (
            json!({ "preset": "720p_h264", "captions": { "mode": "hls" } }),
            "/outputs/0/captions/mode",
            "carries subtitles as",
        ),
        (
            json!({ "preset": "720p_h264", "captions": {}, "clip": { "start": 1 } }),
            "/outputs/0/captions",
            "only in hls, dash and cmaf",
        ),
        (
            json!({ "preset": "hls_1080p_abr", "captions": { "source": ["file:///a.srt"] } }),
            "/outputs/0/captions/source",
            "not available in this version",
        ),
        (
            json!({ "preset": "hls_1080p_abr", "captions": { "languages": "first" } }),
            "/outputs/0/captions/languages",
            "1 to 16 languages",
        ),
    ] {
        let mut output = output;
        output["destination"] = json!({ "kind": "storage", "path": "refused" });
        let body =
            json!({ "source": { "kind": "file", "path": clip.to_str().unwrap() }, "outputs": [output] });
        let (status, problem) = server.post("/api/v1/jobs", &body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem:#}");
        let fault = &problem["errors"][0];
        assert_eq!(fault["pointer"], pointer, "{problem:#}");
        assert!(fault["detail"].as_str().unwrap().contains(said), "{problem:#}");
    }
    // Who wants none gets none.
    let none = set("none", &json!({ "captions": { "source": "none" } }));
    let result = finished(&server, &clip, none).await;
    assert_eq!(texts(&server, &result, ".vtt"), Vec::<String>::new());
    server.assert_clean().await;
}

#[test]
fn the_probe_tells_of_subtitles() {
    let clip = clips::subtitled("mkv");
    let told = flux(&["probe", clip.to_str().unwrap()]).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let rows: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().collect()).collect();
    let row = |index: &str| rows.iter().find(|row| row[0] == index).map(|row| row[1..].join(" ")).unwrap();
    assert_eq!(row("2"), "subtitles subrip text, ger");
    assert_eq!(row("3"), "subtitles subrip text, eng, for those who do not hear");
}

//! Parts of sources, and outputs that share an encode or must not suffer from one that fails.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::clips;
use crate::support::server::{Server, Start};

fn job(clip: &Path, outputs: &Value) -> Value {
    json!({ "source": { "kind": "file", "path": clip.to_str().unwrap() }, "outputs": outputs })
}

fn output(path: &str, fields: &Value) -> Value {
    let mut output = json!({ "preset": "480p_h264", "destination": { "kind": "storage", "path": path } });
    output.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    output
}

/// Where the server's storage has what an output is.
fn file(server: &Server, output: &Value) -> PathBuf {
    server.data().join("storage").join(output["destination"]["path"].as_str().unwrap())
}

/// How alike the pictures of `found` are to those of `source` from `start` on; 1 = the same.
fn likeness(found: &Path, source: &Path, start: f64) -> f64 {
    let graph = format!(
        "[1:v]trim=start={start}:duration=1,setpts=PTS-{start}/TB[b];[0:v]scale=320:180[a];[a][b]ssim=shortest=1"
    );
    #[expect(clippy::disallowed_methods, reason = "tests measure with the real ffmpeg")]
    let run = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-i"])
        .arg(found)
        .arg("-i")
        .arg(source)
        .args(["-filter_complex", &graph, "-f", "null", "-"])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&run.stderr);
    let all = log.rsplit("All:").next().and_then(|rest| rest.split(' ').next());
    all.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no measure: {log}"))
}

#[tokio::test]
async fn clips_are_exact_in_every_container() {
    let server = Server::start().await;
    for source in [clips::mp4(5), clips::other("mkv"), clips::other("ts"), clips::other("avi")] {
        let clip = json!({ "clip": { "start": "00:00:01.480", "duration": 2 }, "video": { "crf": 18 } });
        let server_job = job(&source, &json!([output("part/{name}_{index}.{ext}", &clip)]));
        let ended = server.finished(&server.submit(&server_job).await).await;
        assert_eq!(ended["status"], "completed", "{source:?}: {ended:#}");
        let result = &ended["outputs"][0]["result"];
        assert_eq!(result["frames"], 50, "{source:?}");
        let seconds = result["duration_seconds"].as_f64().unwrap();
        assert!((2.0..2.1).contains(&seconds), "{source:?}: {seconds}");
        let (right, early) = (
            likeness(&file(&server, &ended["outputs"][0]), &source, 1.48),
            likeness(&file(&server, &ended["outputs"][0]), &source, 1.44),
        );
        assert!(right > 0.97 && right > early, "{source:?}: {right}, a frame early {early}");
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn clips_where_a_track_begins_late_or_ends_early_are_no_failures() {
    let server = Server::start().await;
    for (source, clip, frames) in [
        (clips::short_sound(), json!({ "start": 1, "duration": 3 }), Some(75)),
        (clips::late_picture(), json!({ "start": 0, "duration": 1.5 }), None),
        (clips::late_picture(), json!({ "start": 0.25 }), None),
    ] {
        let even = json!({ "clip": clip, "video": { "fps": { "mode": "cfr" } } });
        let body = job(&source, &json!([output("edge/{name}_{job_id}.mp4", &even)]));
        let ended = server.finished(&server.submit(&body).await).await;
        assert_eq!(ended["status"], "completed", "{source:?}: {ended:#}");
        if let Some(frames) = frames {
            assert_eq!(ended["outputs"][0]["result"]["frames"], frames, "{source:?}");
        }
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn each_output_may_have_its_own_part() {
    let server = Server::start().await;
    let mut body = job(
        &clips::mp4(5),
        &json!([
            output("own/first.mp4", &json!({})),
            output("own/second.mp4", &json!({ "clip": { "start": 4.0 } })),
            output("own/third.mp4", &json!({ "clip": { "start": 3, "duration": 60 } })),
            output("own/sound.m4a", &json!({ "preset": "audio_m4a" })),
            output("own/set", &json!({ "preset": "hls_720p_abr", "video": { "speed": "ultrafast" } })),
            output("own/never.mp4", &json!({ "clip": { "start": 61 } })),
        ]),
    );
    body["clip"] = json!({ "start": 1, "duration": 2.0 });
    let ended = server.finished(&server.submit(&body).await).await;
    assert_eq!(ended["status"], "failed", "{ended:#}");
    let outputs = ended["outputs"].as_array().unwrap();
    let told = |n: usize| (outputs[n]["status"].clone(), outputs[n]["result"]["frames"].clone());
    assert_eq!(told(0), (json!("completed"), json!(50)));
    assert_eq!(told(1), (json!("completed"), json!(25)));
    assert_eq!(told(2), (json!("completed"), json!(50)));
    let warnings = outputs[2]["result"]["warnings"].as_array().unwrap();
    assert!(
        warnings.iter().any(|warning| warning.as_str().unwrap().starts_with("clip_shortened")),
        "{ended:#}"
    );
    let seconds = outputs[3]["result"]["duration_seconds"].as_f64().unwrap();
    assert!((1.99..2.1).contains(&seconds), "{seconds}");
    assert_eq!(told(4), (json!("completed"), json!(50)));
    assert_eq!(outputs[5]["error"]["code"], "clip_out_of_range");
    server.assert_clean().await;
}

#[tokio::test]
async fn a_clip_of_nothing_is_refused_where_it_was_written() {
    let server = Server::start().await;
    for (clip, at) in [
        (json!({ "duration": 0 }), "/clip/duration"),
        (json!({ "start": "1:2:3:4" }), "/clip/start"),
        (json!({ "end": 2 }), "/clip/end"),
        (json!(7), "/clip"),
    ] {
        let mut body = job(&clips::mp4(1), &json!([output("never.mp4", &json!({}))]));
        body["clip"] = clip.clone();
        let (status, problem) = server.post("/api/v1/jobs", &body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem:#}");
        assert_eq!(problem["errors"][0]["pointer"], at, "{clip}: {problem:#}");
    }
}

#[tokio::test]
async fn equal_outputs_are_encoded_once_and_both_published() {
    let server = Server::start().await;
    let ultra = json!({ "video": { "speed": "ultrafast" } });
    let set =
        json!({ "preset": "hls_720p_abr", "video": { "speed": "ultrafast" }, "package": { "names": {} } });
    let body = job(
        &clips::mp4(2),
        &json!([
            output("a/one.mp4", &ultra),
            output("b/two.mp4", &ultra),
            output("a/set", &set),
            output("b/set", &set),
        ]),
    );
    let ended = server.finished(&server.submit(&body).await).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    let outputs = ended["outputs"].as_array().unwrap();
    let sums = |n: usize| -> Vec<Value> {
        let files = outputs[n]["result"]["files"].as_array().unwrap();
        files.iter().map(|file| file["sha256"].clone()).collect()
    };
    assert_eq!(sums(0), sums(1));
    let bytes = |n: usize| std::fs::read(file(&server, &outputs[n])).unwrap();
    assert_eq!(bytes(0), bytes(1));
    assert_eq!(outputs[2]["result"]["renditions"], outputs[3]["result"]["renditions"]);
    server.assert_clean().await;
}

fn streams(file: &Path) -> Vec<String> {
    #[expect(clippy::disallowed_methods, reason = "tests measure with the real ffprobe")]
    let run = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-show_entries",
            "stream=codec_name,nb_read_packets,codec_tag_string",
            "-count_packets",
        ])
        .args(["-of", "csv=p=0"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    text.lines().map(|line| line.trim_end_matches(',').to_owned()).filter(|line| !line.is_empty()).collect()
}

#[tokio::test]
async fn tracks_are_taken_over_as_they_are() {
    let server = Server::start().await;
    let copy = json!({ "codec": "copy" });
    let made = |path: &str, container: &str, video: &Value, audio: &Value| {
        let mut output =
            json!({ "container": container, "destination": { "kind": "storage", "path": path } });
        for (name, section) in [("video", video), ("audio", audio)] {
            if !section.is_null() {
                output[name] = section.clone();
            }
        }
        output
    };
    let surround = json!([
        made("c/surround.mkv", "mkv", &copy, &copy),
        made("c/surround.mp4", "mp4", &json!({ "codec": "h264", "speed": "ultrafast" }), &copy),
        made("c/sound.m4a", "m4a", &Value::Null, &copy),
        made("c/picture.mov", "mov", &copy, &Value::Null),
        made("c/picture.webm", "webm", &copy, &Value::Null),
    ]);
    let clip = clips::surround();
    let ended = server.finished(&server.submit(&job(&clip, &surround)).await).await;
    let outputs = ended["outputs"].as_array().unwrap();
    let told: Vec<_> = outputs.iter().map(|output| output["status"].as_str().unwrap()).collect();
    assert_eq!(told, ["completed", "completed", "failed", "completed", "failed"], "{ended:#}");
    let sources = streams(&clip);
    let storage = server.data().join("storage/c");
    let packets = |lines: &[String]| -> Vec<String> {
        lines.iter().map(|line| line.rsplit(',').next().unwrap().to_owned()).collect()
    };
    let remuxed = streams(&storage.join("surround.mkv"));
    assert!(remuxed[0].starts_with("h264") && remuxed[1].starts_with("ac3"), "{remuxed:?}");
    assert_eq!(packets(&remuxed), packets(&sources), "every packet");
    let mixed = streams(&storage.join("surround.mp4"));
    assert!(mixed[1].starts_with("ac3,ac-3") && packets(&mixed)[1] == packets(&sources)[1], "{mixed:?}");
    assert_eq!(outputs[1]["result"]["streams"][1]["channels"], 6, "{ended:#}");
    assert_eq!(outputs[3]["result"]["frames"], 50);
    for (n, what) in [(2, "ac3"), (4, "h264")] {
        assert_eq!(outputs[n]["error"]["code"], "media_unsupported", "{ended:#}");
        assert!(outputs[n]["error"]["message"].as_str().unwrap().contains(what), "{ended:#}");
    }

    // From a transport stream to MP4: other framing, the same frames.
    let stream = clips::other("ts");
    let outputs = json!([made("c/from.mp4", "mp4", &copy, &copy)]);
    let ended = server.finished(&server.submit(&job(&stream, &outputs)).await).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    assert!(streams(&storage.join("from.mp4"))[0].starts_with("h264,avc1"));
    server.assert_clean().await;
}

/// An ffmpeg whose HEVC encoder dies.
fn without_hevc(folder: &Path) -> PathBuf {
    let program = folder.join("ffmpeg");
    let script = "#!/bin/sh\ncase \"$*\" in *file:*libx265*) echo '[fatal] x265 is out of order' >&2; exit 1 ;; esac\nexec ffmpeg \"$@\"\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[tokio::test]
async fn an_encoder_that_fails_takes_none_of_its_siblings_along() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let program = without_hevc(dir.path());
    let server = Start::default()
        .below(dir)
        .set("FLUX__WORKER__FFMPEG", program.display().to_string())
        .set("FLUX__SANDBOX__MODE", "off")
        .set("FLUX__QUEUE__MAX_ATTEMPTS", "1")
        .server()
        .await;
    let body = job(
        &clips::mp4(2),
        &json!([
            output("s/h264.mp4", &json!({ "video": { "speed": "ultrafast" } })),
            output("s/hevc.mp4", &json!({ "preset": "1080p_hevc", "video": { "speed": "ultrafast" } })),
            output("s/sound.m4a", &json!({ "preset": "audio_m4a" })),
        ]),
    );
    let ended = server.finished(&server.submit(&body).await).await;
    assert_eq!(ended["status"], "failed", "{ended:#}");
    let outputs = ended["outputs"].as_array().unwrap();
    let told: Vec<_> = outputs.iter().map(|output| output["status"].as_str().unwrap()).collect();
    assert_eq!(told, ["completed", "failed", "completed"], "{ended:#}");
    assert_eq!(outputs[1]["error"]["code"], "encode_failed");
    server.assert_clean().await;
}

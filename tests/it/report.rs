//! The report of each output against what is really in the file and in the process that made it.

use serde_json::{Value, json};

use crate::support::clips;
use crate::support::server::Server;

fn job(outputs: &Value) -> Value {
    json!({"source": {"kind": "file", "path": clips::mp4(4)}, "outputs": outputs})
}

#[tokio::test]
async fn a_result_says_what_its_streams_are_and_how_they_were_made() {
    let server = Server::start().await;
    let id = server
        .submit(&job(&json!([
            {"preset": "web_1080p", "destination": {"kind": "storage", "path": "{job_id}/a.mp4"}},
            {"container": "webm", "video": {"codec": "vp9", "speed": "ultrafast", "bitrate": "300k"},
             "audio": {"codec": "opus"}, "destination": {"kind": "storage", "path": "{job_id}/b.webm"}},
        ])))
        .await;
    let done = server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    let first = &done["outputs"][0]["result"];
    let (video, sound) = (&first["streams"][0], &first["streams"][1]);
    assert_eq!((&video["kind"], &video["codec"]), (&json!("video"), &json!("h264")));
    assert!(video["codec_string"].as_str().unwrap().starts_with("avc1.6400"), "{video:#}");
    assert_eq!(
        (&video["width"], &video["height"], &video["frames"]),
        (&json!(320), &json!(180), &json!(100))
    );
    assert_eq!((&video["frame_rate"], &video["pixel_format"]), (&json!(25.0), &json!("yuv420p")));
    assert_eq!(video["planned"]["bitrate_max"], 8_000_000);
    let size = first["files"][0]["size"].as_u64().unwrap();
    let bits: u64 = [video, sound].iter().map(|s| s["bitrate_average"].as_u64().unwrap()).sum();
    let whole = size * 2;
    assert!(bits <= whole && bits * 10 >= whole * 8, "{bits} bit/s in a file of 4 s and {size} bytes");
    assert!(video["bitrate_peak"].as_u64() >= video["bitrate_average"].as_u64());
    assert_eq!((&sound["codec_string"], &sound["channels"]), (&json!("mp4a.40.2"), &json!(2)));
    let loudness = &sound["loudness"];
    assert_eq!(loudness["mode"], "reached", "{loudness:#}");
    let number = |name: &str| loudness[name].as_f64().unwrap();
    assert!((number("input_lufs") + number("gain_db") - -14.0).abs() < 0.02, "{loudness:#}");

    let second = &done["outputs"][1]["result"];
    let codecs: Vec<_> = second["streams"].as_array().unwrap().iter().map(|s| &s["codec_string"]).collect();
    assert_eq!(codecs, [&json!("vp09.00.11.08"), &json!("opus")]);
    assert_eq!(second["streams"][0]["planned"]["bitrate"], 300_000);
    assert!(second["tools"]["libvpx-vp9"].is_string() && second["tools"]["libx264"].is_string());

    // One process made both: its command is the same, and says nothing of this machine.
    assert_eq!(first["command"], second["command"]);
    let argv: Vec<&str> =
        first["command"]["argv"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!((argv[0], first["command"]["complete"].as_bool()), ("ffmpeg", Some(true)));
    let input = argv.iter().position(|word| *word == "-i").unwrap();
    assert_eq!(argv[input + 1], "SOURCE");
    assert!(argv.contains(&"file:out-0.mp4") && argv.contains(&"libx264"), "{argv:?}");
    let text = done.to_string().replace(clips::mp4(4).to_str().unwrap(), "");
    assert!(!text.contains(server.data().to_str().unwrap()), "{text}");

    let (_, list) = server.get("/api/v1/jobs").await;
    let listed = &list["jobs"][0]["outputs"][0]["result"];
    assert_eq!((&listed["command"], &listed["streams"]), (&Value::Null, &first["streams"]));
}

#[tokio::test]
async fn a_sets_streams_are_told_by_rendition() {
    let server = Server::start().await;
    let output =
        json!([{"preset": "hls_720p_abr", "destination": {"kind": "storage", "path": "{job_id}/x"}}]);
    let id = server.submit(&job(&output)).await;
    let done = server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    let result = &done["outputs"][0]["result"];
    let streams = result["streams"].as_array().unwrap();
    assert!(streams.iter().all(|stream| stream["rendition"].is_string()), "{streams:#?}");
    let pictures = streams.iter().filter(|stream| stream["kind"] == "video").count();
    assert_eq!(pictures, result["renditions"].as_array().unwrap().len());
}

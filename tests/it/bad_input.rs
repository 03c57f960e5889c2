//! Bad input: each kind has its own code and sentence, leaves nothing behind, and the next good job runs.

use std::path::PathBuf;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::clips;
use crate::support::origin::{Fault, Origin};
use crate::support::server::{Server, Start, job_for};

/// A file below the clips' root, which the server may read.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clips/bad");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    // Inside the media data, well behind the index.
    let from = bytes.len() / 2;
    for byte in &mut bytes[from..from + 3000] {
        *byte ^= 0x5a;
    }
    bytes
}

/// The failure's code; checks that the sentence shows no path of this machine.
fn code(job: &Value) -> &str {
    assert_eq!(job["status"], "failed", "{job:#}");
    let message = job["error"]["message"].as_str().unwrap();
    assert!(!message.is_empty() && !message.contains("/data/") && !message.contains("/tmp/"), "{message}");
    for line in job["error"]["log"].as_array().into_iter().flatten() {
        assert!(!line.as_str().unwrap().contains("/work/"), "{line}");
    }
    job["error"]["code"].as_str().unwrap()
}

#[tokio::test]
async fn broken_media_is_refused_by_name() {
    let server = Server::start().await;
    let good = std::fs::read(clips::mp4(4)).unwrap();
    let cases = [
        ("empty.mp4", Vec::new(), &["media_corrupt"][..]),
        (
            "text.mp4",
            b"this is a plain text file, not a video\n".repeat(20),
            &["media_unsupported", "media_corrupt"],
        ),
        ("cut.mp4", clips::cut(&clips::mp4(4), 0.6), &["media_truncated"]),
        ("cut.mkv", clips::cut(&clips::other("mkv"), 0.6), &["media_truncated"]),
        ("cut.webm", clips::cut(&clips::other("webm"), 0.6), &["media_truncated"]),
        ("cut.avi", clips::cut(&clips::other("avi"), 0.6), &["media_truncated"]),
        ("cut.flv", clips::cut(&clips::other("flv"), 0.6), &["media_truncated"]),
        ("flipped.mp4", flipped(&good), &["media_corrupt"]),
        (
            "noise.mp4",
            (0..50_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect(),
            &["media_unsupported", "media_corrupt"],
        ),
        (
            "list.mp4",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n/etc/passwd\n#EXT-X-ENDLIST\n".to_vec(),
            &["media_unsupported"],
        ),
        ("concat.mp4", b"ffconcat version 1.0\nfile '/etc/passwd'\n".to_vec(), &["media_unsupported"]),
    ];
    for (name, bytes, expected) in cases {
        let path = file(name, &bytes);
        let job = server.encode(&path).await;
        assert!(expected.contains(&code(&job)), "{name}: {job:#}");
        std::fs::remove_file(path).unwrap();
    }
    let job = server.encode(&clips::audio_only()).await;
    assert_eq!(code(&job), "no_video_stream");
    assert_eq!(server.encode(&clips::mp4(1)).await["status"], "completed");
    server.assert_clean().await;
}

#[tokio::test]
async fn a_playlist_cannot_reach_a_loopback_listener() {
    let server = Server::start().await;
    let canary = Origin::start(b"secret".to_vec(), Fault::None).await;
    let playlist =
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{}.ts\n#EXT-X-ENDLIST\n", canary.url());
    for bytes in [
        playlist.clone().into_bytes(),
        format!("ffconcat version 1.0\nfile '{}'\n", canary.url()).into_bytes(),
    ] {
        let origin = Origin::start(bytes, Fault::None).await;
        let mut body = job_for(&clips::mp4(1));
        body["source"] = json!({"kind": "http", "url": origin.url()});
        let id = server.submit(&body).await;
        assert_eq!(code(&server.finished(&id).await), "media_unsupported");
    }
    assert_eq!(canary.requests(), 0);
    server.assert_clean().await;
}

#[tokio::test]
async fn origins_that_fail_are_told_apart() {
    let server = Start::default()
        .set("FLUX__QUEUE__MAX_ATTEMPTS", "1")
        .set("FLUX__SOURCES__STALL_TIMEOUT", "2s")
        .set("FLUX__SOURCES__RETRIES", "1")
        .set("FLUX__SOURCES__MAX_BYTES", "32MiB")
        .server()
        .await;
    let bytes = std::fs::read(clips::mp4(4)).unwrap();
    // Larger than the first answer, so that there is a second request to fail.
    assert!(bytes.len() > 300 * 1024, "{} bytes", bytes.len());
    let half = bytes.len() / 2;
    let cases = [
        (Fault::Status(404), "source_not_found"),
        (Fault::Status(403), "source_forbidden"),
        (Fault::Status(500), "source_unreachable"),
        (Fault::SaysMore(100_000), "source_unreachable"),
        (Fault::HangsAfter(half), "source_unreachable"),
        (Fault::Silent, "source_unreachable"),
        (Fault::ChangesAfter(1), "source_changed"),
        (Fault::StatusAfter(1, 404), "source_not_found"),
        (Fault::StatusAfter(1, 403), "source_forbidden"),
        (Fault::Endless, "source_too_large"),
        (Fault::Redirect("http://169.254.169.254/latest/meta-data/".into()), "source_blocked"),
        (Fault::Redirect("file:///etc/passwd".into()), "source_blocked"),
    ];
    for (fault, expected) in cases {
        let origin = Origin::start(bytes.clone(), fault.clone()).await;
        let mut body = job_for(&clips::mp4(1));
        body["source"] = json!({"kind": "http", "url": origin.url()});
        let id = server.submit(&body).await;
        let job = server.finished(&id).await;
        assert_eq!(code(&job), expected, "{fault:?}: {job:#}");
    }
    assert_eq!(server.encode(&clips::mp4(1)).await["status"], "completed");
    server.assert_clean().await;
}

#[tokio::test]
async fn sources_that_are_not_allowed_are_refused() {
    let server = Start::default().set("FLUX__SOURCES__ALLOW", "").server().await;
    let sources = [
        json!({"kind": "file", "path": "/etc/passwd"}),
        json!({"kind": "file", "path": "../../../../etc/passwd"}),
        json!({"kind": "http", "url": "http://127.0.0.1:9/x.mp4"}),
        json!({"kind": "http", "url": "http://[::ffff:127.0.0.1]/x.mp4"}),
        json!({"kind": "http", "url": "http://2130706433/x.mp4"}),
        json!({"kind": "http", "url": "file:///etc/passwd"}),
        json!({"kind": "http", "url": "concat:/etc/passwd|/etc/hosts"}),
    ];
    for source in sources {
        let mut body = job_for(&clips::mp4(1));
        body["source"] = source.clone();
        let (status, answer) = server.post("/api/v1/jobs", &body).await;
        // Refused at the door where the door can tell, otherwise by the fetcher; never read.
        if status == StatusCode::ACCEPTED {
            let job = server.finished(answer["id"].as_str().unwrap()).await;
            assert_eq!(code(&job), "source_blocked", "{source}");
        } else {
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{source}: {answer:#}");
            assert!(answer["errors"][0]["pointer"].as_str().unwrap().starts_with("/source"), "{answer:#}");
        }
    }
    for url in ["file:///etc/passwd", "concat:/etc/passwd"] {
        let body =
            json!({"input_url": url, "preset": "720p_h264", "output": {"storage": "local", "path": "x.mp4"}});
        let (status, answer) = server.post("/api/v1/jobs", &body).await;
        assert!(
            !status.is_success()
                || code(&server.finished(answer["id"].as_str().unwrap()).await) == "source_blocked"
        );
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn bad_requests_name_every_fault() {
    let server = Server::start().await;
    for path in ["../up.mp4", "/abs.mp4", "", "a//b.mp4", "a/./b", "a\\b", &"x".repeat(5000)] {
        let mut body = job_for(&clips::mp4(1));
        body["outputs"][0]["destination"]["path"] = json!(path);
        let (status, problem) = server.post("/api/v1/jobs", &body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path:?}");
        assert_eq!(problem["errors"][0]["pointer"], "/outputs/0/destination/path", "{problem:#}");
    }
    let mut body = job_for(&clips::mp4(1));
    body["outputs"][0]["preset"] = json!("720p_h265");
    body["colour"] = json!("red");
    let (status, problem) = server.post("/api/v1/jobs", &body).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let faults = problem["errors"].as_array().unwrap();
    assert!(faults.iter().any(|f| f["pointer"] == "/colour"), "{problem:#}");
    let preset = faults.iter().find(|f| f["pointer"] == "/outputs/0/preset").expect("the preset's fault");
    assert!(preset["detail"].as_str().unwrap().contains("720p_h264"), "{preset}");

    let raw = |body: &'static str, kind: &'static str| {
        server.http.post(format!("{}/api/v1/jobs", server.url)).header("content-type", kind).body(body).send()
    };
    assert_eq!(raw("{\"source\":", "application/json").await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(raw("{}", "text/plain").await.unwrap().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(raw("[1,2]", "application/json").await.unwrap().status(), StatusCode::UNPROCESSABLE_ENTITY);
    let huge =
        server.http.post(format!("{}/api/v1/jobs", server.url)).header("content-type", "application/json");
    let huge = huge.body(vec![b' '; 32 * 1024 * 1024]).send().await;
    assert!(huge.is_err() || huge.unwrap().status() == StatusCode::PAYLOAD_TOO_LARGE);
    let (status, problem) = server.get("/api/v1/nothing").await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::NOT_FOUND, Some("not_found")), "{problem:#}");
    let put = server.http.put(format!("{}/api/v1/jobs", server.url)).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(put.headers().contains_key("allow"));
    assert_eq!(server.encode(&clips::mp4(1)).await["status"], "completed");
}

#[tokio::test]
async fn a_missing_ffmpeg_is_said_and_does_not_stop_the_server() {
    let server = Start::default()
        .set("FLUX__WORKER__FFMPEG", "/nonexistent/ffmpeg")
        .set("FLUX__QUEUE__MAX_ATTEMPTS", "1")
        .server()
        .await;
    let job = server.encode(&clips::mp4(1)).await;
    assert_eq!(code(&job), "tool_missing", "{job:#}");
    let (status, _) = server.get("/health").await;
    assert_eq!(status, StatusCode::OK);
    server.assert_clean().await;
}

#[tokio::test]
async fn an_output_folder_that_cannot_be_written_is_the_destinations_fault() {
    // Tests may run as root, whom permissions do not stop; a file in a folder's place stops everybody.
    let server = Start::default().set("FLUX__QUEUE__MAX_ATTEMPTS", "1").server().await;
    std::fs::create_dir_all(server.data().join("storage")).unwrap();
    std::fs::write(server.data().join("storage/file"), b"in the way").unwrap();
    let mut body = job_for(&clips::mp4(1));
    body["outputs"][0]["destination"]["path"] = json!("file/out.mp4");
    let id = server.submit(&body).await;
    let job = server.finished(&id).await;
    assert_eq!(code(&job), "destination_forbidden", "{job:#}");
    server.assert_clean().await;
}

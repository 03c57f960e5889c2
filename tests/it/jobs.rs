//! The main job through the API: submit, follow, read the result.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::clips;
use crate::support::origin::{Fault, Origin};
use crate::support::server::{Server, Start, job_for};
use crate::support::{PATIENCE, eventually};

/// Parses a whole event stream.
fn events(text: &str) -> Vec<(String, Option<i64>, Value)> {
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    text.split("\n\n")
        .filter_map(|block| {
            let data = serde_json::from_str(&field(block, "data:")?).unwrap();
            let id = field(block, "id:").map(|id| id.parse().unwrap());
            Some((field(block, "event:").unwrap_or_default(), id, data))
        })
        .collect()
}

async fn stream(server: &Server, id: &str, last: Option<i64>) -> Vec<(String, Option<i64>, Value)> {
    let mut request = server.http.get(format!("{}/api/v1/jobs/{id}/stream", server.url));
    if let Some(last) = last {
        request = request.header("last-event-id", last.to_string());
    }
    let text = tokio::time::timeout(PATIENCE, async { request.send().await.unwrap().text().await.unwrap() });
    events(&text.await.expect("the stream never ended"))
}

#[tokio::test]
async fn a_clip_becomes_a_verified_file_with_live_progress() {
    let server = Server::start().await;
    let clip = clips::mp4(4);
    let id = server.submit(&job_for(&clip)).await;
    let told = stream(&server, &id, None).await;
    let job = server.job(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    assert_eq!(job["progress"], 100.0);
    assert_eq!(job["outputs"][0]["status"], "completed");

    // The stream: a snapshot first, progress that never goes back, one terminal event, then the end.
    let progress: Vec<f64> = told.iter().filter_map(|(.., data)| data["progress"].as_f64()).collect();
    assert!(progress.is_sorted(), "{progress:?}");
    let ids: Vec<i64> = told.iter().filter_map(|(_, id, _)| *id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let terminal =
        |data: &Value| matches!(data["status"].as_str(), Some("completed" | "failed" | "cancelled"));
    assert_eq!(told.last().unwrap().2["status"], "completed");
    let ends = told.iter().skip(1).filter(|(event, _, data)| event != "output" && terminal(data)).count();
    assert_eq!(ends, 1, "{told:#?}");

    // A reader that comes late or back hears the same end.
    let late = stream(&server, &id, None).await;
    assert_eq!(late.last().unwrap().2["status"], "completed");
    let resumed = stream(&server, &id, ids.first().copied()).await;
    assert_eq!(resumed.last().unwrap().1, told.last().unwrap().1);

    // The bytes are what the record says.
    let result = &job["outputs"][0]["result"];
    let file = &result["files"][0];
    let body =
        server.http.get(format!("{}/api/v1/jobs/{id}/outputs/0/content", server.url)).send().await.unwrap();
    assert_eq!(body.status(), StatusCode::OK);
    assert_eq!(body.headers()["content-type"], "video/mp4");
    let bytes = body.bytes().await.unwrap();
    assert_eq!(bytes.len() as u64, file["size"].as_u64().unwrap());
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let hex = digest.as_ref().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    assert_eq!(file["sha256"], hex.as_str());
    assert_eq!(result["frames"], 100);

    let part = server
        .http
        .get(format!("{}/api/v1/jobs/{id}/outputs/0/content", server.url))
        .header("range", "bytes=4-7")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.bytes().await.unwrap(), bytes.slice(4..8));
    server.assert_clean().await;
}

#[tokio::test]
async fn a_source_over_http_is_fetched_once() {
    let server = Server::start().await;
    let bytes = std::fs::read(clips::mp4(4)).unwrap();
    let size = bytes.len() as u64;
    let origin = Origin::start(bytes, Fault::None).await;
    let id = server
        .submit(&json!({
            "input_url": origin.url(),
            "preset": "480p_h264",
            "output": {"storage": "local", "path": "seed/out.mp4"},
        }))
        .await;
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    assert!(
        origin.sent() <= size + size / 20,
        "{} of {size} bytes in {} requests",
        origin.sent(),
        origin.requests()
    );
    assert!(server.data().join("storage/seed/out.mp4").exists());
}

#[tokio::test]
async fn faults_of_an_origin_that_can_be_healed_are_healed() {
    let server = Server::start().await;
    let bytes = std::fs::read(clips::mp4(4)).unwrap();
    for fault in [Fault::NoLength, Fault::DropsEvery(40_000)] {
        let origin = Origin::start(bytes.clone(), fault.clone()).await;
        let mut body = job_for(&clips::mp4(4));
        body["source"] = json!({"kind": "http", "url": origin.url()});
        let id = server.submit(&body).await;
        let job = server.finished(&id).await;
        assert_eq!(job["status"], "completed", "{fault:?}: {job:#}");
        assert_eq!(job["outputs"][0]["result"]["frames"], 100);
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn inline_and_uploaded_sources_work() {
    use base64::Engine as _;
    let server = Server::start().await;
    let bytes = std::fs::read(clips::mp4(1)).unwrap();
    let mut body = job_for(&clips::mp4(1));
    body["source"] =
        json!({"kind": "inline", "data": base64::engine::general_purpose::STANDARD.encode(&bytes)});
    let id = server.submit(&body).await;
    assert_eq!(server.finished(&id).await["status"], "completed");

    let (status, place) =
        server.post("/api/v1/uploads", &json!({"filename": "a.mp4", "size": bytes.len()})).await;
    assert_eq!(status, StatusCode::CREATED, "{place:#}");
    let url = place["url"].as_str().unwrap();
    let url = if url.starts_with('/') { format!("{}{url}", server.url) } else { url.to_owned() };
    let put = server.http.put(url).body(bytes).send().await.unwrap();
    assert!(put.status().is_success(), "{put:?}");
    body["source"] = json!({"kind": "upload", "id": place["id"]});
    let id = server.submit(&body).await;
    assert_eq!(server.finished(&id).await["status"], "completed");
    server.assert_clean().await;
}

#[tokio::test]
async fn the_cloud_pipelines_body_makes_its_ladder() {
    let server = Server::start().await;
    let storage = server.data().join("storage/uploads/test");
    std::fs::create_dir_all(&storage).unwrap();
    std::fs::copy(clips::mp4(1), storage.join("video.mp4")).unwrap();
    let (status, job) = server.post("/jobs", &json!({"input_key": "uploads/test/video.mp4"})).await;
    assert!(status.is_success(), "{job:#}");
    let id = job["id"].as_str().unwrap();
    let done = server.finished(id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    for name in ["480p", "720p", "1080p"] {
        let path = server.data().join(format!("storage/outputs/{id}/video_{name}.mp4"));
        assert!(path.exists(), "{}", path.display());
    }
}

#[tokio::test]
async fn cancel_is_immediate_and_leaves_nothing() {
    let server = Server::start().await;
    let mut body = job_for(&clips::long(60));
    body["outputs"][0]["preset"] = json!("1080p_hevc");
    let id = server.submit(&body).await;
    eventually("it encodes", async || (server.job(&id).await["phase"] == "encoding").then_some(())).await;
    let (status, job) = server.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).await;
    assert_eq!((status, job["status"].as_str()), (StatusCode::OK, Some("cancelled")), "{job:#}");
    let (again, _) = server.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).await;
    assert_eq!(again, StatusCode::OK);
    server.assert_clean().await;
    assert!(!server.data().join(format!("storage/{id}")).exists());
    assert_eq!(server.encode(&clips::mp4(1)).await["status"], "completed");
}

#[tokio::test]
async fn a_retry_redoes_only_what_is_missing() {
    let server = Server::start().await;
    std::fs::create_dir_all(server.data().join("storage")).unwrap();
    std::fs::write(server.data().join("storage/taken.mp4"), b"somebody else's").unwrap();
    let mut body = job_for(&clips::mp4(1));
    body["outputs"] = json!([
        {"preset": "proxy_360p", "destination": {"kind": "storage", "path": "free.mp4"}},
        {"preset": "proxy_360p", "destination": {"kind": "storage", "path": "taken.mp4", "overwrite": "fail"}},
    ]);
    let id = server.submit(&body).await;
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "failed");
    assert_eq!(job["outputs"][0]["status"], "completed");
    assert_eq!(job["outputs"][1]["error"]["code"], "destination_exists", "{job:#}");
    let first = std::fs::metadata(server.data().join("storage/free.mp4")).unwrap().modified().unwrap();

    std::fs::remove_file(server.data().join("storage/taken.mp4")).unwrap();
    let (status, _) = server.post(&format!("/api/v1/jobs/{id}/retry"), &json!({})).await;
    assert!(status.is_success(), "{status}");
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    let second = std::fs::metadata(server.data().join("storage/free.mp4")).unwrap().modified().unwrap();
    assert_eq!(first, second, "a completed output was made again");
    server.assert_clean().await;
}

#[tokio::test]
async fn waiting_never_fails_a_job_and_the_queue_is_bounded() {
    let server =
        Start::default().set("FLUX__WORKER__SLOTS", "1").set("FLUX__QUEUE__MAX_PENDING", "3").server().await;
    let mut accepted = Vec::new();
    let mut refused = 0;
    for _ in 0..8 {
        let answer = server
            .http
            .post(format!("{}/api/v1/jobs", server.url))
            .json(&job_for(&clips::mp4(4)))
            .send()
            .await
            .unwrap();
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert!(answer.headers().contains_key("retry-after"));
            refused += 1;
        } else {
            let job: Value = answer.json().await.unwrap();
            accepted.push(job["id"].as_str().unwrap().to_owned());
        }
    }
    assert!(refused >= 1 && accepted.len() >= 3, "{refused} refused of 8");
    for id in accepted {
        assert_eq!(server.finished(&id).await["status"], "completed");
    }
}

//! What the tests with s3s show, once more with a server that nobody here wrote. `make test-garage` builds it first.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::clips;
use crate::support::garage::{BUCKET, Garage, KEY_ID, SECRET};
use crate::support::server::{Server, flux};
use crate::support::sha256;

fn code(job: &Value) -> &str {
    job["outputs"][0]["error"]["code"].as_str().or(job["error"]["code"].as_str()).unwrap_or_default()
}

fn job(source: &Value, destination: &Value) -> Value {
    json!({"source": source, "outputs": [{"preset": "proxy_360p", "destination": destination}]})
}

/// The bytes of a job's result, through the presigned URL.
async fn content(server: &Server, id: &str) -> Vec<u8> {
    let answer =
        server.http.get(format!("{}/api/v1/jobs/{id}/outputs/0/content", server.url)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::FOUND);
    let presigned = server.http.get(answer.headers()["location"].to_str().unwrap()).send().await.unwrap();
    assert_eq!(presigned.status(), StatusCode::OK);
    presigned.bytes().await.unwrap().to_vec()
}

#[tokio::test]
#[ignore = "needs garage: make test-garage"]
async fn what_is_uploaded_is_encoded_and_read_back() {
    let garage = Garage::start().await;
    let server = garage.configured().server().await;
    let clip = std::fs::read(clips::mp4(1)).unwrap();
    let asked = json!({"filename": "clip.mp4", "size": clip.len(), "content_type": "video/mp4"});
    let (status, place) = server.post("/api/v1/uploads", &asked).await;
    assert_eq!(status, StatusCode::CREATED, "{place}");
    let put = async |kind: &str| {
        let request = server.http.put(place["url"].as_str().unwrap()).header("content-type", kind);
        request
            .header("connection", "close")
            .body(clip.clone())
            .send()
            .await
            .map(|answer| answer.status())
            .ok()
    };
    // It may close the connection before it has read what it refuses.
    assert!(put("text/html").await.is_none_or(|status| status == StatusCode::FORBIDDEN));
    assert_eq!(put("video/mp4").await, Some(StatusCode::OK));
    let stored = json!({"kind": "storage", "path": "out.mp4", "overwrite": "fail"});
    let id = server.submit(&job(&place["source"], &stored)).await;
    let done = server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    let result = &done["outputs"][0]["result"]["files"][0]["sha256"];
    assert_eq!(result, &sha256(&content(&server, &id).await));
    let again = job(&json!({"kind": "storage", "path": "out.mp4"}), &stored);
    let again = server.finished(&server.submit(&again).await).await;
    assert_eq!(code(&again), "destination_exists", "{again:#}");
    server.assert_clean().await;
}

#[tokio::test]
#[ignore = "needs garage: make test-garage"]
async fn a_large_file_goes_in_parts() {
    let garage = Garage::start().await;
    let server = garage.configured().server().await;
    let folder = tempfile::tempdir().unwrap();
    let file = clips::large(folder.path());
    let mut command =
        flux(&["submit", file.to_str().unwrap(), "-p", "proxy_360p", "--wait", "--url", &server.url]);
    let told = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(told.status.success(), "{}{}", String::from_utf8_lossy(&told.stderr), server.log());
    server.assert_clean().await;
}

#[tokio::test]
#[ignore = "needs garage: make test-garage"]
async fn requests_bring_their_own_keys_and_wrong_ones_are_refused() {
    let garage = Garage::start().await;
    let server = garage.configured().server().await;
    let place = |path: &str, secret: &str| {
        json!({"kind": "s3", "endpoint": garage.endpoint, "bucket": BUCKET, "path": path, "region": "garage",
               "access_key_id": KEY_ID, "secret_access_key": secret})
    };
    let file = json!({"kind": "file", "path": clips::mp4(1)});
    let id = server.submit(&job(&file, &place("mine.mp4", SECRET))).await;
    let done = server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    let wrong = SECRET.replace('0', "1");
    for (body, expected) in [
        (job(&place("mine.mp4", SECRET), &place("copy.mp4", SECRET)), ""),
        (job(&place("mine.mp4", &wrong), &place("copy.mp4", SECRET)), "source_forbidden"),
        (job(&place("none.mp4", SECRET), &place("copy.mp4", SECRET)), "source_not_found"),
        (job(&file, &place("copy.mp4", &wrong)), "destination_forbidden"),
    ] {
        let job = server.finished(&server.submit(&body).await).await;
        assert_eq!(code(&job), expected, "{job:#}");
        assert!(!job.to_string().contains(&wrong) && !server.log().contains(SECRET));
    }
    server.assert_clean().await;
}

#[tokio::test]
#[ignore = "needs garage: make test-garage"]
async fn what_was_destroyed_cannot_be_committed() {
    let garage = Garage::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut doctor = flux(&["doctor"]);
    doctor.current_dir(folder.path()).envs(garage.settings());
    let told = doctor.output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("writes, and refuses what was destroyed"), "{told}");
}

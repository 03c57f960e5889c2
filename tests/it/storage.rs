//! Results and sources in a bucket, through a real server and the S3 protocol.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::s3::S3Server;
use crate::support::server::job_for;
use crate::support::{clips, eventually, sha256};

fn code(job: &Value) -> &str {
    job["outputs"][0]["error"]["code"].as_str().or(job["error"]["code"].as_str()).unwrap_or_default()
}

#[tokio::test]
async fn from_the_bucket_into_the_bucket_and_out_by_a_presigned_url() {
    let bucket = S3Server::start().await;
    bucket.put("team/a/in/clip.mp4", &std::fs::read(clips::mp4(2)).unwrap());
    let server = bucket.configured().server().await;
    let mut body = job_for(&clips::mp4(2));
    body["source"] = json!({"kind": "storage", "path": "in/clip.mp4"});
    let id = server.submit(&body).await;
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    let result = &job["outputs"][0]["result"];
    let object = bucket.object(&format!("team/a/{id}/out.mp4")).expect("the object is there");
    assert_eq!(result["files"][0]["sha256"], sha256(&object));

    let content = format!("{}/api/v1/jobs/{id}/outputs/0/content", server.url);
    let answer = server.http.get(content).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::FOUND);
    let presigned = answer.headers()["location"].to_str().unwrap();
    assert!(presigned.starts_with(&bucket.endpoint), "{presigned}");
    let fetched = server.http.get(presigned).send().await.unwrap();
    assert_eq!(fetched.status(), StatusCode::OK);
    assert_eq!(fetched.headers()["content-type"], "video/mp4");
    assert_eq!(fetched.bytes().await.unwrap(), object);
    assert_eq!(bucket.leftovers(), Vec::<String>::new());
    server.assert_clean().await;
}

#[tokio::test]
async fn a_wrong_secret_is_the_operators_failure_and_is_not_shown() {
    let bucket = S3Server::start().await;
    let server = bucket.configured().set("FLUX__STORAGE__SECRET_ACCESS_KEY", "wrong-canary").server().await;
    let id = server.submit(&job_for(&clips::mp4(1))).await;
    let job = server.finished(&id).await;
    assert_eq!((job["status"].as_str(), code(&job)), (Some("failed"), "destination_forbidden"), "{job:#}");
    assert_eq!(job["attempts"].as_array().unwrap().len(), 1, "no try can help: {job:#}");
    assert!(!job.to_string().contains("canary"), "{job:#}");
    server.assert_clean().await;
}

#[tokio::test]
async fn killed_in_the_middle_of_an_upload_nothing_is_visible_and_nothing_stays() {
    let bucket = S3Server::start().await;
    let mut server = bucket.configured().server().await;
    bucket.hold_parts();
    let id = server.submit(&job_for(&clips::mp4(1))).await;
    tokio::time::timeout(crate::support::PATIENCE, bucket.held()).await.expect("nothing is sent");
    let stale = bucket.leftovers();
    assert!(!stale.is_empty(), "an upload is open");
    server.kill();
    assert_eq!(bucket.object(&format!("team/a/{id}/out.mp4")), None);
    bucket.let_go();
    let server = server.again().await;
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    let object = bucket.object(&format!("team/a/{id}/out.mp4")).expect("the object is there");
    assert_eq!(job["outputs"][0]["result"]["files"][0]["sha256"], sha256(&object));
    eventually("the old upload is aborted", async || bucket.leftovers().is_empty().then_some(())).await;
    server.assert_clean().await;
}

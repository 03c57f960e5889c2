//! Uploads that clients send to the bucket themselves.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::s3::{BUCKET, S3Server};
use crate::support::server::{Server, flux};
use crate::support::{clips, eventually};

/// What the bucket holds of uploads, finished or not.
fn held(bucket: &S3Server) -> Vec<String> {
    let mut held = bucket.leftovers();
    held.extend(bucket.names("team/a/.flux-uploads"));
    held
}

async fn begin(server: &Server, size: u64) -> Value {
    let asked = json!({"filename": "clip.mp4", "size": size, "content_type": "video/mp4"});
    let (status, place) = server.post("/api/v1/uploads", &asked).await;
    assert_eq!(status, StatusCode::CREATED, "{place}");
    place
}

async fn put(server: &Server, place: &Value, kind: &str, bytes: Vec<u8>) -> StatusCode {
    let request = server.http.put(place["url"].as_str().unwrap()).header("content-type", kind);
    request.body(bytes).send().await.unwrap().status()
}

fn job(source: &Value) -> Value {
    let destination = json!({"kind": "storage", "path": "out/{job_id}.mp4"});
    json!({"source": source, "outputs": [{"preset": "480p_h264", "destination": destination}]})
}

#[tokio::test]
async fn an_upload_goes_to_the_bucket_by_a_signed_url_and_is_removed_unless_a_job_needs_it() {
    let bucket = S3Server::start().await;
    let mut server = bucket.configured().server().await;
    let clip = std::fs::read(clips::mp4(1)).unwrap();
    let place = begin(&server, clip.len() as u64).await;
    let url = place["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{}/{BUCKET}/team/a/.flux-uploads/", bucket.endpoint)), "{url}");
    assert!(!place.to_string().contains("canary"), "{place}");
    assert_eq!(server.post("/api/v1/jobs", &job(&place["source"])).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    // Signed for this type and no other. How much is sent shows when a job wants it.
    assert_eq!(put(&server, &place, "text/html", clip.clone()).await, StatusCode::FORBIDDEN);
    for other in [b"too short".to_vec(), [&clip[..], b"."].concat()] {
        assert_eq!(put(&server, &place, "video/mp4", other).await, StatusCode::OK);
        let (status, _) = server.post("/api/v1/jobs", &job(&place["source"])).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let (status, refused) = server.post("/api/v1/jobs", &job(&place["source"])).await;
    assert_eq!(
        (status, &refused["errors"][0]["pointer"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("/source/id"))
    );
    assert_eq!(put(&server, &place, "video/mp4", clip).await, StatusCode::OK);
    let id = server.submit(&job(&place["source"])).await;
    let done = server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    assert!(bucket.object(&format!("team/a/out/{id}.mp4")).is_some());

    // Nobody reads another's upload by its place.
    let stolen =
        json!({"kind": "storage", "path": format!(".flux-uploads/{}", place["id"].as_str().unwrap())});
    assert_eq!(server.post("/api/v1/jobs", &job(&stolen)).await.0, StatusCode::UNPROCESSABLE_ENTITY);

    let unclaimed = begin(&server, 100 * 1024 * 1024).await;
    assert_eq!(held(&bucket).len(), 3, "the job's, an upload in parts and its note: {:?}", held(&bucket));
    let given_up = format!("{}/api/v1/uploads/{}", server.url, unclaimed["id"].as_str().unwrap());
    assert_eq!(server.http.delete(given_up).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    // The next round of the sweeper is a minute away, or at the next start.
    server.kill();
    let server = server.again().await;
    eventually("the open upload is swept", async || (held(&bucket).len() == 1).then_some(())).await;
    server.assert_clean().await;
}

#[tokio::test]
async fn flux_submit_sends_a_large_file_in_parts() {
    let bucket = S3Server::start().await;
    let server = bucket.configured().server().await;
    let folder = tempfile::tempdir().unwrap();
    let file = clips::large(folder.path());
    let arguments = ["submit", file.to_str().unwrap(), "-p", "480p_h264", "--wait", "--url", &server.url];
    let told = tokio::task::spawn_blocking({
        let mut command = flux(&arguments);
        move || command.output().unwrap()
    });
    let told = told.await.unwrap();
    assert!(told.status.success(), "{}{}", String::from_utf8_lossy(&told.stderr), server.log());
    let uploads = bucket.names("team/a/.flux-uploads");
    assert_eq!(uploads.len(), 1, "{uploads:?}");
    let sent = bucket.object(&format!("team/a/.flux-uploads/{}", uploads[0])).unwrap();
    assert!(sent == std::fs::read(&file).unwrap(), "the parts are not the file");
    assert_eq!(bucket.leftovers(), Vec::<String>::new());
    server.assert_clean().await;
}

//! Jobs between other people's buckets, and where their secrets must never be.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::moto::Moto;
use crate::support::s3::{BUCKET, KEY_ID, S3Server, SECRET};
use crate::support::server::{Server, Start};
use crate::support::{clips, sha256};

/// Every secret of these tests has this word in it.
const CANARY: &str = "canary";

/// The body of Encoder v2: S3 on both ends, camel-case names, keys in the request.
fn encoder_v2(bucket: &S3Server) -> Value {
    let place = |path: &str| {
        json!({"kind": "s3", "endpoint": bucket.endpoint, "bucket": BUCKET, "path": path, "region": "us-east-1",
               "access_key_id": KEY_ID, "access_key_secret": SECRET})
    };
    let mut destination = place("processed/{name}_{height}.mp4");
    destination["acl"] = "public-read".into();
    json!({
        "source": place("uploads/clip.mp4"),
        "outputs": [{"container": "mp4", "videoCodec": "libx264", "videoBitrate": "500k", "audioCodec": "aac",
                     "audioBitrate": "96k", "width": 320, "height": 180, "destination": destination}],
    })
}

/// All bytes below a folder.
fn bytes_below(folder: &Path, found: &mut Vec<u8>) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            bytes_below(&path, found);
        } else {
            // What is removed meanwhile is not there to leak.
            found.extend(std::fs::read(&path).unwrap_or_default());
        }
    }
}

fn command_lines() -> Vec<u8> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.flat_map(|process| std::fs::read(process.path().join("cmdline")).unwrap_or_default()).collect()
}

fn holds_canary(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
}

async fn text(server: &Server, path: &str) -> String {
    server.http.get(format!("{}{path}", server.url)).send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn encoder_v2_moves_between_buckets_and_its_keys_are_nowhere() {
    let bucket = S3Server::start().await;
    bucket.put("uploads/clip.mp4", &std::fs::read(clips::mp4(2)).unwrap());
    let server = Start::default().set("FLUX__LOG__LEVEL", "debug").server().await;
    let id = server.submit(&encoder_v2(&bucket)).await;
    let mut seen = text(&server, &format!("/api/v1/jobs/{id}/stream")).await;
    seen += &String::from_utf8_lossy(&command_lines());
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    let output = &job["outputs"][0];
    let path = output["destination"]["path"].as_str().unwrap();
    assert_eq!(path, "processed/clip_180.mp4");
    let object = bucket.object(path).expect("the object is there");
    assert_eq!(output["result"]["files"][0]["sha256"], sha256(&object));
    assert_eq!(output["result"]["url"], format!("s3://{BUCKET}/{path}"));
    assert_eq!(bucket.leftovers(), Vec::<String>::new());

    for path in ["/api/v1/jobs", "/jobs", "/metrics", "/api/v1/workers"] {
        seen += &text(&server, path).await;
    }
    for path in ["", "/log", "/outputs/0/content"] {
        seen += &text(&server, &format!("/api/v1/jobs/{id}{path}")).await;
    }
    seen += &server.log();
    assert!(seen.contains(BUCKET), "the search would see what is there");
    assert!(!holds_canary(seen.as_bytes()));
    let mut files = Vec::new();
    bytes_below(&server.data(), &mut files);
    assert!(files.windows(BUCKET.len()).any(|window| window == BUCKET.as_bytes()));
    assert!(!holds_canary(&files), "a secret lies on disk in the clear");
    server.assert_clean().await;
}

#[tokio::test]
async fn profiles_and_listed_buckets_serve_jobs_without_keys_and_others_do_not() {
    let bucket = S3Server::start().await;
    bucket.put("in/clip.mp4", &std::fs::read(clips::mp4(1)).unwrap());
    let file = format!(
        "[storage.profiles.archive]\nkind = \"s3\"\nendpoint = \"{}\"\naccess_key_id = \"{KEY_ID}\"\n\
         secret_access_key = \"{SECRET}\"\nbuckets = [\"{BUCKET}\"]\n",
        bucket.endpoint
    );
    // The profile's address needs no rule; a request's would.
    let server = Start::default().file(&file).set("FLUX__SOURCES__ALLOW", "192.0.2.1").server().await;
    let place =
        |profile: &str, path: &str| json!({"kind": "s3", "bucket": BUCKET, "path": path, "profile": profile});
    let body = |source: Value, destination: Value| json!({"source": source, "outputs": [{"preset": "480p_h264", "destination": destination}]});
    let id =
        server.submit(&body(place("archive", "in/clip.mp4"), place("archive", "out/{job_id}.mp4"))).await;
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    assert_eq!(job["outputs"][0]["destination"]["profile"], "archive");
    assert!(bucket.object(&format!("out/{id}.mp4")).is_some());

    let stranger = json!({"kind": "s3", "endpoint": bucket.endpoint, "bucket": BUCKET, "path": "x.mp4",
                          "access_key_id": KEY_ID, "secret_access_key": SECRET});
    let plain = json!({"kind": "s3", "bucket": BUCKET, "path": "x.mp4"});
    let other = json!({"kind": "s3", "bucket": "other", "path": "x.mp4", "profile": "archive"});
    for refused in [stranger, plain, other, place("nobody", "x.mp4")] {
        let (status, answer) =
            server.post("/api/v1/jobs", &body(place("archive", "in/clip.mp4"), refused.clone())).await;
        assert_eq!(status, 422, "{refused} {answer}");
        assert_eq!(answer["errors"][0]["pointer"], "/outputs/0/destination/path", "{answer}");
        assert!(!answer.to_string().contains(CANARY), "{answer}");
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn wrong_keys_of_a_request_end_the_job_with_whose_fault_it_is() {
    let bucket = S3Server::start().await;
    bucket.put("uploads/clip.mp4", &std::fs::read(clips::mp4(1)).unwrap());
    let server = Start::default().server().await;
    for (place, code) in
        [("/source", "source_forbidden"), ("/outputs/0/destination", "destination_forbidden")]
    {
        let mut body = encoder_v2(&bucket);
        body.pointer_mut(place).unwrap()["access_key_secret"] = "another-canary".into();
        let id = server.submit(&body).await;
        let job = server.finished(&id).await;
        let told = job["error"]["code"].as_str().unwrap_or_default();
        assert_eq!((job["status"].as_str(), told), (Some("failed"), code), "{job:#}");
        assert_eq!(job["attempts"].as_array().unwrap().len(), 1, "no try can help: {job:#}");
        assert!(!job.to_string().contains(CANARY), "{job:#}");
    }
    assert!(!server.log().contains(CANARY));
    server.assert_clean().await;
}

/// moto is the one server to be had that knows ACLs; it does not look at signatures, which the other tests do.
#[tokio::test]
async fn a_public_result_is_everybodys_to_read_and_a_private_one_is_not() {
    let moto = Moto::start(BUCKET).await;
    let server = Server::start().await;
    for (acl, status) in [("public-read", 200), ("private", 403)] {
        let path = format!("{acl}.mp4");
        let destination = json!({"kind": "s3", "endpoint": moto.endpoint, "bucket": BUCKET, "path": path, "acl": acl,
            "access_key_id": KEY_ID, "secret_access_key": SECRET});
        let source = json!({"kind": "file", "path": clips::mp4(1)});
        let body =
            json!({"source": source, "outputs": [{"preset": "proxy_360p", "destination": destination}]});
        let job = server.finished(&server.submit(&body).await).await;
        assert_eq!(job["status"], "completed", "{job:#}");
        let read = moto.request(reqwest::Method::GET, &format!("{BUCKET}/{path}")).await;
        assert_eq!(read.status(), status, "{acl}");
        if read.status().is_success() {
            assert_eq!(
                job["outputs"][0]["result"]["files"][0]["sha256"],
                sha256(&read.bytes().await.unwrap())
            );
        }
    }
    server.assert_clean().await;
}

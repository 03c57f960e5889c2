//! Who may come in: keys, scopes, tenants, browsers, and how many.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::support::server::{Server, Start, flux, job_for};
use crate::support::{PATIENCE, clips, eventually, sha256};

const ALICE: &str = "alice-key";
const BOB: &str = "bob-key";
const READER: &str = "reader-key";

fn config() -> String {
    let entry = |name: &str, tenant: &str, key: &str, scopes: &str| {
        let hash = sha256(key.as_bytes());
        format!("{{ name = \"{name}\", tenant = \"{tenant}\", sha256 = \"{hash}\", scopes = [{scopes}] }}")
    };
    let keys = [
        entry("alice", "alice", ALICE, "\"jobs:read\", \"jobs:write\""),
        entry("bob", "bob", BOB, "\"jobs:read\", \"jobs:write\""),
        entry("reader", "alice", READER, "\"jobs:read\""),
    ];
    format!("[auth]\nkeys = [{}]\n", keys.join(", "))
}

fn request(server: &Server, method: Method, path: &str, key: Option<&str>) -> RequestBuilder {
    let request = server.http.request(method, format!("{}{path}", server.url));
    match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    }
}

async fn submit(server: &Server, key: Option<&str>) -> (StatusCode, Value) {
    let request = request(server, Method::POST, "/api/v1/jobs", key).json(&job_for(&clips::mp4(1)));
    let answer = request.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn keys_scopes_and_tenants_are_kept_apart() {
    let server = Start::default().file(&config()).server().await;
    for key in [None, Some("somebody-elses-key")] {
        for (method, path) in [(Method::GET, "/api/v1/jobs"), (Method::POST, "/api/v1/jobs")] {
            let answer = request(&server, method, path, key).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{key:?} {path}");
            assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        }
    }
    let (status, problem) = submit(&server, Some(READER)).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{problem:#}");
    let (status, job) = submit(&server, Some(ALICE)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{job:#}");
    let path = format!("/api/v1/jobs/{}", job["id"].as_str().unwrap());
    for (key, expected) in [(ALICE, StatusCode::OK), (READER, StatusCode::OK), (BOB, StatusCode::NOT_FOUND)] {
        let answer = request(&server, Method::GET, &path, Some(key)).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{key}");
    }
    for (method, path) in [
        (Method::POST, format!("{path}/cancel")),
        (Method::DELETE, path.clone()),
        (Method::GET, format!("{path}/stream")),
        (Method::GET, format!("{path}/log")),
        (Method::GET, format!("{path}/outputs/0/content")),
    ] {
        let answer = request(&server, method, &path, Some(BOB)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let list = request(&server, Method::GET, "/api/v1/jobs", Some(BOB)).send().await.unwrap();
    assert_eq!(list.json::<Value>().await.unwrap()["jobs"], json!([]));
}

#[tokio::test]
async fn a_web_page_cannot_use_a_server_without_keys() {
    let server = Server::start().await;
    let jobs = || server.http.get(format!("{}/api/v1/jobs", server.url));
    assert_eq!(jobs().send().await.unwrap().status(), StatusCode::OK);
    for (name, value) in [
        ("host", "rebound.example.com"),
        ("origin", "https://evil.example.com"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let answer = jobs().header(name, value).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{name}: {value}");
    }
    // What a form can send without asking first.
    let body = job_for(&clips::mp4(1)).to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let post = server.http.post(format!("{}/api/v1/jobs", server.url));
        let answer = post.header("content-type", kind).body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    assert_eq!(server.get("/api/v1/jobs").await.1["jobs"], json!([]), "nothing was submitted");
}

#[tokio::test]
async fn without_keys_nobody_else_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let start = {
        let dir = dir.path().to_owned();
        move || {
            let mut command = flux(&["serve", "--role", "all", "--listen", "0.0.0.0:0"]);
            command.arg("--data-dir").arg(dir.join("data")).current_dir(&dir).output().unwrap()
        }
    };
    let output = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(start)).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("auth.keys") && said.contains("127.0.0.1"), "{said}");
    assert!(!dir.path().join("data").exists(), "it touched nothing");
}

#[tokio::test]
async fn one_key_sent_by_thirty_at_once_is_one_job() {
    let server = Server::start().await;
    let body = job_for(&clips::mp4(1));
    let send = || async {
        let post = server.http.post(format!("{}/api/v1/jobs", server.url));
        let answer = post.header("idempotency-key", "the-same").json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let mut ids = futures_util::future::join_all((0..30).map(|_| send())).await;
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(server.get("/api/v1/jobs").await.1["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(server.finished(&ids[0]).await["status"], "completed");
}

#[tokio::test]
async fn without_a_queue_jobs_are_taken_while_a_slot_is_free() {
    let server =
        Start::default().set("FLUX__WORKER__SLOTS", "1").set("FLUX__QUEUE__MAX_PENDING", "0").server().await;
    let taken = |body: Value| {
        let server = &server;
        async move { server.post("/api/v1/jobs", &body).await.1["id"].as_str().map(ToOwned::to_owned) }
    };
    let first = eventually("the worker is known", async || taken(job_for(&clips::long(20))).await).await;
    let post = server.http.post(format!("{}/api/v1/jobs", server.url)).json(&job_for(&clips::mp4(1)));
    let answer = post.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    server.post(&format!("/api/v1/jobs/{first}/cancel"), &json!({})).await;
    let next = eventually("the slot is free", async || taken(job_for(&clips::mp4(1))).await).await;
    assert_eq!(server.finished(&next).await["status"], "completed");
}

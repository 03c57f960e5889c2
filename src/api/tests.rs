//! The router as clients meet it, over a store in memory.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::routes::{Access, Verb, table};
use super::testkit::{Server, key, local, request, small_job, start};
use super::{Auth, Limits, Scope};
use crate::domain::limits::MAX_INLINE_BYTES;

const PATIENCE: Duration = Duration::from_secs(10);

fn with_keys() -> Auth {
    let both = [Scope::JobsRead, Scope::JobsWrite];
    Auth::Keys(vec![
        key("alice", "a", &both),
        key("bob", "b", &both),
        key("reader", "a", &[Scope::JobsRead]),
        key("none", "a", &[]),
        key("root", "ops", &[Scope::JobsRead, Scope::JobsWrite, Scope::Admin]),
    ])
}

fn as_key(name: &str, method: &str, path: &str) -> http::request::Builder {
    request(method, path).header("authorization", format!("Bearer {name}"))
}

fn empty(builder: http::request::Builder) -> http::Request<Body> {
    builder.body(Body::empty()).unwrap()
}

fn body(builder: http::request::Builder, value: &Value) -> http::Request<Body> {
    builder
        .header("content-type", "application/json")
        .body(Body::from(value.to_string()))
        .unwrap()
}

/// Each row of the table as a request.
fn every_route() -> Vec<(Access, &'static str, String)> {
    let id = "00000000-0000-7000-8000-000000000001";
    table()
        .into_iter()
        .map(|route| {
            let method = match route.verb {
                Verb::Get => "GET",
                Verb::Post => "POST",
                Verb::Put => "PUT",
                Verb::Delete => "DELETE",
            };
            let path = route
                .path
                .replace("{id}", id)
                .replace("{output}", "0")
                .replace("{*file}", "x");
            (
                route.access,
                method,
                path.replace("{name}", "720p_h264").replace("{code}", "not_found"),
            )
        })
        .collect()
}

#[tokio::test]
async fn no_route_is_served_without_what_the_table_says() {
    let server = start(with_keys(), Limits::default(), None).await;
    for (access, method, path) in every_route() {
        let bare = server.call(method, &path).await;
        let wrong = server.ask(empty(as_key("stranger", method, &path))).await;
        let unscoped = server.ask(empty(as_key("none", method, &path))).await;
        match access {
            Access::Needs(_) => {
                assert_eq!(
                    (bare.status, bare.problem().as_str()),
                    (401, "unauthenticated"),
                    "{method} {path}"
                );
                assert_eq!(bare.header("www-authenticate"), "Bearer realm=\"flux\"");
                assert_eq!(wrong.status, 401, "{method} {path}");
                assert!(wrong.header("www-authenticate").contains("invalid_token"));
                assert_eq!(
                    (unscoped.status, unscoped.problem().as_str()),
                    (403, "forbidden"),
                    "{method} {path}"
                );
            }
            Access::Signed => assert_eq!(
                (bare.status, bare.problem().as_str()),
                (404, "not_found"),
                "{path}"
            ),
            Access::Public => assert_eq!(bare.status, 200, "{method} {path}"),
        }
    }
    let refused = server
        .ask(body(as_key("reader", "POST", "/api/v1/jobs"), &small_job()))
        .await;
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn another_tenants_job_does_not_exist() {
    let server = start(with_keys(), Limits::default(), None).await;
    let made = server
        .ask(body(as_key("alice", "POST", "/api/v1/jobs"), &small_job()))
        .await;
    assert_eq!(made.status, 202, "{:?}", made.bytes);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    for (method, tail) in [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("GET", "/log"),
        ("GET", "/stream"),
        ("GET", "/outputs/0/content"),
        ("GET", "/outputs/0/content/x"),
    ] {
        let path = format!("/api/v1/jobs/{id}{tail}");
        let foreign = server.ask(empty(as_key("bob", method, &path))).await;
        assert_eq!(
            (foreign.status, foreign.problem().as_str()),
            (404, "not_found"),
            "{method} {path}"
        );
    }
    let own = server
        .ask(empty(as_key("alice", "GET", &format!("/api/v1/jobs/{id}"))))
        .await;
    assert_eq!(own.status, 200);
    let list = |name: &'static str, query: &'static str| {
        let request = empty(as_key(name, "GET", &format!("/api/v1/jobs{query}")));
        async { server.ask(request).await }
    };
    assert_eq!(list("bob", "").await.json()["jobs"], json!([]));
    assert_eq!(list("bob", "?tenant=a").await.status, 403);
    assert_eq!(list("bob", "?tenant=*").await.status, 403);
    assert_eq!(
        list("root", "").await.json()["jobs"],
        json!([]),
        "an admin says whose jobs it means"
    );
    assert_eq!(
        list("root", "?tenant=a").await.json()["jobs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        list("root", "?tenant=*").await.json()["jobs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_job_is_accepted_shown_listed_cancelled_and_deleted() {
    let server = local().await;
    let made = server.post("/api/v1/jobs", &small_job()).await;
    let job = made.json();
    let id = job["id"].as_str().unwrap();
    assert_eq!(
        (made.status, made.header("location")),
        (202, format!("/api/v1/jobs/{id}").as_str())
    );
    assert_eq!(
        (&job["job_id"], &job["stream_url"]),
        (&json!(id), &json!(format!("/api/v1/jobs/{id}/stream")))
    );
    assert_eq!(
        (&job["status"], &job["source"]["url"]),
        (&json!("queued"), &json!("https://example.com/in.mp4?…"))
    );
    assert!(!String::from_utf8_lossy(&made.bytes).contains("canary"));

    let shown = server.get(&format!("/api/v1/jobs/{id}")).await;
    assert_eq!(
        shown.json()["outputs"][0]["destination"]["path"],
        format!("out/{id}.mp4")
    );
    assert!(shown.json().get("job_id").is_none() && shown.json()["uuid"].is_null());
    assert_eq!(server.get(&format!("/jobs/{id}")).await.json()["uuid"], id);
    assert_eq!(server.get("/jobs").await.json()["jobs"][0]["uuid"], id);

    let cancelled = server.call("POST", &format!("/api/v1/jobs/{id}/cancel")).await;
    assert_eq!(
        (cancelled.status, &cancelled.json()["status"]),
        (200, &json!("cancelled"))
    );
    assert_eq!(
        server
            .call("POST", &format!("/api/v1/jobs/{id}/cancel"))
            .await
            .status,
        200,
        "idempotent"
    );
    let retried = server.call("POST", &format!("/api/v1/jobs/{id}/retry")).await;
    assert_eq!(
        (retried.status, retried.problem().as_str()),
        (409, "job_not_failed")
    );
    assert_eq!(
        server.get(&format!("/api/v1/jobs/{id}/log")).await.json()["attempts"],
        json!([])
    );
    assert_eq!(server.call("DELETE", &format!("/jobs/{id}")).await.status, 204);
    assert_eq!(
        server.get(&format!("/api/v1/jobs/{id}")).await.problem(),
        "not_found"
    );
}

#[tokio::test]
async fn lists_page_and_filter() {
    let server = local().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.insert(0, server.submit().await);
    }
    let listed = |page: &Value| -> Vec<String> {
        page["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|j| j["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = server.get("/api/v1/jobs?limit=2").await.json();
    assert_eq!(listed(&first), ids[..2]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = server
        .get(&format!("/api/v1/jobs?limit=2&cursor={cursor}"))
        .await
        .json();
    assert_eq!(
        (listed(&second), &second["next_cursor"]),
        (ids[2..].to_vec(), &Value::Null)
    );
    assert_eq!(
        listed(&server.get("/api/v1/jobs?label=team=a&status=queued").await.json()).len(),
        3
    );
    assert!(listed(&server.get("/api/v1/jobs?label=team:b").await.json()).is_empty());
    assert!(listed(&server.get("/api/v1/jobs?status=failed").await.json()).is_empty());
    for bad in [
        "limit=0",
        "limit=101",
        "status=x",
        "cursor=x",
        "label=x",
        "page=2",
        "limit=1&limit=2",
    ] {
        assert_eq!(
            server.get(&format!("/api/v1/jobs?{bad}")).await.problem(),
            "invalid_request",
            "{bad}"
        );
    }
}

#[tokio::test]
async fn seed_bodies_are_accepted_on_both_paths() {
    let server = local().await;
    for path in ["/api/v1/jobs", "/jobs"] {
        for seed in [
            json!({"input_url": "https://example.com/video.mp4", "preset": "720p_h264",
                   "output": {"storage": "s3", "path": "output/video.mp4"}}),
            json!({"input_key": "uploads/test/video.mp4"}),
        ] {
            let made = server.post(path, &seed).await;
            assert_eq!(made.status, 202, "{:?}", made.bytes);
            assert_eq!(made.json()["uuid"].is_string(), path == "/jobs");
        }
    }
}

#[tokio::test]
async fn an_idempotency_key_makes_one_job() {
    let server = local().await;
    let send = |key: &'static str, job: Value| {
        let request = body(
            request("POST", "/api/v1/jobs").header("idempotency-key", key),
            &job,
        );
        async { server.ask(request).await }
    };
    let first = send("\"k 1\"", small_job()).await;
    let again = send("\"k 1\"", small_job()).await;
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (202, "true")
    );
    assert_eq!(first.header("idempotency-replayed"), "");
    assert_eq!(first.json()["id"], again.json()["id"]);
    let mut other = small_job();
    other["priority"] = 5.into();
    assert_eq!(send("\"k 1\"", other).await.problem(), "idempotency_key_reused");
    assert_eq!(send("a b", small_job()).await.problem(), "invalid_request");
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        server.call("DELETE", &format!("/api/v1/jobs/{id}")).await.status,
        204
    );
    let gone = send("\"k 1\"", small_job()).await;
    assert_eq!((gone.status, gone.problem().as_str()), (410, "gone"));
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let server = local().await;
    let raw = |text: &str| {
        request("POST", "/api/v1/jobs")
            .header("content-type", "application/json")
            .body(Body::from(text.to_owned()))
            .unwrap()
    };
    assert_eq!(server.ask(raw("{")).await.problem(), "malformed_json");
    assert_eq!(
        server.ask(raw(r#"{"priority":1e999}"#)).await.problem(),
        "malformed_json"
    );
    let duplicate = server.ask(raw(r#"{"input_key":"a","input_key":"b"}"#)).await;
    assert_eq!(
        (duplicate.status, &duplicate.json()["errors"][0]["pointer"]),
        (422, &json!("/input_key"))
    );
    let unknown = server
        .post(
            "/api/v1/jobs",
            &json!({"input_url": "http://h/x", "preset": "720p_h265",
        "output": {"storage": "s3", "path": "x"}, "nonsense": 1}),
        )
        .await;
    assert_eq!(
        (unknown.status, unknown.problem().as_str()),
        (422, "validation_failed")
    );
    let places: Vec<_> = unknown.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["pointer"].clone())
        .collect();
    assert!(
        places.contains(&json!("/preset")) && places.contains(&json!("/nonsense")),
        "{places:?}"
    );

    let form = request("POST", "/api/v1/jobs").header("content-type", "text/plain");
    assert_eq!(
        server
            .ask(form.body(Body::from(small_job().to_string())).unwrap())
            .await
            .status,
        415
    );
    assert_eq!(server.get("/nowhere").await.problem(), "not_found");
    assert_eq!(server.get("/api/v1/jobs/not-an-id").await.problem(), "not_found");
    assert_eq!(server.get("/api/v1/jobs/%ff").await.problem(), "invalid_request");
    let patched = server.call("PATCH", "/api/v1/jobs").await;
    assert_eq!(patched.problem(), "method_not_allowed");
    assert!(patched.header("allow").contains("POST") && patched.header("allow").contains("GET"));
    assert_eq!(
        server.get("/api/v1/presets/720p_h26").await.problem(),
        "not_found"
    );

    let blocked = server
        .post(
            "/api/v1/jobs",
            &json!({"source": {"kind": "file", "path": "/etc/passwd"},
        "outputs": [{"preset": "720p_h264", "destination": {"kind": "file", "path": "/etc/x"}}]}),
        )
        .await;
    let errors = blocked.json()["errors"].clone();
    assert_eq!(
        (&errors[0]["pointer"], &errors[1]["pointer"]),
        (&json!("/source"), &json!("/outputs/0/destination/path"))
    );
}

#[tokio::test]
async fn bodies_are_bounded() {
    let server = local().await;
    let mut big = small_job();
    big["metadata"] = json!({"x": "y".repeat(1024 * 1024)});
    let refused = server.post("/api/v1/jobs", &big).await;
    assert!(matches!(refused.status, 413 | 422), "{}", refused.status);
    let huge = Bytes::from(vec![b' '; MAX_INLINE_BYTES * 2]);
    let request = request("POST", "/api/v1/jobs")
        .header("content-type", "application/json")
        .body(Body::from(huge))
        .unwrap();
    assert_eq!(server.ask(request).await.problem(), "body_too_large");
    let inline = json!({"source": {"kind": "inline", "data": "AAAA".repeat(512 * 1024)},
        "outputs": [{"preset": "720p_h264", "destination": {"kind": "storage", "path": "i.mp4"}}]});
    let made = server.post("/api/v1/jobs", &inline).await;
    assert_eq!(made.status, 202);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.files.contents.lock().unwrap()[&id].len(), 1536 * 1024);
}

#[tokio::test]
async fn slow_bodies_and_full_queues() {
    let limits = Limits {
        body_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = start(Auth::Loopback { hosts: vec![] }, limits, Some(1)).await;
    let slow = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let request = request("POST", "/jobs")
        .header("content-type", "application/json")
        .body(slow)
        .unwrap();
    let late = server.ask(request).await;
    assert_eq!((late.status, late.problem().as_str()), (408, "request_timeout"));
    server.submit().await;
    let inline = json!({"source": {"kind": "inline", "data": "AAAA"},
        "outputs": [{"preset": "720p_h264", "destination": {"kind": "storage", "path": "i.mp4"}}]});
    let full = server.post("/api/v1/jobs", &inline).await;
    assert_eq!((full.status, full.problem().as_str()), (503, "queue_full"));
    assert!(!full.header("retry-after").is_empty());
    assert!(
        server.files.contents.lock().unwrap().is_empty(),
        "the inline bytes were discarded"
    );
}

#[tokio::test]
async fn request_ids_are_echoed_or_made() {
    let server = local().await;
    let with = |id: &'static str| {
        let request = empty(request("GET", "/health").header("x-request-id", id));
        async { server.ask(request).await.header("x-request-id").to_owned() }
    };
    assert_eq!(with("trace_1-A").await, "trace_1-A");
    let made = with("no spaces").await;
    assert!(made.len() == 32 && made != "no spaces");
}

#[tokio::test]
async fn headers_protect_every_answer() {
    let server = local().await;
    for path in [
        "/",
        "/health",
        "/nowhere",
        "/api/v1/jobs",
        "/api/v1/presets",
        "/metrics",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert!(
            answer
                .header("content-security-policy")
                .contains("default-src 'none'"),
            "{path}"
        );
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
    }
}

#[tokio::test]
async fn a_keyless_server_answers_local_pages_only() {
    let server = local().await;
    let from = |name: &'static str, value: &'static str| {
        let mut request = body(http::Request::builder().method("POST").uri("/jobs"), &small_job());
        request.headers_mut().insert("host", "localhost".parse().unwrap());
        request.headers_mut().insert(name, value.parse().unwrap());
        async { server.ask(request).await }
    };
    assert_eq!(from("origin", "http://localhost:8080").await.status, 202);
    for (name, value) in [
        ("host", "evil.example"),
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let refused = from(name, value).await;
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (403, "origin_refused"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_dry_run_resolves_and_stores_nothing() {
    let server = local().await;
    let dry = server.post("/api/v1/jobs?dry_run=true", &small_job()).await;
    assert_eq!(
        (dry.status, &dry.json()["outputs"][0]["settings"]["container"]),
        (200, &json!("mp4"))
    );
    assert!(!String::from_utf8_lossy(&dry.bytes).contains("canary"));
    assert_eq!(server.get("/api/v1/jobs").await.json()["jobs"], json!([]));
    assert_eq!(
        server
            .post("/api/v1/jobs?dry_run=maybe", &small_job())
            .await
            .problem(),
        "invalid_request"
    );
}

/// Reads a stream until it ends or `enough` is in it.
async fn read_stream(server: &Server, request: http::Request<Body>, enough: &str) -> (u16, String) {
    let response = server.send(request).await;
    let status = response.status().as_u16();
    let mut frames = response.into_body();
    let mut text = String::new();
    while !text.contains(enough) {
        let Some(frame) = timeout(PATIENCE, frames.frame()).await.expect("in time") else {
            break;
        };
        text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
    }
    (status, text)
}

#[tokio::test]
async fn a_stream_tells_history_and_ends_with_the_job() {
    let server = local().await;
    let id = server.submit().await;
    let path = format!("/api/v1/jobs/{id}/stream");
    let response = server.send(empty(request("GET", &path))).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let mut frames = response.into_body();
    let mut text = String::new();
    let mut completed = false;
    while let Some(frame) = timeout(PATIENCE, frames.frame()).await.expect("in time") {
        text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        if !completed && text.contains("event: snapshot") {
            completed = true;
            server.complete(b"0123456789").await;
        }
    }
    assert!(
        text.starts_with("retry: 2000\n\nid: 1\nevent: snapshot\n"),
        "{text}"
    );
    assert_eq!(text.matches("event: completed\n").count(), 1, "{text}");
    let ids: Vec<i64> = text
        .lines()
        .filter_map(|l| l.strip_prefix("id: ")?.parse().ok())
        .collect();
    assert!(ids.is_sorted(), "{ids:?}");

    let (_, late) = read_stream(&server, empty(request("GET", &path)), "\0").await;
    assert!(
        late.contains("event: snapshot") && late.contains("event: completed"),
        "{late}"
    );
    let resume = request("GET", &path).header("last-event-id", "1");
    let (_, resumed) = read_stream(&server, empty(resume), "\0").await;
    assert!(
        !resumed.contains("snapshot") && resumed.contains("id: 2\n"),
        "{resumed}"
    );
    assert!(
        resumed
            .trim_end()
            .lines()
            .last()
            .unwrap()
            .contains("\"output_url\":\"/api/v1/jobs/"),
        "{resumed}"
    );
    let unknown = "/api/v1/jobs/00000000-0000-7000-8000-000000000001/stream";
    assert_eq!(server.get(unknown).await.problem(), "not_found");
}

#[tokio::test]
async fn streams_are_capped_and_end_with_the_server() {
    let limits = Limits {
        streams_per_key: 1,
        ..Limits::default()
    };
    let server = start(Auth::Loopback { hosts: vec![] }, limits, None).await;
    let id = server.submit().await;
    let path = format!("/api/v1/jobs/{id}/stream");
    let first = server.send(empty(request("GET", &path))).await;
    let second = server.get("/api/v1/events").await;
    assert_eq!(
        (second.status, second.problem().as_str()),
        (429, "too_many_streams")
    );
    assert!(!second.header("retry-after").is_empty());
    server.lifecycle.soft().cancel();
    timeout(PATIENCE, first.into_body().collect())
        .await
        .expect("the stream ended")
        .unwrap();
    assert_eq!(server.get("/ready").await.status, 503);
    assert_eq!(server.get("/health").await.status, 200);
}

#[tokio::test]
async fn all_jobs_are_followed_from_a_snapshot() {
    let server = local().await;
    server.submit().await;
    let response = server.send(empty(request("GET", "/api/v1/events"))).await;
    let mut frames = response.into_body();
    let mut text = String::new();
    let mut second = None;
    while second
        .as_deref()
        .is_none_or(|id: &str| !text.contains(&format!("\"job_id\":\"{id}\"")))
    {
        let frame = timeout(PATIENCE, frames.frame())
            .await
            .expect("in time")
            .unwrap()
            .unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        if second.is_none() && text.contains("event: snapshot") {
            second = Some(server.submit().await);
        }
    }
    assert!(text.contains("event: status"));
}

#[tokio::test]
async fn results_are_served_whole_in_parts_and_by_redirect() {
    let server = local().await;
    let id = server.submit().await;
    let path = format!("/api/v1/jobs/{id}/outputs/0/content");
    assert_eq!(server.get(&path).await.problem(), "output_not_ready");
    server.complete(b"0123456789").await;
    let shown = server.get(&format!("/api/v1/jobs/{id}")).await.json();
    assert_eq!(
        (&shown["status"], &shown["outputs"][0]["result"]["url"]),
        (&json!("completed"), &json!(path))
    );
    assert!(!shown.to_string().contains("file:///srv"));

    let whole = server.get(&path).await;
    assert_eq!((whole.status, &whole.bytes[..]), (200, &b"0123456789"[..]));
    assert_eq!(
        (whole.header("content-type"), whole.header("accept-ranges")),
        ("video/mp4", "bytes")
    );
    let etag = whole.header("etag").to_owned();
    let with = |name: &'static str, value: String, method: &'static str| {
        let request = empty(request(method, &path).header(name, value));
        async { server.ask(request).await }
    };
    let part = with("range", "bytes=2-4".into(), "GET").await;
    assert_eq!(
        (part.status, &part.bytes[..], part.header("content-range")),
        (206, &b"234"[..], "bytes 2-4/10")
    );
    let head = with("range", "bytes=2-4".into(), "HEAD").await;
    assert_eq!(
        (head.status, head.bytes.len(), head.header("content-length")),
        (206, 0, "3")
    );
    let outside = with("range", "bytes=10-".into(), "GET").await;
    assert_eq!(
        (outside.status, outside.header("content-range")),
        (416, "bytes */10")
    );
    assert_eq!(outside.problem(), "range_not_satisfiable");
    assert_eq!(with("if-none-match", etag, "GET").await.status, 304);
    assert_eq!(
        server.get(&format!("{path}/{id}.mp4")).await.status,
        200,
        "by its name"
    );
    assert_eq!(
        server.get(&format!("{path}/out/{id}.mp4")).await.status,
        200,
        "by its path"
    );
    assert_eq!(server.get(&format!("{path}/../../etc/passwd")).await.status, 404);
    assert_eq!(
        server
            .get(&format!("/api/v1/jobs/{id}/outputs/1/content"))
            .await
            .problem(),
        "not_found"
    );

    server.files.contents.lock().unwrap().clear();
    assert_eq!(server.get(&path).await.problem(), "gone");
    *server.files.presigned.lock().unwrap() = Some("https://bucket.example/x?sig=1".into());
    let redirect = server.get(&path).await;
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (302, "https://bucket.example/x?sig=1")
    );
}

#[tokio::test]
async fn uploads_are_signed_whole_and_the_tenants_own() {
    let server = start(with_keys(), Limits::default(), None).await;
    let place = server
        .ask(body(
            as_key("alice", "POST", "/api/v1/uploads"),
            &json!({"filename": "a b.mov", "size": 5}),
        ))
        .await;
    assert_eq!(place.status, 201, "{:?}", place.bytes);
    let (url, source) = (
        place.json()["url"].as_str().unwrap().to_owned(),
        place.json()["source"].clone(),
    );
    let job = |source: &Value| json!({"source": source, "outputs": small_job()["outputs"]});
    let submit = |name: &'static str, job: Value| {
        let request = body(as_key(name, "POST", "/api/v1/jobs"), &job);
        async { server.ask(request).await }
    };
    let early = submit("alice", job(&source)).await;
    assert_eq!(
        early.json()["errors"][0],
        json!({"pointer": "/source/id", "detail": "the upload is not whole yet"})
    );

    let put = |url: String, bytes: &'static str| {
        let request = request("PUT", &url)
            .header("content-length", bytes.len())
            .body(Body::from(bytes))
            .unwrap();
        async { server.ask(request).await }
    };
    let (bare, _) = url.split_once('?').unwrap();
    for wrong in [
        bare.to_owned(),
        format!("{bare}?token=0"),
        format!("{}0", &url[..url.len() - 1]),
    ] {
        // The last character may have been that one already.
        if wrong != url {
            assert_eq!(put(wrong, "hello").await.problem(), "not_found");
        }
    }
    assert_eq!(put(url.clone(), "hello!").await.problem(), "invalid_request");
    let sent = put(url.clone(), "hello").await;
    assert_eq!((sent.status, &sent.json()["size"]), (200, &json!(5)));
    assert_eq!(put(url, "hello").await.problem(), "upload_finished");

    assert_eq!(
        submit("bob", job(&source)).await.json()["errors"][0]["detail"],
        "no such upload"
    );
    assert_eq!(submit("alice", job(&source)).await.status, 202);
    let by_key = submit(
        "alice",
        json!({"input_key": place.json()["input_key"], "resolutions": ["480p"]}),
    )
    .await;
    assert_eq!(
        (by_key.status, &by_key.json()["source"]["kind"]),
        (202, &json!("upload"))
    );
    let bad = server
        .ask(body(
            as_key("alice", "POST", "/api/v1/uploads"),
            &json!({"size": 0, "x": 1}),
        ))
        .await;
    assert_eq!(bad.json()["errors"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_server_describes_itself() {
    let server = local().await;
    assert_eq!(server.get("/health").await.json()["status"], "ok");
    assert_eq!(server.get("/ready").await.json()["status"], "ready");
    assert_eq!(&server.get("/metrics").await.bytes[..], b"flux_up 1\n");
    assert_eq!(
        server.get("/api/v1/workers/status").await.json(),
        json!({"workers": []})
    );
    let presets = server.get("/api/v1/presets").await.json();
    assert!(
        presets["presets"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["name"] == "720p_h264")
    );
    assert_eq!(
        server.get("/api/v1/presets/720p_h264").await.json()["container"],
        "mp4"
    );
    assert_eq!(server.get("/problems/queue_full").await.json()["retryable"], true);
}

#[tokio::test]
async fn a_panic_is_a_problem_and_nothing_more() {
    let server = start(Auth::Loopback { hosts: vec![] }, Limits::default(), None).await;
    async fn defect() -> &'static str {
        panic!("secret")
    }
    let panicking = axum::Router::new().route("/", axum::routing::get(defect));
    let router = super::edge::tests::around(panicking);
    let answer = Server { router, ..server }.get("/").await;
    assert_eq!((answer.status, answer.problem().as_str()), (500, "internal"));
    assert!(!String::from_utf8_lossy(&answer.bytes).contains("secret"));
}

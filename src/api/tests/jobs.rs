use super::*;

#[tokio::test]
async fn a_job_is_accepted_shown_listed_cancelled_and_deleted() {
    let server = local().await;
    let made = server.post("/api/v1/jobs", &small_job()).await;
    let job = made.json();
    let id = job["id"].as_str().unwrap();
    assert_eq!((made.status, made.header("location")), (202, format!("/api/v1/jobs/{id}").as_str()));
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
    assert_eq!(shown.json()["outputs"][0]["destination"]["path"], format!("out/{id}.mp4"));
    assert!(shown.json().get("job_id").is_none() && shown.json()["uuid"].is_null());
    assert_eq!(server.get(&format!("/jobs/{id}")).await.json()["uuid"], id);
    assert_eq!(server.get("/jobs").await.json()["jobs"][0]["uuid"], id);

    let cancelled = server.call("POST", &format!("/api/v1/jobs/{id}/cancel")).await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    assert_eq!(server.call("POST", &format!("/api/v1/jobs/{id}/cancel")).await.status, 200, "idempotent");
    let retried = server.call("POST", &format!("/api/v1/jobs/{id}/retry")).await;
    assert_eq!((retried.status, retried.problem().as_str()), (409, "job_not_failed"));
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}/log")).await.json()["attempts"], json!([]));
    assert_eq!(server.call("DELETE", &format!("/jobs/{id}")).await.status, 204);
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}")).await.problem(), "not_found");
}

#[tokio::test]
async fn lists_page_and_filter() {
    let server = local().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.insert(0, server.submit().await);
    }
    let listed = |page: &Value| -> Vec<String> {
        page["jobs"].as_array().unwrap().iter().map(|j| j["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = server.get("/api/v1/jobs?limit=2").await.json();
    assert_eq!(listed(&first), ids[..2]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = server.get(&format!("/api/v1/jobs?limit=2&cursor={cursor}")).await.json();
    assert_eq!((listed(&second), &second["next_cursor"]), (ids[2..].to_vec(), &Value::Null));
    assert_eq!(listed(&server.get("/api/v1/jobs?label=team=a&status=queued").await.json()).len(), 3);
    assert!(listed(&server.get("/api/v1/jobs?label=team:b").await.json()).is_empty());
    assert!(listed(&server.get("/api/v1/jobs?status=failed").await.json()).is_empty());
    for bad in ["limit=0", "limit=101", "status=x", "cursor=x", "label=x", "page=2", "limit=1&limit=2"] {
        assert_eq!(server.get(&format!("/api/v1/jobs?{bad}")).await.problem(), "invalid_request", "{bad}");
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
        let request = body(request("POST", "/api/v1/jobs").header("idempotency-key", key), &job);
        async { server.ask(request).await }
    };
    let first = send("\"k 1\"", small_job()).await;
    let again = send("\"k 1\"", small_job()).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, "true"));
    assert_eq!(first.header("idempotency-replayed"), "");
    assert_eq!(first.json()["id"], again.json()["id"]);
    let mut other = small_job();
    other["priority"] = 5.into();
    assert_eq!(send("\"k 1\"", other).await.problem(), "idempotency_key_reused");
    assert_eq!(send("a b", small_job()).await.problem(), "invalid_request");
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.call("DELETE", &format!("/api/v1/jobs/{id}")).await.status, 204);
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
    assert_eq!(server.ask(raw(r#"{"priority":1e999}"#)).await.problem(), "malformed_json");
    let duplicate = server.ask(raw(r#"{"input_key":"a","input_key":"b"}"#)).await;
    assert_eq!((duplicate.status, &duplicate.json()["errors"][0]["pointer"]), (422, &json!("/input_key")));
    let unknown = server
        .post(
            "/api/v1/jobs",
            &json!({"input_url": "http://h/x", "preset": "720p_h265",
        "output": {"storage": "s3", "path": "x"}, "nonsense": 1}),
        )
        .await;
    assert_eq!((unknown.status, unknown.problem().as_str()), (422, "validation_failed"));
    let places: Vec<_> =
        unknown.json()["errors"].as_array().unwrap().iter().map(|e| e["pointer"].clone()).collect();
    assert!(places.contains(&json!("/preset")) && places.contains(&json!("/nonsense")), "{places:?}");

    let form = request("POST", "/api/v1/jobs").header("content-type", "text/plain");
    assert_eq!(server.ask(form.body(Body::from(small_job().to_string())).unwrap()).await.status, 415);
    assert_eq!(server.get("/nowhere").await.problem(), "not_found");
    assert_eq!(server.get("/api/v1/jobs/not-an-id").await.problem(), "not_found");
    assert_eq!(server.get("/api/v1/jobs/%ff").await.problem(), "invalid_request");
    let patched = server.call("PATCH", "/api/v1/jobs").await;
    assert_eq!(patched.problem(), "method_not_allowed");
    assert!(patched.header("allow").contains("POST") && patched.header("allow").contains("GET"));
    assert_eq!(server.get("/api/v1/presets/720p_h26").await.problem(), "not_found");

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
    let limits = Limits { body_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = start(Auth::Loopback { hosts: vec![] }, limits, Some(1)).await;
    let slow = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let request = request("POST", "/jobs").header("content-type", "application/json").body(slow).unwrap();
    let late = server.ask(request).await;
    assert_eq!((late.status, late.problem().as_str()), (408, "request_timeout"));
    server.submit().await;
    let inline = json!({"source": {"kind": "inline", "data": "AAAA"},
        "outputs": [{"preset": "720p_h264", "destination": {"kind": "storage", "path": "i.mp4"}}]});
    let full = server.post("/api/v1/jobs", &inline).await;
    assert_eq!((full.status, full.problem().as_str()), (503, "queue_full"));
    assert!(!full.header("retry-after").is_empty());
    assert!(server.files.contents.lock().unwrap().is_empty(), "the inline bytes were discarded");
}

#[tokio::test]
async fn a_dry_run_resolves_and_stores_nothing() {
    let server = local().await;
    let dry = server.post("/api/v1/jobs?dry_run=true", &small_job()).await;
    assert_eq!((dry.status, &dry.json()["outputs"][0]["settings"]["container"]), (200, &json!("mp4")));
    assert!(!String::from_utf8_lossy(&dry.bytes).contains("canary"));
    assert_eq!(server.get("/api/v1/jobs").await.json()["jobs"], json!([]));
    assert_eq!(server.post("/api/v1/jobs?dry_run=maybe", &small_job()).await.problem(), "invalid_request");
}

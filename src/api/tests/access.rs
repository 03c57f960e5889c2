use super::*;

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
            let path = route.path.replace("{id}", id).replace("{output}", "0").replace("{*file}", "x");
            (route.access, method, path.replace("{name}", "720p_h264").replace("{code}", "not_found"))
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
            Access::Signed => {
                assert_eq!((bare.status, bare.problem().as_str()), (404, "not_found"), "{path}");
            }
            Access::Public => assert_eq!(bare.status, 200, "{method} {path}"),
        }
    }
    let refused = server.ask(body(as_key("reader", "POST", "/api/v1/jobs"), &small_job())).await;
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn another_tenants_job_does_not_exist() {
    let server = start(with_keys(), Limits::default(), None).await;
    let made = server.ask(body(as_key("alice", "POST", "/api/v1/jobs"), &small_job())).await;
    assert_eq!(made.status, 202, "{:?}", made.bytes);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    for (method, tail) in [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("GET", "/log"),
        ("GET", "/deliveries"),
        ("POST", "/deliveries/00000000-0000-7000-8000-000000000001/redeliver"),
        ("GET", "/stream"),
        ("GET", "/outputs/0/content"),
        ("GET", "/outputs/0/content/x"),
    ] {
        let path = format!("/api/v1/jobs/{id}{tail}");
        let foreign = server.ask(empty(as_key("bob", method, &path))).await;
        assert_eq!((foreign.status, foreign.problem().as_str()), (404, "not_found"), "{method} {path}");
    }
    let own = server.ask(empty(as_key("alice", "GET", &format!("/api/v1/jobs/{id}")))).await;
    assert_eq!(own.status, 200);
    let list = |name: &'static str, query: &'static str| {
        let request = empty(as_key(name, "GET", &format!("/api/v1/jobs{query}")));
        async { server.ask(request).await }
    };
    assert_eq!(list("bob", "").await.json()["jobs"], json!([]));
    assert_eq!(list("bob", "?tenant=a").await.status, 403);
    assert_eq!(list("bob", "?tenant=*").await.status, 403);
    assert_eq!(list("root", "").await.json()["jobs"], json!([]), "an admin says whose jobs it means");
    assert_eq!(list("root", "?tenant=a").await.json()["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(list("root", "?tenant=*").await.json()["jobs"].as_array().unwrap().len(), 1);
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
    for path in ["/", "/health", "/nowhere", "/api/v1/jobs", "/api/v1/presets", "/metrics"] {
        let answer = server.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{path}");
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
    for (name, value) in
        [("host", "evil.example"), ("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")]
    {
        let refused = from(name, value).await;
        assert_eq!((refused.status, refused.problem().as_str()), (403, "origin_refused"), "{name}");
    }
}

#[tokio::test]
async fn the_server_describes_itself() {
    let server = local().await;
    assert_eq!(server.get("/health").await.json()["status"], "ok");
    assert_eq!(server.get("/ready").await.json()["status"], "ready");
    assert_eq!(&server.get("/metrics").await.bytes[..], b"flux_up 1\n");
    assert_eq!(server.get("/api/v1/workers/status").await.json(), json!({"workers": []}));
    let presets = server.get("/api/v1/presets").await.json();
    assert!(presets["presets"].as_array().unwrap().iter().any(|p| p["name"] == "720p_h264"));
    assert_eq!(server.get("/api/v1/presets/720p_h264").await.json()["container"], "mp4");
    assert_eq!(server.get("/problems/queue_full").await.json()["retryable"], true);
}

#[tokio::test]
async fn a_panic_is_a_problem_and_nothing_more() {
    let server = start(Auth::Loopback { hosts: vec![] }, Limits::default(), None).await;
    let panicking = axum::Router::new().route("/", axum::routing::get(defect));
    let router = super::super::edge::tests::around(panicking);
    let answer = Server { router, ..server }.get("/").await;
    assert_eq!((answer.status, answer.problem().as_str()), (500, "internal"));
    assert!(!String::from_utf8_lossy(&answer.bytes).contains("secret"));
}

async fn defect() -> &'static str {
    panic!("secret")
}

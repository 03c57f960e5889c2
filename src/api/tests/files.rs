use super::*;

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
    assert_eq!((whole.header("content-type"), whole.header("accept-ranges")), ("video/mp4", "bytes"));
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
    assert_eq!((head.status, head.bytes.len(), head.header("content-length")), (206, 0, "3"));
    let outside = with("range", "bytes=10-".into(), "GET").await;
    assert_eq!((outside.status, outside.header("content-range")), (416, "bytes */10"));
    assert_eq!(outside.problem(), "range_not_satisfiable");
    assert_eq!(with("if-none-match", etag, "GET").await.status, 304);
    assert_eq!(server.get(&format!("{path}/{id}.mp4")).await.status, 200, "by its name");
    assert_eq!(server.get(&format!("{path}/out/{id}.mp4")).await.status, 200, "by its path");
    assert_eq!(server.get(&format!("{path}/../../etc/passwd")).await.status, 404);
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}/outputs/1/content")).await.problem(), "not_found");

    server.files.contents.lock().unwrap().clear();
    assert_eq!(server.get(&path).await.problem(), "gone");
    *server.files.presigned.lock().unwrap() = Some("https://bucket.example/x?sig=1".into());
    let redirect = server.get(&path).await;
    assert_eq!((redirect.status, redirect.header("location")), (302, "https://bucket.example/x?sig=1"));
}

#[tokio::test]
async fn uploads_are_signed_whole_and_the_tenants_own() {
    let server = start(with_keys(), Limits::default(), None).await;
    let place = server
        .ask(body(as_key("alice", "POST", "/api/v1/uploads"), &json!({"filename": "a b.mov", "size": 5})))
        .await;
    assert_eq!(place.status, 201, "{:?}", place.bytes);
    let (url, source) = (place.json()["url"].as_str().unwrap().to_owned(), place.json()["source"].clone());
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
        let request =
            request("PUT", &url).header("content-length", bytes.len()).body(Body::from(bytes)).unwrap();
        async { server.ask(request).await }
    };
    let (bare, _) = url.split_once('?').unwrap();
    for wrong in [bare.to_owned(), format!("{bare}?token=0"), format!("{}0", &url[..url.len() - 1])] {
        // The last character may have been that one already.
        if wrong != url {
            assert_eq!(put(wrong, "hello").await.problem(), "not_found");
        }
    }
    assert_eq!(put(url.clone(), "hello!").await.problem(), "invalid_request");
    let sent = put(url.clone(), "hello").await;
    assert_eq!((sent.status, &sent.json()["size"]), (200, &json!(5)));
    assert_eq!(put(url, "hello").await.problem(), "upload_finished");

    assert_eq!(submit("bob", job(&source)).await.json()["errors"][0]["detail"], "no such upload");
    assert_eq!(submit("alice", job(&source)).await.status, 202);
    let by_key =
        submit("alice", json!({"input_key": place.json()["input_key"], "resolutions": ["480p"]})).await;
    assert_eq!((by_key.status, &by_key.json()["source"]["kind"]), (202, &json!("upload")));
    let bad = server.ask(body(as_key("alice", "POST", "/api/v1/uploads"), &json!({"size": 0, "x": 1}))).await;
    assert_eq!(bad.json()["errors"].as_array().unwrap().len(), 3);
}

fn invited(url: &str) -> Invited {
    let headers = vec![("content-type".to_owned(), "video/mp4".to_owned())];
    Invited::Yes(Invitation::Whole { url: url.to_owned(), headers })
}

#[tokio::test]
async fn uploads_go_to_the_bucket_and_are_claimed_by_the_job() {
    let server = start(with_keys(), Limits::default(), None).await;
    *server.files.invitation.lock().unwrap() = invited("https://bucket.example/x?sig=1");
    let begin =
        || server.ask(body(as_key("alice", "POST", "/api/v1/uploads"), &json!({"filename": "a", "size": 5})));
    let place = begin().await;
    assert_eq!(place.status, 201, "{:?}", place.bytes);
    let place = place.json();
    assert_eq!((&place["method"], &place["url"]), (&json!("PUT"), &json!("https://bucket.example/x?sig=1")));
    assert_eq!(place["headers"], json!({"content-type": "video/mp4"}));
    let job = json!({"source": place["source"], "outputs": small_job()["outputs"]});
    let submit = |name: &'static str| {
        let request = body(as_key(name, "POST", "/api/v1/jobs"), &job);
        async { server.ask(request).await }
    };
    let detail = |answer: &Answer| answer.json()["errors"][0]["detail"].as_str().unwrap().to_owned();
    let id = place["id"].as_str().unwrap().to_owned();
    assert_eq!(detail(&submit("alice").await), "the upload is not whole yet");
    server.files.contents.lock().unwrap().insert(id.clone(), "hello!".into());
    assert_eq!(detail(&submit("alice").await), "the upload has 6 bytes and was announced with 5");
    server.files.contents.lock().unwrap().insert(id.clone(), "hello".into());
    assert_eq!(detail(&submit("bob").await), "no such upload");
    assert_eq!(submit("alice").await.status, 202);
    // On record from here on: the bucket is not asked again.
    server.files.contents.lock().unwrap().clear();
    assert_eq!(submit("alice").await.status, 202);
    let give_up = |name: &'static str, id: &str| {
        let request = empty(as_key(name, "DELETE", &format!("/api/v1/uploads/{id}")));
        async { server.ask(request).await }
    };
    assert_eq!(give_up("alice", &id).await.problem(), "upload_in_use");

    let other = begin().await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(give_up("bob", &other).await.problem(), "not_found");
    assert_eq!(give_up("alice", &other).await.status, 204);
    assert_eq!(give_up("alice", &other).await.problem(), "gone");
}

#[tokio::test]
async fn a_large_upload_is_completed_by_its_client() {
    let server = start(with_keys(), Limits::default(), None).await;
    let urls = vec!["https://bucket.example/1".to_owned(), "https://bucket.example/2".to_owned()];
    *server.files.invitation.lock().unwrap() = Invited::Yes(Invitation::Parts { size: 3, urls });
    let place = server
        .ask(body(as_key("alice", "POST", "/api/v1/uploads"), &json!({"filename": "a", "size": 5})))
        .await
        .json();
    assert_eq!((&place["parts"]["size"], place["parts"]["urls"].as_array().unwrap().len()), (&json!(3), 2));
    assert!(place.get("url").is_none());
    let url = place["complete_url"].as_str().unwrap().to_owned();
    let complete = |name: &'static str, etags: Value| {
        let request = body(as_key(name, "POST", &url), &json!({"etags": etags}));
        async { server.ask(request).await }
    };
    assert_eq!(complete("bob", json!(["good", "good"])).await.problem(), "not_found");
    for early in [json!([]), json!(["good", "bad"])] {
        let refused = complete("alice", early).await;
        assert_eq!((refused.status, &refused.json()["errors"][0]["pointer"]), (422, &json!("/etags")));
    }
    for _ in 0..2 {
        let done = complete("alice", json!(["good", "good"])).await;
        assert_eq!((done.status, &done.json()["source"]), (200, &place["source"]));
    }
    assert_eq!(server.files.assembled.lock().unwrap().len(), 2);
    let job = json!({"source": place["source"], "outputs": small_job()["outputs"]});
    assert_eq!(server.ask(body(as_key("alice", "POST", "/api/v1/jobs"), &job)).await.status, 202);
}

#[tokio::test]
async fn where_the_bucket_signs_nothing_the_server_takes_uploads_and_where_it_is_down_nobody() {
    let server = start(with_keys(), Limits::default(), None).await;
    let begin =
        || server.ask(body(as_key("alice", "POST", "/api/v1/uploads"), &json!({"filename": "a", "size": 5})));
    *server.files.invitation.lock().unwrap() = Invited::Unsigned;
    let place = begin().await;
    assert_eq!(place.status, 201);
    assert!(place.json()["url"].as_str().unwrap().starts_with("/api/v1/uploads/"), "{:?}", place.bytes);
    *server.files.invitation.lock().unwrap() = Invited::Down;
    let down = begin().await;
    assert_eq!((down.status, down.problem()), (503, "unavailable".to_owned()));
}

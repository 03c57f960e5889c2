//! What only object stores do.

use super::*;

#[tokio::test]
async fn any_size_is_one_multipart_upload() {
    let desk = Desk::s3().await;
    for (id, length, parts) in [(1, 0, 1), (2, 1, 1), (3, 20 * 1024 * 1024, 3)] {
        let content = bytes(length, 5);
        let to = storage("big.mp4", Overwrite::Replace);
        let handle = desk.stage(&to, id, &desk.file("x", &content)).await;
        assert_eq!(parts_of(&handle), parts);
        let committed = desk.destinations.commit(&handle).await.unwrap();
        assert_eq!(committed.url, format!("s3://{BUCKET}/team/a/big.mp4"));
        let there = desk.visible("big.mp4").await.unwrap();
        assert_eq!(there.len(), content.len());
        let differs = there.iter().zip(&content).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{length}");
        assert!(!handle.to_json().contains(testing::SECRET));
    }
    assert_eq!(desk.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn type_and_metadata_are_kept() {
    let desk = Desk::s3().await;
    let metadata = BTreeMap::from([("project".to_owned(), "a b/c;d".to_owned())]);
    let path = ObjectPath::parse("ü/%2e%2e/a b+c.mp4").unwrap();
    let to = Destination::Storage { path: path.clone(), overwrite: Overwrite::Replace, metadata };
    let file = desk.file("x", b"1");
    let handle = desk.stage(&to, 1, &file).await;
    desk.destinations.commit(&handle).await.unwrap();
    assert_eq!(desk.visible(path.as_str()).await, Some(b"1".to_vec()));
    let output = OutputFile {
        path: path.as_str().to_owned(),
        size: 1,
        sha256: file.sha256,
        content_type: "x/y".to_owned(),
        role: None,
    };
    let url = desk.destinations.presign(&to, &output, Duration::from_mins(1)).await.unwrap();
    let answer = client().get(url.clone()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "video/mp4");
    assert_eq!(answer.headers()["x-amz-meta-project"], "a b/c;d");
    assert_eq!(answer.headers()["x-amz-meta-flux-publication"], publication(1).to_string());
    assert_eq!(answer.text().await.unwrap(), "1");
    let forged = url.as_str().replace("X-Amz-Expires=60", "X-Amz-Expires=61");
    assert_eq!(client().get(forged).send().await.unwrap().status(), 403);
}

#[expect(clippy::disallowed_methods, reason = "talks to a loopback server made by the test")]
fn client() -> reqwest::Client {
    reqwest::Client::new()
}

#[tokio::test]
async fn metadata_that_could_break_a_header_is_refused_at_submission() {
    let desk = Desk::s3().await;
    let check = |name: &str, value: &str| {
        let metadata = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let path = ObjectPath::parse("a").unwrap();
        desk.destinations.check(&Destination::Storage { path, overwrite: Overwrite::Replace, metadata })
    };
    assert_eq!(check("a-1_b", "text, with = signs"), Ok(()));
    let long = "x".repeat(2_000);
    for (name, value) in [
        ("", "x"),
        ("a b", "x"),
        ("a\r\n", "x"),
        ("flux-publication", "x"),
        ("a", "x\ny"),
        ("a", "é"),
        ("a", ""),
        ("a", &long),
    ] {
        assert_eq!(check(name, value).unwrap_err().code, Code::DestinationForbidden, "{name:?} {value:?}");
    }
}

fn bucket_at(endpoint: &str, name: &str) -> domain::Bucket {
    let (name, endpoint) = (name.to_owned(), Some(endpoint.to_owned()));
    domain::Bucket::S3 { name, region: None, endpoint, path_style: None }
}

/// A newer build took over between the permit and the commit.
#[tokio::test]
async fn uploads_that_earlier_builds_recorded_are_committed_or_destroyed() {
    let desk = Desk::s3().await;
    let endpoint = desk.server.as_ref().unwrap().endpoint.to_string();
    assert!(endpoint.ends_with('/'), "as it was recorded");
    let recorded = |handle: &Handle, bucket: &str| {
        let mut text: serde_json::Value = serde_json::from_str(&handle.to_json()).unwrap();
        let place = text["place"].take();
        text["place"] = serde_json::json!({"kind": "s3", "endpoint": endpoint, "bucket": bucket,
            "key": place["key"], "upload": place["upload"], "parts": place["parts"]});
        Handle::from_json(&text.to_string()).unwrap()
    };
    let to = storage("a", Overwrite::Replace);
    let first = desk.stage(&to, 1, &desk.file("x", b"1")).await;
    let second = desk.stage(&to, 2, &desk.file("y", b"2")).await;
    let elsewhere = desk.destinations.commit(&recorded(&first, "another")).await.unwrap_err();
    assert_eq!(elsewhere.code, Code::DestinationForbidden);
    let committed = desk.destinations.commit(&recorded(&first, BUCKET)).await.unwrap();
    assert_eq!(committed, desk.destinations.commit(&first).await.unwrap());
    assert_eq!(desk.visible("a").await, Some(b"1".to_vec()));
    assert_eq!(desk.destinations.destroy(&recorded(&second, BUCKET)).await.unwrap(), HandleFate::Dead);
    assert!(desk.destinations.commit(&second).await.is_err());
    assert_eq!(desk.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_wrong_secret_is_forbidden() {
    let desk = Desk::s3().await;
    let settings = testing::settings_of(desk.server.as_ref().unwrap().bucket(), "wrong");
    let destinations = s3_destinations(&settings);
    let to = storage("a", Overwrite::Replace);
    let staged = destinations.stage(&to, publication(1), &desk.file("x", b"1"), no_journal).await;
    assert_eq!(staged.unwrap_err().code, Code::DestinationForbidden);
    assert_eq!(destinations.existing(&to).await.unwrap_err().code, Code::DestinationForbidden);
    // Not being allowed to abort is not the same as being dead.
    let handle = desk.stage(&to, 2, &desk.file("x", b"1")).await;
    assert_eq!(destinations.destroy(&handle).await.unwrap_err().code, Code::DestinationForbidden);
    desk.destinations.commit(&handle).await.unwrap();
}

#[tokio::test]
async fn a_missing_bucket_is_forbidden() {
    let desk = Desk::s3().await;
    let missing = bucket_at(&desk.server.as_ref().unwrap().plain_endpoint(), "missing");
    let settings = testing::settings_of(missing, testing::SECRET);
    let failure = s3_destinations(&settings).reachable(publication(1)).await;
    // s3s-fs notices a missing bucket only at Complete, when it is asked for the object.
    assert!(matches!(failure, Ok(Fencing::Works) | Err(Failure { code: Code::DestinationForbidden, .. })));
}

#[tokio::test]
async fn an_unreachable_store_is_given_up_after_bounded_retries() {
    let desk = Desk::s3().await;
    let server = desk.server.as_ref().unwrap();
    let to = storage("a", Overwrite::Replace);
    let file = desk.file("x", b"1");
    server.be_busy(u32::MAX);
    let before = server.requests();
    let staged = desk.destinations.stage(&to, publication(1), &file, no_journal).await;
    assert_eq!(staged.unwrap_err().code, Code::DestinationUnreachable);
    assert_eq!(server.requests() - before, 1 + u32::try_from(QUICK.retries).unwrap());
    // A port that nobody listens on: bound, then closed again.
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let closed = bucket_at(&format!("http://127.0.0.1:{port}"), BUCKET);
    let settings = testing::settings_of(closed, testing::SECRET);
    let failure = s3_destinations(&settings).stage(&to, publication(1), &file, no_journal).await.unwrap_err();
    assert_eq!(failure.code, Code::DestinationUnreachable);
    assert!(!failure.message.contains("127.0.0.1"), "{}", failure.message);
}

#[tokio::test]
async fn a_busy_store_is_tried_again() {
    let desk = Desk::s3().await;
    desk.server.as_ref().unwrap().be_busy(2);
    let handle = desk.stage(&storage("a", Overwrite::Replace), 1, &desk.file("x", b"1")).await;
    desk.server.as_ref().unwrap().be_busy(2);
    desk.destinations.commit(&handle).await.unwrap();
}

/// The store completed and its answer got lost: the retry meets `NoSuchUpload`, and the object itself tells.
#[tokio::test]
async fn a_lost_answer_to_complete_is_still_a_commit() {
    let desk = Desk::s3().await;
    for (id, overwrite) in [(1, Overwrite::Replace), (2, Overwrite::Fail)] {
        let to = storage(&format!("{id}"), overwrite);
        let handle = desk.stage(&to, id, &desk.file("x", b"1")).await;
        desk.server.as_ref().unwrap().lose_completes(1);
        desk.destinations.commit(&handle).await.unwrap();
        desk.destinations.commit(&handle).await.unwrap();
        assert!(matches!(desk.destinations.destroy(&handle).await.unwrap(), HandleFate::Committed(_)));
    }
}

/// Both publishers looked before either committed: the store's own condition decides.
#[tokio::test]
async fn overwrite_fail_holds_between_the_look_and_the_commit() {
    let desk = Desk::s3().await;
    let to = storage("a", Overwrite::Fail);
    let first = desk.stage(&to, 1, &desk.file("x", b"1")).await;
    let second = desk.stage(&to, 2, &desk.file("y", b"2")).await;
    desk.destinations.commit(&first).await.unwrap();
    let Configured::Bucket(bucket) = &desk.destinations.inner.storage else { panic!("a bucket") };
    let staged = second.entry();
    let Place::Bucket { key, upload, parts, .. } = &staged.place else { panic!("a bucket") };
    let upload = Upload { key, id: upload, publication: staged.publication, size: staged.size };
    assert!(bucket.complete_new(upload, parts).await.is_err());
    assert_eq!(desk.visible("a").await, Some(b"1".to_vec()));
}

#[tokio::test]
async fn the_bytes_that_are_sent_are_the_bytes_that_were_verified() {
    let desk = Desk::s3().await;
    let mut file = desk.file("x", b"1234");
    std::fs::write(&file.path, b"4321").unwrap();
    let to = storage("a", Overwrite::Replace);
    let failure = desk.destinations.stage(&to, publication(1), &file, no_journal).await.unwrap_err();
    assert_eq!(failure.code, Code::Internal);
    assert_eq!(desk.leftovers().await, Vec::<String>::new());
    file.path = desk.folder.path().join("missing");
    assert!(desk.destinations.stage(&to, publication(1), &file, no_journal).await.is_err());
}

#[tokio::test]
async fn secrets_are_not_printed() {
    let desk = Desk::s3().await;
    let settings = desk.server.as_ref().unwrap().settings();
    assert!(!format!("{settings:?}").contains(testing::SECRET));
    let missing = storage("a", Overwrite::Replace);
    desk.server.as_ref().unwrap().be_busy(u32::MAX);
    let failure = desk.destinations.existing(&missing).await.unwrap_err();
    assert!(!format!("{failure:?}").contains(testing::SECRET));
}

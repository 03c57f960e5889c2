use std::num::{NonZeroU32, NonZeroU64};

use super::*;

#[tokio::test]
async fn a_key_submits_no_faster_than_it_may() {
    let Auth::Keys(mut keys) = with_keys() else { unreachable!() };
    keys[0].submissions_per_minute = NonZeroU32::new(2);
    let server = start(Auth::Keys(keys), Limits::default(), None).await;
    let submit = async |name| server.ask(body(as_key(name, "POST", "/api/v1/jobs"), &small_job())).await;
    assert_eq!(submit("alice").await.status, 202);
    assert_eq!(submit("alice").await.status, 202);
    let refused = submit("alice").await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "rate_limited"));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(submit("bob").await.status, 202, "each key has its own");
    let read = server.ask(empty(as_key("alice", "GET", "/api/v1/jobs"))).await;
    assert_eq!(read.status, 200, "only submissions count");
}

#[tokio::test]
async fn everybody_on_a_keyless_server_shares_one_rate() {
    let limits = Limits { submissions_per_minute: NonZeroU32::new(1), ..Limits::default() };
    let server = start(Auth::Loopback { hosts: vec![] }, limits, None).await;
    server.submit().await;
    let dry = server.post("/jobs?dry_run=true", &small_job()).await;
    assert_eq!((dry.status, dry.problem().as_str()), (429, "rate_limited"));
}

#[tokio::test]
async fn one_tenants_full_queue_is_nobody_elses() {
    let limits = Limits { pending_per_tenant: NonZeroU64::new(3), ..Limits::default() };
    let server = start(with_keys(), limits, None).await;
    let inline = json!({"source": {"kind": "inline", "data": "AAAA"},
        "outputs": [{"preset": "720p_h264", "destination": {"kind": "storage", "path": "i.mp4"}}]});
    let submit = async |name| server.ask(body(as_key(name, "POST", "/api/v1/jobs"), &inline)).await;
    for _ in 0..3 {
        assert_eq!(submit("alice").await.status, 202);
    }
    let stored = server.files.contents.lock().unwrap().len();
    let refused = submit("alice").await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "tenant_queue_full"));
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(server.files.contents.lock().unwrap().len(), stored, "nothing was stored for it");
    assert_eq!(submit("bob").await.status, 202);

    // Once the count is a second old it is made anew, and one job less waits.
    let jobs = server.ask(empty(as_key("alice", "GET", "/api/v1/jobs"))).await.json();
    let path = format!("/api/v1/jobs/{}", jobs["jobs"][0]["id"].as_str().unwrap());
    assert_eq!(server.ask(empty(as_key("alice", "DELETE", &path))).await.status, 204);
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(submit("alice").await.status, 202);
    assert_eq!(submit("alice").await.problem(), "tenant_queue_full");
}

#[tokio::test]
async fn a_place_at_the_front_needs_its_scope() {
    let Auth::Keys(mut keys) = with_keys() else { unreachable!() };
    keys.push(key("vip", "a", &[Scope::JobsWrite, Scope::JobsPriority]));
    let server = start(Auth::Keys(keys), Limits::default(), None).await;
    let submit = async |name, priority: i64| {
        let mut job = small_job();
        job["priority"] = priority.into();
        server.ask(body(as_key(name, "POST", "/api/v1/jobs"), &job)).await
    };
    let refused = submit("alice", 1).await;
    assert_eq!((refused.status, refused.problem().as_str()), (403, "forbidden"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("jobs:priority"));
    for (name, priority) in [("alice", 0), ("alice", -5), ("vip", 1), ("root", 1)] {
        assert_eq!(submit(name, priority).await.status, 202, "{name} {priority}");
    }
    let mut job = small_job();
    job["priority"] = 1.into();
    assert_eq!(local().await.post("/jobs", &job).await.status, 202, "nobody else is here");
}

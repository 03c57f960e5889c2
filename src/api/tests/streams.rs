use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::api::{ServerLimits, serve};

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
    assert!(text.starts_with("retry: 2000\n\nid: 1\nevent: snapshot\n"), "{text}");
    assert_eq!(text.matches("event: completed\n").count(), 1, "{text}");
    let ids: Vec<i64> = text.lines().filter_map(|l| l.strip_prefix("id: ")?.parse().ok()).collect();
    assert!(ids.is_sorted(), "{ids:?}");

    let (_, late) = read_stream(&server, empty(request("GET", &path)), "\0").await;
    assert!(late.contains("event: snapshot") && late.contains("event: completed"), "{late}");
    let resume = request("GET", &path).header("last-event-id", "1");
    let (_, resumed) = read_stream(&server, empty(resume), "\0").await;
    assert!(!resumed.contains("snapshot") && resumed.contains("id: 2\n"), "{resumed}");
    assert!(
        resumed.trim_end().lines().last().unwrap().contains("\"output_url\":\"/api/v1/jobs/"),
        "{resumed}"
    );
    let unknown = "/api/v1/jobs/00000000-0000-7000-8000-000000000001/stream";
    assert_eq!(server.get(unknown).await.problem(), "not_found");
}

#[tokio::test]
async fn streams_are_capped_and_end_with_the_server() {
    let limits = Limits { streams_per_key: 1, ..Limits::default() };
    let server = start(Auth::Loopback { hosts: vec![] }, limits, None).await;
    let id = server.submit().await;
    let path = format!("/api/v1/jobs/{id}/stream");
    let first = server.send(empty(request("GET", &path))).await;
    let second = server.get("/api/v1/events").await;
    assert_eq!((second.status, second.problem().as_str()), (429, "too_many_streams"));
    assert!(!second.header("retry-after").is_empty());
    server.lifecycle.soft().cancel();
    timeout(PATIENCE, first.into_body().collect()).await.expect("the stream ended").unwrap();
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
    while second.as_deref().is_none_or(|id: &str| !text.contains(&format!("\"job_id\":\"{id}\""))) {
        let frame = timeout(PATIENCE, frames.frame()).await.expect("in time").unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        if second.is_none() && text.contains("event: snapshot") {
            second = Some(server.submit().await);
        }
    }
    assert!(text.contains("event: status"));
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Two descriptors a reader are more than the usual soft limit.
fn allow_descriptors(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.map_or(count, |now| now.max(count));
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit }).unwrap();
}

/// A thousand sockets on one job, and all of them hear the end. Measured with the client ends in the same process and
/// without optimisation: 24 KB a reader. `make bench ONLY=readers` measures what is shipped.
#[tokio::test]
async fn a_thousand_readers_of_one_job_cost_little() {
    const READERS: usize = 1000;
    allow_descriptors(4096);
    let server = local().await;
    let id = server.submit().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(serve(listener, server.router.clone(), closing.clone(), ServerLimits::default()));
    tasks.close();
    let mut readers = Vec::with_capacity(READERS);
    let head = format!("GET /api/v1/jobs/{id}/stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let before = resident();
    let mut bytes = vec![0; 16 << 10];
    for _ in 0..READERS {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut told = Vec::new();
        while !String::from_utf8_lossy(&told).contains("event: snapshot") {
            let count = tcp.read(&mut bytes).await.unwrap();
            told.extend_from_slice(&bytes[..count]);
        }
        readers.push(tcp);
    }
    let each = resident().saturating_sub(before) / READERS;
    assert!(each <= 30_000, "{each} bytes a reader");
    server.complete(b"x").await;
    for mut tcp in readers {
        let mut told = String::new();
        while !told.contains("event: completed") {
            let count = timeout(PATIENCE, tcp.read(&mut bytes)).await.expect("in time").unwrap();
            assert!(count > 0, "cut before the end");
            told.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }
    closing.cancel();
    timeout(PATIENCE, tasks.wait()).await.expect("stopped");
}

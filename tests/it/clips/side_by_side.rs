//! Two jobs at once over HTTP: both read through the gateway while the source arrives, and share the cores.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::server::{Server, Start, job_for};
use crate::support::{clips, eventually};

/// An origin that keeps the middle of its file back until it is told to go on.
struct Held {
    bytes: Bytes,
    open: watch::Receiver<bool>,
}

/// What the front of the file gives at once: more than a probe reads. The last bytes are free too.
const FRONT: usize = 12 * 1024 * 1024;
const BACK: usize = 1024 * 1024;

async fn held(State(origin): State<Arc<Held>>, headers: HeaderMap) -> Response {
    let size = origin.bytes.len();
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok()?.strip_prefix("bytes="));
    let (from, to) = range.and_then(|text| text.split_once('-')).unwrap_or(("0", ""));
    let (from, to) = (from.parse().unwrap(), to.parse::<usize>().map_or(size, |last| last + 1).min(size));
    let body = futures_util::stream::unfold(from, move |at| {
        let origin = Arc::clone(&origin);
        async move {
            if at >= to {
                return None;
            }
            if (FRONT..size - BACK).contains(&at) {
                let mut open = origin.open.clone();
                let _ = open.wait_for(|open| *open).await;
            }
            let end = (at + 65_536).min(to);
            Some((Ok::<_, std::io::Error>(origin.bytes.slice(at..end)), end))
        }
    });
    let range = format!("bytes {from}-{}/{size}", to - 1);
    let headers = [
        (header::CONTENT_RANGE, range),
        (header::CONTENT_LENGTH, (to - from).to_string()),
        (header::ETAG, "\"v1\"".to_owned()),
    ];
    (StatusCode::PARTIAL_CONTENT, headers, Body::from_stream(body)).into_response()
}

/// Command lines of the encoders at work.
fn encoders(server: &Server) -> Vec<Vec<String>> {
    let lines =
        server.children().into_iter().filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok());
    let words =
        lines.map(|line| String::from_utf8_lossy(&line).split('\0').map(str::to_owned).collect::<Vec<_>>());
    words.filter(|words| words.iter().any(|word| word == "-progress")).collect()
}

#[tokio::test]
async fn two_jobs_over_http_share_the_cores() {
    let server = Start::default().set("FLUX__WORKER__SLOTS", "2").server().await;
    let clip = clips::long(24);
    let (go_on, open) = watch::channel(false);
    let origin = Arc::new(Held { bytes: std::fs::read(&clip).unwrap().into(), open });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/clip.mp4", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/clip.mp4", axum::routing::get(held)).with_state(origin);
    #[expect(clippy::disallowed_methods, reason = "test servers end with their test")]
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });

    let mut body = job_for(&clip);
    body["source"] = json!({"kind": "http", "url": url});
    let ids = [server.submit(&body).await, server.submit(&body).await];
    // Neither can end before the origin goes on, so both are seen at work.
    let lines =
        eventually("both encode", async || Some(encoders(&server)).filter(|all| all.len() == 2)).await;
    go_on.send_replace(true);
    for words in &lines {
        let input = words.iter().position(|word| word == "-i").and_then(|at| words.get(at + 1)).unwrap();
        assert!(input.starts_with("http://127.0.0.1:") && *input != url, "{input}");
    }
    // Whoever came second found a neighbour: decoder, filters and encoder are held to its share.
    for option in ["-threads", "-threads:v", "-filter_threads"] {
        assert!(lines.iter().any(|words| words.iter().any(|word| word == option)), "{option}: {lines:?}");
    }
    for id in ids {
        let job = server.finished(&id).await;
        assert_eq!(job["status"], "completed", "{job:#}");
        assert_eq!(job["outputs"][0]["result"]["frames"], 720);
    }
    server.assert_clean().await;
    serving.abort();
}

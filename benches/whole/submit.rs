//! Durable submissions: each answered after its commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::process::{Server, job};
use super::report::{Report, median, percentile};

const SECONDS: u64 = 5;

pub(crate) async fn run(report: &mut Report) {
    eprintln!("submit");
    let server = Server::start(&[
        ("FLUX__WORKER__SLOTS", "1"),
        ("FLUX__QUEUE__MAX_PENDING", "10000000"),
        ("FLUX__LOG__LEVEL", "error"),
    ]);
    // The only slot waits for an origin that never answers: what is measured is accepting, not encoding.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut blocker = job(std::path::Path::new("/"), "720p_h264", "sampled");
    blocker["source"] = serde_json::json!({"kind": "http", "url": format!("http://{}/x.mp4", silent.local_addr().expect("bound"))});
    server.submit(&blocker).await;
    let server = Arc::new(server);
    let alone = load(&server, 1).await;
    report.add("durable submit, 1 connection, median", format!("{:.2} ms", median(&alone) * 1e3), "≤ 3 ms");
    report.add("durable submits a second, 1 connection", format!("{}", alone.len() as u64 / SECONDS), "");
    let many = load(&server, 64).await;
    report.add(
        "durable submits a second, 64 connections",
        format!("{}", many.len() as u64 / SECONDS),
        "≥ 10000",
    );
    report.add(
        "  their latency, median and 99 %",
        format!("{:.1} / {:.1} ms", median(&many) * 1e3, percentile(&many, 0.99) * 1e3),
        "",
    );
}

/// Submits over so many connections for [`SECONDS`]; the latencies in seconds.
async fn load(server: &Arc<Server>, connections: usize) -> Vec<f64> {
    let stop = Arc::new(AtomicBool::new(false));
    let keys = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let body = job(&super::clip::folder().join("x.mp4"), "720p_h264", "sampled").to_string();
    for connection in 0..connections {
        let (server, stop, keys, body) =
            (Arc::clone(server), Arc::clone(&stop), Arc::clone(&keys), body.clone());
        tasks.spawn(async move {
            let mut times = Vec::new();
            let http =
                reqwest::Client::builder().no_proxy().pool_max_idle_per_host(1).build().expect("a client");
            while !stop.load(Ordering::Relaxed) {
                let key = keys.fetch_add(1, Ordering::Relaxed);
                let request = http
                    .post(format!("{}/api/v1/jobs", server.url))
                    .header("content-type", "application/json")
                    .header("idempotency-key", format!("{connections}-{connection}-{key}"))
                    .body(body.clone());
                let begun = Instant::now();
                let answer = request.send().await.expect("an answer");
                assert_eq!(answer.status().as_u16(), 202, "{:?}", answer.text().await);
                let _ = answer.bytes().await;
                times.push(begun.elapsed().as_secs_f64());
            }
            times
        });
    }
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    stop.store(true, Ordering::Relaxed);
    tasks.join_all().await.concat()
}

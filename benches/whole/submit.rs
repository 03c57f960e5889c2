//! Durable submissions: each answered after its commit, over HTTP, by a server on the same cores as its clients.
//!
//! The clients are written by hand on one thread, because whatever they use the server does not get. What was promised
//! is looked up again after the server was killed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::process::{Server, ticks};
use super::report::{Report, median, percentile};

const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(6);

/// What one load saw.
#[derive(Default)]
struct Load {
    /// Seconds from the first byte of a request to the last of its answer.
    latencies: Vec<f64>,
    /// The last job that each connection was promised.
    promised: Vec<String>,
    /// CPU time of the server, milliseconds.
    cpu: f64,
}

impl Load {
    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / MEASURED.as_secs_f64()
    }
}

pub(crate) async fn run(report: &mut Report) {
    eprintln!("submit");
    let server = Server::start(&[
        ("FLUX__WORKER__SLOTS", "1"),
        ("FLUX__QUEUE__MAX_PENDING", "10000000"),
        ("FLUX__LOG__LEVEL", "error,flux=info"),
    ]);
    // The only slot waits for an origin that never answers: what is measured is accepting, not encoding.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = silent.local_addr().expect("bound");
    server.submit(&serde_json::from_str(&body(origin, "")).expect("JSON")).await;

    let alone = load(&server, 1, body(origin, ""));
    report.add(
        "durable submit, 1 connection, median",
        format!("{:.2} ms", median(&alone.latencies) * 1e3),
        "≤ 3 ms",
    );
    report.add("  a second", format!("{:.0}", alone.rate()), "");
    let many = load(&server, 64, body(origin, ""));
    report.add("durable submits a second, 64 connections", format!("{:.0}", many.rate()), "≥ 10000");
    report.add(
        "  latency, median / 99 %",
        format!("{:.1} / {:.1} ms", median(&many.latencies) * 1e3, percentile(&many.latencies, 0.99) * 1e3),
        "",
    );
    report.add(
        "  server's CPU for one",
        format!("{:.0} µs", many.cpu * 1e3 / many.latencies.len() as f64),
        "",
    );
    let rich = load(&server, 64, body(origin, "?token=secret"));
    report.add("  the same with a secret URL to seal", format!("{:.0}", rich.rate()), "");

    let promised: Vec<String> = [alone, many, rich].into_iter().flat_map(|load| load.promised).collect();
    let server = server.killed_and_started();
    let mut found = 0;
    for job in &promised {
        let answer = server.http.get(format!("{}/api/v1/jobs/{job}", server.url)).send().await;
        found += usize::from(answer.is_ok_and(|answer| answer.status().is_success()));
    }
    report.add("  last ones found after SIGKILL", format!("{found} of {}", promised.len()), "all");
}

/// A job of the usual size (430 bytes).
fn body(origin: SocketAddr, query: &str) -> String {
    serde_json::json!({
        "source": {"kind": "http", "url": format!("http://{origin}/footage/2026/11/21/interview-cam-b.mp4{query}")},
        "outputs": [{
            "preset": "720p_h264",
            "destination": {"kind": "storage", "path": "vod/{job_id}/{preset}.mp4", "metadata": {"show": "evening-news"}},
        }],
        "priority": 5,
        "metadata": {"asset": "a81f6c1e-9b7e-4c4f-8d70-31b8bb1d5b7f", "title": "Interview, camera B", "requested_by": "cms"},
        "verify": "sampled",
    })
    .to_string()
}

/// Submits over so many connections for [`MEASURED`], after [`WARM_UP`].
fn load(server: &Server, connections: usize, body: String) -> Load {
    let (address, pid) = (server.address(), server.pid());
    let clients = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(LocalSet::new().run_until(async move {
            let begin = Instant::now() + WARM_UP;
            let clients: Vec<_> = (0..connections)
                .map(|_| tokio::task::spawn_local(client(address, body.clone(), begin, begin + MEASURED)))
                .collect();
            tokio::time::sleep_until(begin.into()).await;
            let before = ticks(pid);
            tokio::time::sleep_until((begin + MEASURED).into()).await;
            let mut load = Load { cpu: (ticks(pid) - before) as f64 * 10.0, ..Load::default() };
            for client in clients {
                let (latencies, promised) = client.await.expect("a client ends");
                load.latencies.extend(latencies);
                load.promised.push(promised);
            }
            load
        }))
    });
    clients.join().expect("clients end")
}

async fn client(address: SocketAddr, body: String, begin: Instant, end: Instant) -> (Vec<f64>, String) {
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    socket.set_nodelay(true).expect("no delay");
    let (mut latencies, mut answer, mut promised) = (Vec::new(), Vec::new(), String::new());
    loop {
        let request = format!(
            "POST /api/v1/jobs HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             idempotency-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
            uuid::Uuid::new_v4(),
            body.len()
        );
        let sent = Instant::now();
        if sent >= end {
            return (latencies, promised);
        }
        socket.write_all(request.as_bytes()).await.expect("a request");
        let head = read_answer(&mut socket, &mut answer).await;
        let received = Instant::now();
        assert!(answer.starts_with(b"HTTP/1.1 202 "), "{}", String::from_utf8_lossy(&answer));
        if sent >= begin && received < end {
            latencies.push((received - sent).as_secs_f64());
        }
        promised.clear();
        promised.push_str(field(&answer[..head], "location: /api/v1/jobs/").expect("a location"));
    }
}

/// Reads one answer; the length of its head.
async fn read_answer(socket: &mut TcpStream, answer: &mut Vec<u8>) -> usize {
    answer.clear();
    loop {
        let read = socket.read_buf(answer).await.expect("an answer");
        assert!(read > 0, "the server hung up: {}", String::from_utf8_lossy(answer));
        if let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
            let body =
                field(&answer[..head + 2], "content-length: ").and_then(|n| n.parse().ok()).unwrap_or(0);
            if answer.len() >= head + 4 + body {
                return head + 2;
            }
        }
    }
}

/// What stands behind `name` up to the end of its line.
fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let at =
        head.windows(name.len()).position(|text| text.eq_ignore_ascii_case(name.as_bytes()))? + name.len();
    let length = head[at..].iter().position(|byte| *byte == b'\r')?;
    std::str::from_utf8(&head[at..at + length]).ok()
}

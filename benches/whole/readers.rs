//! A thousand readers of one job, and readers that never read.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::clip;
use super::process::{Server, job, ran, rss};
use super::report::{Report, median, percentile};

const READERS: usize = 1000;
const SILENT: usize = 200;
const ROUNDS: usize = 6;

pub(crate) async fn run(report: &mut Report) {
    eprintln!("readers");
    let server = Server::start(&[("FLUX__SERVER__MAX_STREAMS", "4000")]);
    let clip = clip::hd(10);
    server.settled().await;
    let (mut ratios, mut each, mut used) = (Vec::new(), 0.0, Vec::new());
    for round in 0..ROUNDS {
        // Each side is as often the first: a machine that warms up or throttles favours none.
        let (alone, read) = if round % 2 == 0 {
            let read = encode_read(&server, &clip).await;
            (encode_alone(&server, &clip).await, read)
        } else {
            (encode_alone(&server, &clip).await, encode_read(&server, &clip).await)
        };
        if round == 0 {
            each = read.memory;
        }
        eprintln!("  {alone:.2} s alone, {:.2} s with readers", read.seconds);
        used.push(read.cpu / read.seconds * 100.0);
        ratios.push(read.seconds / alone);
    }
    report.add("memory of one of 1000 readers", format!("{each:.1} kB"), "≤ 25 kB");
    let (least, most) = (percentile(&ratios, 0.0), percentile(&ratios, 1.0));
    let figure = format!("{:.3}  ({least:.3} to {most:.3})", median(&ratios));
    report.add("encode with 1000 readers / without, 6 pairs", figure, "1");
    report.add("  server's CPU meanwhile", format!("{:.0} % of a core", median(&used)), "");

    drop(server);
    silent_readers(report).await;
}

/// An encode that a thousand connections follow.
struct Read {
    seconds: f64,
    /// Of one reader, kB.
    memory: f64,
    /// Of the server, seconds.
    cpu: f64,
}

async fn encode_alone(server: &Server, clip: &Path) -> f64 {
    let id = server.submit(&job(clip, "720p_h264", None)).await;
    ran_for(&server.completed(&id).await)
}

async fn encode_read(server: &Server, clip: &Path) -> Read {
    let before = (rss(server.pid()), ran(server.pid()));
    let id = server.submit(&job(clip, "720p_h264", None)).await;
    let mut readers = JoinSet::new();
    let greeted = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    for _ in 0..READERS {
        let (mut socket, greeted) = (open(server, &id).await, std::sync::Arc::clone(&greeted));
        readers.spawn(async move {
            let mut buffer = [0; 4096];
            let _ = socket.read(&mut buffer).await;
            greeted.add_permits(1);
            while socket.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
        });
    }
    let all = greeted.acquire_many(READERS as u32);
    drop(tokio::time::timeout(Duration::from_secs(10), all).await.expect("every reader is answered"));
    let memory = rss(server.pid()).saturating_sub(before.0) as f64 / READERS as f64 / 1e3;
    let job = server.completed(&id).await;
    let cpu = ran(server.pid()).saturating_sub(before.1).as_secs_f64();
    readers.shutdown().await;
    Read { seconds: ran_for(&job), memory, cpu }
}

/// From the worker's start to the published output, as the record has it, seconds.
fn ran_for(job: &Value) -> f64 {
    let at = |field: &str| -> jiff::Timestamp {
        job[field].as_str().and_then(|text| text.parse().ok()).expect("a time on record")
    };
    at("finished_at").duration_since(at("started_at")).as_secs_f64()
}

/// On a server of their own: what other readers left behind would be used again and hide what these take.
async fn silent_readers(report: &mut Report) {
    let server = Server::start(&[]);
    server.settled().await;
    let id = server.submit(&job(&clip::hd(30), "720p_h264", Some("probe"))).await;
    let before = rss(server.pid());
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(open(&server, &id).await);
    }
    // Some ten reports each, which nobody reads.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let grown = rss(server.pid()).saturating_sub(before) as f64 / SILENT as f64 / 1e3;
    report.add("memory of a reader that never reads", format!("{grown:.1} kB"), "≤ 100 kB");
}

async fn open(server: &Server, id: &str) -> TcpStream {
    let mut socket = TcpStream::connect(server.address()).await.expect("a connection");
    let request = format!("GET /api/v1/jobs/{id}/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("a request");
    socket
}

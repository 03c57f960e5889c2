//! A thousand readers of one job, and readers that never read.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::clip;
use super::process::{Server, job, rss};
use super::report::{Report, median};

const READERS: usize = 1000;

pub(crate) async fn run(report: &mut Report) {
    eprintln!("readers");
    let server = Server::start(&[("FLUX__SERVER__MAX_STREAMS", "4000")]);
    let clip = clip::hd(30);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut ratios = Vec::new();
    let mut each = 0.0;
    for round in 0..3 {
        let begun = Instant::now();
        let id = server.submit(&job(&clip, "720p_h264", "sampled")).await;
        server.completed(&id).await;
        let alone = begun.elapsed().as_secs_f64();

        let begun = Instant::now();
        let id = server.submit(&job(&clip, "720p_h264", "sampled")).await;
        let before = rss(server.pid());
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..READERS {
            let mut socket = open(&server, &id).await;
            readers.spawn(async move {
                let mut buffer = [0; 4096];
                while socket.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
            });
        }
        if round == 0 {
            each = rss(server.pid()).saturating_sub(before) as f64 / READERS as f64 / 1e3;
        }
        server.completed(&id).await;
        ratios.push(begun.elapsed().as_secs_f64() / alone);
        readers.shutdown().await;
    }
    report.add("memory of one of 1000 readers", format!("{each:.1} kB"), "≤ 25 kB");
    report.add("encode with 1000 readers / without", format!("{:.3}", median(&ratios)), "1.0");

    let before = rss(server.pid());
    let id = server.submit(&job(&clip, "720p_h264", "sampled")).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(open(&server, &id).await);
    }
    server.completed(&id).await;
    let grown = rss(server.pid()).saturating_sub(before) as f64 / 200.0 / 1e3;
    report.add("memory of a reader that never reads", format!("{grown:.1} kB"), "bounded");
}

async fn open(server: &Server, id: &str) -> TcpStream {
    let mut socket =
        TcpStream::connect(server.url.trim_start_matches("http://")).await.expect("a connection");
    let request = format!("GET /api/v1/jobs/{id}/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("a request");
    socket
}

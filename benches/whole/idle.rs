//! A server with nothing to do.

use std::time::Duration;

use super::process::{Server, aim, ran, rss, ticks};
use super::report::{Report, median};

const WATCHED: Duration = Duration::from_secs(10);

pub(crate) async fn run(report: &mut Report) {
    eprintln!("idle");
    let mut starts = Vec::new();
    for _ in 0..10 {
        let server = Server::start(&[]);
        starts.push(server.startup.as_secs_f64() * 1e3);
        // What a start leaves running in the background must not slow the next one down.
        server.settled().await;
    }
    report.add("exec to ready, median of 10", format!("{:.1} ms", median(&starts)), "≤ 50 ms");
    let server = Server::start(&[]);
    server.settled().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (ticks_before, ran_before) = (ticks(server.pid()), ran(server.pid()));
    tokio::time::sleep(WATCHED).await;
    let ticked = ticks(server.pid()) - ticks_before;
    let ran = ran(server.pid()).saturating_sub(ran_before).as_secs_f64() * 1e3;
    report.add("idle CPU in 10 s", format!("{ticked} ticks ({ran:.1} ms)"), "0 ticks");
    report.add("idle memory", format!("{:.1} MB", rss(server.pid()) as f64 / 1e6), aim("≤ 25 MB"));
}

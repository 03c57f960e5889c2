//! A server with nothing to do.

use std::time::Duration;

use super::process::{Server, rss, ticks};
use super::report::{Report, median};

pub(crate) async fn run(report: &mut Report) {
    eprintln!("idle");
    let starts: Vec<f64> = (0..10).map(|_| Server::start(&[]).startup.as_secs_f64() * 1e3).collect();
    report.add("exec to ready, median of 10", format!("{:.1} ms", median(&starts)), "≤ 50 ms");
    let server = Server::start(&[]);
    // Start-up work (proving encoders) ends first; what is wanted is the rest.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = ticks(server.pid());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let used = ticks(server.pid()) - before;
    report.add("idle CPU in 10 s", format!("{} ms", used * 10), "0 ms");
    report.add("idle memory", format!("{:.1} MB", rss(server.pid()) as f64 / 1e6), "≤ 25 MB");
}

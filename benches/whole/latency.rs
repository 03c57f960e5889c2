//! How long a job waits for nothing: from the request to the first media process, and from the probe to the encoder.

use serde_json::Value;

use super::clip;
use super::process::{Server, job};
use super::report::{Report, median};

const JOBS: usize = 15;

pub(crate) async fn run(report: &mut Report) {
    eprintln!("latency");
    let server = Server::start(&[("FLUX__LOG__LEVEL", "info,flux::media=debug")]);
    let clip = clip::hd(1);
    server.settled().await;
    let (mut first, mut between) = (Vec::new(), Vec::new());
    for _ in 0..JOBS {
        server.log.lock().expect("unpoisoned").clear();
        let submitted = jiff::Timestamp::now();
        let id = server.submit(&job(&clip, "proxy_360p", None)).await;
        server.completed(&id).await;
        let log = server.log.lock().expect("unpoisoned").clone();
        let at = |what: &str| log.iter().find(|record| record["message"] == what).map(time);
        let (Some(probe), Some(probed), Some(encoder)) =
            (at("probe started"), at("probe ended"), at("encoder started"))
        else {
            panic!("the log misses a step: {log:#?}");
        };
        first.push(probe.duration_since(submitted).as_secs_f64() * 1e3);
        between.push(encoder.duration_since(probed).as_secs_f64() * 1e3);
    }
    report.add("submit to first media process, median of 15", format!("{:.1} ms", median(&first)), "≤ 15 ms");
    report.add(
        "probe's end to encoder's start, median of 15",
        format!("{:.1} ms", median(&between)),
        "≤ 10 ms",
    );
}

fn time(record: &Value) -> jiff::Timestamp {
    record["timestamp"].as_str().and_then(|t| t.parse().ok()).expect("a timestamp on each record")
}

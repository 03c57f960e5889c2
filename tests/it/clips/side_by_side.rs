//! Two jobs at once over HTTP: both read through the gateway, and share the cores.

use serde_json::json;

use crate::support::origin::{Fault, Origin};
use crate::support::server::{Server, Start, job_for};
use crate::support::{clips, eventually};

/// Command lines of the encoders at work.
fn encoders(server: &Server) -> Vec<Vec<String>> {
    let lines =
        server.children().into_iter().filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok());
    let lines =
        lines.map(|line| String::from_utf8_lossy(&line).split('\0').map(str::to_owned).collect::<Vec<_>>());
    lines.filter(|words| words.iter().any(|word| word == "-progress")).collect()
}

#[tokio::test]
async fn two_jobs_over_http_share_the_cores() {
    let server = Start::default().set("FLUX__WORKER__SLOTS", "2").server().await;
    let clip = clips::long(60);
    let origin = Origin::start(std::fs::read(&clip).unwrap(), Fault::None).await;
    let mut body = job_for(&clip);
    body["source"] = json!({"kind": "http", "url": origin.url()});
    let ids = [server.submit(&body).await, server.submit(&body).await];
    let lines =
        eventually("both encode", async || Some(encoders(&server)).filter(|all| all.len() == 2)).await;
    for words in &lines {
        let input = words.iter().position(|word| word == "-i").and_then(|at| words.get(at + 1)).unwrap();
        assert!(input.starts_with("http://127.0.0.1:") && *input != origin.url(), "{input}");
    }
    // Whoever came second found a neighbour: decoder, filters and encoder are held to its share.
    for option in ["-threads", "-threads:v", "-filter_threads"] {
        assert!(lines.iter().any(|words| words.iter().any(|word| word == option)), "{option}: {lines:?}");
    }
    for id in ids {
        let job = server.finished(&id).await;
        assert_eq!(job["status"], "completed", "{job:#}");
        assert_eq!(job["outputs"][0]["result"]["frames"], 1800);
    }
    server.assert_clean().await;
}

//! Ends of all kinds: SIGKILL at any moment, two servers on one folder, signals, sockets that say nothing.

use std::time::Duration;

use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::clips;
use crate::support::server::{Server, Start, job_for, left_behind, processes_below};
use crate::support::{PATIENCE, eventually};

#[tokio::test]
async fn a_killed_server_loses_no_job_and_leaves_no_process() {
    let mut server = Server::start().await;
    let mut ids = Vec::new();
    // Each round is killed in another phase of the job's life.
    for phase in ["queued", "probing", "encoding", "verifying", "uploading"] {
        ids.push(server.submit(&job_for(&clips::long(6))).await);
        let id = ids.last().unwrap().clone();
        eventually(phase, async || {
            let job = server.job(&id).await;
            let reached = job["phase"] == phase || job["status"] == phase || job["status"] == "completed";
            // Phases can be shorter than a look; being past one is as good a moment to die.
            (reached || job["progress"].as_f64() > Some(1.0)).then_some(())
        })
        .await;
        server.kill();
        let dir = server.dir.clone();
        eventually("ffmpeg dies with its server", async || {
            processes_below(dir.path()).is_empty().then_some(())
        })
        .await;
        server = server.again().await;
    }
    for id in &ids {
        let job = server.finished(id).await;
        assert_eq!(job["status"], "completed", "{job:#}");
        assert!(job["attempts"].as_array().unwrap().len() <= 6, "{job:#}");
        assert!(server.data().join(format!("storage/{id}/out.mp4")).exists());
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused() {
    let server = Server::start().await;
    let data = server.data();
    let second = tokio::task::spawn_blocking(move || {
        let mut command =
            crate::support::server::flux(&["serve", "--role", "all", "--listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(data).output().unwrap()
    });
    let output = tokio::time::timeout(PATIENCE, second).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("in use") && said.contains(&server.pid().to_string()), "{said}");
    assert_eq!(server.encode(&clips::mp4(1)).await["status"], "completed");
}

#[tokio::test]
async fn sigterm_drains_and_a_restart_goes_on() {
    let mut server = Start::default().set("FLUX__SERVER__DRAIN_TIMEOUT", "0s").server().await;
    let id = server.submit(&job_for(&clips::long(20))).await;
    eventually("it encodes", async || (server.job(&id).await["phase"] == "encoding").then_some(())).await;
    assert_eq!(server.signal(Signal::TERM).await, Some(0));
    assert!(processes_below(server.dir.path()).is_empty());
    assert!(left_behind(&server.data()).is_empty(), "{:?}", left_behind(&server.data()));
    let server = server.again().await;
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    // Draining charges nothing: the run that was given back is listed, and is no failure.
    let outcomes: Vec<_> = job["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].clone()).collect();
    assert_eq!(outcomes, [json!("released"), json!("done")], "{job:#}");
}

#[tokio::test]
async fn sigint_waits_for_what_runs_and_refuses_new_work() {
    let mut server = Server::start().await;
    let id = server.submit(&job_for(&clips::long(4))).await;
    eventually("it encodes", async || (server.job(&id).await["phase"] == "encoding").then_some(())).await;
    assert_eq!(server.signal(Signal::INT).await, Some(0));
    let server = server.again().await;
    let job = server.job(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    assert_eq!(job["attempts"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn silent_and_half_open_connections_are_closed() {
    let server = Start::default().set("FLUX__SERVER__HEADER_TIMEOUT", "1s").server().await;
    let address = server.url.trim_start_matches("http://").to_owned();
    for opening in
        [&b""[..], b"PRI", b"PRI * HTTP/2.0\r\n", b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: "]
    {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        socket.write_all(opening).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_mins(1), socket.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open after {opening:?}");
    }
    assert_eq!(server.get("/health").await.0, StatusCode::OK);
}

#[tokio::test]
async fn readers_that_never_read_stall_nothing() {
    let server = Server::start().await;
    let id = server.submit(&job_for(&clips::long(6))).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!("GET /api/v1/jobs/{id}/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        stuck.push(socket);
    }
    assert_eq!(server.finished(&id).await["status"], "completed");
    drop(stuck);
    server.assert_clean().await;
}

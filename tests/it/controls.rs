//! Several controls on one PostgreSQL.

use std::sync::Arc;

use base64::Engine as _;
use reqwest::StatusCode;
use serde_json::Value;

use crate::support::postgres::{self, Database};
use crate::support::server::{Role, Server, Start, flux, job_for};
use crate::support::{clips, eventually};

/// What controls that belong together are told.
struct Together {
    _dir: Arc<tempfile::TempDir>,
    storage: String,
    database: String,
    key: String,
}

impl Together {
    fn on(database: &str) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let storage = format!("file:{}", dir.path().join("storage").display());
        let key = base64::engine::general_purpose::STANDARD.encode([7; 32]);
        Self { _dir: dir, storage, database: database.to_owned(), key }
    }

    async fn worker(&self) -> Server {
        let start = Start::role(Role::Worker).set("FLUX__WORKER__SLOTS", "2");
        start.set("FLUX__STORAGE__URL", &self.storage).server().await
    }

    async fn pair(&self, worker: &Server) -> (Server, Server) {
        let control = || self.control(worker.address()).server();
        tokio::join!(control(), control())
    }

    fn control(&self, nodes: &str) -> Start {
        Start::role(Role::Control)
            .set("FLUX__STORAGE__URL", &self.storage)
            .set("FLUX__STORE__URL", &self.database)
            .set("FLUX__SECRETS__KEYS", &self.key)
            .set("FLUX__WORKERS__NODES", nodes)
    }
}

async fn ended(control: &Server, id: &str) -> Value {
    eventually("the job ends", async || {
        let job = control.job(id).await;
        matches!(job["status"].as_str(), Some("completed" | "failed" | "cancelled")).then_some(job)
    })
    .await
}

#[tokio::test]
async fn a_job_of_one_control_is_seen_and_run_by_any() {
    let database = Database::new().await;
    let together = Together::on(&database.url);
    let worker = together.worker().await;
    let (a, b) = together.pair(&worker).await;
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(if n % 2 == 0 { &a } else { &b }.submit(&job_for(&clips::mp4(1))).await);
    }
    database.cut().await;
    for (n, id) in ids.iter().enumerate() {
        // By the stream of the control that did not take it.
        let job = if n % 2 == 0 { &b } else { &a }.finished(id).await;
        assert_eq!(job["status"], "completed", "{job:#}\n{}\n{}", a.log(), b.log());
        assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job:#}");
    }
    worker.assert_clean().await;
}

#[tokio::test]
async fn what_clients_give_to_one_control_is_not_missed_by_the_other() {
    let database = Database::new().await;
    let together = Together::on(&database.url);
    let worker = together.worker().await;
    let (a, b) = together.pair(&worker).await;
    let bytes = std::fs::read(clips::mp4(1)).unwrap();
    let mut job = job_for(&clips::mp4(1));
    job["source"] = serde_json::json!({
        "kind": "inline",
        "data": base64::engine::general_purpose::STANDARD.encode(bytes),
    });
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(if n % 2 == 0 { &a } else { &b }.submit(&job).await);
    }
    for id in &ids {
        let job = a.finished(id).await;
        assert_eq!(job["status"], "completed", "{job:#}\n{}\n{}", a.log(), b.log());
        assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job:#}");
    }
    worker.assert_clean().await;
}

#[tokio::test]
async fn jobs_of_a_killed_control_end_by_the_other() {
    let database = Database::new().await;
    let together = Together::on(&database.url);
    let worker = together.worker().await;
    let mut a = together.control(worker.address()).server().await;
    let id = a.submit(&job_for(&clips::mp4(30))).await;
    eventually("it runs", async || (a.job(&id).await["status"] == "running").then_some(())).await;
    a.kill();
    // What is over by the database's clock need not be waited for here.
    database.execute("update sessions set expires_at = 1").await;
    let b = together.control(worker.address()).server().await;
    let job = ended(&b, &id).await;
    assert_eq!(job["status"], "completed", "{job:#}\n{}", b.log());
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "the encode went on: {job:#}");
}

async fn assert_nothing_is_taken(control: &Server) {
    let refused = control.http.post(format!("{}/api/v1/jobs", control.url)).json(&job_for(&clips::mp4(1)));
    let refused = refused.send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"), "{refused:?}");
    eventually("it is not ready", async || {
        (control.get("/ready").await.0 == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    assert_eq!(control.get("/health").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_control_waits_for_its_database_and_outlives_it() {
    let mut server = postgres::Server::start();
    let url = server.url();
    server.crash();
    let together = Together::on(&url);
    // It says where it listens, and that it is not ready.
    let control = together.control("").server().await;
    assert_nothing_is_taken(&control).await;
    server.resume();
    eventually("it is ready", async || (control.get("/ready").await.0 == StatusCode::OK).then_some(())).await;
    let id = control.submit(&job_for(&clips::mp4(1))).await;

    server.crash();
    assert_nothing_is_taken(&control).await;
    server.resume();
    eventually("it is ready again", async || (control.get("/ready").await.0 == StatusCode::OK).then_some(()))
        .await;
    assert_eq!(control.job(&id).await["status"], "queued");
    control.submit(&job_for(&clips::mp4(1))).await;
}

#[tokio::test]
async fn what_is_wrong_with_the_database_is_said() {
    let database = Database::new().await;
    let together = Together::on(&database.url);
    let missing = Together { database: format!("{}_not", database.url), ..together };
    let log = missing.control("").try_server().await.err().expect("there is no such database").join("\n");
    assert!(log.contains("has no such database"), "{log}");

    let doctor = |url: &str| {
        let output = flux(&["doctor"]).env("FLUX__STORE__URL", url).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let url = database.url.replace("postgres@", "postgres:s3cr3t@");
    let text = tokio::task::spawn_blocking(move || doctor(&url)).await.unwrap();
    let line = text.lines().find(|line| line.contains("database")).unwrap_or_default();
    assert!(line.starts_with("ok    database postgres://postgres@127.0.0.1:"), "{text}");
    assert!(line.contains("no tables yet") && !text.contains("s3cr3t"), "{text}");
}

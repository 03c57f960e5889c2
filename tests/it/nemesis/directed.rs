//! Single failures, tried on purpose, and what exactly follows of each.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::plan::{Move, Record, Who};
use super::record;
use crate::support::fake::{Fault, bitrate};
use crate::support::proxy::Mode;
use crate::support::server::{job_for, processes_below};
use crate::support::{clips, eventually, sha256};

/// Job number `n` of a test.
fn numbered(n: usize, clip: &std::path::Path) -> Value {
    let mut body = job_for(clip);
    body["outputs"][0]["audio"] = json!({"bitrate": bitrate(n)});
    body
}

/// The index of the worker that an attempt is on.
fn worker_of(attempt: &Value) -> usize {
    attempt["worker_id"].as_str().unwrap().trim_start_matches('w').parse().unwrap()
}

impl Cluster {
    fn folder(&self, worker: usize) -> PathBuf {
        self.dir.path().join(format!("w{worker}"))
    }

    async fn job(&self, id: &str) -> Value {
        self.control().job(id).await
    }

    async fn submit(&self, body: &Value) -> String {
        self.control().submit(body).await
    }

    /// Waits until the job's encode has begun; on which worker.
    async fn encodes(&self, id: &str) -> usize {
        let attempt = eventually("it encodes", async || {
            let job = self.job(id).await;
            let last = job["attempts"].as_array().and_then(|all| all.last()).cloned();
            last.filter(|_| job["phase"] == "encoding")
        })
        .await;
        worker_of(&attempt)
    }

    /// The one file visible at the destination is what the record says.
    async fn published_once(&self, id: &str) {
        let job = self.job(id).await;
        let (files, _) = record::files(&self.storage());
        let recorded = &job["outputs"][0]["result"]["files"][0];
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(recorded["sha256"], files[0].sha256, "{job:#}");
    }
}

#[tokio::test]
async fn a_killed_worker_takes_its_tools_along_and_its_task_starts_elsewhere() {
    let mut cluster = Cluster::start(Record::Sole, 2, 1).await;
    let id = cluster.submit(&numbered(0, &clips::long(6))).await;
    let first = cluster.encodes(&id).await;
    assert!(!processes_below(&cluster.folder(first)).is_empty());
    let killed = Instant::now();
    cluster.make(Move::Kill(Who::Worker(first), Mode::Refuse)).await;
    let folder = cluster.folder(first);
    eventually("its tools are dead", async || processes_below(&folder).is_empty().then_some(())).await;
    let dead = killed.elapsed();
    assert!(dead < Duration::from_secs(2), "{dead:?}");
    let second = eventually("it starts elsewhere", async || {
        let job = cluster.job(&id).await;
        job["attempts"][1]["worker_id"].is_string().then_some(job)
    })
    .await;
    let restarted = killed.elapsed();
    assert!(restarted < Duration::from_secs(5), "{restarted:?}");
    assert_ne!(worker_of(&second["attempts"][1]), first);
    let job = cluster.control().finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    assert_eq!(job["attempts"][0]["outcome"], "lost", "{job:#}");
    cluster.published_once(&id).await;
}

#[tokio::test]
async fn a_worker_cut_off_can_neither_publish_nor_change_the_record_when_it_is_back() {
    let mut cluster = Cluster::start(Record::Sole, 2, 1).await;
    let id = cluster.submit(&numbered(0, &clips::long(4))).await;
    let first = cluster.encodes(&id).await;
    cluster.make(Move::Network(first, Mode::Hole)).await;
    // It ends its encode in the dark, and asks for a permit that nobody hears of.
    let job = cluster.control().finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    assert_eq!(job["attempts"].as_array().unwrap().len(), 2, "{job:#}");
    assert_ne!(worker_of(&job["attempts"][1]), first);
    cluster.published_once(&id).await;
    let before = cluster.job(&id).await;
    // The control has told it to stop three times by then, and nothing of that arrives.
    tokio::time::sleep(Duration::from_secs(16)).await;
    cluster.make(Move::Reset(first)).await;
    cluster.make(Move::Network(first, Mode::Pass)).await;
    let data = cluster.workers[first].server().data();
    let since = Instant::now();
    eventually("its run is stopped", async || {
        crate::support::server::left_behind(&data).is_empty().then_some(())
    })
    .await;
    assert!(since.elapsed() < Duration::from_mins(1), "{:?}", since.elapsed());
    assert_eq!(cluster.job(&id).await, before);
    cluster.published_once(&id).await;
    assert_eq!(cluster.stop().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_control_frozen_past_its_session_goes_on_and_ends_each_job_once() {
    let mut cluster = Cluster::start(Record::Sole, 1, 2).await;
    cluster.fake.plan(1, &[Fault::Slow]);
    let ids = [
        cluster.submit(&numbered(0, &clips::long(6))).await,
        cluster.submit(&numbered(1, &clips::mp4(1))).await,
    ];
    cluster.encodes(&ids[0]).await;
    cluster.make(Move::Freeze(Who::Control(0))).await;
    // Longer than a session lives; that it passes is what is tried.
    tokio::time::sleep(Duration::from_secs(33)).await;
    cluster.make(Move::Thaw(Who::Control(0))).await;
    for id in &ids {
        let job = cluster.control().finished(id).await;
        assert_eq!(job["status"], "completed", "{job:#}");
        let recorded = &job["outputs"][0]["result"]["files"][0];
        let file = cluster.storage().join(recorded["path"].as_str().unwrap());
        assert_eq!(recorded["sha256"], sha256(&std::fs::read(file).unwrap()), "{job:#}");
    }
    assert_eq!(cluster.stop().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_control_that_is_back_takes_up_what_its_workers_still_encode() {
    let mut cluster = Cluster::start(Record::Sole, 2, 1).await;
    let id = cluster.submit(&numbered(0, &clips::long(20))).await;
    let worker = cluster.encodes(&id).await;
    let tools = processes_below(&cluster.folder(worker));
    let reached = eventually("it is under way", async || {
        cluster.job(&id).await["progress"].as_f64().filter(|progress| *progress > 2.0)
    })
    .await;
    cluster.make(Move::Kill(Who::Control(0), Mode::Pass)).await;
    cluster.make(Move::Start(Who::Control(0))).await;
    eventually("progress goes on", async || {
        let job = cluster.job(&id).await;
        assert_eq!(job["attempts"].as_array().unwrap().len(), 1, "{job:#}");
        (job["phase"] == "encoding" && job["progress"].as_f64() > Some(reached)).then_some(())
    })
    .await;
    assert_eq!(processes_below(&cluster.folder(worker)), tools, "the same ffmpeg");
    let job = cluster.control().finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    assert_eq!(job["attempts"].as_array().unwrap().len(), 1, "{job:#}");
    assert_eq!(cluster.fake.starts().len(), 1, "it was encoded once");
    cluster.published_once(&id).await;
    assert_eq!(cluster.stop().await, Vec::<String>::new());
}

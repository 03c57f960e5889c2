//! The server under measurement, and what the kernel says about it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::Value;

pub(crate) struct Server {
    child: Child,
    pub url: String,
    pub dir: tempfile::TempDir,
    pub log: Arc<Mutex<Vec<Value>>>,
    pub http: reqwest::Client,
    /// From exec to the ready line.
    pub startup: Duration,
}

impl Server {
    /// Starts `flux serve --role all` with these keys.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_flux"));
        command
            .args(["serve", "--role", "all", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path().join("data"));
        command.env("FLUX__SOURCES__ALLOW", "127.0.0.0/8").env("FLUX__LOG__FORMAT", "json");
        command.env("FLUX__SOURCES__FILE_ROOTS", super::clip::folder());
        command.envs(settings.iter().copied()).current_dir(dir.path());
        let begun = Instant::now();
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("flux starts");
        let stderr = child.stderr.take().expect("piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (ready, listening) = mpsc::channel();
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let record: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(listen) = record["fields"]["listen"].as_str().or(record["listen"].as_str()) {
                    let _ = ready.send((listen.to_owned(), Instant::now()));
                }
                sink.lock().expect("unpoisoned").push(record);
            }
        });
        let (listen, at) = listening.recv_timeout(Duration::from_secs(30)).expect("a ready line");
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { child, url: format!("http://{listen}"), dir, log, http, startup: at - begun }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Submits a job; its id.
    pub(crate) async fn submit(&self, body: &Value) -> String {
        let answer =
            self.http.post(format!("{}/api/v1/jobs", self.url)).json(body).send().await.expect("an answer");
        let job: Value = answer.json().await.expect("JSON");
        job["id"].as_str().unwrap_or_else(|| panic!("refused: {job:#}")).to_owned()
    }

    /// Waits for the end of a job, which must be good.
    pub(crate) async fn completed(&self, id: &str) -> Value {
        let stream =
            self.http.get(format!("{}/api/v1/jobs/{id}/stream", self.url)).send().await.expect("a stream");
        let mut bytes = stream.bytes_stream();
        while let Some(Ok(_)) = bytes.next().await {}
        let job = self.http.get(format!("{}/api/v1/jobs/{id}", self.url)).send().await.expect("an answer");
        let job: Value = job.json().await.expect("JSON");
        assert_eq!(job["status"], "completed", "{job:#}");
        job
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory, bytes.
pub(crate) fn rss(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Scheduler ticks (1/100 s) this process used so far.
pub(crate) fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after.split_whitespace().collect();
    [11, 12].iter().filter_map(|n| fields.get(*n)?.parse::<u64>().ok()).sum()
}

/// A job for a clip, one output of this preset.
pub(crate) fn job(clip: &Path, preset: &str, verify: &str) -> Value {
    serde_json::json!({
        "source": {"kind": "file", "path": clip},
        "outputs": [{"preset": preset, "destination": {"kind": "storage", "path": "{job_id}.mp4"}}],
        "options": {"verify": verify},
    })
}

//! The server under measurement, and what the kernel says about it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::Value;

/// The program as it is shipped, where `make bench-shipped` names it: benches are built for speed, it is built for size.
pub(crate) fn shipped() -> Option<std::ffi::OsString> {
    std::env::var_os("BENCH_PROGRAM")
}

/// The aim for memory, which is one for what is shipped.
pub(crate) fn aim(aim: &'static str) -> &'static str {
    if shipped().is_some() { aim } else { "see make bench-shipped" }
}

pub(crate) struct Server {
    child: Child,
    pub url: String,
    dir: Arc<tempfile::TempDir>,
    role: &'static str,
    settings: Vec<(String, String)>,
    /// Log records so far.
    pub log: Arc<Mutex<Vec<Value>>>,
    pub http: reqwest::Client,
    /// From exec to the ready line.
    pub startup: Duration,
}

impl Server {
    /// Starts `flux serve --role all` with these keys and data of its own.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_as("all", settings)
    }

    /// The same in another role.
    pub(crate) fn start_as(role: &'static str, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self::start_in(role, Arc::new(dir), settings)
    }

    fn start_in(role: &'static str, dir: Arc<tempfile::TempDir>, settings: Vec<(String, String)>) -> Self {
        let mut command = Command::new(shipped().unwrap_or_else(|| env!("CARGO_BIN_EXE_flux").into()));
        command.args(["serve", "--role", role, "--data-dir"]).arg(dir.path().join("data"));
        if role != "worker" {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.env("FLUX__SOURCES__ALLOW", "127.0.0.0/8").env("FLUX__LOG__FORMAT", "json");
        command.env("FLUX__SOURCES__FILE_ROOTS", super::clip::folder());
        command.envs(settings.iter().map(|(key, value)| (key, value))).current_dir(dir.path());
        let begun = Instant::now();
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("flux starts");
        let stderr = child.stderr.take().expect("piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (ready, listening) = mpsc::channel();
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let at = Instant::now();
                let record: Value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if let Some(listen) = record["listen"].as_str().or_else(|| record["grpc_listen"].as_str()) {
                    let _ = ready.send((listen.to_owned(), at));
                }
                sink.lock().expect("unpoisoned").push(record);
            }
        });
        let Ok((listen, at)) = listening.recv_timeout(Duration::from_secs(30)) else {
            panic!("no ready line: {:#?}", log.lock().expect("unpoisoned"));
        };
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { child, url: format!("http://{listen}"), dir, role, settings, log, http, startup: at - begun }
    }

    /// Kills it as a crash would and starts another on the same data.
    pub(crate) fn killed_and_started(self) -> Self {
        let (role, dir, settings) = (self.role, Arc::clone(&self.dir), self.settings.clone());
        drop(self);
        Self::start_in(role, dir, settings)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.url.trim_start_matches("http://").parse().expect("an address")
    }

    /// Waits until the encoders are proved: about 1 s of CPU that belongs to the start and not to what comes after.
    pub(crate) async fn settled(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            if self
                .log
                .lock()
                .expect("unpoisoned")
                .iter()
                .any(|record| record["message"] == "ffmpeg is ready")
            {
                // The last of the proofs' processes are being put away.
                return tokio::time::sleep(Duration::from_millis(500)).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the encoders were not proved: {:#?}", self.log.lock().expect("unpoisoned"));
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

/// Ticks as seconds.
pub(crate) fn seconds(ticks: u64) -> f64 {
    ticks as f64 / 100.0
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// CPU time of a process and of all that it started and has waited for, seconds.
pub(crate) fn spent(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    // Its own ticks and those of children that it has waited for (proc_pid_stat(5), fields 14 to 17), 100 a second.
    let ticks: u64 = after.split_whitespace().skip(11).take(4).filter_map(|n| n.parse::<u64>().ok()).sum();
    seconds(ticks)
}

/// A server's child processes, each as it was last seen.
#[derive(Default)]
pub(crate) struct Children(BTreeMap<u32, (Vec<String>, f64)>);

impl Children {
    /// Looks at those that run now. What one uses between the last look and its end is not seen.
    pub(crate) fn look(&mut self, server: u32) {
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            if parent(pid) != Some(server) {
                continue;
            }
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
            let seen = self.0.entry(pid).or_default();
            // One that has ended and was not waited for yet has no command line any more, but its time.
            if !line.is_empty() {
                seen.0 = words.collect();
            }
            seen.1 = seconds(ticks(pid));
        }
    }

    /// CPU time of those whose command line is like this, seconds, and how many they are.
    pub(crate) fn spent(&self, like: impl Fn(&[String]) -> bool) -> (f64, usize) {
        let those: Vec<f64> = self.0.values().filter(|(line, _)| like(line)).map(|(_, cpu)| *cpu).collect();
        (those.iter().sum(), those.len())
    }
}

/// Time its living threads ran on a processor so far, as the scheduler counts it.
pub(crate) fn ran(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let ran = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(ran.sum::<u64>())
}

/// A job for a clip, one output of this preset. `None` leaves the checking to the server's default.
pub(crate) fn job(clip: &Path, preset: &str, verify: Option<&str>) -> Value {
    serde_json::json!({
        "source": {"kind": "file", "path": clip},
        "outputs": [{"preset": preset, "destination": {"kind": "storage", "path": "{job_id}.mp4"}}],
        "verify": verify,
    })
}

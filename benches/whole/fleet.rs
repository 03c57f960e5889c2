//! Control and workers as processes of their own: what they cost, and how soon a lost worker is noticed.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::clip;
use super::process::{Server, aim, job, rss};
use super::report::{Report, median};

/// Losses of each kind that are measured.
const LOSSES: usize = 3;

pub(crate) async fn run(report: &mut Report) {
    eprintln!("fleet");
    let storage = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file:{}", storage.path().display());
    let starts: Vec<_> = (0..10).map(|_| worker(&storage, "start").startup.as_secs_f64() * 1e3).collect();
    report.add("worker: exec to ready, median of 10", format!("{:.1} ms", median(&starts)), "≤ 100 ms");
    let workers = [worker(&storage, "w0"), worker(&storage, "w1")];
    for worker in &workers {
        worker.settled().await;
    }
    let control = control(&storage, &workers);
    ready(&control).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let megabytes = |server: &Server| rss(server.pid()) as f64 / 1e6;
    report.add("worker: idle memory", format!("{:.1} MB", megabytes(&workers[0])), aim("≤ 12 MB"));
    report.add("control: idle memory", format!("{:.1} MB", megabytes(&control)), aim("≤ 16 MB"));
    drop((control, workers));
    for (what, signal, target) in [
        ("killed worker to its task's next start, longest of 3", Signal::KILL, "≤ 2 s"),
        ("silent worker to its task's next start, longest of 3", Signal::STOP, "≤ 35 s"),
    ] {
        let mut longest = Duration::ZERO;
        for _ in 0..LOSSES {
            longest = longest.max(lost(&storage, signal).await);
        }
        report.add(what, format!("{:.2} s", longest.as_secs_f64()), target);
    }
}

fn worker(storage: &str, name: &str) -> Server {
    let settings = [
        ("FLUX__STORAGE__URL", storage),
        ("FLUX__WORKER__LISTEN", "127.0.0.1:0"),
        ("FLUX__WORKER__ID", name),
        ("FLUX__WORKER__SLOTS", "1"),
    ];
    Server::start_as("worker", &settings)
}

fn control(storage: &str, workers: &[Server; 2]) -> Server {
    let nodes = workers.iter().map(|worker| worker.address().to_string()).collect::<Vec<_>>().join(",");
    Server::start_as("control", &[("FLUX__STORAGE__URL", storage), ("FLUX__WORKERS__NODES", nodes.as_str())])
}

/// Both workers take work.
async fn ready(control: &Server) {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        let fleet = get(control, "workers").await;
        let ready = |worker: &&Value| worker["state"] == "ready";
        if fleet["workers"].as_array().is_some_and(|all| all.iter().filter(ready).count() == 2) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the workers are not ready");
}

async fn get(control: &Server, what: &str) -> Value {
    let url = format!("{}/api/v1/{what}", control.url);
    control.http.get(url).send().await.expect("an answer").json().await.expect("JSON")
}

/// The worker of a job that encodes gets the signal; how long until another one has the job.
async fn lost(storage: &str, signal: Signal) -> Duration {
    let workers = [worker(storage, "w0"), worker(storage, "w1")];
    for worker in &workers {
        worker.settled().await;
    }
    let control = control(storage, &workers);
    ready(&control).await;
    let id = control.submit(&job(&clip::hd(30), "720p_h264", None)).await;
    let attempts = async |at_least: usize, limit: Duration| {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            let job = get(&control, &format!("jobs/{id}")).await;
            let attempts = job["attempts"].as_array().cloned().unwrap_or_default();
            if job["status"] == "running" && attempts.len() >= at_least {
                return attempts;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no attempt {at_least} in {limit:?}");
    };
    let first = attempts(1, Duration::from_secs(30)).await.remove(0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let at = usize::from(first["worker_id"] == "w1");
    let victim = i32::try_from(workers[at].pid()).ok().and_then(Pid::from_raw).expect("a process");
    let since = Instant::now();
    kill_process(victim, signal).expect("the worker is there");
    attempts(2, Duration::from_mins(1)).await;
    since.elapsed()
}

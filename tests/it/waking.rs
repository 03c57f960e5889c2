//! Workers that come when there is work and leave when there is none, as real processes.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::server::{Role, Server, Start, job_for};
use crate::support::{clips, eventually};

/// A control that starts its own workers, of one slot each.
fn scaling(idle: &str) -> Start {
    Start::role(Role::Control)
        .set("FLUX__WORKERS__WAKER", "process")
        .set("FLUX__WORKERS__WAKE_MAX", "1")
        .set("FLUX__WORKER__SLOTS", "1")
        .set("FLUX__WORKER__IDLE_TIMEOUT", idle)
}

/// Worker processes that a control has started.
fn workers_of(control: &Server) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let parent =
            read("stat").rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        // A launcher that is about to become one counts too.
        parent == Some(control.pid()) && read("cmdline").contains("worker")
    })
    .collect()
}

async fn alone(control: &Server) {
    eventually("the workers have left", async || workers_of(control).is_empty().then_some(())).await;
    eventually("the fleet is empty", async || {
        let (_, fleet) = control.get("/api/v1/workers").await;
        fleet["workers"].as_array().is_some_and(Vec::is_empty).then_some(())
    })
    .await;
}

fn uncharged(job: &Value, log: &str) {
    assert_eq!(job["status"], "completed", "{job:#}\n{log}");
    let ends: Vec<_> = job["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].clone()).collect();
    assert_eq!(ends.last().unwrap(), "done", "{ends:?}");
    assert!(ends[..ends.len() - 1].iter().all(|end| end == "released"), "{ends:?}\n{log}");
}

#[tokio::test]
async fn a_worker_comes_encodes_and_leaves_again_and_again() {
    let control = scaling("300ms").server().await;
    let clip = clips::mp4(1);
    assert!(workers_of(&control).is_empty(), "nobody is woken for nothing");
    for _ in 0..2 {
        uncharged(&control.encode(&clip).await, &control.log());
        alone(&control).await;
    }
    assert!(control.log().contains("worker process left"));
    assert!(!control.log().contains("worker process died"), "{}", control.log());
    control.assert_clean().await;
}

/// Submissions that meet the worker at every moment of its leaving: before it decides, while it does, after.
#[tokio::test]
async fn no_job_is_lost_or_charged_around_an_idle_exit() {
    let control = scaling("300ms").server().await;
    let clip = clips::mp4(1);
    for round in 0..20_u64 {
        uncharged(&control.encode(&clip).await, &control.log());
        // Not a wait for something: the moment itself is what is tried. The end of a job is told a little before the
        // worker is let go, so these are spread around its timeout.
        tokio::time::sleep(Duration::from_millis(240 + round * 8)).await;
    }
    alone(&control).await;
    let left = control.log().matches("worker process left").count();
    assert!((2..20).contains(&left), "{left} of 20 rounds met a worker that was gone");
    assert!(!control.log().contains("worker process died"), "{}", control.log());
    control.assert_clean().await;
}

#[tokio::test]
async fn children_die_with_their_control_and_a_killed_one_is_replaced() {
    let mut control = scaling("1h").server().await;
    uncharged(&control.encode(&clips::mp4(1)).await, &control.log());
    let first = workers_of(&control);
    assert_eq!(first.len(), 1);
    rustix::process::kill_process(rustix::process::Pid::from_raw(first[0]).unwrap(), Signal::KILL).unwrap();
    let id = control.submit(&job_for(&clips::mp4(1))).await;
    assert_eq!(control.finished(&id).await["status"], "completed", "{}", control.log());
    assert!(control.log().contains("worker process died"));
    let second = workers_of(&control);
    assert!(second.len() == 1 && second != first, "{first:?} {second:?}");
    control.kill();
    let gone =
        || std::fs::read_to_string(format!("/proc/{}/cmdline", second[0])).unwrap_or_default().is_empty();
    eventually("the child is gone too", async || gone().then_some(())).await;
}

#[tokio::test]
async fn a_worker_on_its_own_exits_with_zero_when_idle() {
    let mut worker = Start::role(Role::Worker).set("FLUX__WORKER__IDLE_TIMEOUT", "200ms").server().await;
    let code = eventually("it exits", async || worker.exited()).await;
    assert_eq!(code.code(), Some(0), "{}", worker.log());
    assert!(worker.log().contains("idle"));
}

#[tokio::test]
async fn an_operators_command_is_told_how_many() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let (script, told) = (dir.path().join("wake"), dir.path().join("told"));
    let text = format!(
        "#!/bin/sh\necho \"$WORKERS_WANTED $WORKERS_MISSING ${{FLUX__WORKERS__TOKEN:-none}} $1\" >> {}\n",
        told.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let control = Start::role(Role::Control)
        .below(dir)
        .set("FLUX__WORKERS__WAKER", "command")
        .set("FLUX__WORKERS__TOKEN", "s3cr3t")
        .set("FLUX__WORKERS__WAKE_COMMAND", format!("{},a b", script.display()))
        .server()
        .await;
    control.submit(&job_for(&clips::mp4(1))).await;
    let line =
        eventually("it was run", async || std::fs::read_to_string(&told).ok().filter(|t| t.ends_with('\n')))
            .await;
    assert_eq!(line, "1 1 none a b\n");
}

/// Starts a worker when it is connected to, as Fly's proxy does, and tells how often it had to and how often one left.
async fn doorman(door: TcpListener, start: Start, turns: watch::Sender<Turns>) {
    let mut worker: Option<Server> = None;
    let mut calls = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = door.accept() => {
                let Ok((mut caller, _)) = accepted else { return };
                if worker.as_mut().is_some_and(|worker| worker.exited().is_some()) {
                    worker = None;
                    turns.send_modify(|turns| turns.left += 1);
                }
                let here = if let Some(here) = worker.take() {
                    here
                } else {
                    let started = start.clone().server().await;
                    turns.send_modify(|turns| turns.came += 1);
                    started
                };
                let address = here.address().to_owned();
                worker = Some(here);
                calls.spawn(async move {
                    if let Ok(mut inside) = TcpStream::connect(address).await {
                        let _ = tokio::io::copy_bidirectional(&mut caller, &mut inside).await;
                    }
                });
            }
            () = left(worker.as_mut()) => {
                worker = None;
                turns.send_modify(|turns| turns.left += 1);
            }
        }
    }
}

/// Ends when the worker is gone; never without one.
async fn left(worker: Option<&mut Server>) {
    let Some(worker) = worker else { return std::future::pending().await };
    eventually("it leaves", async || worker.exited()).await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turns {
    came: u32,
    left: u32,
}

#[tokio::test]
async fn a_worker_that_connecting_wakes_sleeps_until_there_is_work() {
    let shared = tempfile::tempdir().unwrap();
    let storage = format!("file:{}", shared.path().join("storage").display());
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = door.local_addr().unwrap().to_string();
    let worker = Start::role(Role::Worker)
        .set("FLUX__STORAGE__URL", &storage)
        .set("FLUX__WORKER__IDLE_TIMEOUT", "300ms");
    let (sender, mut turns) = watch::channel(Turns { came: 0, left: 0 });
    let control = Start::role(Role::Control)
        .set("FLUX__STORAGE__URL", &storage)
        .set("FLUX__WORKERS__NODES", &address)
        .set("FLUX__WORKERS__WAKER", "connect")
        .server()
        .await;
    // The control looks once who is there when it starts; then nobody is kept awake, and each job wakes one once.
    let jobs = async {
        for gone in 1..=3 {
            let now = *turns.wait_for(|turns| turns.left == gone).await.unwrap();
            assert_eq!(now, Turns { came: gone, left: gone });
            if gone < 3 {
                uncharged(&control.encode(&clips::mp4(1)).await, &control.log());
            }
        }
    };
    tokio::select! {
        () = doorman(door, worker, sender) => panic!("the door is shut"),
        () = jobs => {}
    }
}

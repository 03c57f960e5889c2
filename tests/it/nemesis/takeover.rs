//! Two controls on one database: what the one that dies or freezes held is taken up by the other, and is not begun
//! again.

use std::path::Path;

use serde_json::Value;

use super::cluster::Cluster;
use super::plan::{Move, Record, Who};
use crate::support::fake::{Fault, bitrate};
use crate::support::proxy::Mode;
use crate::support::server::{Server, job_for, processes_below};
use crate::support::{clips, eventually};

/// A job that is encoded on one of two workers, for longer than a session lives.
struct Scene {
    cluster: Cluster,
    job: String,
    /// The control that holds the run, and the other.
    holder: usize,
    other: usize,
    tools: Vec<i32>,
}

/// Runs that a control has out, by its own account.
fn held_by(workers: &Value) -> u64 {
    let workers = workers["workers"].as_array().into_iter().flatten();
    workers.filter_map(|worker| worker["running"].as_u64()).sum()
}

impl Scene {
    async fn set() -> Self {
        let cluster = Cluster::start(Record::Shared, 1, 1).await;
        cluster.fake.plan(0, &[Fault::Long]);
        let mut body = job_for(&clips::mp4(1));
        body["outputs"][0]["audio"] = serde_json::json!({"bitrate": bitrate(0)});
        let job = cluster.control().submit(&body).await;
        let holder = eventually("a control holds it", async || {
            for (n, control) in cluster.controls.iter().enumerate() {
                if held_by(&control.server().get("/api/v1/workers").await.1) > 0 {
                    return Some(n);
                }
            }
            None
        })
        .await;
        let tools = eventually("it encodes", async || {
            let running = processes_below(&cluster.dir.path().join("w0"));
            (!cluster.fake.starts().is_empty() && !running.is_empty()).then_some(running)
        })
        .await;
        let main =
            cluster.fake.starts().iter().map(|(_, pid)| *pid).filter(|pid| tools.contains(pid)).collect();
        Self { cluster, job, holder, other: 1 - holder, tools: main }
    }

    fn other(&self) -> &Server {
        self.cluster.controls[self.other].server()
    }

    /// The other control ends the job, by the same attempt and the same process.
    async fn goes_on(&self) {
        eventually("the other control holds it", async || {
            (held_by(&self.other().get("/api/v1/workers").await.1) > 0).then_some(())
        })
        .await;
        for pid in &self.tools {
            assert!(Path::new(&format!("/proc/{pid}")).exists(), "the same ffmpeg");
        }
        let job = self.other().finished(&self.job).await;
        assert_eq!(job["status"], "completed", "{job:#}\n{}", self.other().log());
        assert_eq!(job["attempts"].as_array().unwrap().len(), 1, "{job:#}");
        assert_eq!(self.cluster.fake.starts().len(), 1, "encoded once");
    }
}

#[tokio::test]
async fn what_a_dead_control_held_goes_on_under_another() {
    let mut scene = Scene::set().await;
    scene.cluster.make(Move::Kill(Who::Control(scene.holder), Mode::Pass)).await;
    scene.goes_on().await;
    // It comes back to a job that is over, and what it left at the destination is swept.
    scene.cluster.heal().await;
    scene.cluster.quiet().await;
    assert_eq!(scene.cluster.stop().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_control_that_slept_past_its_session_changes_nothing_and_works_again() {
    let mut scene = Scene::set().await;
    scene.cluster.make(Move::Freeze(Who::Control(scene.holder))).await;
    scene.goes_on().await;
    let before = scene.other().job(&scene.job).await;
    scene.cluster.make(Move::Thaw(Who::Control(scene.holder))).await;
    let slept = scene.cluster.controls[scene.holder].server();
    eventually("it learns that its session is over", async || {
        slept.log().contains("session is over").then_some(())
    })
    .await;
    assert_eq!(slept.encode(&clips::tiny()).await["status"], "completed");
    assert_eq!(slept.job(&scene.job).await, before);
    assert_eq!(scene.cluster.stop().await, Vec::<String>::new());
}

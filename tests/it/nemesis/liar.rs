//! Workers that say what is not so. A job they spoil ends with a reason or goes to an honest one; none is lost.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use flux::domain::{
    BootId, IdSource as _, OutputIndex, OutputResult, PublicationId, RunId, SessionId, SystemIds,
};
use flux::rpc::wire::{
    Action, Given, PROTOCOL, PermitGrant, Renewal, Renewed, ReservationId, Reserved, RunEvent, RunRequest,
    WorkerReport,
};
use flux::rpc::{NetworkLimits, Refusal, ServerSecurity, WorkerApi, serve};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::server::{Role, Server, Start, job_for};
use crate::support::{clips, eventually};

/// What is not so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Grants every slot it is asked for and has none.
    Slots,
    /// Ends each run well at once, and published nothing.
    Finished,
    /// Tells of an output that nobody permitted to publish.
    Published,
    /// Speaks a later protocol.
    Protocol,
}

struct Liar {
    lie: Lie,
    boot: BootId,
    storage: PathBuf,
    started: Arc<AtomicUsize>,
}

/// A lying worker that is served.
struct Served {
    address: String,
    started: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Liar {
    async fn serve(lie: Lie, storage: PathBuf) -> Served {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let started = Arc::new(AtomicUsize::new(0));
        let boot = BootId::from_uuid(SystemIds.random());
        let liar = Arc::new(Self { lie, boot, storage, started: Arc::clone(&started) });
        let (limits, never) = (NetworkLimits::for_slots(64), CancellationToken::new());
        let served =
            serve(listener, liar, ServerSecurity::default(), limits, (never.clone(), never)).unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move { served.await.unwrap() });
        Served { address, started, _task: task }
    }
}

#[async_trait]
impl WorkerApi for Liar {
    async fn run(&self, request: RunRequest) -> Result<mpsc::Receiver<RunEvent>, Refusal> {
        self.started.fetch_add(1, Ordering::Relaxed);
        if self.lie == Lie::Slots {
            return Err(Refusal::Stale("no such reservation"));
        }
        let Action::Start(_) = request.action else { return Err(Refusal::NotFound) };
        let (events, feed) = mpsc::channel(4);
        let _ = events.try_send(RunEvent::Accepted);
        let _ = events.try_send(match self.lie {
            Lie::Published => RunEvent::OutputDone {
                output: OutputIndex(0),
                publication: PublicationId::from_uuid(SystemIds.random()),
                result: Box::new(OutputResult {
                    url: "file:///nowhere.mp4".into(),
                    files: Vec::new(),
                    duration_seconds: 1.0,
                    frames: Some(25),
                    width: None,
                    height: None,
                    renditions: Vec::new(),
                    warnings: Vec::new(),
                    report: None,
                }),
            },
            Lie::Slots | Lie::Finished | Lie::Protocol => RunEvent::Finished,
        });
        Ok(feed)
    }

    async fn status(&self) -> WorkerReport {
        WorkerReport {
            worker: "liar".parse().unwrap(),
            boot: self.boot,
            version: "1".into(),
            slots: 64,
            busy: 0,
            jobs: Vec::new(),
            draining: false,
            encoders: vec!["libx264".into(), "aac".into()],
            ffmpeg_version: "5".into(),
            sandbox: Vec::new(),
            disk_free: u64::MAX,
            protocol: if self.lie == Lie::Protocol { PROTOCOL + 1 } else { PROTOCOL },
        }
    }

    async fn cancel(&self, _: RunId, _: Option<SessionId>) -> bool {
        false
    }

    async fn reserve(&self, slots: u32, _: SessionId) -> Reserved {
        let reservations = (0..slots).map(|_| ReservationId(SystemIds.random())).collect();
        Reserved { boot: self.boot, reservations, draining: false }
    }

    async fn hand_back(&self, _: Vec<ReservationId>) {}

    async fn renew(&self, renewal: Renewal) -> Renewed {
        Renewed { boot: self.boot, runs: renewal.runs }
    }

    async fn permit(&self, _: PermitGrant) -> Result<(), Refusal> {
        Ok(())
    }

    async fn put_source(&self, _: RunId, _: Given) -> Result<(), Refusal> {
        Ok(())
    }

    async fn read_token(&self, id: Uuid) -> Result<Option<String>, String> {
        Ok(std::fs::read_to_string(self.storage.join(format!(".flux-{id}.token"))).ok())
    }

    async fn ack(&self, _: RunId) {}
}

struct Scene {
    dir: tempfile::TempDir,
    liar: Served,
    _honest: Option<Server>,
    control: Server,
}

impl Scene {
    async fn set(lie: Lie, honest: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = dir.path().join("storage");
        let url = format!("file:{}", storage.display());
        let liar = Liar::serve(lie, storage).await;
        let worker =
            Start::role(Role::Worker).set("FLUX__STORAGE__URL", &url).set("FLUX__WORKER__SLOTS", "1");
        let honest = if honest { Some(worker.server().await) } else { None };
        let addresses: Vec<_> =
            std::iter::once(liar.address.as_str()).chain(honest.as_ref().map(Server::address)).collect();
        let control = Start::role(Role::Control)
            .set("FLUX__STORAGE__URL", &url)
            .set("FLUX__WORKERS__NODES", addresses.join(","))
            .server()
            .await;
        Self { dir, liar, _honest: honest, control }
    }

    async fn liar_is(&self, state: &str) -> Value {
        eventually(&format!("the liar is {state}"), async || {
            let (_, answer) = self.control.get("/api/v1/workers").await;
            let all = answer["workers"].as_array().cloned().unwrap_or_default();
            all.into_iter().find(|worker| worker["address"] == self.liar.address && worker["state"] == state)
        })
        .await
    }

    /// Results at the destination.
    fn published(&self) -> usize {
        super::record::files(&self.dir.path().join("storage")).0.len()
    }
}

#[tokio::test]
async fn one_that_grants_slots_it_has_not_costs_no_job() {
    let scene = Scene::set(Lie::Slots, true).await;
    scene.liar_is("ready").await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(scene.control.submit(&job_for(&clips::tiny())).await);
    }
    for id in &ids {
        let job = scene.control.finished(id).await;
        assert_eq!(job["status"], "completed", "{job:#}");
        let attempts = job["attempts"].as_array().unwrap();
        let (last, refused) = attempts.split_last().unwrap();
        assert_eq!(last["outcome"], "done", "{job:#}");
        assert!(refused.iter().all(|attempt| attempt["outcome"] == "released"), "{job:#}");
    }
    assert!(scene.liar.started.load(Ordering::Relaxed) > 0, "it was believed at first");
    assert_eq!(scene.published(), ids.len());
}

#[tokio::test]
async fn one_that_says_it_is_done_is_not_believed() {
    for lie in [Lie::Finished, Lie::Published] {
        let scene = Scene::set(lie, false).await;
        let id = scene.control.submit(&job_for(&clips::tiny())).await;
        let job = scene.control.finished(&id).await;
        assert_eq!(
            (job["status"].as_str(), job["error"]["code"].as_str()),
            (Some("failed"), Some("internal"))
        );
        assert_eq!(job["attempts"].as_array().unwrap().len(), 3, "{lie:?}: {job:#}");
        assert_eq!(scene.published(), 0, "{lie:?}");
    }
}

#[tokio::test]
async fn one_of_a_later_protocol_is_named_and_gets_nothing() {
    let scene = Scene::set(Lie::Protocol, true).await;
    let refused = scene.liar_is("refused").await;
    assert!(refused["reason"].as_str().unwrap().contains("protocol"), "{refused:#}");
    let job = scene.control.encode(&clips::tiny()).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    assert_eq!(scene.liar.started.load(Ordering::Relaxed), 0);
}

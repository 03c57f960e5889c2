//! The worker with real tools, a real folder and real files, spoken to as its control does.

mod early;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::*;
use crate::domain::fixtures::{self, destination, result};
use crate::domain::limits::SourceLimits;
use crate::domain::preset::Presets;
use crate::domain::testing::SeededIds;
use crate::domain::{
    BootId, Code, Company, Epoch, IdSource, JobId, JobSecrets, JobSpec, OutputIndex, OutputSpec, Overwrite,
    Publication, PublicationId, PublicationState, RunId, SessionId, Source, TaskId, Tenant, Timestamp,
    VerifyLevel,
};
use crate::lifecycle::Lifecycle;
use crate::media::Toolbox;
use crate::media::process::{Launcher, Spawner};
use crate::media::tools::Tools;
use crate::rpc::wire::{
    Action, PermitGrant, Permitted, Renewal, ReservationId, RunEvent, RunRequest, Start, Transcode,
};
use crate::rpc::{Refusal, WorkerApi};
use crate::storage::{self, FetchLimits, Handle, StagedFile, Storage, StorageSettings};

const PATIENCE: Duration = Duration::from_mins(1);
const BOOT: BootId = BootId::from_uuid(Uuid::from_u128(77));
const SESSION: SessionId = SessionId::from_uuid(Uuid::from_u128(1));
const LATER_SESSION: SessionId = SessionId::from_uuid(Uuid::from_u128(2));

/// Ids that panic once the fuse is lit.
struct Ids {
    seeded: SeededIds,
    lit: AtomicBool,
}

impl IdSource for Ids {
    fn sortable(&self, now: Timestamp) -> Uuid {
        self.seeded.sortable(now)
    }

    fn random(&self) -> Uuid {
        assert!(!self.lit.load(Ordering::SeqCst), "the fuse is lit");
        self.seeded.random()
    }
}

/// A worker with one slot and everything around it.
struct Bench {
    dir: tempfile::TempDir,
    storage: Storage,
    ids: Arc<Ids>,
    lifecycle: Lifecycle,
    worker: Worker,
}

impl Bench {
    fn new() -> Self {
        Self::with_grace(Duration::from_mins(10))
    }

    fn with_grace(orphan_grace: Duration) -> Self {
        Self::with(orphan_grace, 0, Box::new(disk::look))
    }

    fn with(orphan_grace: Duration, disk_floor: u64, look: disk::Look) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let settings = storage::Settings {
            storage: StorageSettings::Local { root: dir.path().join("results") },
            destination_roots: Vec::new(),
            data_dir: dir.path().join("data"),
            file_roots: vec![dir.path().to_owned()],
            allow: Vec::new(),
            buckets: crate::domain::BucketAccess::default(),
            limits: SourceLimits::default(),
            fetch: FetchLimits::default(),
        };
        let storage = Storage::open(&settings).unwrap();
        let ids = Arc::new(Ids { seeded: SeededIds::new(3), lit: AtomicBool::new(false) });
        let lifecycle = Lifecycle::new();
        let toolbox = Toolbox {
            spawner: Spawner::start(Launcher::Direct).unwrap(),
            tools: Tools::locate(Path::new("ffmpeg"), Path::new("ffprobe")).unwrap(),
        };
        let limits = Limits {
            source: SourceLimits::default(),
            verify: VerifyLevel::Sampled,
            stall: PATIENCE,
            timeout: PATIENCE,
        };
        let settings = WorkerSettings {
            id: "w1".parse().unwrap(),
            boot: BOOT,
            slots: 1,
            cores: 1,
            orphan_grace,
            disk_floor,
            protections: Vec::new(),
            limits,
        };
        let deps = Deps {
            sources: storage.sources().clone(),
            destinations: storage.destinations().clone(),
            toolbox,
            capabilities: watch::channel(None).1,
            ids: Arc::clone(&ids) as Arc<dyn IdSource>,
            lifecycle: lifecycle.clone(),
            root: WorkRoot::open(&dir.path().join("work"), BOOT).unwrap(),
        };
        Self { worker: Worker::start_on(settings, deps, look), dir, storage, ids, lifecycle }
    }

    fn clip(&self) -> PathBuf {
        let path = self.dir.path().join("in.mp4");
        #[expect(clippy::disallowed_methods, reason = "makes test material, synchronously")]
        let status = std::process::Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=s=160x90:r=25:d=1"])
            .args(["-pix_fmt", "yuv420p", "-preset", "ultrafast"])
            .arg(&path)
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        path
    }

    async fn reserve(&self) -> ReservationId {
        let reserved = self.worker.reserve(1, SESSION).await;
        *reserved.reservations.first().expect("a slot is free")
    }

    /// A run of the task `n` with the clip for a source.
    async fn request(&self, n: u128, outputs: u16) -> RunRequest {
        let source = Source::File { path: self.clip().display().to_string() };
        let work = Transcode {
            spec: spec(source, outputs),
            secrets: JobSecrets::default(),
            completed: Vec::new(),
            open: Vec::new(),
            resolve_only: false,
            earlier_failures: 0,
        };
        let start = Start {
            reservation: self.reserve().await,
            tenant: Tenant::local(),
            ttl: Duration::from_mins(10),
            company: Company::Shared,
            work,
        };
        RunRequest {
            task: TaskId::from_uuid(Uuid::from_u128(n)),
            job: JobId::from_uuid(Uuid::from_u128(n)),
            run: RunId::from_uuid(Uuid::from_u128(100 + n)),
            epoch: Epoch(1),
            boot: BOOT,
            session: SESSION,
            action: Action::Start(Box::new(start)),
        }
    }

    async fn start(&self, outputs: u16) -> (RunRequest, Stream) {
        let request = self.request(1, outputs).await;
        let stream = Stream(self.worker.run(request.clone()).await.unwrap());
        (request, stream)
    }

    async fn attach(&self, request: &RunRequest) -> Result<Stream, Refusal> {
        let request = RunRequest { action: Action::Attach, session: LATER_SESSION, ..request.clone() };
        self.worker.run(request).await.map(Stream)
    }

    async fn permit(&self, publication: &Publication, lower: Vec<Publication>) {
        let grant = granted(publication, lower, self.worker.0.monotonic());
        self.worker.permit(grant).await.unwrap();
    }

    /// What an earlier run left: a file that was sent to its destination, and its record.
    async fn left_behind(&self, output: u16, bytes: &[u8]) -> (Publication, Handle) {
        let path = self.dir.path().join("earlier.mp4");
        std::fs::write(&path, bytes).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let sha256 = digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        let size = bytes.len() as u64;
        let file = StagedFile { path, size, sha256, content_type: "video/mp4".into() };
        let id = PublicationId::from_uuid(Uuid::from_u128(u128::from(900 + output)));
        let destinations = self.storage.destinations();
        let handle = destinations
            .stage(&destination(output, Overwrite::Fail), id, &file, |_| async { Ok(()) })
            .await
            .unwrap();
        let publication = Publication {
            id,
            output: OutputIndex(output),
            run: RunId::from_uuid(Uuid::from_u128(50)),
            epoch: Epoch(0),
            handle: handle.to_json(),
            manifest: serde_json::to_string(&result()).unwrap(),
            state: PublicationState::Open,
        };
        (publication, handle)
    }

    /// Names below the storage's folder.
    fn published(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("results")).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Nothing of any run is left here.
    async fn clean(&self) {
        let forgotten = async {
            while !self.worker.0.runs().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, forgotten).await.expect("the run is kept");
        let own = self.worker.0.deps.root.path();
        let names: Vec<_> = std::fs::read_dir(own).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [".owner"]);
    }
}

struct Stream(mpsc::Receiver<RunEvent>);

impl Stream {
    /// The next fact; heartbeats are none. `None` = the stream ended.
    async fn next(&mut self) -> Option<RunEvent> {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.0.recv()).await.expect("nothing was told");
            match event {
                Some(RunEvent::Heartbeat { .. }) => {}
                fact => return fact,
            }
        }
    }

    async fn ready(&mut self) -> Publication {
        loop {
            match self.next().await.expect("the run goes on") {
                RunEvent::Ready(publication) => return publication,
                fact => assert!(!fact.is_last(), "{fact:?}"),
            }
        }
    }

    async fn rest(mut self) -> Vec<RunEvent> {
        let mut all = Vec::new();
        while let Some(fact) = self.next().await {
            all.push(fact);
        }
        all
    }
}

fn granted(publication: &Publication, lower: Vec<Publication>, echo: Duration) -> PermitGrant {
    PermitGrant {
        run: publication.run,
        output: publication.output,
        publication: publication.id,
        granted: Some(Permitted { lower, ttl: Duration::from_mins(1), echo }),
    }
}

fn spec(source: Source, outputs: u16) -> JobSpec {
    let encode = Presets::builtin().resolve(Some("proxy_360p"), serde_json::Map::new()).unwrap();
    let output = |n| OutputSpec {
        encode: encode.clone(),
        destination: destination(n, Overwrite::Fail),
        ..fixtures::output(n)
    };
    JobSpec { source, outputs: (0..outputs).map(output).collect(), ..fixtures::spec(0) }
}

fn done(facts: &[RunEvent]) -> Vec<(OutputIndex, PublicationId)> {
    let done = |fact: &RunEvent| match fact {
        RunEvent::OutputDone { output, publication, .. } => Some((*output, *publication)),
        _ => None,
    };
    facts.iter().filter_map(done).collect()
}

fn started(request: &mut RunRequest) -> &mut Transcode {
    match &mut request.action {
        Action::Start(start) => &mut start.work,
        Action::Attach => panic!("not a start"),
    }
}

#[tokio::test]
async fn what_a_killed_run_committed_is_adopted_without_encoding() {
    for resolve_only in [false, true] {
        let bench = Bench::new();
        let mut request = bench.request(1, 2).await;
        let mut open = Vec::new();
        for output in 0..2 {
            let (publication, handle) = bench.left_behind(output, b"from before").await;
            bench.storage.destinations().commit(&handle).await.unwrap();
            open.push(publication);
        }
        let expected: Vec<_> = open.iter().map(|p| (p.output, p.id)).collect();
        // Were anything encoded, the missing source would fail the run.
        started(&mut request).spec.source = Source::File { path: "/nowhere".into() };
        started(&mut request).open = open;
        started(&mut request).resolve_only = resolve_only;
        let run = request.run;
        let facts = Stream(bench.worker.run(request).await.unwrap()).rest().await;
        assert_eq!(done(&facts), expected, "{facts:?}");
        assert_eq!((facts.len(), facts.last()), (4, Some(&RunEvent::Finished)), "{facts:?}");
        assert_eq!(bench.published(), ["0.mp4", "1.mp4"]);
        bench.worker.ack(run).await;
        bench.clean().await;
    }
}

#[tokio::test]
async fn what_a_killed_run_only_sent_is_destroyed_and_made_again() {
    let bench = Bench::new();
    let mut request = bench.request(1, 1).await;
    let (left, handle) = bench.left_behind(0, b"from before").await;
    assert!(bench.published()[0].starts_with(".flux-"));
    started(&mut request).open = vec![left.clone()];
    let run = request.run;
    let mut stream = Stream(bench.worker.run(request).await.unwrap());
    assert_eq!(stream.next().await, Some(RunEvent::Accepted));
    assert_eq!(stream.next().await, Some(RunEvent::Resolved(vec![left.id])));
    let own = stream.ready().await;
    assert!(bench.storage.destinations().commit(&handle).await.is_err(), "the old run is too late");
    bench.permit(&own, vec![left]).await;
    assert_eq!(done(&stream.rest().await), [(OutputIndex(0), own.id)]);
    assert_eq!(bench.published(), ["0.mp4"]);
    bench.worker.ack(run).await;
    bench.clean().await;
}

#[tokio::test]
async fn a_lower_publication_that_became_visible_meanwhile_is_adopted() {
    let bench = Bench::new();
    let (request, mut stream) = bench.start(1).await;
    let own = stream.ready().await;
    let (late, handle) = bench.left_behind(0, b"paused until now").await;
    bench.storage.destinations().commit(&handle).await.unwrap();
    bench.permit(&own, vec![late.clone()]).await;
    let facts = stream.rest().await;
    assert_eq!(done(&facts), [(OutputIndex(0), late.id)]);
    assert_eq!(facts.last(), Some(&RunEvent::Finished));
    assert_eq!(bench.published(), ["0.mp4"], "our own part is gone");
    bench.worker.ack(request.run).await;
    bench.clean().await;
}

#[tokio::test]
async fn without_a_permit_nothing_becomes_visible() {
    let bench = Bench::new();
    let (_, mut stream) = bench.start(1).await;
    let own = stream.ready().await;
    let refused = PermitGrant { granted: None, ..granted(&own, Vec::new(), Duration::ZERO) };
    bench.worker.permit(refused).await.unwrap();
    assert!(matches!(&stream.rest().await[..], [RunEvent::Released(_)]));
    assert!(bench.published().is_empty(), "{:?}", bench.published());
    // The record has ended it already: it waits for nobody.
    bench.clean().await;
}

#[tokio::test]
async fn a_permit_that_came_too_late_is_asked_for_again() {
    let bench = Bench::new();
    let (request, mut stream) = bench.start(1).await;
    let own = stream.ready().await;
    let mut late = granted(&own, Vec::new(), bench.worker.0.monotonic());
    late.granted.as_mut().unwrap().ttl = Duration::from_secs(5);
    bench.worker.permit(late).await.unwrap();
    assert_eq!(stream.ready().await, own, "the same question");
    assert!(bench.published()[0].starts_with(".flux-"));
    bench.permit(&own, Vec::new()).await;
    assert_eq!(done(&stream.rest().await), [(OutputIndex(0), own.id)]);
    bench.worker.ack(request.run).await;
    bench.clean().await;
}

#[tokio::test]
async fn who_attaches_hears_everything_again_and_old_answers_harm_nothing() {
    let bench = Bench::new();
    let (request, mut stream) = bench.start(2).await;
    let first = stream.ready().await;
    drop(stream);
    let mut stream = bench.attach(&request).await.unwrap();
    assert_eq!(stream.next().await, Some(RunEvent::Accepted));
    assert_eq!(stream.ready().await, first, "the open question is repeated");
    bench.permit(&first, Vec::new()).await;
    let second = stream.ready().await;
    assert_ne!(first.id, second.id);
    // A control that was away answers the settled question too, as often as it hears it.
    for _ in 0..8 {
        bench.permit(&first, Vec::new()).await;
    }
    bench.permit(&second, Vec::new()).await;
    let facts = stream.rest().await;
    assert_eq!(facts.last(), Some(&RunEvent::Finished), "{facts:?}");
    let late = bench.attach(&request).await.unwrap().rest().await;
    assert_eq!(done(&late).len(), 2);
    assert_eq!(late.iter().filter(|fact| matches!(fact, RunEvent::Ready(_))).count(), 2);
    bench.worker.ack(request.run).await;
    assert!(matches!(bench.attach(&request).await, Err(Refusal::NotFound)));
    bench.clean().await;
}

#[tokio::test]
async fn a_drain_gives_back_and_leaves_nothing() {
    let bench = Bench::new();
    let (request, mut stream) = bench.start(1).await;
    stream.ready().await;
    bench.worker.release_all();
    assert!(matches!(&stream.rest().await[..], [RunEvent::Released(_)]));
    assert!(bench.published().is_empty());
    assert!(bench.worker.reserve(1, SESSION).await.draining);
    assert!(!bench.worker.idle(), "its end is not acknowledged");
    bench.worker.ack(request.run).await;
    assert!(bench.worker.idle());
    bench.clean().await;
}

#[tokio::test]
async fn a_panic_is_a_failure_and_frees_the_slot() {
    let bench = Bench::new();
    let (request, mut stream) = bench.start(1).await;
    while !matches!(stream.next().await, Some(RunEvent::Media(_))) {}
    bench.ids.lit.store(true, Ordering::SeqCst);
    let facts = stream.rest().await;
    let Some(RunEvent::Failed(failed)) = facts.last() else { panic!("{facts:?}") };
    assert_eq!(failed.failure.code, Code::Internal);
    bench.ids.lit.store(false, Ordering::SeqCst);
    bench.reserve().await;
    bench.worker.ack(request.run).await;
    bench.clean().await;
}

#[tokio::test]
async fn an_orphan_is_given_up_and_publishes_nothing() {
    let bench = Bench::with_grace(Duration::ZERO);
    let (_, mut stream) = bench.start(1).await;
    stream.ready().await;
    bench.worker.0.end_orphans();
    assert!(matches!(&stream.rest().await[..], [RunEvent::Released(_)]));
    assert!(bench.published().is_empty());
    bench.worker.0.end_orphans();
    bench.clean().await;
}

#[tokio::test]
async fn a_run_that_nobody_lists_is_stopped_by_the_second_renewal() {
    let bench = Bench::new();
    let (request, mut stream) = bench.start(1).await;
    stream.ready().await;
    let renewal = |session, runs| Renewal { session, runs, ttl: PATIENCE, echo: Duration::ZERO };
    for _ in 0..3 {
        let other = bench.worker.renew(renewal(LATER_SESSION, Vec::new())).await;
        assert_eq!(other.runs, [request.run], "another session's list says nothing");
    }
    bench.worker.renew(renewal(SESSION, Vec::new())).await;
    bench.worker.renew(renewal(SESSION, vec![request.run])).await;
    let once = bench.worker.renew(renewal(SESSION, Vec::new())).await;
    assert_eq!(once.runs, [request.run]);
    let twice = bench.worker.renew(renewal(SESSION, Vec::new())).await;
    assert!(twice.runs.is_empty());
    assert!(matches!(&stream.rest().await[..], [RunEvent::Released(_)]));
    assert!(bench.published().is_empty());
    bench.clean().await;
}

#[tokio::test]
async fn who_cancels_a_run_that_has_ended_puts_it_away() {
    let bench = Bench::new();
    let mut request = bench.request(1, 1).await;
    started(&mut request).spec.source = Source::File { path: "/nowhere".into() };
    let run = request.run;
    let facts = Stream(bench.worker.run(request).await.unwrap()).rest().await;
    assert!(matches!(facts.last(), Some(RunEvent::Failed(_))));
    assert!(bench.worker.cancel(run, None).await);
    bench.clean().await;
}

#[tokio::test]
async fn a_higher_epoch_waits_until_the_lower_one_is_gone() {
    let bench = Bench::new();
    let (request, mut stream) = bench.start(1).await;
    stream.ready().await;
    let again = bench.request(1, 1).await;
    let again = RunRequest { epoch: Epoch(2), run: RunId::from_uuid(Uuid::from_u128(9)), ..again };
    let mut second = Stream(bench.worker.run(again.clone()).await.unwrap());
    assert!(matches!(stream.rest().await.last(), Some(RunEvent::Released(_))));
    let own = second.ready().await;
    assert!(matches!(bench.worker.run(request).await, Err(Refusal::Stale(_))), "too late");
    bench.permit(&own, Vec::new()).await;
    assert_eq!(second.rest().await.last(), Some(&RunEvent::Finished));
    bench.worker.ack(again.run).await;
    bench.clean().await;
}

#[tokio::test]
async fn a_handle_that_could_not_be_destroyed_is_swept_later() {
    let bench = Bench::new();
    let (_, handle) = bench.left_behind(0, b"sent and then forgotten").await;
    {
        let folder = bench.worker.0.deps.root.run(RunId::from_uuid(Uuid::from_u128(5))).unwrap();
        folder.journal(handle.publication(), &handle.to_json()).unwrap();
    }
    assert!(bench.published()[0].starts_with(".flux-"));
    bench.worker.0.sweep_own().await;
    assert!(bench.published().is_empty());
    bench.clean().await;
    bench.lifecycle.stop_now(crate::lifecycle::ShutdownReason::Requested);
}

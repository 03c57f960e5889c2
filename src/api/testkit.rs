//! Fixtures of this room's tests.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use super::{ApiKey, Auth, ByteRange, ByteStream, Files, Limits, Received, Scope, Services};
use crate::control::{Control, ControlSettings, Deps, Discovery, Sweeper};
use crate::domain::preset::Presets;
use crate::domain::uploads::{Assembled, Claim, Invitation};
use crate::domain::{
    Abilities, Aggregate, Attempt, BootId, Clock, Code, ColorSpace, CommandReport, Company, Destination,
    Epoch, Event, EventKind, Failure, IdSource, JobId, JobOptions, JobRecord, JobSecrets, JobSpec, JobStatus,
    KindReport, LoudnessReport, ObjectPath, OutputFile, OutputIndex, OutputRecord, OutputReport,
    OutputResult, OutputSecrets, OutputSpec, OutputStatus, Overwrite, Phase, PlannedAudio, PlannedVideo,
    Progress, Publication, PublicationId, PublicationState, RunId, RunNumber, RunOutcome, Source,
    StreamReport, SystemClock, SystemIds, TaskId, TaskReport, Tenant, Timestamp,
};
use crate::lifecycle::Lifecycle;
use crate::store::{DynStore, Fenced, Grant, Options, OutputDone, SqliteStore, StoredJob, UploadRecord};

/// The start of every test's time.
pub(super) const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// A running job with one output, two events and one attempt.
pub(super) fn stored(status: JobStatus) -> StoredJob {
    let encode = Presets::builtin().get("720p_h264").expect("a built-in preset").clone();
    let output = OutputSpec {
        preset: Some("720p_h264".parse().expect("a name")),
        encode,
        destination: Destination::Storage {
            path: ObjectPath::parse("out/720p.mp4").expect("a path"),
            overwrite: Overwrite::Replace,
            metadata: BTreeMap::new(),
        },
        warnings: vec!["a field was ignored".into()],
    };
    let done = status == JobStatus::Completed;
    let result = OutputResult {
        url: "file:///srv/secret/root/out/720p.mp4".into(),
        files: vec![OutputFile {
            path: "out/720p.mp4".into(),
            size: 1000,
            sha256: "ab".repeat(32),
            content_type: "video/mp4".into(),
            role: None,
        }],
        duration_seconds: 30.03,
        frames: Some(900),
        width: Some(1280),
        height: Some(720),
        renditions: Vec::new(),
        warnings: vec!["not_upscaled".into()],
        report: Some(Box::new(output_report())),
    };
    let spec = JobSpec {
        source: Source::Http { url: "https://example.com/in.mp4?…".into() },
        outputs: vec![output.clone()],
        priority: 0,
        labels: BTreeMap::new(),
        metadata: serde_json::Map::new(),
        notification_url: None,
        notification_events: Vec::new(),
        options: JobOptions::default(),
    };
    let job = JobRecord {
        id: JobId::from_uuid(Uuid::from_u128(1)),
        tenant: Tenant::local(),
        status,
        run: RunNumber(1),
        seq: 2,
        cancel_at: None,
        spec,
        media: None,
        progress: Progress::from_permille(400),
        failure: None,
        created_at: START,
        started_at: Some(START),
        finished_at: status.is_terminal().then_some(START),
    };
    let output = OutputRecord {
        index: OutputIndex(0),
        status: if done { OutputStatus::Completed } else { OutputStatus::Encoding },
        spec: output,
        result: done.then_some(result),
        failure: None,
        publication: None,
    };
    let attempt = Attempt {
        run: RunId::from_uuid(Uuid::from_u128(2)),
        task: TaskId::from_uuid(Uuid::from_u128(3)),
        epoch: Epoch(1),
        worker: "w1".parse().expect("a name"),
        started_at: START,
        ended_at: done.then_some(START),
        outcome: done.then_some(RunOutcome::Done),
        code: None,
        log: None,
    };
    StoredJob {
        aggregate: Aggregate { job, outputs: vec![output], tasks: vec![], publications: vec![] },
        attempts: vec![attempt],
        queue_position: None,
    }
}

fn output_report() -> OutputReport {
    let picture = StreamReport {
        rendition: None,
        codec: "h264".into(),
        codec_string: Some("avc1.64001f".into()),
        duration_seconds: 30.03,
        bitrate_average: 2_000_000,
        bitrate_peak: 3_100_000,
        kind: KindReport::Video {
            width: 1280,
            height: 720,
            frame_rate: Some(29.97),
            pixel_format: Some("yuv420p".into()),
            color: ColorSpace::default(),
            frames: 900,
            planned: PlannedVideo {
                width: 1280,
                height: 720,
                frame_rate: Some(29.97),
                duration_seconds: Some(30.0),
                bitrate: None,
                bitrate_max: None,
            },
        },
    };
    let sound = StreamReport {
        codec: "aac".into(),
        codec_string: Some("mp4a.40.2".into()),
        kind: KindReport::Audio {
            channels: 2,
            sample_rate: 48_000,
            language: Some("eng".into()),
            loudness: Some(LoudnessReport::of(-20.0, -4.0, Some((2.5, true)))),
            planned: PlannedAudio { duration_seconds: Some(30.0), bitrate: 128_000 },
        },
        ..picture.clone()
    };
    OutputReport {
        streams: vec![picture, sound],
        command: Some(CommandReport {
            argv: ["ffmpeg", "-i", "SOURCE", "file:out-0.mp4"].map(str::to_owned).into(),
            complete: true,
        }),
        tools: BTreeMap::from([("ffmpeg".to_owned(), "5.1.9".to_owned())]),
    }
}

/// A state event of a job's first run.
pub(super) fn event(seq: i64, status: JobStatus) -> Event {
    Event {
        seq,
        kind: EventKind::Status,
        at: START,
        status,
        run: RunNumber(1),
        output: None,
        output_status: None,
        message: String::new(),
    }
}

/// A live report.
pub(super) fn report(permille: u16) -> TaskReport {
    TaskReport {
        phase: Phase::Encoding,
        progress: Progress::from_permille(permille),
        fps: Some(25.0),
        speed: Some(1.5),
        eta_seconds: Some(12.3),
    }
}

/// What the tests' storage holds.
#[derive(Default)]
pub(super) struct MemoryFiles {
    /// Contents of results, uploads and inline sources by name.
    pub(super) contents: Mutex<HashMap<String, Bytes>>,
    /// Where results are redirected to, when they are.
    pub(super) presigned: Mutex<Option<String>>,
    /// How uploads are sent to the storage, where it takes any.
    pub(super) invitation: Mutex<Invited>,
    /// What came of putting parts together, the tags given.
    pub(super) assembled: Mutex<Vec<String>>,
}

/// What the tests' storage says to uploads.
#[derive(Debug, Clone, Default)]
pub(super) enum Invited {
    /// It is a folder.
    #[default]
    No,
    /// Its credentials sign none.
    Unsigned,
    /// It is down.
    Down,
    /// So.
    Yes(Invitation),
}

#[async_trait]
impl Files for MemoryFiles {
    fn check_source(&self, source: &Source, _: &JobSecrets) -> Result<(), Failure> {
        match source {
            Source::File { .. } => {
                Err(Failure::new(Code::SourceBlocked, "files are not open on this server"))
            }
            _ => Ok(()),
        }
    }

    fn check_destination(&self, destination: &Destination, _: &OutputSecrets) -> Result<(), Failure> {
        match destination {
            Destination::File { .. } => {
                Err(Failure::new(Code::DestinationForbidden, "no folder is open on this server"))
            }
            _ => Ok(()),
        }
    }

    async fn presign(&self, _: &Destination, _: &OutputFile) -> Result<Option<String>, Failure> {
        Ok(self.presigned.lock().unwrap().clone())
    }

    async fn open_result(
        &self,
        _: &Destination,
        file: &OutputFile,
        range: Option<ByteRange>,
    ) -> Result<ByteStream, Failure> {
        let whole = self.contents.lock().unwrap().get(&file.path).cloned();
        let whole = whole.ok_or_else(|| Failure::new(Code::SourceNotFound, "the file was removed"))?;
        let place = |n: u64| usize::try_from(n).unwrap();
        let part = range.map_or(whole.clone(), |r| whole.slice(place(r.start)..=place(r.end)));
        Ok(Box::pin(stream::iter([Ok(part)])))
    }

    async fn receive_upload(&self, upload: &UploadRecord, mut body: ByteStream) -> Result<Received, Failure> {
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend(chunk.map_err(|e| Failure::new(Code::SourceTooLarge, e.to_string()))?);
        }
        self.contents.lock().unwrap().insert(upload.id.to_string(), bytes.into());
        Ok(Received { sha256: "cd".repeat(32) })
    }

    fn invites(&self, _: u64) -> bool {
        !matches!(*self.invitation.lock().unwrap(), Invited::No)
    }

    async fn invite(
        &self,
        _: &UploadRecord,
        _: Option<&str>,
        _: Duration,
    ) -> Result<Option<Invitation>, Failure> {
        match self.invitation.lock().unwrap().clone() {
            Invited::No | Invited::Unsigned => Ok(None),
            Invited::Down => Err(Failure::new(Code::DestinationUnreachable, "the object store is down")),
            Invited::Yes(invitation) => Ok(Some(invitation)),
        }
    }

    /// Takes tags that are "good".
    async fn assemble(&self, upload: &UploadRecord, etags: &[String]) -> Result<Assembled, Failure> {
        if etags.iter().any(|etag| etag != "good") {
            return Ok(Assembled::Refused);
        }
        *self.assembled.lock().unwrap() = etags.to_vec();
        let bytes = vec![0; usize::try_from(upload.size).unwrap()];
        self.contents.lock().unwrap().insert(upload.id.to_string(), bytes.into());
        Ok(Assembled::Done)
    }

    async fn claim(&self, upload: &UploadRecord) -> Result<Claim, Failure> {
        let there = self.contents.lock().unwrap().get(&upload.id.to_string()).map(Bytes::len);
        Ok(match there.map(|size| u64::try_from(size).unwrap()) {
            None => Claim::Missing,
            Some(size) if size == upload.size => Claim::Whole { etag: "\"tag\"".to_owned() },
            Some(size) => Claim::Size(size),
        })
    }

    async fn store_inline(&self, key: &ObjectPath, bytes: Bytes) -> Result<(), Failure> {
        self.contents.lock().unwrap().insert(key.to_string(), bytes);
        Ok(())
    }

    async fn discard_inline(&self, key: &ObjectPath) {
        self.contents.lock().unwrap().remove(key.as_str());
    }
}

struct NoGarbage;

#[async_trait]
impl Sweeper for NoGarbage {
    async fn sweep(&self, _: &crate::domain::Waste) -> bool {
        true
    }
}

/// The whole API over a store in memory and a control without workers.
pub(super) struct Server {
    pub(super) router: Router,
    pub(super) files: Arc<MemoryFiles>,
    pub(super) store: DynStore,
    pub(super) clock: Arc<ShiftedClock>,
    pub(super) lifecycle: Lifecycle,
}

/// The machine's clock, which a test may put forward.
#[derive(Default)]
pub(super) struct ShiftedClock(Mutex<Duration>);

impl ShiftedClock {
    pub(super) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(*self.0.lock().unwrap())
    }
}

/// An answer with its body read as JSON (`null` when it is none).
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The problem's code, after checking that it is one in full.
    pub(super) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{:?}", self.bytes);
        let body = self.json();
        assert_eq!(body["status"], self.status);
        assert_eq!(body["request_id"], self.header("x-request-id"));
        for member in ["type", "title", "detail"] {
            assert!(body[member].is_string(), "{member} in {body}");
        }
        assert!(body["retryable"].is_boolean());
        body["code"].as_str().unwrap().to_owned()
    }
}

/// A server without keys.
pub(super) async fn local() -> Server {
    start(Auth::Loopback { hosts: vec![] }, Limits::default(), None).await
}

/// A key of `tenant` that is its own name.
pub(super) fn key(name: &str, tenant: &str, scopes: &[Scope]) -> ApiKey {
    let sha256 = ring::digest::digest(&ring::digest::SHA256, name.as_bytes()).as_ref().try_into().unwrap();
    ApiKey {
        name: name.into(),
        tenant: tenant.parse().unwrap(),
        sha256,
        scopes: scopes.to_vec(),
        submissions_per_minute: None,
    }
}

pub(super) async fn start(auth: Auth, limits: Limits, max_pending: Option<u64>) -> Server {
    let options = Options { max_pending, ..Options::default() };
    let store: DynStore = Arc::new(SqliteStore::ephemeral(options).await.unwrap());
    let (shifted, ids): (_, Arc<dyn IdSource>) = (Arc::new(ShiftedClock::default()), Arc::new(SystemIds));
    let clock: Arc<dyn Clock> = Arc::clone(&shifted) as _;
    let (files, lifecycle) = (Arc::new(MemoryFiles::default()), Lifecycle::new());
    let deps = Deps {
        store: Arc::clone(&store),
        clock: Arc::clone(&clock),
        ids: Arc::clone(&ids),
        workers: vec![],
        discovery: Discovery::default(),
        sweeper: Arc::new(NoGarbage),
        webhooks: None,
        lifecycle: lifecycle.clone(),
    };
    let router = crate::api::router(Services {
        control: Control::start(ControlSettings::default(), deps).await.unwrap(),
        presets: Arc::new(Presets::builtin()),
        files: Arc::clone(&files) as Arc<dyn Files>,
        prober: None,
        clock,
        ids,
        auth,
        limits,
        results: crate::domain::Results::Keep,
        metrics: Arc::new(|| "flux_up 1\n".to_owned()),
        mounts: Vec::new(),
        closing: lifecycle.soft().clone(),
    });
    Server { router, files, store, clock: shifted, lifecycle }
}

impl Server {
    pub(super) async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(super) async fn ask(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.send(request).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(request("GET", path).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn call(&self, method: &str, path: &str) -> Answer {
        self.ask(request(method, path).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = request("POST", path).header("content-type", "application/json");
        self.ask(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// Submits a job and returns its id.
    pub(super) async fn submit(&self) -> String {
        let answer = self.post("/api/v1/jobs", &small_job()).await;
        assert_eq!(answer.status, 202, "{:?}", answer.bytes);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Takes the only queued job through a run to its end, as a control would.
    pub(super) async fn complete(&self, content: &'static [u8]) {
        let store = &self.store;
        let now = SystemClock.now();
        let session = store.open_session("test", now).await.unwrap();
        let run = RunId::from_uuid(SystemIds.random());
        let boot = BootId::from_uuid(SystemIds.random());
        let worker = "w1".parse().unwrap();
        let (can, company) = (Abilities::ALL, Company::Shared);
        let grant = Grant { worker, boot, can, company, runs: vec![run] };
        let claimed = store.claim(session, &[grant], now).await.unwrap().pop().unwrap();
        let key = claimed.key;
        done(store.started(key, now).await);
        done(store.output_status(key, OutputIndex(0), OutputStatus::Encoding, now).await);
        let Destination::Storage { path, .. } = &claimed.spec.outputs[0].destination else {
            panic!("storage")
        };
        self.files.contents.lock().unwrap().insert(path.to_string(), Bytes::from_static(content));
        let file = OutputFile {
            path: path.to_string(),
            size: content.len() as u64,
            sha256: "ab".repeat(32),
            content_type: "video/mp4".into(),
            role: None,
        };
        let result = OutputResult {
            url: format!("file:///srv/{path}"),
            files: vec![file],
            duration_seconds: 1.0,
            frames: Some(25),
            width: Some(1280),
            height: Some(720),
            renditions: Vec::new(),
            warnings: vec![],
            report: None,
        };
        let publication = Publication {
            id: PublicationId::from_uuid(SystemIds.random()),
            output: OutputIndex(0),
            run,
            epoch: claimed.epoch,
            handle: "{}".into(),
            manifest: serde_json::to_string(&result).unwrap(),
            state: PublicationState::Open,
        };
        let id = publication.id;
        done(store.permit(key, publication, now).await);
        done(
            store.output_done(key, OutputDone { output: OutputIndex(0), publication: id, result }, now).await,
        );
        done(store.complete(key, now).await);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it ends here")]
fn done<T: std::fmt::Debug>(answer: crate::store::Result<Fenced<T>>) {
    assert!(matches!(answer, Ok(Fenced::Done(_))), "{answer:?}");
}

pub(super) fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "localhost:8080")
}

/// The smallest canonical body.
pub(super) fn small_job() -> Value {
    json!({"source": {"kind": "http", "url": "https://example.com/in.mp4?token=canary"},
           "outputs": [{"preset": "720p_h264", "destination": {"kind": "storage", "path": "out/{job_id}.mp4"}}],
           "labels": {"team": "a"}})
}

//! Task transitions a second through each store: a thousand simulated workers that only talk to the record, and what a
//! task costs when few and when many wait.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux::domain::preset::{Container, EncodeSpec};
use flux::domain::{
    Abilities, BootId, Clock as _, Company, Destination, IdSource, JobId, JobOptions, JobSecrets, JobSpec,
    ObjectPath, OutputIndex, OutputResult, OutputSpec, Overwrite, Publication, PublicationId,
    PublicationState, RunId, SessionId, Source, SystemClock, SystemIds, TaskId, Tenant, Timestamp,
};
use flux::store::{
    Claimed, DynStore, Fenced, Grant, Idempotency, Keys, NewJob, Options, OutputDone, Place, PostgresStore,
    SealKeys, SqliteStore, Submitted,
};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

#[expect(dead_code, unreachable_pub, clippy::unwrap_used, reason = "it is part of the tests")]
#[path = "../../tests/it/support/postgres.rs"]
mod postgres;

use super::report::{Report, median};

const WORKERS: usize = 1_000;
/// Verbs that change a task: claim, started, permit, `output_done`, complete.
const TRANSITIONS: usize = 5;
const MANY: usize = 100_000;
const FEW: usize = 1_000;
/// Tasks done in one measurement.
const DONE: usize = 10_000;

pub(crate) async fn run(report: &mut Report) {
    eprintln!("store");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [many, few] = ["many", "few"].map(|name| folder.path().join(name));
    measure(report, "SQLite", [sqlite(&many).await, sqlite(&few).await]).await;
    let server = postgres::Server::with(&["fsync=on", "shared_buffers=256MB"]);
    postgres::run(&server.url(), "create database few").await;
    let url = server.url();
    let (at, _) = url.rsplit_once('/').expect("a database");
    let few = format!("{at}/few");
    measure(report, "PostgreSQL", [open(&server.url()).await, open(&few).await]).await;
}

fn options() -> Options {
    let keys = SealKeys::from_base64(["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="], "bench");
    Options { keys: Keys::Configured(keys.expect("a key")), ..Options::default() }
}

async fn sqlite(folder: &Path) -> DynStore {
    Arc::new(SqliteStore::open(folder, options()).await.expect("a store"))
}

async fn open(url: &str) -> DynStore {
    let place = Place::parse(url, None).expect("a place");
    Arc::new(PostgresStore::open(&place, options()).await.expect("a store"))
}

async fn measure(report: &mut Report, name: &str, [store, other]: [DynStore; 2]) {
    let session = store.open_session("bench", now()).await.expect("a session");
    let begun = Instant::now();
    fill(&store, MANY + DONE).await;
    let rate = (MANY + DONE) as f64 / begun.elapsed().as_secs_f64();
    report.add(&format!("{name}: durable submissions a second"), format!("{rate:.0}"), "≥ 10000");

    let mut many = Vec::new();
    let mut slots = Vec::new();
    for _ in 0..3 {
        many.push(work(&store, session, DONE, &mut slots).await);
        fill(&store, DONE).await;
    }
    let per_task = median(&many);
    let rate = TRANSITIONS as f64 / per_task;
    report.add(
        &format!("{name}: task transitions a second, 100,000 queued"),
        format!("{rate:.0}"),
        "≥ 10000",
    );
    report.add("  a group of claims, median", format!("{:.1} ms", median(&slots) * 1e3), "");

    let session = other.open_session("bench", now()).await.expect("a session");
    fill(&other, FEW).await;
    let mut few = Vec::new();
    for _ in 0..3 {
        let mut spent = 0.0;
        for _ in 0..DONE / FEW {
            fill(&other, FEW).await;
            spent += work(&other, session, FEW, &mut Vec::new()).await;
        }
        few.push(spent / (DONE / FEW) as f64);
    }
    report.add(
        "  cost of a task, 100,000 / 1,000 queued",
        format!("{:.2}", per_task / median(&few)),
        "≤ 1.3",
    );
}

/// Submits so many jobs, 512 at a time.
async fn fill(store: &DynStore, jobs: usize) {
    let submit = |_| async move {
        let answer = store.submit(job()).await.expect("an answer");
        assert_eq!(answer, Submitted::Created);
    };
    futures_util::stream::iter(0..jobs).map(submit).buffer_unordered(512).collect::<Vec<()>>().await;
}

/// Runs tasks to their end on all workers, a slot each; seconds for one task.
async fn work(store: &DynStore, session: SessionId, tasks: usize, claims: &mut Vec<f64>) -> f64 {
    let mut done = 0;
    let begun = Instant::now();
    let mut running = FuturesUnordered::new();
    let (mut free, mut claimed) = (WORKERS.min(tasks), 0);
    while done < tasks {
        // A control claims for all workers that have room at once.
        if claimed < tasks && (free >= 64 || running.is_empty()) {
            let grants: Vec<_> = (0..free.min(256).min(tasks - claimed)).map(|_| grant()).collect();
            let said = Instant::now();
            let got = store.claim(session, &grants, now()).await.expect("a claim");
            claims.push(said.elapsed().as_secs_f64());
            assert_eq!(got.len(), grants.len(), "enough is queued");
            claimed += got.len();
            free -= got.len();
            running.extend(got.into_iter().map(|claimed| encode(store, claimed)));
        } else if running.next().await.is_some() {
            done += 1;
            free += 1;
        }
    }
    begun.elapsed().as_secs_f64() / tasks as f64
}

/// Everything a worker has to tell the record of a job with one output.
async fn encode(store: &DynStore, claimed: Claimed) {
    let key = claimed.key;
    let did = |answer| assert_eq!(answer, Fenced::Done(()));
    did(store.started(key, now()).await.expect("an answer"));
    let publication = Publication {
        id: PublicationId::from_uuid(SystemIds.random()),
        output: OutputIndex(0),
        run: key.run,
        epoch: claimed.epoch,
        handle: r#"{"part":"out/.flux-018f.part"}"#.to_owned(),
        manifest: "{}".to_owned(),
        state: PublicationState::Open,
    };
    let done = OutputDone { output: OutputIndex(0), publication: publication.id, result: result() };
    let permit = store.permit(key, publication, now()).await.expect("an answer");
    assert!(matches!(permit, Fenced::Done(_)));
    did(store.output_done(key, done, now()).await.expect("an answer"));
    did(store.complete(key, now()).await.expect("an answer"));
}

fn grant() -> Grant {
    Grant {
        worker: "w".parse().expect("a name"),
        boot: BootId::from_uuid(SystemIds.random()),
        can: Abilities::ALL,
        company: Company::Shared,
        runs: vec![RunId::from_uuid(SystemIds.random())],
    }
}

fn now() -> Timestamp {
    SystemClock.now()
}

fn job() -> NewJob {
    let now = now();
    let none = std::collections::BTreeMap::<String, String>::new;
    let path = ObjectPath::parse("vod/018f/720p.mp4").expect("a path");
    let destination = Destination::Storage { path, overwrite: Overwrite::Fail, metadata: none() };
    let encode = EncodeSpec {
        container: Container::Mp4,
        video: None,
        audio: None,
        ladder: Vec::new(),
        package: None,
        clip: None,
        stills: None,
        poster: false,
        captions: None,
    };
    NewJob {
        id: JobId::from_uuid(SystemIds.sortable(now)),
        task: TaskId::from_uuid(SystemIds.sortable(now)),
        tenant: Tenant::local(),
        spec: JobSpec {
            source: Source::Http { url: "https://example.com/footage/2026/11/21/interview-cam-b.mp4".into() },
            outputs: vec![OutputSpec { preset: None, encode, destination, warnings: Vec::new() }],
            priority: 0,
            labels: none(),
            metadata: serde_json::Map::new(),
            notification_url: None,
            notification_events: Vec::new(),
            options: JobOptions::default(),
        },
        secrets: JobSecrets::default(),
        idempotency: Some(Idempotency {
            key: SystemIds.random().to_string(),
            fingerprint: vec![7; 32],
            until: now.plus(Duration::from_hours(24)),
        }),
        now,
    }
}

fn result() -> OutputResult {
    OutputResult {
        url: "file:///out/0.mp4".into(),
        files: Vec::new(),
        duration_seconds: 1.5,
        frames: Some(36),
        width: None,
        height: None,
        renditions: Vec::new(),
        warnings: Vec::new(),
        report: None,
    }
}

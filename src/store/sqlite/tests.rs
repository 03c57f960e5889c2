//! What only a file can show: durability, the lock, keys, the schema's age, bytes on disk.

use std::path::Path;
use std::sync::Arc;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnectOptions;

use super::super::{JobSecrets, JobSpec, SealKeys};
use super::*;
use crate::domain::testing::SeededIds;
use crate::domain::{Destination, JobOptions, JobStatus, OutputSpec, Overwrite, Source, fixtures};

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn job(ids: &SeededIds) -> NewJob {
    NewJob {
        id: JobId::from_uuid(ids.sortable(NOW)),
        task: TaskId::from_uuid(ids.sortable(NOW)),
        tenant: Tenant::local(),
        spec: JobSpec {
            source: Source::File { path: "in.mp4".into() },
            outputs: vec![output()],
            priority: 0,
            labels: [("show".to_owned(), "news".to_owned())].into(),
            metadata: serde_json::Map::new(),
            notification_url: None,
            notification_events: Vec::new(),
            options: JobOptions::default(),
        },
        secrets: JobSecrets { source_url: Some("https://u:canary@h/".into()), ..JobSecrets::default() },
        idempotency: None,
        now: NOW,
    }
}

fn output() -> OutputSpec {
    let destination = Destination::File { path: "out.mp4".into(), overwrite: Overwrite::Replace };
    OutputSpec { destination, ..fixtures::output(0) }
}

fn grant(ids: &SeededIds) -> Grant {
    Grant {
        worker: "w".parse().unwrap(),
        boot: crate::domain::BootId::from_uuid(ids.random()),
        can: crate::domain::Abilities::ALL,
        company: crate::domain::Company::Shared,
        runs: vec![crate::domain::RunId::from_uuid(ids.random())],
    }
}

fn keys(byte: u8) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode([byte; 32])
}

fn configured(texts: &[&str]) -> Options {
    let keys = Keys::Configured(SealKeys::from_base64(texts.iter().copied(), "secrets.keys").unwrap());
    Options { keys, ..Options::default() }
}

async fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(folder, Options::default()).await.unwrap()
}

async fn close(store: SqliteStore) {
    let closed = store.closed();
    drop(store);
    closed.await;
}

/// The folder as a power cut would leave it: what is in the files while the store still runs.
fn snapshot(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["flux.db", "flux.db-wal", "secrets.key"] {
        std::fs::copy(folder.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

#[tokio::test]
async fn an_acknowledged_job_is_in_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(folder.path()).await);
    let ids = SeededIds::new(1);
    let jobs: Vec<_> = (0..100).map(|_| job(&ids)).collect();
    let all: Vec<_> = jobs.iter().map(|job| job.id).collect();
    let answers = futures_util::future::join_all(jobs.into_iter().map(|job| store.submit(job))).await;
    assert!(answers.iter().all(|a| matches!(a, Ok(Submitted::Created))));
    let copy = snapshot(folder.path());
    let revived = open(copy.path()).await;
    for id in all {
        let job = revived.get(None, id).await.unwrap().expect("it was acknowledged");
        assert_eq!(job.aggregate.job.status, JobStatus::Queued);
    }
}

#[tokio::test]
async fn a_restart_takes_over_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let ids = SeededIds::new(1);
    let new = job(&ids);
    let id = new.id;
    store.submit(new).await.unwrap();
    let session = store.open_session("a", NOW).await.unwrap();
    let before = store.claim(session, &[grant(&ids)], NOW).await.unwrap().remove(0);
    close(store).await;

    let store = open(folder.path()).await;
    let session = store.open_session("b", NOW).await.unwrap();
    let after = store.claim(session, &[grant(&ids)], NOW).await.unwrap().remove(0);
    assert_eq!((after.key.job, after.epoch.0, after.earlier_failures), (id, 2, 0));
    assert_eq!(after.secrets, before.secrets);
    assert_eq!(store.started(before.key, NOW).await.unwrap(), Fenced::Lost);
}

#[tokio::test]
async fn the_second_process_is_told_who_holds_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let second = SqliteStore::open(folder.path(), Options::default()).await;
    let own = std::process::id();
    assert!(matches!(second, Err(Error::Locked { holder: Some(pid), .. }) if pid == own));
    close(store).await;
    close(open(folder.path()).await).await;
}

#[tokio::test]
async fn newer_data_is_refused_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    close(open(folder.path()).await).await;
    let file = SqliteConnectOptions::new().filename(folder.path().join(DATABASE));
    let mut conn = sqlx::SqliteConnection::connect_with(&file).await.unwrap();
    sqlx::query("update meta set v = '99' where k = 'schema'").execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let refused = SqliteStore::open(folder.path(), Options::default()).await;
    assert!(matches!(refused, Err(Error::NewerSchema { found: 99, known: 2 })));
}

#[tokio::test]
async fn another_key_is_refused_and_rotation_is_not() {
    let (old, new) = (keys(1), keys(2));
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), configured(&[&old])).await.unwrap();
    let fingerprint = store.fingerprint(b"body");
    store.submit(job(&SeededIds::new(1))).await.unwrap();
    close(store).await;

    let refused = SqliteStore::open(folder.path(), configured(&[&new])).await;
    assert!(matches!(refused, Err(Error::WrongKey { place }) if place == "secrets.keys"));
    let store = SqliteStore::open(folder.path(), configured(&[&new, &old])).await.unwrap();
    assert_eq!(store.fingerprint(b"body"), fingerprint, "keys of clients outlive a rotation");
    close(store).await;
    let refused = SqliteStore::open(folder.path(), configured(&[&new])).await;
    assert!(matches!(refused, Err(Error::WrongKey { .. })), "a job is still sealed with the old key");
}

#[tokio::test]
async fn no_secret_is_in_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    store.submit(job(&SeededIds::new(1))).await.unwrap();
    for name in ["flux.db", "flux.db-wal"] {
        let bytes = std::fs::read(folder.path().join(name)).unwrap();
        assert!(!bytes.windows(6).any(|w| w == b"canary"), "{name}");
        assert!(name == "flux.db" || bytes.windows(6).any(|w| w == b"in.mp4"), "the job itself is there");
    }
}

#[tokio::test]
async fn a_job_that_is_said_again_is_stored_once() {
    let store = SqliteStore::ephemeral(Options::default()).await.unwrap();
    let (first, second) = (SeededIds::new(1), SeededIds::new(1));
    assert_eq!(store.submit(job(&first)).await.unwrap(), Submitted::Created);
    assert_eq!(store.submit(job(&second)).await.unwrap(), Submitted::Created);
    assert_eq!(store.list(&JobFilter { limit: 10, ..JobFilter::default() }).await.unwrap().jobs.len(), 1);
}

#[tokio::test]
async fn one_bad_command_does_not_fail_its_group() {
    let store = Arc::new(SqliteStore::ephemeral(Options::default()).await.unwrap());
    let ids = SeededIds::new(1);
    let nobody = UploadId::from_uuid(ids.random());
    let submits = futures_util::future::join_all((0..20).map(|_| store.submit(job(&ids))));
    let (bad, good) = tokio::join!(store.upload_done(nobody, "ab"), submits);
    assert!(matches!(bad, Err(Error::Inconsistent { table: "uploads", .. })));
    assert!(good.iter().all(|a| matches!(a, Ok(Submitted::Created))));
}

#[tokio::test]
async fn an_unreadable_job_does_not_block_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let ids = SeededIds::new(1);
    let (first, second) = (job(&ids), job(&ids));
    let (broken, good) = (first.id, second.id);
    store.submit(first).await.unwrap();
    store.submit(second).await.unwrap();
    close(store).await;
    let file = SqliteConnectOptions::new().filename(folder.path().join(DATABASE));
    let mut conn = sqlx::SqliteConnection::connect_with(&file).await.unwrap();
    let spoil = sqlx::query("update jobs set spec = '{' where id = ?").bind(save::blob(broken.uuid()));
    spoil.execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();

    let store = open(folder.path()).await;
    let session = store.open_session("a", NOW).await.unwrap();
    assert!(store.claim(session, &[grant(&ids)], NOW).await.unwrap().is_empty());
    let claimed = store.claim(session, &[grant(&ids)], NOW).await.unwrap();
    assert_eq!(claimed[0].key.job, good);
    assert!(matches!(store.get(None, broken).await, Err(Error::Inconsistent { table: "jobs", .. })));
    assert_eq!(store.stats().await.unwrap().ready, 0);
}

/// The claim's order comes from its index; a scan would show with a million jobs only.
#[tokio::test]
async fn claims_and_ticks_search_their_indexes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for (sql, index) in [
        (
            "select id, job_id from tasks where state = 2 and class = 0 and tenant = 'a' order by rank, id limit 5",
            "tasks_ready",
        ),
        (
            "select id from tasks where state = 1 and not_before <= 5 order by not_before limit 500",
            "tasks_delayed",
        ),
        (session::HELD, "tasks_session"),
        (&submit::key_lookup(3), "jobs_idem (tenant=? AND idem_key=?)"),
        (
            "select id from jobs j where j.tenant = 'a' and j.deleted_at is null and j.id < x'00' order by j.id desc",
            "jobs_list",
        ),
    ] {
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("explain query plan {sql}")))
                .fetch_all(&store.readers)
                .await
                .unwrap();
        let text = plan.iter().map(|row| row.3.as_str()).collect::<Vec<_>>().join("; ");
        assert!(text.contains(index) && !text.contains("TEMP B-TREE FOR ORDER BY"), "{sql}: {text}");
    }
}

/// However many rows a statement is about, it finds each by its key.
#[tokio::test]
async fn transitions_search_their_tables() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for (table, statement) in save::STATEMENTS.iter().chain(&load::STATEMENTS) {
        let sql = format!("explain query plan {}", statement.text(64));
        let rows: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&store.readers).await.unwrap();
        let plan = rows.iter().map(|row| row.3.as_str()).collect::<Vec<_>>().join("; ");
        assert!(!plan.contains(&format!("SCAN {table}")), "{table}: {plan}");
    }
}

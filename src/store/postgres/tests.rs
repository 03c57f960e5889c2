//! What only a server that several use can show.

#[path = "../../../tests/it/support/postgres.rs"]
#[expect(unreachable_pub, reason = "the integration tests use it too")]
mod server;

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use server::{Database, Server};

use super::*;
use crate::domain::fixtures::spec;
use crate::domain::testing::SeededIds;
use crate::domain::{Abilities, BootId, Company, IdSource, JobSecrets, JobStatus, RunId, SystemIds};
use crate::store::{Idempotency, SealKeys};

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// The keys of a test's controls.
fn keys(bytes: &[u8]) -> Keys {
    use base64::Engine;
    let text = |byte: &u8| base64::engine::general_purpose::STANDARD.encode([*byte; 32]);
    let texts: Vec<_> = bytes.iter().map(text).collect();
    Keys::Configured(SealKeys::from_base64(texts.iter().map(String::as_str), "secrets.keys").unwrap())
}

/// A store in a database of its own.
pub(in crate::store) async fn fresh(options: Options) -> (PostgresStore, Database) {
    let database = Database::new().await;
    let place = place(&database.url);
    (PostgresStore::open(&place, Options { keys: keys(&[1]), ..options }).await.unwrap(), database)
}

fn place(url: &str) -> Place {
    Place::parse(url, None).unwrap()
}

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(&place(url), Options { keys: keys(&[1]), ..Options::default() }).await.unwrap()
}

fn job() -> NewJob {
    NewJob {
        id: JobId::from_uuid(SystemIds.sortable(NOW)),
        task: TaskId::from_uuid(SystemIds.sortable(NOW)),
        tenant: Tenant::local(),
        spec: spec(1),
        secrets: JobSecrets { source_url: Some("https://u:canary@h/".into()), ..JobSecrets::default() },
        idempotency: None,
        now: NOW,
    }
}

async fn submit(store: &PostgresStore, jobs: usize) -> Vec<JobId> {
    let jobs: Vec<_> = (0..jobs).map(|_| job()).collect();
    let ids = jobs.iter().map(|job| job.id).collect();
    let answers = join_all(jobs.into_iter().map(|job| store.submit(job))).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Submitted::Created))), "{answers:?}");
    ids
}

fn grant(slots: usize) -> Grant {
    Grant {
        worker: "w".parse().unwrap(),
        boot: BootId::from_uuid(SystemIds.random()),
        can: Abilities::ALL,
        company: Company::Shared,
        runs: (0..slots).map(|_| RunId::from_uuid(SystemIds.random())).collect(),
    }
}

async fn session(store: &PostgresStore) -> SessionId {
    store.open_session("test", NOW).await.unwrap()
}

#[tokio::test]
async fn claims_of_several_controls_never_overlap() {
    let (one, database) = fresh(Options::default()).await;
    let two = open(&database.url).await;
    let ids: HashSet<_> = submit(&one, 300).await.into_iter().collect();
    let claim = async |store: &PostgresStore| {
        let (session, mut claimed) = (session(store).await, Vec::new());
        loop {
            let more = store.claim(session, &[grant(5), grant(2)], NOW).await.unwrap();
            if more.is_empty() {
                return claimed;
            }
            claimed.extend(more.into_iter().map(|c| c.key.job));
        }
    };
    let (a, b, c, d) = tokio::join!(claim(&one), claim(&two), claim(&one), claim(&two));
    let all: Vec<_> = [a, b, c, d].concat();
    assert_eq!(all.len(), 300, "nothing twice");
    assert_eq!(all.into_iter().collect::<HashSet<_>>(), ids, "and nothing left");
}

#[tokio::test]
async fn what_a_session_held_is_taken_over_by_exactly_one() {
    let (gone, database) = fresh(Options::default()).await;
    let (one, two) = (open(&database.url).await, open(&database.url).await);
    submit(&gone, 40).await;
    let old = session(&gone).await;
    let held = gone.claim(old, &[grant(40)], NOW).await.unwrap();
    assert_eq!(held.len(), 40);
    let (first, second) = (session(&one).await, session(&two).await);
    assert!(one.takeover(first, 10, NOW).await.unwrap().is_empty(), "it lives");

    database.execute(&format!("update sessions set expires_at = 1 where id = '{}'", old.uuid())).await;
    assert_eq!(gone.renew_session(old, NOW).await.unwrap(), Fenced::Lost, "it is over");
    assert!(gone.claim(old, &[grant(1)], NOW).await.unwrap().is_empty());
    let take = async |store: &PostgresStore, session| {
        let mut taken = Vec::new();
        while left(&database, old).await > 0 {
            taken.extend(store.takeover(session, 7, NOW).await.unwrap());
        }
        taken
    };
    let (a, b) = tokio::join!(take(&one, first), take(&two, second));
    let runs: HashSet<_> = a.iter().chain(&b).map(|taken| taken.claimed.key.run).collect();
    assert_eq!((a.len() + b.len(), runs.len()), (40, 40));
    assert_eq!(runs, held.iter().map(|claimed| claimed.key.run).collect(), "the same runs");
    assert!(a.iter().chain(&b).all(|taken| taken.claimed.secrets == held[0].secrets));
    for claimed in &held {
        assert_eq!(gone.complete(claimed.key, NOW).await.unwrap(), Fenced::Lost);
    }
    for taken in a.iter().chain(&b) {
        assert_eq!(
            two.started(taken.claimed.key, NOW).await.unwrap(),
            Fenced::Done(()),
            "its new holder may"
        );
    }
    assert_eq!(gone.renew_session(old, NOW).await.unwrap(), Fenced::Lost, "it is not revived");
}

async fn left(database: &Database, session: SessionId) -> i64 {
    let mut conn = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let count = "select count(*) from tasks where session_id = $1";
    sqlx::query_scalar(count).bind(session.uuid()).fetch_one(&mut conn).await.unwrap()
}

#[tokio::test]
async fn one_key_makes_one_job_on_all_controls() {
    let (one, database) = fresh(Options::default()).await;
    let two = open(&database.url).await;
    assert_eq!(one.fingerprint(b"body"), two.fingerprint(b"body"));
    for round in 0..30 {
        let key = format!("k-{round}");
        let keyed = |body: &[u8]| NewJob {
            idempotency: Some(Idempotency {
                key: key.clone(),
                fingerprint: one.fingerprint(body),
                until: NOW.plus(Duration::from_hours(24)),
            }),
            ..job()
        };
        let jobs: Vec<_> = (0..6).map(|_| keyed(b"body")).collect();
        let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
        let say = |(n, job)| if n % 2 == 0 { one.submit(job) } else { two.submit(job) };
        let answers = join_all(jobs.into_iter().enumerate().map(say)).await;
        let created: Vec<_> = (0..6).filter(|n| matches!(answers[*n], Ok(Submitted::Created))).collect();
        assert_eq!(created.len(), 1, "{answers:?}");
        let winner = ids[created[0]];
        let replayed =
            answers.iter().filter(|answer| matches!(answer, Ok(Submitted::Replayed(id)) if *id == winner));
        assert_eq!(replayed.count(), 5, "{answers:?}");
        assert_eq!(two.submit(keyed(b"other")).await.unwrap(), Submitted::KeyReused);
    }
}

#[tokio::test]
async fn hints_reach_other_controls() {
    let (one, database) = fresh(Options::default()).await;
    let two = open(&database.url).await;
    let mut changes = two.changes();
    let heard = async {
        loop {
            // It may not listen yet; hints are only hints.
            let [id] = submit(&one, 1).await[..] else { panic!("one was submitted") };
            if let Ok(heard) = tokio::time::timeout(Duration::from_millis(500), changes.recv()).await {
                return (heard.unwrap(), id);
            }
        }
    };
    let (heard, _) = tokio::time::timeout(Duration::from_mins(1), heard).await.unwrap();
    assert!(one.get(None, heard).await.unwrap().is_some());
    let news = async {
        let [id] = submit(&one, 1).await[..] else { panic!("one was submitted") };
        while changes.recv().await.unwrap() != id {}
    };
    tokio::time::timeout(Duration::from_mins(1), news).await.unwrap();
    database.cut().await;
    let again = async {
        let mut ids = HashSet::new();
        loop {
            ids.extend(submit(&one, 1).await);
            let heard = tokio::time::timeout(Duration::from_millis(500), changes.recv()).await;
            if heard.is_ok_and(|heard| ids.contains(&heard.unwrap())) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), again).await.expect("it listens again");
}

#[tokio::test]
async fn controls_that_start_at_once_make_the_tables_once() {
    let database = Database::new().await;
    let stores = join_all((0..4).map(|_| open(&database.url))).await;
    let fingerprints: HashSet<_> = stores.iter().map(|store| store.fingerprint(b"body")).collect();
    assert_eq!(fingerprints.len(), 1, "they have one secret");
    let ids = submit(&stores[0], 3).await;
    for id in ids {
        assert!(stores[3].get(None, id).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn newer_data_is_refused_and_not_touched() {
    let (_, database) = fresh(Options::default()).await;
    database.execute("update meta set v = '99' where k = 'schema'").await;
    for _ in 0..2 {
        let options = Options { keys: keys(&[1]), ..Options::default() };
        let refused = PostgresStore::open(&place(&database.url), options).await;
        assert!(matches!(refused, Err(Error::NewerSchema { found: 99, known: 2 })));
    }
    let found = place(&database.url).look().await.unwrap();
    assert!(found.contains("schema 99 (this build knows 2)"), "{found}");
}

#[tokio::test]
async fn another_key_is_refused_and_rotation_is_not() {
    let (store, database) = fresh(Options::default()).await;
    submit(&store, 1).await;
    let open = async |bytes: Option<&[u8]>| {
        let options =
            bytes.map_or_else(Options::default, |b| Options { keys: keys(b), ..Options::default() });
        PostgresStore::open(&place(&database.url), options).await
    };
    assert!(matches!(open(Some(&[2])).await, Err(Error::WrongKey { place }) if place == "secrets.keys"));
    assert!(matches!(open(None).await, Err(Error::Open { .. })), "a key of its own is of no use");
    let both = open(Some(&[2, 1])).await.unwrap();
    assert_eq!(both.fingerprint(b"body"), store.fingerprint(b"body"));
    assert!(
        matches!(open(Some(&[2])).await, Err(Error::WrongKey { .. })),
        "a job is still sealed with the old key"
    );
}

#[tokio::test]
async fn what_is_wrong_with_an_address_is_said() {
    let database = Database::new().await;
    let (server, _) = database.url.rsplit_once('/').unwrap();
    let nowhere = place(&format!("{server}/nothing_here"));
    let refused = nowhere.look().await.unwrap_err().to_string();
    assert!(refused.contains("has no such database") && refused.contains("/nothing_here"), "{refused}");
    let stranger = place(&database.url.replace("postgres@", "stranger:s3cr3t@"));
    let refused = stranger.look().await.unwrap_err();
    assert!(
        matches!(refused, Error::Open { .. }) && refused.to_string().contains("refuses the user"),
        "{refused}"
    );
    assert!(!format!("{stranger} {stranger:?} {refused:?}").contains("s3cr3t"));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = place(&format!("postgres://u@{silent}/d")).look().await;
    assert!(matches!(away, Err(Error::Unavailable { .. })), "it may come: {away:?}");
    assert!(Place::parse("postgres://u@h/d?sslmode=perhaps", None).is_err());
}

#[tokio::test]
async fn connections_that_are_cut_lose_nothing() {
    let (store, database) = fresh(Options::default()).await;
    let jobs: Vec<_> = (0..200).map(|_| job()).collect();
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    let say = async |job: NewJob| {
        // What is not known to be stored is said again, as a client would.
        for _ in 0..20 {
            if let Ok(answer) = store.submit(job.clone()).await {
                return answer;
            }
        }
        panic!("it never came through")
    };
    let cuts = async {
        for _ in 0..5 {
            database.cut().await;
        }
    };
    let (answers, ()) = tokio::join!(join_all(jobs.into_iter().map(say)), cuts);
    assert!(answers.iter().all(|answer| *answer == Submitted::Created), "{answers:?}");
    assert_eq!(store.stats().await.unwrap().ready, 200, "each once");
    let session = session(&store).await;
    database.cut().await;
    let claimed = store.claim(session, &[grant(3)], NOW).await.unwrap();
    database.cut().await;
    assert_eq!(store.started(claimed[0].key, NOW).await.unwrap(), Fenced::Done(()));
    database.cut().await;
    assert!(store.get(None, ids[0]).await.unwrap().is_some());
}

#[tokio::test]
async fn a_server_that_crashes_comes_back_with_every_job() {
    let mut server = Server::start();
    let store = open(&server.url()).await;
    let ids = submit(&store, 50).await;
    let session = session(&store).await;
    let claimed = store.claim(session, &[grant(5)], NOW).await.unwrap();
    server.crash();
    assert!(
        matches!(store.submit(job()).await, Err(Error::Unavailable { .. })),
        "nothing that cannot be kept"
    );
    assert!(store.ping().await.is_err());
    assert!(matches!(store.renew_session(session, NOW).await, Err(Error::Unavailable { .. })));
    server.resume();
    store.ping().await.unwrap();
    for id in ids {
        assert!(store.get(None, id).await.unwrap().is_some(), "it was acknowledged");
    }
    for claimed in claimed {
        assert_eq!(store.started(claimed.key, NOW).await.unwrap(), Fenced::Done(()));
    }
    submit(&store, 1).await;
}

#[tokio::test]
async fn one_bad_verb_does_not_fail_its_group() {
    let (store, _database) = fresh(Options::default()).await;
    submit(&store, 60).await;
    let session = session(&store).await;
    let claimed = store.claim(session, &[grant(60)], NOW).await.unwrap();
    let verbs = claimed.iter().enumerate().map(async |(n, claimed)| {
        // The state machine refuses a report of an output that does not exist.
        let output = OutputIndex(if n % 7 == 0 { 9 } else { 0 });
        store.output_status(claimed.key, output, OutputStatus::Encoding, NOW).await
    });
    for (n, answer) in join_all(verbs).await.into_iter().enumerate() {
        let bad = matches!(answer, Err(Error::Inconsistent { .. }));
        assert_eq!(bad, n % 7 == 0, "{n}: {answer:?}");
    }
}

#[tokio::test]
async fn an_unreadable_job_does_not_block_its_line() {
    let (store, database) = fresh(Options { ids: Arc::new(SeededIds::new(3)), ..Options::default() }).await;
    let [broken, good] = submit(&store, 2).await[..] else { panic!("two were submitted") };
    database.execute(&format!("update jobs set spec = '{{' where id = '{}'", broken.uuid())).await;
    let session = session(&store).await;
    let mut claimed = store.claim(session, &[grant(2)], NOW).await.unwrap();
    assert_eq!(claimed.remove(0).key.job, good);
    assert!(claimed.is_empty());
    assert!(matches!(store.get(None, broken).await, Err(Error::Inconsistent { table: "jobs", .. })));
    assert_eq!(store.stats().await.unwrap().ready, 0);
    let filter = JobFilter { status: Some(JobStatus::Running), limit: 5, ..JobFilter::default() };
    assert!(store.list(&filter).await.unwrap().jobs.is_empty(), "a claim changes no job");
}

#[tokio::test]
async fn secrets_that_no_key_opens_fail_their_job() {
    let (store, database) = fresh(Options::default()).await;
    let [id] = submit(&store, 1).await[..] else { panic!("one was submitted") };
    database.execute("update job_secrets set sealed = 'spoiled and of no use'").await;
    let session = session(&store).await;
    assert!(store.claim(session, &[grant(1)], NOW).await.unwrap().is_empty());
    let job = store.get(None, id).await.unwrap().unwrap().aggregate.job;
    assert_eq!(job.failure.map(|failure| failure.message), Some(claim::unusable().message));
}

/// A plan that scans shows only with a million jobs.
#[tokio::test]
async fn the_hot_statements_search_indexes() {
    let (store, database) = fresh(Options::default()).await;
    submit(&store, 1).await;
    let mut conn = sqlx::PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql(db::SESSION).execute(&mut conn).await.unwrap();
    for (sql, index) in [
        (
            "select id from tasks where state = 2 and class = 3 and tenant = 'a' order by rank, id limit 5",
            "tasks_ready",
        ),
        (
            "select id from tasks where state = 1 and not_before <= 5 order by not_before limit 500",
            "tasks_delayed",
        ),
        (
            "select session_id from tasks where state in (3, 4) and session_id > '018f0000-0000-7000-8000-000000000000' order by session_id limit 1",
            "tasks_session",
        ),
        (
            "select j.id from unnest('{a}'::text[], '{b}'::text[]) v(t, k) join jobs j on j.tenant = v.t and j.idem_key = v.k",
            "jobs_idem",
        ),
        (
            "update jobs j set seq = v.seq from unnest('{}'::uuid[], '{}'::bigint[]) v(id, seq) where j.id = v.id",
            "jobs_pkey",
        ),
        (
            "select id from jobs j where j.tenant = 'a' and j.deleted_at is null and j.id < '018f0000-0000-7000-8000-000000000000' order by j.id desc limit 5",
            "jobs_list",
        ),
    ] {
        let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("explain {sql}")))
            .fetch_all(&mut conn)
            .await
            .unwrap();
        let text = plan.join("; ");
        assert!(
            text.contains(index) && !text.contains("Seq Scan") && !text.contains("Sort"),
            "{sql}: {text}"
        );
    }
}

//! Control and workers as processes of their own: how they find each other, and who is kept out.

use std::sync::Arc;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::certs::Authority;
use crate::support::server::{Role, Server, Start, job_for};
use crate::support::{clips, eventually, sha256};

const TOKEN: &str = "the-workers-token";
const VALID: i32 = 2101;

/// A folder that control and workers share, as they would a bucket.
fn shared() -> (Arc<tempfile::TempDir>, String) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let url = format!("file:{}", dir.path().join("storage").display());
    (dir, url)
}

fn worker(name: &str, storage: &str) -> Start {
    Start::role(Role::Worker)
        .set("FLUX__WORKER__ID", name)
        .set("FLUX__WORKER__SLOTS", "1")
        .set("FLUX__STORAGE__URL", storage)
}

fn control(storage: &str, nodes: &str) -> Start {
    Start::role(Role::Control).set("FLUX__STORAGE__URL", storage).set("FLUX__WORKERS__NODES", nodes)
}

async fn workers(control: &Server) -> Vec<Value> {
    let (_, answer) = control.get("/api/v1/workers").await;
    answer["workers"].as_array().cloned().unwrap_or_default()
}

/// Waits until the worker at an address is in a state; what is shown of it then.
async fn shown(control: &Server, address: &str, state: &str) -> Value {
    eventually(&format!("{address} is {state}"), async || {
        workers(control).await.into_iter().find(|w| w["address"] == address && w["state"] == state)
    })
    .await
}

async fn completes(control: &Server) -> Value {
    let job = control.encode(&clips::mp4(1)).await;
    assert_eq!(job["status"], "completed", "{job:#}\n{}", control.log());
    job
}

#[tokio::test]
async fn two_workers_encode_for_one_control() {
    let (_dir, storage) = shared();
    let (a, b) = (worker("a", &storage).server().await, worker("b", &storage).server().await);
    let control = control(&storage, &format!("{},{}", a.address(), b.address())).server().await;
    for address in [a.address(), b.address()] {
        let worker = shown(&control, address, "ready").await;
        assert_eq!((worker["found"].as_str(), worker["slots"].as_u64()), (Some("listed"), Some(1)));
    }
    let ids =
        [control.submit(&job_for(&clips::mp4(1))).await, control.submit(&job_for(&clips::mp4(1))).await];
    let mut by = Vec::new();
    for id in &ids {
        let job = control.finished(id).await;
        assert_eq!(job["status"], "completed", "{job:#}");
        by.push(job["attempts"][0]["worker_id"].as_str().unwrap().to_owned());
        let content = control.http.get(format!("{}/api/v1/jobs/{id}/outputs/0/content", control.url));
        assert!(content.send().await.unwrap().bytes().await.unwrap().len() > 1000);
    }
    by.sort();
    assert_eq!(by, ["a", "b"], "one slot each");
    for process in [&a, &b, &control] {
        process.assert_clean().await;
    }
}

#[tokio::test]
async fn the_token_is_asked_of_everybody() {
    let (_dir, storage) = shared();
    let guarded = worker("guarded", &storage).set("FLUX__WORKER__TOKEN", TOKEN).server().await;
    for wrong in [None, Some("another-token")] {
        let mut start = control(&storage, guarded.address());
        if let Some(wrong) = wrong {
            start = start.set("FLUX__WORKERS__TOKEN", wrong);
        }
        let control = start.server().await;
        let refused = shown(&control, guarded.address(), "refused").await;
        assert!(refused["reason"].as_str().unwrap().contains("token"), "{refused:#}");
    }
    let control = control(&storage, guarded.address()).set("FLUX__WORKERS__TOKEN", TOKEN).server().await;
    shown(&control, guarded.address(), "ready").await;
    completes(&control).await;
    assert!(!control.log().contains(TOKEN) && !guarded.log().contains(TOKEN));
}

#[tokio::test]
async fn workers_register_with_the_worker_token_and_nothing_else() {
    let (_dir, storage) = shared();
    let key = "an-api-key";
    let config = format!(
        "[auth]\nkeys = [{{ name = \"k\", sha256 = \"{}\", scopes = [\"admin\"] }}]\n",
        sha256(key.as_bytes())
    );
    let control = control(&storage, "").set("FLUX__WORKERS__TOKEN", TOKEN).file(&config).server().await;
    let registers = |name: &str, token: &str| {
        worker(name, &storage).set("FLUX__WORKER__CONTROL", &control.url).set("FLUX__WORKER__TOKEN", token)
    };
    let stranger = registers("stranger", key).server().await;
    eventually("the stranger is told", async || stranger.log().contains("not authorised").then_some(()))
        .await;
    let friend = registers("friend", TOKEN).server().await;
    let list = eventually("the friend is there", async || {
        let request = control.http.get(format!("{}/api/v1/workers", control.url)).bearer_auth(key);
        let list: Value = request.send().await.unwrap().json().await.unwrap();
        (list["workers"][0]["state"] == "ready").then_some(list)
    })
    .await;
    assert_eq!(list["workers"].as_array().unwrap().len(), 1, "{list:#}");
    assert_eq!(list["workers"][0]["found"], "registered");
    assert_eq!(list["workers"][0]["address"], friend.address());
    // And a worker token is no API key.
    let request = control.http.get(format!("{}/api/v1/jobs", control.url)).bearer_auth(TOKEN);
    assert_eq!(request.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn certificates_are_checked_both_ways() {
    let (dir, storage) = shared();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (ca, other_ca) = (ours.file(dir.path(), "ca.pem"), theirs.file(dir.path(), "other.pem"));
    let (cert, key) = ours.sign(dir.path(), "127.0.0.1", VALID);
    let (old_cert, old_key) = ours.sign(dir.path(), "127.0.0.1", 2002);
    let (control_cert, control_key) = ours.sign(dir.path(), "control", VALID);
    let tls = |name: &str, cert: &str, key: &str| {
        worker(name, &storage).set("FLUX__WORKER__TLS_CERT_FILE", cert).set("FLUX__WORKER__TLS_KEY_FILE", key)
    };
    let mutual = tls("mutual", &cert, &key).set("FLUX__WORKER__TLS_CLIENT_CA_FILE", &ca).server().await;
    let expired = tls("expired", &old_cert, &old_key).server().await;
    let nodes = format!("{},{}", mutual.address(), expired.address());

    let unknown = control(&storage, &nodes).set("FLUX__WORKERS__TLS_CA_FILE", &other_ca).server().await;
    let nameless = control(&storage, &nodes).set("FLUX__WORKERS__TLS_CA_FILE", &ca).server().await;
    for control in [&unknown, &nameless] {
        let refused = shown(control, mutual.address(), "refused").await;
        assert!(refused["reason"].as_str().unwrap().contains("not authorised"), "{refused:#}");
    }
    let known = control(&storage, &nodes)
        .set("FLUX__WORKERS__TLS_CA_FILE", &ca)
        .set("FLUX__WORKERS__TLS_CERT_FILE", &control_cert)
        .set("FLUX__WORKERS__TLS_KEY_FILE", &control_key)
        .server()
        .await;
    let refused = shown(&known, expired.address(), "refused").await;
    assert!(refused["reason"].as_str().unwrap().contains("expired"), "{refused:#}");
    shown(&known, mutual.address(), "ready").await;
    completes(&known).await;
}

#[tokio::test]
async fn one_that_never_answers_and_one_that_is_nowhere_delay_nobody() {
    let (_dir, storage) = shared();
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hole_address = hole.local_addr().unwrap().to_string();
    let good = worker("good", &storage).server().await;
    let nodes = format!("{hole_address},nowhere.invalid:50051,{}", good.address());
    let control = control(&storage, &nodes)
        .set("FLUX__WORKERS__TRUSTED_NETWORK", "true")
        .set("FLUX__WORKERS__DNS", "nowhere.invalid:1")
        .server()
        .await;
    shown(&control, good.address(), "ready").await;
    completes(&control).await;
    let unreachable = shown(&control, &hole_address, "unreachable").await;
    assert!(unreachable["reason"].as_str().is_some() || unreachable["last_seen"].is_string());
    let nowhere = shown(&control, "nowhere.invalid:50051", "unreachable").await;
    assert!(nowhere["reason"].as_str().unwrap().contains("dns"), "{nowhere:#}");
    assert!(control.log().contains("workers.dns does not resolve"));
}

#[tokio::test]
async fn a_name_stands_for_its_addresses() {
    let (_dir, storage) = shared();
    let good = worker("good", &storage).server().await;
    let port = good.address().rsplit_once(':').unwrap().1.to_owned();
    let control = control(&storage, "").set("FLUX__WORKERS__DNS", format!("localhost:{port}")).server().await;
    let worker = shown(&control, good.address(), "ready").await;
    assert_eq!(worker["found"], "dns");
}

#[tokio::test]
async fn one_worker_under_two_addresses_is_used_once() {
    let (_dir, storage) = shared();
    let good = worker("good", &storage).server().await;
    let port = good.address().rsplit_once(':').unwrap().1.to_owned();
    let nodes = format!("{},localhost:{port}", good.address());
    let control = control(&storage, &nodes).server().await;
    eventually("one of them is put aside", async || {
        let states: Vec<_> = workers(&control).await.iter().map(|w| w["state"].to_string()).collect();
        (states.contains(&"\"ready\"".to_owned()) && states.contains(&"\"refused\"".to_owned())).then_some(())
    })
    .await;
    completes(&control).await;
}

#[tokio::test]
async fn two_workers_of_one_name_both_work() {
    let (_dir, storage) = shared();
    let (a, b) = (worker("twin", &storage).server().await, worker("twin", &storage).server().await);
    let control = control(&storage, &format!("{},{}", a.address(), b.address())).server().await;
    shown(&control, a.address(), "ready").await;
    shown(&control, b.address(), "ready").await;
    let ids =
        [control.submit(&job_for(&clips::mp4(1))).await, control.submit(&job_for(&clips::mp4(1))).await];
    for id in &ids {
        assert_eq!(control.finished(id).await["status"], "completed");
    }
    eventually("it is said", async || control.log().contains("two workers have one name").then_some(()))
        .await;
}

#[tokio::test]
async fn a_worker_with_a_storage_of_its_own_gets_no_task() {
    let ((_dir, storage), (_other, own)) = (shared(), shared());
    let (apart, good) = (worker("apart", &own).server().await, worker("good", &storage).server().await);
    let control = control(&storage, &format!("{},{}", apart.address(), good.address())).server().await;
    let refused = shown(&control, apart.address(), "refused").await;
    assert!(refused["reason"].as_str().unwrap().contains("storage.url"), "{refused:#}");
    shown(&control, good.address(), "ready").await;
    let job = completes(&control).await;
    assert_eq!(job["attempts"][0]["worker_id"], "good");
    let left: Vec<_> = std::fs::read_dir(storage.trim_start_matches("file:")).unwrap().collect();
    assert_eq!(left.len(), 1, "only the job's folder: {left:?}");
}

#[tokio::test]
async fn what_clients_give_to_the_control_reaches_the_worker() {
    let (_dir, storage) = shared();
    let worker = worker("far", &storage).server().await;
    let control = control(&storage, worker.address()).server().await;
    shown(&control, worker.address(), "ready").await;
    let clip = std::fs::read(clips::mp4(1)).unwrap();
    let upload = json!({"filename": "a.mp4", "size": clip.len()});
    let (status, upload) = control.post("/api/v1/uploads", &upload).await;
    assert!(status.is_success(), "{upload:#}");
    let to = reqwest::Url::parse(&control.url).unwrap().join(upload["url"].as_str().unwrap()).unwrap();
    assert!(control.http.put(to).body(clip.clone()).send().await.unwrap().status().is_success());
    let inline = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &clip);
    for source in [json!({"kind": "upload", "id": upload["id"]}), json!({"kind": "inline", "data": inline})] {
        let mut body = job_for(&clips::mp4(1));
        body["source"] = source;
        let id = control.submit(&body).await;
        let job = control.finished(&id).await;
        assert_eq!(job["status"], "completed", "{job:#}");
    }
    worker.assert_clean().await;
}

#[tokio::test]
async fn what_is_not_safe_does_not_start() {
    let refused = async |start: Start, key: &str| {
        let log = start.try_server().await.err().unwrap().join("\n");
        assert!(log.contains(key), "{log}");
        log
    };
    let (_dir, storage) = shared();
    let open = worker("open", &storage).set("FLUX__WORKER__LISTEN", "0.0.0.0:0");
    let log = refused(open, "worker.listen").await;
    assert!(log.contains("worker.token") && log.contains("worker.tls_client_ca_file"), "{log}");
    let log = refused(control(&storage, "10.1.2.3:50051"), "workers.nodes[0]").await;
    assert!(log.contains("workers.tls") && log.contains("workers.trusted_network"), "{log}");
    let missing = worker("w", &storage)
        .set("FLUX__WORKER__TLS_CERT_FILE", "/nowhere/cert.pem")
        .set("FLUX__WORKER__TLS_KEY_FILE", "/nowhere/key.pem");
    let log = refused(missing, "worker.tls_cert_file").await;
    assert!(log.contains("worker.tls_key_file"), "both faults at once: {log}");
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_leaves_no_job_behind() {
    let (_dir, storage) = shared();
    let mut first = worker("first", &storage).set("FLUX__SERVER__DRAIN_TIMEOUT", "0s").server().await;
    let control = control(&storage, first.address()).server().await;
    shown(&control, first.address(), "ready").await;
    let id = control.submit(&job_for(&clips::mp4(20))).await;
    eventually("it runs", async || (control.job(&id).await["status"] == "running").then_some(())).await;
    assert_eq!(first.signal(Signal::TERM).await, Some(0));
    let job = eventually("it was given back", async || {
        let job = control.job(&id).await;
        (job["attempts"][0]["ended_at"].is_string()).then_some(job)
    })
    .await;
    assert_eq!(job["attempts"][0]["outcome"], "released", "{job:#}");
    let gone = shown(&control, first.address(), "unreachable").await;
    assert!(gone["reason"].as_str().unwrap().contains("refused"), "{gone:#}");
    let (status, cancelled) = control.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).await;
    assert_eq!(status, 200, "{cancelled:#}");
}

#[tokio::test]
async fn a_draining_worker_says_so_and_a_second_signal_ends_it_at_once() {
    let (_dir, storage) = shared();
    let mut worker = worker("slow", &storage).server().await;
    let control = control(&storage, worker.address()).server().await;
    shown(&control, worker.address(), "ready").await;
    // Long enough to be seen draining: the control looks every 3 s.
    let id = control.submit(&job_for(&clips::mp4(300))).await;
    eventually("it encodes", async || (control.job(&id).await["phase"] == "encoding").then_some(())).await;
    worker.send(Signal::TERM);
    shown(&control, worker.address(), "draining").await;
    let since = std::time::Instant::now();
    assert_eq!(worker.signal(Signal::INT).await, Some(0));
    assert!(since.elapsed().as_secs() < 5, "{:?}", since.elapsed());
    worker.assert_clean().await;
    let (status, cancelled) = control.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).await;
    assert_eq!(status, 200, "{cancelled:#}");
}

//! Webhooks of real servers to real receivers.

use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::postgres::Database;
use crate::support::receiver::{Answer, Got, Receiver};
use crate::support::server::{Role, Server, Start, flux, job_for};
use crate::support::{clips, eventually};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// The next one, during a rotation.
const NEXT: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
/// Nobody's.
const STRANGER: &str = "whsec_ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ";

fn start(role: Role) -> Start {
    Start::role(role)
        .set("FLUX__WEBHOOKS__SECRET", SECRET)
        .set("FLUX__WEBHOOKS__SECRETS", NEXT)
        .set("FLUX__WEBHOOKS__ALLOW", "127.0.0.1")
        .set("FLUX__WEBHOOKS__TIMEOUT", "2s")
}

/// A job that waits for ever on a control without workers, to be cancelled.
fn waiting(url: &str) -> Value {
    let mut job = job_for(&clips::mp4(1));
    job["notification_url"] = url.into();
    job
}

async fn cancel(server: &Server, id: &str) {
    let (status, job) = server.post(&format!("/api/v1/jobs/{id}/cancel"), &Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{job:#}");
}

async fn deliveries(server: &Server, id: &str) -> Vec<Value> {
    let (status, found) = server.get(&format!("/api/v1/jobs/{id}/deliveries")).await;
    assert_eq!(status, StatusCode::OK, "{found:#}");
    found["deliveries"].as_array().unwrap().clone()
}

async fn came(receiver: &Receiver, n: usize) -> Vec<Got> {
    let what = format!("{n} messages come");
    eventually(&what, async || Some(receiver.got()).filter(|got| got.len() >= n)).await
}

#[tokio::test]
async fn a_job_tells_its_whole_life_and_shows_no_address() {
    let receiver = Receiver::start(Answer::Status(204)).await;
    let server = start(Role::All).server().await;
    let id = server.submit(&waiting(&receiver.url())).await;
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    let got = came(&receiver, 3).await;
    let types: Vec<_> = got.iter().map(|got| got.json()["type"].clone()).collect();
    for event in ["job.started", "output.completed", "job.completed"] {
        assert!(types.contains(&event.into()), "{types:?}");
    }
    assert!(got.iter().all(|got| got.path == "/hook?key=canary"));
    let last = got.iter().find(|got| got.json()["type"] == "job.completed").unwrap().json();
    assert_eq!((&last["data"]["id"], &last["data"]["run"]), (&id.as_str().into(), &1.into()));
    let mut result = job["outputs"][0]["result"].clone();
    // The longest part of a result is told where it is asked for.
    result["command"] = Value::Null;
    assert_eq!(last["data"]["outputs"][0]["result"], result);
    let all = eventually("all are crossed off", async || {
        Some(deliveries(&server, &id).await).filter(|all| all.iter().all(|d| d["state"] == "delivered"))
    })
    .await;
    assert_eq!(all.len(), 3, "{all:#?}");
    // The address is a secret: it went to its receiver and nowhere else.
    let shown =
        format!("{all:?}{job}{}{}", server.log(), got.iter().map(|g| g.body.clone()).collect::<String>());
    assert!(!shown.contains("canary") && !shown.contains(SECRET), "{shown}");
    let metrics =
        server.http.get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("flux_webhook_tries_total{outcome=\"delivered\"} 3"), "{metrics}");
    assert!(!metrics.contains("canary"));
    let stream = format!("{}/api/v1/jobs/{id}/stream", server.url);
    let history = server.http.get(stream).send().await.unwrap().text().await.unwrap();
    assert!(history.contains("completed") && !history.contains("canary"), "{history}");
    for file in std::fs::read_dir(server.data()).unwrap().flatten().filter(|file| file.path().is_file()) {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"), "{:?}", file.path());
    }
}

#[tokio::test]
async fn killed_between_state_and_delivery_the_next_start_delivers() {
    let receiver = Receiver::start(Answer::Hang).await;
    let mut server = start(Role::Control).server().await;
    let mut ids = Vec::new();
    // One is on its way to a receiver that nobody knows, the others wait.
    for _ in 0..3 {
        ids.push(server.submit(&waiting(&receiver.url())).await);
    }
    for id in &ids {
        cancel(&server, id).await;
    }
    server.kill();
    receiver.answer(Answer::Status(200));
    let before = receiver.got();
    let server = server.again().await;
    for id in &ids {
        let told = |got: &Got| got.json()["data"]["id"] == id.as_str();
        let got = eventually("it is told", async || {
            receiver.got()[before.len()..].iter().find(|got| told(got)).cloned()
        })
        .await;
        assert_eq!(got.json()["type"], "job.cancelled");
        // What went out before the crash came again as it was.
        for early in before.iter().filter(|got| told(got)) {
            assert_eq!((early.id(), &early.body), (got.id(), &got.body));
        }
        eventually("it is crossed off", async || {
            (deliveries(&server, id).await[0]["state"] == "delivered").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn two_controls_make_each_try_once() {
    let (database, receiver) = (Database::new().await, Receiver::start(Answer::Status(204)).await);
    let key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let control = || {
        let start = start(Role::Control).set("FLUX__STORE__URL", &database.url);
        start.set("FLUX__SECRETS__KEYS", key).server()
    };
    let (a, b) = tokio::join!(control(), control());
    let mut ids = Vec::new();
    for n in 0..30 {
        let server = if n % 2 == 0 { &a } else { &b };
        ids.push(server.submit(&waiting(&receiver.url())).await);
    }
    for (n, id) in ids.iter().enumerate() {
        cancel(if n % 3 == 0 { &a } else { &b }, id).await;
    }
    for id in &ids {
        eventually("it is crossed off", async || {
            (deliveries(&a, id).await[0]["state"] == "delivered").then_some(())
        })
        .await;
    }
    let got = receiver.got();
    let mut seen: Vec<_> = got.iter().map(|got| got.id().to_owned()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!((got.len(), seen.len()), (30, 30), "each once\n{}\n{}", a.log(), b.log());
}

#[tokio::test]
async fn receivers_that_fail_delay_nobody_and_are_asked_again() {
    let good = Receiver::start(Answer::Status(200)).await;
    let hanging = Receiver::start(Answer::Hang).await;
    let dropping = Receiver::start(Answer::Drop).await;
    let moved = Receiver::start(Answer::Status(302)).await;
    let gone = Receiver::start(Answer::Status(410)).await;
    let server = start(Role::Control).server().await;
    let mut jobs = Vec::new();
    for receiver in
        [&hanging, &hanging, &hanging, &hanging, &hanging, &hanging, &dropping, &moved, &gone, &good]
    {
        let id = server.submit(&waiting(&receiver.url())).await;
        cancel(&server, &id).await;
        jobs.push(id);
    }
    came(&good, 1).await;
    let tried = |n: usize, error: &'static str| {
        let (server, id) = (&server, &jobs[n]);
        eventually(error, async move || {
            let delivery = deliveries(server, id).await.remove(0);
            (delivery["last"]["error"] == error).then_some(delivery)
        })
    };
    assert_eq!(tried(6, "unreachable").await["state"], "waiting");
    assert_eq!(tried(7, "redirected").await["last"]["status"], 302);
    assert_eq!(tried(8, "gone").await["state"], "gone");
    assert_eq!(tried(0, "timed_out").await["state"], "waiting");
    // The receiver is back and somebody does not want to wait.
    dropping.answer(Answer::Status(200));
    let id = deliveries(&server, &jobs[6]).await[0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/jobs/{}/deliveries/{id}/redeliver", jobs[6]);
    let (status, body) = server.post(&path, &Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body:#}");
    eventually("it is delivered", async || {
        (deliveries(&server, &jobs[6]).await[0]["state"] == "delivered").then_some(())
    })
    .await;
    let ids: Vec<_> = dropping.got().iter().map(|got| got.id().to_owned()).collect();
    assert!(ids.len() >= 2 && ids.iter().all(|seen| *seen == id), "{ids:?}");
}

#[tokio::test]
async fn receivers_that_hang_from_the_start_leave_room_for_the_others() {
    // Not one of those that hang gives its place back while this test lasts.
    let server = start(Role::Control).set("FLUX__WEBHOOKS__TIMEOUT", "1min").server().await;
    let mut hanging = Vec::new();
    for _ in 0..12 {
        hanging.push(Receiver::start(Answer::Hang).await);
    }
    let good = Receiver::start(Answer::Status(204)).await;
    let mut first = Vec::new();
    for receiver in &hanging {
        for _ in 0..4 {
            let id = server.submit(&waiting(&receiver.url())).await;
            cancel(&server, &id).await;
            first.push(id);
        }
    }
    let held = || hanging.iter().map(|receiver| receiver.got().len()).sum::<usize>();
    eventually("those that hang have what they may", async || (held() == 12).then_some(())).await;
    for _ in 0..20 {
        let id = server.submit(&waiting(&good.url())).await;
        cancel(&server, &id).await;
    }
    came(&good, 20).await;
    assert_eq!(held(), 12, "one place each");
    for id in &first {
        let delivery = deliveries(&server, id).await.remove(0);
        assert!(delivery["last"].is_null() && delivery["state"] == "waiting", "{delivery:#}");
    }
}

#[tokio::test]
async fn private_addresses_are_not_called_unless_allowed() {
    let receiver = Receiver::start(Answer::Status(200)).await;
    let server = start(Role::Control).set("FLUX__WEBHOOKS__ALLOW", "").server().await;
    let id = server.submit(&waiting(&receiver.url())).await;
    cancel(&server, &id).await;
    let delivery = eventually("it is tried", async || {
        Some(deliveries(&server, &id).await.remove(0)).filter(|delivery| delivery["last"].is_object())
    })
    .await;
    assert_eq!(delivery["last"]["error"], "blocked");
    assert!(receiver.got().is_empty());
}

#[tokio::test]
async fn wishes_are_checked_and_nothing_is_promised_without_a_secret() {
    let database = Database::new().await;
    let server = Start::role(Role::Control)
        .set("FLUX__STORE__URL", &database.url)
        .set("FLUX__SECRETS__KEYS", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=")
        .server()
        .await;
    let (status, problem) = server.post("/api/v1/jobs", &waiting("https://h.example/")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(problem["detail"].as_str().unwrap().contains("webhooks.secret"), "{problem:#}");
    let mut body = waiting("https://h.example/");
    body["notification_events"] = json!(["job.completed", "job.exploded"]);
    let (_, problem) = server.post("/api/v1/jobs", &body).await;
    assert_eq!(problem["errors"][0]["pointer"], "/notification_events/1", "{problem:#}");
    let mut body = job_for(&clips::mp4(1));
    body["notification_events"] = json!(["job.completed"]);
    let (_, problem) = server.post("/api/v1/jobs", &body).await;
    assert_eq!(problem["errors"][0]["pointer"], "/notification_events", "{problem:#}");
}

#[tokio::test]
async fn official_libraries_accept_what_is_sent_and_nothing_else() {
    let receiver = Receiver::start(Answer::Status(200)).await;
    let server = start(Role::Control).server().await;
    let id = server.submit(&waiting(&receiver.url())).await;
    cancel(&server, &id).await;
    let good = came(&receiver, 1).await.remove(0);
    let tampered = Got { body: good.body.replace("cancelled", "completed"), ..good.clone() };
    let mut renamed = good.clone();
    renamed.headers.insert("webhook-id".into(), "another".into());
    for library in [python, javascript] {
        for secret in [SECRET, NEXT] {
            assert!(library(secret, &good), "what was sent");
            assert!(!library(secret, &tampered), "another body");
            assert!(!library(secret, &renamed), "another id");
        }
        assert!(!library(STRANGER, &good), "another secret");
    }
}

fn libraries() -> PathBuf {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let below_home = || set("HOME").unwrap().join(".cache");
    let below_cache = || set("XDG_CACHE_HOME").unwrap_or_else(below_home).join("flux/webhook-libraries-1");
    let folder = set("FLUX_WEBHOOK_LIBRARIES").unwrap_or_else(below_cache);
    assert!(folder.join("complete").exists(), "run scripts/ensure-webhook-libraries.sh (`make test` does)");
    folder
}

/// 0 = accepted, 3 = refused; anything else is a broken library.
fn verdict(mut command: Command, secret: &str, got: &Got) -> bool {
    let headers: serde_json::Map<_, _> =
        got.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let input = json!({"secret": secret, "headers": headers, "body": got.body}).to_string();
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    match ended.status.code() {
        Some(0) => true,
        Some(3) => false,
        _ => panic!("{}", String::from_utf8_lossy(&ended.stderr)),
    }
}

fn python(secret: &str, got: &Got) -> bool {
    let script = "import json, sys\nfrom standardwebhooks.webhooks import Webhook, WebhookVerificationError\n\
                  m = json.load(sys.stdin)\n\
                  try: Webhook(m['secret']).verify(m['body'], m['headers'])\n\
                  except WebhookVerificationError: sys.exit(3)\n";
    #[expect(clippy::disallowed_methods, reason = "somebody else's library checks what we send")]
    let mut command = Command::new(libraries().join("python/bin/python"));
    command.args(["-c", script]);
    verdict(command, secret, got)
}

fn javascript(secret: &str, got: &Got) -> bool {
    let script = "const { Webhook, WebhookVerificationError } = require('standardwebhooks');\n\
                  const m = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n\
                  try { new Webhook(m.secret).verify(m.body, m.headers); }\n\
                  catch (e) { if (e instanceof WebhookVerificationError) process.exit(3); throw e; }\n";
    #[expect(clippy::disallowed_methods, reason = "somebody else's library checks what we send")]
    let mut command = Command::new("node");
    command.args(["-e", script]).current_dir(libraries());
    verdict(command, secret, got)
}

#[tokio::test]
async fn the_command_line_receives_lists_and_sends_again() {
    let server = Start::role(Role::Control).set("FLUX__WEBHOOKS__ALLOW", "127.0.0.1").server().await;
    // With the secret that the server made for itself.
    let mut command = listen();
    command.arg("--data-dir").arg(server.data());
    let mut listener = Listener::start(command);
    let id = server.submit(&waiting(&listener.url)).await;
    cancel(&server, &id).await;
    let first = listener.line().await;
    assert!(first.contains("job.cancelled") && first.contains(&id), "{first}");
    let run = |arguments: &[&str]| {
        let output = flux(arguments).env("FLUX_URL", &server.url).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = eventually("it is crossed off", async || {
        Some(run(&["webhooks", "list", &id])).filter(|listed| listed.contains("delivered"))
    })
    .await;
    let delivery = listed.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert_eq!(run(&["webhooks", "redeliver", &id]), "", "every one was taken");
    assert!(run(&["webhooks", "redeliver", &id, &delivery]).contains("waiting"));
    assert_eq!(listener.line().await, first);
    assert!(run(&["webhooks", "secret"]).starts_with("whsec_"));
}

#[tokio::test]
async fn the_command_line_takes_secrets_from_files_and_the_environment_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secrets");
    std::fs::write(&file, format!("{NEXT}\n")).unwrap();
    let by_file = || {
        let mut command = listen();
        // What is said explicitly counts, and here only one of the two is the server's.
        command.arg("--secret-file").arg(&file).env("FLUX_WEBHOOK_SECRET", STRANGER);
        command
    };
    let by_environment = || {
        let mut command = listen();
        command.env("FLUX_WEBHOOK_SECRET", format!("{STRANGER},{SECRET}"));
        command
    };
    let server = start(Role::Control).server().await;
    for command in [by_file(), by_environment()] {
        let mut listener = Listener::start(command);
        let id = server.submit(&waiting(&listener.url)).await;
        cancel(&server, &id).await;
        let line = listener.line().await;
        assert!(line.contains(&id), "{line}");
    }
    let refused = flux(&["webhooks", "listen", "--secret", SECRET]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
}

/// `flux webhooks listen` on a free port.
fn listen() -> Command {
    let mut command = flux(&["webhooks", "listen", "--listen", "127.0.0.1:0"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A listening process, which ends with its test.
struct Listener {
    url: String,
    child: Child,
    out: Option<Lines<BufReader<ChildStdout>>>,
}

impl Listener {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = said.next().unwrap().unwrap();
        let url = said.split_whitespace().find(|word| word.starts_with("http")).unwrap();
        let url = url.trim_end_matches(';').to_owned();
        let out = Some(BufReader::new(child.stdout.take().unwrap()).lines());
        Self { url, child, out }
    }

    /// The next message that it prints.
    async fn line(&mut self) -> String {
        let mut out = self.out.take().unwrap();
        let read = tokio::task::spawn_blocking(move || (out.next().unwrap().unwrap(), out));
        let (line, out) = read.await.unwrap();
        self.out = Some(out);
        line
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

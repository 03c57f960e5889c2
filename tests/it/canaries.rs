//! A secret of its own in every place where requests and settings may have one, and a search of everything that anybody
//! else can read: logs at their fullest, answers, events, webhooks, files, command lines, environments, metrics.

use std::sync::Mutex;

use serde_json::{Value, json};

use crate::support::canary::Canaries;
use crate::support::echo::Echo;
use crate::support::ftp::FtpServer;
use crate::support::inbox::Inbox;
use crate::support::origin::{Fault, Origin};
use crate::support::receiver::{Answer, Receiver};
use crate::support::s3::{BUCKET, KEY_ID, S3Server, SECRET};
use crate::support::server::{Role, Server, Start, flux};
use crate::support::{clips, eventually};

/// Nobody listens there.
const CLOSED: &str = "127.0.0.1:1";
/// Larger files are searched once, at the end.
const SMALL: u64 = 1 << 20;

/// Everybody that jobs are to talk to.
struct Others {
    origin: Origin,
    hanging: Origin,
    moved: Origin,
    bucket: S3Server,
    ftp: FtpServer,
    refusing: Echo,
    failing: Echo,
    inbox: Inbox,
    receiver: Receiver,
}

impl Others {
    async fn start(canaries: &Canaries) -> Self {
        let clip = std::fs::read(clips::mp4(2)).unwrap();
        let half = clip.len() / 2;
        let elsewhere = format!("http://{CLOSED}/x.mp4?sig={}", canaries.of("redirect"));
        let bucket = S3Server::start().await;
        bucket.put("clip.mp4", &clip);
        let ftp = FtpServer::start();
        ftp.put("clip.mp4", &clip);
        Self {
            origin: Origin::start(clip.clone(), Fault::None).await,
            hanging: Origin::start(clip, Fault::HangsAfter(half)).await,
            moved: Origin::start(Vec::new(), Fault::Redirect(elsewhere)).await,
            bucket,
            ftp,
            refusing: Echo::start(403).await,
            failing: Echo::start(500).await,
            inbox: Inbox::start(&[201]).await,
            receiver: Receiver::start(Answer::Status(204)).await,
        }
    }

    /// Sources that can be read.
    fn good_sources(&self, canaries: &Canaries) -> Vec<Value> {
        let c = |place| canaries.of(place);
        let url = self.origin.url().replace("http://", "");
        vec![
            json!({"kind": "http", "url": format!("http://{}:{}@{url}?sig={}%2F", c("source user"),
                c("source password"), c("source query")), "headers": {"X-Api-Key": c("source header")}}),
            json!({"kind": "http", "url": format!("http://{url}?a={}", c("source query")),
                "headers": {"Authorization": format!("Bearer {}", c("source authorization"))}}),
            json!({"kind": "s3", "endpoint": self.bucket.endpoint, "bucket": BUCKET, "path": "clip.mp4",
                "access_key_id": KEY_ID, "access_key_secret": SECRET}),
            json!({"kind": "ftp", "url": self.ftp.url("clip.mp4")}),
        ]
    }

    /// Sources that are refused, fail, or have nobody that answers.
    fn bad_sources(&self, canaries: &Canaries) -> Vec<Value> {
        let c = |place| canaries.of(place);
        let mut sources = vec![
            json!({"kind": "ftp", "url": format!("ftp://flux:{}@{}/clip.mp4", c("ftp password"), self.ftp.address())}),
            json!({"kind": "ftp", "url": format!("ftp://{CLOSED}/clip.mp4"), "username": c("ftp user"),
                "password": c("ftp password")}),
            json!({"kind": "http", "url": format!("{}?a={}", self.moved.url(), c("source query")),
                "headers": {"Cookie": c("source cookie")}}),
            json!({"kind": "s3", "endpoint": self.bucket.endpoint, "bucket": BUCKET, "path": "clip.mp4",
                "access_key_id": KEY_ID, "secret_access_key": c("s3 secret")}),
        ];
        for at in [self.refusing.address().to_string(), self.failing.address().to_string(), CLOSED.to_owned()]
        {
            sources.push(
                json!({"kind": "http", "url": format!("http://{}:{}@{at}/clip.mp4?sig={}", c("source user"),
                c("source password"), c("source query")), "headers": {"X-Api-Key": c("source header")}}),
            );
            sources.extend(buckets(&at, canaries));
        }
        sources
    }

    fn destinations(&self, canaries: &Canaries) -> Vec<Value> {
        let c = |place| canaries.of(place);
        let inbox = self.inbox.url("/in/{job_id}.mp4");
        let mut destinations = vec![
            json!({"kind": "http", "url": format!("{inbox}?sig={}", c("destination query")),
                "headers": {"Authorization": c("destination authorization"), "X-Key": c("destination header")}}),
            json!({"kind": "ftp", "url": format!("ftp://flux:{}@{}/o.mp4", c("ftp password"), self.ftp.address())}),
            json!({"kind": "s3", "profile": "archive", "bucket": BUCKET, "path": "x/{job_id}.mp4"}),
            json!({"kind": "s3", "endpoint": self.bucket.endpoint, "bucket": BUCKET, "path": "y/{job_id}.mp4",
                "access_key_id": KEY_ID, "secret_access_key": c("s3 secret")}),
        ];
        for at in [self.refusing.address().to_string(), self.failing.address().to_string(), CLOSED.to_owned()]
        {
            destinations.push(
                json!({"kind": "http", "method": "POST", "url": format!("http://{}:{}@{at}/o?sig={}",
                c("destination user"), c("destination password"), c("destination query")),
                "headers": {"X-Key": c("destination header")}}),
            );
            destinations.extend(buckets(&at, canaries));
        }
        destinations
    }
}

/// Places in buckets of every kind at a server that is none.
fn buckets(at: &str, canaries: &Canaries) -> Vec<Value> {
    let c = |place| canaries.of(place);
    let endpoint = format!("http://{at}");
    let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, c("account key"));
    let with = |mut place: Value, more: Value| {
        let fields = more.as_object().unwrap().clone();
        place.as_object_mut().unwrap().extend(fields);
        place
    };
    let gcs = json!({"kind": "gcs", "bucket": BUCKET, "path": "clip.mp4", "endpoint": endpoint});
    let azure = json!({"kind": "azure", "account": "acc", "container": BUCKET, "path": "clip.mp4",
        "endpoint": format!("{endpoint}/acc")});
    vec![
        json!({"kind": "s3", "endpoint": endpoint, "bucket": BUCKET, "path": "clip.mp4",
            "access_key_id": c("s3 key id"), "access_key_secret": c("s3 secret"), "session_token": c("s3 token")}),
        with(gcs, json!({"access_token": c("gcs token")})),
        with(azure.clone(), json!({"sas_token": format!("?sv=2021-12-02&sig={}%2B", c("sas"))})),
        with(azure.clone(), json!({"account_key": key})),
        with(azure, json!({"access_token": c("azure token")})),
    ]
}

/// A job of these two, which tells somebody or tries to.
fn job(source: &Value, destination: &Value, hook: &str) -> Value {
    json!({"source": source, "outputs": [{"preset": "proxy_360p", "destination": destination}],
           "notification_url": hook})
}

/// Waits until a job ended or was tried once; then it need not be tried again.
async fn tried(server: &Server, id: &str) {
    eventually(&format!("{} is tried", server.job(id).await), async || {
        let job = server.job(id).await;
        let failed = |attempt: &Value| attempt["outcome"] == "failed";
        let over = job["finished_at"].is_string();
        let tried = job["attempts"].as_array().is_some_and(|attempts| attempts.iter().any(failed));
        (over || tried).then_some(())
    })
    .await;
    server.post(&format!("/api/v1/jobs/{id}/cancel"), &Value::Null).await;
    server.finished(id).await;
}

async fn text(server: &Server, path: &str) -> String {
    server.http.get(format!("{}{path}", server.url)).send().await.unwrap().text().await.unwrap()
}

/// What the stream of all jobs begins with.
async fn snapshot(server: &Server) -> String {
    let mut stream = server.http.get(format!("{}/api/v1/events", server.url)).send().await.unwrap();
    let mut told = Vec::new();
    while !told.windows(2).any(|window| window == b"\n\n") {
        told.extend(stream.chunk().await.unwrap().expect("it goes on"));
    }
    String::from_utf8(told).unwrap()
}

/// Looks at processes and small files as long as it is polled.
struct Watch<'a> {
    canaries: &'a Canaries,
    server: &'a Server,
    found: Mutex<Vec<String>>,
    commands: Mutex<String>,
}

impl Watch<'_> {
    fn look(&self) {
        let mut found = self.canaries.found_below(&self.server.data(), SMALL);
        for pid in self.server.children().into_iter().chain([self.server.pid()]) {
            for file in ["cmdline", "environ"] {
                let path = format!("/proc/{pid}/{file}");
                let bytes = std::fs::read(&path).unwrap_or_default();
                found.extend(self.canaries.found(&path, &bytes));
                if file == "cmdline" {
                    *self.commands.lock().unwrap() += &String::from_utf8_lossy(&bytes);
                }
            }
        }
        self.found.lock().unwrap().extend(found);
    }

    async fn watch(&self) -> std::convert::Infallible {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            tick.tick().await;
            self.look();
        }
    }

    fn saw(&self, word: &str) -> bool {
        self.commands.lock().unwrap().contains(word)
    }
}

/// Bodies that are refused: what is wrong is said and not repeated.
fn refused(canaries: &Canaries) -> Vec<Value> {
    let c = |place| canaries.of(place);
    let stored = json!({"kind": "storage", "path": "o.mp4"});
    let source = json!({"kind": "storage", "path": "in.mp4"});
    let both = |source: &Value, destination: &Value| json!({"source": source, "outputs": [{"preset": "proxy_360p", "destination": destination}]});
    let place = json!({"kind": "s3", "bucket": BUCKET, "path": "k", "access_key_id": c("refused id")});
    let unknown = json!({"kind": "s3", "bucket": BUCKET, "path": "k", "secret_key": c("unknown field")});
    let twice = json!({"kind": "s3", "bucket": BUCKET, "path": "k", "access_key_id": c("refused id"),
        "secret_access_key": c("refused secret"), "access_key_secret": c("refused secret")});
    let endpoint = json!({"kind": "s3", "bucket": BUCKET, "path": "k", "endpoint": format!("http://u:{}@h/", c("endpoint"))});
    let account = |service_account: Value| json!({"kind": "gcs", "bucket": BUCKET, "path": "k", "service_account": service_account});
    let broken = account(c("broken account").into());
    let no_key = account(json!({
        "type": "service_account", "client_email": format!("{}@p", c("client email")),
        "private_key": format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", c("private key")),
        "private_key_id": c("private key id"),
    }));
    let header = json!({"kind": "http", "url": "http://h/", "headers": {"Host": c("refused header")}});
    let url =
        json!({"kind": "http", "url": format!("gopher://u:{}@h/?k={}", c("refused url"), c("refused url"))});
    let login =
        json!({"kind": "ftp", "url": format!("ftp://u:{}@h/x", c("ftp login")), "username": c("ftp login")});
    let blocked = json!({"kind": "http", "url": format!("http://10.0.0.1/x?k={}", c("blocked"))});
    let mut bodies: Vec<_> = [place, unknown, twice, endpoint, broken, no_key, header, url, login, blocked]
        .into_iter()
        .flat_map(|bad| [both(&bad, &stored), both(&source, &bad)])
        .collect();
    bodies.push(job(&source, &stored, &format!("ftp://{}@h/", c("hook"))));
    bodies.push(json!({"input_url": format!("s3://AK:{}@b/k", c("input_url")), "preset": "720p_h264",
        "output": {"path": "a.mp4"}}));
    bodies
}

/// A server whose settings have secrets as well, and whose log is full.
async fn server(others: &Others, canaries: &Canaries) -> Server {
    let c = |place| canaries.of(place);
    let signing = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        format!("{:0<32}", c("webhook secret")),
    );
    let settings = format!(
        "[webhooks]\nsecret = \"whsec_{signing}\"\nallow = [\"127.0.0.1\"]\ntimeout = \"2s\"\n\
         [storage.profiles.archive]\nkind = \"s3\"\nendpoint = \"http://{}\"\naccess_key_id = \"AK\"\n\
         secret_access_key = \"{}\"\nsession_token = \"{}\"\n",
        others.refusing.address(),
        c("profile secret"),
        c("profile token"),
    );
    // Most jobs only wait for servers that do not answer.
    let start = Start::default().file(&settings).set("FLUX__LOG__LEVEL", "trace");
    start.set("FLUX__WORKER__SLOTS", "32").set("FLUX__SOURCES__RETRIES", "0").server().await
}

/// What somebody was answered, and to what.
type Answers = Vec<(&'static str, String)>;

async fn refusals(server: &Server, canaries: &Canaries) -> Answers {
    let mut answers = Vec::new();
    for body in refused(canaries) {
        let (status, answer) = server.post("/api/v1/jobs", &body).await;
        assert_eq!(status, 422, "{body} {answer:#}");
        answers.push(("problem", answer.to_string()));
    }
    let broken =
        format!("{{\"source\": {{\"kind\": \"s3\", \"access_key_secret\": \"{}", canaries.of("broken JSON"));
    let request = server.http.post(format!("{}/api/v1/jobs", server.url)).body(broken);
    let answer = request.header("content-type", "application/json").send().await.unwrap();
    answers.push(("malformed", answer.text().await.unwrap()));
    answers
}

/// All that is told of these jobs, by the API and on the command line.
async fn told(server: &Server, ids: &[String]) -> Answers {
    let mut answers = vec![("events", snapshot(server).await)];
    for path in
        ["/api/v1/jobs?limit=100", "/jobs", "/metrics", "/api/v1/workers", "/workers", "/api/v1/presets"]
    {
        answers.push(("list", text(server, path).await));
    }
    for id in ids {
        for path in ["", "/log", "/stream", "/deliveries"] {
            answers.push(("job", text(server, &format!("/api/v1/jobs/{id}{path}")).await));
        }
        answers.push(("older job", text(server, &format!("/jobs/{id}")).await));
    }
    for arguments in [
        &["jobs"][..],
        &["jobs", "-o", "json"],
        &["job", &ids[0]],
        &["job", &ids[5], "-o", "json"],
        &["logs", &ids[4]],
        &["webhooks", "list", &ids[0]],
        &["workers"],
        &["config", "show"],
    ] {
        let output =
            flux(arguments).env("FLUX_URL", &server.url).current_dir(server.dir.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
        answers.push(("command line", String::from_utf8_lossy(&output.stdout).into_owned()));
        answers.push(("command line", String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    answers
}

#[tokio::test]
async fn no_secret_is_anywhere_but_where_it_is_meant_to_go() {
    let canaries = Canaries::new();
    let others = Others::start(&canaries).await;
    let server = server(&others, &canaries).await;
    let c = |place| canaries.of(place);
    let hooks =
        [others.receiver.address.to_string(), others.refusing.address().to_string(), CLOSED.to_owned()].map(
            |at| {
                format!("http://{}:{}@{at}/hook?key={}", c("hook user"), c("hook password"), c("hook query"))
            },
        );
    let stored = json!({"kind": "storage", "path": "{job_id}/out.mp4"});
    let local = json!({"kind": "file", "path": clips::mp4(1)});
    let mut bodies = Vec::new();
    for source in others.good_sources(&canaries).iter().chain(&others.bad_sources(&canaries)) {
        bodies.push(job(source, &stored, &hooks[bodies.len() % 3]));
    }
    for destination in others.destinations(&canaries) {
        bodies.push(job(&local, &destination, &hooks[bodies.len() % 3]));
    }
    let watch =
        Watch { canaries: &canaries, server: &server, found: Mutex::default(), commands: Mutex::default() };
    let mut answers = Vec::new();
    let work = async {
        let mut ids = Vec::new();
        for body in &bodies {
            let (status, answer) = server.post("/api/v1/jobs", body).await;
            assert_eq!(status, 202, "{answer:#}");
            ids.push(answer["id"].as_str().unwrap().to_owned());
            answers.push(("submission", answer.to_string()));
        }
        // A source that stops in its middle keeps its ffmpeg.
        let url = format!("{}?sig={}", others.hanging.url(), c("source query"));
        ids.push(server.submit(&job(&json!({"kind": "http", "url": url}), &stored, &hooks[0])).await);
        eventually("an ffmpeg is seen", async || watch.saw("ffmpeg").then_some(())).await;
        for id in ids.iter().rev() {
            tried(&server, id).await;
        }
        // One of each of the three receivers.
        for id in &ids[..3] {
            eventually("a webhook was tried", async || {
                let found = server.get(&format!("/api/v1/jobs/{id}/deliveries")).await.1;
                found["deliveries"][0]["last"].is_object().then_some(())
            })
            .await;
        }
        answers.extend(refusals(&server, &canaries).await);
        answers.extend(told(&server, &ids).await);
    };
    tokio::select! {
        () = work => {}
        never = watch.watch() => match never {},
    }
    answers.extend(others.receiver.got().into_iter().map(|got| ("webhook", got.body)));
    let mut found = watch.found.lock().unwrap().clone();
    for (what, answer) in &answers {
        found.extend(canaries.found(what, answer.as_bytes()));
    }
    for line in server.log().lines() {
        found.extend(canaries.found("log", line.as_bytes()));
    }
    found.extend(canaries.found_below(&server.data(), u64::MAX));
    // The search sees what is there: what may be told is in each kind of place.
    assert!(others.inbox.taken().iter().any(|taken| !canaries.found("", taken.head.as_bytes()).is_empty()));
    assert!(others.receiver.got().iter().any(|got| !canaries.found("", got.path.as_bytes()).is_empty()));
    assert!(!canaries.found_below(server.dir.path(), SMALL).is_empty(), "the settings hold some");
    assert!(server.log().contains("TRACE") && answers.iter().any(|(_, answer)| answer.contains("failed")));
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}

/// What a control sends to a worker goes over a network, through libraries that log a lot.
#[tokio::test]
async fn a_worker_apart_keeps_them_to_itself_as_well() {
    let canaries = Canaries::new();
    let others = Others::start(&canaries).await;
    let shared = tempfile::tempdir().unwrap();
    let token = canaries.of("worker token");
    let start = |role| {
        Start::role(role)
            .set("FLUX__STORAGE__URL", format!("file:{}", shared.path().display()))
            .set("FLUX__SOURCES__RETRIES", "0")
            .set("FLUX__LOG__LEVEL", "trace")
    };
    let worker = start(Role::Worker).set("FLUX__WORKER__TOKEN", &token).server().await;
    let control = start(Role::Control)
        .set("FLUX__WORKERS__NODES", worker.address())
        .set("FLUX__WORKERS__TOKEN", &token)
        .set("FLUX__WEBHOOKS__ALLOW", "127.0.0.1")
        .server()
        .await;
    let hook = format!("http://{}/hook?key={}", others.receiver.address, canaries.of("hook query"));
    let stored = json!({"kind": "storage", "path": "{job_id}/out.mp4"});
    let local = json!({"kind": "file", "path": clips::mp4(1)});
    let refusing = buckets(&others.refusing.address().to_string(), &canaries);
    let mut ids = Vec::new();
    for (source, destination) in [
        (&others.good_sources(&canaries)[0], &others.destinations(&canaries)[0]),
        (&refusing[0], &stored),
        (&local, &refusing[0]),
        (&local, &refusing[2]),
    ] {
        ids.push(control.submit(&job(source, destination, &hook)).await);
    }
    for id in &ids {
        tried(&control, id).await;
    }
    let mut found = Vec::new();
    for (who, server) in [("control", &control), ("worker", &worker)] {
        let log = server.log();
        assert!(log.contains("TRACE"), "{who}");
        for line in log.lines() {
            found.extend(canaries.found(who, line.as_bytes()));
        }
        found.extend(canaries.found_below(&server.data(), u64::MAX));
    }
    for id in &ids {
        found.extend(canaries.found("job", control.job(id).await.to_string().as_bytes()));
    }
    assert!(others.inbox.taken().iter().any(|taken| !canaries.found("", taken.head.as_bytes()).is_empty()));
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}

//! A real `flux serve` in a folder of its own, on a port of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use futures_util::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{PATIENCE, eventually};

/// A server process. Killed when dropped; a test that wants a clean end asks for it.
pub struct Server {
    child: Child,
    pub url: String,
    pub dir: Arc<tempfile::TempDir>,
    /// Where it works, its folder `data` included.
    folder: PathBuf,
    pub http: reqwest::Client,
    settings: BTreeMap<String, String>,
    role: Role,
    log: Arc<Mutex<Vec<String>>>,
}

/// What a process does.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    #[default]
    All,
    Control,
    /// Its `url` is where gRPC is served.
    Worker,
}

/// What a server is started with.
#[derive(Default, Clone)]
pub struct Start {
    settings: BTreeMap<String, String>,
    dir: Option<Arc<tempfile::TempDir>>,
    folder: Option<PathBuf>,
    role: Role,
}

impl Start {
    /// A process of this role only.
    pub fn role(role: Role) -> Self {
        Self { role, ..Self::default() }
    }

    /// Sets a key by its environment name, for example `FLUX__QUEUE__MAX_PENDING`.
    pub fn set(mut self, key: &str, value: impl Into<String>) -> Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    /// Puts a `flux.toml` where the server looks for it, in its own folder.
    pub fn file(self, text: &str) -> Self {
        let dir = self.dir.clone().unwrap_or_else(|| Arc::new(tempfile::tempdir().unwrap()));
        std::fs::write(dir.path().join("flux.toml"), text).unwrap();
        self.below(dir)
    }

    /// Uses a folder that was prepared.
    pub fn below(mut self, dir: Arc<tempfile::TempDir>) -> Self {
        self.dir = Some(dir);
        self
    }

    /// Works in this folder, which is somebody else's to remove.
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    pub async fn server(self) -> Server {
        self.try_server().await.unwrap_or_else(|log| panic!("the server did not start:\n{}", log.join("\n")))
    }

    /// The server, or what it wrote before it gave up.
    pub async fn try_server(self) -> Result<Server, Vec<String>> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = self.dir.unwrap_or_else(|| Arc::new(tempfile::tempdir().unwrap()));
        let folder = self.folder.unwrap_or_else(|| dir.path().to_owned());
        let mut settings = self.settings;
        let clips = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clips");
        // The first test of a fresh clone comes here before any clip is made, and roots must be there.
        std::fs::create_dir_all(&clips).unwrap();
        settings.entry("FLUX__SOURCES__ALLOW".into()).or_insert("127.0.0.0/8".into());
        settings.entry("FLUX__SOURCES__FILE_ROOTS".into()).or_insert(clips.display().to_string());
        let (role, listen, said) = match self.role {
            Role::All => ("all", "--listen", "listen"),
            Role::Control => ("control", "--listen", "listen"),
            Role::Worker => ("worker", "--grpc-listen", "grpc_listen"),
        };
        let mut command = flux(&["serve", "--role", role]);
        let chosen =
            ["FLUX__SERVER__LISTEN", "FLUX__WORKER__LISTEN"].iter().any(|key| settings.contains_key(*key));
        if !chosen {
            command.args([listen, "127.0.0.1:0"]);
        }
        command.arg("--data-dir").arg(folder.join("data")).current_dir(&folder).envs(&settings);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (ready, listening) = mpsc::channel();
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let record: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(listen) = record["fields"][said].as_str().or(record[said].as_str()) {
                    let _ = ready.send(listen.to_owned());
                }
                sink.lock().unwrap().push(line);
            }
        });
        let listen = tokio::task::spawn_blocking(move || listening.recv_timeout(PATIENCE)).await.unwrap();
        let Ok(listen) = listen else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(log.lock().unwrap().clone());
        };
        let http = reqwest::Client::builder()
            .no_proxy()
            // Well before the server closes a kept connection, or a request could meet its end.
            .pool_idle_timeout(std::time::Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Ok(Server {
            child,
            url: format!("http://{listen}"),
            dir,
            folder,
            http,
            settings,
            role: self.role,
            log,
        })
    }
}

/// The executable under test.
pub fn flux(arguments: &[&str]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "tests start the real executable")]
    let mut command = Command::new(env!("CARGO_BIN_EXE_flux"));
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

impl Server {
    pub async fn start() -> Self {
        Start::default().server().await
    }

    /// Another server on the same folder with the same settings.
    pub async fn again(self) -> Self {
        let (dir, folder) = (Some(Arc::clone(&self.dir)), Some(self.folder.clone()));
        let start = Start { settings: self.settings.clone(), dir, folder, role: self.role };
        drop(self);
        start.server().await
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// A signal.
    pub fn send(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// How it ended, once it has.
    pub fn exited(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// A signal, and the exit code that follows.
    pub async fn signal(&mut self, signal: rustix::process::Signal) -> Option<i32> {
        self.send(signal);
        eventually("the server exits", async || self.child.try_wait().unwrap()).await.code()
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap_or_default())
    }

    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let answer = self.http.post(format!("{}{path}", self.url)).json(body).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap_or_default())
    }

    /// Submits a job that must be accepted; its id.
    pub async fn submit(&self, body: &Value) -> String {
        let (status, job) = self.post("/api/v1/jobs", body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{job:#}");
        job["id"].as_str().unwrap().to_owned()
    }

    pub async fn job(&self, id: &str) -> Value {
        let (status, job) = self.get(&format!("/api/v1/jobs/{id}")).await;
        assert_eq!(status, StatusCode::OK, "{job:#}");
        job
    }

    /// Follows the job's stream to its end; the job then.
    pub async fn finished(&self, id: &str) -> Value {
        let stream = async {
            let url = format!("{}/api/v1/jobs/{id}/stream", self.url);
            let mut bytes = self.http.get(url).send().await.unwrap().bytes_stream();
            while let Some(Ok(_)) = bytes.next().await {}
        };
        tokio::time::timeout(PATIENCE, stream).await.expect("the job's stream never ended");
        let job = self.job(id).await;
        assert!(matches!(job["status"].as_str(), Some("completed" | "failed" | "cancelled")), "{job:#}");
        job
    }

    /// Submits a file below the clips' root for the smallest, fastest preset.
    pub async fn encode(&self, clip: &Path) -> Value {
        let id = self.submit(&job_for(clip)).await;
        self.finished(&id).await
    }

    /// Processes that work below this server's folder.
    pub fn children(&self) -> Vec<i32> {
        processes_below(&self.folder)
    }

    /// Nothing may be left behind once jobs are over: no process, no work folder, no part.
    pub async fn assert_clean(&self) {
        eventually("all processes end", async || self.children().is_empty().then_some(())).await;
        eventually("work folders are gone", async || (left_behind(&self.data()).is_empty()).then_some(()))
            .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A job for a file below the clips' root.
pub fn job_for(clip: &Path) -> Value {
    json!({
        "source": {"kind": "file", "path": clip},
        "outputs": [{"preset": "proxy_360p", "destination": {"kind": "storage", "path": "{job_id}/out.mp4"}}],
    })
}

/// Processes whose working directory is below a folder, zombies aside.
pub fn processes_below(folder: &Path) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        cwd.starts_with(folder.join("data"))
    })
    .collect()
}

/// Run folders, spools and unpublished parts below a data folder.
pub fn left_behind(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let work = std::fs::read_dir(data.join("work")).into_iter().flatten().flatten();
    for boot in work {
        let runs = std::fs::read_dir(boot.path()).into_iter().flatten().flatten();
        found.extend(
            runs.map(|run| run.path()).filter(|path| path.file_name().is_some_and(|n| n != ".owner")),
        );
    }
    parts(&data.join("storage"), &mut found);
    found
}

fn parts(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            parts(&path, found);
        } else if path.extension().is_some_and(|e| e == "part") {
            found.push(path);
        }
    }
}

//! moto, an S3 server that knows ACLs, as a process beside the test. `scripts/ensure-moto.sh` installs it; without it the
//! tests that need it fail.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::task::JoinSet;

/// As in `scripts/ensure-moto.sh`.
const VERSION: &str = "5.2.5";

/// A running server; killed when dropped.
pub struct Moto {
    child: Child,
    pub endpoint: String,
    /// Reads on: it ends when it cannot write its log.
    _log: JoinSet<()>,
}

fn folder() -> PathBuf {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let below_home = || set("HOME").unwrap().join(".cache");
    let below_cache =
        || set("XDG_CACHE_HOME").unwrap_or_else(below_home).join(format!("flux/moto-{VERSION}"));
    let folder = set("FLUX_MOTO").unwrap_or_else(below_cache);
    assert!(folder.join("complete").exists(), "run scripts/ensure-moto.sh (`make test` does)");
    folder
}

impl Moto {
    /// Starts one with an empty bucket.
    pub async fn start(bucket: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        #[expect(clippy::disallowed_methods, reason = "tests start a real server")]
        let mut child = Command::new(folder().join("python/bin/moto_server"))
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = tokio::process::ChildStderr::from_std(child.stderr.take().unwrap()).unwrap();
        let mut lines = BufReader::new(said).lines();
        let endpoint = loop {
            let line = lines.next_line().await.unwrap().expect("moto says where it listens");
            if let Some((_, at)) = line.split_once("Running on http://") {
                break format!("http://{}", at.split_whitespace().next().unwrap());
            }
        };
        let mut log = JoinSet::new();
        log.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let moto = Self { child, endpoint, _log: log };
        let made = moto.request(reqwest::Method::PUT, bucket).await;
        assert!(made.status().is_success(), "{made:?}");
        moto
    }

    /// Asks as somebody whom nobody knows.
    pub async fn request(&self, method: reqwest::Method, path: &str) -> reqwest::Response {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.request(method, format!("{}/{path}", self.endpoint)).send().await.unwrap()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A real PostgreSQL for tests: one server for all, which ends by itself, with a database for each test; or one of its
//! own for a test that stops it.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

/// A database that is empty at first and gone at the end.
pub struct Database {
    pub url: String,
    name: String,
    admin: String,
    /// Held while the shared server is in use.
    _user: Option<File>,
}

impl Database {
    /// On the server that all tests share.
    pub async fn new() -> Self {
        let user = use_shared();
        let port = script(&["shared", &free_port().to_string()]);
        Self::on(port.trim().parse().expect("a port"), Some(user)).await
    }

    async fn on(port: u16, user: Option<File>) -> Self {
        let admin = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        run(&admin, &format!("create database {name}")).await;
        Self { url: format!("postgres://postgres@127.0.0.1:{port}/{name}"), name, admin, _user: user }
    }

    /// Runs a statement in it.
    pub async fn execute(&self, sql: &str) {
        run(&self.url, sql).await;
    }

    /// Ends every connection to it but the one that does so.
    pub async fn cut(&self) {
        self.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (admin, sql) = (self.admin.clone(), format!("drop database {} with (force)", self.name));
        let gone = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                if let Ok(mut conn) = PgConnection::connect(&admin).await {
                    let _ = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await;
                }
            });
        });
        let _ = gone.join();
    }
}

/// A server of its own, to be stopped and started.
pub struct Server {
    folder: tempfile::TempDir,
    port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With settings (`name=value`) other than those of tests.
    pub fn with(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        script(&["init", folder.path().to_str().unwrap()]);
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { folder, port: free_port(), settings, child: None };
        server.resume();
        server
    }

    /// The database of its administrator; every test has a server of its own.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts again what was stopped.
    pub fn resume(&mut self) {
        let log = File::create(self.folder.path().join("server.log")).unwrap();
        let child = script_command()
            .args(["run", self.folder.path().to_str().unwrap(), &self.port.to_string()])
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("scripts/test-postgres.sh");
        self.child = Some(child);
        let (begun, ready) = (Instant::now(), self.folder.path().join("data/postmaster.pid"));
        let is_ready = || {
            let text = std::fs::read_to_string(&ready).unwrap_or_default();
            text.lines().nth(7).is_some_and(|line| line.trim() == "ready")
        };
        while !is_ready() {
            assert!(begun.elapsed() < Duration::from_mins(1), "PostgreSQL does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a crash does: no goodbye to clients, recovery at the next start.
    pub fn crash(&mut self) {
        if let Some(mut child) = self.child.take() {
            if let Some(pid) = Pid::from_raw(i32::try_from(child.id()).unwrap()) {
                let _ = kill_process(pid, Signal::QUIT);
            }
            let _ = child.wait();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
    }
}

/// Says that the shared server is in use, before it is asked for.
fn use_shared() -> File {
    let folder =
        std::env::temp_dir().join(format!("flux-test-postgres-{}", rustix::process::getuid().as_raw()));
    std::fs::create_dir_all(&folder).unwrap();
    let users =
        OpenOptions::new().create(true).append(true).open(folder.join("users")).expect("the lock of users");
    flock(&users, FlockOperation::LockShared).expect("the lock of users");
    users
}

#[expect(clippy::disallowed_methods, reason = "tests start a real server")]
fn script_command() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test-postgres.sh"))
}

fn script(args: &[&str]) -> String {
    let output = script_command()
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("scripts/test-postgres.sh");
    assert!(output.status.success(), "scripts/test-postgres.sh {args:?} failed");
    String::from_utf8(output.stdout).unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs a statement in a database.
pub async fn run(url: &str, sql: &str) {
    let mut conn = PgConnection::connect(url).await.expect("the test's PostgreSQL");
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut conn).await.expect(sql);
    let _ = conn.close().await;
}

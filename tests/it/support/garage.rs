//! garage, an S3 server of its own kind that checks signatures strictly, as a process beside the test.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::eventually;
use super::server::Start;

pub const BUCKET: &str = "results";
pub const KEY_ID: &str = "GK0123456789abcdef01234567";
pub const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A running server of one node with a bucket; killed when dropped.
pub struct Garage {
    child: Child,
    folder: tempfile::TempDir,
    pub endpoint: String,
}

impl Garage {
    /// Starts the program that `FLUX_TEST_GARAGE` names.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [api, rpc] =
            [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        let at = folder.path().display();
        let settings = format!(
            "metadata_dir = \"{at}/meta\"\ndata_dir = \"{at}/data\"\ndb_engine = \"sqlite\"\n\
             replication_factor = 1\nrpc_bind_addr = \"{rpc}\"\nrpc_public_addr = \"{rpc}\"\n\
             rpc_secret = \"{SECRET}\"\n[s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"{api}\"\n"
        );
        std::fs::write(folder.path().join("garage.toml"), settings).unwrap();
        let child = command(folder.path(), &["server"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let garage = Self { child, folder, endpoint: format!("http://{api}") };
        eventually("garage answers", async || garage.say(&["status"]).ok()).await;
        let node = garage.say(&["node", "id", "-q"]).unwrap();
        let node = node.split('@').next().unwrap().trim().to_owned();
        for line in [
            &["layout", "assign", "-z", "here", "-c", "1G", &node][..],
            &["layout", "apply", "--version", "1"],
            &["key", "import", "--yes", "-n", "flux", KEY_ID, SECRET],
            &["bucket", "create", BUCKET],
            &["bucket", "allow", "--read", "--write", BUCKET, "--key", KEY_ID],
        ] {
            // The layout is in force a moment after it was applied.
            eventually("garage is set up", async || garage.say(line).ok()).await;
        }
        garage
    }

    /// A server that keeps its results here, below the prefix `team/a`.
    pub fn configured(&self) -> Start {
        self.settings().into_iter().fold(Start::default(), |start, (key, value)| start.set(key, value))
    }

    pub fn settings(&self) -> [(&'static str, String); 5] {
        [
            ("FLUX__STORAGE__URL", format!("s3://{BUCKET}/team/a")),
            ("FLUX__STORAGE__ENDPOINT", self.endpoint.clone()),
            ("FLUX__STORAGE__REGION", "garage".to_owned()),
            ("FLUX__STORAGE__ACCESS_KEY_ID", KEY_ID.to_owned()),
            ("FLUX__STORAGE__SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    fn say(&self, arguments: &[&str]) -> Result<String, String> {
        let output = command(self.folder.path(), arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let program = std::env::var_os("FLUX_TEST_GARAGE").expect("FLUX_TEST_GARAGE: run `make test-garage`");
    #[expect(clippy::disallowed_methods, reason = "tests start a real server")]
    let mut command = Command::new(program);
    command.arg("-c").arg(folder.join("garage.toml")).args(arguments);
    command
}

//! What a tool can do that was taken over, through the whole service; and who says what holds.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::clips;
use crate::support::eventually;
use crate::support::server::{Server, Start, flux};

/// An ffmpeg that answers questions, and then looks around and tells what it found by its complaints.
const SPY: &str = r#"#!/bin/sh
case "$*" in
  *libx264*file:out-0.mp4) ;;
  *) exec /usr/bin/ffmpeg "$@" ;;
esac
tell() { echo "[error] spy $1" >&2; }
read -r line < /etc/passwd && tell "read $line"
for folder in SECRET; do
  read -r line < "$folder/secret" && tell "read $line"
  echo x > "$folder/written" && tell "wrote"
done
echo x > out-0.mp4 && tell "worked"
kill -URG PARENT && tell "signalled"
/usr/bin/env | while read -r line; do tell "env ${line%%=*}"; done
exit 1
"#;

fn spy(folder: &Path) -> PathBuf {
    let program = folder.join("ffmpeg");
    let script = SPY.replace("SECRET", &folder.display().to_string());
    std::fs::write(&program, script.replace("PARENT", &std::process::id().to_string())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.join("secret"), "treasure\n").unwrap();
    program
}

/// What the spy told, in order.
async fn spied(mode: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let server = Start::default()
        .set("FLUX__WORKER__FFMPEG", spy(folder.path()).display().to_string())
        .set("FLUX__SANDBOX__MODE", mode)
        .set("FLUX__QUEUE__MAX_ATTEMPTS", "1")
        .server()
        .await;
    let job = server.encode(&clips::mp4(1)).await;
    assert_eq!(job["status"], "failed", "{job:#}");
    assert_eq!(folder.path().join("written").exists(), mode == "off");
    let (_, log) = server.get(&format!("/api/v1/jobs/{}/log", job["id"].as_str().unwrap())).await;
    let text = log.to_string();
    let told = text.split("[error] spy ").skip(1);
    let told: Vec<String> = told.map(|said| said.split(['"', '\\']).next().unwrap().to_owned()).collect();
    assert!(!told.is_empty(), "{log:#}");
    told
}

#[tokio::test]
async fn an_ffmpeg_that_was_taken_over_reaches_nothing() {
    let told = spied("required").await;
    assert_eq!(told[0], "worked", "{told:?}");
    let rest: Vec<&str> = told[1..].iter().map(String::as_str).collect();
    // The shell sets the last of these for what it starts.
    assert!(
        rest.iter().all(|told| ["env LC_ALL", "env PWD", "env _", "env SHLVL"].contains(told)),
        "{told:?}"
    );
    assert!(rest.contains(&"env LC_ALL"), "{told:?}");
}

#[tokio::test]
async fn without_the_sandbox_it_reaches_files_and_processes() {
    let told = spied("off").await;
    assert!(told[0].starts_with("read root:"), "{told:?}");
    assert_eq!(told[1..5], ["read treasure", "wrote", "worked", "signalled"]);
}

#[tokio::test]
async fn workers_and_doctor_say_what_holds() {
    let parts = ["landlock files", "landlock network", "landlock signals", "seccomp"];
    let said_by = async |server: &Server| {
        eventually("the worker is known", async || {
            let (_, workers) = server.get("/api/v1/workers").await;
            let sandbox = workers["workers"][0]["capabilities"]["sandbox"].as_array().cloned();
            sandbox.filter(|parts| !parts.is_empty())
        })
        .await
    };
    let has = |said: &[Value], part: &str| said.iter().any(|said| said.as_str().unwrap().starts_with(part));
    let confined = said_by(&Start::default().server().await).await;
    for part in parts.iter().chain(&["no new privileges", "no environment", "rlimits"]) {
        assert!(has(&confined, part), "{part}: {confined:?}");
    }
    let off = said_by(&Start::default().set("FLUX__SANDBOX__MODE", "off").server().await).await;
    assert!(has(&off, "no new privileges"));
    assert!(!parts.iter().any(|part| has(&off, part)), "{off:?}");

    let doctor = |mode: &'static str| async move {
        let folder = tempfile::tempdir().unwrap();
        let run = move || {
            let mut doctor = flux(&["doctor"]);
            doctor.current_dir(folder.path()).env("FLUX__SANDBOX__MODE", mode).output().unwrap()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let said = doctor("required").await;
    let line =
        said.lines().find(|line| line.starts_with("ok    sandbox: ")).unwrap_or_else(|| panic!("{said}"));
    assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    assert!(doctor("off").await.contains("note  sandbox: off"));
}

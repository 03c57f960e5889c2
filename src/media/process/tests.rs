use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::*;

/// A tool of our own: a shell script in a folder.
pub(in crate::media) fn script(folder: &Path, name: &str, body: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Whether any process has `mark` on its command line.
pub(in crate::media) fn lives(mark: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(mark)
    })
}

/// Waits, in steps, until a condition holds; panics after ten seconds.
pub(in crate::media) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn direct() -> Spawner {
    Spawner::start(Launcher::Direct).unwrap()
}

async fn output(spec: Spec) -> Finished {
    run(&direct(), spec, (Duration::from_secs(20), 4096), &CancellationToken::new()).await.unwrap()
}

#[tokio::test]
async fn a_child_sees_only_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec::new(Path::new("/bin/sh"), ["-c", "pwd; /usr/bin/env; cat; ulimit -c"], folder.path());
    let text = String::from_utf8(output(spec).await.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(Path::new(lines[0]), folder.path().canonicalize().unwrap());
    assert!(lines.contains(&"LC_ALL=C"), "{text}");
    assert!(!text.contains("PATH=/") && !text.contains("HOME="), "{text}");
    assert_eq!(lines.last(), Some(&"0"), "no core dumps: {text}");
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let error = direct().spawn(Spec::new(Path::new("/nowhere/ffmpeg"), ["-i"], "/")).await.unwrap_err();
    let failure = Failure::from(error);
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (Code::ToolMissing, "ffmpeg is missing on the worker.")
    );
}

#[tokio::test]
async fn killing_takes_the_whole_group_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("deaf").display().to_string();
    let deaf = script(
        folder.path(),
        "deaf",
        "trap '' TERM INT HUP\n(trap '' TERM; mkfifo block 2>/dev/null; read x <block) &\nmkfifo block 2>/dev/null; read x <block",
    );
    let mut child = direct().spawn(Spec::new(&deaf, ["x"], folder.path())).await.unwrap();
    eventually("it started", || lives(&mark)).await;
    let started = Instant::now();
    child.kill();
    let status = child.wait().await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    eventually("all of the group died", || !lives(&mark)).await;
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn dropping_kills_and_so_do_time_and_cancel() {
    let folder = tempfile::tempdir().unwrap();
    let hang = script(folder.path(), "hang", "mkfifo block 2>/dev/null; read x <block");
    let mark = hang.display().to_string();
    let spawner = direct();
    let spec = || Spec::new(&hang, ["x"], folder.path());
    drop(spawner.spawn(spec()).await.unwrap());
    eventually("dropping killed it", || !lives(&mark)).await;

    let never = CancellationToken::new();
    let ended = run(&spawner, spec(), (Duration::from_millis(50), 0), &never).await;
    assert!(matches!(ended, Err(RunError::TimedOut(_))));
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let ended = run(&spawner, spec(), (Duration::from_secs(20), 0), &cancelled).await;
    assert!(matches!(ended, Err(RunError::Cancelled)));
    eventually("nothing is left", || !lives(&mark)).await;
}

#[tokio::test]
async fn leftovers_that_hold_the_pipes_do_not_hold_us() {
    let folder = tempfile::tempdir().unwrap();
    let parent = script(folder.path(), "parent", "(mkfifo block 2>/dev/null; read x <block) &\necho done");
    let finished = output(Spec::new(&parent, ["x"], folder.path())).await;
    assert_eq!(finished.stdout, b"done\n");
    eventually("the leftover died", || !lives(&parent.display().to_string())).await;
}

#[tokio::test]
async fn a_flood_is_read_and_thrown_away() {
    let body = "i=0; while [ $i -lt 3000 ]; do echo 'oooooooooooooooooooooooooooooooooooooooooooooooo'; echo \"err $i\" >&2; i=$((i+1)); done";
    let finished = output(Spec::new(Path::new("/bin/sh"), ["-c", body], "/")).await;
    assert!(finished.status.success());
    assert_eq!(finished.stdout.len(), 4096);
    assert_eq!(finished.log.last().map(String::as_str), Some("err 2999"));
    assert_eq!(finished.log.len(), 200);
}

#[tokio::test]
async fn the_spawning_thread_outlives_its_handle_while_children_run() {
    let mut child = direct().spawn(Spec::new(Path::new("/bin/sh"), ["-c", "exit 7"], "/")).await.unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(7));
}

/// A wrapper that makes this test binary play `flux`: with the variable set, [`as_launcher`] becomes the launcher.
pub(super) fn flux(folder: &Path) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let test = "media::process::tests::as_launcher";
    script(
        folder,
        "flux",
        &format!("shift\nFLUX_TEST_LAUNCH=\"$*\" exec {} --exact {test} --nocapture", exe.display()),
    )
}

fn reexec(exe: PathBuf) -> Launcher {
    Launcher::ReExec { exe, sandbox: Sandbox::off() }
}

#[test]
fn as_launcher() {
    if let Some(orders) = std::env::var_os("FLUX_TEST_LAUNCH") {
        let orders = orders.into_string().unwrap();
        let code = launch_main(orders.split(' ').map(OsString::from));
        // A launcher that returns has failed; the harness would hide its status.
        panic!("{code:?}");
    }
}

#[tokio::test]
async fn the_launcher_limits_and_becomes_the_tool() {
    let folder = tempfile::tempdir().unwrap();
    let tool = script(
        folder.path(),
        "tool",
        "ulimit -c; ulimit -f; cat /proc/self/stat; grep NoNewPrivs /proc/self/status; echo $1",
    );
    let spawner = Spawner::start(reexec(flux(folder.path()))).unwrap();
    let mut spec = Spec::new(&tool, ["argument"], folder.path());
    spec.limits.file_size = Some(1024 * 1024);
    let finished =
        run(&spawner, spec, (Duration::from_secs(20), 4096), &CancellationToken::new()).await.unwrap();
    let text = String::from_utf8(finished.stdout).unwrap();
    let lines: Vec<&str> = text.lines().skip_while(|line| *line != "0").collect();
    assert_eq!(lines[1], "2048", "blocks of 512 bytes: {text}");
    assert_eq!(lines[2].rsplit(") ").next().unwrap().split(' ').nth(16), Some("10"), "niceness: {text}");
    assert_eq!(lines[3].split_whitespace().last(), Some("1"), "{text}");
    assert_eq!(lines[4], "argument");
}

/// Plays the worker that is killed below: starts a tool through the launcher and never ends.
#[tokio::test]
async fn as_worker() {
    if let Some(folder) = std::env::var_os("FLUX_TEST_WORKER") {
        let folder = Path::new(&folder);
        let hang = script(folder, "orphan", "mkfifo block 2>/dev/null; read x <block");
        let spawner = Spawner::start(reexec(flux(folder))).unwrap();
        let mut child = spawner.spawn(Spec::new(&hang, ["x"], folder)).await.unwrap();
        child.wait().await.unwrap();
    }
}

#[tokio::test]
async fn no_tool_outlives_a_killed_worker() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("orphan").display().to_string();
    #[expect(clippy::disallowed_methods, reason = "plays the worker that is killed")]
    let mut worker = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "media::process::tests::as_worker"])
        .env("FLUX_TEST_WORKER", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Not the wrapper or the launcher: the tool itself, run by its interpreter.
    let runs = || lives(&format!("/bin/sh\0{mark}"));
    eventually("the tool runs", runs).await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    eventually("the tool died with its worker", || !lives(&mark)).await;
}

//! The command line as its users see it: exit codes, files, words.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::server::{Server, flux};
use crate::support::{clips, eventually};

async fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = flux(arguments);
    command.current_dir(folder);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn encode_makes_one_verified_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(clips::mp4(1), folder.path().join("in file.mp4")).unwrap();
    let done = run(folder.path(), &["encode", "in file.mp4", "-p", "proxy_360p", "-o", "out.mp4"]).await;
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(text(&done.stdout).trim(), "out.mp4");
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["in file.mp4", "out.mp4"]);

    let again =
        run(folder.path(), &["encode", "in file.mp4", "-p", "proxy_360p", "-o", "out.mp4", "--no-clobber"])
            .await;
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("destination_exists"), "{}", text(&again.stderr));
}

#[tokio::test]
async fn encode_ends_with_the_documented_codes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.mp4"), "not a video").unwrap();
    let cases = [
        (&["encode", "missing.mp4", "-p", "720p_h264"][..], 3),
        (&["encode", "bad.mp4", "-p", "720p_h264"], 1),
        (&["encode", "bad.mp4", "-p", "nope"], 5),
        (&["encode"], 2),
        (&["frobnicate"], 2),
        (&["jobs", "--url", "http://127.0.0.1:9"], 6),
        (&["jobs", "--url", "ftp://x"], 2),
    ];
    for (arguments, code) in cases {
        let done = run(folder.path(), arguments).await;
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {}", text(&done.stderr));
        assert!(!done.stderr.is_empty());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
}

#[tokio::test]
async fn the_client_commands_follow_a_job() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let clip = clips::mp4(1);
    let clip = clip.to_str().unwrap();
    let url = ["--url", server.url.as_str()];
    let submit =
        [&["submit", clip, "-p", "proxy_360p", "--label", "team=a", "--wait", "-o", "json"][..], &url]
            .concat();
    let done = run(folder.path(), &submit).await;
    assert!(done.status.success(), "{}", text(&done.stderr));
    let job: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(job["status"], "completed");
    let id = job["id"].as_str().unwrap();

    let jobs = run(folder.path(), &[&["jobs", "--label", "team=a"][..], &url].concat()).await;
    assert!(text(&jobs.stdout).contains(id));
    let watch = run(folder.path(), &[&["watch", id][..], &url].concat()).await;
    assert!(watch.status.success());
    // Encoders are proved in the background of a start, and shown once the control has asked again.
    eventually("the worker shows its encoders", async || {
        let workers = run(folder.path(), &[&["workers"][..], &url].concat()).await;
        text(&workers.stdout).contains("libx264").then_some(())
    })
    .await;
    let unknown =
        run(folder.path(), &[&["job", "018f0000-0000-7000-8000-000000000000"][..], &url].concat()).await;
    assert_eq!(unknown.status.code(), Some(3));
    assert!(run(folder.path(), &[&["delete", id][..], &url].concat()).await.status.success());
    let gone = run(folder.path(), &[&["job", id][..], &url].concat()).await;
    assert_eq!(gone.status.code(), Some(3));
}

#[tokio::test]
async fn configuration_faults_are_reported_together() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("bad.toml"),
        "[server]\nlisten = \"nowhere\"\n[queue]\nmax_attempts = 0\n[colour]\nx = 1\n",
    )
    .unwrap();
    let check = run(folder.path(), &["config", "check", "--config", "bad.toml"]).await;
    assert_eq!(check.status.code(), Some(5));
    let said = text(&check.stderr);
    for part in ["server.listen", "colour"] {
        assert!(said.contains(part), "{said}");
    }
    let show = run(folder.path(), &["config", "show"]).await;
    assert!(show.status.success(), "{}", text(&show.stderr));
    assert!(text(&show.stdout).contains("max_attempts = 3"));
}

#[tokio::test]
async fn doctor_finds_what_is_here_and_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let well = run(folder.path(), &["doctor"]).await;
    assert!(well.status.success(), "{}{}", text(&well.stdout), text(&well.stderr));
    assert!(text(&well.stdout).contains("libx264"));
    std::fs::write(folder.path().join("flux.toml"), "[worker]\nffmpeg = \"/nonexistent/ffmpeg\"\n").unwrap();
    let ill = run(folder.path(), &["doctor", "--config", "flux.toml"]).await;
    assert_eq!(ill.status.code(), Some(6), "{}", text(&ill.stdout));
}

#[test]
fn help_says_what_there_is() {
    let help = flux(&["--help"]).output().unwrap();
    insta::assert_snapshot!("help", text(&help.stdout));
    for command in ["serve", "encode", "probe", "submit", "validate"] {
        let help = flux(&[command, "--help"]).output().unwrap();
        insta::assert_snapshot!(format!("help_{command}"), text(&help.stdout));
    }
}

//! The real reader behind the gateway: the same packets as from the file, or held until it is killed.

use super::*;

/// A remux of `input` as ffmpeg does it, hashed.
#[expect(clippy::disallowed_methods, reason = "a test may run the real reader")]
fn remux(input: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("ffmpeg");
    let args = ["-nostdin", "-v", "error", "-protocol_whitelist", "http,tcp,file", "-i", input];
    command.args(args).args(["-map", "0", "-c", "copy", "-f", "md5", "-"]);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    command
}

#[expect(clippy::disallowed_methods, reason = "a test may make its own clip")]
fn make_clip(path: &Path) {
    let args = ["-v", "error", "-f", "lavfi", "-i", "nullsrc=s=320x180:r=25:d=3,geq=random(1)*255:128:128"];
    let status = std::process::Command::new("ffmpeg")
        .args(args)
        .args(["-c:v", "mpeg4", "-q:v", "2"])
        .arg(path)
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_reads_the_same_or_is_held() {
    let clips = tempfile::tempdir().unwrap();
    for extension in ["mp4", "mkv", "ts"] {
        let path = clips.path().join(format!("clip.{extension}"));
        make_clip(&path);
        let content: Arc<[u8]> = std::fs::read(&path).unwrap().into();
        assert!(content.len() > 1_000_000, "{} bytes are too few to be interesting", content.len());
        let direct = remux(&format!("file:{}", path.display())).output().await.unwrap();
        assert!(direct.status.success());
        for fault in [Fault::None, Fault::DropEvery(300_000), Fault::BusyEveryThird, Fault::StallTimes(1)] {
            let script =
                Script { content: Arc::clone(&content), fault, etag: Some("\"v1\""), ..Default::default() };
            let origin = TestOrigin::start(script.clone()).await;
            let remote = Bench::new().open(&origin.url("/in"), streaming()).await.unwrap();
            let through = remux(remote.url().unwrap()).output().await.unwrap();
            assert!(remote.failure().is_none());
            assert_eq!(through.stdout, direct.stdout, "{extension} under {:?}", script.fault);
        }
        for (fault, code) in
            [(Fault::StatusFrom(2, 404), Code::SourceNotFound), (Fault::ChangeFrom(2), Code::SourceChanged)]
        {
            let script =
                Script { content: Arc::clone(&content), fault, etag: Some("\"v1\""), ..Default::default() };
            let origin = TestOrigin::start(script).await;
            let remote = Bench::new().open(&origin.url("/in"), streaming()).await.unwrap();
            let mut held = remux(remote.url().unwrap()).stdout(std::process::Stdio::null()).spawn().unwrap();
            assert_eq!(remote.failed().await.code, code);
            let ended = tokio::time::timeout(Duration::from_millis(200), held.wait()).await;
            assert!(ended.is_err(), "{extension}: ffmpeg ended by itself: {ended:?}");
            held.kill().await.unwrap();
        }
    }
}

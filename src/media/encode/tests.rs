use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::media::process::tests::{eventually, lives, script};
use crate::media::process::{Launcher, Spawner};
use crate::media::tools::Tools;

/// A toolbox with the given ffmpeg.
pub(in crate::media) fn toolbox(ffmpeg: &Path) -> Toolbox {
    let tools = Tools::locate(Path::new("ffmpeg"), Path::new("ffprobe")).unwrap();
    Toolbox {
        spawner: Spawner::start(Launcher::Direct).unwrap(),
        tools: Tools {
            ffmpeg: if ffmpeg == Path::new("") { tools.ffmpeg } else { ffmpeg.to_owned() },
            ..tools
        },
    }
}

struct Fake {
    folder: TempDir,
    ffmpeg: PathBuf,
}

/// A plan of nothing, for its bounds.
fn empty() -> EncodePlan {
    EncodePlan {
        cut: None,
        outputs: vec![],
        twins: vec![],
        posters: vec![],
        captions: vec![],
        expected_seconds: None,
        max_seconds: 100.0,
    }
}

impl Fake {
    fn new(body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ffmpeg = script(folder.path(), "fake-ffmpeg", body);
        Self { folder, ffmpeg }
    }

    async fn encode(
        &self,
        limits: EncodeLimits,
        cancel: &CancellationToken,
    ) -> (Result<EncodeReport, Failure>, Vec<Tick>) {
        let plan = empty();
        let request = EncodeRequest {
            plan: &plan,
            argv: vec!["-i".into(), "file:/srv/in".into()],
            input: &Input::File("/srv/in".into()),
            work: self.folder.path(),
            limits,
        };
        let mut ticks = Vec::new();
        let result = encode(&toolbox(&self.ffmpeg), request, &mut |tick| ticks.push(tick), cancel).await;
        let mark = self.ffmpeg.display().to_string();
        eventually("no process is left", || !lives(&mark)).await;
        (result, ticks)
    }

    async fn fails(&self) -> Failure {
        self.encode(EncodeLimits::default(), &CancellationToken::new()).await.0.unwrap_err()
    }
}

const LOOP: &str = "mkfifo block 2>/dev/null; read x <block";

#[tokio::test]
async fn a_hang_is_a_stall_even_with_a_deaf_tool() {
    let fake = Fake::new(&format!("trap '' TERM INT\necho frame=5; echo progress=continue\n{LOOP}"));
    let limits = EncodeLimits { stall: Duration::from_millis(300), ..EncodeLimits::default() };
    let (result, ticks) = fake.encode(limits, &CancellationToken::new()).await;
    let failure = result.unwrap_err();
    assert_eq!(failure.code, Code::EncodeTimeout, "{failure}");
    assert!(failure.message.contains("no progress for 0.3 s"), "{failure}");
    assert_eq!(ticks[0].frame, Some(5));
}

#[tokio::test]
async fn time_growth_and_cancel_end_it_at_once() {
    let busy = Fake::new(
        "i=0; while :; do i=$((i+1)); echo frame=$i; echo out_time_us=1; echo progress=continue; done",
    );
    let limits = EncodeLimits { total: Duration::from_millis(200), ..EncodeLimits::default() };
    let (result, _) = busy.encode(limits, &CancellationToken::new()).await;
    assert_eq!(result.unwrap_err().code, Code::EncodeTimeout);

    let runaway = Fake::new(&format!("echo out_time_us=101000000; echo progress=continue; {LOOP}"));
    assert_eq!(runaway.fails().await.code, Code::MediaLimit);

    // The same when ffmpeg has cut it and ended well before anybody looked.
    let cut = Fake::new("echo out_time_us=101000000; echo progress=end");
    assert_eq!(cut.fails().await.code, Code::MediaLimit);
    let padded = Fake::new("echo out_time_us=100020000; echo progress=end");
    assert!(padded.encode(EncodeLimits::default(), &CancellationToken::new()).await.0.is_ok());

    let cancel = CancellationToken::new();
    cancel.cancel();
    let (result, _) = Fake::new(LOOP).encode(EncodeLimits::default(), &cancel).await;
    assert_eq!(result.unwrap_err().code, Code::Cancelled);
}

#[tokio::test]
async fn a_flood_of_log_is_survived_and_bounded() {
    let fake = Fake::new(
        "i=0; while [ $i -lt 5000 ]; do echo \"[error] line $i of /etc/secret\" >&2; i=$((i+1)); done; exit 1",
    );
    let failure = fake.fails().await;
    assert_eq!(failure.code, Code::EncodeFailed);
    assert_eq!(failure.log.len(), 20);
    assert_eq!(failure.log[19], "[error] line 4999 of …");
}

#[tokio::test]
async fn ends_are_classified() {
    assert_eq!(Fake::new("kill -SEGV $$").fails().await.code, Code::EncoderCrashed);
    assert_eq!(
        Fake::new("echo '[error] x: No space left on device' >&2; exit 1").fails().await.code,
        Code::DiskFull
    );
    assert_eq!(
        Fake::new("echo \"[fatal] Unknown encoder 'libx265'\" >&2; exit 1").fails().await.code,
        Code::EncoderUnavailable
    );
    let (result, _) = Fake::new("exit 0").encode(EncodeLimits::default(), &CancellationToken::new()).await;
    assert_eq!(
        result.unwrap().encoded,
        [],
        "a silent success accounts for nothing, which verification refuses"
    );
}

#[tokio::test]
async fn a_slow_listener_never_holds_up_the_tool() {
    // Far more than a pipe holds, while the listener blocks on its first tick.
    let body = "i=0; while [ $i -lt 9000 ]; do echo frame=$i; echo progress=continue; i=$((i+1)); done; touch finished";
    let fake = Fake::new(body);
    let plan = empty();
    let work = fake.folder.path().to_owned();
    let ffmpeg = fake.ffmpeg.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // On its own runtime with two threads, as in production: one blocks in the listener, the other reads.
    let ended = std::thread::spawn(move || {
        runtime.block_on(async {
            let input = Input::File("/srv/in".into());
            let finished = work.join("finished");
            let request = EncodeRequest {
                plan: &plan,
                argv: vec![],
                input: &input,
                work: &work,
                limits: EncodeLimits::default(),
            };
            let mut waited = false;
            let mut listener = |_: Tick| {
                let started = std::time::Instant::now();
                while !waited && !finished.is_file() && started.elapsed() < Duration::from_secs(20) {
                    std::thread::yield_now();
                }
                waited = finished.is_file();
            };
            encode(&toolbox(&ffmpeg), request, &mut listener, &CancellationToken::new()).await.map(|_| waited)
        })
    });
    assert_eq!(ended.join().unwrap(), Ok(true));
}

#[tokio::test]
async fn real_loudness_is_measured() {
    let argv = [
        "-nostdin",
        "-hide_banner",
        "-loglevel",
        "level+info",
        "-nostats",
        "-f",
        "lavfi",
        "-i",
        "sine=d=4",
        "-af",
        "ebur128=peak=true",
        "-f",
        "null",
        "-",
    ];
    let input = Input::File("/srv/in".into());
    let argv = argv.map(str::to_owned).to_vec();
    let found = measure_loudness(
        &toolbox(Path::new("")),
        (argv, &input),
        Duration::from_secs(30),
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    assert!((found.integrated + 21.8).abs() < 0.3 && (found.true_peak + 18.1).abs() < 0.3, "{found:?}");
}

/// A set of two outputs, of which the second is encoded twice by libvpx.
fn twice() -> EncodePlan {
    use crate::domain::OutputIndex;
    use crate::media::plan::tests::{audio, media, spec, video};
    use crate::media::plan::{Policy, plan};
    let rate = serde_json::json!({"mode": "bitrate", "target": "500k", "passes": 2});
    let outputs = [
        (OutputIndex(0), spec(Some("480p_h264"), serde_json::json!({}))),
        (OutputIndex(1), spec(Some("1080p_vp9"), serde_json::json!({"video": {"rate": rate}}))),
    ];
    plan(&media(vec![video(640, 360)], vec![audio(2)]), &outputs, &Policy::default()).unwrap()
}

async fn first_of(fake: &Fake, total: Duration, cancel: &CancellationToken) -> Result<(), Failure> {
    let whole = twice();
    let first = whole.first_pass().unwrap();
    let request = EncodeRequest {
        plan: &first,
        argv: Vec::new(),
        input: &Input::File("/srv/in".into()),
        work: fake.folder.path(),
        limits: EncodeLimits { total, ..EncodeLimits::default() },
    };
    first_pass(&toolbox(&fake.ffmpeg), request, &whole, &mut |_| {}, cancel).await
}

#[tokio::test]
async fn the_second_pass_finds_the_first_ones_file() {
    let fake = Fake::new("echo seen > pass-out-1.webm-0.log");
    let total = Duration::from_mins(10);
    first_of(&fake, total, &CancellationToken::new()).await.unwrap();
    // In the second process the picture is the third stream.
    assert!(fake.folder.path().join("pass-out-1.webm-2.log").is_file());
    std::fs::write(fake.folder.path().join("out-1.webm"), "kept").unwrap();
    forget_passes(fake.folder.path()).await;
    assert!(!fake.folder.path().join("pass-out-1.webm-2.log").exists());
    assert!(fake.folder.path().join("out-1.webm").is_file());
    let forgetful = Fake::new("true");
    let failure = first_of(&forgetful, total, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(failure.code, Code::Internal);
}

#[tokio::test]
async fn limits_and_cancelling_hold_for_the_first_pass_too() {
    let fake = Fake::new(LOOP);
    let failure = first_of(&fake, Duration::from_millis(200), &CancellationToken::new()).await.unwrap_err();
    assert_eq!(failure.code, Code::EncodeTimeout);
    let cancel = CancellationToken::new();
    cancel.cancel();
    assert_eq!(first_of(&fake, Duration::from_mins(10), &cancel).await.unwrap_err().code, Code::Cancelled);
}

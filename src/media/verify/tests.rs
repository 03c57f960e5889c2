use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;

use super::*;
use crate::domain::limits::SourceLimits;
use crate::domain::preset::{AudioCodec, Presets, Rate, Speed, VideoCodec};
use crate::domain::{OutputIndex, Rational};
use crate::media::encode::tests::toolbox;
use crate::media::encode::{EncodeLimits, EncodeRequest, encode};
use crate::media::plan::{
    AudioPlan, Cadence, Feed, Keyframes, PlannedColor, Policy, Timing, VideoPlan, plan,
};
use crate::media::sniff::sniff;
use crate::media::structure::{self, tests::Bytes};

/// Runs the system's ffmpeg to make a clip.
fn make(folder: &Path, name: &str, args: &str) -> PathBuf {
    let path = folder.join(name);
    #[expect(clippy::disallowed_methods, reason = "makes test material, synchronously")]
    let status = std::process::Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y"])
        .args(args.split_whitespace())
        .arg(&path)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{args}");
    path
}

const CLIP: &str = "-f lavfi -i testsrc2=s=160x90:r=25:d=3 -f lavfi -i sine=r=48000:d=3 -pix_fmt yuv420p -preset ultrafast -g 25";

/// One trip of a clip through the room.
struct Trip {
    folder: TempDir,
    source: PathBuf,
    toolbox: Toolbox,
    level: VerifyLevel,
    on_damage: OnDamage,
    /// Done to the output before it is verified.
    harm: fn(&Path),
    fps: Option<(&'static str, Rational)>,
}

impl Trip {
    fn new(name: &str, args: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = make(folder.path(), name, args);
        Self {
            folder,
            source,
            toolbox: toolbox(Path::new("")),
            level: VerifyLevel::Full,
            on_damage: OnDamage::Fail,
            harm: |_| {},
            fps: None,
        }
    }

    fn cut_source(&self, part: f64) {
        let file = std::fs::OpenOptions::new().write(true).open(&self.source).unwrap();
        let size = file.metadata().unwrap().len();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a part of a small file"
        )]
        file.set_len((size as f64 * part) as u64).unwrap();
    }

    fn plan(&self, source: &MediaInfo) -> EncodePlan {
        let video = source.main_video().map(|video| VideoPlan {
            stream: video.index,
            codec: VideoCodec::H264,
            speed: Speed::Ultrafast,
            rate: Rate::Crf { crf: 30.0 },
            width: 160,
            height: 90,
            filters: vec![],
            cadence: Cadence::Same,
            mastering: None,
            timing: self.fps.map_or(Timing::Passthrough, |(_, rate)| Timing::Cfr(rate)),
            time_base: video.time_base,
            frame_rate: video.frame_rate,
            feed: Feed::Source,
            keyframes: Keyframes::Within(20),
            bframes: None,
            profile: None,
            level: None,
            pix_fmt: "yuv420p",
            color: PlannedColor {
                primaries: "bt709".into(),
                transfer: "bt709".into(),
                matrix: "bt709".into(),
                range: "tv",
            },
        });
        let audio = source.main_audio().map(|audio| AudioPlan {
            stream: audio.index,
            codec: AudioCodec::Aac,
            bitrate: 64_000,
            channels: 1,
            sample_rate: 48_000,
            loudness: None,
            language: None,
            filters: vec![],
        });
        let output = OutputPlan {
            index: OutputIndex(0),
            rendition: None,
            format: FileFormat::Mp4,
            file_name: "out-0.mp4".into(),
            video,
            audio: audio.into_iter().collect(),
            copied: vec![],
            captions: vec![],
            rank: 0,
            warnings: vec![],
        };
        EncodePlan {
            cut: None,
            outputs: vec![output],
            twins: vec![],
            posters: vec![],
            captions: vec![],
            expected_seconds: source.duration_seconds,
            max_seconds: 60.0,
        }
    }

    /// Sniff, structure, probe, encode, verify.
    async fn go(&self) -> Result<Verified, Failure> {
        let bytes = std::fs::read(&self.source).unwrap();
        let reader = Bytes::new(&bytes);
        let demuxer = sniff(&reader).await?;
        let facts = structure::check(&reader, demuxer).await?;
        let input = Input::File(self.source.clone());
        let limits = SourceLimits::default();
        let source =
            super::super::probe::probe(&self.toolbox, &input, demuxer, bytes.len() as u64, &limits).await?;
        let plan = self.plan(&source);
        let report = self.encode(&plan, &input, demuxer).await?;
        (self.harm)(&self.folder.path().join("out-0.mp4"));
        let request = VerifyRequest {
            plan: &plan,
            place: 0,
            report: &report,
            source: &source,
            facts: &facts,
            work: self.folder.path(),
            level: self.level,
            seed: 1,
            on_damage: self.on_damage,
            time: Duration::from_mins(1),
        };
        verify(&self.toolbox, request, &CancellationToken::new()).await
    }

    async fn encode(
        &self,
        plan: &EncodePlan,
        input: &Input,
        demuxer: Demuxer,
    ) -> Result<EncodeReport, Failure> {
        let output = &plan.outputs[0];
        let mut words: Vec<String> =
            "-nostdin -hide_banner -loglevel level+verbose -progress pipe:1 -stats_period 0.5 -nostats -y"
                .split(' ')
                .map(str::to_owned)
                .collect();
        let reading = Reading { input, demuxer, limits: &argv::Limits::default() };
        words.extend(argv::input_options(&reading, LookAhead::Near));
        if let Some(video) = &output.video {
            let rate = self.fps.map_or(String::new(), |(rate, _)| format!("fps={rate}:round=near,"));
            let colors = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv";
            words.extend([
                "-map".into(),
                format!("0:{}", video.stream),
                "-vf".into(),
                format!("{rate}scale=160:90,setsar=1,{colors}"),
                "-c:v".into(),
                "libx264".into(),
                "-preset".into(),
                "ultrafast".into(),
                "-g".into(),
                "20".into(),
                "-fps_mode".into(),
                "passthrough".into(),
                "-pix_fmt".into(),
                "yuv420p".into(),
            ]);
        }
        for audio in &output.audio {
            let map = format!("0:{}", audio.stream);
            words.extend(
                ["-map", &map, "-c:a", "aac", "-b:a", "64k", "-ac", "1", "-ar", "48000"].map(str::to_owned),
            );
        }
        words.extend(["-map_metadata", "-1", "-f", "mp4", "file:out-0.mp4"].map(str::to_owned));
        let request = EncodeRequest {
            plan,
            argv: words,
            input,
            work: self.folder.path(),
            limits: EncodeLimits::default(),
        };
        encode(&self.toolbox, request, &mut |_| {}, &CancellationToken::new()).await
    }

    async fn code(&self) -> Code {
        self.go().await.unwrap_err().code
    }
}

#[tokio::test]
async fn a_good_output_passes_at_every_level() {
    let mut trip = Trip::new("in.mp4", CLIP);
    for level in [VerifyLevel::Probe, VerifyLevel::Sampled, VerifyLevel::Full] {
        trip.level = level;
        let verified = trip.go().await.unwrap();
        assert_eq!((verified.frames, verified.width, verified.height), (75, Some(160), Some(90)));
        assert!((verified.duration_seconds - 3.0).abs() < 0.05, "{verified:?}");
        assert_eq!(verified.sha256.len(), 64);
        assert_eq!(verified.warnings, [""; 0]);
    }
}

#[tokio::test]
async fn a_long_output_is_sampled() {
    let mut trip =
        Trip::new("in.mkv", "-f lavfi -i testsrc2=s=160x90:r=25:d=30 -pix_fmt yuv420p -preset ultrafast");
    trip.level = VerifyLevel::Sampled;
    assert_eq!(trip.go().await.unwrap().frames, 750);
}

#[tokio::test]
async fn another_rate_is_a_full_grid() {
    let mut trip = Trip::new("in.mp4", CLIP);
    trip.fps = Some(("30", Rational::new(30, 1).unwrap()));
    assert_eq!(trip.go().await.unwrap().frames, 90);
}

#[tokio::test]
async fn sound_alone_passes() {
    let verified = Trip::new("in.wav", "-f lavfi -i sine=r=44100:d=2").go().await.unwrap();
    assert_eq!((verified.frames, verified.width), (0, None));
    assert!((verified.duration_seconds - 2.0).abs() < 0.05, "{verified:?}");
}

#[tokio::test]
async fn a_cut_source_is_truncated_in_every_container_that_ends() {
    for (name, args) in [
        ("front.mp4", "-movflags +faststart"),
        ("end.mp4", ""),
        ("frag.mp4", "-movflags +frag_keyframe+empty_moov"),
        ("in.mkv", ""),
        ("in.avi", "-c:v mpeg4 -c:a mp3"),
        ("in.flv", "-c:v flv1 -ar 44100 -c:a mp3"),
        ("in.ogv", "-c:v libtheora -c:a libvorbis"),
        ("in.wav", "-vn"),
        ("in.wmv", "-c:v wmv2 -c:a wmav2"),
    ] {
        let trip = Trip::new(name, &format!("{CLIP} {args}"));
        trip.go().await.unwrap_or_else(|failure| panic!("{name}: {failure} {failure:?}"));
        for part in [0.95, 0.6] {
            trip.cut_source(part);
            assert_eq!(trip.code().await, Code::MediaTruncated, "{name} {part}");
        }
    }
}

#[tokio::test]
async fn a_live_recording_that_is_cut_is_truncated() {
    let trip = Trip::new("in.mkv", &format!("{CLIP} -live 1"));
    trip.cut_source(0.7);
    assert_eq!(trip.code().await, Code::MediaTruncated);
}

#[tokio::test]
async fn an_output_that_ffmpeg_cut_is_no_success() {
    let trip = Trip::new("in.mp4", CLIP);
    let input = Input::File(trip.source.clone());
    let bounds = SourceLimits::default();
    let source = super::super::probe::probe(&trip.toolbox, &input, Demuxer::Mov, 1, &bounds).await.unwrap();
    let preset = Presets::builtin().get("proxy_360p").unwrap().clone();
    for (max_seconds, code) in [(1.0, Some(Code::MediaLimit)), (3.0, None)] {
        let policy = Policy { max_seconds, ..Policy::default() };
        let plan = plan(&source, &[(OutputIndex(0), preset.clone())], &policy).unwrap();
        let reading = Reading { input: &input, demuxer: Demuxer::Mov, limits: &argv::Limits::default() };
        let argv = argv::encode(&plan, &reading, &argv::Gains::new());
        let request = EncodeRequest {
            plan: &plan,
            argv,
            input: &input,
            work: trip.folder.path(),
            limits: EncodeLimits::default(),
        };
        let ended = encode(&trip.toolbox, request, &mut |_| {}, &CancellationToken::new()).await;
        assert_eq!(ended.err().map(|failure| failure.code), code, "{max_seconds} s");
    }
}

/// A name, and what is done to the output before it is verified.
type Harm = (&'static str, fn(&Path));

/// Overwrites bytes in the middle: several frames with their headers. (Inside one frame's CAVLC data 600 bytes of noise
/// decode without a word; that is what the digest is for.)
fn scratch(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4000].fill(0xA5);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_source_fails_or_warns() {
    let mut trip = Trip::new(
        "in.ts",
        "-f lavfi -i testsrc2=s=160x90:r=25:d=12 -pix_fmt yuv420p -preset ultrafast -g 10",
    );
    trip.go().await.unwrap();
    scratch(&trip.source);
    let failure = trip.go().await.unwrap_err();
    assert_eq!(failure.code, Code::MediaCorrupt, "{failure}");
    trip.on_damage = OnDamage::Warn;
    match trip.go().await {
        Ok(verified) => assert!(verified.warnings[0].starts_with("source_damaged: "), "{verified:?}"),
        Err(failure) => assert_eq!(failure.code, Code::MediaCorrupt, "above 1 %: {failure}"),
    }
}

#[tokio::test]
async fn a_recording_that_starts_between_keys_is_no_damage() {
    let trip =
        Trip::new("in.ts", "-f lavfi -i testsrc2=s=160x90:r=25:d=4 -pix_fmt yuv420p -preset ultrafast -g 25");
    let bytes = std::fs::read(&trip.source).unwrap();
    let start = bytes.len() / 5 / 188 * 188;
    std::fs::write(&trip.source, &bytes[start..]).unwrap();
    let verified = trip.go().await.unwrap();
    assert!(verified.frames < 100 && verified.warnings.is_empty(), "{verified:?}");
}

#[tokio::test]
async fn harm_to_the_output_is_found() {
    let mut trip = Trip::new("in.mp4", CLIP);
    let harms: [Harm; 5] = [
        ("scratched", scratch),
        ("emptied", |path| std::fs::write(path, b"").unwrap()),
        ("removed", |path| std::fs::remove_file(path).unwrap()),
        ("cut", |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() * 2 / 3]).unwrap();
        }),
        ("replaced", |path| {
            let short = make(path.parent().unwrap(), "short.mp4", &format!("{CLIP} -t 1"));
            std::fs::rename(short, path).unwrap();
        }),
    ];
    for (what, harm) in harms {
        trip.harm = harm;
        assert_eq!(trip.go().await.map_err(|failure| failure.code), Err(Code::VerificationFailed), "{what}");
    }
}

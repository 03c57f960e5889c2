//! Renditions as the worker's ffmpeg makes them, and what is said of packages by strangers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use flux::media::lint::{Folder, lint_all};
use flux::media::package::{AudioRendition, Kind, Layout, Manifests, Names, Rendition, Request};

/// GOPs of a second, four to a segment, and a fragment per GOP.
const VIDEO: &str = "-c:v libx264 -preset ultrafast -profile:v high -pix_fmt yuv420p -bf 2 -b:v 400k -maxrate 400k -bufsize 400k -x264-params keyint=25:min-keyint=25:scenecut=0:open-gop=0:cabac=1:8x8dct=1";
pub const FRAGMENTS: &str = "-map_metadata -1 -movflags +frag_keyframe+delay_moov+default_base_moof -f mp4";

pub const TRANSPORT: &str = "-f mpegts -muxdelay 0 -muxpreload 0 -mpegts_flags +resend_headers";

/// Tells files apart that are being made at the same time.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Encoded renditions.
pub struct Ladder {
    pub renditions: Vec<Rendition>,
}

impl Ladder {
    /// Two pictures and two languages, 13 s.
    pub fn standard() -> Self {
        let video = |size: &str| {
            let name = format!("video-{size}.mp4");
            made(&name, &format!("-f lavfi -i testsrc2=s={size}:r=25:d=13 {VIDEO} {FRAGMENTS}"))
        };
        let audio = |hz: u32| {
            let tone = format!("-f lavfi -i sine=f={hz}:d=13:r=48000 -ac 2 -c:a aac -b:a 64k");
            made(&format!("audio-{hz}.mp4"), &format!("{tone} -frag_duration 500000 {FRAGMENTS}"))
        };
        let renditions = vec![
            picture("180p", video("320x180")),
            picture("90p", video("160x90")),
            sound("de", audio(440), true),
            sound("en", audio(880), false),
        ];
        Self { renditions }
    }

    /// The same pictures with their sound, in MPEG-TS.
    pub fn transport() -> Self {
        let stream = |size: &str| {
            let tone = "-f lavfi -i sine=f=440:d=13:r=48000 -ac 2 -c:a aac -b:a 64k";
            let name = format!("stream-{size}.ts");
            made(&name, &format!("-f lavfi -i testsrc2=s={size}:r=25:d=13 {tone} {VIDEO} {TRANSPORT}"))
        };
        Self { renditions: vec![picture("180p", stream("320x180")), picture("90p", stream("160x90"))] }
    }

    pub fn request(&self, layout: Layout) -> Request {
        Request {
            renditions: self.renditions.clone(),
            captions: vec![],
            segment_seconds: 4.0,
            layout,
            iframes: true,
            manifests: Manifests { hls: true, dash: layout != Layout::Transport },
            names: Names::of(layout).below("0a1b2c3d"),
        }
    }
}

pub fn picture(name: &str, file: PathBuf) -> Rendition {
    Rendition { file, name: name.into(), kind: Kind::Video }
}

pub fn sound(language: &str, file: PathBuf, default: bool) -> Rendition {
    let kind = Kind::Audio(AudioRendition {
        group: "aac".into(),
        language: Some(language.into()),
        label: String::new(),
        default,
    });
    Rendition { file, name: format!("audio_{language}"), kind }
}

/// A file made by these arguments, once per target folder.
pub fn made(name: &str, arguments: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("renditions");
    let path = folder.join(name);
    if !path.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        // Whoever of several tests is ready first wins; all bytes are the same.
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let part = folder.join(format!("{}-{turn}-{name}", std::process::id()));
        tool("ffmpeg", arguments, Some(&part));
        std::fs::rename(&part, &path).unwrap();
    }
    path
}

#[expect(clippy::disallowed_methods, reason = "tests make and look at media with the real tools")]
fn tool(program: &str, arguments: &str, path: Option<&Path>) -> String {
    let mut command = Command::new(program);
    // SVT-AV1 has a log of its own.
    command.args(["-v", "error"]).env("SVT_LOG", "1");
    if program == "ffmpeg" {
        command.args(["-nostdin", "-y", "-bitexact"]);
    }
    let done = command.args(arguments.split_whitespace()).args(path).stdin(Stdio::null()).output();
    let done = done.expect("these tests need ffmpeg and ffprobe: run `make test`");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.trim().is_empty(), "{program} {arguments} {path:?}: {said}");
    String::from_utf8(done.stdout).unwrap()
}

/// Runs ffmpeg, which writes what it writes beside `path`.
pub fn encode(arguments: &str, path: &Path) {
    tool("ffmpeg", arguments, Some(path));
}

/// Frames that decode of one stream of a presentation.
pub fn frames(path: &Path, stream: &str) -> u64 {
    let arguments =
        format!("-count_frames -select_streams {stream} -show_entries stream=nb_read_frames -of csv=p=0");
    let said = tool("ffprobe", &arguments, Some(path));
    let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim_matches([',', ' ']).parse().unwrap_or_else(|_| panic!("{said:?}"))
}

pub fn text(folder: &Path, path: &str) -> String {
    std::fs::read_to_string(folder.join(path)).unwrap()
}

/// A checksum of every decoded picture of one stream.
pub fn pixels(path: &Path, stream: &str) -> Vec<String> {
    hashes(path, &format!("-map 0:{stream} -f framemd5 -"))
}

/// A checksum of every decoded frame of one stream of sound.
pub fn samples(path: &Path, stream: &str) -> Vec<String> {
    hashes(path, &format!("-map 0:{stream} -af asetnsamples=1024 -f framemd5 -"))
}

fn hashes(path: &Path, arguments: &str) -> Vec<String> {
    let said = tool("ffmpeg", &format!("-i {} {arguments}", path.display()), None);
    let lines = said.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit(',').next()?.trim().to_owned())).collect()
}

/// What kind of picture the first one is.
pub fn first_frame(path: &Path) -> String {
    // The rest of the fragment is not there, which is the point.
    let arguments =
        "-v fatal -select_streams v -read_intervals %+#1 -show_entries frame=pict_type -of csv=p=0";
    tool("ffprobe", arguments, Some(path)).trim().trim_end_matches(',').to_owned()
}

/// When the first picture of a transport stream is shown, ticks of 1/90000 s.
pub fn first_tick(path: &Path) -> u64 {
    let said = tool("ffprobe", "-select_streams v -show_entries packet=pts -of csv=p=0", Some(path));
    let ticks = said.lines().filter_map(|line| line.trim_matches([',', ' ']).parse().ok());
    ticks.min().unwrap()
}

/// Asserts that the linter finds nothing that must not be.
pub fn passes<'a>(folder: &Path, entries: impl Iterator<Item = &'a str>) {
    let report = lint_all(&mut Folder::new(folder), entries);
    let list: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(report.passes(), "{}", list.join("\n"));
    assert!(report.segments > 0 && report.renditions > 0);
}

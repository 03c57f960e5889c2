//! A server with clips made by their ffmpeg arguments, and what an output looks like from outside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::server::{Server, Start};

#[expect(clippy::disallowed_methods, reason = "tests make and look at clips with the real tools")]
fn run(program: &str, arguments: &[&str], paths: &[&Path]) -> Output {
    let mut command = Command::new(program);
    let done = command.args(arguments).args(paths).stdin(Stdio::null()).output();
    let done = done.expect("these tests need ffmpeg and ffprobe: run `make test`");
    assert!(done.status.success(), "{arguments:?} {paths:?}: {}", String::from_utf8_lossy(&done.stderr));
    done
}

/// A server, and the folder of clips that it may read. Both end with the test.
pub struct Bench {
    pub server: Server,
    clips: tempfile::TempDir,
}

impl Bench {
    pub async fn start() -> Self {
        let clips = tempfile::tempdir().unwrap();
        let roots = clips.path().display().to_string();
        Self { server: Start::default().set("FLUX__SOURCES__FILE_ROOTS", roots).server().await, clips }
    }

    /// A clip made by these arguments.
    pub fn make(&self, name: &str, arguments: &str) -> PathBuf {
        let path = self.clips.path().join(name);
        let head = ["-nostdin", "-v", "error", "-y"];
        let words: Vec<&str> = head.into_iter().chain(arguments.split_whitespace()).collect();
        run("ffmpeg", &words, &[&path]);
        path
    }
}

/// The file of a completed job's output.
pub fn output_of(server: &Server, job: &Value) -> PathBuf {
    let path = job["outputs"][0]["result"]["files"][0]["path"].as_str().unwrap_or_else(|| panic!("{job:#}"));
    server.data().join("storage").join(path)
}

/// A job's warnings, without what follows the colon.
pub fn warnings(job: &Value) -> Vec<String> {
    let list = job["outputs"][0]["result"]["warnings"].as_array().cloned().unwrap_or_default();
    list.iter().map(|w| w.as_str().unwrap().split(':').next().unwrap().to_owned()).collect()
}

/// A file as a stranger's tool sees it.
#[derive(Debug)]
pub struct Seen {
    pub size: (u64, u64),
    /// Packets of the picture.
    pub frames: u64,
    /// `primaries/transfer/matrix`, of range `tv`.
    pub color: String,
    /// Channels of the sound.
    pub channels: Option<u64>,
    /// The sound's language.
    pub language: Option<String>,
}

/// Looks at an output; what holds for every output of a picture preset is asserted here.
pub fn look(path: &Path) -> Seen {
    let arguments =
        "-v error -count_packets -show_streams -show_format -of json".split(' ').collect::<Vec<_>>();
    let done = run("ffprobe", &arguments, &[path]);
    let document: Value = serde_json::from_slice(&done.stdout).unwrap();
    let streams = document["streams"].as_array().unwrap();
    let of = |kind: &str| streams.iter().filter(|s| s["codec_type"] == kind).collect::<Vec<_>>();
    let (video, audio) = (of("video"), of("audio"));
    assert_eq!((video.len(), streams.len() - audio.len()), (1, 1), "{document:#}");

    // Upright, square, even, and nothing of it left to the player.
    let picture = video[0];
    assert!(matches!(picture["sample_aspect_ratio"].as_str(), None | Some("1:1")), "{picture:#}");
    let turned =
        picture["side_data_list"].as_array().into_iter().flatten().any(|d| d.get("rotation").is_some());
    assert!(!turned, "{picture:#}");
    let size = (picture["width"].as_u64().unwrap(), picture["height"].as_u64().unwrap());
    assert!(size.0 % 2 == 0 && size.1 % 2 == 0, "{size:?}");
    let tag = |name: &str| picture[name].as_str().unwrap_or("unknown");
    assert_eq!((tag("color_range"), tag("pix_fmt")), ("tv", "yuv420p"), "{picture:#}");

    // Nothing about people and places; only what muxers write of their own accord.
    let own = [
        "major_brand",
        "minor_version",
        "compatible_brands",
        "encoder",
        "language",
        "handler_name",
        "vendor_id",
    ];
    for holder in streams.iter().chain([&document["format"]]) {
        let tags: BTreeMap<String, String> =
            serde_json::from_value(holder["tags"].clone()).unwrap_or_default();
        let others: Vec<_> = tags.keys().filter(|tag| !own.contains(&tag.as_str())).collect();
        assert!(others.is_empty(), "{path:?}: {tags:?}");
        assert!(
            tags.get("handler_name").is_none_or(|n| n == "VideoHandler" || n == "SoundHandler"),
            "{tags:?}"
        );
    }

    let boxes = top_boxes(path);
    let place = |name: &[u8]| boxes.iter().position(|found| found == name);
    assert!(place(b"moov") < place(b"mdat"), "no fast start: {boxes:?}");

    Seen {
        size,
        frames: picture["nb_read_packets"].as_str().unwrap().parse().unwrap(),
        color: format!("{}/{}/{}", tag("color_primaries"), tag("color_transfer"), tag("color_space")),
        channels: audio.first().and_then(|a| a["channels"].as_u64()),
        language: audio.first().and_then(|a| a["tags"]["language"].as_str()).map(str::to_owned),
    }
}

/// Names of an mp4's outermost boxes, in order.
fn top_boxes(path: &Path) -> Vec<[u8; 4]> {
    let bytes = std::fs::read(path).unwrap();
    let (mut at, mut found) = (0, Vec::new());
    while let Some(header) = bytes.get(at..at + 8) {
        found.push(header[4..].try_into().unwrap());
        at += u32::from_be_bytes(header[..4].try_into().unwrap()).max(8) as usize;
    }
    found
}

/// The first frame as RGB, by the file's own tags; gives the pixel at a place.
pub fn first_frame(path: &Path, size: (u64, u64)) -> impl Fn(u64, u64) -> [u8; 3] {
    let head = ["-v", "error", "-i"];
    let tail = "-frames:v 1 -vf scale=flags=accurate_rnd+full_chroma_int,format=rgb24 -f rawvideo -";
    let tail: Vec<&Path> = tail.split(' ').map(Path::new).collect();
    let bytes = run("ffmpeg", &head, &[&[path][..], &tail].concat()).stdout;
    move |x, y| {
        let at = usize::try_from(3 * (y * size.0 + x)).unwrap();
        bytes[at..at + 3].try_into().unwrap()
    }
}

/// The silence that a file's sound begins with, seconds, to a tenth.
pub fn silence(path: &Path) -> Option<f64> {
    let tail = "-vn -af silencedetect=n=-50dB:d=0.1 -f null -".split(' ').map(Path::new);
    let paths: Vec<&Path> = [path].into_iter().chain(tail).collect();
    let log = String::from_utf8(run("ffmpeg", &["-nostdin", "-i"], &paths).stderr).unwrap();
    let end = log.split_once("silence_end: ")?.1.split_whitespace().next()?;
    Some((end.parse::<f64>().ok()? * 10.0).round() / 10.0)
}

/// The part of a file's frames that `idet` finds combed.
pub fn combed(path: &Path) -> f64 {
    let tail: Vec<&Path> = "-map 0:v -vf idet -f null -".split(' ').map(Path::new).collect();
    let log = run("ffmpeg", &["-nostdin", "-hide_banner", "-i"], &[&[path][..], &tail].concat()).stderr;
    let log = String::from_utf8(log).unwrap();
    let counts = log.rsplit_once("Multi frame detection:").unwrap().1;
    let number = |mark: &str| -> f64 {
        counts.split_once(mark).unwrap().1.split_whitespace().next().unwrap().parse().unwrap()
    };
    let [top, bottom, whole] = ["TFF:", "BFF:", "Progressive:"].map(number);
    (top + bottom) / (top + bottom + whole).max(1.0)
}

/// Packets of a file's picture.
pub fn packets(path: &Path) -> u64 {
    let arguments =
        "-v error -select_streams v -count_packets -show_entries stream=nb_read_packets -of csv=p=0";
    let done = run("ffprobe", &arguments.split(' ').collect::<Vec<_>>(), &[path]);
    String::from_utf8(done.stdout).unwrap().trim().trim_end_matches(',').parse().unwrap()
}

/// What a file's first frame says of its colours and its light.
pub struct Facts {
    /// `range/primaries/transfer/matrix/layout`.
    pub tags: String,
    /// Red and the luminances of the mastering display, and the content's light, where they are there.
    pub light: Vec<String>,
}

/// Looks at the first frame.
pub fn first_frame_facts(path: &Path) -> Facts {
    let arguments = "-v error -select_streams v:0 -show_frames -read_intervals %+#1 -of json";
    let done = run("ffprobe", &arguments.split(' ').collect::<Vec<_>>(), &[path]);
    let document: Value = serde_json::from_slice(&done.stdout).unwrap();
    let frame = &document["frames"][0];
    let tag = |name: &str| frame[name].as_str().unwrap_or("unknown");
    let names = ["color_range", "color_primaries", "color_transfer", "color_space", "pix_fmt"];
    let number = |value: &Value| {
        let (num, den) = value.as_str().unwrap().split_once('/').unwrap();
        num.parse::<f64>().unwrap() / den.parse::<f64>().unwrap()
    };
    let light = frame["side_data_list"].as_array().into_iter().flatten().filter_map(|data| {
        match data["side_data_type"].as_str() {
            Some("Mastering display metadata") => {
                let [x, y, most, least] =
                    ["red_x", "red_y", "max_luminance", "min_luminance"].map(|name| number(&data[name]));
                Some(format!("{x:.3},{y:.3} {most:.0} {least:.3}"))
            }
            Some("Content light level metadata") => {
                Some(format!("{} {}", data["max_content"], data["max_average"]))
            }
            _ => None,
        }
    });
    Facts { tags: names.map(tag).join("/"), light: light.collect() }
}

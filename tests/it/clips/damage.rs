//! Cut and flipped sources, container by container (MEDIA-RULES §1.1): never a quiet success where anything can tell.

use std::path::Path;

use serde_json::Value;

use super::kit::Bench;
use crate::support::clips;
use crate::support::server::job_for;

const CLIP: &str = "-f lavfi -i testsrc2=s=160x90:r=25:d=4 -f lavfi -i sine=r=44100:d=4 -pix_fmt yuv420p";
const X264: &str = "-c:v libx264 -preset ultrafast -g 25 -c:a aac";

/// What may become of a damaged clip.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The structure tells.
    Truncated,
    /// The decoder tells.
    Corrupt,
    /// Nothing declares an end, so what is there may pass, as documented; a last frame cut in half may not.
    MayPass,
}

/// Container, how it is made, and what becomes of it cut, and with noise in its middle.
const TABLE: &[(&str, &str, End, End)] = &[
    ("front.mp4", "-movflags +faststart", End::Truncated, End::Corrupt),
    ("end.mp4", "", End::Truncated, End::Corrupt),
    ("fragmented.mp4", "-movflags +frag_keyframe+empty_moov", End::Truncated, End::Corrupt),
    ("in.mkv", "", End::Truncated, End::Corrupt),
    ("in.webm", "-c:v libvpx -deadline realtime -c:a libopus", End::Truncated, End::Corrupt),
    ("in.avi", "-c:v mpeg4 -c:a mp3", End::Truncated, End::Corrupt),
    ("in.flv", "", End::Truncated, End::Corrupt),
    ("in.ogv", "-c:v libtheora -c:a libvorbis", End::Truncated, End::Corrupt),
    ("in.ts", "", End::MayPass, End::Corrupt),
    ("in.mpg", "-c:v mpeg2video -c:a mp2", End::MayPass, End::Corrupt),
];

/// Noise over a tenth of the file, well behind every index and header.
fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let (from, length) = (bytes.len() / 2, bytes.len() / 10);
    for byte in &mut bytes[from..from + length] {
        *byte ^= 0x5a;
    }
    bytes
}

fn beside(path: &Path, what: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = path.with_file_name(format!("{what}-{}", path.file_name().unwrap().to_str().unwrap()));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn fits(job: &Value, end: End) -> bool {
    let failed = |codes: &[&str]| {
        job["status"] == "failed" && codes.contains(&job["error"]["code"].as_str().unwrap_or_default())
    };
    let frames = job["outputs"][0]["result"]["frames"].as_u64();
    match end {
        End::Truncated => failed(&["media_truncated"]),
        // Noise over a container's own headers may also end it early.
        End::Corrupt => failed(&["media_corrupt", "media_truncated"]),
        End::MayPass => failed(&["media_corrupt"]) || frames.is_some_and(|frames| frames <= 100),
    }
}

#[tokio::test]
async fn damage_is_told_in_every_container_that_can_tell() {
    let bench = Bench::start().await;
    let server = &bench.server;
    let mut submitted = Vec::new();
    for (name, how, cut, flip) in TABLE {
        let whole = bench.make(name, &format!("{CLIP} {X264} {how}"));
        let bytes = std::fs::read(&whole).unwrap();
        let sources = [
            ("cut60", beside(&whole, "cut60", &clips::cut(&whole, 0.6)), *cut),
            ("cut95", beside(&whole, "cut95", &clips::cut(&whole, 0.95)), *cut),
            ("flipped", beside(&whole, "flipped", &flipped(&bytes)), *flip),
        ];
        for (what, path, end) in sources {
            submitted.push((format!("{what} {name}"), end, server.submit(&job_for(&path)).await));
        }
    }
    let mut wrong = Vec::new();
    for (what, end, id) in submitted {
        let job = server.finished(&id).await;
        let frames = &job["outputs"][0]["result"]["frames"];
        if !fits(&job, end) {
            wrong.push(format!("{what} should be {end:?}: {} {frames} {}", job["status"], job["error"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.assert_clean().await;
}

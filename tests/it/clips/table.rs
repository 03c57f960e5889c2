//! A verdict for every shared sample clip, each justified by its line in that folder's `MEDIA.md`.

use serde_json::json;

use super::kit;
use crate::support::clips;
use crate::support::server::{Start, job_for};

/// What must become of a clip.
enum Verdict {
    /// A file with exactly so many frames of that size.
    Made {
        frames: u64,
        size: (u64, u64),
        sound: Sound,
        color: &'static str,
        warnings: &'static [&'static str],
    },
    /// No file, and this code.
    Refused(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sound {
    Yes,
    No,
}
use Sound::{No, Yes};

const fn made(
    frames: u64,
    size: (u64, u64),
    sound: Sound,
    color: &'static str,
    warnings: &'static [&'static str],
) -> Verdict {
    Verdict::Made { frames, size, sound, color, warnings }
}

/// High definition; also what everything unusual is converted to.
const HD: &str = "bt709/bt709/bt709";
/// Standard definition at 525-line rates: said so, or small and untagged.
const SD525: &str = "smpte170m/smpte170m/smpte170m";
/// Standard definition at 25 or 50 frames.
const SD625: &str = "bt470bg/smpte170m/bt470bg";
/// Its picture fits into the preset's box of 640x360 (turned for portrait) as it is.
const SMALL: &[&str] = &["not_upscaled"];
const PLAIN: &[&str] = &[];

/// Frames are `MEDIA.md`'s decoded count, but where a comment says otherwise. Sizes are the picture upright and with
/// square samples, contained in 640x360, to the nearest even number.
const CLIPS: &[(&str, Verdict)] = &[
    ("portrait.MOV", made(62, (320, 568), Yes, HD, SMALL)),
    ("sample.3gp", made(74, (176, 144), Yes, SD525, SMALL)),
    ("WrongFile.mp4", Verdict::Refused("media_corrupt")),
    ("run.mp4", made(150, (640, 356), No, SD525, PLAIN)),
    // 720x480 with samples of 11:12 is 660x480; 495 is made even.
    ("test1.mp4", made(21, (496, 360), Yes, SD525, PLAIN)),
    ("te[s]t_ video ' _ .flv", made(10, (320, 240), No, SD525, SMALL)),
    ("testvideo-43.avi", made(10, (480, 360), No, SD525, PLAIN)),
    // Its second picture is a cover.
    ("big_buck_bunny_metadata.m4v", made(24, (320, 180), Yes, SD525, SMALL)),
    // Primaries of a phone's display, full range: converted.
    ("meta.mov", made(30, (360, 640), Yes, HD, PLAIN)),
    ("webm_480.webm", made(901, (480, 270), Yes, SD525, SMALL)),
    ("mkv_640x360.mkv", made(400, (640, 360), No, SD525, PLAIN)),
    ("cockatoo.mp4", made(280, (640, 360), Yes, HD, PLAIN)),
    ("realshort.mp4", made(36, (320, 240), Yes, SD525, SMALL)),
    ("flipping_a_pancake.mkv", made(310, (426, 240), Yes, SD525, SMALL)),
    ("video_90.mov", made(3, (320, 568), No, HD, SMALL)),
    ("video_180.mov", made(3, (568, 320), No, HD, SMALL)),
    ("video_270.mov", made(3, (320, 568), No, HD, SMALL)),
    ("unordered.mov", made(4, (50, 50), No, SD525, SMALL)),
    // One packet of 50 cannot be decoded; what `on_damage: warn` makes of it is below.
    ("corrupted.mp4", Verdict::Refused("media_corrupt")),
    ("hlg10-color-test.mp4", made(9, (640, 360), Yes, HD, &["tone_mapped"])),
    ("sample_av1.mp4", made(30, (540, 360), Yes, HD, PLAIN)),
    // 800x640 with samples of 64:45 is 16:9.
    ("bbb_800x640_768kbps_30fps_vp9.mp4", made(120, (640, 360), No, SD525, PLAIN)),
    ("h265_bframes.mp4", made(30, (640, 360), No, SD525, PLAIN)),
    ("sample_fragmented_seekable.mp4", made(30, (540, 360), Yes, HD, PLAIN)),
    ("silent-black-10s.mp4", made(300, (320, 240), Yes, SD525, SMALL)),
    ("sample_12_5fps_720p_1s.mp4", made(13, (640, 360), Yes, HD, PLAIN)),
    ("sample_with_srt.mkv", made(30, (540, 360), Yes, HD, PLAIN)),
    // 30 frames in 0.05 s are 600 a second; halved until at most 60 they are 37.5, of which two fit.
    ("sample_with_vobsub.mkv", made(2, (540, 360), Yes, HD, PLAIN)),
    ("bear-vp9.webm", made(82, (320, 240), No, SD525, SMALL)),
    ("sample_h264.ts", made(30, (640, 360), No, SD525, PLAIN)),
    ("sample_h263.ts", made(25, (640, 360), No, SD625, PLAIN)),
    ("sd-hls0000000000.ts", made(58, (640, 360), Yes, SD525, PLAIN)),
    ("bbb_1ch_16kHz_aac.mp4", Verdict::Refused("no_video_stream")),
    ("bear-opus.mka", Verdict::Refused("no_video_stream")),
    ("sample-with-key-frame-index.flv", made(71, (320, 180), No, SD525, SMALL)),
    // Tagged with primaries that no player knows: converted.
    ("3seconds.ogv", made(90, (320, 240), No, HD, SMALL)),
    ("crystal.webm", made(359, (540, 360), Yes, SD525, PLAIN)),
    ("rabbit320.mp4", made(234, (320, 240), Yes, "smpte170m/bt709/smpte170m", SMALL)),
    ("fixture2.mpg", made(419, (320, 240), No, SD525, SMALL)),
    ("fixture2.3gp", made(97, (192, 144), Yes, SD525, SMALL)),
    ("orientation.mp4", made(2, (360, 640), No, HD, PLAIN)),
    ("out9_sm.webm", made(248, (178, 100), No, SD525, SMALL)),
    ("testMovie.mp4", made(237, (352, 288), Yes, SD525, SMALL)),
    // 388x300 with samples of 237:235 is 391.3 wide.
    ("test-segment.ts", made(134, (392, 300), Yes, SD525, SMALL)),
    ("bigbuckbunny.mp4", made(132, (640, 360), Yes, HD, PLAIN)),
    // 176x144 with samples of 128:117 is 192.55 wide; 193 is made even.
    ("carphone_distorted.mp4", made(120, (194, 144), No, SD525, SMALL)),
];

#[tokio::test]
#[expect(clippy::print_stderr, reason = "says loudly what was not tried, and what was found where")]
async fn every_shared_clip_gets_its_verdict() {
    let Some(folder) = clips::shared().and_then(|folder| folder.canonicalize().ok()) else {
        eprintln!("SKIPPED: ../shared/media is not here; none of its {} clips was tried", CLIPS.len());
        return;
    };
    let there = std::fs::read_dir(&folder).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    let without_row: Vec<String> =
        there.filter(|name| name != "MEDIA.md" && !CLIPS.iter().any(|(clip, _)| clip == name)).collect();
    assert!(without_row.is_empty(), "clips without a row: {without_row:?}");

    let server =
        Start::default().set("FLUX__SOURCES__FILE_ROOTS", folder.display().to_string()).server().await;
    let mut submitted = Vec::new();
    for (clip, verdict) in CLIPS {
        submitted.push((*clip, verdict, server.submit(&job_for(&folder.join(clip))).await));
    }
    let mut forgiving = job_for(&folder.join("corrupted.mp4"));
    forgiving["on_damage"] = json!("warn");
    let warned = made(49, (640, 360), No, HD, &["source_damaged"]);
    submitted.push(("corrupted.mp4, on_damage: warn", &warned, server.submit(&forgiving).await));

    let mut wrong = Vec::new();
    for (clip, verdict, id) in submitted {
        let job = server.finished(&id).await;
        let found = if job["status"] == "completed" {
            let seen = kit::look(&kit::output_of(&server, &job));
            assert_eq!(job["outputs"][0]["result"]["frames"], seen.frames, "{clip}");
            let sound = seen.channels.map_or("silent", |_| "sound");
            format!("{} {:?} {sound} {} {:?}", seen.frames, seen.size, seen.color, kit::warnings(&job))
        } else {
            job["error"]["code"].as_str().unwrap_or("no code").to_owned()
        };
        let expected = match verdict {
            Verdict::Refused(code) => (*code).to_owned(),
            Verdict::Made { frames, size, sound, color, warnings } => {
                let sound = if *sound == Yes { "sound" } else { "silent" };
                format!("{frames} {size:?} {sound} {color} {warnings:?}")
            }
        };
        eprintln!("{clip}: {found}");
        if found != expected {
            wrong.push(format!("{clip}\n  found    {found}\n  expected {expected}\n  {}", job["error"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} clips:\n{}", wrong.len(), CLIPS.len() + 1, wrong.join("\n"));
    server.assert_clean().await;
}

//! Clips made by ffmpeg on the spot, once per target folder, so that the tests need no files of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A picture with moving content, every frame different, and a tone.
pub const SOURCE: &[&str] = &[
    "-f",
    "lavfi",
    "-i",
    "testsrc2=size=320x180:rate=25",
    "-f",
    "lavfi",
    "-i",
    "sine=frequency=440:sample_rate=48000",
];

/// Where the shared sample clips are, when this machine has them.
pub fn shared() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/media");
    folder.join("MEDIA.md").exists().then_some(folder)
}

/// A clip of so many seconds, 320x180 at 25, H.264 and AAC, index in front.
pub fn mp4(seconds: u32) -> PathBuf {
    make(&format!("clip-{seconds}.mp4"), |cmd| {
        cmd.args(SOURCE).args([
            "-t",
            &seconds.to_string(),
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-g",
            "50",
        ]);
        cmd.args(["-pix_fmt", "yuv420p", "-c:a", "aac", "-movflags", "+faststart"]);
    })
}

/// A clip of 65 MiB in a folder of its own, most of it a box that players skip.
pub fn large(folder: &Path) -> PathBuf {
    let mut clip = std::fs::read(mp4(1)).unwrap();
    let padding = 65 * 1024 * 1024_u32;
    clip.extend(padding.to_be_bytes());
    clip.extend(b"free");
    clip.resize(clip.len() + usize::try_from(padding).unwrap() - 8, 0);
    let file = folder.join("film.mp4");
    std::fs::write(&file, &clip).unwrap();
    file
}

/// The least work: ten small pictures and a tone.
pub fn tiny() -> PathBuf {
    make("tiny.mp4", |cmd| {
        cmd.args(["-f", "lavfi", "-i", "testsrc2=size=160x90:rate=25"]);
        cmd.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", "0.4"]);
        cmd.args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"]);
        cmd.args(["-movflags", "+faststart"]);
    })
}

/// A clip that takes an encoder a while: 1280x720 for so many seconds.
pub fn long(seconds: u32) -> PathBuf {
    make(&format!("long-{seconds}.mp4"), |cmd| {
        cmd.args(["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30", "-t", &seconds.to_string()]);
        cmd.args([
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-pix_fmt",
            "yuv420p",
            "-movflags",
            "+faststart",
        ]);
    })
}

/// The same kind of clip in another container.
pub fn other(extension: &str) -> PathBuf {
    make(&format!("clip.{extension}"), |cmd| {
        cmd.args(SOURCE).args(["-t", "4"]);
        match extension {
            "webm" => cmd.args(["-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus"]),
            "avi" => cmd.args(["-c:v", "mpeg4", "-c:a", "mp3"]),
            _ => cmd.args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"]),
        };
    })
}

/// A picture that begins half a second after its sound.
pub fn late_picture() -> PathBuf {
    make("late.mkv", |cmd| {
        cmd.args([
            "-f",
            "lavfi",
            "-i",
            "sine=frequency=440:sample_rate=48000:duration=4",
            "-itsoffset",
            "0.5",
        ]);
        cmd.args([
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=320x180:rate=25:duration=3",
            "-map",
            "1:v",
            "-map",
            "0:a",
        ]);
        cmd.args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"]);
    })
}

/// Eight seconds of picture, two of sound.
pub fn short_sound() -> PathBuf {
    make("short-sound.mp4", |cmd| {
        cmd.args(["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=8"]);
        cmd.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=2"]);
        cmd.args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"]);
    })
}

/// Eight seconds, dark and silent but for one white frame and a beep as long as it at every full second.
pub fn flash_and_beep() -> PathBuf {
    make("flash.mp4", |cmd| {
        let flash = "color=black:size=320x180:rate=25,drawbox=t=fill:color=white:enable='lt(mod(t,1),0.039)'";
        let beep = "aevalsrc='if(lt(mod(t,1),0.04),0.8*sin(2*PI*1000*t),0)':s=48000";
        cmd.args(["-f", "lavfi", "-i", flash, "-f", "lavfi", "-i", beep, "-t", "8"]);
        cmd.args(["-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-pix_fmt", "yuv420p"]);
        cmd.args(["-c:a", "aac", "-b:a", "192k"]);
    })
}

/// Eight seconds of a sound by its formula, not compressed.
pub fn sound(name: &str, formula: &str) -> PathBuf {
    make(&format!("sound-{name}.wav"), |cmd| {
        cmd.args(["-f", "lavfi", "-i", &format!("aevalsrc='{formula}':s=48000:d=8"), "-c:a", "pcm_s16le"]);
    })
}

/// A picture of six seconds with two sounds: German and loud, French and quiet.
pub fn two_sounds() -> PathBuf {
    make("two-sounds.mkv", |cmd| {
        cmd.args(["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=6"]);
        cmd.args(["-f", "lavfi", "-i", "aevalsrc='0.8*sin(2*PI*330*t)':s=48000:d=6"]);
        cmd.args(["-f", "lavfi", "-i", "aevalsrc='0.04*sin(2*PI*220*t)':s=48000:d=6"]);
        cmd.args(["-map", "0:v", "-map", "1:a", "-map", "2:a", "-c:v", "libx264", "-preset", "ultrafast"]);
        cmd.args(["-pix_fmt", "yuv420p", "-c:a", "flac"]);
        cmd.args(["-metadata:s:a:0", "language=deu", "-metadata:s:a:1", "language=fra"]);
    })
}

/// Two seconds of HDR10.
pub fn hdr() -> PathBuf {
    make("hdr.mp4", |cmd| {
        cmd.args(["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=2"]);
        cmd.args(["-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1"]);
        cmd.args(["-x265-params", "log-level=none"]);
        cmd.args(["-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc"]);
        cmd.args(["-color_range", "tv"]);
    })
}

/// Two seconds with six channels of AC-3.
pub fn surround() -> PathBuf {
    make("surround.mkv", |cmd| {
        cmd.args(["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"]);
        cmd.args([
            "-f",
            "lavfi",
            "-i",
            "sine=frequency=440:sample_rate=48000,pan=5.1|c0=c0|c1=c0|c2=c0|c3=c0|c4=c0|c5=c0",
        ]);
        cmd.args([
            "-t",
            "2",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-pix_fmt",
            "yuv420p",
            "-c:a",
            "ac3",
        ]);
    })
}

/// Six seconds, the first two black, 320x180 with a key frame each second.
pub fn black_start() -> PathBuf {
    make("black-start.mp4", |cmd| {
        cmd.args(["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=6"]);
        cmd.args(["-vf", "drawbox=color=black:t=fill:enable='lt(t,2)'", "-c:v", "libx264", "-g", "25"]);
        cmd.args(["-preset", "ultrafast", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]);
    })
}

/// Subtitles of [`subtitled`]: one begins before a key frame and lasts beyond it, one has what `WebVTT` takes for its own.
const TEXTS: &str = "1\n00:00:00,500 --> 00:00:01,500\n<i>Guten</i> Tag\n\n\
     2\n00:00:03,500 --> 00:00:05,500\nTom & Jerry <3\nx --> y\n\n\
     3\n00:00:06,200 --> 00:00:12,000\nSchluss\n";

/// Eight seconds with a key frame every two, and two tracks of subtitles: German, and English for those who do not hear.
pub fn subtitled(extension: &str) -> PathBuf {
    make(&format!("subtitled.{extension}"), |cmd| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clips");
        std::fs::create_dir_all(&folder).unwrap();
        let texts = folder.join(format!("subtitled-{extension}-{}.srt", std::process::id()));
        std::fs::write(&texts, TEXTS).unwrap();
        cmd.args(["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=8"]);
        cmd.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=8", "-i"]).arg(texts);
        cmd.args(["-map", "0:v", "-map", "1:a", "-map", "2:s", "-map", "2:s", "-t", "8"]);
        cmd.args([
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-g",
            "50",
            "-pix_fmt",
            "yuv420p",
            "-c:a",
            "aac",
        ]);
        cmd.args(["-c:s", if extension == "mkv" { "srt" } else { "mov_text" }]);
        cmd.args(["-metadata:s:s:0", "language=ger", "-metadata:s:s:1", "language=eng"]);
        cmd.args(["-disposition:s:1", "hearing_impaired"]);
    })
}

/// Sound without a picture.
pub fn audio_only() -> PathBuf {
    make("audio.m4a", |cmd| {
        cmd.args(["-f", "lavfi", "-i", "sine=frequency=440", "-t", "2", "-c:a", "aac"]);
    })
}

/// The first part of a file's bytes.
pub fn cut(path: &Path, keep: f64) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "small test files"
    )]
    let length = (bytes.len() as f64 * keep) as usize;
    bytes[..length].to_vec()
}

fn make(name: &str, arguments: impl FnOnce(&mut Command)) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clips");
    let path = folder.join(name);
    if path.exists() {
        return path;
    }
    std::fs::create_dir_all(&folder).unwrap();
    // Tests run side by side in processes of their own: whoever is ready first wins, all bytes are the same.
    let part = folder.join(format!("{}-{name}", std::process::id()));
    #[expect(clippy::disallowed_methods, reason = "tests make their clips with the real tool")]
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]);
    arguments(&mut command);
    let status =
        command.arg(&part).stdin(Stdio::null()).status().expect("these tests need ffmpeg: run `make test`");
    assert!(status.success(), "ffmpeg could not make {name}");
    std::fs::rename(&part, &path).unwrap();
    path
}

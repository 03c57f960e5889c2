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

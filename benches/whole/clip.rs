//! The clips that are encoded: made once, kept in the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    std::fs::create_dir_all(&folder).expect("a folder for clips");
    folder
}

/// 1280x720 at 30 with sound, so many seconds of moving content with noise, as a camera gives it.
pub(crate) fn hd(seconds: u32) -> PathBuf {
    let path = folder().join(format!("camera-{seconds}.mp4"));
    if !path.exists() {
        let part = path.with_extension("part.mp4");
        let status = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30"])
            .args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", &seconds.to_string()])
            .args(["-vf", "noise=alls=3:allf=t", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20"])
            .args(["-pix_fmt", "yuv420p", "-c:a", "aac", "-movflags", "+faststart"])
            .arg(&part)
            .status();
        assert!(status.is_ok_and(|s| s.success()), "ffmpeg could not make the clip");
        std::fs::rename(&part, &path).expect("the clip is kept");
    }
    path
}

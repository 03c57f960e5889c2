//! Command lines of stills: one frame to standard output as plain samples, and pictures made of many such frames.

use super::{Argv, LookAhead, Reading, filter, input_options};
use crate::domain::preset::{Sprite, StillFormat};
use crate::media::plan::{PosterPlan, StillsPlan, VideoPlan};

/// Which frame a moment means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The one that is shown then: everything since the key frame before it is decoded.
    Exact,
    /// The key frame before it: one frame is decoded.
    Key,
}

/// One frame as RGB on standard output.
#[must_use]
pub fn still(picture: &VideoPlan, reading: &Reading<'_>, seconds: f64, moment: Moment) -> Vec<String> {
    let mut argv = Argv::default();
    argv.flag("-nostdin");
    argv.flag("-hide_banner");
    argv.pair("-loglevel", "level+error");
    if let Some(threads) = reading.limits.threads {
        argv.pair("-threads", threads);
    }
    if moment == Moment::Key {
        argv.flag("-noaccurate_seek");
    }
    argv.pair("-ss", format!("{seconds:.3}"));
    argv.0.extend(input_options(reading, LookAhead::Near));
    argv.pair("-map", format!("0:{}", picture.stream));
    argv.pair("-frames:v", 1);
    argv.pair("-vf", filter::chain(&picture.filters));
    argv.pair("-pix_fmt", "rgb24");
    argv.pair("-f", "rawvideo");
    argv.flag("pipe:1");
    argv.0
}

/// Pictures of a batch of frames in the file `raw` of the working directory, written from number `first` on as
/// `pattern` says.
#[must_use]
pub fn still_files(
    plan: &StillsPlan,
    sheet: Option<Sprite>,
    (raw, pattern): (&str, &str),
    first: u32,
) -> Vec<String> {
    let mut argv = Argv::default();
    argv.flag("-nostdin");
    argv.flag("-hide_banner");
    argv.pair("-loglevel", "level+error");
    argv.flag("-y");
    argv.pair("-protocol_whitelist", "file");
    argv.pair("-f", "rawvideo");
    argv.pair("-pixel_format", "rgb24");
    argv.pair("-video_size", format!("{}x{}", plan.picture.width, plan.picture.height));
    argv.pair("-framerate", 1);
    argv.pair("-i", format!("file:{raw}"));
    if let Some(Sprite { columns, rows }) = sheet {
        argv.pair("-vf", format!("tile={columns}x{rows}"));
    }
    match plan.format {
        StillFormat::Jpg => {
            argv.pair("-c:v", "mjpeg");
            argv.pair("-pix_fmt", "yuvj420p");
            argv.pair("-q:v", jpeg_scale(plan.quality));
        }
        StillFormat::Png => {
            argv.pair("-c:v", "png");
            argv.pair("-pix_fmt", "rgb24");
        }
        StillFormat::Webp => {
            argv.pair("-c:v", "libwebp");
            argv.pair("-pix_fmt", "yuv420p");
            argv.pair("-quality", plan.quality);
        }
    }
    argv.pair("-map_metadata", "-1");
    argv.pair("-f", "image2");
    argv.pair("-start_number", first);
    argv.flag(format!("file:{pattern}"));
    argv.0
}

/// A poster, the last of a process's outputs.
pub(super) fn poster(argv: &mut Argv, poster: &PosterPlan, label: &str) {
    /// On ffmpeg's scale: what quality 85 is.
    const SCALE: u32 = 6;
    argv.pair("-map", format!("[{label}]"));
    argv.pair("-frames:v", 1);
    argv.pair("-c:v", "mjpeg");
    argv.pair("-pix_fmt:v", "yuvj420p");
    argv.pair("-q:v", SCALE);
    argv.pair("-fps_mode:v", "passthrough");
    argv.pair("-map_metadata", "-1");
    argv.pair("-f", "image2");
    argv.pair("-update", 1);
    argv.flag(format!("file:{}", poster.file_name));
}

/// ffmpeg's scale of JPEG is 2 (best) to 31.
fn jpeg_scale(quality: u8) -> u32 {
    2 + (100 - u32::from(quality.min(100))) * 29 / 99
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualities_span_the_scale() {
        assert_eq!([100, 85, 50, 1].map(jpeg_scale), [2, 6, 16, 31]);
    }
}

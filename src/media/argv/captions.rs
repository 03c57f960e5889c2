//! Subtitles on the command line.

use super::Argv;
use crate::domain::preset::FileFormat;
use crate::media::plan::{CaptionTrack, CaptionsPlan, LEAD_SECONDS, MuxedCaptions};

/// The tracks of a file, after its picture and sound.
pub(super) fn muxed(argv: &mut Argv, tracks: &[MuxedCaptions], format: FileFormat) {
    for (n, MuxedCaptions { track, codec }) in tracks.iter().enumerate() {
        argv.pair("-map", format!("0:{}", track.stream));
        argv.pair(&format!("-c:s:{n}"), codec);
        if let Some(language) = track.language.map(|language| super::named(language, format)) {
            argv.pair(&format!("-metadata:s:s:{n}"), format!("language={language}"));
        }
        argv.pair(&format!("-disposition:s:{n}"), disposition(track));
    }
}

/// What players are told of a track. None is shown unasked: sources call most of theirs the default.
const fn disposition(track: &CaptionTrack) -> &'static str {
    match (track.forced, track.hearing_impaired) {
        (false, false) => "0",
        (true, false) => "forced",
        (false, true) => "hearing_impaired",
        (true, true) => "forced+hearing_impaired",
    }
}

/// A track as `WebVTT`, for a set.
pub(super) fn apart(argv: &mut Argv, captions: &CaptionsPlan, brake_seconds: f64) {
    argv.pair("-map", format!("0:{}", captions.track.stream));
    argv.pair("-c:s", "webvtt");
    argv.pair("-map_metadata", "-1");
    argv.pair("-map_chapters", "-1");
    argv.pair("-t", format!("{brake_seconds:.3}"));
    argv.pair("-output_ts_offset", LEAD_SECONDS);
    argv.pair("-f", "webvtt");
    argv.flag(format!("file:{}", captions.file_name));
}

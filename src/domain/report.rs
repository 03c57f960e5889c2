//! How an output was made and what came of it, as measured on its bytes: kept with the result, for people who compare.
//!
//! Everything is bounded: a stream is a few hundred bytes, and a command line is kept whole up to [`MAX_COMMAND`] only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ColorSpace;

/// Bytes of a command line that is kept whole. Six renditions of a ladder are below it; fifty outputs of one process,
/// each of which would repeat the line, are not.
pub const MAX_COMMAND: usize = 8 * 1024;

/// How an output was made and what came of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct OutputReport {
    /// Its streams, those of a set by rendition.
    pub streams: Vec<StreamReport>,
    /// How ffmpeg was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandReport>,
    /// Versions of the tools and libraries by name, of those that said theirs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, String>,
}

/// A command line without names of this machine and of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReport {
    /// The words, the program first.
    pub argv: Vec<String>,
    /// Whether it is all of it. Otherwise options of other outputs of the process, and the filter graph that they share,
    /// are left out.
    pub complete: bool,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamReport {
    /// Its rendition, in a set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendition: Option<String>,
    /// ffmpeg's name of the codec.
    pub codec: String,
    /// As manifests and players name it (RFC 6381), where it can be told.
    pub codec_string: Option<String>,
    /// Shown span, seconds.
    pub duration_seconds: f64,
    /// Bit/s over the span.
    pub bitrate_average: u64,
    /// Bit/s of the busiest second.
    pub bitrate_peak: u64,
    /// What only its kind has.
    #[serde(flatten)]
    pub kind: KindReport,
}

/// What only one kind of stream has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum KindReport {
    /// A picture.
    Video {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Frames per second over the span.
        frame_rate: Option<f64>,
        /// ffmpeg's name of the pixel format.
        pixel_format: Option<String>,
        /// Colour tags.
        color: ColorSpace,
        /// Frames.
        frames: u64,
        /// What was meant to be.
        planned: PlannedVideo,
    },
    /// A sound.
    Audio {
        /// Channels.
        channels: u16,
        /// Samples per second.
        sample_rate: u32,
        /// ISO 639 tag, where set.
        language: Option<String>,
        /// How loud it was and became, where it was measured.
        loudness: Option<LoudnessReport>,
        /// What was meant to be.
        planned: PlannedAudio,
    },
    /// Subtitles.
    Subtitle {
        /// ISO 639 tag, where set.
        language: Option<String>,
        /// Only what must be read also by those who follow the sound.
        forced: bool,
    },
}

/// What a picture was meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PlannedVideo {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Frames per second, where anybody knew.
    pub frame_rate: Option<f64>,
    /// Seconds, where the source says how long it is.
    pub duration_seconds: Option<f64>,
    /// Average bit/s, where a rate was asked for.
    pub bitrate: Option<u64>,
    /// Ceiling of the rate, bit/s, where there is one.
    pub bitrate_max: Option<u64>,
}

/// What a sound was meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PlannedAudio {
    /// Seconds, where the source says how long it is.
    pub duration_seconds: Option<f64>,
    /// Bit/s.
    pub bitrate: u64,
}

/// How loud a sound was, and what was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LoudnessReport {
    /// Integrated loudness after the downmix, LUFS; none in silence.
    pub input_lufs: Option<f64>,
    /// Highest true peak, dBTP; none in silence.
    pub input_true_peak: Option<f64>,
    /// The constant gain, dB.
    pub gain_db: f64,
    /// Loudness with that gain, LUFS; none in silence.
    pub reached_lufs: Option<f64>,
    /// What came of it.
    pub mode: LoudnessMode,
}

/// What came of a loudness target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoudnessMode {
    /// The target.
    Reached,
    /// As much as the true peak allows.
    PeakLimited,
    /// Nothing: silence, or too short to say anything.
    Untouched,
}

impl LoudnessReport {
    /// The report of a measurement and of the gain in dB that was chosen, with whether the peak limited it.
    #[must_use]
    pub fn of(integrated: f64, true_peak: f64, gain: Option<(f64, bool)>) -> Self {
        let tenths = |value: f64| value.is_finite().then(|| (value * 100.0).round() / 100.0);
        let (gain_db, mode) = match gain {
            None => (0.0, LoudnessMode::Untouched),
            Some((db, true)) => (db, LoudnessMode::PeakLimited),
            Some((db, false)) => (db, LoudnessMode::Reached),
        };
        Self {
            input_lufs: tenths(integrated),
            input_true_peak: tenths(true_peak),
            gain_db: tenths(gain_db).unwrap_or_default(),
            reached_lufs: tenths(integrated + gain_db),
            mode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_has_no_loudness_and_json_no_infinity() {
        let silent = LoudnessReport::of(f64::NEG_INFINITY, f64::NEG_INFINITY, None);
        assert_eq!((silent.input_lufs, silent.mode), (None, LoudnessMode::Untouched));
        let loud = LoudnessReport::of(-20.0, -4.0, Some((2.0, true)));
        assert_eq!((loud.reached_lufs, loud.mode), (Some(-18.0), LoudnessMode::PeakLimited));
        let json = serde_json::to_string(&loud).unwrap();
        assert_eq!(serde_json::from_str::<LoudnessReport>(&json).unwrap(), loud);
    }

    #[test]
    fn a_stream_says_its_kind_and_reads_back() {
        let stream = StreamReport {
            rendition: None,
            codec: "aac".into(),
            codec_string: Some("mp4a.40.2".into()),
            duration_seconds: 2.0,
            bitrate_average: 128_000,
            bitrate_peak: 130_000,
            kind: KindReport::Audio {
                channels: 2,
                sample_rate: 48_000,
                language: None,
                loudness: None,
                planned: PlannedAudio { duration_seconds: Some(2.0), bitrate: 128_000 },
            },
        };
        let json = serde_json::to_value(&stream).unwrap();
        assert_eq!(json["kind"], "audio");
        assert_eq!(serde_json::from_value::<StreamReport>(json).unwrap(), stream);
    }
}

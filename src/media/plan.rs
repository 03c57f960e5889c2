//! What to encode, decided purely: `(MediaInfo, outputs, policy) → EncodePlan`.

use crate::domain::preset::{AudioCodec, Container, Rate, Speed, VideoCodec};
use crate::domain::{OutputIndex, Rational};

/// One ffmpeg process: one source, one decode, all outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodePlan {
    /// The outputs, in job order.
    pub outputs: Vec<OutputPlan>,
    /// Span of media to expect, seconds, for progress and time limits; `None` when the source does not say.
    pub expected_seconds: Option<f64>,
    /// Longest output that is written before the encode counts as runaway, seconds.
    pub max_seconds: f64,
}

/// One output file.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputPlan {
    /// The job's output.
    pub index: OutputIndex,
    /// File format.
    pub container: Container,
    /// File name in the work folder: `out-{index}.{ext}`.
    pub file_name: String,
    /// The picture.
    pub video: Option<VideoPlan>,
    /// The sound.
    pub audio: Option<AudioPlan>,
    /// What the client should know (`not_upscaled`, …).
    pub warnings: Vec<String>,
}

/// The picture of an output, every decision made.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoPlan {
    /// Source stream index.
    pub stream: u32,
    /// Codec.
    pub codec: VideoCodec,
    /// Encoder effort.
    pub speed: Speed,
    /// How bits are spent.
    pub rate: Rate,
    /// Final width, even, pixels.
    pub width: u32,
    /// Final height, even, pixels.
    pub height: u32,
    /// The filter chain, in order.
    pub filters: Vec<Filter>,
    /// Frame timing.
    pub timing: Timing,
    /// Keyframe distance, frames.
    pub keyframe_interval: u32,
    /// B-frames, where set.
    pub bframes: Option<u8>,
    /// Profile as the encoder spells it, where set.
    pub profile: Option<&'static str>,
    /// Level as the encoder spells it, where set.
    pub level: Option<&'static str>,
    /// Pixel format.
    pub pix_fmt: &'static str,
    /// Colour of the result, tagged so.
    pub color: PlannedColor,
}

/// A filter flux may emit. Filters that open files do not exist here (MEDIA-RULES §1.3).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Filter {
    /// To be extended by the planner's author.
    SetSar,
}

/// Frame timing of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// The source's frames and times: frames out = frames decoded.
    Passthrough,
    /// Even spacing at this rate on the absolute timeline.
    Cfr(Rational),
}

/// Colour tags of the result, in ffmpeg's spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedColor {
    /// Primaries.
    pub primaries: String,
    /// Transfer.
    pub transfer: String,
    /// Matrix.
    pub matrix: String,
    /// `tv` or `pc`.
    pub range: &'static str,
}

/// The sound of an output, every decision made.
#[derive(Debug, Clone, PartialEq)]
pub struct AudioPlan {
    /// Source stream index.
    pub stream: u32,
    /// Codec.
    pub codec: AudioCodec,
    /// Bit rate, bit/s.
    pub bitrate: u32,
    /// Channels of the result.
    pub channels: u16,
    /// Samples per second of the result.
    pub sample_rate: u32,
    /// Loudness to reach by one constant gain measured first; `None` = untouched.
    pub loudness: Option<crate::domain::preset::Loudness>,
}

//! Typed encode settings: what a preset resolves to and what a request may set. Never ffmpeg arguments.

mod captions;
mod catalogue;
mod check;
mod clip;
mod container;
mod copy;
mod level;
mod merge;
mod package;
mod picture;
mod read;
mod stills;
mod units;

use serde::{Deserialize, Serialize};

pub use captions::{CaptionMode, CaptionSource, CaptionsSpec};
pub use catalogue::{InvalidPreset, PresetName, Presets};
pub use check::AV1_MIN_SIDE;
pub use clip::{Clip, MediaTime};
pub use container::{Container, FileFormat};
pub use copy::{CopyWord, Picture, PictureCopy, Sound, SoundCopy, Takes};
pub use level::{Excess, Level, Load, lowest as lowest_level};
pub use package::{InvalidPackage, Manifest, NameTemplate, Names, PackageSpec, Rung, RungName, Segment};
pub use picture::{Crop, Deinterlace, Flip, PadColor};
pub use stills::{MAX_STILLS, Sprite, StillFormat, StillTimes, StillsSpec, poster_name};
pub use units::{BitRate, BoxSize, InvalidUnit};

use super::{Rational, Rotation};

/// A complete, checked encode setting: one output, which is a file or a set of them.
///
/// Made by [`Presets::resolve`], which checks it. Deserialising (a stored job) does not check again; [`Self::faults`] does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodeSpec {
    /// The file format.
    pub container: Container,
    /// The picture; absent = no picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<Picture>,
    /// The sound; absent = no sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<Sound>,
    /// The pictures of a set, top first; empty = one, as `video` says. Each inherits what it does not say from `video`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ladder: Vec<Rung>,
    /// How a set is cut and listed; present exactly where the container is a set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageSpec>,
    /// The part of the source; absent = all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<Clip>,
    /// Which moments become pictures; present exactly where the container is made of stills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stills: Option<StillsSpec>,
    /// Whether a picture of the film is published beside it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub poster: bool,
    /// The source's subtitles; absent = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captions: Option<CaptionsSpec>,
}

/// Picture codecs that flux encodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoCodec {
    /// H.264 by x264.
    H264,
    /// HEVC by x265.
    Hevc,
    /// AV1 by SVT-AV1.
    Av1,
    /// VP9 by libvpx.
    Vp9,
}

impl VideoCodec {
    /// ffmpeg's encoder.
    #[must_use]
    pub const fn encoder(self) -> &'static str {
        match self {
            Self::H264 => "libx264",
            Self::Hevc => "libx265",
            Self::Av1 => "libsvtav1",
            Self::Vp9 => "libvpx-vp9",
        }
    }

    /// ffprobe's name of the result.
    #[must_use]
    pub const fn codec_name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Av1 => "av1",
            Self::Vp9 => "vp9",
        }
    }
}

/// Sound codecs that flux encodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioCodec {
    /// AAC-LC.
    Aac,
    /// Opus.
    Opus,
    /// MP3.
    Mp3,
}

impl AudioCodec {
    /// ffmpeg's encoder.
    #[must_use]
    pub const fn encoder(self) -> &'static str {
        match self {
            Self::Aac => "aac",
            Self::Opus => "libopus",
            Self::Mp3 => "libmp3lame",
        }
    }

    /// ffprobe's name of the result.
    #[must_use]
    pub const fn codec_name(self) -> &'static str {
        match self {
            Self::Aac => "aac",
            Self::Opus => "opus",
            Self::Mp3 => "mp3",
        }
    }

    /// Samples per coded frame, the tolerance of audio verification (MEDIA-RULES §2, V4).
    #[must_use]
    pub const fn frame_samples(self) -> u32 {
        match self {
            Self::Aac => 1024,
            Self::Opus => 960,
            Self::Mp3 => 1152,
        }
    }
}

/// Effort of the encoder: slower is smaller at the same quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are x264's, known by every user")]
pub enum Speed {
    Ultrafast,
    Veryfast,
    Fast,
    #[default]
    Medium,
    Slow,
    Slower,
}

/// How bits are spent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rate {
    /// Constant quality.
    Crf {
        /// Quality; lower is better. h264, hevc 1–51; av1, vp9 1–63 in whole numbers.
        crf: f32,
    },
    /// Constant quality below a ceiling.
    CappedCrf {
        /// As in [`Rate::Crf`].
        crf: f32,
        /// Ceiling, bit/s.
        max: BitRate,
        /// Decoder buffer, bits; default twice `max`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        buffer: Option<BitRate>,
    },
    /// Average bit rate.
    Bitrate {
        /// Average, bit/s.
        target: BitRate,
        /// Ceiling, bit/s; default 1.5 × `target`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<BitRate>,
        /// Decoder buffer, bits; default twice the ceiling.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        buffer: Option<BitRate>,
        /// How often the source is encoded to get there (h264, hevc, vp9).
        #[serde(default, skip_serializing_if = "Passes::is_one")]
        passes: Passes,
    },
}

/// How often a picture is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Passes {
    /// Once.
    #[default]
    One,
    /// Once to see what is where, once to write.
    Two,
}

impl Passes {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    const fn is_one(&self) -> bool {
        matches!(self, Self::One)
    }
}

impl From<Passes> for u8 {
    fn from(passes: Passes) -> Self {
        match passes {
            Passes::One => 1,
            Passes::Two => 2,
        }
    }
}

impl TryFrom<u8> for Passes {
    type Error = &'static str;
    fn try_from(passes: u8) -> Result<Self, Self::Error> {
        match passes {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            _ => Err("passes is 1 or 2"),
        }
    }
}

/// What happens when the picture's shape is not the box's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Whole picture inside the box, no bars.
    #[default]
    Contain,
    /// Box filled, edges cut.
    Cover,
    /// Whole picture inside the box, bars fill the rest.
    Pad,
    /// Box filled, shape lost.
    Stretch,
}

/// Whether the box turns with the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orient {
    /// A portrait picture gets the box turned.
    #[default]
    Auto,
    /// The box stays as written.
    Fixed,
}

/// Frame timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FpsMode {
    /// The source's own frames and times; `vfr` says the same.
    #[default]
    #[serde(alias = "vfr")]
    Source,
    /// Even spacing at `value`, else at the source's rate.
    Cfr,
}

/// Frame rate rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FpsSpec {
    /// Timing.
    #[serde(default)]
    pub mode: FpsMode,
    /// Frames per second for [`FpsMode::Cfr`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Rational>,
    /// Most frames per second; faster sources are halved until they fit. Default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

/// Bits per component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum BitDepth {
    /// 8.
    #[default]
    Eight,
    /// 10.
    Ten,
}

impl From<BitDepth> for u8 {
    fn from(depth: BitDepth) -> Self {
        match depth {
            BitDepth::Eight => 8,
            BitDepth::Ten => 10,
        }
    }
}

impl TryFrom<u8> for BitDepth {
    type Error = &'static str;
    fn try_from(bits: u8) -> Result<Self, Self::Error> {
        match bits {
            8 => Ok(Self::Eight),
            10 => Ok(Self::Ten),
            _ => Err("bit_depth is 8 or 10"),
        }
    }
}

/// Dynamic range of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DynamicRange {
    /// Standard; HDR sources are tone-mapped.
    #[default]
    Sdr,
    /// As the source (10-bit HEVC or AV1 only).
    Keep,
}

/// H.264/HEVC profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the standards' own")]
pub enum Profile {
    Baseline,
    Main,
    High,
}

/// The picture of an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoSpec {
    /// Codec.
    pub codec: VideoCodec,
    /// Encoder effort.
    #[serde(default)]
    pub speed: Speed,
    /// How bits are spent.
    pub rate: Rate,
    /// Largest picture, pixels; absent with `width`/`height` absent = source size.
    #[serde(rename = "box", default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<BoxSize>,
    /// Width, pixels; with `height` it is a box, alone the other side follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height, pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// When the shapes differ.
    #[serde(default)]
    pub fit: Fit,
    /// Whether the box turns with the picture.
    #[serde(default)]
    pub orient: Orient,
    /// Whether small sources are enlarged.
    #[serde(default)]
    pub upscale: bool,
    /// Frame rate.
    #[serde(default)]
    pub fps: FpsSpec,
    /// Longest distance between keyframes, seconds; 0.5 to 20, default 5.
    #[serde(default = "default_gop_seconds")]
    pub gop_seconds: f32,
    /// B-frames in a row (h264, hevc), 0 to 8; default the encoder's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bframes: Option<u8>,
    /// Profile (h264, hevc).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Level (h264, hevc); default the lowest that holds the picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// Bits per component.
    #[serde(default)]
    pub bit_depth: BitDepth,
    /// Dynamic range.
    #[serde(default)]
    pub range: DynamicRange,
    /// Interlaced sources.
    #[serde(default)]
    pub deinterlace: Deinterlace,
    /// What is cut off the upright picture, before anything else is done to its shape.
    #[serde(default)]
    pub crop: Crop,
    /// Clockwise turn after the source's own rotation, degrees: 0, 90, 180 or 270.
    #[serde(default)]
    pub rotate: Rotation,
    /// Mirroring, after the turn.
    #[serde(default)]
    pub flip: Flip,
    /// Colour of the bars of [`Fit::Pad`]; default black.
    #[serde(default, skip_serializing_if = "PadColor::is_black")]
    pub pad_color: PadColor,
}

/// MEDIA-RULES §1.18a: plain files do not need 2 s GOPs; 5 s saves bytes.
const fn default_gop_seconds() -> f32 {
    5.0
}

/// Apple's authoring rules want a key frame every 2 s in a set (FIELD §3.1, 1.13).
const SET_GOP_SECONDS: f32 = 2.0;

/// Channel layout of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub enum Channels {
    /// As the source, at most two for codecs that carry two.
    #[default]
    Source,
    /// One.
    Mono,
    /// Two.
    Stereo,
    /// Six (5.1).
    Surround,
}

impl From<Channels> for serde_json::Value {
    fn from(channels: Channels) -> Self {
        match channels {
            Channels::Source => "source".into(),
            Channels::Mono => 1.into(),
            Channels::Stereo => 2.into(),
            Channels::Surround => 6.into(),
        }
    }
}

impl TryFrom<serde_json::Value> for Channels {
    type Error = &'static str;
    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        match (value.as_str(), value.as_u64()) {
            (Some("source"), _) => Ok(Self::Source),
            (_, Some(1)) => Ok(Self::Mono),
            (_, Some(2)) => Ok(Self::Stereo),
            (_, Some(6)) => Ok(Self::Surround),
            _ => Err("channels is \"source\", 1, 2 or 6"),
        }
    }
}

/// Which of a source's sound tracks are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub enum Tracks {
    /// The one that a player would choose.
    #[default]
    First,
    /// All of them, each as a rendition of its own.
    All,
    /// Those of these languages (ISO 639-2, three letters), in this order, each as a rendition of its own.
    Languages(Vec<String>),
}

impl Tracks {
    fn is_first(&self) -> bool {
        *self == Self::First
    }
}

impl From<Tracks> for serde_json::Value {
    fn from(tracks: Tracks) -> Self {
        match tracks {
            Tracks::First => "first".into(),
            Tracks::All => "all".into(),
            Tracks::Languages(tags) => tags.into(),
        }
    }
}

impl TryFrom<serde_json::Value> for Tracks {
    type Error = &'static str;
    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        const WANTED: &str = "tracks is \"first\", \"all\" or 1 to 16 languages of three letters";
        let language = |tag: &serde_json::Value| {
            let tag = tag.as_str()?;
            (tag.len() == 3 && tag.bytes().all(|b| b.is_ascii_lowercase())).then(|| tag.to_owned())
        };
        match (value.as_str(), value.as_array()) {
            (Some("first"), _) => Ok(Self::First),
            (Some("all"), _) => Ok(Self::All),
            (_, Some(tags)) if (1..=16).contains(&tags.len()) => {
                tags.iter().map(language).collect::<Option<_>>().map(Self::Languages).ok_or(WANTED)
            }
            _ => Err(WANTED),
        }
    }
}

/// Loudness target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loudness {
    /// Integrated loudness, LUFS; -31 to -5.
    pub target: f32,
    /// Highest true peak, dBTP; -9 to 0. Default -1.5.
    #[serde(default = "default_true_peak")]
    pub true_peak: f32,
}

const fn default_true_peak() -> f32 {
    -1.5
}

/// The sound of an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioSpec {
    /// Codec.
    pub codec: AudioCodec,
    /// Bit rate; the planner's default by codec and channels where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<BitRate>,
    /// Channels.
    #[serde(default)]
    pub channels: Channels,
    /// Samples per second; default 48,000.
    #[serde(default = "default_sample_rate")]
    pub sample_rate: u32,
    /// Which of the source's tracks.
    #[serde(default, skip_serializing_if = "Tracks::is_first")]
    pub tracks: Tracks,
    /// Whether a source without sound is refused.
    #[serde(default)]
    pub required: bool,
    /// Loudness target; absent = untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loudness: Option<Loudness>,
}

const fn default_sample_rate() -> u32 {
    48_000
}

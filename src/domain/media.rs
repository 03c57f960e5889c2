//! What a source is: the typed result of a probe. Everything later (plan, verification) reads only this.

use serde::{Deserialize, Serialize};

use super::{Measured, Rational};

/// Containers flux opens. The name is our own sniffing's verdict and is forced on ffmpeg, never guessed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demuxer {
    /// ISO base media: mp4, mov, 3gp, m4v, fragmented or not.
    Mov,
    /// Matroska and `WebM`.
    Matroska,
    /// RIFF AVI.
    Avi,
    /// MPEG transport stream.
    Mpegts,
    /// MPEG program stream.
    Mpeg,
    /// Raw MPEG-1/2 video.
    Mpegvideo,
    /// Flash video.
    Flv,
    /// Ogg.
    Ogg,
    /// Windows media.
    Asf,
    /// `RealMedia`.
    Rm,
    /// MXF.
    Mxf,
    /// MPEG audio.
    Mp3,
    /// RIFF WAVE.
    Wav,
    /// FLAC.
    Flac,
    /// AAC in ADTS.
    Aac,
    /// AC-3 and E-AC-3.
    Ac3,
    /// DTS.
    Dts,
    /// Raw H.264.
    H264,
    /// Raw HEVC.
    Hevc,
    /// IVF (VP8, VP9, AV1).
    Ivf,
    /// Raw MPEG-4 part 2.
    M4v,
    /// Animated GIF.
    Gif,
}

impl Demuxer {
    /// Every container, in the order of the allow-list given to ffmpeg.
    pub const ALL: &'static [Self] = &[
        Self::Mov,
        Self::Matroska,
        Self::Avi,
        Self::Mpegts,
        Self::Mpeg,
        Self::Mpegvideo,
        Self::Flv,
        Self::Ogg,
        Self::Asf,
        Self::Rm,
        Self::Mxf,
        Self::Mp3,
        Self::Wav,
        Self::Flac,
        Self::Aac,
        Self::Ac3,
        Self::Dts,
        Self::H264,
        Self::Hevc,
        Self::Ivf,
        Self::M4v,
        Self::Gif,
    ];

    /// ffmpeg's name, for `-f` and `-format_whitelist`.
    #[must_use]
    pub const fn ffmpeg_name(self) -> &'static str {
        match self {
            Self::Mov => "mov",
            Self::Matroska => "matroska",
            Self::Avi => "avi",
            Self::Mpegts => "mpegts",
            Self::Mpeg => "mpeg",
            Self::Mpegvideo => "mpegvideo",
            Self::Flv => "flv",
            Self::Ogg => "ogg",
            Self::Asf => "asf",
            Self::Rm => "rm",
            Self::Mxf => "mxf",
            Self::Mp3 => "mp3",
            Self::Wav => "wav",
            Self::Flac => "flac",
            Self::Aac => "aac",
            Self::Ac3 => "ac3",
            Self::Dts => "dts",
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Ivf => "ivf",
            Self::M4v => "m4v",
            Self::Gif => "gif",
        }
    }
}

/// Clockwise turn needed to show the picture upright.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub enum Rotation {
    /// Upright as stored.
    #[default]
    None,
    /// A quarter turn clockwise.
    Cw90,
    /// Upside down.
    Half,
    /// A quarter turn counter-clockwise.
    Cw270,
}

impl Rotation {
    /// Whether width and height change places.
    #[must_use]
    pub const fn swaps_sides(self) -> bool {
        matches!(self, Self::Cw90 | Self::Cw270)
    }
}

impl From<Rotation> for u16 {
    fn from(rotation: Rotation) -> Self {
        match rotation {
            Rotation::None => 0,
            Rotation::Cw90 => 90,
            Rotation::Half => 180,
            Rotation::Cw270 => 270,
        }
    }
}

impl TryFrom<u16> for Rotation {
    type Error = &'static str;
    fn try_from(degrees: u16) -> Result<Self, Self::Error> {
        match degrees {
            0 => Ok(Self::None),
            90 => Ok(Self::Cw90),
            180 => Ok(Self::Half),
            270 => Ok(Self::Cw270),
            _ => Err("a rotation is 0, 90, 180 or 270"),
        }
    }
}

/// How fields are stored, as the container or codec declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldOrder {
    /// Not said.
    #[default]
    Unknown,
    /// Whole frames.
    Progressive,
    /// Interlaced, top field first (`tt`, `bt`).
    TopFirst,
    /// Interlaced, bottom field first (`bb`, `tb`).
    BottomFirst,
}

/// Sample range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColorRange {
    /// 16 to 235 (`tv`, limited).
    Limited,
    /// 0 to 255 (`pc`, full).
    Full,
}

/// Colour tags as ffmpeg spells them; `None` = untagged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ColorSpace {
    /// Sample range.
    pub range: Option<ColorRange>,
    /// Matrix (`bt709`, `smpte170m`, `bt470bg`, `bt2020nc`, …).
    pub matrix: Option<String>,
    /// Primaries (`bt709`, `smpte432`, `bt2020`, …).
    pub primaries: Option<String>,
    /// Transfer (`bt709`, `smpte2084` = PQ, `arib-std-b67` = HLG, …).
    pub transfer: Option<String>,
}

impl ColorSpace {
    /// Whether the transfer is PQ or HLG. Untagged is never HDR.
    #[must_use]
    pub fn is_hdr(&self) -> bool {
        matches!(self.transfer.as_deref(), Some("smpte2084" | "arib-std-b67"))
    }
}

/// A picture stream, as stored (before rotation and aspect).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoStream {
    /// Stream index in the container.
    pub index: u32,
    /// ffmpeg's codec name.
    pub codec: String,
    /// Stored width, pixels.
    pub width: u32,
    /// Stored height, pixels.
    pub height: u32,
    /// Sample aspect ratio; unknown and 0:1 count as 1:1.
    pub sar: Rational,
    /// Turn needed to show it upright.
    pub rotation: Rotation,
    /// ffmpeg's pixel format name.
    pub pix_fmt: String,
    /// Bits per component.
    pub bit_depth: u8,
    /// Colour tags.
    pub color: ColorSpace,
    /// Field order.
    pub field_order: FieldOrder,
    /// Frame rate to plan with: the median packet delta, snapped to a standard rate within 0.1 % (MEDIA-RULES §1.18e).
    pub frame_rate: Option<Rational>,
    /// Whether packet deltas differ by more than a tick's rounding.
    pub variable_rate: bool,
    /// Container ticks.
    pub time_base: Rational,
    /// First presented timestamp, seconds.
    pub start_seconds: Option<f64>,
    /// Stream duration as declared, seconds.
    pub duration_seconds: Option<f64>,
    /// Packets seen, where every packet was read.
    pub packets: Option<u64>,
    /// A cover picture, not a film.
    pub attached_picture: bool,
    /// The container's default flag.
    pub default: bool,
    /// What was measured, where an output needed it.
    #[serde(default)]
    pub measured: Measured,
}

impl VideoStream {
    /// Whether the codec can hold fields at all (MEDIA-RULES §1.12).
    #[must_use]
    pub fn codec_has_fields(&self) -> bool {
        matches!(
            self.codec.as_str(),
            "mpeg2video" | "h264" | "hevc" | "dvvideo" | "vc1" | "wmv3" | "mpeg4" | "prores" | "dnxhd"
        )
    }

    /// Whether container or codec say that it is interlaced.
    #[must_use]
    pub const fn declares_fields(&self) -> bool {
        matches!(self.field_order, FieldOrder::TopFirst | FieldOrder::BottomFirst)
    }

    /// Size as shown: after aspect and rotation, rounded to whole pixels.
    #[must_use]
    pub fn display_size(&self) -> (u32, u32) {
        // Wider samples widen the picture; never throw away lines to get there.
        let shown = f64::from(self.width) * self.sar.as_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive and far below u32::MAX by probe limits"
        )]
        let width = shown.round().max(1.0) as u32;
        if self.rotation.swaps_sides() { (self.height, width) } else { (width, self.height) }
    }
}

/// A sound stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AudioStream {
    /// Stream index in the container.
    pub index: u32,
    /// ffmpeg's codec name.
    pub codec: String,
    /// Channels.
    pub channels: u16,
    /// Samples per second.
    pub sample_rate: u32,
    /// First presented timestamp, seconds.
    pub start_seconds: Option<f64>,
    /// Stream duration as declared, seconds.
    pub duration_seconds: Option<f64>,
    /// ISO 639 tag, where set.
    pub language: Option<String>,
    /// The container's default flag.
    pub default: bool,
}

/// A track of subtitles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubtitleStream {
    /// Stream index in the container.
    pub index: u32,
    /// ffmpeg's codec name.
    pub codec: String,
    /// ISO 639 tag, where set.
    pub language: Option<String>,
    /// The container's default flag.
    pub default: bool,
    /// Only what must be read also by those who follow the sound: signs, other languages.
    pub forced: bool,
    /// Also tells of sounds, for those who do not hear them.
    pub hearing_impaired: bool,
}

impl SubtitleStream {
    /// Whether it is text, and not pictures of it or something that ffmpeg does not read.
    #[must_use]
    pub fn is_text(&self) -> bool {
        matches!(self.codec.as_str(), "subrip" | "ass" | "ssa" | "mov_text" | "webvtt" | "text")
    }
}

/// Any other stream (data, timecode): counted, named, ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OtherStream {
    /// Stream index in the container.
    pub index: u32,
    /// ffmpeg's kind (`data`, `attachment`, …).
    pub kind: String,
    /// ffmpeg's codec name, where known.
    pub codec: Option<String>,
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MediaInfo {
    /// The container.
    pub container: Demuxer,
    /// Bytes.
    pub size: u64,
    /// Declared duration, seconds; headers lie, so never a verdict by itself.
    pub duration_seconds: Option<f64>,
    /// Picture streams in container order, cover pictures included.
    pub video: Vec<VideoStream>,
    /// Sound streams in container order.
    pub audio: Vec<AudioStream>,
    /// Tracks of subtitles in container order.
    #[serde(default)]
    pub subtitles: Vec<SubtitleStream>,
    /// Everything else.
    pub other: Vec<OtherStream>,
}

impl MediaInfo {
    /// The picture stream to encode: no cover, default flag first, then most pixels (MEDIA-RULES §1.18b).
    #[must_use]
    pub fn main_video(&self) -> Option<&VideoStream> {
        self.video
            .iter()
            .filter(|v| !v.attached_picture)
            // `max_by_key` keeps the last of equals; reversed, the first stream wins a tie.
            .rev()
            .max_by_key(|v| (v.default, u64::from(v.width) * u64::from(v.height)))
    }

    /// The sound stream to encode: default flag first, then container order.
    #[must_use]
    pub fn main_audio(&self) -> Option<&AudioStream> {
        self.audio.iter().find(|a| a.default).or_else(|| self.audio.first())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(index: u32, width: u32, height: u32) -> VideoStream {
        VideoStream {
            index,
            codec: "h264".into(),
            width,
            height,
            sar: Rational::ONE,
            rotation: Rotation::None,
            pix_fmt: "yuv420p".into(),
            bit_depth: 8,
            color: ColorSpace::default(),
            field_order: FieldOrder::Unknown,
            frame_rate: None,
            variable_rate: false,
            time_base: Rational::new(1, 90_000).unwrap(),
            start_seconds: Some(0.0),
            duration_seconds: None,
            packets: None,
            attached_picture: false,
            default: false,
            measured: Measured::default(),
        }
    }

    #[test]
    fn shown_size_honours_aspect_then_rotation() {
        let mut v = video(0, 720, 480);
        v.sar = Rational::new(11, 12).unwrap();
        assert_eq!(v.display_size(), (660, 480));
        v.rotation = Rotation::Cw90;
        assert_eq!(v.display_size(), (480, 660));
    }

    #[test]
    fn the_cover_is_never_the_film_and_the_first_of_equals_wins() {
        let mut cover = video(0, 4000, 4000);
        cover.attached_picture = true;
        let info = MediaInfo {
            container: Demuxer::Mov,
            size: 1,
            duration_seconds: None,
            video: vec![cover, video(1, 640, 360), video(2, 640, 360)],
            audio: vec![],
            subtitles: vec![],
            other: vec![],
        };
        assert_eq!(info.main_video().map(|v| v.index), Some(1));
    }
}

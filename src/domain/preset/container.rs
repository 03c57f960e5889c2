//! What an output is as files: one, or a set with manifests.

use serde::{Deserialize, Serialize};

/// Formats that flux writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Container {
    /// MPEG-4, index at the front.
    Mp4,
    /// `WebM`: VP9 or AV1 with Opus.
    Webm,
    /// Matroska.
    Mkv,
    /// `QuickTime`.
    Mov,
    /// MPEG-4 with sound only.
    M4a,
    /// An MP3 file.
    Mp3,
    /// Ogg with sound only.
    Ogg,
    /// A set for HTTP Live Streaming.
    Hls,
    /// A set for MPEG-DASH.
    Dash,
    /// A set for both over the same bytes.
    Cmaf,
    /// One JPEG.
    Jpg,
    /// One PNG.
    Png,
    /// One `WebP`.
    Webp,
    /// A series of stills with a list of them in `WebVTT`.
    Vtt,
}

impl Container {
    /// All of them, in the order they are told.
    pub const ALL: &'static [Self] = &[
        Self::Mp4,
        Self::Webm,
        Self::Mkv,
        Self::Mov,
        Self::M4a,
        Self::Mp3,
        Self::Ogg,
        Self::Hls,
        Self::Dash,
        Self::Cmaf,
        Self::Jpg,
        Self::Png,
        Self::Webp,
        Self::Vtt,
    ];

    /// The name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Webm => "webm",
            Self::Mkv => "mkv",
            Self::Mov => "mov",
            Self::M4a => "m4a",
            Self::Mp3 => "mp3",
            Self::Ogg => "ogg",
            Self::Hls => "hls",
            Self::Dash => "dash",
            Self::Cmaf => "cmaf",
            Self::Jpg => "jpg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Vtt => "vtt",
        }
    }

    /// Extension, without the dot, of the file that a client opens.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Hls | Self::Cmaf => "m3u8",
            Self::Dash => "mpd",
            file => file.name(),
        }
    }

    /// Whether it is a folder of segments with manifests.
    #[must_use]
    pub const fn is_presentation(self) -> bool {
        matches!(self, Self::Hls | Self::Dash | Self::Cmaf)
    }

    /// Whether it is made of stills and not of streams.
    #[must_use]
    pub const fn is_stills(self) -> bool {
        matches!(self, Self::Jpg | Self::Png | Self::Webp | Self::Vtt)
    }

    /// Whether it is many files, one of which names the others.
    #[must_use]
    pub const fn is_set(self) -> bool {
        self.is_presentation() || matches!(self, Self::Vtt)
    }

    /// Whether it has no place for a picture.
    #[must_use]
    pub const fn is_sound_only(self) -> bool {
        matches!(self, Self::M4a | Self::Mp3 | Self::Ogg)
    }

    /// The format of the one file of streams; `None` for a set and for stills.
    #[must_use]
    pub const fn file(self) -> Option<FileFormat> {
        match self {
            Self::Mp4 => Some(FileFormat::Mp4),
            Self::Webm => Some(FileFormat::Webm),
            Self::Mkv => Some(FileFormat::Matroska),
            Self::Mov => Some(FileFormat::Mov),
            Self::M4a => Some(FileFormat::M4a),
            Self::Mp3 => Some(FileFormat::Mp3),
            Self::Ogg => Some(FileFormat::Ogg),
            Self::Hls | Self::Dash | Self::Cmaf | Self::Jpg | Self::Png | Self::Webp | Self::Vtt => None,
        }
    }
}

/// What one ffmpeg muxer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileFormat {
    /// MPEG-4, index at the front.
    Mp4,
    /// MPEG-4 in fragments of one GOP: what sets are cut from.
    Fragments,
    /// MPEG-4 with sound only.
    M4a,
    /// `QuickTime`.
    Mov,
    /// `WebM`.
    Webm,
    /// Matroska.
    Matroska,
    /// MPEG transport stream: what sets with TS segments are cut from.
    Ts,
    /// MP3.
    Mp3,
    /// Ogg.
    Ogg,
}

impl FileFormat {
    /// File extension without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Mp4 | Self::Fragments => "mp4",
            Self::M4a => "m4a",
            Self::Mov => "mov",
            Self::Webm => "webm",
            Self::Matroska => "mkv",
            Self::Ts => "ts",
            Self::Mp3 => "mp3",
            Self::Ogg => "ogg",
        }
    }

    /// MIME type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Mp4 | Self::Fragments => "video/mp4",
            Self::M4a => "audio/mp4",
            Self::Mov => "video/quicktime",
            Self::Webm => "video/webm",
            Self::Matroska => "video/x-matroska",
            Self::Ts => "video/mp2t",
            Self::Mp3 => "audio/mpeg",
            Self::Ogg => "audio/ogg",
        }
    }

    /// ffmpeg's muxer.
    #[must_use]
    pub const fn muxer(self) -> &'static str {
        match self {
            Self::Mp4 | Self::Fragments => "mp4",
            // The same as mp4 but for the brand that players of sound look for.
            Self::M4a => "ipod",
            Self::Mov => "mov",
            Self::Webm => "webm",
            Self::Matroska => "matroska",
            Self::Ts => "mpegts",
            Self::Mp3 => "mp3",
            Self::Ogg => "ogg",
        }
    }

    /// Whether it is made of ISO base media boxes, with edit lists and a timescale to choose.
    #[must_use]
    pub const fn is_isobmff(self) -> bool {
        matches!(self, Self::Mp4 | Self::Fragments | Self::M4a | Self::Mov)
    }
}

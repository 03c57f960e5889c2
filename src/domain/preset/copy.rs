//! Tracks that are taken over as they are.

use serde::{Deserialize, Serialize};

use super::{AudioSpec, EncodeSpec, FileFormat, VideoSpec};

/// The word `copy` where a codec may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyWord {
    /// The source's own codec.
    #[serde(rename = "copy")]
    Copy,
}

/// What becomes of the source's picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Picture {
    /// It is taken over.
    Copy(PictureCopy),
    /// It is encoded.
    Encode(VideoSpec),
}

/// A picture that is taken over: `{"codec": "copy"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureCopy {
    /// Always `copy`.
    pub codec: CopyWord,
}

/// What becomes of the source's sound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sound {
    /// It is taken over.
    Copy(SoundCopy),
    /// It is encoded.
    Encode(AudioSpec),
}

/// A sound that is taken over: `{"codec": "copy"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoundCopy {
    /// Always `copy`.
    pub codec: CopyWord,
    /// Whether a source without sound is refused.
    #[serde(default)]
    pub required: bool,
}

impl Sound {
    /// Whether a source without sound is refused.
    #[must_use]
    pub const fn is_required(&self) -> bool {
        match self {
            Self::Copy(copy) => copy.required,
            Self::Encode(spec) => spec.required,
        }
    }
}

impl EncodeSpec {
    /// The picture, where it is encoded.
    #[must_use]
    pub const fn encoded_picture(&self) -> Option<&VideoSpec> {
        match &self.video {
            Some(Picture::Encode(spec)) => Some(spec),
            Some(Picture::Copy(_)) | None => None,
        }
    }

    /// The sound, where it is encoded.
    #[must_use]
    pub const fn encoded_sound(&self) -> Option<&AudioSpec> {
        match &self.audio {
            Some(Sound::Encode(spec)) => Some(spec),
            Some(Sound::Copy(_)) | None => None,
        }
    }
}

/// Which codecs a file format takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Every one that its muxer knows.
    All,
    /// These, as ffprobe calls them.
    Only(&'static [&'static str]),
}

impl Takes {
    /// Whether it takes this one.
    #[must_use]
    pub fn takes(self, codec: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(&codec),
        }
    }
}

impl FileFormat {
    /// Pictures and sounds that players of this format know: the registered ones (MP4 registration authority, the `WebM`
    /// container guidelines, RFC 7845 for Ogg), as far as ffmpeg 5.1 writes them.
    #[must_use]
    pub const fn takes_over(self) -> (Takes, Takes) {
        use Takes::{All, Only};
        match self {
            Self::Mp4 => (
                Only(&["h264", "hevc", "av1", "vp9", "mpeg4"]),
                Only(&["aac", "mp3", "ac3", "eac3", "opus", "alac"]),
            ),
            Self::Mov => (
                Only(&["h264", "hevc", "mpeg4", "prores"]),
                Only(&["aac", "mp3", "ac3", "alac", "pcm_s16le", "pcm_s24le"]),
            ),
            Self::Matroska => (All, All),
            Self::Webm => (Only(&["vp8", "vp9", "av1"]), Only(&["opus", "vorbis"])),
            Self::M4a => (Only(&[]), Only(&["aac", "alac"])),
            Self::Mp3 => (Only(&[]), Only(&["mp3"])),
            Self::Ogg => (Only(&[]), Only(&["opus", "vorbis", "flac"])),
            // Sets are encoded: their cuts and clocks follow rules that no source was made for.
            Self::Fragments | Self::Ts => (Only(&[]), Only(&[])),
        }
    }
}

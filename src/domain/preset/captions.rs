//! Subtitles that go with a film.

use serde::{Deserialize, Serialize};

use super::{Container, Tracks};

/// Which of the source's subtitles the output gets: in a set as renditions of `WebVTT`, in a file as tracks that players can
/// switch on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionsSpec {
    /// Where they come from.
    pub source: CaptionSource,
    /// Those of these languages, in this order; `all` where nothing is said. Never `first`.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub languages: Tracks,
}

/// Where subtitles come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionSource {
    /// The source's tracks of text.
    #[default]
    Auto,
    /// Nowhere: there are none.
    None,
}

/// How an output carries them; it follows from the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionMode {
    /// As renditions of a set.
    Hls,
    /// As tracks of the file.
    Mux,
}

pub(super) const fn all() -> Tracks {
    Tracks::All
}

fn is_all(tracks: &Tracks) -> bool {
    *tracks == Tracks::All
}

impl Container {
    /// How it carries subtitles; `None` = it cannot. ffmpeg writes them into `WebM` without spelling `<` and `&` as `WebVTT` wants
    /// (measured with 5.1.9: the rest of the line is lost), and browsers do not show them there.
    #[must_use]
    pub const fn captions(self) -> Option<CaptionMode> {
        match self {
            Self::Hls | Self::Dash | Self::Cmaf => Some(CaptionMode::Hls),
            Self::Mp4 | Self::Mov | Self::Mkv => Some(CaptionMode::Mux),
            Self::Webm
            | Self::M4a
            | Self::Mp3
            | Self::Ogg
            | Self::Jpg
            | Self::Png
            | Self::Webp
            | Self::Vtt => None,
        }
    }
}

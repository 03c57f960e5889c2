//! Sets: a ladder of pictures, and how it is cut and listed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{
    BitDepth, BoxSize, Container, DynamicRange, EncodeSpec, FpsSpec, Level, Profile, Rate, VideoCodec,
    VideoSpec,
};

/// Why a part of a set is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPackage {
    /// Not a rung's name.
    #[error("{0:?} is not a rung's name (1 to 32 of a-z, 0-9, '-')")]
    Rung(String),
    /// Not a file name.
    #[error("{0:?} is not a file name: 1 to 100 of letters, digits, '.', '_', '-', with %v and %d or %03d")]
    Name(String),
}

/// Names a picture of a ladder: 1 to 32 of `[a-z0-9-]`. What flux itself adds to names of files and gives to sound has an
/// underscore, so that no two meet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RungName(String);

impl RungName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RungName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RungName {
    type Error = InvalidPackage;
    fn try_from(text: String) -> Result<Self, InvalidPackage> {
        let fits = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits { Ok(Self(text)) } else { Err(InvalidPackage::Rung(text)) }
    }
}

impl From<RungName> for String {
    fn from(name: RungName) -> Self {
        name.0
    }
}

/// One picture of a ladder. What it does not say is as in the output's `video`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// Its name, unique in the ladder.
    pub name: RungName,
    /// Largest picture, pixels; turned to the source's orientation.
    #[serde(rename = "box")]
    pub bounds: BoxSize,
    /// How bits are spent.
    pub rate: Rate,
    /// Codec. Pictures of several codecs, depths and ranges are ladders of their own, in one set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<VideoCodec>,
    /// Bits per component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bit_depth: Option<BitDepth>,
    /// Dynamic range. A rung that keeps HDR is left out where the source has none and other rungs are of standard range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<DynamicRange>,
    /// Most frames per second; a faster picture is halved until it fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps_max: Option<u32>,
    /// Profile (h264, hevc).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Level (h264, hevc).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
}

impl Rung {
    /// The picture that it asks for. What was chosen for another codec means nothing to this one.
    #[must_use]
    pub fn over(&self, video: &VideoSpec) -> VideoSpec {
        let codec = self.codec.unwrap_or(video.codec);
        let same = codec == video.codec;
        VideoSpec {
            codec,
            bit_depth: self.bit_depth.unwrap_or(video.bit_depth),
            range: self.range.unwrap_or(video.range),
            bframes: video.bframes.filter(|_| same),
            bounds: Some(self.bounds),
            width: None,
            height: None,
            rate: self.rate,
            fps: FpsSpec { max: self.fps_max.or(video.fps.max), ..video.fps },
            profile: self.profile.or(video.profile.filter(|_| same)),
            level: self.level.or(video.level.filter(|_| same)),
            ..video.clone()
        }
    }
}

/// What segments are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Segment {
    /// Fragmented MPEG-4 (CMAF): picture and sound apart.
    #[default]
    Fmp4,
    /// MPEG transport stream, picture and sound together: for players from before 2016.
    Ts,
}

/// Lists of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manifest {
    /// A multivariant playlist and its media playlists.
    Hls,
    /// An MPD.
    Dash,
}

/// How a set is cut and listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageSpec {
    /// Length of a segment, seconds, 1 to 30; rounded to whole GOPs. Default 6.
    #[serde(default = "default_segment_seconds")]
    pub segment_seconds: u32,
    /// What segments are made of.
    #[serde(default)]
    pub segment: Segment,
    /// One file per rendition, read by byte ranges, instead of one per segment.
    #[serde(default)]
    pub single_file: bool,
    /// Whether there are playlists of key frames, for seeking with pictures; default true, as Apple's rules want (FIELD
    /// §3.1, 6.1).
    #[serde(default = "default_iframes")]
    pub iframes: bool,
    /// The lists, at least one.
    pub manifests: Vec<Manifest>,
    /// Names of the files.
    #[serde(default, skip_serializing_if = "Names::is_default")]
    pub names: Names,
}

const fn default_iframes() -> bool {
    true
}

/// FIELD §3.1: Apple's authoring rules want 6 s (7.5).
pub(super) const fn default_segment_seconds() -> u32 {
    6
}

impl PackageSpec {
    /// The lists of a container where the setting does not say.
    #[must_use]
    pub fn manifests_of(container: Container) -> Vec<Manifest> {
        match container {
            Container::Hls => vec![Manifest::Hls],
            Container::Dash => vec![Manifest::Dash],
            Container::Cmaf => vec![Manifest::Hls, Manifest::Dash],
            Container::Mp4
            | Container::Webm
            | Container::Mkv
            | Container::Mov
            | Container::M4a
            | Container::Mp3
            | Container::Ogg
            | Container::Jpg
            | Container::Png
            | Container::Webp
            | Container::Vtt => Vec::new(),
        }
    }
}

impl EncodeSpec {
    /// Every picture that is encoded: that of a file, those of a ladder.
    #[must_use]
    pub fn pictures(&self) -> Vec<VideoSpec> {
        match self.encoded_picture() {
            None => Vec::new(),
            Some(video) if self.ladder.is_empty() => vec![video.clone()],
            Some(video) => self.ladder.iter().map(|rung| rung.over(video)).collect(),
        }
    }

    /// The name of the file of a set that clients open, where its destination names only a folder; `None` for single
    /// files.
    #[must_use]
    pub fn entry_name(&self) -> Option<&str> {
        if self.container == Container::Vtt {
            return Some("thumbnails.vtt");
        }
        let package = self.package.as_ref().filter(|_| self.container.is_set())?;
        let names = &package.names;
        // With one rendition the seeds' "playlist" is what players open.
        let playlist = names.playlist.as_ref().filter(|name| !name.tells_renditions_apart());
        let (name, usual) = if package.manifests.contains(&Manifest::Hls) {
            (names.master.as_ref().or(playlist), "master.m3u8")
        } else {
            (names.manifest.as_ref(), "manifest.mpd")
        };
        Some(name.map_or(usual, NameTemplate::as_str))
    }

    /// Whether a file of this name can be the one that clients open: a list that the set has.
    #[must_use]
    pub fn lists_in(&self, name: &str) -> bool {
        let has =
            |manifest| self.package.as_ref().is_some_and(|package| package.manifests.contains(&manifest));
        match name.rsplit_once('.') {
            Some((stem, "m3u8")) => !stem.is_empty() && has(Manifest::Hls),
            Some((stem, "mpd")) => !stem.is_empty() && has(Manifest::Dash),
            Some((stem, "vtt")) => !stem.is_empty() && self.container == Container::Vtt,
            _ => false,
        }
    }
}

/// Names of a set's files; absent = flux's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// The multivariant playlist; `master.m3u8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<NameTemplate>,
    /// A media playlist; `%v` = the rendition's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playlist: Option<NameTemplate>,
    /// A segment; `%v` = the rendition's number, `%d` or `%03d` = its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<NameTemplate>,
    /// The MPD; `manifest.mpd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<NameTemplate>,
}

impl Names {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A file name with `%v` for a rendition's number and `%d`, `%03d` for a segment's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NameTemplate(String);

impl NameTemplate {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every rendition gets another name.
    #[must_use]
    pub fn tells_renditions_apart(&self) -> bool {
        self.0.contains("%v")
    }

    /// Whether every segment gets another name.
    #[must_use]
    pub fn tells_segments_apart(&self) -> bool {
        self.0.replace("%v", "").contains('%')
    }
}

impl FromStr for NameTemplate {
    type Err = InvalidPackage;
    fn from_str(text: &str) -> Result<Self, InvalidPackage> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for NameTemplate {
    type Error = InvalidPackage;
    fn try_from(text: String) -> Result<Self, InvalidPackage> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let mut parts = text.split('%');
        let before = parts.next().unwrap_or_default();
        let holders = parts.clone().count();
        let filled = parts.all(|part| {
            let digits = part.trim_start_matches('0');
            let width = digits.strip_prefix(|c: char| c.is_ascii_digit()).unwrap_or(digits);
            let rest = if part.starts_with('v') { part.strip_prefix('v') } else { width.strip_prefix('d') };
            rest.is_some_and(|rest| rest.bytes().all(plain))
        });
        let fits = (1..=100).contains(&text.len())
            && before.bytes().all(plain)
            && filled
            && holders <= 2
            && !text.starts_with('.')
            && text.contains('.');
        if fits { Ok(Self(text)) } else { Err(InvalidPackage::Name(text)) }
    }
}

impl From<NameTemplate> for String {
    fn from(name: NameTemplate) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_folder_and_out_of_options() {
        for good in ["playlist.m3u8", "segment_%03d.ts", "segment_%v_%03d.ts", "stream_%v.m3u8", "s%d.m4s"] {
            assert_eq!(good.parse::<NameTemplate>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b.ts",
            "../x.ts",
            "a\\b.ts",
            "%s.ts",
            "%03x.ts",
            "a%",
            "%v%v%d.ts",
            "a b.ts",
            ".hidden.ts",
            "none",
        ] {
            assert!(bad.parse::<NameTemplate>().is_err(), "{bad}");
        }
        let segment: NameTemplate = "segment_%v_%03d.ts".parse().unwrap();
        assert!(segment.tells_renditions_apart() && segment.tells_segments_apart());
        assert!(!"stream_%v.m3u8".parse::<NameTemplate>().unwrap().tells_segments_apart());
    }
}

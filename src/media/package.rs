//! HLS, DASH and CMAF out of what ffmpeg encoded: segments, playlists and manifests, written here and not by ffmpeg,
//! whose own know too little (MEDIA-RULES §1.7).
//!
//! In comes one file per rendition: fragmented MP4 with a fragment per GOP (`-movflags
//! +frag_keyframe+delay_moov+default_base_moof`), or MPEG-TS. Out come files below a folder. Media are copied in ranges
//! and never decoded; what is kept in memory is a line per GOP, and one fragment's table of samples.
//! Invariants: every video rendition is cut at the same instants, each of which is a key frame of all of them; every
//! figure in a manifest is measured on the bytes beside it; HLS and DASH name the same bytes.
//! Blocking: call it where that is allowed.

mod captions;
mod cut;
mod dash;
mod hls;
mod mp4;
mod names;
mod rate;
mod sound;
mod transport;
mod write;

use std::path::{Path, PathBuf};

pub(crate) use cut::same_instant;
pub use names::{BadName, Names};
pub(crate) use rate::{Rates, rates};

use super::webvtt::Cue;
use crate::domain::{FileRole, Rational};

/// What to package and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// Video first, best first, then audio; players begin with the order given.
    pub renditions: Vec<Rendition>,
    /// Subtitles.
    pub captions: Vec<CaptionRendition>,
    /// How long a segment is to be, seconds; more than 0. GOPs are never cut, so that it should be a multiple of theirs.
    pub segment_seconds: f64,
    /// How segments are kept.
    pub layout: Layout,
    /// Whether each video has a playlist of its key frames (HLS with a master playlist only).
    pub iframes: bool,
    /// Which manifests are written; none is a fault.
    pub manifests: Manifests,
    /// What files are called.
    pub names: Names,
}

/// How segments are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// An init segment and a file per segment.
    Fragments,
    /// One file per rendition, addressed by byte ranges and a segment index.
    SingleFile,
    /// MPEG-TS, a file per segment; the renditions must be MPEG-TS. Only for HLS.
    Transport,
}

/// Which manifests are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manifests {
    /// A master playlist and a playlist per rendition.
    pub hls: bool,
    /// An MPD.
    pub dash: bool,
}

/// One encoded file.
#[derive(Debug, Clone)]
pub struct Rendition {
    /// Where it is.
    pub file: PathBuf,
    /// What it is called in file names and manifests: letters, digits, `-` and `_`; no two alike.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What a rendition is for.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A picture, perhaps with sound in the same file.
    Video,
    /// Sound of its own.
    Audio(AudioRendition),
}

/// What no file says about a rendition of sound.
#[derive(Debug, Clone, Default)]
pub struct AudioRendition {
    /// Renditions of one group are the same in quality and differ in language; each video goes with each group.
    pub group: String,
    /// BCP 47, such as `de`.
    pub language: Option<String>,
    /// What a person chooses it by; made from the language where it is empty.
    pub label: String,
    /// What plays when nobody chooses. Where no rendition of a group says so, its first is taken.
    pub default: bool,
}

/// A rendition of subtitles.
#[derive(Debug, Clone)]
pub struct CaptionRendition {
    /// What it is called in file names and manifests, as [`Rendition::name`].
    pub name: String,
    /// BCP 47, such as `de`.
    pub language: Option<String>,
    /// What a person chooses it by; made from the language where it is empty.
    pub label: String,
    /// Only what must be read also by those who follow the sound.
    pub forced: bool,
    /// Also tells of sounds, for those who do not hear them.
    pub hearing_impaired: bool,
    /// On the film's timeline, in the order of their beginnings; what lies outside the film is left out.
    pub cues: Vec<Cue>,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Package {
    /// In the order to publish them: media before the playlists that name them, manifests last.
    pub files: Vec<PackagedFile>,
    /// One per rendition, in the request's order.
    pub renditions: Vec<RenditionReport>,
    /// The master playlist.
    pub master: Option<String>,
    /// The MPD.
    pub manifest: Option<String>,
    /// Seconds of the longest rendition.
    pub duration: f64,
}

impl Package {
    /// What players open and the linter begins with: the master playlist, or the only playlist, and the MPD.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        let only = self.renditions.first().and_then(|rendition| rendition.playlist.as_ref());
        self.master.as_ref().or(only).into_iter().chain(&self.manifest).map(String::as_str)
    }
}

/// One written file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackagedFile {
    /// Below the folder, with `/`.
    pub path: String,
    /// What it is.
    pub role: FileRole,
    /// MIME type (RFC 8216 §4, Apple 10.x).
    pub content_type: &'static str,
    /// Bytes.
    pub size: u64,
}

/// What a rendition turned out to be. Everything is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct RenditionReport {
    /// The request's name.
    pub name: String,
    /// As manifests name it; a file with picture and sound has both, divided by a comma.
    pub codecs: String,
    /// The picture, when there is one.
    pub picture: Option<PictureReport>,
    /// Channels of its sound, when there is one.
    pub channels: Option<u16>,
    /// Hz of its sound, when there is one.
    pub sample_rate: Option<u32>,
    /// Bits a second over all segments.
    pub average_bandwidth: u64,
    /// The largest bit rate of consecutive segments of half to one and a half target durations (RFC 8216 §4.4.6.2).
    pub peak_bandwidth: u64,
    /// Presented seconds.
    pub duration: f64,
    /// How many.
    pub segments: usize,
    /// Its media playlist.
    pub playlist: Option<String>,
    /// Bytes of its media, init segment included.
    pub bytes: u64,
}

/// What a picture turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureReport {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Pictures a second, over the whole.
    pub frame_rate: Rational,
    /// What its transfer function says.
    pub range: DynamicRange,
    /// How many.
    pub frames: u64,
}

/// HLS's VIDEO-RANGE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DynamicRange {
    /// Standard.
    Sdr,
    /// Hybrid log-gamma.
    Hlg,
    /// SMPTE ST 2084.
    Pq,
}

impl DynamicRange {
    /// As playlists call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sdr => "SDR",
            Self::Hlg => "HLG",
            Self::Pq => "PQ",
        }
    }

    /// By ISO 23091-2's code point of the transfer function.
    pub(crate) const fn of_transfer(code: u16) -> Self {
        match code {
            16 => Self::Pq,
            18 => Self::Hlg,
            _ => Self::Sdr,
        }
    }
}

/// Why nothing could be packaged.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Reading a rendition or writing a file failed.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A rendition is not what packaging needs.
    #[error("rendition \"{rendition}\" cannot be packaged: {why}")]
    Rendition {
        /// Which.
        rendition: String,
        /// The second half of the sentence.
        why: String,
    },
    /// Two video renditions have no key frame at the same instant.
    #[error("rendition \"{rendition}\" has no key frame at {seconds:.6} s, where \"{leader}\" is cut")]
    Misaligned {
        /// Which.
        rendition: String,
        /// The first video rendition, which says where to cut.
        leader: String,
        /// Where.
        seconds: f64,
    },
    /// The request contradicts itself.
    #[error("{0}")]
    Request(&'static str),
    /// A name cannot be used.
    #[error(transparent)]
    Name(#[from] BadName),
}

impl PackageError {
    fn rendition(rendition: &Rendition, why: impl Into<String>) -> Self {
        Self::Rendition { rendition: rendition.name.clone(), why: why.into() }
    }

    fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// Packages the renditions into `folder`, which must exist; what is in it is overwritten.
///
/// # Errors
/// [`PackageError`]; the folder may then hold part of a package.
pub fn package(request: &Request, folder: &Path) -> Result<Package, PackageError> {
    check(request)?;
    let mut out = write::Out::new(folder);
    let tracks = match request.layout {
        Layout::Transport => transport::cut(request, &mut out)?,
        Layout::Fragments | Layout::SingleFile => mp4::cut(request, &mut out)?,
    };
    let target = cut::target(&tracks);
    let captions = captions::write(request, &tracks, &mut out)?;
    let mut master = None;
    let mut playlists: Vec<Option<String>> = vec![None; tracks.len()];
    if request.manifests.hls {
        let written = hls::write(request, (&tracks, &captions), target, &mut out)?;
        master = written.master;
        playlists = written.playlists.into_iter().map(Some).collect();
    }
    let manifest =
        if request.manifests.dash { Some(dash::write(request, &tracks, &captions, &mut out)?) } else { None };
    let duration = tracks.iter().map(cut::Track::seconds).fold(0.0, f64::max);
    let reports = tracks.iter().zip(playlists).map(|(track, playlist)| track.report(target, playlist));
    Ok(Package { renditions: reports.collect(), files: out.into_files(), master, manifest, duration })
}

fn check(request: &Request) -> Result<(), PackageError> {
    if request.renditions.is_empty() {
        return Err(PackageError::Request("a package needs a rendition"));
    }
    if !(request.segment_seconds.is_finite() && request.segment_seconds > 0.0) {
        return Err(PackageError::Request("segments need a length"));
    }
    match (request.layout, request.manifests) {
        (_, Manifests { hls: false, dash: false }) => {
            return Err(PackageError::Request("a package needs a manifest"));
        }
        (_, Manifests { hls: true, .. })
            if request.names.master.is_none()
                && (request.renditions.len() != 1 || !request.captions.is_empty()) =>
        {
            return Err(PackageError::Request("several renditions need a master playlist"));
        }
        (Layout::Transport, Manifests { dash: true, .. }) => {
            return Err(PackageError::Request("MPEG-TS segments cannot go into an MPD"));
        }
        _ => {}
    }
    request.names.check(&request.renditions, &request.captions, request.layout)?;
    Ok(())
}

//! Subtitles: which of the source's tracks go where.

use super::{Cut, Language};
use crate::domain::preset::{CaptionMode, CaptionsSpec, EncodeSpec, FileFormat, MediaTime, Tracks};
use crate::domain::{MediaInfo, OutputIndex, SubtitleStream};

/// Most tracks of one output.
const MOST: usize = 32;

/// How far ahead of the timeline's zero the extracted text begins, seconds: a cue may begin before the part that is read,
/// and muxers move everything rather than write a time below zero.
pub const LEAD_SECONDS: u32 = 36_000;

/// A track of subtitles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionTrack {
    /// Source stream index.
    pub stream: u32,
    /// The source's language.
    pub language: Option<Language>,
    /// Only what must be read also by those who follow the sound.
    pub forced: bool,
    /// Also tells of sounds.
    pub hearing_impaired: bool,
}

/// A track that is written as `WebVTT` beside the renditions of sets.
#[derive(Debug, Clone, PartialEq)]
pub struct CaptionsPlan {
    /// What it is.
    pub track: CaptionTrack,
    /// The sets that it is for.
    pub outputs: Vec<OutputIndex>,
    /// File name in the work folder: `captions-{output}-{stream}.vtt`.
    pub file_name: String,
    /// The timeline's zero in the file, seconds.
    pub zero: f64,
    /// The part of the source that is kept ends here, seconds from zero; `None` = with the film.
    pub end: Option<f64>,
}

/// A track that is part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MuxedCaptions {
    /// What it is.
    pub track: CaptionTrack,
    /// How the container writes text, as ffmpeg calls it.
    pub codec: &'static str,
}

/// The tracks that an output gets, and what its client should know.
fn tracks(info: &MediaInfo, spec: &CaptionsSpec) -> (Vec<CaptionTrack>, Vec<String>) {
    let wanted: Vec<&SubtitleStream> = match &spec.languages {
        Tracks::First | Tracks::All => info.subtitles.iter().collect(),
        Tracks::Languages(tags) => {
            let mut wanted = Vec::new();
            for tag in tags {
                wanted.extend(info.subtitles.iter().filter(|track| track.language.as_ref() == Some(tag)));
            }
            wanted
        }
    };
    let mut warnings = Vec::new();
    if let Tracks::Languages(tags) = &spec.languages {
        let lacks = |tag: &&String| wanted.iter().all(|track| track.language.as_ref() != Some(tag));
        let missing: Vec<&str> = tags.iter().filter(lacks).map(String::as_str).collect();
        if !missing.is_empty() {
            warnings.push(format!("captions_missing: {}", missing.join(", ")));
        }
    }
    let (mut text, pictures): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|track| track.is_text());
    if !pictures.is_empty() {
        let codecs: Vec<_> = pictures.iter().map(|track| track.codec.as_str()).collect();
        warnings.push(format!("captions_left_out: not text ({})", codecs.join(", ")));
    }
    if text.len() > MOST {
        warnings.push(format!("captions_left_out: more than {MOST} tracks"));
        text.truncate(MOST);
    }
    let track = |stream: &SubtitleStream| CaptionTrack {
        stream: stream.index,
        language: stream.language.as_deref().and_then(Language::parse),
        forced: stream.forced,
        hearing_impaired: stream.hearing_impaired,
    };
    (text.into_iter().map(track).collect(), warnings)
}

/// The tracks of a file, with what its client should know.
pub(super) fn muxed(
    info: &MediaInfo,
    spec: &EncodeSpec,
    format: FileFormat,
) -> (Vec<MuxedCaptions>, Vec<String>) {
    let codec = match format {
        FileFormat::Mp4 | FileFormat::Mov => "mov_text",
        FileFormat::Matroska => "subrip",
        FileFormat::Webm
        | FileFormat::Fragments
        | FileFormat::Ts
        | FileFormat::M4a
        | FileFormat::Mp3
        | FileFormat::Ogg => {
            return (Vec::new(), Vec::new());
        }
    };
    let Some(captions) = &spec.captions else { return (Vec::new(), Vec::new()) };
    let (tracks, warnings) = tracks(info, captions);
    (tracks.into_iter().map(|track| MuxedCaptions { track, codec }).collect(), warnings)
}

/// The tracks of the sets among the outputs, each once; and what is to be told of each set.
pub(super) fn renditions(
    info: &MediaInfo,
    outputs: &[(OutputIndex, EncodeSpec)],
    cut: Option<Cut>,
) -> (Vec<CaptionsPlan>, Vec<(OutputIndex, String)>) {
    let (mut plans, mut warnings): (Vec<CaptionsPlan>, Vec<_>) = (Vec::new(), Vec::new());
    for (index, spec) in outputs {
        let Some(captions) = spec.captions.as_ref() else { continue };
        if spec.container.captions() != Some(CaptionMode::Hls) {
            continue;
        }
        let (tracks, told) = tracks(info, captions);
        warnings.extend(told.into_iter().map(|warning| (*index, warning)));
        for track in tracks {
            if let Some(known) = plans.iter_mut().find(|plan| plan.track == track) {
                known.outputs.push(*index);
                continue;
            }
            plans.push(CaptionsPlan {
                file_name: format!("captions-{index}-{}.vtt", track.stream),
                track,
                outputs: vec![*index],
                zero: f64::from(LEAD_SECONDS) + cut.map_or(0.0, Cut::zero_seconds),
                end: cut.and_then(|cut| cut.duration).map(MediaTime::seconds),
            });
        }
    }
    (plans, warnings)
}

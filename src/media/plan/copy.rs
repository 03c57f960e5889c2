//! Tracks that are taken over as they are.

use super::Language;
use crate::domain::preset::{EncodeSpec, FileFormat, Picture, Sound, Takes};
use crate::domain::{Code, Failure, MediaInfo};

/// A track of the source that is not encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// What it is.
    pub kind: TrackKind,
    /// Source stream index.
    pub stream: u32,
    /// Its codec, as ffprobe calls it.
    pub codec: String,
    /// The source's language: the one tag that is kept.
    pub language: Option<Language>,
}

/// What a track is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackKind {
    /// The picture.
    Picture,
    /// The sound.
    Sound,
}

/// The tracks that the output takes over.
pub(super) fn plan(info: &MediaInfo, spec: &EncodeSpec, format: FileFormat) -> Result<Vec<Copied>, Failure> {
    let (pictures, sounds) = format.takes_over();
    let picture = info.main_video().filter(|_| matches!(spec.video, Some(Picture::Copy(_))));
    let sound = info.main_audio().filter(|_| matches!(spec.audio, Some(Sound::Copy(_))));
    let picture = picture
        .map(|stream| track(TrackKind::Picture, stream.index, &stream.codec, None, (pictures, format)));
    let sound = sound.map(|stream| {
        track(TrackKind::Sound, stream.index, &stream.codec, stream.language.as_deref(), (sounds, format))
    });
    picture.into_iter().chain(sound).collect()
}

fn track(
    kind: TrackKind,
    stream: u32,
    codec: &str,
    language: Option<&str>,
    (takes, format): (Takes, FileFormat),
) -> Result<Copied, Failure> {
    if !takes.takes(codec) {
        let (what, extension) = match kind {
            TrackKind::Picture => ("picture", format.extension()),
            TrackKind::Sound => ("sound", format.extension()),
        };
        let message = format!("{extension} does not hold the source's {what} ({codec}) as it is; encode it");
        return Err(Failure::new(Code::MediaUnsupported, message));
    }
    Ok(Copied { kind, stream, codec: codec.to_owned(), language: language.and_then(Language::parse) })
}

//! Is the source whole? Declared ends against the bytes that are there, before anything is encoded (MEDIA-RULES §1.1).
//!
//! ffmpeg ends with success on cut files of most formats, so nobody else will ask. Containers that declare where they
//! end are checked against the file's length: ISO media by every sample of its index, Matroska by its segment, RIFF and
//! ASF by their chunks, FLV by its last tag, Ogg by its end-of-stream page. TS, PS, raw streams, MPEG audio and the
//! like declare nothing: for them only the transport's length and decode errors speak ([`Completeness::Undeclared`]).
//! Every number in a file is hostile: reads are bounded, walks have a step limit, nothing is allocated by a declared size.

mod asf;
mod flv;
mod fragments;
mod isobmff;
mod matroska;
mod ogg;
mod reader;
mod riff;

use crate::domain::{Code, Demuxer, Failure};

use super::RandomRead;
use reader::Reader;

/// Steps of one walk; a 12 h file in fragments of half a second has fewer.
const MAX_STEPS: u32 = 400_000;

/// What the container says about its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// It declares its end, and all of it is there.
    Proven,
    /// It does not declare an end.
    Undeclared,
}

/// What the structure tells beyond its verdict.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Facts {
    /// Whether the end is known.
    pub completeness: Completeness,
    /// ISO media in fragments: its index is spread over the file, so reading it ahead is slow over a network.
    pub fragmented: bool,
    /// Duration as the container's own header has it, seconds.
    pub declared_seconds: Option<f64>,
}

impl Facts {
    const PROVEN: Self =
        Self { completeness: Completeness::Proven, fragmented: false, declared_seconds: None };
    const UNDECLARED: Self =
        Self { completeness: Completeness::Undeclared, fragmented: false, declared_seconds: None };
}

/// Checks a source's structure.
///
/// # Errors
/// `media_truncated` when declared bytes are missing, `media_corrupt` when the structure contradicts itself,
/// `media_unsupported` for encrypted media, `source_unreachable` when it cannot be read.
pub async fn check(source: &dyn RandomRead, demuxer: Demuxer) -> Result<Facts, Failure> {
    let mut reader = Reader::new(source);
    match demuxer {
        Demuxer::Mov => isobmff::check(&mut reader).await,
        Demuxer::Matroska => matroska::check(&mut reader).await,
        Demuxer::Avi | Demuxer::Wav => riff::check(&mut reader).await,
        Demuxer::Flv => flv::check(&mut reader).await,
        Demuxer::Ogg => ogg::check(&mut reader).await,
        Demuxer::Asf => asf::check(&mut reader).await,
        Demuxer::Mpegts
        | Demuxer::Mpeg
        | Demuxer::Mpegvideo
        | Demuxer::Rm
        | Demuxer::Mxf
        | Demuxer::Mp3
        | Demuxer::Flac
        | Demuxer::Aac
        | Demuxer::Ac3
        | Demuxer::Dts
        | Demuxer::H264
        | Demuxer::Hevc
        | Demuxer::Ivf
        | Demuxer::M4v
        | Demuxer::Gif => Ok(Facts::UNDECLARED),
    }
}

/// The refusal of a source that ends too early; `what` says where, for the operator.
fn truncated(what: impl Into<String>) -> Failure {
    Failure::new(Code::MediaTruncated, "The source ends before its own structure says it does.")
        .with_detail(what)
}

fn corrupt(what: impl Into<String>) -> Failure {
    Failure::new(Code::MediaCorrupt, "The source's structure contradicts itself.").with_detail(what)
}

fn encrypted() -> Failure {
    Failure::new(Code::MediaUnsupported, "The source is encrypted.")
}

#[cfg(test)]
pub(in crate::media) mod tests;

//! WebVTT (W3C), as HLS and DASH carry it: reading what may be hostile, and writing what always can be read.
//!
//! Pure. The packager cuts subtitles with it and the linter reads them back. It is strict where a player would leave
//! something out without a word: a block that is no cue, a cue that ends before it begins, a time stamp that is none.
//! Sizes are bounded, nothing panics. Whatever a [`Document`] holds, its `Display` is a file that [`read()`] takes.
//! Comments, the text behind the signature and header lines other than `X-TIMESTAMP-MAP` are not kept.

mod read;
#[cfg(test)]
mod tests;
mod time;
mod write;

use std::fmt;

pub use read::read;
pub use time::{Moment, TimestampMap};

/// Bytes of a file at most. Subtitles of a film of ten hours have one million.
pub const MAX_BYTES: usize = 8 << 20;
/// Cues of a file at most.
pub const MAX_CUES: usize = 100_000;
/// Bytes of a line at most.
pub const MAX_LINE: usize = 16 << 10;
/// Lines of a cue, a comment or a style at most.
pub const MAX_LINES: usize = 4096;

/// A file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// Where its times lie among those of the media (RFC 8216 §3.5).
    pub timestamp_map: Option<TimestampMap>,
    /// What is inside `STYLE` blocks, lines apart.
    pub styles: Vec<String>,
    /// What is inside `REGION` blocks, lines apart.
    pub regions: Vec<String>,
    /// As they stand in the file, which should be in the order of their beginnings.
    pub cues: Vec<Cue>,
}

/// A text and when it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cue {
    /// The line above its times.
    pub id: Option<String>,
    /// When it appears.
    pub start: Moment,
    /// When it is gone: later than `start`.
    pub end: Moment,
    /// What stands behind its times (`align:start line:0`); empty = nothing.
    pub settings: String,
    /// Its text with markup, lines apart; none of them is empty.
    pub payload: String,
}

impl Cue {
    /// Whether a text has characters that no player shows: controls other than tabs and line ends.
    #[must_use]
    pub fn has_controls(&self) -> bool {
        self.payload.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n'))
    }
}

/// Why a file cannot be read, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Fault {
    /// From 1; 0 is the file itself.
    pub line: usize,
    /// What is wrong there.
    pub what: Wrong,
}

/// What can be wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// More than [`MAX_BYTES`].
    TooLarge,
    /// A line of more than [`MAX_LINE`] bytes.
    LongLine,
    /// More than [`MAX_LINES`] without an empty one.
    TooManyLines,
    /// More than [`MAX_CUES`].
    TooManyCues,
    /// The first line is not `WEBVTT`, alone or with text after a space.
    Signature,
    /// `X-TIMESTAMP-MAP` is not `LOCAL:` with a time and `MPEGTS:` with 33 bits, or is there twice.
    TimestampMap,
    /// Something like `00:00:01.000` was expected.
    Time,
    /// No `-->` between two times, with a space on each side.
    Times,
    /// A cue ends before it begins, or at the same time.
    EndsTooSoon,
    /// A block that is neither cue nor comment, style or region: players leave it out.
    NoArrow,
    /// `-->` in a name, a text, a comment or a style: players begin a cue there.
    Arrow,
    /// A style or region behind a cue: players ignore it.
    LateBlock,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "a file of more than 8 MiB",
            Self::LongLine => "a line of more than 16 KiB",
            Self::TooManyLines => "more than 4096 lines without an empty one",
            Self::TooManyCues => "more than 100000 cues",
            Self::Signature => "no WEBVTT at the beginning",
            Self::TimestampMap => "an X-TIMESTAMP-MAP that is none",
            Self::Time => "no time stamp",
            Self::Times => "no \"-->\" between spaces",
            Self::EndsTooSoon => "a cue that ends before it begins",
            Self::NoArrow => "a block without times",
            Self::Arrow => "\"-->\" where no times are",
            Self::LateBlock => "a style or region behind a cue",
        })
    }
}

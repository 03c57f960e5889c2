//! Which part of a source is read, and how exactly it is found.

use super::{Filter, OutputPlan};
use crate::domain::preset::{Clip, MediaTime};
use crate::domain::{Code, Demuxer, Failure};

/// Ends that lie no further apart than this are the same, seconds: headers are that wrong (MEDIA-RULES §2).
const NEAR: f64 = 0.1;

/// The part of the source that one process reads. Its begin is the zero of what is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// Where it begins on the source's timeline.
    pub start: MediaTime,
    /// How long it is; `None` = to the source's end.
    pub duration: Option<MediaTime>,
    /// Whether the demuxer goes to the key frame before `start`; where it does not, everything before is decoded and
    /// thrown away.
    pub seeks: bool,
}

impl Cut {
    /// The cut for a clip; of subtitles also what began before is shown.
    pub(super) const fn of(clip: Clip, container: Demuxer, with_text: bool) -> Self {
        // MP4 finds the text of a time. Matroska lies in the order of time, and a text may begin long before the key frame
        // (measured with 5.1.9: it was lost).
        let seeks = seeks(container) && !(with_text && matches!(container, Demuxer::Matroska));
        Self { start: clip.start, duration: clip.duration, seeks }
    }

    /// The timeline's zero, seconds into what ffmpeg calls the source's: where the demuxer has gone to the start, it
    /// counts from there.
    fn zero(self) -> MediaTime {
        if self.seeks { MediaTime::default() } else { self.start }
    }

    /// The same in seconds, for what goes through no filter.
    pub(super) fn zero_seconds(self) -> f64 {
        self.zero().seconds()
    }

    /// What every picture and sound of the source goes through first.
    pub(super) fn lay(self, files: &mut [OutputPlan]) {
        let (start, end) = (self.zero(), self.duration.map(|duration| self.zero().plus(duration)));
        for file in files {
            if let Some(video) = file.video.as_mut().filter(|video| video.feed == super::Feed::Source) {
                // An even grid is filled up to where the source ends, which may be told late: measured with 5.1.9 where the
                // sound ends before the clip does.
                let grid = |filter: &Filter| matches!(filter, Filter::Fps(_) | Filter::FpsFromZero(_));
                if let (Some(at), true) = (video.filters.iter().position(grid), end.is_some()) {
                    let bound = Filter::CutPicture { start: MediaTime::default(), end: self.duration };
                    video.filters.insert(at + 1, bound);
                }
                video.filters.insert(0, Filter::CutPicture { start, end });
            }
            for audio in &mut file.audio {
                audio.filters.insert(0, Filter::CutSound { start, end });
            }
        }
    }

    /// What is left of a source of `whole` seconds, seconds, and whether that is less than was asked for.
    ///
    /// # Errors
    /// `clip_out_of_range`: the source ends before the clip begins.
    pub(in crate::media) fn length(self, whole: Option<f64>) -> Result<(Option<f64>, bool), Failure> {
        let wanted = self.duration.map(MediaTime::seconds);
        let Some(whole) = whole else { return Ok((wanted, false)) };
        let left = whole - self.start.seconds();
        if left <= 0.0 {
            return Err(out_of_range(self.start, Some(whole)));
        }
        let short = wanted.is_some_and(|wanted| wanted > left + NEAR);
        Ok((Some(wanted.map_or(left, |wanted| wanted.min(left))), short))
    }
}

/// A clip of which the source has nothing.
pub(in crate::media) fn out_of_range(start: MediaTime, whole: Option<f64>) -> Failure {
    let of = whole.map_or_else(String::new, |whole| format!(" and the source is {whole:.3} s long"));
    Failure::new(Code::ClipOutOfRange, format!("The clip begins at {:.3} s{of}.", start.seconds()))
}

/// Containers with an index of all key frames. Others are searched by the times of packets, which lands behind the key
/// (measured with 5.1.9 on MPEG-TS with 5 s GOPs: the picture came 1.7 s late) or, after a jump of their clocks,
/// anywhere.
const fn seeks(container: Demuxer) -> bool {
    matches!(container, Demuxer::Mov | Demuxer::Matroska)
}

/// The warning of an output that is shorter than its clip.
pub(super) fn shortened(length: Option<f64>) -> String {
    format!("clip_shortened: the source has {:.3} s from there on", length.unwrap_or_default())
}

//! What is worth knowing about a source before it is encoded: names, as warnings of results have them.

use super::{FieldOrder, MediaInfo};

/// Something about a source that changes what is made of it, or what cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remark {
    /// No picture but covers: outputs that need one fail with `no_video_stream`.
    NoPicture,
    /// No sound: outputs that need it fail with `no_audio_stream`.
    NoSound,
    /// The container does not say how long it is: progress has no percentage.
    NoDuration,
    /// Nothing says how many frames a second there are.
    NoFrameRate,
    /// Frames come at uneven times.
    VariableFrameRate,
    /// Declared as fields.
    Interlaced,
    /// PQ or HLG: tone mapped unless the output keeps it.
    Hdr,
    /// Samples are not square: the shown size differs from the stored.
    UnevenSamples,
    /// The stored picture is turned.
    Rotated,
    /// There are pictures beside the one that is encoded.
    SeveralPictures,
    /// There are sounds beside the one that is encoded by default.
    SeveralSounds,
}

impl Remark {
    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoPicture => "no_video",
            Self::NoSound => "no_audio",
            Self::NoDuration => "no_duration",
            Self::NoFrameRate => "no_frame_rate",
            Self::VariableFrameRate => "variable_frame_rate",
            Self::Interlaced => "interlaced",
            Self::Hdr => "hdr",
            Self::UnevenSamples => "non_square_samples",
            Self::Rotated => "rotated",
            Self::SeveralPictures => "several_video_streams",
            Self::SeveralSounds => "several_audio_streams",
        }
    }
}

impl MediaInfo {
    /// What is worth knowing, in a fixed order.
    #[must_use]
    pub fn remarks(&self) -> Vec<Remark> {
        let main = self.main_video();
        let of_main = |is: fn(&super::VideoStream) -> bool| main.is_some_and(is);
        let films = self.video.iter().filter(|video| !video.attached_picture).count();
        [
            (main.is_none(), Remark::NoPicture),
            (self.audio.is_empty(), Remark::NoSound),
            (self.duration_seconds.is_none(), Remark::NoDuration),
            (of_main(|video| video.frame_rate.is_none()), Remark::NoFrameRate),
            (of_main(|video| video.variable_rate), Remark::VariableFrameRate),
            (
                of_main(|v| matches!(v.field_order, FieldOrder::TopFirst | FieldOrder::BottomFirst)),
                Remark::Interlaced,
            ),
            (of_main(|video| video.color.is_hdr()), Remark::Hdr),
            (of_main(|video| video.sar != super::Rational::ONE), Remark::UnevenSamples),
            (of_main(|video| video.rotation != super::Rotation::None), Remark::Rotated),
            (films > 1, Remark::SeveralPictures),
            (self.audio.len() > 1, Remark::SeveralSounds),
        ]
        .into_iter()
        .filter_map(|(holds, remark)| holds.then_some(remark))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Demuxer;

    #[test]
    fn an_empty_source_lacks_everything_and_is_nothing_else() {
        let empty = MediaInfo {
            container: Demuxer::Mov,
            size: 1,
            duration_seconds: None,
            video: Vec::new(),
            audio: Vec::new(),
            subtitles: vec![],
            other: Vec::new(),
        };
        assert_eq!(empty.remarks(), [Remark::NoPicture, Remark::NoSound, Remark::NoDuration]);
    }
}

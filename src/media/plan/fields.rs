//! Fields into frames: what is done about interlace and telecine (MEDIA-RULES §1.12).

use super::{Cadence, Filter};
use crate::domain::preset::{Deinterlace, VideoSpec};
use crate::domain::{FieldOrder, Rational, Scan, VideoStream};

/// How frames are made of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joining {
    /// One frame per frame; those that their decoder calls progressive pass.
    Flagged,
    /// One frame per frame, whatever the flags say.
    PerFrame(FieldOrder),
    /// One frame per field.
    PerField(FieldOrder),
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fields {
    /// Frames are whole.
    Whole,
    Join(Joining),
    /// Film in a 29.97 frame, taken out again.
    Film(FieldOrder),
}

/// Decides; without a measurement a codec of television is believed.
pub(super) fn decide(stream: &VideoStream, spec: &VideoSpec) -> Fields {
    let scan = stream.measured.scan;
    let declared = stream.declares_fields() && stream.codec_has_fields();
    let order = match scan {
        Some(Scan::Interlaced(order) | Scan::Telecined(order)) => order,
        Some(Scan::Progressive | Scan::Mixed) | None => stream.field_order,
    };
    match (spec.deinterlace, scan) {
        (Deinterlace::Off, _) | (Deinterlace::Auto | Deinterlace::Field, Some(Scan::Progressive)) => {
            Fields::Whole
        }
        (Deinterlace::Frame, _) | (Deinterlace::Auto, Some(Scan::Interlaced(_))) => {
            Fields::Join(Joining::PerFrame(order))
        }
        (Deinterlace::Field, Some(Scan::Interlaced(_))) => Fields::Join(Joining::PerField(order)),
        (Deinterlace::Auto | Deinterlace::Field, Some(Scan::Telecined(_))) => Fields::Film(order),
        (Deinterlace::Auto | Deinterlace::Field, Some(Scan::Mixed)) => Fields::Join(Joining::Flagged),
        (Deinterlace::Auto, None) if declared => Fields::Join(Joining::Flagged),
        (Deinterlace::Field, None) if declared => Fields::Join(Joining::PerField(order)),
        (Deinterlace::Auto | Deinterlace::Field, None) => Fields::Whole,
    }
}

impl Fields {
    pub(super) const fn cadence(self) -> Cadence {
        match self {
            Self::Whole | Self::Join(Joining::Flagged | Joining::PerFrame(_)) => Cadence::Same,
            Self::Join(Joining::PerField(_)) => Cadence::Doubled,
            Self::Film(_) => Cadence::Film,
        }
    }

    /// The stream with the rate and the ticks that its frames have afterwards.
    pub(super) fn timed(self, stream: &VideoStream) -> VideoStream {
        let mut timed = stream.clone();
        match self.cadence() {
            Cadence::Same => {}
            Cadence::Doubled => {
                let double = |rate: Rational| Rational::new(rate.num().saturating_mul(2), rate.den()).ok();
                timed.frame_rate = stream.frame_rate.and_then(double);
                timed.time_base = stream.time_base.halved();
            }
            Cadence::Film => {
                timed.frame_rate = Some(film());
                timed.variable_rate = false;
            }
        }
        timed
    }

    /// The steps, in order.
    pub(super) fn filters(self) -> Vec<Filter> {
        match self {
            Self::Whole => Vec::new(),
            Self::Join(joining) => vec![Filter::Deinterlace(joining)],
            // `decimate` counts frames and takes their rate for granted: holes must be filled before. What `fieldmatch`
            // finds no partner for is joined like any other field.
            Self::Film(order) => vec![
                Filter::Fps(television()),
                Filter::MatchFields(order),
                Filter::Deinterlace(Joining::Flagged),
                Filter::Decimate,
            ],
        }
    }

    /// What the client should know.
    pub(super) const fn warning(self) -> Option<&'static str> {
        match self {
            Self::Whole | Self::Join(Joining::Flagged) => None,
            Self::Join(Joining::PerFrame(_) | Joining::PerField(_)) => Some("deinterlaced"),
            Self::Film(_) => Some("telecine_removed"),
        }
    }
}

/// 24000/1001: what is left of [`television`] when every fifth frame goes.
pub(super) fn film() -> Rational {
    Rational::new(24_000, 1001).unwrap_or(Rational::ONE)
}

fn television() -> Rational {
    Rational::new(30_000, 1001).unwrap_or(Rational::ONE)
}

//! What the samples mean, before and after: tags, what is assumed where there are none, and what must be converted.
//!
//! Rules: MEDIA-RULES §1.10 (tags, untagged sources) and §1.15 (HDR). Names that ffmpeg may print but flux does not
//! know count as untagged, so no text of a file ever reaches a filter.

use crate::domain::preset::{DynamicRange, VideoSpec};
use crate::domain::{ColorRange, VideoStream};

macro_rules! names {
    ($($(#[$doc:meta])* $kind:ident { $($name:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the names are those of ITU-T H.273")]
        pub enum $kind {$($name,)*}

        impl $kind {
            /// As ffmpeg prints it and `setparams` takes it.
            #[must_use]
            pub const fn name(self) -> &'static str { match self {$(Self::$name => $text,)*} }

            fn from_name(text: &str) -> Option<Self> { match text {$($text => Some(Self::$name),)* _ => None} }
        }
    )*};
}

names! {
    /// Colour primaries.
    Primaries {
        Bt709 = "bt709", Bt470m = "bt470m", Bt470bg = "bt470bg", Smpte170m = "smpte170m", Smpte240m = "smpte240m",
        Film = "film", Bt2020 = "bt2020", Smpte428 = "smpte428", Smpte431 = "smpte431", Smpte432 = "smpte432",
    }
    /// Transfer characteristics.
    Transfer {
        Bt709 = "bt709", Bt470m = "bt470m", Bt470bg = "bt470bg", Smpte170m = "smpte170m", Smpte240m = "smpte240m",
        Linear = "linear", Log100 = "log100", Log316 = "log316", Iec61966x24 = "iec61966-2-4",
        Srgb = "iec61966-2-1", Bt2020x10 = "bt2020-10", Bt2020x12 = "bt2020-12", Pq = "smpte2084",
        Hlg = "arib-std-b67",
    }
    /// Matrix coefficients.
    Matrix {
        Rgb = "gbr", Bt709 = "bt709", Fcc = "fcc", Bt470bg = "bt470bg", Smpte170m = "smpte170m",
        Smpte240m = "smpte240m", Ycgco = "ycgco", Bt2020nc = "bt2020nc", Bt2020c = "bt2020c", Ictcp = "ictcp",
    }
}

/// Sample range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Range {
    /// 16 to 235.
    Limited,
    /// 0 to 255.
    Full,
}

impl Range {
    /// As ffmpeg prints it and its filters take it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Limited => "tv",
            Self::Full => "pc",
        }
    }
}

/// What samples mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal {
    /// Primaries.
    pub primaries: Primaries,
    /// Transfer.
    pub transfer: Transfer,
    /// Matrix.
    pub matrix: Matrix,
    /// Range.
    pub range: Range,
}

impl Signal {
    /// High definition, standard range: what everything unusual becomes.
    pub const BT709: Self = Self {
        primaries: Primaries::Bt709,
        transfer: Transfer::Bt709,
        matrix: Matrix::Bt709,
        range: Range::Limited,
    };

    pub(super) const fn is_hdr(self) -> bool {
        matches!(self.transfer, Transfer::Pq | Transfer::Hlg)
    }

    /// Whether players show it right as it is: the 601 and 709 families with a camera or display curve.
    const fn is_common(self) -> bool {
        matches!(self.primaries, Primaries::Bt709 | Primaries::Smpte170m | Primaries::Bt470bg)
            && matches!(self.matrix, Matrix::Bt709 | Matrix::Smpte170m | Matrix::Bt470bg | Matrix::Rgb)
            && matches!(
                self.transfer,
                Transfer::Bt709 | Transfer::Smpte170m | Transfer::Bt470m | Transfer::Bt470bg | Transfer::Srgb
            )
    }
}

/// What is done to the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conversion {
    /// Nothing, or matrix and range only.
    Linear,
    /// Primaries or transfer too.
    Curve,
    /// HDR to standard range.
    ToneMap,
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colored {
    pub(super) source: Signal,
    pub(super) target: Signal,
    pub(super) conversion: Conversion,
}

impl Colored {
    pub(super) fn tone_mapped(self) -> bool {
        self.conversion == Conversion::ToneMap
    }
}

/// Decides source, target and conversion.
pub(super) fn decide(stream: &VideoStream, spec: &VideoSpec) -> Colored {
    let source = read(stream);
    let keep = spec.range == DynamicRange::Keep;
    if source.is_hdr() && !keep {
        return Colored { source, target: Signal::BT709, conversion: Conversion::ToneMap };
    }
    // swscale has no constant-luminance or ICtCp matrices; those are unmixed by zscale even where the rest stays.
    let simple = !matches!(source.matrix, Matrix::Ycgco | Matrix::Bt2020c | Matrix::Ictcp);
    let target = if source.is_common() || keep {
        let matrix = match source.matrix {
            Matrix::Rgb | Matrix::Ycgco | Matrix::Bt2020c | Matrix::Ictcp => matrix_for(source.primaries),
            kept @ (Matrix::Bt709
            | Matrix::Fcc
            | Matrix::Bt470bg
            | Matrix::Smpte170m
            | Matrix::Smpte240m
            | Matrix::Bt2020nc) => kept,
        };
        Signal { matrix, range: Range::Limited, ..source }
    } else {
        Signal::BT709
    };
    let same_light = source.primaries == target.primaries && source.transfer == target.transfer;
    let conversion = if same_light && simple { Conversion::Linear } else { Conversion::Curve };
    Colored { source, target, conversion }
}

const fn matrix_for(primaries: Primaries) -> Matrix {
    match primaries {
        Primaries::Bt2020 => Matrix::Bt2020nc,
        Primaries::Smpte170m => Matrix::Smpte170m,
        Primaries::Bt470bg => Matrix::Bt470bg,
        Primaries::Bt709
        | Primaries::Bt470m
        | Primaries::Smpte240m
        | Primaries::Film
        | Primaries::Smpte428
        | Primaries::Smpte431
        | Primaries::Smpte432 => Matrix::Bt709,
    }
}

/// The source's tags, with the untagged rule where there are none.
fn read(stream: &VideoStream) -> Signal {
    let tags = &stream.color;
    let rgb = is_rgb(&stream.pix_fmt);
    let transfer = tags.transfer.as_deref().and_then(Transfer::from_name);
    let matrix = tags.matrix.as_deref().and_then(Matrix::from_name).filter(|m| (*m == Matrix::Rgb) == rgb);
    let primaries = tags.primaries.as_deref().and_then(Primaries::from_name);

    let wide =
        matches!(transfer, Some(Transfer::Pq | Transfer::Hlg | Transfer::Bt2020x10 | Transfer::Bt2020x12))
            || matches!(matrix, Some(Matrix::Bt2020nc | Matrix::Bt2020c | Matrix::Ictcp))
            || primaries == Some(Primaries::Bt2020);
    let assumed = if wide {
        Signal {
            primaries: Primaries::Bt2020,
            transfer: Transfer::Bt2020x10,
            matrix: Matrix::Bt2020nc,
            range: Range::Limited,
        }
    } else if rgb {
        Signal { matrix: Matrix::Rgb, ..Signal::BT709 }
    } else {
        untagged(stream)
    };
    let full = match tags.range {
        Some(ColorRange::Full) => true,
        Some(ColorRange::Limited) => false,
        // The "j" formats are full range by name.
        None => rgb || stream.pix_fmt.starts_with("yuvj"),
    };
    Signal {
        primaries: primaries.unwrap_or(assumed.primaries),
        transfer: transfer.unwrap_or(assumed.transfer),
        matrix: if rgb { Matrix::Rgb } else { matrix.unwrap_or(assumed.matrix) },
        range: if full { Range::Full } else { Range::Limited },
    }
}

/// Standard definition is 601 with the lines of its rate, everything else 709; never HDR (MEDIA-RULES §1.10). The
/// sides are compared by length, so that a portrait 720x1280 is not taken for standard definition by its width.
fn untagged(stream: &VideoStream) -> Signal {
    let (short, long) = (stream.width.min(stream.height), stream.width.max(stream.height));
    if short > 576 && long > 1024 {
        return Signal::BT709;
    }
    let fps = stream.frame_rate.map_or(0.0, crate::domain::Rational::as_f64);
    let lines_625 = [25.0, 50.0].iter().any(|rate| (fps - rate).abs() < 0.05);
    let (primaries, matrix) = if lines_625 {
        (Primaries::Bt470bg, Matrix::Bt470bg)
    } else {
        (Primaries::Smpte170m, Matrix::Smpte170m)
    };
    Signal { primaries, transfer: Transfer::Smpte170m, matrix, range: Range::Limited }
}

fn is_rgb(pix_fmt: &str) -> bool {
    pix_fmt == "pal8" || ["rgb", "bgr", "gbr"].iter().any(|order| pix_fmt.contains(order))
}

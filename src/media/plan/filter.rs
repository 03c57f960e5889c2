//! The filters flux may emit: a closed set of numbers and enums (MEDIA-RULES §1.3). Filters that open files do not
//! exist here, and no variant holds text.

use super::color::{Colored, Conversion, Matrix, Signal};
use super::fields::Joining;
use super::size::{self, Geometry, Placement};
use crate::domain::preset::{BitDepth, Flip, MediaTime, PadColor};
use crate::domain::{FieldOrder, Rational, Rotation, VideoStream};

/// One step of a picture's or a sound's chain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Filter {
    /// The pictures from `start` to `end` on the source's timeline, shown from zero on.
    CutPicture {
        /// The first that is kept is not before it.
        start: MediaTime,
        /// The last that is kept is before it; `None` = the source's end.
        end: Option<MediaTime>,
    },
    /// The samples from `start` to `end` on the source's timeline, heard from zero on.
    CutSound {
        /// Exact to the sample.
        start: MediaTime,
        /// Exact to the sample; `None` = the source's end.
        end: Option<MediaTime>,
    },
    /// Fields become frames.
    Deinterlace(Joining),
    /// Fields of film are put together again, in this order.
    MatchFields(FieldOrder),
    /// Every fifth frame, the one that repeats, goes.
    Decimate,
    /// An even grid on the absolute timeline: nearest frame for each tick (MEDIA-RULES §1.2).
    Fps(Rational),
    /// The same from the timeline's zero on: the first frame of a late picture leads it in.
    FpsFromZero(Rational),
    /// Size, matrix and range by swscale.
    Scale {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// What comes in.
        from: Signal,
        /// What goes out; primaries and transfer are those of `from`.
        to: Signal,
    },
    /// Size, matrix, range, primaries and transfer by zimg.
    Convert {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// What comes in.
        from: Signal,
        /// What goes out.
        to: Signal,
    },
    /// Size, and HDR to linear light with BT.709 primaries, 1.0 = 100 nit.
    Linearise {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// What comes in.
        from: Signal,
    },
    /// Linear light above 1.0 is bent into 0 to 1.
    ToneMap {
        /// Brightest light of the source in units of 100 nit.
        peak: u16,
    },
    /// Linear light to a signal.
    Delinearise(Signal),
    /// Sample layout.
    Format(Layout),
    /// Cuts out a part.
    Crop {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Pixels from the left.
        x: u32,
        /// Pixels from the top.
        y: u32,
    },
    /// Turns clockwise.
    Turn(Rotation),
    /// Mirrors.
    Mirror(Flip),
    /// Puts the picture on a canvas.
    Pad {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Pixels from the left.
        x: u32,
        /// Pixels from the top.
        y: u32,
        /// The canvas.
        color: PadColor,
    },
    /// Adds a column or row by repeating the last one, to get even sides without resampling.
    Extend {
        /// Width after.
        width: u32,
        /// Height after.
        height: u32,
        /// Columns added.
        right: u32,
        /// Rows added.
        bottom: u32,
    },
    /// Writes what the samples mean; ffmpeg 5.1's scalers convert without retagging (MEDIA-RULES §1.10).
    Tag(Signal),
    /// Square samples.
    SquareSamples,
    /// Mono to both sides at its own level: resampling alone would take it for a centre and lower it by 3 dB
    /// (measured with 5.1.9).
    BothSides,
    /// Rate, channels and timeline of a sound: silence leads a late start in and fills holes; downmixing keeps
    /// the centre and surrounds at -3 dB and scales down so that it cannot clip.
    Resample {
        /// Samples per second.
        rate: u32,
        /// Channels of the result: 1, 2 or 6.
        channels: u16,
    },
    /// One picture in so many seconds.
    Spread(f64),
    /// Of so many pictures the one that is most like all of them.
    Typical(u16),
    /// One constant gain, dB.
    Gain(f64),
    /// EBU R 128 measurement with true peak, printed at the end.
    Measure,
    /// Counts how frames are made, printed at the end.
    CountFields,
    /// One frame of so many.
    EveryNth(u32),
    /// Prints the smallest part that holds everything that is not black (`media::analyze` has the limit's measurement).
    FindBars,
}

/// Sample layouts between filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// 4:2:0, 8 bits.
    Yuv420,
    /// 4:2:0, 10 bits.
    Yuv420Ten,
    /// 4:4:4, 10 bits.
    Yuv444Ten,
    /// Planar RGB, 32-bit float.
    Float,
}

/// Brightest light assumed of HDR sources, in units of 100 nit: `MediaInfo` carries no mastering data, and 1,000 nit
/// is what HLG means by definition and most PQ masters are made for. Measured with ffmpeg 5.1.9 on a grey ramp: a
/// 203 nit white lands on 76 % luma for PQ and HLG alike, monotone and neutral (MEDIA-RULES §1.15 asks 70 to 85 %;
/// 203 nit as the unit gave 68 %).
const HDR_PEAK: u16 = 10;

/// The colours of a picture.
pub(super) struct Paint<'a> {
    pub(super) color: &'a Colored,
    pub(super) depth: BitDepth,
    /// What surrounds it, where anything does.
    pub(super) bars: PadColor,
}

/// Size, colour and placement of a picture.
pub(super) fn picture(chain: &mut Vec<Filter>, stream: &VideoStream, geometry: &Geometry, paint: &Paint<'_>) {
    let Paint { color, depth, bars } = *paint;
    let layout = match depth {
        BitDepth::Eight => Layout::Yuv420,
        BitDepth::Ten => Layout::Yuv420Ten,
    };
    let stored = size::stored(stream);
    let (mut scaled, mut placement) = (geometry.scaled, geometry.placement);
    // zimg refuses odd sides with subsampled chroma.
    let even = (stored.0.div_ceil(2) * 2, stored.1.div_ceil(2) * 2);
    if color.conversion != Conversion::Linear && even != stored {
        chain.push(extend(even, (even.0 - stored.0, even.1 - stored.1)));
        if let Placement::Extend { .. } = placement {
            (scaled, placement) = (even, Placement::Whole);
        }
    }
    let (width, height) = scaled;
    let Colored { source: from, target: to, conversion } = *color;
    match conversion {
        Conversion::Linear => {
            let same = from.matrix == to.matrix && from.range == to.range;
            if scaled != stored || !same || layout.pix_fmt() != stream.pix_fmt {
                chain.push(Filter::Scale { width, height, from, to });
            }
            chain.push(Filter::Format(layout));
        }
        Conversion::Curve => {
            chain.extend([Filter::Convert { width, height, from, to }, Filter::Format(layout)]);
        }
        Conversion::ToneMap => chain.extend([
            Filter::Linearise { width, height, from },
            Filter::Format(Layout::Float),
            Filter::ToneMap { peak: HDR_PEAK },
            Filter::Delinearise(to),
            Filter::Format(layout),
        ]),
    }
    let (width, height) = (geometry.width, geometry.height);
    match placement {
        Placement::Whole => {}
        Placement::Crop { x, y } => chain.push(Filter::Crop { width, height, x, y }),
        Placement::Pad { x, y } => {
            let pad = Filter::Pad { width, height, x, y, color: bars };
            pad_in(chain, pad, &Padded { inner: scaled, outer: (width, height), signal: to, layout, bars });
        }
        Placement::Extend { right, bottom } => chain.push(extend((width, height), (right, bottom))),
    }
    chain.extend([Filter::Tag(to), Filter::SquareSamples]);
}

/// A picture with bars.
struct Padded {
    inner: (u32, u32),
    outer: (u32, u32),
    signal: Signal,
    layout: Layout,
    bars: PadColor,
}

/// `pad` of ffmpeg 5.1 paints with the coefficients of BT.601 whatever the picture has (measured: red on a BT.709 picture
/// gets 81 90 240 instead of 63 102 240). So a picture with hued bars is taken to 601 for them, without loss: 10 bits,
/// all chroma, and zimg, which does not clip.
fn pad_in(chain: &mut Vec<Filter>, pad: Filter, padded: &Padded) {
    let Padded { inner, outer, signal, layout, bars } = *padded;
    if bars.is_neutral() || matches!(signal.matrix, Matrix::Smpte170m | Matrix::Bt470bg) {
        chain.push(pad);
        return;
    }
    let painted = Signal { matrix: Matrix::Smpte170m, ..signal };
    let convert = |(width, height), from, to| Filter::Convert { width, height, from, to };
    chain.extend([
        convert(inner, signal, painted),
        Filter::Format(Layout::Yuv444Ten),
        pad,
        convert(outer, painted, signal),
        Filter::Format(layout),
    ]);
}

/// The chain that makes a picture of a larger one of the same set, which already has the colour, the shape and an even
/// rate (`slower`, where this one has fewer frames).
pub(super) fn smaller(slower: Option<Filter>, plan: &super::VideoPlan) -> Vec<Filter> {
    let mut chain: Vec<Filter> = slower.into_iter().collect();
    let tag = plan.filters.iter().copied().rfind(|filter| matches!(filter, Filter::Tag(_)));
    if let Some(Filter::Tag(signal)) = tag {
        let (width, height) = (plan.width, plan.height);
        chain.extend([Filter::Scale { width, height, from: signal, to: signal }, Filter::Tag(signal)]);
    }
    chain.push(Filter::SquareSamples);
    chain
}

const fn extend((width, height): (u32, u32), (right, bottom): (u32, u32)) -> Filter {
    Filter::Extend { width, height, right, bottom }
}

impl Layout {
    /// ffmpeg's name.
    #[must_use]
    pub const fn pix_fmt(self) -> &'static str {
        match self {
            Self::Yuv420 => "yuv420p",
            Self::Yuv420Ten => "yuv420p10le",
            Self::Yuv444Ten => "yuv444p10le",
            Self::Float => "gbrpf32le",
        }
    }
}

//! How large the picture becomes: rotation and sample aspect first, then the box, then even sides.
//!
//! Rules: MEDIA-RULES §1.5 (separate files) and §1.18j (smallest size, odd sizes).

use crate::domain::preset::{Fit, Orient, VideoSpec};
use crate::domain::{Rational, VideoStream};

/// Smallest side that is written, pixels.
const MIN_SIDE: u32 = 16;
/// Largest side that is written, pixels: x264's, x265's and SVT-AV1's common limit.
const MAX_SIDE: u32 = 16_384;

/// More than the noise of a division, less than any difference that counts, pixels.
const HALFWAY: f64 = 1e-6;

/// Where the picture ends up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Geometry {
    /// Final width, even, pixels.
    pub(super) width: u32,
    /// Final height, even, pixels.
    pub(super) height: u32,
    /// Size of the scaled picture before it is placed; the size as stored (after rotation) means no scaling.
    pub(super) scaled: (u32, u32),
    /// What happens between the scaled picture and the final size.
    pub(super) placement: Placement,
    /// The box is larger than the picture and was not filled.
    pub(super) not_upscaled: bool,
}

/// How the scaled picture meets the final size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// They are the same.
    Whole,
    /// The middle is kept.
    Crop { x: u32, y: u32 },
    /// Bars around it.
    Pad { x: u32, y: u32 },
    /// The last column or row is repeated to get even sides without resampling.
    Extend { right: u32, bottom: u32 },
}

/// Size as stored, after rotation: what the first filter sees.
pub(in crate::media) fn stored(stream: &VideoStream) -> (u32, u32) {
    if stream.rotation.swaps_sides() { (stream.height, stream.width) } else { (stream.width, stream.height) }
}

/// Decides size and placement.
pub(super) fn fit(stream: &VideoStream, spec: &VideoSpec) -> Geometry {
    let shown = shown(stream);
    let bounds = Bounds::of(spec, shown);
    match (bounds.given(), spec.fit) {
        (None, _) | (Some(_), Fit::Contain) => contain(stream, shown, bounds, spec.upscale),
        (Some(frame), Fit::Cover) => cover(shown, frame, spec.upscale),
        (Some(frame), Fit::Pad) => pad(stream, shown, frame, spec.upscale),
        (Some(frame), Fit::Stretch) => stretch(shown, frame, spec.upscale),
    }
}

/// Size with square samples, upright. A sample aspect beyond 10:1 is a broken header, not a film.
fn shown(stream: &VideoStream) -> (u32, u32) {
    let sane = (0.1..=10.0).contains(&stream.sar.as_f64());
    if sane {
        return stream.display_size();
    }
    let square = VideoStream { sar: Rational::ONE, ..stream.clone() };
    square.display_size()
}

/// The space a picture may take; `None` on a side means the other side decides.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    width: Option<u32>,
    height: Option<u32>,
}

impl Bounds {
    fn of(spec: &VideoSpec, shown: (u32, u32)) -> Self {
        let (width, height) = match spec.bounds {
            Some(size) => (Some(size.width()), Some(size.height())),
            None => (spec.width, spec.height),
        };
        match (width, height) {
            (Some(w), Some(h)) if spec.orient == Orient::Auto && turned(shown, (w, h)) => {
                Self { width: Some(h), height: Some(w) }
            }
            _ => Self { width, height },
        }
    }

    /// Both sides, where both are given.
    fn given(self) -> Option<(u32, u32)> {
        self.width.zip(self.height).map(|(w, h)| (even_below(w), even_below(h)))
    }

    fn limits(self) -> (u32, u32) {
        (even_below(self.width.unwrap_or(MAX_SIDE)), even_below(self.height.unwrap_or(MAX_SIDE)))
    }
}

/// Whether one is portrait and the other landscape.
fn turned(a: (u32, u32), b: (u32, u32)) -> bool {
    (a.0 < a.1 && b.0 > b.1) || (a.0 > a.1 && b.0 < b.1)
}

fn contain(stream: &VideoStream, shown: (u32, u32), bounds: Bounds, upscale: bool) -> Geometry {
    let asked = bounds.width.is_some() || bounds.height.is_some();
    let limits = bounds.limits();
    let wanted = ratio(limits.0, shown.0).min(ratio(limits.1, shown.1));
    let scale = if upscale && asked { wanted } else { wanted.min(1.0) };
    let placed = |scaled, placement, (width, height)| Geometry {
        width,
        height,
        scaled,
        placement,
        not_upscaled: asked && scale < wanted,
    };
    let untouched = (scale - 1.0).abs() < f64::EPSILON && shown.0 >= MIN_SIDE && shown.1 >= MIN_SIDE;
    if untouched {
        let even = (even_above(shown.0), even_above(shown.1));
        // Aspect or rotation resamples anyway; then there is nothing to gain by extending.
        if shown == stored(stream) && even != shown {
            let placement = Placement::Extend { right: even.0 - shown.0, bottom: even.1 - shown.1 };
            return placed(shown, placement, even);
        }
        return placed(even, Placement::Whole, even);
    }
    let size = (scaled_side(shown.0, scale, limits.0), scaled_side(shown.1, scale, limits.1));
    placed(size, Placement::Whole, size)
}

fn cover(shown: (u32, u32), frame: (u32, u32), upscale: bool) -> Geometry {
    let wanted = ratio(frame.0, shown.0).max(ratio(frame.1, shown.1));
    let (canvas, not_upscaled) = shrunk(frame, wanted, upscale);
    let scale = ratio(canvas.0, shown.0).max(ratio(canvas.1, shown.1));
    let side = |shown: u32, least: u32| even_nearest(f64::from(shown) * scale).max(least);
    let scaled = (side(shown.0, canvas.0), side(shown.1, canvas.1));
    let offset = |outer: u32, inner: u32| (outer - inner) / 2 / 2 * 2;
    let (x, y) = (offset(scaled.0, canvas.0), offset(scaled.1, canvas.1));
    let placement = if scaled == canvas { Placement::Whole } else { Placement::Crop { x, y } };
    Geometry { width: canvas.0, height: canvas.1, scaled, placement, not_upscaled }
}

fn pad(stream: &VideoStream, shown: (u32, u32), frame: (u32, u32), upscale: bool) -> Geometry {
    let wanted = ratio(frame.0, shown.0).min(ratio(frame.1, shown.1));
    let (canvas, not_upscaled) = shrunk(frame, wanted, upscale);
    let inner = contain(stream, shown, Bounds { width: Some(canvas.0), height: Some(canvas.1) }, upscale);
    // Odd pictures are resampled by a pixel here: bars next to a repeated column would look like a fault.
    let scaled = (inner.width, inner.height);
    let offset = |outer: u32, inner: u32| (outer - inner) / 2 / 2 * 2;
    let (x, y) = (offset(canvas.0, scaled.0), offset(canvas.1, scaled.1));
    let placement = if scaled == canvas { Placement::Whole } else { Placement::Pad { x, y } };
    Geometry { width: canvas.0, height: canvas.1, scaled, placement, not_upscaled }
}

fn stretch(shown: (u32, u32), frame: (u32, u32), upscale: bool) -> Geometry {
    let wanted = ratio(frame.0, shown.0).max(ratio(frame.1, shown.1));
    let (canvas, not_upscaled) = shrunk(frame, wanted, upscale);
    Geometry { width: canvas.0, height: canvas.1, scaled: canvas, placement: Placement::Whole, not_upscaled }
}

/// The frame, made smaller in its own shape when filling it would enlarge the picture.
fn shrunk(frame: (u32, u32), wanted: f64, upscale: bool) -> ((u32, u32), bool) {
    if upscale || wanted <= 1.0 {
        return (frame, false);
    }
    // Halfway goes down: up would enlarge a picture of odd sides after all.
    let side = |side: u32| even_nearest(f64::from(side) / wanted - HALFWAY).max(MIN_SIDE);
    ((side(frame.0), side(frame.1)), true)
}

fn scaled_side(shown: u32, scale: f64, limit: u32) -> u32 {
    even_nearest(f64::from(shown) * scale).clamp(MIN_SIDE, limit)
}

fn ratio(limit: u32, side: u32) -> f64 {
    f64::from(limit) / f64::from(side.max(1))
}

fn even_below(side: u32) -> u32 {
    (side / 2 * 2).max(MIN_SIDE)
}

fn even_above(side: u32) -> u32 {
    side.div_ceil(2) * 2
}

/// The even number nearest to a side, rounded once: to round to a whole number first takes 192.55 to 194.
fn even_nearest(side: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sides are positive and below 2^20"
    )]
    let half = (side / 2.0).round() as u32;
    half * 2
}

#[cfg(test)]
mod tests;

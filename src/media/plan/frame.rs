//! What is cut off a picture, and how it is turned and mirrored: before its size is decided.
//!
//! Everything after this works on the stream as it would be stored had it been filmed so.

use super::Filter;
use crate::domain::preset::{Crop, Flip, VideoSpec};
use crate::domain::{Area, Code, Failure, Rotation, VideoStream};

/// The picture that is left.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Framed {
    /// The stream with the sides and the rotation of what is left.
    pub(super) stream: VideoStream,
    /// What is left of the upright picture, where anything was cut off.
    cut: Option<Area>,
    turn: Rotation,
    flip: Flip,
}

/// Decides what is left.
///
/// # Errors
/// `media_unsupported` where the rectangle of `video.crop` lies outside the picture.
pub(super) fn of(stream: &VideoStream, spec: &VideoSpec) -> Result<Framed, Failure> {
    let upright = super::size::stored(stream);
    let cut = match spec.crop {
        Crop::None => None,
        Crop::Auto => stream.measured.lit.map(|area| on_grain(area, stream)),
        Crop::Area(area) if !area.is_inside(upright) => {
            let (Area { x, y, width, height }, (w, h)) = (area, upright);
            let message = format!(
                "video.crop of {width}x{height} at {x},{y} lies outside the picture, which is {w}x{h} pixels"
            );
            return Err(Failure::new(Code::MediaUnsupported, message));
        }
        Crop::Area(area) => Some(on_grain(area, stream)),
    };
    let mut left = stream.clone();
    if let Some(Area { width, height, .. }) = cut {
        let swapped = stream.rotation.swaps_sides();
        (left.width, left.height) = if swapped { (height, width) } else { (width, height) };
    }
    left.rotation = turned(stream.rotation, spec.rotate);
    Ok(Framed { stream: left, cut, turn: spec.rotate, flip: spec.flip })
}

impl Framed {
    /// The steps, in order.
    pub(super) fn filters(&self) -> impl Iterator<Item = Filter> {
        let cut = self.cut.map(|Area { x, y, width, height }| Filter::Crop { width, height, x, y });
        let turn = Some(self.turn).filter(|turn| *turn != Rotation::None).map(Filter::Turn);
        let flip = Some(self.flip).filter(|flip| *flip != Flip::None).map(Filter::Mirror);
        [cut, turn, flip].into_iter().flatten()
    }

    /// What the client should know: bars that nobody saw but flux.
    pub(super) fn warning(&self, spec: &VideoSpec) -> Option<String> {
        let Area { x, y, width, height } = self.cut.filter(|_| spec.crop == Crop::Auto)?;
        Some(format!("bars_removed: {width}x{height} at {x},{y} is left"))
    }
}

/// Chroma of 4:1:1 and 4:1:0 belongs to four columns, where everything else has two: cut between them it would be moved.
fn on_grain(area: Area, stream: &VideoStream) -> Area {
    let coarse = ["411", "410"].iter().any(|layout| stream.pix_fmt.contains(layout));
    if !coarse {
        return area;
    }
    let inner = |from: u32, size: u32| {
        let start = from.next_multiple_of(4);
        (start, ((from + size) / 4 * 4).saturating_sub(start))
    };
    let ((x, width), (y, height)) = (inner(area.x, area.width), inner(area.y, area.height));
    Area { x, y, width, height }
}

fn turned(by: Rotation, then: Rotation) -> Rotation {
    Rotation::try_from((u16::from(by) + u16::from(then)) % 360).unwrap_or(by)
}

//! What may be cut off a picture, what its bars may be, and whether it can fit its level.

use super::super::{Crop, DynamicRange, Fit, Level, VideoCodec, VideoSpec, level};
use super::SIDES;
use crate::domain::Area;

pub(super) fn check(spec: &VideoSpec, fault: &mut impl FnMut(&str, String)) {
    if let Crop::Area(area) = spec.crop {
        crop(area, fault);
    }
    if !spec.pad_color.is_black() {
        if spec.fit != Fit::Pad {
            fault("/pad_color", "pad_color needs fit \"pad\"".to_owned());
        }
        // Code values of PQ are light: white bars would be ten thousand nit.
        if spec.range == DynamicRange::Keep {
            fault("/pad_color", "range \"keep\" has black bars only".to_owned());
        }
    }
    if let Some(level) = spec.level {
        self::level(spec, level, "/level", fault);
    }
}

/// Chroma is stored for pairs of columns and rows, so a cut between two of them would move it.
fn crop(area: Area, fault: &mut impl FnMut(&str, String)) {
    let Area { x, y, width, height } = area;
    for (name, side) in [("x", x), ("y", y), ("w", width), ("h", height)] {
        if side % 2 == 1 {
            fault(&format!("/crop/{name}"), format!("{name} is even"));
        }
    }
    for (name, from, size) in [("w", x, width), ("h", y, height)] {
        if !SIDES.contains(&size) {
            fault(&format!("/crop/{name}"), format!("{name} is {} to {} pixels", SIDES.start(), SIDES.end()));
        } else if from.saturating_add(size) > *SIDES.end() {
            fault(&format!("/crop/{name}"), format!("the picture ends at {} pixels", SIDES.end()));
        }
    }
}

/// What is known before the source is: bit rates always, sizes and rates where the setting fixes them.
pub(super) fn level(spec: &VideoSpec, level: Level, at: &str, fault: &mut impl FnMut(&str, String)) {
    if matches!(spec.codec, VideoCodec::Av1 | VideoCodec::Vp9) {
        fault(at, format!("{} has no level to set", spec.codec.codec_name()));
        return;
    }
    let shape = match (spec.bounds, spec.width, spec.height) {
        (Some(bounds), _, _) => Some((bounds.width(), bounds.height())),
        (None, width, height) => width.zip(height),
    };
    // A smaller source makes a smaller picture, unless it is enlarged to fill the box.
    let (width, height) = shape.filter(|_| spec.upscale && spec.fit != Fit::Contain).unwrap_or_default();
    let load = level::Load {
        codec: spec.codec,
        width,
        height,
        frame_rate: spec.fps.value,
        rate: spec.rate,
        bit_depth: spec.bit_depth,
        profile: spec.profile,
    };
    if let Err(excess) = level.holds(load) {
        fault(at, format!("level {level} of {} {excess}", spec.codec.codec_name()));
    }
}

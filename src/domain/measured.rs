//! What was measured of a picture before it is planned, where an output asks for it: headers do not say it, or lie.

use serde::{Deserialize, Serialize};

/// A part of a picture that is shown upright, pixels. Before anything is turned, mirrored or scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Area {
    /// Columns left of it.
    pub x: u32,
    /// Rows above it.
    pub y: u32,
    /// Columns.
    #[serde(rename = "w")]
    pub width: u32,
    /// Rows.
    #[serde(rename = "h")]
    pub height: u32,
}

impl Area {
    /// Whether it lies inside a picture of this size.
    #[must_use]
    pub const fn is_inside(self, (width, height): (u32, u32)) -> bool {
        self.x.saturating_add(self.width) <= width && self.y.saturating_add(self.height) <= height
    }
}

/// What was measured of a picture. Nothing of it is there unless an output needed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Measured {
    /// What is left without the black bars; `None` = no bars, or not certain, or not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lit: Option<Area>,
}

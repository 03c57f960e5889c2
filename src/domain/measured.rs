//! What was measured of a picture before it is planned, where an output asks for it: headers do not say it, or lie.

use serde::{Deserialize, Serialize};

use super::FieldOrder;

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

/// How the frames of a picture are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scan {
    /// Each is one picture.
    Progressive,
    /// Each is two half pictures of different times, in this order; unknown = as each frame says.
    Interlaced(FieldOrder),
    /// Film at 24000/1001 spread over 30000/1001 by 3:2 pulldown, with fields in this order.
    Telecined(FieldOrder),
    /// Some of each, or not certain.
    Mixed,
}

/// The display that an HDR film was made on (SMPTE ST 2086).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MasteringDisplay {
    /// Chromaticity of red, x and y in parts of 50,000.
    pub red: (u16, u16),
    /// Of green.
    pub green: (u16, u16),
    /// Of blue.
    pub blue: (u16, u16),
    /// Of white.
    pub white: (u16, u16),
    /// Most light, in parts of 10,000 of a nit.
    pub brightest: u32,
    /// Least light, in parts of 10,000 of a nit.
    pub darkest: u32,
}

/// How bright an HDR film gets (CTA-861.3), nit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContentLight {
    /// The brightest pixel (`MaxCLL`).
    pub brightest: u16,
    /// The brightest frame's mean (`MaxFALL`).
    pub average: u16,
}

/// Static metadata of an HDR picture, as far as it has any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mastering {
    /// The display.
    pub display: Option<MasteringDisplay>,
    /// The light.
    pub light: Option<ContentLight>,
}

/// What was measured of a picture. Nothing of it is there unless an output needed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Measured {
    /// What is left without the black bars; `None` = no bars, or not certain, or not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lit: Option<Area>,
    /// How its frames are made; `None` = not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<Scan>,
    /// Static metadata of its first frame; `None` = none, or not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mastering: Option<Mastering>,
}

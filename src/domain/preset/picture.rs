//! What is done to the picture itself: how it is cut, turned and mirrored, what its bars are, how its fields are joined.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::Area;

/// Mirroring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flip {
    /// As it is.
    #[default]
    None,
    /// Left and right change places.
    Horizontal,
    /// Top and bottom change places.
    Vertical,
}

/// What is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum Crop {
    /// Nothing.
    #[default]
    None,
    /// Black bars, where a measurement is certain of them.
    Auto,
    /// All but this.
    Area(Area),
}

impl From<Crop> for Value {
    fn from(crop: Crop) -> Self {
        match crop {
            Crop::None => "none".into(),
            Crop::Auto => "auto".into(),
            Crop::Area(Area { x, y, width, height }) => {
                serde_json::json!({"x": x, "y": y, "w": width, "h": height})
            }
        }
    }
}

impl TryFrom<Value> for Crop {
    type Error = &'static str;
    fn try_from(value: Value) -> Result<Self, Self::Error> {
        const WANTED: &str = "crop is \"none\", \"auto\" or an object of x, y, w and h in pixels";
        match value.as_str() {
            Some("none") => Ok(Self::None),
            Some("auto") => Ok(Self::Auto),
            _ => serde_json::from_value(value).map(Self::Area).map_err(|_not_an_area| WANTED),
        }
    }
}

/// A colour of bars: red, green and blue from 0 to 255, as the output's own pixels show them.
///
/// Written `#rrggbb`, or one of `black`, `white`, `grey`, `red`, `green`, `blue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PadColor([u8; 3]);

impl PadColor {
    /// Red, green, blue.
    #[must_use]
    pub const fn rgb(self) -> [u8; 3] {
        self.0
    }

    /// Whether it has no hue: every matrix makes the same of it.
    #[must_use]
    pub const fn is_neutral(self) -> bool {
        let [red, green, blue] = self.0;
        red == green && green == blue
    }

    /// What bars are where nothing is said.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(crate) const fn is_black(&self) -> bool {
        matches!(self.0, [0, 0, 0])
    }
}

impl TryFrom<String> for PadColor {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WANTED: &str = "pad_color is \"#rrggbb\", black, white, grey, red, green or blue";
        let digits = match text.as_str() {
            "black" => "000000",
            "white" => "ffffff",
            "grey" | "gray" => "808080",
            "red" => "ff0000",
            "green" => "00ff00",
            "blue" => "0000ff",
            other => other.strip_prefix('#').unwrap_or_default(),
        };
        // `from_str_radix` takes a sign.
        if digits.len() != 6 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(WANTED);
        }
        let [_, red, green, blue] = u32::from_str_radix(digits, 16).map_err(|_| WANTED)?.to_be_bytes();
        Ok(Self([red, green, blue]))
    }
}

impl From<PadColor> for String {
    fn from(PadColor([red, green, blue]): PadColor) -> Self {
        format!("#{red:02x}{green:02x}{blue:02x}")
    }
}

/// What is done about interlaced sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deinterlace {
    /// What is measured as interlaced becomes whole frames, one per frame (25i to 25p); telecined film becomes
    /// 24000/1001.
    #[default]
    Auto,
    /// Nothing.
    Off,
    /// One per frame, whatever is measured.
    Frame,
    /// As `auto`, but one per field where interlaced (25i to 50p).
    Field,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn crops_come_back_as_they_were_written() {
        for text in [json!("none"), json!("auto"), json!({"x": 0, "y": 140, "w": 1920, "h": 800})] {
            let crop: Crop = serde_json::from_value(text.clone()).unwrap();
            assert_eq!(serde_json::to_value(crop).unwrap(), text);
        }
        for bad in [json!("bars"), json!({"x": 1}), json!({"x": 0, "y": 0, "w": 1, "h": 1, "z": 1}), json!(3)]
        {
            assert!(serde_json::from_value::<Crop>(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn colours_are_numbers_and_nothing_else() {
        let read = |text: &str| PadColor::try_from(text.to_owned()).map(PadColor::rgb).ok();
        assert_eq!(read("#c08040"), Some([192, 128, 64]));
        assert_eq!(read("#C08040"), Some([192, 128, 64]));
        assert_eq!(read("green"), Some([0, 255, 0]));
        for bad in [
            "",
            "#",
            "#fff",
            "#+fffff",
            "#gggggg",
            "c08040",
            "#c08040@0.5",
            "Black",
            "black,movie=x",
            "#ffff0é",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(String::from(PadColor([192, 128, 64])), "#c08040");
    }
}

//! Units with their spellings: bit rates and boxes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a unit is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnit {
    /// Not a bit rate.
    #[error("a bit rate is an integer in bit/s or a text such as \"2500k\" or \"2.5M\", from 1k to 1000M")]
    BitRate,
    /// Not a box.
    #[error("a box is \"WIDTHxHEIGHT\" in pixels, each 16 to 16384")]
    Box,
    /// Not a time.
    #[error("a time is a number of seconds or a text such as \"00:01:30.5\", up to 100 hours")]
    Time,
}

/// Bits per second (or bits, for a buffer): 1,000 to 1,000,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitRate(u32);

impl BitRate {
    /// From bit/s.
    pub const fn new(bits: u64) -> Result<Self, InvalidUnit> {
        #[expect(clippy::cast_possible_truncation, reason = "checked against a bound far below u32::MAX")]
        if bits >= 1_000 && bits <= 1_000_000_000 { Ok(Self(bits as u32)) } else { Err(InvalidUnit::BitRate) }
    }

    /// Bit/s.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// This many percent of it, kept in range.
    #[must_use]
    pub fn percent(self, percent: u32) -> Self {
        let bits = u64::from(self.0) * u64::from(percent) / 100;
        Self(u32::try_from(bits.clamp(1_000, 1_000_000_000)).unwrap_or(1_000_000_000))
    }
}

impl FromStr for BitRate {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let (digits, scale) = match text.as_bytes().last() {
            Some(b'k') => (&text[..text.len() - 1], 1e3),
            Some(b'M') => (&text[..text.len() - 1], 1e6),
            _ => (text, 1.0),
        };
        let plain = !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            && !digits.starts_with('.')
            && !digits.ends_with('.');
        if !plain {
            return Err(InvalidUnit::BitRate);
        }
        let number: f64 = digits.parse().map_err(|_| InvalidUnit::BitRate)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "no sign, saturating, then range-checked"
        )]
        Self::new((number * scale).round() as u64)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for BitRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for BitRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Number(n) => n.as_u64().ok_or(InvalidUnit::BitRate).and_then(Self::new),
            serde_json::Value::String(text) => text.parse(),
            _ => Err(InvalidUnit::BitRate),
        }
        .map_err(serde::de::Error::custom)
    }
}

/// Width and height in pixels, each 16 to 16,384.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BoxSize {
    width: u32,
    height: u32,
}

impl BoxSize {
    /// Checks the sides.
    pub fn new(width: u32, height: u32) -> Result<Self, InvalidUnit> {
        let fits = |side| (16..=16_384).contains(&side);
        if fits(width) && fits(height) { Ok(Self { width, height }) } else { Err(InvalidUnit::Box) }
    }

    /// Width, pixels.
    #[must_use]
    pub const fn width(self) -> u32 {
        self.width
    }

    /// Height, pixels.
    #[must_use]
    pub const fn height(self) -> u32 {
        self.height
    }

    /// Width and height exchanged.
    #[must_use]
    pub const fn turned(self) -> Self {
        Self { width: self.height, height: self.width }
    }
}

impl fmt::Display for BoxSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for BoxSize {
    type Err = InvalidUnit;
    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let (width, height) = text.split_once('x').ok_or(InvalidUnit::Box)?;
        let parse = |side: &str| side.parse::<u32>().map_err(|_| InvalidUnit::Box);
        Self::new(parse(width)?, parse(height)?)
    }
}

impl TryFrom<String> for BoxSize {
    type Error = InvalidUnit;
    fn try_from(text: String) -> Result<Self, InvalidUnit> {
        text.parse()
    }
}

impl From<BoxSize> for String {
    fn from(size: BoxSize) -> Self {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_rates_in_every_spelling() {
        for (text, bits) in
            [("2500k", 2_500_000), ("2.5M", 2_500_000), ("2500000", 2_500_000), ("96k", 96_000)]
        {
            assert_eq!(text.parse::<BitRate>().unwrap().bits(), bits);
        }
        for bad in ["", "k", "-1k", "1e6", "2.5", ".5M", "5.M", "9999M", "nan", "1 M"] {
            assert!(bad.parse::<BitRate>().is_err(), "{bad:?}");
        }
        assert_eq!(
            serde_json::from_str::<BitRate>("\"128k\"").unwrap(),
            serde_json::from_str("128000").unwrap()
        );
        assert!(serde_json::from_str::<BitRate>("-5").is_err());
    }

    #[test]
    fn boxes() {
        let size: BoxSize = "1280x720".parse().unwrap();
        assert_eq!((size.width(), size.height()), (1280, 720));
        assert_eq!(size.turned().to_string(), "720x1280");
        for bad in ["", "1280", "0x720", "1280x", "99999x1", "-1x5", "1280X720"] {
            assert!(bad.parse::<BoxSize>().is_err(), "{bad:?}");
        }
    }
}

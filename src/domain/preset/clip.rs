//! The part of a source that an output is made of.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::InvalidUnit;
use crate::domain::Fault;

/// A place on a source's timeline or a length of it, in microseconds: 0 to 100 hours. Zero is where the earliest stream
/// begins. Written as seconds (`12.5`) or `HH:MM:SS.mmm`; told as seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MediaTime(u64);

impl MediaTime {
    /// Twice the longest source that the limits can allow, microseconds.
    const MAX_MICROS: u64 = 100 * 3600 * 1_000_000;

    /// From seconds, to the nearest microsecond.
    pub fn from_seconds(seconds: f64) -> Result<Self, InvalidUnit> {
        let micros = (seconds * 1e6).round();
        #[expect(clippy::cast_precision_loss, reason = "3.6e11 is exact")]
        let fits = (0.0..=Self::MAX_MICROS as f64).contains(&micros);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "just range-checked")]
        if fits { Ok(Self(micros as u64)) } else { Err(InvalidUnit::Time) }
    }

    /// Seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "at most 3.6e11")]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Later by `other`, at most 100 hours.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self((self.0 + other.0).min(Self::MAX_MICROS))
    }

    /// Whether it is the beginning, or no length at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// Seconds as ffmpeg's options and filters take them.
impl fmt::Display for MediaTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

impl FromStr for MediaTime {
    type Err = InvalidUnit;

    /// `SECONDS`, `MM:SS` or `HH:MM:SS`, the seconds with decimals.
    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let parts: Vec<&str> = text.split(':').collect();
        let [whole @ .., seconds] = &parts[..] else { return Err(InvalidUnit::Time) };
        let plain = |part: &str, also: &str| {
            let digits = |b: u8| b.is_ascii_digit() || also.as_bytes().contains(&b);
            !part.is_empty() && part.len() <= 16 && part.bytes().all(digits)
        };
        if whole.len() > 2 || !plain(seconds, ".") || !whole.iter().all(|part| plain(part, "")) {
            return Err(InvalidUnit::Time);
        }
        let below_sixty =
            |value: f64| if whole.is_empty() || value < 60.0 { Ok(value) } else { Err(InvalidUnit::Time) };
        let mut total = 0.0;
        for (n, part) in whole.iter().enumerate() {
            let value: f64 = part.parse().map_err(|_| InvalidUnit::Time)?;
            total = total * 60.0 + if n == 0 { value } else { below_sixty(value)? };
        }
        let seconds: f64 = seconds.parse().map_err(|_| InvalidUnit::Time)?;
        Self::from_seconds(total * 60.0 + below_sixty(seconds)?)
    }
}

impl Serialize for MediaTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.seconds())
    }
}

impl<'de> Deserialize<'de> for MediaTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Number(n) => n.as_f64().ok_or(InvalidUnit::Time).and_then(Self::from_seconds),
            serde_json::Value::String(text) => text.parse(),
            _ => Err(InvalidUnit::Time),
        }
        .map_err(serde::de::Error::custom)
    }
}

/// The part of the source that an output is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    /// Where it begins; default the source's beginning.
    #[serde(default, skip_serializing_if = "MediaTime::is_zero_ref")]
    pub start: MediaTime,
    /// How long it is, more than 0; default to the source's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<MediaTime>,
}

impl Clip {
    /// What is wrong with it, if anything; the pointer is relative to the clip.
    #[must_use]
    pub fn fault(self) -> Option<Fault> {
        match self.duration {
            Some(duration) if duration.is_zero() => Some(Fault::new("/duration", "duration is more than 0")),
            None if self.start.is_zero() => {
                Some(Fault::new("", "says neither where it begins nor how long it is"))
            }
            Some(_) | None => None,
        }
    }
}

impl MediaTime {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
    const fn is_zero_ref(&self) -> bool {
        self.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_every_spelling() {
        for (text, seconds) in [
            ("0", 0.0),
            ("12.5", 12.5),
            ("90", 90.0),
            ("01:30", 90.0),
            ("00:01:30.250", 90.25),
            ("99:59:59.999999", 359_999.999_999),
        ] {
            let time: MediaTime = text.parse().unwrap();
            assert!((time.seconds() - seconds).abs() < 1e-9, "{text}");
        }
        for bad in
            ["", ":", "1:2:3:4", "-1", "1e3", "00:60:00", "00:00:60", "1.2.3", "100:00:01", "inf", "1:", " 1"]
        {
            assert!(bad.parse::<MediaTime>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn clips_are_told_in_seconds_and_read_back() {
        let clip: Clip = serde_json::from_str(r#"{"start": "00:00:01.500", "duration": 2}"#).unwrap();
        let told = serde_json::to_string(&clip).unwrap();
        assert_eq!(told, r#"{"start":1.5,"duration":2.0}"#);
        assert_eq!(serde_json::from_str::<Clip>(&told).unwrap(), clip);
        assert_eq!(clip.start.plus(clip.duration.unwrap()).to_string(), "3.500000");
        for bad in [r#"{"start": -1}"#, r#"{"start": true}"#, r#"{"end": 3}"#, r#"{"duration": 1e12}"#] {
            assert!(serde_json::from_str::<Clip>(bad).is_err(), "{bad}");
        }
    }
}

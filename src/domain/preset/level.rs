//! Levels of H.264 and HEVC: what each holds, and the lowest that holds a stream. They are set explicitly, because encoders
//! guess them from timestamps and variable rates make the guess absurd (MEDIA-RULES §1.17).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BitDepth, BitRate, Profile, Rate, VideoCodec};
use crate::domain::Rational;

/// A level from 3 to 6.2: what a decoder must be able to do. Which of them a codec has is in its standard.
///
/// Written `"4.1"`, `4.1`, `"4"`, `"4.0"` or `4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Level(u8);

impl Level {
    /// Ten times the number, as H.264 stores it: 41 for 4.1.
    #[must_use]
    pub const fn tenths(self) -> u8 {
        self.0
    }

    /// As encoders take it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            ..=30 => "3",
            31 => "3.1",
            32 => "3.2",
            33..=40 => "4",
            41 => "4.1",
            42 => "4.2",
            43..=50 => "5",
            51 => "5.1",
            52 => "5.2",
            53..=60 => "6",
            61 => "6.1",
            62.. => "6.2",
        }
    }

    /// Whether the level holds this.
    ///
    /// # Errors
    /// What it does not hold.
    pub fn holds(self, load: Load) -> Result<(), Excess> {
        let Some(row) = rows(load.codec).iter().find(|row| row.0 == self.0) else {
            return Err(Excess::NoSuchLevel);
        };
        fits(row, load)
    }

    /// The level's own ceiling where a rate has none: a level without one is a promise that constant quality breaks.
    #[must_use]
    pub fn bounded(self, load: Load) -> Rate {
        let (Rate::Crf { crf }, Some(row)) = (load.rate, rows(load.codec).iter().find(|row| row.0 == self.0))
        else {
            return load.rate;
        };
        let bits = |kilobits: u64| BitRate::new(kilobits * 10 * load.percent());
        match (bits(row.3), bits(row.4)) {
            (Ok(max), Ok(buffer)) => Rate::CappedCrf { crf, max, buffer: Some(buffer) },
            _ => load.rate,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<Value> for Level {
    type Error = &'static str;
    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            _ => return Err(WANTED),
        };
        let tenths = match text.as_bytes() {
            [whole @ b'3'..=b'6'] | [whole @ b'3'..=b'6', b'.', b'0'] => (whole - b'0') * 10,
            [whole @ b'3'..=b'6', b'.', part @ b'1'..=b'2'] => (whole - b'0') * 10 + (part - b'0'),
            _ => return Err(WANTED),
        };
        Ok(Self(tenths))
    }
}

impl From<Level> for Value {
    fn from(level: Level) -> Self {
        level.name().into()
    }
}

const WANTED: &str = "a level is \"3\", \"3.1\", \"3.2\", and so on to \"6.2\"";

/// Why a level does not hold a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// The codec's standard has no such level.
    #[error("is not a level of the codec")]
    NoSuchLevel,
    /// More pixels than it has room for, or a side that is too long.
    #[error("does not hold pictures of this size")]
    Size,
    /// More pixels a second.
    #[error("does not hold this many frames of this size a second")]
    Speed,
    /// A higher ceiling.
    #[error("does not hold this bit rate")]
    Bits,
    /// A larger buffer.
    #[error("does not hold a buffer of this size")]
    Buffer,
}

/// What a level must hold.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// The codec.
    pub codec: VideoCodec,
    /// Pixels; 0 = not known yet.
    pub width: u32,
    /// Pixels; 0 = not known yet.
    pub height: u32,
    /// Frames per second; `None` = not known.
    pub frame_rate: Option<Rational>,
    /// How bits are spent.
    pub rate: Rate,
    /// Bits per component.
    pub bit_depth: BitDepth,
    /// Profile, where set.
    pub profile: Option<Profile>,
}

impl Load {
    /// What the profile allows of the table's bit rates, percent: High allows 1.25 times, High 10 three times.
    const fn percent(self) -> u64 {
        match (self.codec, self.bit_depth, self.profile) {
            (VideoCodec::H264, BitDepth::Ten, _) => 300,
            (VideoCodec::H264, BitDepth::Eight, Some(Profile::High) | None) => 125,
            _ => 100,
        }
    }
}

/// One row of a level table: ten times the number, picture size, size × rate, kbit/s, kbit of buffer.
struct Row(u8, u64, u64, u64, u64);

/// ITU-T H.264 table A-1: macroblocks per picture and second, `MaxBR` and `MaxCPB` of Baseline and Main. Levels
/// below 3 are left out: constant quality has no ceiling, and nothing that plays video today needs them.
const H264: &[Row] = &[
    Row(30, 1_620, 40_500, 10_000, 10_000),
    Row(31, 3_600, 108_000, 14_000, 14_000),
    Row(32, 5_120, 216_000, 20_000, 20_000),
    Row(40, 8_192, 245_760, 20_000, 25_000),
    Row(41, 8_192, 245_760, 50_000, 62_500),
    Row(42, 8_704, 522_240, 50_000, 62_500),
    Row(50, 22_080, 589_824, 135_000, 135_000),
    Row(51, 36_864, 983_040, 240_000, 240_000),
    Row(52, 36_864, 2_073_600, 240_000, 240_000),
    Row(60, 139_264, 4_177_920, 240_000, 240_000),
    Row(61, 139_264, 8_355_840, 480_000, 480_000),
    Row(62, 139_264, 16_711_680, 800_000, 800_000),
];

/// ITU-T H.265 tables A.8 and A.9, Main tier: luma samples per picture and second, `MaxBR`, `MaxCPB`.
const HEVC: &[Row] = &[
    Row(30, 552_960, 16_588_800, 6_000, 6_000),
    Row(31, 983_040, 33_177_600, 10_000, 10_000),
    Row(40, 2_228_224, 66_846_720, 12_000, 12_000),
    Row(41, 2_228_224, 133_693_440, 20_000, 20_000),
    Row(50, 8_912_896, 267_386_880, 25_000, 25_000),
    Row(51, 8_912_896, 534_773_760, 40_000, 40_000),
    Row(52, 8_912_896, 1_069_547_520, 60_000, 60_000),
    Row(60, 35_651_584, 1_069_547_520, 60_000, 60_000),
    Row(61, 35_651_584, 2_139_095_040, 120_000, 120_000),
    Row(62, 35_651_584, 4_278_190_080, 240_000, 240_000),
];

const fn rows(codec: VideoCodec) -> &'static [Row] {
    match codec {
        VideoCodec::H264 => H264,
        VideoCodec::Hevc => HEVC,
        VideoCodec::Av1 | VideoCodec::Vp9 => &[],
    }
}

/// The lowest level that holds the load, or `None` where the codec needs none, the rate is unknown, or no level does.
#[must_use]
pub fn lowest(load: Load) -> Option<Level> {
    load.frame_rate?;
    rows(load.codec).iter().find(|row| fits(row, load).is_ok()).map(|row| Level(row.0))
}

fn fits(Row(_, size, speed, kbits, cpb): &Row, load: Load) -> Result<(), Excess> {
    // H.264 counts macroblocks, HEVC samples.
    let unit = if load.codec == VideoCodec::H264 { 16 } else { 1 };
    let (columns, rows) = (u64::from(load.width.div_ceil(unit)), u64::from(load.height.div_ceil(unit)));
    let picture = columns * rows;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "far below 2^53"
    )]
    let throughput = (picture as f64 * load.frame_rate.map_or(0.0, Rational::as_f64)).ceil() as u64;
    let (max, buffer) = ceiling(load.rate);
    // Neither side may exceed the square root of eight pictures (A.3.1 f and g; A.4.1 b and c).
    if picture > *size || columns.max(rows).pow(2) > 8 * size {
        return Err(Excess::Size);
    }
    if throughput > *speed {
        return Err(Excess::Speed);
    }
    if max > kbits * 10 * load.percent() {
        return Err(Excess::Bits);
    }
    if buffer > cpb * 10 * load.percent() { Err(Excess::Buffer) } else { Ok(()) }
}

/// Bit/s and bits that the stream may reach, as far as it is bounded.
fn ceiling(rate: Rate) -> (u64, u64) {
    match rate {
        Rate::Crf { .. } => (0, 0),
        Rate::CappedCrf { max, buffer, .. } => {
            (u64::from(max.bits()), u64::from(buffer.unwrap_or(max.percent(200)).bits()))
        }
        Rate::Bitrate { target, max, buffer, .. } => {
            let max = max.unwrap_or(target.percent(150));
            (u64::from(max.bits()), u64::from(buffer.unwrap_or(max.percent(200)).bits()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(codec: VideoCodec, width: u32, height: u32, fps: u32, rate: Rate) -> Option<&'static str> {
        let frame_rate = Rational::new(fps, 1).ok();
        lowest(Load { codec, width, height, frame_rate, rate, bit_depth: BitDepth::Eight, profile: None })
            .map(Level::name)
    }

    fn capped(max: u64, buffer: u64) -> Rate {
        let (max, buffer) = (BitRate::new(max).unwrap(), Some(BitRate::new(buffer).unwrap()));
        Rate::CappedCrf { crf: 23.0, max, buffer }
    }

    #[test]
    fn levels_follow_size_rate_and_ceiling() {
        let crf = Rate::Crf { crf: 23.0 };
        for (codec, width, height, fps, rate, expected) in [
            (VideoCodec::H264, 320, 180, 30, crf, "3"),
            (VideoCodec::H264, 1280, 720, 30, crf, "3.1"),
            (VideoCodec::H264, 1280, 720, 60, crf, "3.2"),
            (VideoCodec::H264, 1920, 1080, 30, crf, "4"),
            (VideoCodec::H264, 1920, 1080, 60, crf, "4.2"),
            (VideoCodec::H264, 3840, 2160, 60, crf, "5.2"),
            // Narrow and long: size alone would fit level 3.
            (VideoCodec::H264, 2048, 64, 25, crf, "3.1"),
            (VideoCodec::H264, 1920, 1080, 30, capped(40_000_000, 60_000_000), "4.1"),
            (VideoCodec::Hevc, 1920, 1080, 30, capped(6_000_000, 12_000_000), "4"),
            (VideoCodec::Hevc, 1920, 1080, 60, crf, "4.1"),
            (VideoCodec::Hevc, 3840, 2160, 30, capped(16_000_000, 32_000_000), "5.1"),
        ] {
            assert_eq!(
                level(codec, width, height, fps, rate),
                Some(expected),
                "{codec:?} {width}x{height}@{fps}"
            );
        }
        assert_eq!(level(VideoCodec::Av1, 1920, 1080, 30, crf), None);
        assert_eq!(level(VideoCodec::H264, 16_384, 16_384, 30, crf), None);
    }

    #[test]
    fn levels_in_every_spelling() {
        let read = |text: &str| serde_json::from_str::<Level>(text).map(Level::name).ok();
        for (text, name) in [
            ("4.1", "4.1"),
            ("\"4.1\"", "4.1"),
            ("4", "4"),
            ("\"4.0\"", "4"),
            ("4.0", "4"),
            ("\"6.2\"", "6.2"),
        ] {
            assert_eq!(read(text), Some(name), "{text}");
        }
        for bad in ["\"\"", "\"1b\"", "2.2", "7", "\"4.3\"", "\"4.10\"", "41", "true", "\" 4\""] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_level_says_what_it_does_not_hold() {
        let load = |codec, width, fps, rate| Load {
            codec,
            width,
            height: width * 9 / 16,
            frame_rate: Rational::new(fps, 1).ok(),
            rate,
            bit_depth: BitDepth::Eight,
            profile: None,
        };
        let crf = Rate::Crf { crf: 23.0 };
        for (tenths, load, expected) in [
            (31, load(VideoCodec::H264, 1280, 30, crf), Ok(())),
            (31, load(VideoCodec::H264, 1280, 60, crf), Err(Excess::Speed)),
            (31, load(VideoCodec::H264, 1920, 30, crf), Err(Excess::Size)),
            (31, load(VideoCodec::H264, 1280, 30, capped(17_500_000, 17_500_000)), Ok(())),
            (31, load(VideoCodec::H264, 1280, 30, capped(17_600_000, 1_000_000)), Err(Excess::Bits)),
            (31, load(VideoCodec::H264, 1280, 30, capped(1_000_000, 17_600_000)), Err(Excess::Buffer)),
            (32, load(VideoCodec::Hevc, 1280, 30, crf), Err(Excess::NoSuchLevel)),
            // Nothing is known yet but the rate.
            (40, load(VideoCodec::Hevc, 0, 1, capped(13_000_000, 1_000_000)), Err(Excess::Bits)),
        ] {
            assert_eq!(Level(tenths).holds(load), expected, "{tenths} {load:?}");
        }
        let bounded = Level(31).bounded(load(VideoCodec::H264, 1280, 30, crf));
        assert_eq!(bounded, capped(17_500_000, 17_500_000));
    }
}

//! The lowest H.264 or HEVC level that holds a stream: set explicitly, because encoders guess it from timestamps
//! and variable rates make the guess absurd (MEDIA-RULES §1.17).

use crate::domain::Rational;
use crate::domain::preset::{BitDepth, Profile, Rate, VideoCodec};

/// What a level must hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) codec: VideoCodec,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) frame_rate: Option<Rational>,
    pub(super) rate: Rate,
    pub(super) bit_depth: BitDepth,
    pub(super) profile: Option<Profile>,
}

/// One row of a level table: name, picture size, size × rate, kbit/s, kbit of buffer.
struct Level(&'static str, u64, u64, u64, u64);

/// ITU-T H.264 table A-1: macroblocks per picture and second, `MaxBR` and `MaxCPB` of Baseline and Main. Levels
/// below 3 are left out: constant quality has no ceiling, and nothing that plays video today needs them.
const H264: &[Level] = &[
    Level("3", 1_620, 40_500, 10_000, 10_000),
    Level("3.1", 3_600, 108_000, 14_000, 14_000),
    Level("3.2", 5_120, 216_000, 20_000, 20_000),
    Level("4", 8_192, 245_760, 20_000, 25_000),
    Level("4.1", 8_192, 245_760, 50_000, 62_500),
    Level("4.2", 8_704, 522_240, 50_000, 62_500),
    Level("5", 22_080, 589_824, 135_000, 135_000),
    Level("5.1", 36_864, 983_040, 240_000, 240_000),
    Level("5.2", 36_864, 2_073_600, 240_000, 240_000),
    Level("6", 139_264, 4_177_920, 240_000, 240_000),
    Level("6.1", 139_264, 8_355_840, 480_000, 480_000),
    Level("6.2", 139_264, 16_711_680, 800_000, 800_000),
];

/// ITU-T H.265 tables A.8 and A.9, Main tier: luma samples per picture and second, `MaxBR`, `MaxCPB`.
const HEVC: &[Level] = &[
    Level("3", 552_960, 16_588_800, 6_000, 6_000),
    Level("3.1", 983_040, 33_177_600, 10_000, 10_000),
    Level("4", 2_228_224, 66_846_720, 12_000, 12_000),
    Level("4.1", 2_228_224, 133_693_440, 20_000, 20_000),
    Level("5", 8_912_896, 267_386_880, 25_000, 25_000),
    Level("5.1", 8_912_896, 534_773_760, 40_000, 40_000),
    Level("5.2", 8_912_896, 1_069_547_520, 60_000, 60_000),
    Level("6", 35_651_584, 1_069_547_520, 60_000, 60_000),
    Level("6.1", 35_651_584, 2_139_095_040, 120_000, 120_000),
    Level("6.2", 35_651_584, 4_278_190_080, 240_000, 240_000),
];

/// The lowest level that holds the load, or `None` where the codec needs none, the rate is unknown, or no level does.
pub(super) fn lowest(load: Load) -> Option<&'static str> {
    let fps = load.frame_rate?.as_f64();
    // kbit/s and kbit in the table's own unit: High allows 1.25 times, High 10 three times the table's numbers.
    let (levels, unit, percent) = match load.codec {
        VideoCodec::H264 => match (load.bit_depth, load.profile) {
            (BitDepth::Ten, _) => (H264, 16, 300),
            (BitDepth::Eight, Some(Profile::Baseline | Profile::Main)) => (H264, 16, 100),
            (BitDepth::Eight, Some(Profile::High) | None) => (H264, 16, 125),
        },
        VideoCodec::Hevc => (HEVC, 1, 100),
        VideoCodec::Av1 | VideoCodec::Vp9 => return None,
    };
    let (columns, rows) = (u64::from(load.width.div_ceil(unit)), u64::from(load.height.div_ceil(unit)));
    let picture = columns * rows;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "far below 2^53"
    )]
    let throughput = (picture as f64 * fps).ceil() as u64;
    let (max, buffer) = ceiling(load.rate);
    levels
        .iter()
        .find(|Level(_, size, speed, kbits, cpb)| {
            picture <= *size
                && throughput <= *speed
                // Neither side may exceed the square root of eight pictures (A.3.1 f and g; A.4.1 b and c).
                && columns.max(rows).pow(2) <= 8 * size
                && max <= kbits * 10 * percent
                && buffer <= cpb * 10 * percent
        })
        .map(|level| level.0)
}

/// Bit/s and bits that the stream may reach, as far as it is bounded.
fn ceiling(rate: Rate) -> (u64, u64) {
    match rate {
        Rate::Crf { .. } => (0, 0),
        Rate::CappedCrf { max, buffer, .. } => {
            (u64::from(max.bits()), u64::from(buffer.unwrap_or(max.percent(200)).bits()))
        }
        Rate::Bitrate { target, max, buffer } => {
            let max = max.unwrap_or(target.percent(150));
            (u64::from(max.bits()), u64::from(buffer.unwrap_or(max.percent(200)).bits()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::preset::BitRate;

    fn level(codec: VideoCodec, width: u32, height: u32, fps: u32, rate: Rate) -> Option<&'static str> {
        let frame_rate = Rational::new(fps, 1).ok();
        lowest(Load { codec, width, height, frame_rate, rate, bit_depth: BitDepth::Eight, profile: None })
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
}

//! Codec strings (RFC 6381) of streams in any container: from the codec's own configuration, which ffprobe shows as a
//! dump, and where there is none from the names it has for profiles. What would have to be guessed is not said.

use super::document::{Stream, bit_depth};
use crate::domain::ColorRange;
use crate::media::boxes::boxed;
use crate::media::boxes::codec::{Codec, Family, picture};
use crate::media::boxes::movie::Color;

/// Bytes of a configuration that are read; parameter sets are below 1 KiB.
const MOST: usize = 4096;

impl Stream {
    /// The codec as manifests and `canPlayType` name it.
    pub(in crate::media) fn codec_string(&self) -> Option<String> {
        let text = match self.codec_name.as_deref()? {
            "h264" => return self.avc(),
            "hevc" => return self.configured(*b"hvc1", *b"hvcC", Family::Hevc),
            "av1" => return self.configured(*b"av01", *b"av1C", Family::Av1),
            "vp9" => return self.vp9(),
            "aac" => return self.aac(),
            "vp8" => "vp8",
            "mp3" => "mp4a.40.34",
            "ac3" => "ac-3",
            "eac3" => "ec-3",
            "opus" => "opus",
            "vorbis" => "vorbis",
            "flac" => "flac",
            "mov_text" => "tx3g",
            "webvtt" => "wvtt",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// As the sample entry of an ISO file would have it. A configuration of another form (Annex B) does not fit.
    fn configured(&self, entry: [u8; 4], kind: [u8; 4], family: Family) -> Option<String> {
        let config = bytes(self.extradata.as_deref()?);
        // Both records begin with their version; parameter sets in Annex B begin with a start code.
        let record = config.first().is_some_and(|first| matches!(first, 1 | 0x81));
        let codec: Codec = record.then(|| picture(entry, &boxed(kind, &config), self.code_points()))?;
        (codec.family == family).then_some(codec.text)
    }

    /// The colour as numbers (ISO 23091-2), where all three tags are among the usual ones.
    fn code_points(&self) -> Option<Color> {
        let tags = self.color();
        let primaries = match tags.primaries.as_deref()? {
            "bt709" => 1,
            "bt470bg" => 5,
            "smpte170m" => 6,
            "bt2020" => 9,
            "smpte432" => 12,
            _ => return None,
        };
        let transfer = match tags.transfer.as_deref()? {
            "bt709" => 1,
            "smpte170m" => 6,
            "bt2020-10" => 14,
            "smpte2084" => 16,
            "arib-std-b67" => 18,
            _ => return None,
        };
        let matrix = match tags.matrix.as_deref()? {
            "bt709" => 1,
            "bt470bg" => 5,
            "smpte170m" => 6,
            "bt2020nc" => 9,
            _ => return None,
        };
        Some(Color { primaries, transfer, matrix, full: tags.range == Some(ColorRange::Full) })
    }

    fn avc(&self) -> Option<String> {
        let config = bytes(self.extradata.as_deref()?);
        // avcC has profile, constraints and level where a parameter set has them behind its header byte.
        let at = match config.first()? {
            1 => 1,
            _ => config.windows(4).position(|w| matches!(w, [0, 0, 1, unit] if unit & 0x1f == 7))? + 4,
        };
        let (profile, constraints, level) = (config.get(at)?, config.get(at + 1)?, config.get(at + 2)?);
        Some(format!("avc1.{profile:02x}{constraints:02x}{level:02x}"))
    }

    /// `WebM` has no configuration of VP9; its level follows from size and rate (VP9 levels, table of Annex A).
    fn vp9(&self) -> Option<String> {
        let profile = self.profile.as_deref()?.strip_prefix("Profile ")?.parse::<u8>().ok()?;
        let pixels = u64::from(self.width) * u64::from(self.height);
        let rate = self.average_rate()?;
        #[expect(clippy::cast_precision_loss, reason = "pictures are far below 2^53 pixels")]
        let samples = pixels as f64 * rate;
        let (level, _, _) =
            VP9_LEVELS.iter().find(|(_, most, per_second)| pixels <= *most && samples <= *per_second)?;
        let depth = bit_depth(self.pix_fmt.as_deref().unwrap_or_default(), None);
        Some(format!("vp09.{profile:02}.{level:02}.{depth:02}"))
    }

    fn aac(&self) -> Option<String> {
        let object = match self.profile.as_deref()? {
            "Main" => 1,
            "LC" => 2,
            "SSR" => 3,
            "LTP" => 4,
            "HE-AAC" => 5,
            "HE-AACv2" => 29,
            "LD" => 23,
            "ELD" => 39,
            _ => return None,
        };
        Some(format!("mp4a.40.{object}"))
    }
}

/// Level, pixels of a picture, samples a second.
const VP9_LEVELS: &[(u8, u64, f64)] = &[
    (10, 36_864, 829_440.0),
    (11, 73_728, 2_764_800.0),
    (20, 122_880, 4_608_000.0),
    (21, 245_760, 9_216_000.0),
    (30, 552_960, 20_736_000.0),
    (31, 983_040, 36_864_000.0),
    (40, 2_228_224, 83_558_400.0),
    (41, 2_228_224, 160_432_128.0),
    (50, 8_912_896, 311_951_360.0),
    (51, 8_912_896, 588_251_136.0),
    (52, 8_912_896, 1_176_502_272.0),
    (60, 35_651_584, 1_176_502_272.0),
    (61, 35_651_584, 2_353_004_544.0),
    (62, 35_651_584, 4_706_009_088.0),
];

/// The bytes of ffprobe's dump: lines of `OFFSET: HEX HEX …  TEXT`.
fn bytes(dump: &str) -> Vec<u8> {
    let hex = dump.lines().filter_map(|line| line.split_once(": ")?.1.split("  ").next());
    let digits: Vec<u32> = hex.flat_map(str::chars).filter_map(|c| c.to_digit(16)).take(2 * MOST).collect();
    digits.chunks_exact(2).filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(json: &str) -> Option<String> {
        serde_json::from_str::<Stream>(json).unwrap().codec_string()
    }

    #[test]
    fn configurations_are_read_from_dumps_in_both_forms() {
        let avcc = r#"{"codec_name":"h264","extradata":"\n00000000: 014d 401f ffe1 0017 674d 401f da01 4016  .M@.....gM@...@.\n"}"#;
        assert_eq!(named(avcc).as_deref(), Some("avc1.4d401f"));
        let annex_b = r#"{"codec_name":"h264","extradata":"\n00000000: 0000 0001 0910 0000 0001 6764 001e acd9  ..........gd....\n"}"#;
        assert_eq!(named(annex_b).as_deref(), Some("avc1.64001e"));
        let eight = r#"{"codec_name":"av1","extradata":"\n00000000: 8108 0c00                                ....\n"}"#;
        assert_eq!(named(eight).as_deref(), Some("av01.0.08M.08"));
        let ten = r#"{"codec_name":"av1","color_primaries":"bt709","color_transfer":"bt709","color_space":"bt709","color_range":"tv","extradata":"\n00000000: 8108 4c00  ....\n"}"#;
        assert_eq!(named(ten).as_deref(), Some("av01.0.08M.10.0.110.01.01.01.0"));
    }

    #[test]
    fn names_stand_in_where_there_is_no_configuration_and_nothing_is_guessed() {
        let vp9 = r#"{"codec_name":"vp9","profile":"Profile 0","width":1920,"height":1080,"pix_fmt":"yuv420p","avg_frame_rate":"30/1"}"#;
        assert_eq!(named(vp9).as_deref(), Some("vp09.00.40.08"));
        assert_eq!(named(r#"{"codec_name":"aac","profile":"LC"}"#).as_deref(), Some("mp4a.40.2"));
        assert_eq!(named(r#"{"codec_name":"opus"}"#).as_deref(), Some("opus"));
        assert_eq!(named(r#"{"codec_name":"h264","profile":"High","level":31}"#), None);
        assert_eq!(
            named(r#"{"codec_name":"hevc","extradata":"\n00000000: 0000 0001 4001  ....@.\n"}"#),
            None
        );
        assert_eq!(named(r#"{"codec_name":"h264","extradata":"00000000: 01"}"#), None);
    }
}

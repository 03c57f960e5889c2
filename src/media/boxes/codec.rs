//! Codec strings (RFC 6381 and the codecs' own documents) from the configuration in an init segment.

use std::fmt::Write;

use super::movie::Color;
use super::{Fields, find, sps};

/// A codec as manifests name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Codec {
    pub(crate) family: Family,
    /// As HLS wants it, such as `avc1.64001f`; never empty.
    pub(crate) text: String,
    /// Bytes of the length before each NAL unit; 0 where there are none.
    pub(crate) nal_length: u8,
    /// Whether the parameter sets say that no frame is interlaced; `None` when they were not read.
    pub(crate) progressive: Option<bool>,
}

/// Kinds of codecs that are treated differently somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Avc,
    Hevc,
    Av1,
    Vp9,
    Aac,
    Mp3,
    Ac3,
    Opus,
    Other,
}

impl Codec {
    pub(crate) fn new(family: Family, text: impl Into<String>) -> Self {
        Self { family, text: text.into(), nal_length: 0, progressive: None }
    }

    pub(crate) fn other(kind: [u8; 4]) -> Self {
        Self::new(Family::Other, String::from_utf8_lossy(&kind).trim().to_owned())
    }

    /// As an MPD names it: Opus is written small there.
    pub(crate) fn dash(&self) -> &str {
        if self.family == Family::Opus { "opus" } else { &self.text }
    }
}

/// The codec of a picture with these boxes behind its sample entry.
pub(crate) fn picture(kind: [u8; 4], boxes: &[u8], color: Option<Color>) -> Codec {
    let known = match &kind {
        b"avc1" | b"avc3" => find(boxes, *b"avcC").and_then(|avcc| avc(kind, avcc)),
        b"hvc1" | b"hev1" => find(boxes, *b"hvcC").and_then(|hvcc| hevc(kind, hvcc)),
        b"av01" => find(boxes, *b"av1C").and_then(|av1c| av1(av1c, color)),
        b"vp09" => find(boxes, *b"vpcC").and_then(vp9),
        _ => None,
    };
    known.unwrap_or_else(|| Codec::other(kind))
}

/// The codec of a sound, and its channels where the configuration knows better than the sample entry.
pub(super) fn sound(kind: [u8; 4], boxes: &[u8]) -> (Codec, Option<u16>) {
    match &kind {
        b"mp4a" => find(boxes, *b"esds").and_then(mpeg4).unwrap_or_else(|| (Codec::other(kind), None)),
        b"Opus" => {
            let channels = find(boxes, *b"dOps").and_then(|dops| dops.get(1)).map(|&count| u16::from(count));
            (Codec::new(Family::Opus, "Opus"), channels)
        }
        b"ac-3" => (Codec::new(Family::Ac3, "ac-3"), find(boxes, *b"dac3").and_then(ac3)),
        b"ec-3" => (Codec::new(Family::Ac3, "ec-3"), find(boxes, *b"dec3").and_then(enhanced_ac3)),
        _ => (Codec::other(kind), None),
    }
}

fn avc(kind: [u8; 4], avcc: &[u8]) -> Option<Codec> {
    let mut fields = Fields::new(avcc);
    fields.skip(1)?;
    let [profile, constraints, level] = fields.array()?;
    let text = format!("{}.{profile:02x}{constraints:02x}{level:02x}", String::from_utf8_lossy(&kind));
    let nal_length = (fields.u8()? & 3) + 1;
    let sets = fields.u8()? & 0x1f;
    let first = (sets > 0).then(|| fields.u16()).flatten().and_then(|length| fields.take(length.into()));
    let progressive = first.and_then(sps::Sps::parse).map(|sps| sps.progressive);
    Some(Codec { nal_length, progressive, ..Codec::new(Family::Avc, text) })
}

/// ISO 14496-15 annex E: profile, compatibility backwards, tier and level, constraint bytes without trailing zeros.
fn hevc(kind: [u8; 4], hvcc: &[u8]) -> Option<Codec> {
    let mut fields = Fields::new(hvcc);
    fields.skip(1)?;
    let profile = fields.u8()?;
    let compatible = fields.u32()?;
    let constraints: [u8; 6] = fields.array()?;
    let level = fields.u8()?;
    let space = ["", "A", "B", "C"][usize::from(profile >> 6)];
    let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
    let mut text = format!(
        "{}.{space}{}.{:X}.{tier}{level}",
        String::from_utf8_lossy(&kind),
        profile & 0x1f,
        compatible.reverse_bits()
    );
    let used = constraints.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    for byte in constraints.iter().take(used) {
        let _ = write!(text, ".{byte:X}");
    }
    // Eight bytes of chroma, depth, rate and layout lie between the level and the length of lengths.
    fields.skip(8)?;
    let nal_length = (fields.u8()? & 3) + 1;
    Some(Codec { nal_length, ..Codec::new(Family::Hevc, text) })
}

/// AV1 in ISOBMFF §5: the colour fields are all there or none is.
fn av1(av1c: &[u8], color: Option<Color>) -> Option<Codec> {
    let (&first, &second) = (av1c.get(1)?, av1c.get(2)?);
    let tier = if second & 0x80 == 0 { 'M' } else { 'H' };
    let depth = match (second & 0x40 != 0, second & 0x20 != 0) {
        (false, _) => 8,
        (true, false) => 10,
        (true, true) => 12,
    };
    let mut text = format!("av01.{}.{:02}{tier}.{depth:02}", first >> 5, first & 0x1f);
    if let (Some(color), 10..) = (color, depth) {
        let (mono, x, y) = (second >> 4 & 1, second >> 3 & 1, second >> 2 & 1);
        let position = if x & y == 1 { second & 3 } else { 0 };
        let Color { primaries, transfer, matrix, full } = color;
        let _ = write!(
            text,
            ".{mono}.{x}{y}{position}.{primaries:02}.{transfer:02}.{matrix:02}.{}",
            u8::from(full)
        );
    }
    Some(Codec::new(Family::Av1, text))
}

fn vp9(vpcc: &[u8]) -> Option<Codec> {
    let mut fields = Fields::new(vpcc);
    fields.full()?;
    let (profile, level, depth) = (fields.u8()?, fields.u8()?, fields.u8()? >> 4);
    Some(Codec::new(Family::Vp9, format!("vp09.{profile:02}.{level:02}.{depth:02}")))
}

/// ISO 14496-1 descriptors: the object type, and for MPEG-4 audio what its configuration says.
fn mpeg4(esds: &[u8]) -> Option<(Codec, Option<u16>)> {
    let mut fields = Fields::new(esds);
    fields.full()?;
    let mut object = None;
    loop {
        let tag = fields.u8()?;
        let mut length = 0_usize;
        for _ in 0..4 {
            let byte = fields.u8()?;
            length = length << 7 | usize::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                break;
            }
        }
        match tag {
            3 => {
                fields.skip(2)?;
                let flags = fields.u8()?;
                fields.skip(if flags & 0x80 == 0 { 0 } else { 2 })?;
            }
            4 => {
                object = fields.u8();
                if matches!(object, Some(0x69 | 0x6b)) {
                    return Some((Codec::new(Family::Mp3, "mp4a.40.34"), None));
                }
                fields.skip(12)?;
            }
            5 => {
                let config = fields.take(length)?;
                let (kind, channels) = audio_config(config)?;
                let object = object?;
                let codec = Codec::new(Family::Aac, format!("mp4a.{object:x}.{kind}"));
                return Some((codec, channels));
            }
            _ => fields.skip(length)?,
        }
    }
}

/// ISO 14496-3 §1.6: the audio object type and the channels.
fn audio_config(config: &[u8]) -> Option<(u8, Option<u16>)> {
    let mut bits = sps::Bits::new(config);
    let mut kind = bits.take(5)?;
    if kind == 31 {
        kind = 32 + bits.take(6)?;
    }
    if bits.take(4)? == 15 {
        bits.take(24)?;
    }
    let channels = match bits.take(4)? {
        count @ 1..=6 => u16::try_from(count).ok(),
        7 => Some(8),
        _ => None,
    };
    Some((u8::try_from(kind).ok()?, channels))
}

/// ETSI TS 102 366 §F.4: channels of an `ac-3`.
fn ac3(dac3: &[u8]) -> Option<u16> {
    let mut bits = sps::Bits::new(dac3);
    bits.take(10)?;
    coded(&mut bits)
}

/// ETSI TS 102 366 §F.6: channels of an `ec-3`. Independent streams behind the first are other programmes; streams that
/// depend on the first add channels to it.
fn enhanced_ac3(dec3: &[u8]) -> Option<u16> {
    // From the highest bit down: LFE2, Cvh, Lvh/Rvh, Lw/Rw, Lsd/Rsd, Ts, Cs, Lrs/Rrs, Lc/Rc.
    const PLACES: [u16; 9] = [1, 1, 2, 2, 2, 1, 1, 2, 2];
    let mut bits = sps::Bits::new(dec3);
    bits.take(13 + 3)?;
    bits.take(2 + 5 + 1 + 1 + 3)?;
    let channels = coded(&mut bits)?;
    bits.take(3)?;
    if bits.take(4)? == 0 {
        return Some(channels);
    }
    let mut more = 0;
    for count in PLACES {
        more += count * u16::try_from(bits.take(1)?).ok()?;
    }
    Some(channels + more)
}

/// Channels of an audio coding mode, and one for low frequencies.
fn coded(bits: &mut sps::Bits<'_>) -> Option<u16> {
    let mode = *[2_u16, 1, 2, 3, 3, 4, 4, 5].get(usize::try_from(bits.take(3)?).ok()?)?;
    Some(mode + u16::try_from(bits.take(1)?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::super::boxed;
    use super::*;

    fn named(kind: [u8; 4], config: [u8; 4], body: &[u8]) -> String {
        picture(kind, &boxed(config, body), None).text
    }

    #[test]
    fn pictures_are_named_as_players_expect() {
        assert_eq!(named(*b"avc1", *b"avcC", &[1, 0x64, 0, 0x1f, 0xff, 0xe0]), "avc1.64001f");
        let hvcc = [&[1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 120][..], &[0; 8], &[3]].concat();
        assert_eq!(named(*b"hvc1", *b"hvcC", &hvcc), "hvc1.1.6.L120.90");
        assert_eq!(named(*b"av01", *b"av1C", &[0x81, 8, 0x0c, 0]), "av01.0.08M.08");
        assert_eq!(named(*b"vp09", *b"vpcC", &[1, 0, 0, 0, 0, 40, 0x80]), "vp09.00.40.08");
        assert_eq!(named(*b"avc1", *b"avcC", &[1]), "avc1");
    }

    #[test]
    fn ten_bit_av1_says_its_colours() {
        let color = Some(Color { primaries: 9, transfer: 16, matrix: 9, full: false });
        let ten = picture(*b"av01", &boxed(*b"av1C", &[0x81, 8, 0x4c, 0]), color);
        assert_eq!(ten.text, "av01.0.08M.10.0.110.09.16.09.0");
    }

    #[test]
    fn sounds_are_named_by_their_configuration() {
        let esds = |object: u8, config: &[u8]| {
            let specific = [&[5, u8::try_from(config.len()).unwrap()][..], config].concat();
            let decoder =
                [&[4, 0x80, 0x80, 0x80, 15, object, 0x15][..], &[0; 11], specific.as_slice()].concat();
            boxed(*b"esds", &[&[0, 0, 0, 0, 3, 30, 0, 1, 0][..], &decoder].concat())
        };
        let (codec, channels) = sound(*b"mp4a", &esds(0x40, &[0x11, 0x90]));
        assert_eq!((codec.text.as_str(), channels), ("mp4a.40.2", Some(2)));
        assert_eq!(sound(*b"mp4a", &esds(0x6b, &[])).0.text, "mp4a.40.34");
        let (opus, channels) = sound(*b"Opus", &boxed(*b"dOps", &[0, 6]));
        assert_eq!((opus.text.as_str(), opus.dash(), channels), ("Opus", "opus", Some(6)));
    }

    #[test]
    fn dolbys_channels_are_those_of_the_coding_mode() {
        let ac3 = |dac3: &[u8]| sound(*b"ac-3", &boxed(*b"dac3", dac3));
        let ec3 = |dec3: &[u8]| sound(*b"ec-3", &boxed(*b"dec3", dec3));
        // As ffmpeg writes them: 48 kHz, bsid 8 or 16, then the mode and the bit for low frequencies.
        assert_eq!(ac3(&[0x10, 0x3d, 0xe0]), (Codec::new(Family::Ac3, "ac-3"), Some(6)));
        assert_eq!(ac3(&[0x10, 0x11, 0x40]).1, Some(2));
        assert_eq!(ec3(&[6, 0, 0x20, 0x0f, 0]), (Codec::new(Family::Ac3, "ec-3"), Some(6)));
        assert_eq!(ec3(&[6, 0, 0x20, 0x04, 0]).1, Some(2));
        // One stream depends on it, with the two at the back: 7.1.
        assert_eq!(ec3(&[12, 0, 0x20, 0x0f, 0x02, 0x02]).1, Some(8));
        for cut in [&[][..], &[6, 0], &[6, 0, 0x20], &[12, 0, 0x20, 0x0f, 0x02]] {
            assert_eq!(ec3(cut), (Codec::new(Family::Ac3, "ec-3"), None));
        }
        assert_eq!(ac3(&[0x10]).1, None);
    }
}

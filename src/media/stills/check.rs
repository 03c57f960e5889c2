//! Is a written picture whole, and how large is it? From its own bytes.

use crate::domain::preset::StillFormat;

/// Its size in pixels; `None` where it is not of the format, or cut.
pub(super) fn size(bytes: &[u8], format: StillFormat) -> Option<(u32, u32)> {
    match format {
        StillFormat::Jpg => jpeg(bytes),
        StillFormat::Png => png(bytes),
        StillFormat::Webp => webp(bytes),
    }
}

/// Width and height of a whole JPEG, pixels; `None` of anything else.
#[must_use]
pub fn jpeg(bytes: &[u8]) -> Option<(u32, u32)> {
    let whole = bytes.starts_with(&[0xff, 0xd8]) && bytes.ends_with(&[0xff, 0xd9]);
    let mut at = 2;
    loop {
        let &[0xff, marker, high, low] = bytes.get(at..at + 4)? else { return None };
        // Frame headers, but for the tables that share their range.
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            let &[_, h1, h0, w1, w0] = bytes.get(at + 4..at + 9)? else { return None };
            let size = (u32::from(u16::from_be_bytes([w1, w0])), u32::from(u16::from_be_bytes([h1, h0])));
            return whole.then_some(size);
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
}

fn png(bytes: &[u8]) -> Option<(u32, u32)> {
    let whole = bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.ends_with(b"IEND\xaeB`\x82");
    let side = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some((side(16)?, side(20)?)).filter(|_| whole)
}

fn webp(bytes: &[u8]) -> Option<(u32, u32)> {
    let length = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let whole = bytes.starts_with(b"RIFF") && usize::try_from(length).ok()? + 8 == bytes.len();
    // A lossy frame: tag, start code, 14 bits each.
    let lossy = bytes.get(8..16)? == b"WEBPVP8 " && bytes.get(23..26)? == [0x9d, 0x01, 0x2a];
    let side =
        |at: usize| Some(u32::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?) & 0x3fff));
    Some((side(26)?, side(28)?)).filter(|_| whole && lossy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_what_is_cut_has_none() {
        let jpg = [
            &[0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xc0, 0, 11, 8, 0, 90, 0, 160, 1, 1, 0x11, 0][..],
            &[0xff, 0xd9],
        ]
        .concat();
        assert_eq!(size(&jpg, StillFormat::Jpg), Some((160, 90)));
        assert_eq!(size(&jpg[..jpg.len() - 1], StillFormat::Jpg), None);
        assert_eq!(size(&jpg, StillFormat::Png), None);
        let png = [&b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\xa0\0\0\0\x5a"[..], b"IEND\xaeB`\x82"].concat();
        assert_eq!(size(&png, StillFormat::Png), Some((160, 90)));
        let mut webp = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\xa0\0\x5a\0".to_vec();
        webp[4] = u8::try_from(webp.len() - 8).unwrap();
        assert_eq!(size(&webp, StillFormat::Webp), Some((160, 90)));
        assert_eq!(size(&webp[..29], StillFormat::Webp), None);
        assert_eq!(size(&[], StillFormat::Jpg), None);
    }
}

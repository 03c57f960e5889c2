//! H.264 sequence parameter sets (ISO 14496-10 §7.3.2.1.1), as far as packaging asks.

/// What a sequence parameter set says of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sps {
    pub(crate) profile: u8,
    pub(crate) constraints: u8,
    pub(crate) level: u8,
    /// Pixels that are shown.
    pub(crate) width: u32,
    /// Pixels that are shown.
    pub(crate) height: u32,
    /// Whether only whole frames are coded.
    pub(crate) progressive: bool,
}

impl Sps {
    /// Reads a NAL unit of type 7, its header byte included.
    pub(crate) fn parse(nal: &[u8]) -> Option<Self> {
        let plain = unescaped(nal.get(1..)?);
        let mut bits = Bits::new(&plain);
        let byte = |bits: &mut Bits<'_>| u8::try_from(bits.take(8)?).ok();
        let (profile, constraints, level) = (byte(&mut bits)?, byte(&mut bits)?, byte(&mut bits)?);
        bits.golomb()?;
        let mut chroma = 1;
        if matches!(profile, 44 | 83 | 86 | 100 | 110 | 118 | 122 | 128 | 134 | 135 | 138 | 139 | 244) {
            chroma = bits.golomb()?;
            if chroma == 3 {
                bits.take(1)?;
            }
            bits.golomb()?;
            bits.golomb()?;
            bits.take(1)?;
            if bits.take(1)? == 1 {
                for list in 0..if chroma == 3 { 12 } else { 8 } {
                    if bits.take(1)? == 1 {
                        skip_scaling(&mut bits, if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        bits.golomb()?;
        match bits.golomb()? {
            0 => {
                bits.golomb()?;
            }
            1 => {
                bits.take(1)?;
                bits.golomb()?;
                bits.golomb()?;
                for _ in 0..bits.golomb()?.min(255) {
                    bits.golomb()?;
                }
            }
            _ => {}
        }
        bits.golomb()?;
        bits.take(1)?;
        let across = bits.golomb()?.checked_add(1)?;
        let down = bits.golomb()?.checked_add(1)?;
        let progressive = bits.take(1)? == 1;
        if !progressive {
            bits.take(1)?;
        }
        bits.take(1)?;
        let units = if progressive { 1 } else { 2 };
        let mut crop = [0; 4];
        if bits.take(1)? == 1 {
            for side in &mut crop {
                *side = bits.golomb()?;
            }
        }
        let (step_x, step_y) = match chroma {
            1 => (2, 2 * units),
            2 => (2, units),
            _ => (1, units),
        };
        let [left, right, top, bottom] = crop;
        let shown = |blocks: u32, step: u32, before: u32, after: u32| {
            let cut = before.checked_add(after)?.checked_mul(step)?;
            blocks.checked_mul(16)?.checked_sub(cut)
        };
        let width = shown(across, step_x, left, right)?;
        let height = shown(down.checked_mul(units)?, step_y, top, bottom)?;
        Some(Self { profile, constraints, level, width, height, progressive })
    }

    /// As manifests name it.
    pub(crate) fn codec(&self) -> String {
        format!("avc1.{:02x}{:02x}{:02x}", self.profile, self.constraints, self.level)
    }
}

fn skip_scaling(bits: &mut Bits<'_>, entries: u32) -> Option<()> {
    let (mut last, mut next) = (8_i64, 8_i64);
    for _ in 0..entries {
        if next != 0 {
            let code = i64::from(bits.golomb()?);
            let delta = if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) };
            next = (last + delta).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// Without the bytes that keep start codes out of the payload.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut zeros = 0;
    for &byte in bytes {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        plain.push(byte);
    }
    plain
}

/// Reads bits from the highest down.
#[derive(Debug)]
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bits, at most 32.
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    /// An unsigned Exp-Golomb code (§9.1).
    pub(crate) fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.take(1)? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.take(zeros)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_parameter_set_is_read() {
        // x264, 1920x1080: 1088 coded lines of which 8 are cropped.
        let nal = [
            0x67, 0x64, 0x00, 0x28, 0xac, 0xd9, 0x40, 0x78, 0x02, 0x27, 0xe5, 0x84, 0x00, 0x00, 0x03, 0x00,
            0x04, 0x00, 0x00, 0x03, 0x00, 0xca, 0x3c, 0x60, 0xc6, 0x58,
        ];
        let sps = Sps::parse(&nal).unwrap();
        assert_eq!((sps.width, sps.height, sps.progressive), (1920, 1080, true));
        assert_eq!(sps.codec(), "avc1.640028");
    }

    #[test]
    fn rubbish_is_none() {
        for nal in [&[][..], &[0x67], &[0x67, 0x64, 0, 0x28, 0, 0, 0, 0], &[0x67; 9], &[0xff; 64]] {
            let _ = Sps::parse(nal);
        }
        assert_eq!(Sps::parse(&[0x67, 0x64, 0, 0x28, 0, 0, 0, 0]), None);
    }
}

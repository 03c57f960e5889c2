//! MPEG transport streams (ISO 13818-1), as far as cutting and checking them asks.
//!
//! Pure: packets in, what begins in them out. Nothing is trusted and nothing panics.

use super::boxes::sps::{Bits, Sps};

/// Bytes of a packet.
pub(crate) const PACKET: usize = 188;
/// Ticks a second of all time stamps.
pub(crate) const CLOCK: u32 = 90_000;

/// What has been learned of a stream so far.
#[derive(Debug, Default)]
pub(crate) struct Demux {
    /// Where the table of the first program is.
    pub(crate) table: Option<u16>,
    pub(crate) streams: Vec<Stream>,
}

/// One elementary stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) pid: u16,
    pub(crate) kind: StreamKind,
}

/// By `stream_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    Avc,
    Hevc,
    Aac,
    Mp3,
    Ac3,
    Other,
}

impl StreamKind {
    pub(crate) const fn is_picture(self) -> bool {
        matches!(self, Self::Avc | Self::Hevc)
    }

    pub(crate) const fn is_sound(self) -> bool {
        matches!(self, Self::Aac | Self::Mp3 | Self::Ac3)
    }
}

/// What a packet is.
#[derive(Debug)]
pub(crate) enum Seen<'a> {
    /// The program association table.
    Programs,
    /// The program's own table.
    Program,
    /// A picture or a piece of sound begins.
    Start { stream: Stream, random_access: bool, pts: Option<u64>, payload: &'a [u8] },
    /// It goes on.
    More { stream: Stream, payload: &'a [u8] },
    /// Padding, and what is of no interest.
    Other,
}

impl Demux {
    /// Looks at one packet; `None` when it is none.
    pub(crate) fn read<'a>(&mut self, packet: &'a [u8]) -> Option<Seen<'a>> {
        let [0x47, high, low, flags, ..] = *packet else { return None };
        if packet.len() != PACKET {
            return None;
        }
        let begins = high & 0x40 != 0;
        let pid = u16::from(high & 0x1f) << 8 | u16::from(low);
        let mut body = packet.get(4..)?;
        let mut random_access = false;
        if flags & 0x20 != 0 {
            let (&length, rest) = body.split_first()?;
            random_access = length > 0 && rest.first()? & 0x40 != 0;
            body = rest.get(usize::from(length)..)?;
        }
        if flags & 0x10 == 0 {
            return Some(Seen::Other);
        }
        if pid == 0 {
            self.table = begins.then(|| programs(body)).flatten().or(self.table);
            return Some(Seen::Programs);
        }
        if Some(pid) == self.table {
            if let Some(streams) = begins.then(|| streams(body)).flatten() {
                self.streams = streams;
            }
            return Some(Seen::Program);
        }
        let Some(&stream) = self.streams.iter().find(|stream| stream.pid == pid) else {
            return Some(Seen::Other);
        };
        if !begins {
            return Some(Seen::More { stream, payload: body });
        }
        let (pts, payload) = pes(body)?;
        Some(Seen::Start { stream, random_access, pts, payload })
    }
}

/// A section, found by the pointer before it, without its header of 8 bytes and its checksum.
fn section(payload: &[u8], table: u8) -> Option<&[u8]> {
    let (&pointer, rest) = payload.split_first()?;
    let section = rest.get(usize::from(pointer)..)?;
    if *section.first()? != table {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([section.get(1)? & 0x0f, *section.get(2)?]));
    section.get(8..(3 + length).checked_sub(4)?)
}

fn programs(payload: &[u8]) -> Option<u16> {
    let entries = section(payload, 0)?;
    let mut all = entries.chunks_exact(4);
    let [_, _, high, low] = all.find(|entry| entry[..2] != [0, 0])? else { return None };
    Some(u16::from_be_bytes([high & 0x1f, *low]))
}

fn streams(payload: &[u8]) -> Option<Vec<Stream>> {
    let body = section(payload, 2)?;
    let length = usize::from(u16::from_be_bytes([body.get(2)? & 0x0f, *body.get(3)?]));
    let mut rest = body.get(4 + length..)?;
    let mut streams = Vec::new();
    while let [kind, high, low, more, length, ..] = *rest {
        let kind = match kind {
            0x1b => StreamKind::Avc,
            0x24 => StreamKind::Hevc,
            0x0f => StreamKind::Aac,
            0x03 | 0x04 => StreamKind::Mp3,
            0x81 => StreamKind::Ac3,
            _ => StreamKind::Other,
        };
        streams.push(Stream { pid: u16::from_be_bytes([high & 0x1f, low]), kind });
        let skip = 5 + usize::from(u16::from_be_bytes([more & 0x0f, length]));
        rest = rest.get(skip..)?;
    }
    Some(streams)
}

/// A packetized elementary stream's header: its presentation time, and what follows.
fn pes(payload: &[u8]) -> Option<(Option<u64>, &[u8])> {
    if payload.get(..3)? != [0, 0, 1] {
        return None;
    }
    let rest = payload.get(9 + usize::from(*payload.get(8)?)..)?;
    let pts = if payload.get(7)? & 0x80 == 0 {
        None
    } else {
        // Three, fifteen and fifteen bits, each part followed by a marker.
        let bytes = payload.get(9..14)?.iter().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
        Some((bytes >> 33 & 7) << 30 | (bytes >> 17 & 0x7fff) << 15 | bytes >> 1 & 0x7fff)
    };
    Some((pts, rest))
}

/// A time stamp without its wrap after 26 hours: the one nearest to `near`.
pub(crate) fn unwrapped(near: i64, pts: u64) -> i64 {
    const WRAP: i64 = 1 << 33;
    let pts = i64::try_from(pts).unwrap_or(0);
    let turns = (near - pts + WRAP / 2).div_euclid(WRAP);
    pts + turns * WRAP
}

/// NAL units of a byte stream (ISO 14496-10 annex B), without their start codes.
pub(crate) fn nals(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = start_code(bytes, 0);
    std::iter::from_fn(move || {
        let from = at?;
        at = start_code(bytes, from);
        let to = at.map_or(bytes.len(), |next| next - 3);
        bytes.get(from..to)
    })
}

/// The first byte behind the next start code.
fn start_code(bytes: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(3).position(|three| three == [0, 0, 1]).map(|at| from + at + 3)
}

/// The first sequence parameter set of an H.264 picture.
pub(crate) fn parameters(picture: &[u8]) -> Option<Sps> {
    nals(picture).find(|nal| nal.first().is_some_and(|head| head & 0x1f == 7)).and_then(Sps::parse)
}

/// What the first frame of sound says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Adts {
    /// The audio object type.
    pub(crate) kind: u32,
    /// Hz.
    pub(crate) rate: u32,
    pub(crate) channels: u16,
}

/// Hz by index (ISO 14496-3 §1.6.3.4).
const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// ISO 14496-3 §1.A.2.2.
pub(crate) fn adts(sound: &[u8]) -> Option<Adts> {
    let mut bits = Bits::new(sound);
    if bits.take(12)? != 0xfff {
        return None;
    }
    bits.take(4)?;
    let kind = bits.take(2)? + 1;
    let rate = *RATES.get(usize::try_from(bits.take(4)?).ok()?)?;
    bits.take(1)?;
    let channels = match bits.take(3)? {
        7 => 8,
        count => u16::try_from(count).ok()?,
    };
    Some(Adts { kind, rate, channels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_go_on_after_their_wrap() {
        let wrap = 1_i64 << 33;
        assert_eq!(unwrapped(0, 900), 900);
        assert_eq!(unwrapped(wrap - 10, 20), wrap + 20);
        assert_eq!(unwrapped(wrap + 5, (1 << 33) - 5), wrap - 5);
    }

    #[test]
    fn nal_units_lie_between_start_codes() {
        let bytes = [0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x65];
        let kinds: Vec<u8> = nals(&bytes).map(|nal| nal[0] & 0x1f).collect();
        assert_eq!(kinds, [9, 7, 5]);
        assert_eq!(nals(&[1, 2, 3]).count(), 0);
    }

    #[test]
    fn sound_says_what_it_is() {
        let stereo = [0xff, 0xf1, 0x4c, 0x80, 0, 0x1f, 0xfc];
        assert_eq!(adts(&stereo), Some(Adts { kind: 2, rate: 48_000, channels: 2 }));
        assert_eq!(adts(&[0xff]), None);
    }

    #[test]
    fn rubbish_is_no_packet() {
        let mut demux = Demux::default();
        assert!(demux.read(&[0x47; 12]).is_none());
        assert!(demux.read(&[0; PACKET]).is_none());
        for fill in [0, 0xff, 0x47] {
            let mut packet = [fill; PACKET];
            packet[0] = 0x47;
            let _ = demux.read(&packet);
        }
    }
}

//! Which container a source is, by its own bytes. The verdict is forced on ffmpeg, which must never guess: its guesses
//! include playlists and text files (GATEWAY §1.1, ENCODING §8). Names and content types of strangers are not asked.

mod refused;

use super::RandomRead;
use crate::domain::{Code, Demuxer, Failure};

/// Bytes looked at: enough for a transport stream that starts inside a packet and for MXF's 64 KiB run-in.
const HEAD: usize = 68 * 1024;

/// Names the container of a source.
///
/// # Errors
/// `media_corrupt` for nothing, text and noise; `media_unsupported` for what is recognised but not taken (playlists,
/// pictures, archives, documents); `source_unreachable` when it cannot be read.
pub async fn sniff(source: &dyn RandomRead) -> Result<Demuxer, Failure> {
    if source.size() == 0 {
        return Err(Failure::new(Code::MediaCorrupt, "The source is empty."));
    }
    let head = read(source, 0).await?;
    // An ID3 tag may stand before MPEG audio, AAC and FLAC; a cover picture makes it long.
    let Some(skip) = id3_length(&head) else {
        return verdict(&head);
    };
    let after = read(source, skip).await?;
    Ok(audio_frames(&after).unwrap_or(Demuxer::Mp3))
}

async fn read(source: &dyn RandomRead, offset: u64) -> Result<bytes::Bytes, Failure> {
    source.read_at(offset, HEAD).await.map_err(|error| {
        Failure::new(Code::SourceUnreachable, "The source could not be read.").with_detail(error.to_string())
    })
}

/// The verdict on a source's first bytes.
fn verdict(head: &[u8]) -> Result<Demuxer, Failure> {
    // Magic numbers first, then what we refuse by name, then formats known only by their rhythm, which noise may imitate.
    if let Some(found) = magic(head) {
        return found;
    }
    if let Some(refusal) = refused::recognise(head) {
        return Err(refusal);
    }
    transport_stream(head)
        .or_else(|| elementary(head))
        .or_else(|| audio_frames(head))
        .or_else(|| material_exchange(head))
        .ok_or_else(|| {
            Failure::new(Code::MediaCorrupt, "The source is not a media file that flux recognises.")
        })
}

fn magic(head: &[u8]) -> Option<Result<Demuxer, Failure>> {
    let found = match head {
        [0x1A, 0x45, 0xDF, 0xA3, ..] => return Some(ebml(head)),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', b' ', ..] => Demuxer::Avi,
        [b'R', b'I' | b'F', b'F' | b'6', b'F' | b'4', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Demuxer::Wav,
        [b'F', b'L', b'V', 1, ..] => Demuxer::Flv,
        [b'O', b'g', b'g', b'S', 0, ..] => Demuxer::Ogg,
        [0x30, 0x26, 0xB2, 0x75, 0x8E, 0x66, 0xCF, 0x11, ..] => Demuxer::Asf,
        [b'.', b'R', b'M', b'F', ..] => Demuxer::Rm,
        [b'f', b'L', b'a', b'C', ..] => Demuxer::Flac,
        [b'D', b'K', b'I', b'F', ..] => Demuxer::Ivf,
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Demuxer::Gif,
        [0, 0, 1, 0xBA, ..] => Demuxer::Mpeg,
        [0, 0, 1, 0xB3, ..] => Demuxer::Mpegvideo,
        _ => return iso_base_media(head),
    };
    Some(Ok(found))
}

/// The `DocType` follows within the EBML header; only the two kinds of Matroska are taken.
fn ebml(head: &[u8]) -> Result<Demuxer, Failure> {
    let header = &head[..head.len().min(4096)];
    let says = |name: &[u8]| header.windows(name.len()).any(|part| part == name);
    if says(b"matroska") || says(b"webm") {
        return Ok(Demuxer::Matroska);
    }
    Err(Failure::new(Code::MediaUnsupported, "The source is an EBML file that is neither Matroska nor WebM."))
}

fn iso_base_media(head: &[u8]) -> Option<Result<Demuxer, Failure>> {
    let length = u32::from_be_bytes(*head.first_chunk()?);
    let kind: &[u8; 4] = head.get(4..)?.first_chunk()?;
    // 0 and 1 are legal lengths ("to the end", "64 bits follow").
    let plausible = length >= 8 || length <= 1;
    match kind {
        b"ftyp" if plausible => {
            let brand: &[u8; 4] = head.get(8..)?.first_chunk()?;
            match brand {
                b"avif" | b"avis" | b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1" | b"crx " | b"jxl " => {
                    Some(Err(refused::unsupported("a picture")))
                }
                _ => Some(Ok(Demuxer::Mov)),
            }
        }
        b"moov" | b"mdat" | b"free" | b"skip" | b"wide" | b"pnot" | b"uuid" | b"styp" | b"sidx" | b"moof"
            if plausible =>
        {
            Some(Ok(Demuxer::Mov))
        }
        _ => None,
    }
}

/// Sync bytes at the distance of a packet: plain (188), with timestamps (192), with Reed-Solomon (204).
fn transport_stream(head: &[u8]) -> Option<Demuxer> {
    const RUN: usize = 5;
    [188, 192, 204].into_iter().find_map(|packet| {
        let starts = 0..packet.min(head.len());
        let in_step = |start: usize| {
            let mut syncs = head[start..].iter().step_by(packet).take(RUN);
            let whole = head.len() > start + packet * 2;
            whole && syncs.all(|b| *b == 0x47)
        };
        starts.into_iter().any(in_step).then_some(Demuxer::Mpegts)
    })
}

/// Raw video: the first unit after a start code tells the codec.
fn elementary(head: &[u8]) -> Option<Demuxer> {
    let ([0, 0, 0, 1, unit @ ..] | [0, 0, 1, unit @ ..]) = head else {
        return None;
    };
    match unit {
        // HEVC: VPS, SPS or access unit delimiter, layer 0, temporal id 1. Checked first: 0x46 is no legal H.264 unit.
        [0x40 | 0x42 | 0x46, 0x01, ..] => Some(Demuxer::Hevc),
        // MPEG-4 visual: object sequence, visual object, group, plane or video object.
        [0xB0 | 0xB5 | 0xB6 | 0x00..=0x05, ..] => Some(Demuxer::M4v),
        // H.264: SPS, access unit delimiter or SEI.
        [0x67 | 0x47 | 0x27 | 0x09 | 0x06, ..] => Some(Demuxer::H264),
        _ => None,
    }
}

/// Sound whose frames follow each other at the distance each header tells.
fn audio_frames(head: &[u8]) -> Option<Demuxer> {
    match head {
        [b'f', b'L', b'a', b'C', ..] => return Some(Demuxer::Flac),
        [0x0B, 0x77, ..] | [0x77, 0x0B, ..] => return Some(Demuxer::Ac3),
        [0x7F, 0xFE, 0x80, 0x01, ..]
        | [0xFE, 0x7F, 0x01, 0x80, ..]
        | [0x1F, 0xFF, 0xE8, 0x00, ..]
        | [0xFF, 0x1F, 0x00, 0xE8, ..] => return Some(Demuxer::Dts),
        _ => {}
    }
    let chained = |length: fn(&[u8]) -> Option<usize>| {
        let first = length(head)?;
        let next = head.get(first..)?;
        // The last frame of a tiny file has no successor.
        (next.is_empty() || length(next).is_some()).then_some(())
    };
    if chained(adts_frame).is_some() {
        return Some(Demuxer::Aac);
    }
    chained(mpeg_audio_frame).map(|()| Demuxer::Mp3)
}

/// Length of an ADTS frame (ISO 14496-3, 1.A.2.2.1).
fn adts_frame(data: &[u8]) -> Option<usize> {
    let [0xFF, b1, _, b3, b4, b5, _, ..] = *data else {
        return None;
    };
    if b1 & 0xF6 != 0xF0 {
        return None;
    }
    let length = usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5);
    (length >= 7).then_some(length)
}

/// Length of an MPEG audio frame (ISO 11172-3, 2.4.1.3 and 13818-3).
fn mpeg_audio_frame(data: &[u8]) -> Option<usize> {
    const V1_L1: [u32; 15] = [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448];
    const V1_L2: [u32; 15] = [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384];
    const V1_L3: [u32; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
    const V2_L1: [u32; 15] = [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256];
    const V2_L23: [u32; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
    let [0xFF, b1, b2, _, ..] = *data else { return None };
    if b1 & 0xE0 != 0xE0 {
        return None;
    }
    let (version, layer) = ((b1 >> 3) & 3, (b1 >> 1) & 3);
    let table = match (version, layer) {
        (3, 3) => V1_L1,
        (3, 2) => V1_L2,
        (3, 1) => V1_L3,
        (0 | 2, 3) => V2_L1,
        (0 | 2, 1 | 2) => V2_L23,
        _ => return None,
    };
    let bits = *table.get(usize::from(b2 >> 4)).filter(|rate| **rate > 0)? * 1000;
    let rate = *[44_100_u32, 48_000, 32_000].get(usize::from((b2 >> 2) & 3))?;
    let rate = match version {
        3 => rate,
        2 => rate / 2,
        _ => rate / 4,
    };
    let padding = u32::from((b2 >> 1) & 1);
    let length = match (version, layer) {
        (_, 3) => (12 * bits / rate + padding) * 4,
        (0 | 2, 1) => 72 * bits / rate + padding,
        _ => 144 * bits / rate + padding,
    };
    usize::try_from(length).ok().filter(|length| *length > 4)
}

/// MXF's header partition key, after at most 64 KiB of run-in (SMPTE 377).
fn material_exchange(head: &[u8]) -> Option<Demuxer> {
    const KEY: [u8; 11] = [0x06, 0x0E, 0x2B, 0x34, 0x02, 0x05, 0x01, 0x01, 0x0D, 0x01, 0x02];
    head.windows(KEY.len()).any(|part| part == KEY).then_some(Demuxer::Mxf)
}

/// Length of an `ID3v2` tag with its header, where there is one.
fn id3_length(head: &[u8]) -> Option<u64> {
    let [b'I', b'D', b'3', _, _, flags, a, b, c, d, ..] = *head else {
        return None;
    };
    let size = [a, b, c, d].into_iter().fold(0_u64, |sum, byte| sum << 7 | u64::from(byte & 0x7F));
    let footer = if flags & 0x10 == 0 { 0 } else { 10 };
    Some(10 + size + footer)
}

#[cfg(test)]
mod tests;

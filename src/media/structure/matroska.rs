//! Matroska and `WebM` (RFC 9559): the segment is all there; encryption is refused.

use super::reader::Reader;
use super::{Completeness, Facts, corrupt, encrypted, truncated};
use crate::domain::Failure;

const SEGMENT: u32 = 0x1853_8067;
const CLUSTER: u32 = 0x1F43_B675;
const INFO: u32 = 0x1549_A966;
const TIMESTAMP_SCALE: u32 = 0x2A_D7B1;
const DURATION: u32 = 0x4489;
const TRACKS: u32 = 0x1654_AE6B;
const TRACK_ENTRY: u32 = 0xAE;
const CONTENT_ENCODINGS: u32 = 0x6D80;
const CONTENT_ENCODING: u32 = 0x6240;
const CONTENT_ENCRYPTION: u32 = 0x5035;

/// An element. `end` is `None` for "unknown size", which live recordings have.
#[derive(Debug, Clone, Copy)]
struct Element {
    id: u32,
    body: u64,
    end: Option<u64>,
}

pub(super) async fn check(reader: &mut Reader<'_>) -> Result<Facts, Failure> {
    let size = reader.size();
    let Some(header) = element(reader, 0).await? else {
        return Err(corrupt("no EBML header"));
    };
    let mut at = header.end.unwrap_or(header.body);
    let segment = loop {
        reader.step()?;
        match element(reader, at).await? {
            Some(found) if found.id == SEGMENT => break found,
            Some(Element { end: Some(end), .. }) => at = end,
            _ => return Err(truncated("no segment after the header")),
        }
    };
    let end = segment.end.unwrap_or(size);
    if end > size {
        return Err(truncated(format!("the segment ends at byte {end} of {size}")));
    }
    let declared_seconds = children(reader, segment.body, end, segment.end.is_some()).await?;
    let completeness = if segment.end.is_some() { Completeness::Proven } else { Completeness::Undeclared };
    Ok(Facts { completeness, fragmented: false, declared_seconds })
}

/// Reads the header elements. With a known segment size the walk ends at the first cluster; without, it goes on, so that
/// a cluster of known size that is cut is seen.
async fn children(
    reader: &mut Reader<'_>,
    start: u64,
    end: u64,
    known: bool,
) -> Result<Option<f64>, Failure> {
    let (mut at, mut seconds) = (start, None);
    while at < end {
        reader.step()?;
        let Some(child) = element(reader, at).await? else {
            break;
        };
        match child.id {
            INFO => seconds = duration(reader, child, end).await?,
            TRACKS => refuse_encryption(reader, child, end).await?,
            CLUSTER if known => break,
            _ => {}
        }
        let Some(child_end) = child.end else { break };
        if child_end > reader.size() {
            return Err(truncated(format!("an element ends at byte {child_end} of {}", reader.size())));
        }
        at = child_end;
    }
    Ok(seconds)
}

async fn duration(reader: &mut Reader<'_>, info: Element, limit: u64) -> Result<Option<f64>, Failure> {
    let (mut at, end) = (info.body, info.end.unwrap_or(limit).min(limit));
    let (mut scale, mut length) = (1_000_000_u64, None);
    while at < end {
        reader.step()?;
        let Some(child) = element(reader, at).await? else {
            break;
        };
        let Some(child_end) = child.end else { break };
        let bytes = child_end.saturating_sub(child.body);
        match (child.id, bytes) {
            (TIMESTAMP_SCALE, 1..=8) => {
                let raw = reader.up_to(child.body, usize::try_from(bytes).unwrap_or(8)).await?;
                scale = raw.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            }
            (DURATION, 4) => {
                length = reader.array::<4>(child.body).await?.map(f32::from_be_bytes).map(f64::from);
            }
            (DURATION, 8) => length = reader.array::<8>(child.body).await?.map(f64::from_be_bytes),
            _ => {}
        }
        at = child_end;
    }
    #[expect(clippy::cast_precision_loss, reason = "a declared duration is an estimate")]
    let seconds = length.map(|ticks| ticks * scale as f64 / 1e9);
    Ok(seconds.filter(|s| s.is_finite() && *s > 0.0))
}

async fn refuse_encryption(reader: &mut Reader<'_>, tracks: Element, limit: u64) -> Result<(), Failure> {
    // A path of nested elements, walked without recursion: each level is a range still to look at.
    let mut ranges = vec![(tracks.body, tracks.end.unwrap_or(limit).min(limit))];
    while let Some((mut at, end)) = ranges.pop() {
        while at < end {
            reader.step()?;
            let Some(child) = element(reader, at).await? else {
                break;
            };
            let Some(child_end) = child.end.filter(|e| *e <= end) else {
                break;
            };
            match child.id {
                CONTENT_ENCRYPTION => return Err(encrypted()),
                TRACK_ENTRY | CONTENT_ENCODINGS | CONTENT_ENCODING => ranges.push((child.body, child_end)),
                _ => {}
            }
            at = child_end;
        }
    }
    Ok(())
}

/// The element at `at`: an id of 1 to 4 bytes, a size of 1 to 8, each telling its length by its leading zeros.
async fn element(reader: &mut Reader<'_>, at: u64) -> Result<Option<Element>, Failure> {
    let head = reader.up_to(at, 12).await?;
    let Some(id_length) = head.first().map(|b| b.leading_zeros() as usize + 1).filter(|n| *n <= 4) else {
        return Ok(None);
    };
    let (Some(id), Some(first)) = (head.get(..id_length), head.get(id_length)) else {
        return Ok(None);
    };
    let id = id.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    let size_length = first.leading_zeros() as usize + 1;
    let Some(raw) = head.get(id_length..id_length + size_length).filter(|_| size_length <= 8) else {
        return Ok(None);
    };
    let unknown = (1_u64 << (7 * size_length)) - 1;
    let size = raw.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)) & unknown;
    let body = at + (id_length + size_length) as u64;
    let end = (size != unknown).then(|| body.saturating_add(size));
    Ok(Some(Element { id, body, end }))
}

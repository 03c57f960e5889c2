//! FLV: whole tags to the end, and the last one as late as the metadata's duration says.

use super::reader::Reader;
use super::{Completeness, Facts, corrupt, truncated};
use crate::domain::Failure;

/// A tag's header (type, size, timestamp, stream) and the size field after its data.
const HEADER: u64 = 11;
const TRAILER: u64 = 4;

pub(super) async fn check(reader: &mut Reader<'_>) -> Result<Facts, Failure> {
    let size = reader.size();
    let Some(first) = reader.u32(5).await?.map(u64::from) else {
        return Err(truncated("cut inside the header"));
    };
    let declared_seconds = duration(reader, first + TRAILER).await?;
    let last_seconds = match last_tag_by_trailer(reader).await? {
        Some(seconds) => seconds,
        None => walk(reader, first + TRAILER).await?,
    };
    // The timestamp is the last frame's start, hence the tolerance of MEDIA-RULES §1.1.
    if let Some(declared) = declared_seconds
        && last_seconds < declared - (declared * 0.01).max(0.5)
    {
        return Err(truncated(format!(
            "the last tag is at {last_seconds:.3} s of {declared:.3} s, {size} bytes"
        )));
    }
    let completeness =
        if declared_seconds.is_some() { Completeness::Proven } else { Completeness::Undeclared };
    Ok(Facts { completeness, fragmented: false, declared_seconds })
}

/// The quick way: the last four bytes lead back to the last tag. `None` when they lead nowhere.
async fn last_tag_by_trailer(reader: &mut Reader<'_>) -> Result<Option<f64>, Failure> {
    let size = reader.size();
    let Some(at) = size.checked_sub(TRAILER) else {
        return Ok(None);
    };
    let length = reader.u32(at).await?.map_or(0, u64::from);
    let Some(tag) = at.checked_sub(length).filter(|_| length >= HEADER) else {
        return Ok(None);
    };
    Ok(self::tag(reader, tag)
        .await?
        .filter(|(bytes, _)| bytes + HEADER == length)
        .map(|(_, seconds)| seconds))
}

/// The slow way: every tag from the first. Returns the last timestamp, seconds.
async fn walk(reader: &mut Reader<'_>, first: u64) -> Result<f64, Failure> {
    let (mut at, size, mut last) = (first, reader.size(), 0.0);
    while at < size {
        reader.step()?;
        let Some((bytes, seconds)) = tag(reader, at).await? else {
            return Err(if size - at < HEADER {
                truncated("cut inside a tag's header")
            } else {
                corrupt("no tag")
            });
        };
        let end = at + HEADER + bytes;
        if end > size {
            return Err(truncated(format!("a tag ends at byte {end} of {size}")));
        }
        last = seconds;
        at = end + TRAILER;
    }
    Ok(last)
}

/// Data bytes and timestamp of the tag at `at`, if there is one.
async fn tag(reader: &mut Reader<'_>, at: u64) -> Result<Option<(u64, f64)>, Failure> {
    let Some([kind, s2, s1, s0, t2, t1, t0, t3, ..]) = reader.array::<11>(at).await? else {
        return Ok(None);
    };
    if !matches!(kind & 0x1F, 8 | 9 | 18) {
        return Ok(None);
    }
    let millis = u32::from_be_bytes([t3, t2, t1, t0]);
    Ok(Some((u64::from(u32::from_be_bytes([0, s2, s1, s0])), f64::from(millis) / 1000.0)))
}

/// `duration` of `onMetaData`, an AMF number: name length, name, type 0, double.
async fn duration(reader: &mut Reader<'_>, first: u64) -> Result<Option<f64>, Failure> {
    const KEY: &[u8] = b"\0\x08duration\0";
    let Some((bytes, _)) = tag(reader, first).await? else {
        return Ok(None);
    };
    let data = reader.up_to(first + HEADER, usize::try_from(bytes).unwrap_or(usize::MAX)).await?;
    let value = data
        .windows(KEY.len())
        .position(|part| part == KEY)
        .and_then(|at| data.get(at + KEY.len()..)?.first_chunk::<8>().copied())
        .map(f64::from_be_bytes);
    Ok(value.filter(|seconds| seconds.is_finite() && *seconds > 0.0))
}

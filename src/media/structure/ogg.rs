//! Ogg (RFC 3533): the last page is whole, and a stream says that it has ended.

use super::reader::Reader;
use super::{Facts, truncated};
use crate::domain::Failure;

/// The largest page: header, 255 segment lengths, 255 segments of 255 bytes.
const PAGE_MAX: u64 = 27 + 255 + 255 * 255;
const END_OF_STREAM: u8 = 4;
const CAPTURE: &[u8] = b"OggS\0";

pub(super) async fn check(reader: &mut Reader<'_>) -> Result<Facts, Failure> {
    let size = reader.size();
    // Two pages back: several streams may end with pages of their own.
    let mut window = size.saturating_sub(PAGE_MAX * 2);
    let (mut ended, mut last_end) = (false, None);
    while let Some(at) = find(reader, window).await? {
        reader.step()?;
        match page(reader, at).await? {
            Some((flags, end)) if end <= size => {
                ended |= flags & END_OF_STREAM != 0;
                last_end = Some(end);
                window = end;
            }
            // Either the last page is cut, or the pattern stood in a packet of a page that began before the window.
            Some((_, end)) if last_end.is_some_and(|last| last == at) => {
                return Err(truncated(format!("a page ends at byte {end} of {size}")));
            }
            _ => window = at + 1,
        }
    }
    if ended { Ok(Facts::PROVEN) } else { Err(truncated("no end-of-stream page")) }
}

/// The next capture pattern from `from` on.
async fn find(reader: &mut Reader<'_>, from: u64) -> Result<Option<u64>, Failure> {
    let mut at = from;
    loop {
        let part = reader.up_to(at, 32 * 1024).await?;
        if let Some(found) = part.windows(CAPTURE.len()).position(|w| w == CAPTURE) {
            return Ok(Some(at + found as u64));
        }
        if part.len() <= CAPTURE.len() {
            return Ok(None);
        }
        at += (part.len() - CAPTURE.len() + 1) as u64;
    }
}

/// Flags and end of the page at `at`.
async fn page(reader: &mut Reader<'_>, at: u64) -> Result<Option<(u8, u64)>, Failure> {
    let Some(header) = reader.array::<27>(at).await? else {
        return Ok(None);
    };
    let segments = usize::from(header[26]);
    let lengths = reader.up_to(at + 27, segments).await?;
    let body: u64 = lengths.iter().map(|l| u64::from(*l)).sum();
    let missing = segments - lengths.len();
    // A cut table of lengths is a cut page.
    Ok(Some((header[5], at + 27 + (lengths.len() + missing) as u64 + body + u64::from(missing > 0))))
}

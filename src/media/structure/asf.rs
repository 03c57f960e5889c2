//! ASF: its top-level objects are all there.

use super::reader::Reader;
use super::{Facts, truncated};
use crate::domain::Failure;

pub(super) async fn check(reader: &mut Reader<'_>) -> Result<Facts, Failure> {
    let (mut at, size, mut known) = (0, reader.size(), true);
    // Each object: a GUID of 16 bytes and a size of 8 that counts both.
    while let Some(header) = reader.array::<24>(at).await? {
        reader.step()?;
        let length = header.last_chunk::<8>().map_or(0, |raw| u64::from_le_bytes(*raw));
        if length < 24 {
            // Broadcasts leave the data object's size empty.
            known = false;
            break;
        }
        let end = at.saturating_add(length);
        if end > size {
            return Err(truncated(format!("an object ends at byte {end} of {size}")));
        }
        at = end;
    }
    Ok(if known { Facts::PROVEN } else { Facts::UNDECLARED })
}

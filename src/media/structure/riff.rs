//! RIFF: AVI (with `OpenDML`'s further chunks) and WAVE (with RF64's 64-bit sizes).

use super::reader::Reader;
use super::{Facts, corrupt, truncated};
use crate::domain::Failure;

/// Writers that could not seek back leave these in size fields.
const UNKNOWN: [u32; 2] = [0, u32::MAX];

pub(super) async fn check(reader: &mut Reader<'_>) -> Result<Facts, Failure> {
    let (mut at, size, mut known) = (0, reader.size(), true);
    while let Some([id @ .., a, b, c, d]) = reader.array::<8>(at).await? {
        reader.step()?;
        let length = u32::from_le_bytes([a, b, c, d]);
        let end = match &id[..] {
            b"RF64" => match wide_length(reader, at).await? {
                Some(length) => at.saturating_add(8).saturating_add(length),
                None => return Err(corrupt("RF64 without its ds64 chunk")),
            },
            b"RIFF" if UNKNOWN.contains(&length) => {
                known = false;
                break;
            }
            b"RIFF" => at + 8 + u64::from(length),
            // Bytes after the last RIFF are nobody's.
            _ => break,
        };
        // A writer may count the padding byte of an odd chunk and not write it.
        if end > size + 1 {
            return Err(truncated(format!("a RIFF chunk ends at byte {end} of {size}")));
        }
        at = end + (end & 1);
    }
    Ok(if known { Facts::PROVEN } else { Facts::UNDECLARED })
}

/// RF64 (EBU 3306): the real RIFF size is the first field of `ds64`, which comes first.
async fn wide_length(reader: &mut Reader<'_>, at: u64) -> Result<Option<u64>, Failure> {
    if reader.array::<4>(at + 12).await? != Some(*b"ds64") {
        return Ok(None);
    }
    Ok(reader.array(at + 20).await?.map(u64::from_le_bytes))
}

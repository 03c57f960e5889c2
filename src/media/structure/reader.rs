//! Small reads through one window, so that walks of many small tables cost few requests.

use bytes::Bytes;

use super::{MAX_STEPS, RandomRead, corrupt};
use crate::domain::{Code, Failure};

/// Bytes per request; a quarter of the source gateway's block (GATEWAY §5).
const WINDOW: usize = 64 * 1024;

/// A source with a window and a step count.
pub(super) struct Reader<'a> {
    source: &'a dyn RandomRead,
    window: Bytes,
    start: u64,
    steps: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a dyn RandomRead) -> Self {
        Self { source, window: Bytes::new(), start: 0, steps: 0 }
    }

    /// A second window on the same source, for tables that are read side by side.
    pub(super) fn beside(&self) -> Self {
        Self::new(self.source)
    }

    /// Bytes in all.
    pub(super) fn size(&self) -> u64 {
        self.source.size()
    }

    /// Up to `len` (at most 64 KiB) bytes at `offset`; fewer only at the end of the source.
    pub(super) async fn up_to(&mut self, offset: u64, len: usize) -> Result<Bytes, Failure> {
        let len = len.min(WINDOW);
        let left = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = len.min(left);
        if let Some(at) = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok())
            && let Some(end) = at.checked_add(wanted)
            && end <= self.window.len()
        {
            return Ok(self.window.slice(at..end));
        }
        self.window = self.source.read_at(offset, WINDOW).await.map_err(|error| {
            Failure::new(Code::SourceUnreachable, "The source could not be read.")
                .with_detail(error.to_string())
        })?;
        self.start = offset;
        Ok(self.window.slice(..wanted.min(self.window.len())))
    }

    /// Exactly `N` bytes, or `None` when the source ends before.
    pub(super) async fn array<const N: usize>(&mut self, offset: u64) -> Result<Option<[u8; N]>, Failure> {
        Ok(self.up_to(offset, N).await?.first_chunk::<N>().copied())
    }

    /// Big-endian 32 bits.
    pub(super) async fn u32(&mut self, offset: u64) -> Result<Option<u32>, Failure> {
        Ok(self.array(offset).await?.map(u32::from_be_bytes))
    }

    /// Big-endian 64 bits.
    pub(super) async fn u64(&mut self, offset: u64) -> Result<Option<u64>, Failure> {
        Ok(self.array(offset).await?.map(u64::from_be_bytes))
    }

    /// Counts a step of a walk over declared structures, so that no file can keep us busy.
    pub(super) fn step(&mut self) -> Result<(), Failure> {
        self.steps += 1;
        if self.steps > MAX_STEPS { Err(corrupt("too many parts")) } else { Ok(()) }
    }
}

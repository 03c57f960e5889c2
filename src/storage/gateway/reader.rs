//! Reads a source in order from some byte on, waiting for blocks that are not here yet.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::BLOCK;
use super::fetcher::{Fill, Shared};
use super::schedule::{Reading, Want};
use crate::domain::Failure;

/// Bytes handed over at a time. With one being sent and one being read, a reader holds two.
const CHUNK: u64 = 128 * 1024;

/// One reader. It counts as wanting what lies ahead of it until it is dropped.
pub(super) struct Reader {
    shared: Arc<Shared>,
    id: u64,
    range: Range<u64>,
    /// Bytes read in order so far: how much this reader has shown to go straight on.
    run: u64,
    ahead: Ahead,
}

/// What is fetched beyond the next byte.
#[derive(Debug, Clone, Copy)]
enum Ahead {
    /// A window that grows with the run.
    Growing,
    /// The reader's range and no more.
    Exact,
}

impl Reader {
    /// For ffmpeg, which says where it begins but not where it will stop.
    pub(super) fn ahead(shared: Arc<Shared>, range: Range<u64>) -> Self {
        Self::new(shared, range, Ahead::Growing)
    }

    /// For ourselves: nothing beyond the range is fetched for it.
    pub(super) fn exact(shared: Arc<Shared>, range: Range<u64>) -> Self {
        Self::new(shared, range, Ahead::Exact)
    }

    fn new(shared: Arc<Shared>, range: Range<u64>, ahead: Ahead) -> Self {
        let want = Want { at: range.start / BLOCK, window: 0, state: Reading::Served };
        let id = shared.enter(want);
        Self { shared, id, range, run: 0, ahead }
    }

    /// The next bytes; none at the end of the range.
    ///
    /// # Errors
    /// The source's failure. Bytes that are here are not given any more once it failed.
    pub(super) async fn next(&mut self) -> Result<Bytes, Failure> {
        let (at, end) = (self.range.start, self.range.end);
        if at >= end {
            return Ok(Bytes::new());
        }
        let block = at / BLOCK;
        // Up to the next chunk's boundary, so that later reads are aligned to blocks.
        let stop = ((at / CHUNK + 1) * CHUNK).min(end).min(self.shared.spool.block_end(block));
        let len = usize::try_from(stop - at).unwrap_or(0);
        let bytes = loop {
            self.arrive(block).await?;
            let read = self.shared.spool.get(at, len).await;
            // It may have made room for another since it arrived: then it is waited for again.
            if let Some(bytes) = read.inspect_err(|failure| self.shared.fail(failure.clone()))? {
                break bytes;
            }
        };
        self.range.start = stop;
        self.run += stop - at;
        self.shared.count_served(stop - at);
        if self.run >= self.shared.limits.read_ahead.1 {
            self.shared.want_all(Fill::WhenFree);
        }
        Ok(bytes)
    }

    /// Waits until a block is here.
    async fn arrive(&self, block: u64) -> Result<(), Failure> {
        let mut arrivals = self.shared.spool.arrivals();
        loop {
            arrivals.borrow_and_update();
            if let Some(failure) = self.shared.failure() {
                return Err(failure);
            }
            if self.shared.spool.has(block) {
                self.shared.want(self.id, self.want(block, Reading::Served));
                return Ok(());
            }
            self.shared.want(self.id, self.want(block, Reading::Waiting));
            tokio::select! {
                _ = arrivals.changed() => {}
                failure = self.shared.failed() => return Err(failure),
            }
        }
    }

    fn want(&self, at: u64, state: Reading) -> Want {
        let (least, most) = self.shared.limits.read_ahead;
        let to_end = self.range.end.div_ceil(BLOCK) - at;
        let window = match self.ahead {
            Ahead::Growing => (least.saturating_add(self.run).min(most) / BLOCK).max(1).min(to_end),
            Ahead::Exact => to_end,
        };
        Want { at, window, state }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.leave(self.id);
    }
}

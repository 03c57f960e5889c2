//! One range from an origin into the spool: pacing, retries, and a resume from the very byte that was reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fetcher::Shared;
use super::{BLOCK, FetchLimits};
use crate::domain::Failure;
use crate::storage::origin::{ByteStream, Extent, OriginError};

/// A body read under the stall limit and the minimum rate.
pub(super) struct Feed {
    body: ByteStream,
    stall: Duration,
    window: Duration,
    /// Bytes that one window brings at least.
    least: u64,
    since: Instant,
    bytes: u64,
}

impl Feed {
    pub(super) fn new(body: ByteStream, limits: &FetchLimits) -> Self {
        let window = limits.rate_window;
        let least =
            u64::try_from(u128::from(limits.min_rate) * window.as_millis() / 1000).unwrap_or(u64::MAX);
        Self { body, stall: limits.stall_timeout, window, least, since: Instant::now(), bytes: 0 }
    }

    /// The next bytes, or `None` at the body's end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        let Ok(next) = tokio::time::timeout(self.stall, self.body.next()).await else {
            return Err(OriginError::transient("its server stopped sending", "stall limit"));
        };
        let Some(chunk) = next.transpose()? else {
            return Ok(None);
        };
        self.bytes += chunk.len() as u64;
        if self.since.elapsed() >= self.window {
            if self.bytes < self.least {
                return Err(OriginError::transient("its server sends too slowly", "minimum rate"));
            }
            self.since = Instant::now();
            self.bytes = 0;
        }
        Ok(Some(chunk))
    }
}

/// Counts tries and says how long to pause before the next.
pub(super) struct Tries {
    left: u32,
    made: u32,
    retries: u32,
    backoff: (Duration, Duration),
}

impl Tries {
    pub(super) fn new(limits: &FetchLimits) -> Self {
        Self { left: limits.retries, made: 1, retries: limits.retries, backoff: limits.backoff }
    }

    /// The pause before another try; `None` when there is to be none.
    pub(super) fn pause(&mut self, error: &OriginError) -> Option<Duration> {
        let OriginError::Transient { after, .. } = error else {
            return None;
        };
        self.left = self.left.checked_sub(1)?;
        let doubled = self.backoff.0.saturating_mul(1 << (self.made - 1).min(16));
        self.made += 1;
        Some(doubled.max(after.unwrap_or_default()).min(self.backoff.1))
    }

    /// Something arrived: all tries are there again.
    pub(super) fn reset(&mut self) {
        self.left = self.retries;
        self.made = 1;
    }

    pub(super) const fn made(&self) -> u32 {
        self.made
    }
}

/// How a fetch ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// All its blocks are here, or it was shortened.
    Done,
    /// Given up because nobody wanted it.
    Cancelled,
    /// The source is lost.
    Refused(Failure),
    /// No try is left; the source is lost if anybody needs these blocks.
    Exhausted(Failure),
}

/// Where a fetch is, shared with whoever schedules it. In blocks.
#[derive(Debug)]
pub(super) struct Track {
    /// The first block, and when it was asked for.
    pub(super) from: (u64, Instant),
    /// Next block to arrive.
    pub(super) at: AtomicU64,
    /// One after the last; may be lowered.
    pub(super) end: AtomicU64,
    pub(super) cancel: CancellationToken,
}

/// One fetch.
pub(super) struct Fetch {
    pub(super) shared: Arc<Shared>,
    pub(super) track: Arc<Track>,
    /// What [`crate::storage::origin::Origin::open`] began to send, for the first fetch.
    pub(super) body: Option<ByteStream>,
    /// How the origin answers.
    pub(super) extent: Extent,
    /// The bytes of the next block that came so far.
    pub(super) block: Vec<u8>,
}

/// Bytes of one connection that count as progress although no block is whole yet. Origins that give crumbs are given up.
const PROGRESS: u64 = 16 * 1024;

enum Stop {
    Error(OriginError),
    Cancelled,
}

impl From<OriginError> for Stop {
    fn from(error: OriginError) -> Self {
        Self::Error(error)
    }
}

impl Fetch {
    /// Runs to its end. What arrived of an unfinished block is kept for whoever goes on there.
    pub(super) async fn run(mut self) -> Outcome {
        if let Some(kept) = self.shared.take_partial(self.next_block()) {
            self.block = kept;
        }
        let outcome = self.with_retries().await;
        if !self.block.is_empty() && self.extent != Extent::Whole {
            self.shared.keep_partial(self.next_block(), std::mem::take(&mut self.block));
        }
        outcome
    }

    async fn with_retries(&mut self) -> Outcome {
        let mut tries = Tries::new(&self.shared.limits);
        loop {
            let before = (self.shared.spool.arrived(), self.position());
            let error = match self.once().await {
                Ok(()) => return Outcome::Done,
                Err(Stop::Cancelled) => return Outcome::Cancelled,
                Err(Stop::Error(OriginError::Refused(failure))) => return Outcome::Refused(failure),
                Err(Stop::Error(error)) => error,
            };
            // A block may take several connections that each break off: a good part of one is progress too.
            if self.shared.spool.arrived() > before.0 || self.position() >= before.1 + PROGRESS {
                tries.reset();
            }
            let Some(pause) = tries.pause(&error) else {
                return Outcome::Exhausted(error.exhausted(tries.made()));
            };
            tracing::debug!(?error, ?pause, "fetching a range again");
            tokio::select! {
                () = self.track.cancel.cancelled() => return Outcome::Cancelled,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn once(&mut self) -> Result<(), Stop> {
        let shared = Arc::clone(&self.shared);
        let cancel = self.track.cancel.clone();
        let body = if let Some(body) = self.body.take() {
            body
        } else {
            tokio::select! {
                () = cancel.cancelled() => return Err(Stop::Cancelled),
                body = self.ask() => body?,
            }
        };
        let mut feed = Feed::new(body, &shared.limits);
        while !self.is_done() {
            let chunk = tokio::select! {
                () = cancel.cancelled() => return Err(Stop::Cancelled),
                chunk = feed.next() => chunk?,
            };
            let Some(chunk) = chunk else {
                return Err(OriginError::transient("the connection broke off", "the body ended early").into());
            };
            shared.count_fetched(chunk.len() as u64);
            self.take(chunk).await?;
        }
        self.expect_end(feed).await
    }

    /// A whole body that goes on after the size it declared is not the file it said it was.
    async fn expect_end(&mut self, mut feed: Feed) -> Result<(), Stop> {
        if self.extent == Extent::Whole && matches!(feed.next().await, Ok(Some(_))) {
            return Err(OriginError::changed("more bytes than declared").into());
        }
        Ok(())
    }

    async fn ask(&mut self) -> Result<ByteStream, OriginError> {
        let shared = &self.shared;
        if self.extent == Extent::Whole {
            // No ranges: from the start again. What is here already is compared, not trusted.
            self.track.at.store(0, Ordering::Relaxed);
            self.block.clear();
            let again = shared.origin.open(BLOCK).await?;
            if again.extent != Extent::Whole || !shared.pin.agrees(&again.pin) {
                return Err(OriginError::changed("another answer after a restart"));
            }
            return Ok(again.body);
        }
        let from = self.next_block() * BLOCK + self.block.len() as u64;
        let to = shared.spool.block_end(self.track.end.load(Ordering::Relaxed).saturating_sub(1));
        shared.origin.range(&shared.pin, from..to).await
    }

    /// Sorts bytes into blocks; each goes to the spool as soon as it is complete.
    async fn take(&mut self, mut chunk: Bytes) -> Result<(), OriginError> {
        while !chunk.is_empty() {
            if self.is_done() {
                let shortened =
                    self.track.end.load(Ordering::Relaxed) < self.shared.spool.table().here.count();
                return if shortened {
                    Ok(())
                } else {
                    Err(OriginError::changed("more bytes than declared"))
                };
            }
            let number = self.next_block();
            let size = self.shared.spool.block_end(number) - number * BLOCK;
            let wanted = usize::try_from(size).unwrap_or(usize::MAX).saturating_sub(self.block.len());
            self.block.extend_from_slice(&chunk.split_to(wanted.min(chunk.len())));
            if self.block.len() as u64 == size {
                self.store(number).await?;
            }
        }
        Ok(())
    }

    async fn store(&mut self, number: u64) -> Result<(), OriginError> {
        let block =
            std::mem::replace(&mut self.block, Vec::with_capacity(usize::try_from(BLOCK).unwrap_or(0)));
        let spool = &self.shared.spool;
        match spool.get(number * BLOCK, block.len()).await.map_err(OriginError::Refused)? {
            Some(known) if known != block => {
                return Err(OriginError::changed("other bytes after a restart"));
            }
            Some(_) => {}
            None => {
                let wants = self.shared.wants();
                let keep = |block| wants.iter().any(|want| want.covers(block));
                spool.put(number, block, keep).await.map_err(OriginError::Refused)?;
            }
        }
        self.track.at.store(number + 1, Ordering::Relaxed);
        Ok(())
    }

    /// How far this fetch came for good. An origin without ranges begins anew, so that what it sent counts for nothing.
    fn position(&self) -> u64 {
        match self.extent {
            Extent::Whole => 0,
            Extent::Range(_) => self.next_block() * BLOCK + self.block.len() as u64,
        }
    }

    fn next_block(&self) -> u64 {
        self.track.at.load(Ordering::Relaxed)
    }

    fn is_done(&self) -> bool {
        self.next_block() >= self.track.end.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Code;

    #[test]
    fn pauses_double_up_to_the_longest_and_tries_come_back() {
        let mut tries = Tries::new(&FetchLimits::default());
        let error = OriginError::transient("x", "");
        let pauses: Vec<_> = std::iter::from_fn(|| tries.pause(&error)).map(|p| p.as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200]);
        assert_eq!(tries.made(), 6);
        tries.reset();
        let busy =
            OriginError::Transient { what: String::new(), detail: String::new(), after: Some(Duration::MAX) };
        assert_eq!(tries.pause(&busy), Some(Duration::from_secs(5)));
        assert_eq!(tries.pause(&OriginError::refused(Code::SourceNotFound, "gone")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_found_although_it_never_stalls() {
        let trickle = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok(Bytes::from_static(b"x")), ()))
        });
        let mut feed = Feed::new(trickle.boxed(), &FetchLimits::default());
        let start = Instant::now();
        let error = loop {
            if let Err(error) = feed.next().await {
                break error;
            }
        };
        assert!(matches!(error, OriginError::Transient { what, .. } if what.contains("too slowly")));
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_cut_off() {
        let mut feed = Feed::new(futures_util::stream::pending().boxed(), &FetchLimits::default());
        assert!(matches!(feed.next().await, Err(OriginError::Transient { .. })));
    }
}

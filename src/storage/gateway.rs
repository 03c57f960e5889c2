//! The source gateway: an untrusted remote source as a local, seekable file.
//!
//! One fetcher per source writes one sparse spool file in the task's work folder, which is the block cache. While
//! blocks are missing, ffmpeg reads a loopback URL; once all are present it gets the file, and needs no network at
//! all. A block becomes readable only when all its bytes came under the pinned validator.
//!
//! A source that is larger than [`FetchLimits::cache`] is never whole here: the blocks that were read longest ago make
//! room for those that come, and are fetched again, under the same validator, when they are read again. Where an origin
//! has no ranges nothing can be fetched again, so that its sources are kept whole whatever their size.
//!
//! ffmpeg's exit code says nothing about its input: of 12 sources that broke off, all 12 gave exit 0 and a short
//! output when the gateway closed the connection. So the gateway never ends an answer early, never fills in zeros and
//! never answers with an error of its own: on a definite failure it keeps the connection open, sets the verdict and
//! wakes the worker, which kills ffmpeg. Afterwards the worker asks for the verdict before it believes anything.
//!
//! What no transport can find out: a source that was cut short before it was published.

mod blocks;
mod fetch;
mod fetcher;
mod reader;
mod schedule;
mod server;
mod slots;
mod spool;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use self::fetch::{Feed, Tries};
use self::fetcher::{Fill, Shared};
use self::reader::Reader;
pub(super) use self::spool::Disk;
use self::spool::{Spool, SpoolFile};
use super::origin::{Extent, Opened, Origin, OriginError, empty};
use crate::domain::{Code, Failure, IdSource};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// Unit of presence. 256 KiB brought the first frame of an mp4 with its index at the end from 1.83 to 1.22 s against
/// 1 MiB, and cut what a seek wastes from 0.66 to 0.03 MB.
const BLOCK: u64 = 256 * KIB;
/// Steps in which room is taken for a source of unknown size.
const GROWTH: u64 = 64 * MIB;

/// Bounds on talking to an origin. The defaults are the measured ones; tests make them small instead of waiting.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// Until the header of an answer is there, from sending the request.
    pub header_timeout: Duration,
    /// Longest silence inside a body.
    pub stall_timeout: Duration,
    /// Bytes per second at least, over `rate_window`: one byte a second defeats every idle timeout.
    pub min_rate: u64,
    /// What `min_rate` is measured over.
    pub rate_window: Duration,
    /// Tries after the first, until a new block arrives.
    pub retries: u32,
    /// First and longest pause before another try; it doubles in between.
    pub backoff: (Duration, Duration),
    /// Sources up to this size are fetched whole before they are used, bytes.
    pub spool_first: u64,
    /// So are those that will be whole this soon after opening.
    pub spool_first_within: Duration,
    /// Read-ahead right after a seek and at most, bytes.
    pub read_ahead: (u64, u64),
    /// Free space that a source leaves on the disk, bytes.
    pub disk_margin: u64,
    /// What the cache of one source takes of the disk at most, bytes. Twice the longest read-ahead keeps readers from
    /// taking blocks away from each other.
    pub cache: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(15),
            min_rate: 10 * KIB,
            rate_window: Duration::from_secs(30),
            retries: 5,
            backoff: (Duration::from_millis(200), Duration::from_secs(5)),
            spool_first: 8 * MIB,
            spool_first_within: Duration::from_secs(2),
            read_ahead: (4 * MIB, 32 * MIB),
            disk_margin: 256 * MIB,
            cache: 16 * 1024 * MIB,
        }
    }
}

/// Where a source's spool goes and what it may take.
pub(super) struct Place<'a> {
    /// The task's work folder.
    pub(super) work: &'a Path,
    /// Room on its disk.
    pub(super) disk: &'a Arc<Disk>,
    /// Bytes of a source at most.
    pub(super) max_bytes: u64,
    /// For the spool's name and the URL's token.
    pub(super) ids: &'a dyn IdSource,
}

/// What was moved for one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes taken from the origin.
    pub fetched: u64,
    /// Bytes given to readers.
    pub served: u64,
    /// Bytes of the source that are here.
    pub present: u64,
}

/// An open remote source. Dropping it cancels its fetches, closes its listener and removes its spool.
pub(super) struct Remote {
    shared: Arc<Shared>,
    /// Absent when the source was whole before anybody could want the URL.
    url: Option<String>,
    tasks: JoinSet<()>,
}

impl Drop for Remote {
    fn drop(&mut self) {
        // The tasks end a moment later and hold the spool until then; its name goes now.
        self.shared.spool.remove();
    }
}

impl Remote {
    /// Contacts the origin, pins the source, takes room for it and begins to fetch.
    pub(super) async fn open(
        origin: Arc<dyn Origin>,
        limits: FetchLimits,
        place: Place<'_>,
    ) -> Result<Self, Failure> {
        let opened = contact(&*origin, &limits).await?;
        let mut tasks = JoinSet::new();
        let Some(size) = opened.pin.size else {
            let spool = spool_unknown(&*origin, opened, &limits, &place).await?;
            let shared = Arc::new(Shared::new(spool, origin, super::origin::Pin::default(), limits));
            return Ok(Self { shared, url: None, tasks });
        };
        if size == 0 {
            return Err(empty());
        }
        if size > place.max_bytes {
            return Err(too_large(place.max_bytes));
        }
        let most = if opened.extent == Extent::Whole { size } else { size.min(limits.cache) };
        let room = place.disk.reserve(place.work, most)?;
        let file = SpoolFile::create(place.work, place.ids)?;
        let spool = if most < size {
            Spool::bounded(file, size, most, room)
        } else {
            Spool::sparse(file, size, room)?
        };
        let shared = Arc::new(Shared::new(spool, origin, opened.pin, limits));
        tasks.spawn(fetcher::drive(Arc::clone(&shared), opened.extent, opened.body));
        // From here on dropping it cleans up, also when this future is dropped.
        let mut remote = Self { shared, url: None, tasks };
        spool_first(&remote.shared).await?;
        if !remote.shared.spool.is_whole() {
            let server = server::Server::bind(Arc::clone(&remote.shared), place.ids).await?;
            remote.url = Some(server.url().to_owned());
            remote.tasks.spawn(server.run());
        }
        Ok(remote)
    }

    /// Bytes in all.
    pub(super) fn size(&self) -> u64 {
        self.shared.spool.size()
    }

    /// Bytes of it that are on the disk at most.
    pub(super) fn cached_at_most(&self) -> u64 {
        self.shared.spool.bound().map_or(self.size(), |blocks| blocks * BLOCK)
    }

    /// The spool file once it is whole.
    pub(super) fn file(&self) -> Option<PathBuf> {
        self.shared.spool.is_whole().then(|| self.shared.spool.path().to_owned())
    }

    /// The loopback URL; absent when the source was whole at opening.
    pub(super) fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Fetches what is missing as soon as no reader wants anything else, where there is room for all of it.
    pub(super) fn fill_to_end(&self) {
        self.shared.want_all(Fill::WhenFree);
    }

    /// Waits until the source is whole; `disk_full` where its cache has no room for that.
    pub(super) async fn whole(&self) -> Result<(), Failure> {
        if self.shared.spool.bound().is_some() {
            return Err(Failure::new(Code::DiskFull, "The source is larger than the cache for it may be."));
        }
        self.shared.want_all(Fill::Required);
        self.shared.whole().await
    }

    pub(super) async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, Failure> {
        let size = self.size();
        let end = offset.saturating_add(len as u64).min(size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let mut reader = Reader::exact(Arc::clone(&self.shared), offset..end);
        let mut out = reader.next().await?;
        if (out.len() as u64) < end - offset {
            let mut all = Vec::with_capacity(len.min(usize::try_from(end - offset).unwrap_or(len)));
            all.extend_from_slice(&out);
            loop {
                let more = reader.next().await?;
                if more.is_empty() {
                    break;
                }
                all.extend_from_slice(&more);
            }
            out = all.into();
        }
        Ok(out)
    }

    /// Resolves on a definite failure, and never otherwise.
    pub(super) async fn failed(&self) -> Failure {
        self.shared.failed().await
    }

    /// The failure, if there is one.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.shared.failure()
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.shared.traffic()
    }
}

pub(super) fn too_large(max: u64) -> Failure {
    Failure::new(
        Code::SourceTooLarge,
        format!("The source is larger than the {max} bytes this server takes."),
    )
}

/// Opens the origin, with as many tries as a range gets.
async fn contact(origin: &dyn Origin, limits: &FetchLimits) -> Result<Opened, Failure> {
    let mut tries = Tries::new(limits);
    loop {
        let error = match origin.open(BLOCK).await {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        match tries.pause(&error) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(error.exhausted(tries.made())),
        }
    }
}

/// Waits for the whole source where that is cheap: it is small, or will be here in a moment.
async fn spool_first(shared: &Shared) -> Result<(), Failure> {
    let limits = &shared.limits;
    let within = limits.spool_first_within;
    if shared.spool.bound().is_some() {
        return Ok(());
    }
    if shared.spool.size() <= limits.spool_first {
        shared.want_all(Fill::Required);
        return shared.whole().await;
    }
    if within.is_zero() {
        return Ok(());
    }
    shared.want_all(Fill::WhenFree);
    // An eighth of the time shows whether the rest would be enough.
    let sample = within / 8;
    if let Ok(end) = tokio::time::timeout(sample, shared.whole()).await {
        return end;
    }
    if shared.spool.present_bytes().saturating_mul(8) < shared.spool.size() {
        shared.leave_rest();
        return shared.failure().map_or(Ok(()), Err);
    }
    if let Ok(end) = tokio::time::timeout(within.saturating_sub(sample), shared.whole()).await {
        return end;
    }
    shared.leave_rest();
    Ok(())
}

/// Fetches a source that does not say how large it is, from the start, whole, before anything else happens.
async fn spool_unknown(
    origin: &dyn Origin,
    opened: Opened,
    limits: &FetchLimits,
    place: &Place<'_>,
) -> Result<Spool, Failure> {
    let mut tries = Tries::new(limits);
    let Opened { pin, body, .. } = opened;
    let mut body = Some(body);
    let mut furthest = 0_u64;
    loop {
        let file = SpoolFile::create(place.work, place.ids)?;
        let error = match once_through(origin, body.take(), &pin, &file, limits, place).await {
            Ok((0, _)) => return Err(empty()),
            Ok((size, room)) => return Ok(Spool::complete(file, size, room)),
            Err((error, reached)) => {
                if reached / BLOCK > furthest / BLOCK {
                    tries.reset();
                }
                furthest = furthest.max(reached);
                error
            }
        };
        match tries.pause(&error) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(error.exhausted(tries.made())),
        }
    }
}

async fn once_through(
    origin: &dyn Origin,
    body: Option<super::origin::ByteStream>,
    pin: &super::origin::Pin,
    file: &SpoolFile,
    limits: &FetchLimits,
    place: &Place<'_>,
) -> Result<(u64, spool::Reservation), (OriginError, u64)> {
    let body = if let Some(body) = body {
        body
    } else {
        let again = origin.open(BLOCK).await.map_err(|e| (e, 0))?;
        if again.extent != Extent::Whole || !pin.agrees(&again.pin) {
            return Err((OriginError::changed("another answer after a restart"), 0));
        }
        again.body
    };
    let mut feed = Feed::new(body, limits);
    let refuse = |failure| OriginError::Refused(failure);
    let room = place.disk.reserve(place.work, 0).map_err(|f| (refuse(f), 0))?;
    let mut at = 0_u64;
    loop {
        let Some(chunk) = feed.next().await.map_err(|e| (e, at))? else {
            room.written(room.left());
            return Ok((at, room));
        };
        let end = at + chunk.len() as u64;
        if end > place.max_bytes {
            return Err((refuse(too_large(place.max_bytes)), at));
        }
        if (chunk.len() as u64) > room.left() {
            room.extend(place.work, GROWTH.max(chunk.len() as u64)).map_err(|f| (refuse(f), at))?;
        }
        room.written(chunk.len() as u64);
        file.write(at, chunk.into()).await.map_err(|f| (refuse(f), at))?;
        at = end;
    }
}

#[cfg(test)]
mod tests;

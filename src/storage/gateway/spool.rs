//! The sparse file that a source is fetched into, and the room it takes on the disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::BLOCK;
use super::blocks::Blocks;
use super::slots::{Slots, Was};
use crate::domain::{Code, Failure, IdSource};

/// Room on a disk that several sources of this process share.
#[derive(Debug)]
pub(in crate::storage) struct Disk {
    /// Bytes promised to sources and not yet written, which the file system still counts as free.
    promised: Mutex<u64>,
    /// Bytes that stay free.
    margin: u64,
}

/// Room promised to one source; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    disk: Arc<Disk>,
    left: AtomicU64,
}

impl Disk {
    /// A disk on which `margin` bytes stay free.
    #[must_use]
    pub(in crate::storage) fn new(margin: u64) -> Arc<Self> {
        Arc::new(Self { promised: Mutex::new(0), margin })
    }

    /// Promises `bytes` on the file system of `dir`.
    ///
    /// # Errors
    /// `disk_full` when they are not free.
    pub(super) fn reserve(self: &Arc<Self>, dir: &Path, bytes: u64) -> Result<Reservation, Failure> {
        let room = Reservation { disk: Arc::clone(self), left: AtomicU64::new(0) };
        room.extend(dir, bytes)?;
        Ok(room)
    }
}

impl Reservation {
    pub(super) fn extend(&self, dir: &Path, bytes: u64) -> Result<(), Failure> {
        let stat = rustix::fs::statvfs(dir).map_err(|error| disk_failure(&error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let mut promised = lock(&self.disk.promised);
        let needed = promised.saturating_add(bytes).saturating_add(self.disk.margin);
        if needed > free {
            let detail =
                format!("{bytes} bytes wanted, {free} free, {promised} promised, {} kept", self.disk.margin);
            return Err(
                Failure::new(Code::DiskFull, "The server has no room for the source.").with_detail(detail)
            );
        }
        *promised += bytes;
        self.left.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Says that so many of the promised bytes are on the disk now.
    pub(super) fn written(&self, bytes: u64) {
        let mut promised = lock(&self.disk.promised);
        let part = bytes.min(self.left.load(Ordering::Relaxed));
        self.left.fetch_sub(part, Ordering::Relaxed);
        *promised = promised.saturating_sub(part);
    }

    pub(super) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.written(self.left());
    }
}

/// A private file in the work folder, removed when dropped.
#[derive(Debug)]
pub(super) struct SpoolFile {
    file: Arc<File>,
    path: PathBuf,
    removed: AtomicBool,
}

impl SpoolFile {
    pub(super) fn create(work: &Path, ids: &dyn IdSource) -> Result<Self, Failure> {
        let path = work.join(format!("source-{}", ids.random().simple()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| disk_failure(&error))?;
        Ok(Self { file: Arc::new(file), path, removed: AtomicBool::new(false) })
    }

    /// A file on a disk that has no room.
    #[cfg(test)]
    pub(super) fn full() -> Self {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        Self { file: Arc::new(full), path: "/none".into(), removed: AtomicBool::new(true) }
    }

    pub(super) async fn write(&self, at: u64, bytes: Vec<u8>) -> Result<(), Failure> {
        let file = Arc::clone(&self.file);
        blocking(move || file.write_all_at(&bytes, at)).await.map_err(|error| disk_failure(&error))
    }

    async fn read(&self, at: u64, len: usize) -> Result<Bytes, Failure> {
        let file = Arc::clone(&self.file);
        let read = blocking(move || {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, at).map(|()| Bytes::from(bytes))
        });
        read.await.map_err(|error| {
            Failure::new(Code::Internal, "The fetched source could not be read back.")
                .with_detail(error.to_string())
        })
    }

    fn remove(&self) {
        if !self.removed.swap(true, Ordering::Relaxed)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::debug!(%error, "the spool file was gone already");
        }
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A source on disk, as far as it is here.
#[derive(Debug)]
pub(super) struct Spool {
    file: SpoolFile,
    size: u64,
    table: Mutex<Table>,
    /// Blocks that arrived so far, also those that are gone again; readers wait for it to change.
    arrived: watch::Sender<u64>,
    room: Reservation,
}

/// Which blocks are here, and where.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) here: Blocks,
    layout: Layout,
}

/// Where a block lies in the file.
#[derive(Debug)]
enum Layout {
    /// Where it lies in the source: the file becomes the source.
    Source,
    /// In whichever slot was free: the file is smaller than the source.
    Slots(Slots),
}

/// A block whose place stays its own while it is being read.
struct Lent<'a> {
    spool: &'a Spool,
    block: u64,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Layout::Slots(slots) = &mut self.spool.table().layout {
            slots.end_read(self.block);
        }
    }
}

impl Spool {
    /// Nothing is here yet; there is room for all of it.
    pub(super) fn sparse(file: SpoolFile, size: u64, room: Reservation) -> Result<Self, Failure> {
        file.file.set_len(size).map_err(|error| disk_failure(&error))?;
        Ok(Self::new(file, size, Layout::Source, room))
    }

    /// Nothing is here yet; there is room for `most` bytes of it at a time.
    pub(super) fn bounded(file: SpoolFile, size: u64, most: u64, room: Reservation) -> Self {
        Self::new(file, size, Layout::Slots(Slots::new(most / BLOCK)), room)
    }

    /// All is here.
    pub(super) fn complete(file: SpoolFile, size: u64, room: Reservation) -> Self {
        let spool = Self::new(file, size, Layout::Source, room);
        for block in 0..size.div_ceil(BLOCK) {
            spool.table().here.set(block);
        }
        spool
    }

    fn new(file: SpoolFile, size: u64, layout: Layout, room: Reservation) -> Self {
        let table = Mutex::new(Table { here: Blocks::missing(size.div_ceil(BLOCK)), layout });
        Self { file, size, table, arrived: watch::Sender::new(0), room }
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    pub(super) fn has(&self, block: u64) -> bool {
        self.table().here.has(block)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.table().here.is_whole()
    }

    /// Blocks that are here at most; `None` = all of them.
    pub(super) fn bound(&self) -> Option<u64> {
        match &self.table().layout {
            Layout::Source => None,
            Layout::Slots(slots) => Some(slots.count()),
        }
    }

    pub(super) fn present_bytes(&self) -> u64 {
        self.table().here.present().saturating_mul(BLOCK).min(self.size)
    }

    /// Blocks that arrived so far; never goes back.
    pub(super) fn arrived(&self) -> u64 {
        *self.arrived.borrow()
    }

    /// Told whenever a block arrives.
    pub(super) fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrived.subscribe()
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// One after the last byte of a block.
    pub(super) fn block_end(&self, block: u64) -> u64 {
        (block + 1).saturating_mul(BLOCK).min(self.size)
    }

    /// Writes a whole block and makes it readable. Where there is no room for another, the one that was read longest ago
    /// goes, rather one that is not to be kept.
    pub(super) async fn put(
        &self,
        block: u64,
        bytes: Vec<u8>,
        keep: impl Fn(u64) -> bool,
    ) -> Result<(), Failure> {
        let len = bytes.len() as u64;
        debug_assert_eq!(len, self.block_end(block) - block * BLOCK);
        let Some(place) = self.place(block, keep) else {
            // Every block is being read at this moment. Whoever waits for this one has it fetched again.
            return Ok(());
        };
        self.file.write(place * BLOCK, bytes).await?;
        let new = {
            let Table { here, layout } = &mut *self.table();
            let new = here.set(block);
            match layout {
                Layout::Slots(slots) => slots.fill(place, block),
                Layout::Source if new => self.room.written(len),
                Layout::Source => {}
            }
            new
        };
        if new {
            self.arrived.send_modify(|arrived| *arrived += 1);
        }
        Ok(())
    }

    /// Where to write a block, in blocks from the file's start.
    fn place(&self, block: u64, keep: impl Fn(u64) -> bool) -> Option<u64> {
        let Table { here, layout } = &mut *self.table();
        let Layout::Slots(slots) = layout else { return Some(block) };
        let taken = slots.take(keep)?;
        match taken.was {
            Was::New => self.room.written(BLOCK),
            Was::Empty => {}
            Was::Block(old) => here.clear(old),
        }
        Some(taken.slot)
    }

    /// Bytes of one block; none where it is not here (any more).
    pub(super) async fn get(&self, at: u64, len: usize) -> Result<Option<Bytes>, Failure> {
        let block = at / BLOCK;
        let Some((place, _lent)) = self.lend(block) else { return Ok(None) };
        self.file.read(place * BLOCK + at % BLOCK, len).await.map(Some)
    }

    fn lend(&self, block: u64) -> Option<(u64, Option<Lent<'_>>)> {
        let Table { here, layout } = &mut *self.table();
        match layout {
            Layout::Source => here.has(block).then_some((block, None)),
            Layout::Slots(slots) => Some((slots.begin_read(block)?, Some(Lent { spool: self, block }))),
        }
    }

    pub(super) fn remove(&self) {
        self.file.remove();
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn disk_failure(error: &io::Error) -> Failure {
    let (code, sentence) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            (Code::DiskFull, "The server's disk became full while the source was fetched.")
        }
        _ => (Code::Internal, "The source could not be written to the server's disk."),
    };
    Failure::new(code, sentence).with_detail(error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SystemIds;

    #[test]
    fn room_is_promised_once_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let stat = rustix::fs::statvfs(dir.path()).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        let disk = Disk::new(0);
        let half = disk.reserve(dir.path(), free / 2).unwrap();
        let refused = disk.reserve(dir.path(), free / 3 * 2).unwrap_err();
        assert_eq!(refused.code, Code::DiskFull);
        half.written(free / 4);
        assert_eq!(*disk.promised.lock().unwrap(), free / 2 - free / 4);
        drop(half);
        assert_eq!(*disk.promised.lock().unwrap(), 0);
        assert!(Disk::new(u64::MAX).reserve(dir.path(), 1).is_err());
    }

    #[tokio::test]
    async fn a_full_disk_is_told_from_a_broken_one() {
        let file = SpoolFile::full();
        assert_eq!(file.write(0, vec![1; 10]).await.unwrap_err().code, Code::DiskFull);
        assert_eq!(disk_failure(&io::Error::from_raw_os_error(5)).code, Code::Internal);
    }

    #[tokio::test]
    async fn the_file_is_private_and_goes_with_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = SpoolFile::create(dir.path(), &SystemIds).unwrap();
        let path = file.path.clone();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(file);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

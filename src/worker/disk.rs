//! Room for runs on the disk of work folders: no run begins on what another one will need (PROTOCOL §1.17).
//!
//! A slot is only granted where the floor is free beside what runs still have to write. A run that knows its source
//! asks for what it will need on top of the floor; where that is not free it waits, and then goes back to the queue.
//! What runs have written is part of what is not free any more, so only the rest of their need is set aside.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::domain::RunId;

/// A file system's room, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    /// Free for us.
    pub(super) free: u64,
    /// All of it, taken or not.
    pub(super) total: u64,
}

/// Looks at the file system of a folder.
pub(super) type Look = Box<dyn Fn(&Path) -> Space + Send + Sync>;

/// The disk of work folders and what runs set aside there.
pub(super) struct Disk {
    /// Below it each run has a folder of its name.
    folder: PathBuf,
    /// What each run may take before its need is known, bytes; 0 = nothing is set aside at all.
    floor: u64,
    look: Look,
    needs: Mutex<HashMap<RunId, u64>>,
    freed: Notify,
}

/// Why a need is not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Short {
    /// What the run needs, bytes.
    pub(super) need: u64,
    /// What nobody else set aside, bytes.
    pub(super) free: u64,
    /// Whether an empty disk would have the room.
    pub(super) ever: Ever,
}

/// Whether waiting can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ever {
    /// Once others are done, or somebody tidies up.
    Maybe,
    /// The disk is too small.
    Never,
}

impl Disk {
    pub(super) fn new(folder: &Path, floor: u64, look: Look) -> Self {
        Self { folder: folder.to_owned(), floor, look, needs: Mutex::default(), freed: Notify::new() }
    }

    /// How many more runs may begin beside `promised` that are about to.
    pub(super) fn room(&self, promised: usize) -> usize {
        if self.floor == 0 {
            return usize::MAX;
        }
        let free = (self.look)(&self.folder).free.saturating_sub(self.outstanding(None));
        usize::try_from(free / self.floor).unwrap_or(usize::MAX).saturating_sub(promised)
    }

    /// Sets the floor aside for a run, until the share is dropped.
    pub(super) fn hold(self: &Arc<Self>, run: RunId) -> Share {
        self.needs().insert(run, self.floor);
        Share { disk: Arc::clone(self), run }
    }

    /// Resolves when a run has ended after this was called.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// What runs will still write, bytes; one of them may be left out.
    fn outstanding(&self, but: Option<RunId>) -> u64 {
        let needs = self.needs();
        let others = needs.iter().filter(|(run, _)| Some(**run) != but);
        others.map(|(run, need)| need.saturating_sub(self.written(*run))).fold(0, u64::saturating_add)
    }

    /// What a run takes by now, bytes: blocks, because the cache of a source is sparse.
    fn written(&self, run: RunId) -> u64 {
        let files = std::fs::read_dir(self.folder.join(run.to_string())).into_iter().flatten().flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512)).sum()
    }

    fn needs(&self) -> MutexGuard<'_, HashMap<RunId, u64>> {
        self.needs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a run set aside.
pub(super) struct Share {
    disk: Arc<Disk>,
    run: RunId,
}

impl Share {
    /// Sets aside what the run will write in all, beside the floor, if that is free.
    pub(super) fn grow(&self, need: u64) -> Result<(), Short> {
        let Disk { folder, floor, look, .. } = &*self.disk;
        if *floor == 0 {
            return Ok(());
        }
        let need = need.saturating_add(*floor);
        let space = look(folder);
        let written = self.disk.written(self.run);
        let free = space.free.saturating_add(written).saturating_sub(self.disk.outstanding(Some(self.run)));
        if need > free {
            let ever = if need > space.total { Ever::Never } else { Ever::Maybe };
            return Err(Short { need, free, ever });
        }
        self.disk.needs().insert(self.run, need);
        Ok(())
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.disk.needs().remove(&self.run);
        self.disk.freed.notify_waiters();
    }
}

/// What the kernel says; nothing is free where the question fails.
pub(super) fn look(folder: &Path) -> Space {
    rustix::fs::statvfs(folder).map_or(Space { free: 0, total: 0 }, |fs| Space {
        free: fs.f_bavail.saturating_mul(fs.f_frsize),
        total: fs.f_blocks.saturating_mul(fs.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const FLOOR: u64 = 100;

    fn disk(folder: &Path, free: u64, floor: u64) -> Arc<Disk> {
        Arc::new(Disk::new(folder, floor, Box::new(move |_| Space { free, total: 10_000 })))
    }

    fn run(n: u128) -> RunId {
        RunId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn slots_are_granted_as_far_as_the_floor_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(dir.path(), 350, FLOOR);
        assert_eq!((disk.room(0), disk.room(2), disk.room(9)), (3, 1, 0));
        let first = disk.hold(run(1));
        assert_eq!(disk.room(0), 2);
        first.grow(200).unwrap();
        assert_eq!(disk.room(0), 0);
        drop(first);
        assert_eq!(disk.room(0), 3);
    }

    #[test]
    fn a_need_is_met_only_beside_those_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(dir.path(), 1000, FLOOR);
        let (first, second) = (disk.hold(run(1)), disk.hold(run(2)));
        first.grow(500).unwrap();
        assert_eq!(second.grow(301), Err(Short { need: 401, free: 400, ever: Ever::Maybe }));
        second.grow(300).unwrap();
        assert_eq!(second.grow(9_901), Err(Short { need: 10_001, free: 400, ever: Ever::Never }));
        drop(first);
        second.grow(900).unwrap();
    }

    #[test]
    fn what_is_written_is_not_set_aside_again() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (run(1), run(2));
        std::fs::create_dir(dir.path().join(one.to_string())).unwrap();
        std::fs::write(dir.path().join(one.to_string()).join("out"), vec![1; 64 * 1024]).unwrap();
        let disk = disk(dir.path(), 100_000, FLOOR);
        let (first, second) = (disk.hold(one), disk.hold(two));
        let written = disk.written(one);
        assert!(written >= 64 * 1024);
        first.grow(written + 1000 - FLOOR).unwrap();
        second.grow(100_000 - 1000 - FLOOR).unwrap();
        assert!(second.grow(100_000 - 1000 - FLOOR + 1).is_err());
    }

    #[test]
    fn a_floor_of_nothing_sets_nothing_aside() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(dir.path(), 0, 0);
        assert_eq!(disk.room(5), usize::MAX);
        disk.hold(run(1)).grow(u64::MAX).unwrap();
    }
}

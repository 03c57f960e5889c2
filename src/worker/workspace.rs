//! Work folders: one per run, below one per incarnation, and the sweeping of what a dead incarnation left.
//!
//! Layout: `ROOT/<boot>/.owner` is locked for as long as the worker lives, so a sweeper needs no pids (which are
//! reused) to know that a folder is stale. `ROOT/<boot>/<run>/` holds a run's files and `handles.jsonl`, the journal
//! of publishing handles: a line is on disk before the first byte goes out, so none can be forgotten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};

use crate::domain::{BootId, PublicationId, RunId};

const OWNER: &str = ".owner";
const JOURNAL: &str = "handles.jsonl";

/// Why a work folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// Making, locking or reading a folder failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WorkspaceError {
    let path = path.to_owned();
    move |source| WorkspaceError::Io { doing, path, source }
}

/// This incarnation's folder. Removed when dropped, but for journals that the next incarnation has to see to.
#[derive(Debug)]
pub struct WorkRoot {
    root: PathBuf,
    own: PathBuf,
    /// Locked for as long as this value lives.
    owner: File,
}

/// What a dead incarnation or an ended run left: handles to destroy, then the folder to remove.
#[derive(Debug)]
pub struct Stale {
    folder: PathBuf,
    /// Journaled handles, as the storage room wrote them.
    pub handles: Vec<String>,
    _owner: Option<File>,
}

/// A run's folder. Removed when dropped, but for the journal as long as it names a handle whose fate is not known.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    pending: Mutex<Vec<PublicationId>>,
}

impl WorkRoot {
    /// Makes and locks this incarnation's folder below `root` (created 0700).
    pub fn open(root: &Path, boot: BootId) -> Result<Self, WorkspaceError> {
        let own = root.join(boot.to_string());
        make_dir(&own).map_err(io_error("create the work folder", &own))?;
        // Absolute: ffmpeg runs with another working directory.
        let own = own.canonicalize().map_err(io_error("resolve the work folder", &own))?;
        let owner = lock(&own.join(OWNER), Create::Yes).map_err(io_error("lock the work folder", &own))?;
        Ok(Self { root: root.to_owned(), own, owner })
    }

    /// Where this incarnation works.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.own
    }

    /// Makes a run's folder.
    pub fn run(&self, run: RunId) -> Result<RunFolder, WorkspaceError> {
        let path = self.own.join(run.to_string());
        make_dir(&path).map_err(io_error("create the run's folder", &path))?;
        Ok(RunFolder { path, pending: Mutex::default() })
    }

    /// Journals of runs of this incarnation that have ended. `lives` says which have not.
    pub fn left(&self, lives: impl Fn(RunId) -> bool) -> Result<Vec<Stale>, WorkspaceError> {
        let mut left = Vec::new();
        for entry in fs::read_dir(&self.own).map_err(io_error("list", &self.own))? {
            let folder = entry.map_err(io_error("list", &self.own))?.path();
            let run = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            if run.is_some_and(|run| !lives(run)) {
                left.push(Stale { handles: read_journal(&folder), folder, _owner: None });
            }
        }
        Ok(left)
    }

    /// Folders whose owner is gone.
    pub fn stale(&self) -> Result<Vec<Stale>, WorkspaceError> {
        let entries = fs::read_dir(&self.root).map_err(io_error("list", &self.root))?;
        let mut stale = Vec::new();
        for entry in entries {
            let folder = entry.map_err(io_error("list", &self.root))?.path();
            // Only folders named like ours: the operator may keep other things here.
            let ours =
                folder.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.parse::<BootId>().is_ok());
            if !ours || folder.file_name() == self.own.file_name() {
                continue;
            }
            match lock(&folder.join(OWNER), Create::No) {
                Ok(owner) => stale.push(Stale { handles: journaled(&folder), folder, _owner: Some(owner) }),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    // Died between creating the folder and its lock: nothing was ever in it.
                    let _ = fs::remove_dir(&folder);
                }
                Err(e) => return Err(io_error("look at", &folder)(e)),
            }
        }
        Ok(stale)
    }
}

impl Drop for WorkRoot {
    fn drop(&mut self) {
        if journaled(&self.own).is_empty() {
            remove(&self.own);
        }
        // After the folder: a sweeper that gets the lock finds what is left, or nothing.
        let _ = flock(&self.owner, FlockOperation::Unlock);
    }
}

impl Stale {
    /// Removes it, once its handles are destroyed.
    pub fn remove(self) {
        remove(&self.folder);
    }

    /// Removes all but the journals: some destination could not be reached, it is tried again later.
    pub fn shrink(self) {
        shrink(&self.folder);
        for run in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            shrink(&run.path());
        }
    }
}

impl RunFolder {
    /// A folder that belongs to no run, for what is kept only as long as it is looked at. Its name is none of a run, so
    /// that nobody takes it for what one left.
    pub fn apart(below: &Path, id: uuid::Uuid) -> Result<Self, WorkspaceError> {
        let path = below.join(format!("look-{id}"));
        make_dir(&path).map_err(io_error("create a folder", &path))?;
        Ok(Self { path, pending: Mutex::default() })
    }

    /// Where the run's files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a handle down, on disk before this returns.
    pub fn journal(&self, publication: PublicationId, handle: &str) -> Result<(), WorkspaceError> {
        self.pending().push(publication);
        let path = self.path.join(JOURNAL);
        let write = || {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            file.write_all(format!("{handle}\n").as_bytes())?;
            file.sync_data()
        };
        write().map_err(io_error("write down a publishing handle in", &path))
    }

    /// The handle of this publication was committed or destroyed: nobody has to see to it any more.
    pub fn settled(&self, publication: PublicationId) {
        self.pending().retain(|pending| *pending != publication);
    }

    fn pending(&self) -> MutexGuard<'_, Vec<PublicationId>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if self.pending().is_empty() { remove(&self.path) } else { shrink(&self.path) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Create {
    Yes,
    No,
}

fn lock(path: &Path, create: Create) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create == Create::Yes)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Every journaled handle below an incarnation's folder; an unreadable journal has none.
fn journaled(folder: &Path) -> Vec<String> {
    let runs = fs::read_dir(folder).into_iter().flatten().flatten();
    runs.flat_map(|run| read_journal(&run.path())).collect()
}

fn read_journal(run: &Path) -> Vec<String> {
    let lines = File::open(run.join(JOURNAL)).into_iter().flat_map(|journal| BufReader::new(journal).lines());
    lines.map_while(Result::ok).filter(|line| !line.is_empty()).collect()
}

/// Removes the files of a folder but for its journal and its lock.
fn shrink(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let kept = [JOURNAL, OWNER].iter().any(|kept| entry.file_name() == *kept);
        if !kept && entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "could not remove a work folder");
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn boot(n: u128) -> BootId {
        BootId::from_uuid(Uuid::from_u128(n))
    }

    fn run(n: u128) -> RunId {
        RunId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn the_living_are_left_alone_and_the_dead_are_swept_with_their_handles() {
        let root = tempfile::tempdir().unwrap();
        let dead = WorkRoot::open(root.path(), boot(1)).unwrap();
        let folder = dead.run(run(1)).unwrap();
        folder.journal(publication(1), "{\"a\":1}").unwrap();
        folder.journal(publication(2), "{\"b\":2}").unwrap();
        let alive = WorkRoot::open(root.path(), boot(2)).unwrap();
        assert!(alive.stale().unwrap().is_empty());

        // A killed process drops its lock and removes nothing.
        std::mem::forget(folder);
        let own = dead.own.clone();
        flock(&dead.owner, FlockOperation::Unlock).unwrap();
        std::mem::forget(dead);

        let stale = alive.stale().unwrap();
        assert_eq!(stale.len(), 1);
        assert_eq!(stale[0].handles, ["{\"a\":1}", "{\"b\":2}"]);
        stale.into_iter().for_each(Stale::remove);
        assert!(!own.exists());
        assert!(alive.path().exists());
    }

    fn publication(n: u128) -> PublicationId {
        PublicationId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn a_journal_outlives_its_run_until_every_handle_is_settled() {
        let root = tempfile::tempdir().unwrap();
        let work = WorkRoot::open(root.path(), boot(1)).unwrap();
        for (n, settled) in [(1, true), (2, false)] {
            let folder = work.run(run(n)).unwrap();
            fs::write(folder.path().join("out.mp4"), b"x").unwrap();
            folder.journal(publication(n), "{}").unwrap();
            if settled {
                folder.settled(publication(n));
            }
        }
        assert!(!work.path().join(run(1).to_string()).exists());
        assert!(!work.path().join(run(2).to_string()).join("out.mp4").exists());
        assert!(work.left(|_| true).unwrap().is_empty());
        let left = work.left(|_| false).unwrap();
        assert_eq!(left.iter().map(|stale| &stale.handles[..]).collect::<Vec<_>>(), [["{}"]]);
        left.into_iter().for_each(Stale::shrink);

        // Not even a clean exit forgets it.
        drop(work);
        let next = WorkRoot::open(root.path(), boot(2)).unwrap();
        let stale = next.stale().unwrap();
        assert_eq!(stale[0].handles, ["{}"]);
        stale.into_iter().for_each(Stale::remove);
        assert!(next.stale().unwrap().is_empty());
    }

    #[test]
    fn foreign_folders_stay_and_own_ones_go_with_their_owner() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("photos")).unwrap();
        let own = {
            let work = WorkRoot::open(root.path(), boot(3)).unwrap();
            let folder = work.run(run(9)).unwrap();
            fs::write(folder.path().join("out.mp4"), b"x").unwrap();
            assert!(work.stale().unwrap().is_empty());
            work.path().to_owned()
        };
        assert!(!own.exists());
        assert!(root.path().join("photos").exists());
    }
}

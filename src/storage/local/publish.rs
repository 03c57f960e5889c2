//! Send, commit and destroy for files: `.flux-<publication>.part` beside the target.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self as sys, AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::mark::{self, Mark, Marking};
use super::transfer::{self, Linked};
use super::{LocalError, READ, Root, sync_folder};
use crate::domain::{ObjectPath, Overwrite, PublicationId};

/// One handle, seen by this file system.
#[derive(Debug)]
pub(in crate::storage) struct Target {
    pub(in crate::storage) root: Root,
    pub(in crate::storage) path: ObjectPath,
    pub(in crate::storage) publication: PublicationId,
    pub(in crate::storage) overwrite: Overwrite,
    pub(in crate::storage) size: u64,
    pub(in crate::storage) sha256: String,
    pub(in crate::storage) new_folders: u16,
}

/// What a destroyed handle had come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Fate {
    /// It can never become visible.
    Dead,
    /// It was committed before.
    Committed,
}

/// A file that is at the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Found {
    pub(in crate::storage) mark: Mark,
    pub(in crate::storage) size: u64,
    /// Changes with every replacement and every write.
    pub(in crate::storage) etag: String,
}

impl Target {
    fn part(&self) -> String {
        part_name(self.publication)
    }

    fn io(doing: &'static str) -> impl Fn(Errno) -> LocalError {
        move |errno| LocalError::Io { doing, errno }
    }
}

/// Name of the invisible file.
pub(in crate::storage) fn part_name(publication: PublicationId) -> String {
    format!(".flux-{publication}.part")
}

/// Puts the whole file beside its target, durable and invisible. Repeating it starts over. `abandoned` is set by a
/// caller that no longer waits; it is looked at after every name that is made, so whoever sets it first and destroys
/// the handle then finds nothing left behind.
pub(in crate::storage) fn send(
    target: &Target,
    source: &Path,
    abandoned: &AtomicBool,
) -> Result<(), LocalError> {
    let mut file = open_source(source, target.size)?;
    let mut retries = 0;
    let (folder, part) = loop {
        let made = target.root.make_parent(&target.path).and_then(|folder| {
            remove(&folder, &target.part())?;
            create(&folder, &target.part()).map(|part| (folder, part))
        });
        match made {
            Ok(made) => break made,
            // A neighbour that was destroyed may have removed the empty folder between the two steps.
            Err(Errno::NOENT) if retries < 3 => retries += 1,
            Err(errno) => {
                return Err(LocalError::Io { doing: "make the part file", errno });
            }
        }
    };
    let sent = fill(target, &mut file, source, &folder, part, abandoned).and_then(|()| {
        sync_folder(&folder).map_err(Target::io("sync the folder"))?;
        if abandoned.load(Ordering::SeqCst) { Err(LocalError::Abandoned) } else { Ok(()) }
    });
    if sent.is_err() {
        let _ = remove(&folder, &target.part());
        target.root.remove_empty_folders(&target.path, target.new_folders);
    }
    sent
}

fn fill(
    target: &Target,
    file: &mut File,
    source: &Path,
    folder: &OwnedFd,
    part: File,
    abandoned: &AtomicBool,
) -> Result<(), LocalError> {
    let doing = Target::io("write the part file");
    let name = target.part();
    // The empty part's mode is what the umask makes of 0644; a linked file gets the same.
    let mode = Mode::from_raw_mode(sys::fstat(&part).map_err(&doing)?.st_mode & 0o777);
    if mark::write(&*file, target.publication, &target.sha256) == Marking::Done {
        sys::unlinkat(folder, &*name, AtFlags::empty()).map_err(&doing)?;
        match transfer::link(file, source, folder, &name, mode).map_err(&doing)? {
            Linked::Yes => return sys::fsync(&*file).map_err(&doing),
            Linked::No => {}
        }
        let part = create(folder, &name).map_err(&doing)?;
        return copy(target, file, part, abandoned);
    }
    copy(target, file, part, abandoned)
}

fn copy(target: &Target, file: &mut File, mut part: File, abandoned: &AtomicBool) -> Result<(), LocalError> {
    transfer::copy(file, &mut part, target.size, abandoned)?;
    mark::write(&part, target.publication, &target.sha256);
    sys::fsync(&part).map_err(Target::io("sync the part file"))
}

/// Makes the file visible, durably. Says `Withdrawn` when the part is gone and the target is not this publication's.
pub(in crate::storage) fn commit(target: &Target) -> Result<(), LocalError> {
    let doing = Target::io("commit the part file");
    let folder = match target.root.parent(&target.path) {
        Err(Errno::NOENT) => return Err(LocalError::Withdrawn),
        other => other.map_err(&doing)?,
    };
    let part = target.part();
    match sys::statat(&folder, &*part, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if u64::try_from(stat.st_size) == Ok(target.size) => {}
        Ok(_) => return Err(LocalError::NotWhole),
        Err(Errno::NOENT) => return committed_before(target, &folder),
        Err(errno) => return Err(doing(errno)),
    }
    let renamed = match target.overwrite {
        Overwrite::Replace => sys::renameat(&folder, &*part, &folder, target.path.file_name()),
        Overwrite::Fail => rename_new(&folder, &part, target.path.file_name()),
    };
    match renamed {
        Ok(()) => sync_folder(&folder).map_err(&doing),
        Err(Errno::NOENT) => committed_before(target, &folder),
        // A folder in the way is said to be one.
        Err(Errno::EXIST) => open_target(&folder, target.path.file_name()).and(Err(LocalError::Exists)),
        Err(errno) => Err(doing(errno)),
    }
}

fn committed_before(target: &Target, folder: &OwnedFd) -> Result<(), LocalError> {
    if !is_ours(target, folder)? {
        return Err(LocalError::Withdrawn);
    }
    // The committer may have died between its rename and its fsync.
    sync_folder(folder).map_err(Target::io("sync the folder"))
}

/// Removes the part for ever, and says whether it had been committed. Repeating it gives the same answer.
pub(in crate::storage) fn destroy(target: &Target) -> Result<Fate, LocalError> {
    let doing = Target::io("remove the part file");
    let folder = match target.root.parent(&target.path) {
        Err(Errno::NOENT) => return Ok(Fate::Dead),
        other => other.map_err(&doing)?,
    };
    if remove(&folder, &target.part()).map_err(&doing)? == Removed::Yes {
        // Without this a power cut could bring the part back, and with it a stale commit.
        sync_folder(&folder).map_err(&doing)?;
    }
    // Also after a removal: `rename_new` may have been between its link and its unlink.
    if is_ours(target, &folder)? {
        return Ok(Fate::Committed);
    }
    target.root.remove_empty_folders(&target.path, target.new_folders);
    Ok(Fate::Dead)
}

/// What is at a target now.
pub(in crate::storage) fn existing(root: &Root, path: &ObjectPath) -> Result<Option<Found>, LocalError> {
    let doing = Target::io("look at the target");
    let folder = match root.parent(path) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(&doing)?,
    };
    let Some(file) = open_target(&folder, path.file_name())? else {
        return Ok(None);
    };
    let stat = sys::fstat(&file).map_err(&doing)?;
    Ok(Some(Found {
        mark: mark::read(&file),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        etag: format!(
            "\"{:x}-{:x}-{:x}{:09x}\"",
            stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec
        ),
    }))
}

/// Removes a file if it is still what `publication` put there; whether it was. A file that another publication puts there
/// between the look and the removal goes with it: there is no call that does both at once.
pub(in crate::storage) fn remove_result(
    root: &Root,
    path: &ObjectPath,
    publication: PublicationId,
) -> Result<bool, LocalError> {
    let doing = Target::io("remove a result");
    let folder = match root.parent(path) {
        Err(Errno::NOENT) => return Ok(false),
        other => other.map_err(&doing)?,
    };
    let Some(file) = open_target(&folder, path.file_name())? else {
        return Ok(false);
    };
    if mark::read(&file).publication != Some(publication) {
        return Ok(false);
    }
    if remove(&folder, path.file_name()).map_err(&doing)? != Removed::Yes {
        return Ok(false);
    }
    sync_folder(&folder).map_err(&doing)?;
    root.remove_empty_folders(path, 1);
    Ok(true)
}

/// Removes what lies at a target, its part too, and the folders that were made for it once they are empty.
pub(in crate::storage) fn take_away(target: &Target) -> Result<(), LocalError> {
    let doing = Target::io("remove a file of a set");
    if let Some(folder) = present(target.root.parent(&target.path)).map_err(doing)? {
        remove(&folder, &target.part()).map_err(Target::io("remove a part of a set"))?;
    }
    remove_plainly(&target.root, &target.path, target.new_folders)
}

/// Removes a file of a publication's own folder, and the folder with its last file.
pub(in crate::storage) fn remove_member(root: &Root, path: &ObjectPath) -> Result<(), LocalError> {
    remove_plainly(root, path, 1)
}

fn remove_plainly(root: &Root, path: &ObjectPath, folders: u16) -> Result<(), LocalError> {
    let doing = Target::io("remove a file of a set");
    let Some(folder) = present(root.parent(path)).map_err(&doing)? else { return Ok(()) };
    remove(&folder, path.file_name()).map_err(&doing)?;
    root.remove_empty_folders(path, folders);
    Ok(())
}

fn present(folder: Result<OwnedFd, Errno>) -> Result<Option<OwnedFd>, Errno> {
    match folder {
        Err(Errno::NOENT) => Ok(None),
        other => other.map(Some),
    }
}

/// Whether a rename of a removed part is refused here, and whether the folder can be written at all.
pub(in crate::storage) fn check_fence(root: &Root, publication: PublicationId) -> Result<bool, LocalError> {
    let doing = Target::io("write a test file");
    let folder = root.descriptor().map_err(&doing)?;
    let (part, name) = (part_name(publication), format!(".flux-{publication}.check"));
    drop(create(&folder, &part).map_err(&doing)?);
    sync_folder(&folder).map_err(&doing)?;
    remove(&folder, &part).map_err(&doing)?;
    let refused = sys::renameat(&folder, &*part, &folder, &*name) == Err(Errno::NOENT);
    remove(&folder, &name).map_err(&doing)?;
    Ok(refused)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removed {
    Yes,
    WasGone,
}

fn remove(folder: impl AsFd, name: &str) -> Result<Removed, Errno> {
    match sys::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) => Ok(Removed::Yes),
        Err(Errno::NOENT) => Ok(Removed::WasGone),
        Err(errno) => Err(errno),
    }
}

fn create(folder: impl AsFd, name: &str) -> Result<File, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    sys::openat(folder, name, flags, Mode::from_raw_mode(0o644)).map(File::from)
}

/// Renames only onto a free name. File systems without `RENAME_NOREPLACE` (NFS) get a link and an unlink: the link is
/// the commit, and [`destroy`] looks at the target after its own unlink.
fn rename_new(folder: impl AsFd, part: &str, name: &str) -> Result<(), Errno> {
    match sys::renameat_with(&folder, part, &folder, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {
            sys::linkat(&folder, part, &folder, name, AtFlags::empty())?;
            remove(&folder, part).map(|_| ())
        }
        other => other,
    }
}

fn is_ours(target: &Target, folder: &OwnedFd) -> Result<bool, LocalError> {
    match open_target(folder, target.path.file_name()) {
        Ok(Some(mut file)) => mark::is_of(&mut file, target.publication, target.size, &target.sha256)
            .map_err(Target::io("read the target")),
        // A folder or a link at the target's name is nobody's publication.
        Ok(None) | Err(LocalError::NotAFile) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens the regular file at `name`; a symbolic link there is not followed, because a commit would replace the link.
fn open_target(folder: &OwnedFd, name: &str) -> Result<Option<File>, LocalError> {
    let file = match sys::openat(folder, name, READ | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NXIO) => return Err(LocalError::NotAFile),
        Err(errno) => {
            return Err(LocalError::Io { doing: "open the target", errno });
        }
    };
    let stat = sys::fstat(&file).map_err(Target::io("look at the target"))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        Ok(Some(File::from(file)))
    } else {
        Err(LocalError::NotAFile)
    }
}

fn open_source(path: &Path, size: u64) -> Result<File, LocalError> {
    let file = sys::open(path, READ | OFlags::NOFOLLOW, Mode::empty()).map_err(|_| LocalError::Changed)?;
    let stat = sys::fstat(&file).map_err(|_| LocalError::Changed)?;
    let whole = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if whole && u64::try_from(stat.st_size) == Ok(size) {
        Ok(File::from(file))
    } else {
        Err(LocalError::Changed)
    }
}

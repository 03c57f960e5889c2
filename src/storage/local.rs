//! Files below a configured folder: safe opening, and publishing by write-part, fsync, rename.
//!
//! Everything here blocks; callers put it on the blocking pool. The fence is the kernel's: `rename` and `unlink` of the
//! same part file exclude each other, so a handle is either committed or destroyed and never both.

mod mark;
mod publish;
mod transfer;

pub(super) use mark::read as read_mark;
pub(super) use publish::{
    Fate, Target, check_fence, commit, destroy, existing, part_name, remove_member, remove_result, send,
    take_away,
};

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self as sys, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Error, make_folder};
use crate::domain::{Code, Failure, ObjectPath};

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);
/// `NONBLOCK`, because opening a FIFO would otherwise wait for its writer.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A configured folder. It is opened by path for every operation: a mount that comes back is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    path: PathBuf,
}

/// What to do about a root that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is ours: make it.
    Make,
    /// It is the operator's, perhaps a mount: refuse.
    Refuse,
}

/// Why a local operation did not happen.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocalError {
    #[error("{doing}: {errno}")]
    Io { doing: &'static str, errno: Errno },
    #[error("the file to publish is not the one that was announced")]
    Changed,
    #[error("sending was given up")]
    Abandoned,
    #[error("the part file has another size than was announced")]
    NotWhole,
    #[error("the part file is gone: the publication was destroyed")]
    Withdrawn,
    #[error("the target exists")]
    Exists,
    #[error("the target is not a regular file")]
    NotAFile,
}

impl Root {
    /// Takes a configured folder.
    pub(super) fn open(path: &Path, missing: Missing) -> Result<Self, Error> {
        let fault = |source| Error::Folder { path: path.to_owned(), source };
        let absolute = std::path::absolute(path).map_err(fault)?;
        if absolute.to_str().is_none() {
            return Err(fault(io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8")));
        }
        match missing {
            Missing::Make => make_folder(&absolute)?,
            Missing::Refuse => {}
        }
        let root = Self { path: absolute };
        root.descriptor().map_err(|errno| fault(errno.into()))?;
        Ok(root)
    }

    /// The folder, absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The part of an absolute client path that is below this folder; purely lexical.
    pub(super) fn relative(&self, absolute: &Path) -> Option<ObjectPath> {
        ObjectPath::parse(absolute.strip_prefix(&self.path).ok()?.to_str()?).ok()
    }

    /// Opens a regular file for reading, wherever its symbolic links lead below this folder.
    pub(super) fn open_file(&self, path: &ObjectPath) -> Result<File, LocalError> {
        let doing = "open a file";
        let root = self.descriptor().map_err(|errno| LocalError::Io { doing, errno })?;
        let file =
            below(root.as_fd(), path.as_str(), READ).map_err(|errno| LocalError::Io { doing, errno })?;
        let stat = sys::fstat(&file).map_err(|errno| LocalError::Io { doing, errno })?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            Ok(File::from(file))
        } else {
            Err(LocalError::NotAFile)
        }
    }

    pub(super) fn descriptor(&self) -> Result<OwnedFd, Errno> {
        sys::open(&self.path, FOLDER, Mode::empty())
    }

    /// Opens the folder that holds `path`.
    fn parent(&self, path: &ObjectPath) -> Result<OwnedFd, Errno> {
        let root = self.descriptor()?;
        match path.as_str().rsplit_once('/') {
            Some((folder, _)) => below(root.as_fd(), folder, FOLDER),
            None => Ok(root),
        }
    }

    /// Opens the folder that holds `path`, making what is missing (0755 less the umask) and making it durable.
    fn make_parent(&self, path: &ObjectPath) -> Result<OwnedFd, Errno> {
        let root = self.descriptor()?;
        let mut folder =
            root.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        for (prefix, name) in parents(path) {
            folder = match below(root.as_fd(), prefix, FOLDER) {
                Err(Errno::NOENT) => {
                    match sys::mkdirat(&folder, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) => sync_folder(&folder)?,
                        Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                    below(root.as_fd(), prefix, FOLDER)?
                }
                other => other?,
            };
        }
        Ok(folder)
    }

    /// How many of the folders that hold `path` are missing.
    pub(super) fn missing_folders(&self, path: &ObjectPath) -> Result<u16, LocalError> {
        let looking = |errno| LocalError::Io { doing: "look at the target's folder", errno };
        let root = self.descriptor().map_err(looking)?;
        let all: Vec<_> = parents(path).collect();
        for (depth, (prefix, _)) in all.iter().enumerate() {
            match below(root.as_fd(), prefix, FOLDER) {
                Ok(_) => {}
                Err(Errno::NOENT) => return Ok(u16::try_from(all.len() - depth).unwrap_or(u16::MAX)),
                Err(errno) => return Err(looking(errno)),
            }
        }
        Ok(0)
    }

    /// Removes the innermost `count` folders that hold `path`, as long as they are empty. Best effort: an empty folder
    /// left behind is no harm, and one that is in use again must stay.
    fn remove_empty_folders(&self, path: &ObjectPath, count: u16) {
        let Ok(root) = self.descriptor() else { return };
        let all: Vec<_> = parents(path).collect();
        for (prefix, name) in all.iter().rev().take(count.into()) {
            let outer = match prefix.rsplit_once('/') {
                Some((outer, _)) => below(root.as_fd(), outer, FOLDER),
                None => self.descriptor(),
            };
            let removed = outer.and_then(|outer| sys::unlinkat(&outer, *name, AtFlags::REMOVEDIR));
            if removed.is_err() {
                return;
            }
        }
    }
}

impl From<LocalError> for Failure {
    fn from(error: LocalError) -> Self {
        let detail = error.to_string();
        let failure = match error {
            LocalError::Io { errno, .. } => Self::new(code_of(errno), sentence(errno)),
            LocalError::Changed => {
                Self::new(Code::Internal, "the encoded file changed before it was published")
            }
            LocalError::Abandoned => Self::new(Code::Cancelled, "publishing was given up"),
            LocalError::NotWhole => Self::new(Code::Internal, "the file at the destination is not whole"),
            LocalError::Withdrawn => withdrawn(),
            LocalError::Exists => already_there(),
            LocalError::NotAFile => {
                Self::new(Code::DestinationForbidden, "the destination exists and is not a regular file")
            }
        };
        failure.with_detail(detail)
    }
}

/// The failure of committing a destroyed handle: only a run that lost its task ever sees it.
pub(super) fn withdrawn() -> Failure {
    Failure::new(Code::Internal, "the publication was withdrawn before it could be committed")
}

/// The failure of `overwrite: fail`.
pub(super) fn already_there() -> Failure {
    Failure::new(Code::DestinationExists, "the destination already exists and overwriting is not allowed")
}

fn code_of(errno: Errno) -> Code {
    match errno {
        Errno::NOSPC | Errno::DQUOT => Code::DiskFull,
        // XDEV and LOOP are how RESOLVE_BENEATH refuses a symbolic link that leaves the root.
        Errno::ACCESS
        | Errno::PERM
        | Errno::ROFS
        | Errno::ISDIR
        | Errno::NOTDIR
        | Errno::XDEV
        | Errno::LOOP
        | Errno::NAMETOOLONG
        | Errno::INVAL
        | Errno::FBIG => Code::DestinationForbidden,
        _ => Code::DestinationUnreachable,
    }
}

fn sentence(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSPC | Errno::DQUOT => "no room is left at the destination",
        Errno::ACCESS | Errno::PERM => "the server may not write to the destination",
        Errno::ROFS => "the destination is read-only",
        Errno::ISDIR => "the destination is a folder",
        Errno::NOTDIR => "a folder in the destination's path is a file",
        Errno::XDEV | Errno::LOOP => "the destination's path leaves its folder",
        Errno::NAMETOOLONG | Errno::INVAL => "the destination does not take this name",
        Errno::FBIG => "the file is larger than the destination takes",
        _ => "the destination could not be written",
    }
}

/// The folders that hold `path`, outermost first: their path from the root and their own name.
fn parents(path: &ObjectPath) -> impl Iterator<Item = (&str, &str)> {
    let text = path.as_str();
    text.match_indices('/').map(move |(end, _)| {
        let prefix = &text[..end];
        (prefix, prefix.rsplit('/').next().unwrap_or(prefix))
    })
}

/// Opens `path` below `root`; a symbolic link that would leave `root` is an error (`EXDEV`).
fn below(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    // The kernel answers EAGAIN when something was renamed while it walked `..` (openat2(2)).
    for _ in 0..8 {
        match sys::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            Err(Errno::NOSYS) => return walk(root, path, flags),
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// [`below`] for kernels and sandboxes without `openat2`: follows no symbolic link at all.
fn walk(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let (folders, name) = match path.rsplit_once('/') {
        Some((folders, name)) => (Some(folders), name),
        None => (None, path),
    };
    let mut folder: Option<OwnedFd> = None;
    for segment in folders.into_iter().flat_map(|folders| folders.split('/')) {
        let from = folder.as_ref().map_or(root, AsFd::as_fd);
        folder = Some(sys::openat(from, segment, FOLDER | OFlags::NOFOLLOW, Mode::empty())?);
    }
    sys::openat(folder.as_ref().map_or(root, AsFd::as_fd), name, flags | OFlags::NOFOLLOW, Mode::empty())
}

/// Makes names in a folder durable. Some file systems have nothing to do for folders and say `EINVAL`.
pub(super) fn sync_folder(folder: impl AsFd) -> Result<(), Errno> {
    match sys::fsync(folder) {
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> ObjectPath {
        ObjectPath::parse(text).unwrap()
    }

    fn root() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        std::fs::write(folder.path().join("outside"), "secret").unwrap();
        let root = Root::open(&folder.path().join("root"), Missing::Refuse).unwrap();
        (folder, root)
    }

    #[test]
    fn links_are_followed_below_the_root_and_nowhere_else() {
        let (folder, root) = root();
        let inside = folder.path().join("root");
        std::fs::create_dir(inside.join("real")).unwrap();
        std::fs::write(inside.join("real/a"), "a").unwrap();
        symlink("real", inside.join("alias")).unwrap();
        symlink("..", inside.join("up")).unwrap();
        symlink(folder.path().join("outside"), inside.join("absolute")).unwrap();
        symlink("/proc/self/root/etc", inside.join("magic")).unwrap();
        assert!(root.open_file(&path("alias/a")).is_ok());
        for bad in ["up/outside", "absolute", "magic/hostname"] {
            let error = root.open_file(&path(bad)).unwrap_err();
            assert!(matches!(error, LocalError::Io { errno: Errno::XDEV, .. }), "{bad}: {error}");
        }
        assert!(matches!(root.make_parent(&path("up/new/file")), Err(Errno::XDEV)));
        assert!(!folder.path().join("new").exists());
    }

    #[test]
    fn without_openat2_no_link_is_followed() {
        let (folder, root) = root();
        let inside = folder.path().join("root");
        std::fs::create_dir(inside.join("real")).unwrap();
        std::fs::write(inside.join("real/a"), "a").unwrap();
        symlink("real", inside.join("alias")).unwrap();
        symlink(folder.path().join("outside"), inside.join("real/out")).unwrap();
        let descriptor = root.descriptor().unwrap();
        assert!(walk(descriptor.as_fd(), "real/a", READ).is_ok());
        assert!(walk(descriptor.as_fd(), "alias/a", READ).is_err());
        assert!(walk(descriptor.as_fd(), "real/out", READ).is_err());
    }

    #[test]
    fn only_regular_files_are_read() {
        let (folder, root) = root();
        let fifo = folder.path().join("root/fifo");
        sys::mknodat(sys::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(matches!(root.open_file(&path("fifo")), Err(LocalError::NotAFile)));
    }

    #[test]
    fn folders_are_counted_made_and_removed() {
        let (folder, root) = root();
        std::fs::create_dir(folder.path().join("root/a")).unwrap();
        let target = path("a/b/c/file");
        assert_eq!(root.missing_folders(&target).unwrap(), 2);
        root.make_parent(&target).unwrap();
        assert_eq!(root.missing_folders(&target).unwrap(), 0);
        root.remove_empty_folders(&target, 2);
        assert!(folder.path().join("root/a").exists());
        assert!(!folder.path().join("root/a/b").exists());
        root.make_parent(&target).unwrap();
        std::fs::write(folder.path().join("root/a/b/other"), "").unwrap();
        root.remove_empty_folders(&target, 2);
        assert!(folder.path().join("root/a/b/other").exists());
        assert!(!folder.path().join("root/a/b/c").exists());
    }

    #[test]
    fn a_root_that_is_not_there_is_made_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("x/y");
        assert!(matches!(Root::open(&missing, Missing::Refuse), Err(Error::Folder { .. })));
        assert!(Root::open(&missing, Missing::Make).is_ok());
        assert!(missing.is_dir());
    }

    proptest! {
        /// Any text a client sends either is refused or opens, makes and names things below the root only.
        #[test]
        fn nothing_leaves_the_root(segments in prop::collection::vec(
            prop_oneof![Just("..".to_owned()), Just("up".to_owned()), Just("alias".to_owned()), Just(String::new()),
                Just("real".to_owned()), "[a-z.%\\\\/]{0,6}", "\\PC{0,4}"], 0..5)) {
            let (folder, root) = root();
            let inside = folder.path().join("root");
            std::fs::create_dir(inside.join("real")).unwrap();
            symlink("..", inside.join("up")).unwrap();
            symlink("real", inside.join("alias")).unwrap();
            let text = segments.join("/");
            let candidates = [ObjectPath::parse(text.as_str()).ok(), root.relative(&inside.join(&text))];
            for target in candidates.into_iter().flatten() {
                prop_assert!(inside.join(target.as_str()).starts_with(&inside));
                let _ = root.make_parent(&target);
                prop_assert!(root.open_file(&target).is_err());
            }
            let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            prop_assert_eq!(names.len(), 2, "{:?}", names);
        }
    }
}

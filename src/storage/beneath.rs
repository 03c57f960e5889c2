//! Opens files below a root so that no name, link or race leads out of it.
//!
//! The file is looked up with `O_PATH` first, so that a FIFO or a device is never opened for reading; only a regular
//! file is reopened, through its own descriptor, which no rename can change. Symlinks are followed as long as they
//! stay below the root; where the kernel has no `openat2` (before 5.6, some sandboxes) none is followed at all.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Why a file below a root is not given.
#[derive(Debug, thiserror::Error)]
pub(super) enum BeneathError {
    /// No such file.
    #[error("no such file below the root")]
    Missing,
    /// The name leads out of the root.
    #[error("the path leads out of the root")]
    Escapes,
    /// A directory, FIFO, device or socket.
    #[error("not a regular file")]
    NotAFile,
    /// The process may not read it.
    #[error("the file is not readable by this server")]
    Denied,
    /// Anything else the system said.
    #[error("opening a file below a root")]
    Open(#[source] io::Error),
}

/// A folder that files are opened beneath.
#[derive(Debug, Clone)]
pub(super) struct Root {
    dir: Arc<OwnedFd>,
    /// As configured, and resolved: an absolute path may be written either way.
    spellings: [PathBuf; 2],
}

/// A regular file, opened and held: what it is cannot change any more, only what it contains.
#[derive(Debug)]
pub(super) struct Opened {
    /// The open file, read-only.
    pub file: File,
    /// What identifies its content as far as the file system tells.
    pub stamp: Stamp,
}

/// Identity and state of a file; two equal stamps mean that nobody wrote in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    /// Bytes.
    pub size: u64,
}

impl Stamp {
    /// The stamp of an open file, now.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }

    /// The stamp of whatever a path names now, without following a final link.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&std::fs::symlink_metadata(path)?))
    }

    fn from(meta: &std::fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            size: meta.len(),
        }
    }
}

impl Root {
    /// Opens a root. The folder is pinned: renaming it later does not move the root.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let resolved = path.canonicalize()?;
        let dir =
            rustix::fs::open(&resolved, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let configured = std::path::absolute(path)?;
        Ok(Self { dir: Arc::new(dir), spellings: [configured, resolved] })
    }

    /// The part of `path` below this root, if it is written as being below it. Relative paths are.
    #[must_use]
    pub(super) fn relative<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        if path.is_relative() {
            return Some(path);
        }
        self.spellings.iter().find_map(|root| path.strip_prefix(root).ok())
    }

    /// Opens a regular file by its path relative to the root.
    pub(super) fn file(&self, relative: &Path) -> Result<Opened, BeneathError> {
        if !stays_below(relative) {
            return Err(BeneathError::Escapes);
        }
        let found = self.lookup(relative).map_err(refusal)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found).map_err(refusal)?.st_mode);
        if kind != FileType::RegularFile {
            return Err(BeneathError::NotAFile);
        }
        let file = File::open(fd_path(&found)).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => BeneathError::Denied,
            _ => BeneathError::Open(error),
        })?;
        let stamp = Stamp::of(&file).map_err(BeneathError::Open)?;
        Ok(Opened { file, stamp })
    }

    fn lookup(&self, relative: &Path) -> Result<OwnedFd, Errno> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        // EAGAIN: the kernel saw a rename during the walk and could not rule out an escape; it asks for another try.
        for _ in 0..16 {
            match rustix::fs::openat2(self.dir.as_fd(), relative, flags, Mode::empty(), beneath) {
                Err(Errno::AGAIN) => {}
                Err(Errno::NOSYS | Errno::PERM) => return self.walk(relative),
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The same without `openat2`: one component at a time, no link followed.
    fn walk(&self, relative: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at: Option<OwnedFd> = None;
        for part in relative.components() {
            let Component::Normal(name) = part else { continue };
            let dir = at.as_ref().map_or(self.dir.as_fd(), AsFd::as_fd);
            at = Some(rustix::fs::openat(dir, name, flags, Mode::empty())?);
        }
        at.ok_or(Errno::ISDIR)
    }
}

impl Opened {
    /// Gives the file a name in `work` that nobody outside can swap, or else its own resolved path.
    ///
    /// A hard link names exactly the inode that was opened and survives the deletion of the original. It needs one
    /// file system and the kernel's consent (`protected_hardlinks`). Otherwise the canonical path is given; a swap
    /// there is found by comparing [`Stamp::at`] afterwards, and a sandbox that grants only this path stops it before.
    /// A copy would cost the size of the source in disk and time for the same guarantee.
    pub(super) fn name_in(&self, work: &Path, name: &str) -> io::Result<Named> {
        let link = work.join(name);
        let from = fd_path(&self.file);
        match rustix::fs::linkat(CWD, &from, CWD, &link, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(Named::Link(link)),
            Err(_) => Ok(Named::Path(std::fs::read_link(from)?)),
        }
    }
}

/// How an opened file is named for another process.
#[derive(Debug)]
pub(super) enum Named {
    /// A hard link of our own; to be removed afterwards.
    Link(PathBuf),
    /// The file's own place.
    Path(PathBuf),
}

/// Whether a path has only plain names: checked before the kernel does, so that both ways refuse the same.
#[must_use]
pub(super) fn stays_below(relative: &Path) -> bool {
    let mut names = 0_usize;
    relative.components().all(|part| {
        names += usize::from(matches!(part, Component::Normal(_)));
        matches!(part, Component::Normal(_) | Component::CurDir)
    }) && names > 0
}

fn fd_path(fd: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

fn refusal(errno: Errno) -> BeneathError {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => BeneathError::Missing,
        // XDEV is how BENEATH says no; LOOP is how NOFOLLOW and NO_MAGICLINKS do.
        Errno::XDEV | Errno::LOOP => BeneathError::Escapes,
        Errno::ISDIR => BeneathError::NotAFile,
        Errno::ACCESS => BeneathError::Denied,
        other => BeneathError::Open(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use rustix::fs::mknodat;

    use super::*;

    struct Tree {
        _outer: tempfile::TempDir,
        root: Root,
        base: PathBuf,
    }

    fn tree() -> Tree {
        let outer = tempfile::tempdir().unwrap();
        let base = outer.path().join("root");
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        std::fs::write(base.join("a/b/film.mp4"), b"film").unwrap();
        std::fs::write(outer.path().join("secret"), b"secret").unwrap();
        symlink("../secret", base.join("out")).unwrap();
        symlink(outer.path().join("secret"), base.join("absolute")).unwrap();
        symlink("..", base.join("up")).unwrap();
        symlink("a/b/film.mp4", base.join("inside")).unwrap();
        symlink("/proc/self/environ", base.join("environ")).unwrap();
        symlink("/proc/self/fd/0", base.join("magic")).unwrap();
        mknodat(CWD, base.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let root = Root::open(&base).unwrap();
        Tree { _outer: outer, root, base }
    }

    #[test]
    fn hostile_names_never_leave_the_root() {
        let tree = tree();
        for name in [
            "../secret",
            "a/../../secret",
            "out",
            "absolute",
            "up/secret",
            "environ",
            "magic",
            "/etc/passwd",
            ".",
        ] {
            let refused = tree.root.file(Path::new(name)).map(|o| o.stamp);
            assert!(
                matches!(refused, Err(BeneathError::Escapes | BeneathError::NotAFile)),
                "{name}: {refused:?}"
            );
        }
        for name in ["fifo", "a", "a/b"] {
            assert!(matches!(tree.root.file(Path::new(name)), Err(BeneathError::NotAFile)), "{name}");
        }
        for name in ["nothing", "a/b/film.mp4/x", "a/nothing/x"] {
            assert!(matches!(tree.root.file(Path::new(name)), Err(BeneathError::Missing)), "{name}");
        }
        let proc = Root::open(Path::new("/proc/self")).unwrap();
        assert!(proc.file(Path::new("fd/0")).is_err(), "magic links are never followed");
    }

    #[test]
    fn good_names_open_by_both_ways_of_looking() {
        let tree = tree();
        for name in ["a/b/film.mp4", "./a/./b/film.mp4", "inside"] {
            let mut text = String::new();
            tree.root.file(Path::new(name)).unwrap().file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "film", "{name}");
        }
        assert!(tree.root.walk(Path::new("a/b/film.mp4")).is_ok());
        for link in ["up/secret", "up/root/a"] {
            assert!(tree.root.walk(Path::new(link)).is_err(), "{link}");
        }
        assert_eq!(tree.root.relative(&tree.base.join("a/x")), Some(Path::new("a/x")));
        assert_eq!(tree.root.relative(Path::new("/elsewhere")), None);
    }

    #[test]
    fn a_linked_file_survives_being_swapped() {
        let tree = tree();
        let work = tempfile::tempdir_in(&tree.base).unwrap();
        let opened = tree.root.file(Path::new("a/b/film.mp4")).unwrap();
        let Named::Link(link) = opened.name_in(work.path(), "in").unwrap() else {
            panic!("same file system")
        };
        let original = tree.base.join("a/b/film.mp4");
        std::fs::remove_file(&original).unwrap();
        symlink("/etc/passwd", &original).unwrap();
        assert_eq!(std::fs::read(&link).unwrap(), b"film");
        assert_eq!(Stamp::at(&link).unwrap(), opened.stamp);
        assert_ne!(Stamp::at(&original).unwrap(), opened.stamp);
    }

    #[test]
    fn without_a_link_the_resolved_path_is_given() {
        let tree = tree();
        let opened = tree.root.file(Path::new("inside")).unwrap();
        let Named::Path(path) = opened.name_in(Path::new("/proc"), "in").unwrap() else {
            panic!("no links in /proc")
        };
        assert_eq!(path, tree.base.canonicalize().unwrap().join("a/b/film.mp4"));
    }
}

//! Getting a file's bytes under another name: a hard link, a clone, or a copy, whichever is cheapest.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::AsFd;
use rustix::fs::{self as sys, AtFlags, CWD, Mode};
use rustix::io::Errno;

use super::LocalError;

/// Bytes between two looks at the flag that ends a copy.
const CHUNK: usize = 32 * 1024 * 1024;

/// Whether a hard link was possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linked {
    /// The name is there and is the source itself.
    Yes,
    /// Another file system, another owner, or none that links: copy instead.
    No,
}

/// Gives `source` the second name `name` in `folder` with `mode`. An encode of 10 GiB is published in no time and
/// without needing its room twice when the work folder is on the destination's file system.
pub(super) fn link(
    source: &File,
    path: &Path,
    folder: impl AsFd,
    name: &str,
    mode: Mode,
) -> Result<Linked, Errno> {
    let same = |a: &sys::Stat, b: &sys::Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
    let wanted = sys::fstat(source)?;
    if sys::fstat(&folder)?.st_dev != wanted.st_dev {
        return Ok(Linked::No);
    }
    let permissions = Mode::from_raw_mode(wanted.st_mode & 0o777);
    if permissions != mode && sys::fchmod(source, mode).is_err() {
        return Ok(Linked::No);
    }
    if sys::linkat(CWD, path, &folder, name, AtFlags::empty()).is_err() {
        return Ok(Linked::No);
    }
    // The path may have been given to another file since it was opened.
    if same(&sys::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?, &wanted) {
        return Ok(Linked::Yes);
    }
    sys::unlinkat(&folder, name, AtFlags::empty())?;
    Ok(Linked::No)
}

/// Copies exactly `size` bytes, in the kernel where it can. Stops early when `abandoned` is set.
pub(super) fn copy(
    source: &mut File,
    part: &mut File,
    size: u64,
    abandoned: &AtomicBool,
) -> Result<(), LocalError> {
    let io = |errno| LocalError::Io { doing: "copy to the destination", errno };
    if sys::ioctl_ficlone(&*part, &*source).is_ok() {
        return Ok(());
    }
    let mut copied = 0_u64;
    while copied < size {
        if abandoned.load(Ordering::SeqCst) {
            return Err(LocalError::Abandoned);
        }
        let length = usize::try_from(size - copied).unwrap_or(CHUNK).min(CHUNK);
        match sys::copy_file_range(&*source, None, &*part, None, length) {
            // Some file systems refuse, and some answer 0, before the first byte: read and write then.
            Ok(0)
            | Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::BADF) =>
            {
                copied += by_hand(source, part, length).map_err(io)?;
            }
            Ok(n) => copied += n as u64,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(io(errno)),
        }
    }
    Ok(())
}

fn by_hand(source: &mut File, part: &mut File, length: usize) -> Result<u64, Errno> {
    let mut buffer = vec![0_u8; length.min(1024 * 1024)];
    let mut copied = 0;
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    while copied < length {
        let wanted = buffer.len().min(length - copied);
        let n = source.read(&mut buffer[..wanted]).map_err(errno)?;
        if n == 0 {
            // Shorter than when it was measured.
            return Err(Errno::IO);
        }
        part.write_all(&buffer[..n]).map_err(errno)?;
        copied += n;
    }
    Ok(copied as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Code, Failure};

    fn source(bytes: usize) -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("source");
        std::fs::write(&path, vec![7; bytes]).unwrap();
        let file = File::open(path).unwrap();
        (folder, file)
    }

    #[test]
    fn a_full_disk_is_said_to_be_full() {
        let (_folder, mut source) = source(100_000);
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let error = copy(&mut source, &mut full, 100_000, &AtomicBool::new(false)).unwrap_err();
        assert!(matches!(error, LocalError::Io { errno: Errno::NOSPC, .. }), "{error}");
        assert_eq!(Failure::from(error).code, Code::DiskFull);
    }

    #[test]
    fn an_abandoned_copy_stops() {
        let (folder, mut source) = source(10);
        let mut part = File::create(folder.path().join("part")).unwrap();
        // A clone needs no loop, so only file systems without clones get as far as the flag.
        match copy(&mut source, &mut part, 10, &AtomicBool::new(true)) {
            Ok(()) => assert_eq!(part.metadata().unwrap().len(), 10),
            Err(error) => assert!(matches!(error, LocalError::Abandoned)),
        }
    }

    #[test]
    fn reading_and_writing_copies_the_same_bytes() {
        let (folder, mut source) = source(3_000_000);
        let mut part = File::create(folder.path().join("part")).unwrap();
        assert_eq!(by_hand(&mut source, &mut part, 3_000_000), Ok(3_000_000));
        assert_eq!(std::fs::read(folder.path().join("part")).unwrap(), vec![7; 3_000_000]);
        assert_eq!(by_hand(&mut source, &mut part, 1), Err(Errno::IO));
    }
}

//! The data folder: ours alone, on a disk that keeps locks.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock, fstatfs};
use rustix::io::Errno;

use super::super::{Error, Result};

const LOCK_FILE: &str = "flux.lock";

/// File systems on which neither `flock` nor `SQLite`'s locks are to be trusted (statfs(2) magic numbers).
const NETWORK: [(i64, &str); 5] =
    [(0x6969, "NFS"), (0xFF53_4D42, "CIFS"), (0xFE53_4D42, "SMB2"), (0x517B, "SMB"), (0x5346_414F, "AFS")];

/// Holds the folder until dropped; the kernel lets go when the process dies.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

/// Makes the folder if needed and takes its lock without waiting.
pub(super) fn lock(folder: &Path) -> Result<FolderLock> {
    let failed = |what: &str, source: std::io::Error| Error::Open {
        what: format!("{what} {}", folder.display()),
        source: source.into(),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| failed("making the data folder", e))?;
    let path = folder.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| failed("locking the data folder", e))?;
    refuse_network(&file, folder)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let holder = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(Error::Locked { folder: folder.display().to_string(), holder });
        }
        Err(errno) => return Err(failed("locking the data folder", errno.into())),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|e| failed("locking the data folder", e))?;
    Ok(FolderLock { _file: file })
}

fn refuse_network(file: &File, folder: &Path) -> Result<()> {
    let Ok(stat) = fstatfs(file) else { return Ok(()) };
    #[expect(clippy::unnecessary_cast, reason = "the field's type differs between platforms")]
    let kind = stat.f_type as i64 & 0xFFFF_FFFF;
    match NETWORK.iter().find(|(magic, _)| *magic == kind) {
        Some((_, name)) => Err(Error::Open {
            what: format!("the data folder {}", folder.display()),
            source: format!("it is on {name}; SQLite needs a local disk").into(),
        }),
        None => Ok(()),
    }
}

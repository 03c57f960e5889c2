//! How a published file is recognised: two extended attributes that survive the rename.
//!
//! Where a file system has none (some network shares), size and SHA-256 of the content stand in for them, as PROTOCOL
//! §1.1.3 allows for stores without metadata.

use std::fs::File;

use rustix::fd::AsFd;
use rustix::fs::{self as sys, XattrFlags};
use rustix::io::Errno;

use super::super::hash_file;
use crate::domain::PublicationId;

const PUBLICATION: &str = "user.flux.publication";
const SHA256: &str = "user.flux.sha256";

/// What a file says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::storage) struct Mark {
    /// Who published it.
    pub(in crate::storage) publication: Option<PublicationId>,
    /// What was published, lower-case hex.
    pub(in crate::storage) sha256: Option<String>,
}

/// Whether a file could be marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marking {
    /// It carries this publication's mark, or the file system has no marks.
    Done,
    /// It carries the mark of another publication: this inode is published already under another name.
    Taken,
}

/// Marks a file that has no mark yet. Never changes one that has.
pub(super) fn write(file: impl AsFd, publication: PublicationId, sha256: &str) -> Marking {
    let text = publication.to_string();
    match sys::fsetxattr(&file, PUBLICATION, text.as_bytes(), XattrFlags::CREATE) {
        Err(Errno::EXIST) if read(&file).publication != Some(publication) => return Marking::Taken,
        // Without room or support for attributes the content identifies the file.
        Ok(()) | Err(_) => {}
    }
    let _ = sys::fsetxattr(&file, SHA256, sha256.as_bytes(), XattrFlags::empty());
    Marking::Done
}

/// Reads a file's mark.
pub(in crate::storage) fn read(file: impl AsFd) -> Mark {
    Mark { publication: text(&file, PUBLICATION).and_then(|id| id.parse().ok()), sha256: text(&file, SHA256) }
}

/// Whether `file` is what `publication` put there.
pub(super) fn is_of(
    file: &mut File,
    publication: PublicationId,
    size: u64,
    sha256: &str,
) -> Result<bool, Errno> {
    if let Some(found) = read(&*file).publication {
        return Ok(found == publication);
    }
    if u64::try_from(sys::fstat(&*file)?.st_size) != Ok(size) {
        return Ok(false);
    }
    hash_file(file)
        .map(|found| found == sha256)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn text(file: impl AsFd, name: &str) -> Option<String> {
    let mut value = [0_u8; 64];
    let length = sys::fgetxattr(file, name, &mut value[..]).ok()?;
    std::str::from_utf8(value.get(..length)?).ok().map(str::to_owned)
}

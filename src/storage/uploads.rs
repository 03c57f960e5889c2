//! Bytes that clients give to this server: uploads, and sources inside a request.
//!
//! Layout below the data folder, which the source side reads: `uploads/<upload id>` and `inline/<key>`, each a whole,
//! durable file or not there. While bytes arrive they are in `<name>.part` beside it, held by a lock that ends with its
//! process; a part that nobody holds is rubbish, and [`Uploads::sweep`] takes it away.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use ring::digest;
use rustix::fs::{self as sys, CWD, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use tokio::io::AsyncWriteExt;

use super::{Error, hash_file, hex, inline_folder, local, make_folder, upload_folder};
use crate::domain::{Code, Failure, ObjectPath, Source, UploadId};

/// A client that sends nothing for so long has gone.
const IDLE: Duration = Duration::from_mins(1);
const PART: &str = ".part";

/// The folders of uploads and inline sources.
#[derive(Debug)]
pub struct Uploads {
    uploads: PathBuf,
    inline: PathBuf,
}

/// An upload that is whole and on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
}

/// Why bytes were not taken. Nothing is kept of them.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// More bytes than were announced.
    #[error("the upload is longer than the {announced} bytes that were announced")]
    TooLong {
        /// Announced bytes.
        announced: u64,
    },
    /// It ended early.
    #[error("the upload ended after {received} of {announced} bytes")]
    TooShort {
        /// Announced bytes.
        announced: u64,
        /// Bytes that came.
        received: u64,
    },
    /// The client's connection broke or fell silent for a minute.
    #[error("the upload broke off after {received} bytes")]
    Interrupted {
        /// Bytes that came.
        received: u64,
        /// Why, where there is a why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Another request is sending to the same upload.
    #[error("the upload is being sent already")]
    Busy,
    /// It was received before and is never replaced: jobs rely on its content.
    #[error("the upload was received already")]
    AlreadyThere,
    /// The disk is full.
    #[error("no room is left for the upload")]
    NoSpace,
    /// The disk failed.
    #[error("cannot {doing}")]
    Disk {
        /// What we were doing.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<UploadError> for Failure {
    fn from(error: UploadError) -> Self {
        let code = match &error {
            UploadError::NoSpace => Code::DiskFull,
            UploadError::TooLong { .. } => Code::SourceTooLarge,
            UploadError::TooShort { .. }
            | UploadError::Interrupted { .. }
            | UploadError::Busy
            | UploadError::AlreadyThere => Code::SourceUnreachable,
            UploadError::Disk { .. } => Code::Internal,
        };
        let detail = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        Self::new(code, error.to_string()).with_detail(detail)
    }
}

impl Uploads {
    /// Makes the folders where they are missing.
    pub(super) fn open(data_dir: &Path) -> Result<Self, Error> {
        let folders = Self { uploads: upload_folder(data_dir), inline: inline_folder(data_dir) };
        make_folder(&folders.uploads)?;
        make_folder(&folders.inline)?;
        Ok(folders)
    }

    /// Where a finished upload lies.
    #[must_use]
    pub fn upload_path(&self, id: UploadId) -> PathBuf {
        self.uploads.join(id.to_string())
    }

    /// Where an inline source lies.
    #[must_use]
    pub fn inline_path(&self, key: &ObjectPath) -> PathBuf {
        self.inline.join(key.as_str())
    }

    /// Takes an upload of exactly `announced` bytes; durable when this returns. Not resumable: a broken upload starts
    /// over. Dropping it removes what had come.
    pub async fn receive<S, E>(
        &self,
        id: UploadId,
        announced: u64,
        stream: S,
    ) -> Result<Received, UploadError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let target = self.upload_path(id);
        let part =
            tokio::task::spawn_blocking(move || Part::open(target, announced)).await.map_err(joined)??;
        let mut file = tokio::fs::File::from_std(part.writer()?);
        let mut stream = std::pin::pin!(stream);
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut received = 0_u64;
        loop {
            let chunk = match tokio::time::timeout(IDLE, stream.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => {
                    return Err(UploadError::Interrupted { received, source: Some(error.into()) });
                }
                Err(error) => {
                    return Err(UploadError::Interrupted { received, source: Some(error.into()) });
                }
            };
            received += chunk.len() as u64;
            if received > announced {
                return Err(UploadError::TooLong { announced });
            }
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(disk("write the upload"))?;
        }
        if received < announced {
            return Err(UploadError::TooShort { announced, received });
        }
        file.flush().await.map_err(disk("write the upload"))?;
        drop(file);
        tokio::task::spawn_blocking(move || part.finish()).await.map_err(joined)??;
        Ok(Received { size: received, sha256: hex(hash.finish().as_ref()) })
    }

    /// What a finished upload is, read from its bytes: for a server that died between finishing it and recording it, and
    /// now answers [`UploadError::AlreadyThere`] to the client's second try. `None` = not there.
    pub async fn inspect(&self, id: UploadId) -> Result<Option<Received>, UploadError> {
        let path = self.upload_path(id);
        tokio::task::spawn_blocking(move || {
            let mut file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(disk("open the upload")(error)),
            };
            let size = file.metadata().map_err(disk("read the upload"))?.len();
            let sha256 = hash_file(&mut file).map_err(disk("read the upload"))?;
            Ok(Some(Received { size, sha256 }))
        })
        .await
        .map_err(joined)?
    }

    /// Stores a source that came inside a request; durable when this returns. Storing the same key with the same bytes
    /// again is fine, other bytes are [`UploadError::AlreadyThere`].
    pub async fn store_inline(&self, key: &ObjectPath, bytes: Bytes) -> Result<Received, UploadError> {
        let (root, target) = (self.inline.clone(), self.inline_path(key));
        tokio::task::spawn_blocking(move || {
            if let Some(folder) = target.parent() {
                std::fs::create_dir_all(folder).map_err(disk("make a folder for the source"))?;
            }
            let received = Received {
                size: bytes.len() as u64,
                sha256: hex(digest::digest(&digest::SHA256, &bytes).as_ref()),
            };
            if std::fs::read(&target).is_ok_and(|there| there == bytes) {
                return Ok(received);
            }
            let part = Part::open(target.clone(), received.size)?;
            io::Write::write_all(&mut part.writer()?, &bytes).map_err(disk("write the source"))?;
            part.finish()?;
            // The key's own folders may be new.
            for folder in target.ancestors().skip(2).take_while(|folder| folder.starts_with(&root)) {
                let folder = File::open(folder).map_err(disk("finish the source"))?;
                local::sync_folder(&folder).map_err(|errno| disk("finish the source")(errno.into()))?;
            }
            Ok(received)
        })
        .await
        .map_err(joined)?
    }

    /// Removes an upload; one that is not there is fine.
    pub async fn remove(&self, id: UploadId) -> Result<(), UploadError> {
        remove(self.upload_path(id)).await
    }

    /// Removes an inline source; one that is not there is fine.
    pub async fn remove_inline(&self, key: &ObjectPath) -> Result<(), UploadError> {
        remove(self.inline_path(key)).await
    }

    /// Removes what this server keeps for a source that no job needs any more, which is nothing for the kinds whose
    /// bytes belong to somebody else.
    pub async fn remove_source(&self, source: &Source) -> Result<(), UploadError> {
        match source {
            Source::Upload { id } => self.remove(*id).await,
            Source::Inline { key, .. } => self.remove_inline(key).await,
            Source::Http { .. }
            | Source::Ftp { .. }
            | Source::Bucket { .. }
            | Source::File { .. }
            | Source::Storage { .. } => Ok(()),
        }
    }

    /// Everything that is kept whole: the uploads, and the inline sources that lie directly below their folder, as those
    /// do whose key is a job's id. Blocks for a listing of two folders.
    pub fn kept(&self) -> Result<Vec<Source>, UploadError> {
        let listing = disk("list stored sources");
        let mut kept = Vec::new();
        for entry in std::fs::read_dir(&self.uploads).map_err(&listing)? {
            let name = entry.map_err(&listing)?.file_name();
            if let Some(id) = name.to_str().and_then(|name| name.parse().ok()) {
                kept.push(Source::Upload { id });
            }
        }
        for entry in std::fs::read_dir(&self.inline).map_err(&listing)? {
            let entry = entry.map_err(&listing)?;
            let size = entry.metadata().map_err(&listing)?;
            let name = entry.file_name().into_string().ok().filter(|name| !name.ends_with(PART));
            if let (Some(Ok(key)), true) = (name.map(ObjectPath::parse), size.is_file()) {
                kept.push(Source::Inline { key, size: size.len() });
            }
        }
        Ok(kept)
    }

    /// Removes parts that a crash left behind, below both folders; returns how many. Parts that are being written are
    /// locked and stay.
    pub async fn sweep(&self) -> Result<u64, UploadError> {
        let folders = [self.uploads.clone(), self.inline.clone()];
        tokio::task::spawn_blocking(move || {
            let mut removed = 0;
            let mut waiting = Vec::from(folders);
            while let Some(folder) = waiting.pop() {
                for entry in std::fs::read_dir(&folder).map_err(disk("list uploads"))? {
                    let entry = entry.map_err(disk("list uploads"))?;
                    let path = entry.path();
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        waiting.push(path);
                    } else if path.as_os_str().as_encoded_bytes().ends_with(PART.as_bytes()) {
                        removed += u64::from(sweep_part(&path));
                    }
                }
            }
            Ok(removed)
        })
        .await
        .map_err(joined)?
    }
}

/// A file that is being written, locked; removed when dropped before it is finished.
struct Part {
    file: File,
    path: PathBuf,
    target: PathBuf,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Open,
    Finished,
}

impl Part {
    /// Opens `<target>.part` for this process alone, with room for `size` bytes where the file system reserves.
    fn open(target: PathBuf, size: u64) -> Result<Self, UploadError> {
        if target.try_exists().map_err(disk("look for the upload"))? {
            return Err(UploadError::AlreadyThere);
        }
        let path = part_path(&target);
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opening = |errno: Errno| disk("open the upload")(errno.into());
        // The name may go to another inode between opening and locking: a holder that finishes renames it away.
        for _ in 0..8 {
            let file = File::from(sys::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(opening)?);
            match sys::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(UploadError::Busy),
                Err(errno) => return Err(opening(errno)),
            }
            if !is_named(&file, &path) {
                continue;
            }
            let part = Self { file, path, target, state: State::Open };
            part.file.set_len(0).map_err(disk("open the upload"))?;
            reserve(&part.file, size)?;
            // The previous holder may have finished since the first look.
            if part.target.try_exists().map_err(disk("look for the upload"))? {
                return Err(UploadError::AlreadyThere);
            }
            return Ok(part);
        }
        Err(UploadError::Busy)
    }

    fn writer(&self) -> Result<File, UploadError> {
        self.file.try_clone().map_err(disk("open the upload"))
    }

    /// Makes the file durable under its final name, which must be free.
    fn finish(mut self) -> Result<(), UploadError> {
        let doing = |errno: Errno| disk("finish the upload")(errno.into());
        self.file.sync_all().map_err(disk("finish the upload"))?;
        match sys::renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(UploadError::AlreadyThere),
            // File systems without NOREPLACE: the lock on the part keeps other writers away already.
            Err(Errno::INVAL | Errno::NOSYS) => {
                sys::renameat(CWD, &self.path, CWD, &self.target).map_err(doing)?;
            }
            Err(errno) => return Err(doing(errno)),
        }
        self.state = State::Finished;
        if let Some(folder) = self.target.parent() {
            let folder = File::open(folder).map_err(disk("finish the upload"))?;
            local::sync_folder(&folder).map_err(doing)?;
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.state == State::Open {
            let _ = sys::unlink(&self.path);
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A full disk is better said before the client has sent 50 GiB. The free space is asked first, because a `fallocate`
/// that is going to fail takes all that is left, for a moment, from everybody else on the disk.
fn reserve(file: &File, size: u64) -> Result<(), UploadError> {
    let disk = sys::fstatvfs(file).map_err(|errno| disk("look at the disk")(errno.into()))?;
    if size > disk.f_bavail.saturating_mul(disk.f_frsize) {
        return Err(UploadError::NoSpace);
    }
    if size == 0 {
        return Ok(());
    }
    match sys::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
        Err(Errno::NOSPC | Errno::DQUOT) => Err(UploadError::NoSpace),
        // Not every file system can reserve; the write itself will tell.
        Ok(()) | Err(_) => Ok(()),
    }
}

fn part_path(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(PART);
    name.into()
}

/// Whether `path` still names the open `file`.
fn is_named(file: &File, path: &Path) -> bool {
    match (sys::fstat(file), sys::lstat(path)) {
        (Ok(open), Ok(named)) => (open.st_dev, open.st_ino) == (named.st_dev, named.st_ino),
        _ => false,
    }
}

fn sweep_part(path: &Path) -> bool {
    let Ok(file) =
        sys::open(path, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map(File::from)
    else {
        return false;
    };
    let free = sys::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    free && is_named(&file, path) && sys::unlink(path).is_ok()
}

async fn remove(path: PathBuf) -> Result<(), UploadError> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk("remove the upload")(error)),
        _ => Ok(()),
    }
}

fn disk(doing: &'static str) -> impl Fn(io::Error) -> UploadError {
    move |source| match Errno::from_io_error(&source) {
        Some(Errno::NOSPC | Errno::DQUOT) => UploadError::NoSpace,
        _ => UploadError::Disk { doing, source },
    }
}

fn joined(error: tokio::task::JoinError) -> UploadError {
    UploadError::Disk { doing: "finish a file operation", source: error.into() }
}

#[cfg(test)]
mod tests;

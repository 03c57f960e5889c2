//! A source that is a file on this machine.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::Traffic;
use crate::domain::{Code, Failure};
use crate::storage::beneath::{Named, Opened, Stamp};
use crate::storage::origin::changed;

/// An opened file with a name for ffmpeg.
#[derive(Debug)]
pub(super) struct Local {
    file: Arc<File>,
    stamp: Stamp,
    named: Named,
    served: AtomicU64,
}

impl Local {
    pub(super) fn new(opened: Opened, work: &Path, name: &str) -> io::Result<Self> {
        let named = opened.name_in(work, name)?;
        Ok(Self { file: Arc::new(opened.file), stamp: opened.stamp, named, served: AtomicU64::new(0) })
    }

    pub(super) const fn size(&self) -> u64 {
        self.stamp.size
    }

    pub(super) fn path(&self) -> &Path {
        match &self.named {
            Named::Link(path) | Named::Path(path) => path,
        }
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic { fetched: 0, served: self.served.load(Ordering::Relaxed), present: self.size() }
    }

    pub(super) async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, Failure> {
        let left = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(left)];
        let file = Arc::clone(&self.file);
        let read = off_thread(move || match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        });
        let bytes = read.await?.ok_or_else(|| changed("the file became shorter"))?;
        self.served.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.into())
    }

    /// Whether the file, and what its name stands for, is what was opened.
    pub(super) async fn verdict(&self) -> Result<(), Failure> {
        let (file, path, opened): (_, PathBuf, _) =
            (Arc::clone(&self.file), self.path().to_owned(), self.stamp);
        let now = off_thread(move || Ok((Stamp::of(&file)?, Stamp::at(&path).ok()))).await?;
        if now == (opened, Some(opened)) {
            Ok(())
        } else {
            Err(changed(format!("opened {opened:?}, now {now:?}")))
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Named::Link(path) = &self.named
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, "the source's link was gone already");
        }
    }
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    done.map_err(|error| {
        Failure::new(Code::SourceUnreachable, "The source could not be read.").with_detail(error.to_string())
    })
}

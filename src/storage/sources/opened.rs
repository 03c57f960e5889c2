//! A source that is open: reading it, and what became of it.

use std::path::PathBuf;

use bytes::Bytes;

use super::super::gateway::{Remote, Traffic};
use super::local::Local;
use crate::domain::Failure;

/// What is given to ffmpeg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceInput {
    /// A whole file; no network is needed.
    File(PathBuf),
    /// A seekable URL on this machine.
    Loopback {
        /// `http://127.0.0.1:PORT/TOKEN/in`.
        url: String,
    },
}

/// An open source. Dropping it cancels its fetches, closes its listener and removes what it put into the work folder.
pub struct OpenSource {
    kind: Kind,
}

pub(super) enum Kind {
    Local(Local),
    Remote(Remote),
}

impl From<Kind> for OpenSource {
    fn from(kind: Kind) -> Self {
        Self { kind }
    }
}

impl OpenSource {
    /// Bytes in all; never 0.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.kind {
            Kind::Local(local) => local.size(),
            Kind::Remote(remote) => remote.size(),
        }
    }

    /// Bytes of it that are on this machine's disk for it at most; 0 for a file that is here anyway.
    #[must_use]
    pub fn cached_at_most(&self) -> u64 {
        match &self.kind {
            Kind::Local(_) => 0,
            Kind::Remote(remote) => remote.cached_at_most(),
        }
    }

    /// The best way to read it right now: a file as soon as all of it is here.
    #[must_use]
    pub fn input(&self) -> SourceInput {
        match &self.kind {
            Kind::Local(local) => SourceInput::File(local.path().to_owned()),
            Kind::Remote(remote) => match (remote.file(), remote.url()) {
                (None, Some(url)) => SourceInput::Loopback { url: url.to_owned() },
                (file, _) => SourceInput::File(file.unwrap_or_default()),
            },
        }
    }

    /// Up to `len` bytes at `offset`; fewer only at the end, none beyond it. Waits for bytes that are not here yet.
    ///
    /// # Errors
    /// The source's failure.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, Failure> {
        match &self.kind {
            Kind::Local(local) => local.read_at(offset, len).await,
            Kind::Remote(remote) => remote.read_at(offset, len).await,
        }
    }

    /// Fetches what is missing as soon as no reader wants anything else, where its cache has room for all of it; a hint.
    pub fn fill_to_end(&self) {
        match &self.kind {
            Kind::Local(_) => {}
            Kind::Remote(remote) => remote.fill_to_end(),
        }
    }

    /// Waits until all of it is here, so that [`OpenSource::input`] is a file.
    ///
    /// # Errors
    /// The source's failure; `disk_full` where it is larger than its cache may be.
    pub async fn whole(&self) -> Result<(), Failure> {
        match &self.kind {
            Kind::Local(_) => Ok(()),
            Kind::Remote(remote) => remote.whole().await,
        }
    }

    /// Resolves on a definite failure and never otherwise. Readers are held from then on: whoever runs ffmpeg kills it.
    pub async fn failed(&self) -> Failure {
        match &self.kind {
            Kind::Local(_) => std::future::pending().await,
            Kind::Remote(remote) => remote.failed().await,
        }
    }

    /// What was moved so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        match &self.kind {
            Kind::Local(local) => local.traffic(),
            Kind::Remote(remote) => remote.traffic(),
        }
    }

    /// Whether what was read was the source. To be asked once its readers are gone, before their result is believed.
    ///
    /// # Errors
    /// The source's failure: bytes that are missing, or that changed while they were read.
    pub async fn verdict(self) -> Result<(), Failure> {
        match &self.kind {
            Kind::Local(local) => local.verdict().await,
            Kind::Remote(remote) => remote.failure().map_or(Ok(()), Err),
        }
    }
}

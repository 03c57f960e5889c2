//! Uploads that clients send to the storage themselves. Where the storage is a folder, nothing is found there.

use std::time::Duration;

use super::object::Bucket;
use super::{Storage, destinations};
use crate::domain::uploads::{Assembled, Claim, Invitation};
use crate::domain::{Failure, Source, UploadId};

/// Who takes what clients upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadPlace {
    /// This server, in its data folder.
    Server,
    /// The storage, from the client itself.
    Storage,
}

impl Storage {
    /// Where clients send an upload of `size` bytes.
    #[must_use]
    pub fn upload_place(&self, size: u64) -> UploadPlace {
        match self.bucket() {
            Some(bucket) if bucket.invites(size) => UploadPlace::Storage,
            Some(_) | None => UploadPlace::Server,
        }
    }

    /// Signed URLs for an upload, good for `life`; `None` = the storage's credentials cannot sign, or there is no bucket:
    /// it goes to this server.
    pub async fn invite(
        &self,
        upload: (UploadId, u64),
        content_type: Option<&str>,
        life: Duration,
    ) -> Result<Option<Invitation>, Failure> {
        match self.bucket() {
            Some(bucket) => bucket.invite(upload, content_type, life).await,
            None => Ok(None),
        }
    }

    /// Puts the parts of an upload together, given their entity tags in order.
    pub async fn assemble(&self, id: UploadId, etags: &[String]) -> Result<Assembled, Failure> {
        match self.bucket() {
            Some(bucket) => bucket.assemble(id, etags).await,
            None => Ok(Assembled::Done),
        }
    }

    /// Looks for an upload of `size` bytes in the storage and keeps it from changing.
    pub async fn claim(&self, id: UploadId, size: u64) -> Result<Claim, Failure> {
        match self.bucket() {
            Some(bucket) => bucket.claim(id, size).await,
            None => Ok(Claim::Missing),
        }
    }

    /// Whether the storage has this upload.
    pub async fn has(&self, id: UploadId) -> Result<bool, Failure> {
        match self.bucket() {
            Some(bucket) => Ok(bucket.find(bucket.upload(id)?.as_ref()).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Removes whatever clients gave for a source, here and in the storage.
    pub async fn remove_source(&self, source: &Source) -> Result<(), Failure> {
        self.uploads.remove_source(source).await?;
        match (source, self.bucket()) {
            (Source::Upload { id, .. }, Some(bucket)) => bucket.discard(*id).await,
            _ => Ok(()),
        }
    }

    fn bucket(&self) -> Option<&Bucket> {
        match &self.destinations.inner.storage {
            destinations::Configured::Bucket(bucket) => Some(bucket),
            destinations::Configured::Folder(_) => None,
        }
    }
}

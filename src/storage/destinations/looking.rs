//! What is at a destination now, and whether it can be written at all.

use super::places::Located;
use super::{Configured, Destinations, Existing, Fencing, Reading, blocking};
use crate::domain::{Code, Destination, Failure, ObjectPath, Overwrite, PublicationId};
use crate::storage::local;

impl Destinations {
    /// What is at a destination now, so that a job recognises its own publications before it encodes or refuses.
    pub async fn existing(&self, destination: &Destination) -> Result<Option<Existing>, Failure> {
        match destination {
            // What is there already does not matter to a receiver.
            Destination::Http { .. } => return Ok(None),
            Destination::Ftp { url, .. } => return self.inner.senders.existing(url, &self.secrets).await,
            Destination::Storage { .. } | Destination::File { .. } | Destination::Bucket { .. } => {}
        }
        match self.locate(destination)? {
            Located::File { root, path } => {
                let root = root.clone();
                let found = blocking(move || local::existing(&root, &path)).await?;
                Ok(found.map(|found| Existing {
                    publication: found.mark.publication,
                    size: found.size,
                    sha256: found.mark.sha256,
                    etag: Some(found.etag),
                }))
            }
            Located::Object { bucket, key } => Ok(bucket.find(&key).await?.map(|found| Existing {
                publication: found.publication,
                size: found.size,
                sha256: found.sha256,
                etag: found.etag,
            })),
        }
    }

    /// Removes what a publication put at a destination, if it is still there, and then `others`, the other files of a set;
    /// whether it was. Whatever else is there by now stays, and so does everything where the destination cannot tell (a
    /// file system without attributes).
    pub async fn remove(
        &self,
        destination: &Destination,
        publication: PublicationId,
        others: &[String],
    ) -> Result<bool, Failure> {
        let removed = self.remove_entry(destination, publication).await?;
        self.remove_others(destination, publication, others).await?;
        Ok(removed)
    }

    pub(super) async fn remove_entry(
        &self,
        destination: &Destination,
        publication: PublicationId,
    ) -> Result<bool, Failure> {
        match self.locate(destination)? {
            Located::File { root, path } => {
                let root = root.clone();
                Ok(blocking(move || local::remove_result(&root, &path, publication)).await?)
            }
            Located::Object { bucket, key } => {
                let found = bucket.find(&key).await?;
                let ours = found.is_some_and(|found| found.publication == Some(publication));
                if ours {
                    bucket.delete(&key).await?;
                }
                Ok(ours)
            }
        }
    }

    /// Refuses a place that must not be overwritten and is taken. A look ahead that spares an encode: who is in time is
    /// decided by the commit.
    pub async fn refuse_taken(&self, destination: &Destination) -> Result<(), Failure> {
        match destination.overwrite() {
            Overwrite::Replace => Ok(()),
            Overwrite::Fail => match self.existing(destination).await? {
                Some(_) => Err(local::already_there()),
                None => Ok(()),
            },
        }
    }

    /// Whether what is published there is a file of this machine, which is on disk before it is visible.
    #[must_use]
    pub fn keeps_files(&self, destination: &Destination) -> bool {
        matches!(self.locate(destination), Ok(Located::File { .. }))
    }

    /// Whether the configured storage can be written and fences: writes, destroys, and tries to commit. Leaves nothing
    /// behind. `probe` is a fresh random id.
    pub async fn reachable(&self, probe: PublicationId) -> Result<Fencing, Failure> {
        let works = match &self.inner.storage {
            Configured::Folder(root) => {
                let root = root.clone();
                blocking(move || local::check_fence(&root, probe)).await?
            }
            Configured::Bucket(bucket) => {
                let name = ObjectPath::parse(format!(".flux-{probe}.check"))
                    .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
                bucket.check_fence(&bucket.key(&name), probe).await?
            }
        };
        Ok(if works { Fencing::Works } else { Fencing::Broken })
    }

    /// The storage for reading sources from.
    #[must_use]
    pub fn reading(&self) -> Reading {
        match &self.inner.storage {
            Configured::Folder(root) => Reading::Folder(root.path().to_owned()),
            Configured::Bucket(bucket) => {
                Reading::Objects { store: bucket.reader(), prefix: bucket.prefix().cloned() }
            }
        }
    }
}

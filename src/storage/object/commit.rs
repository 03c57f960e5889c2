//! What becomes of an upload: it is committed, or destroyed for ever. The store itself decides which, so that no two
//! processes need to agree about it.

use object_store::ObjectStoreExt as _;
use object_store::multipart::PartId;
use tokio::time::Instant;

use super::super::local::{already_there, withdrawn};
use super::fault::{Answer, answer, failure, told};
use super::{Bucket, Found, LONGEST_SETTLE_PAUSE, Multi, SEND_TIMEOUT, SETTLE_PAUSE, Staging, blob, path};
use crate::domain::{Code, Failure, Overwrite, PublicationId};

/// An incomplete upload.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) struct Upload<'a> {
    pub(in crate::storage) key: &'a str,
    pub(in crate::storage) id: &'a str,
    pub(in crate::storage) publication: PublicationId,
    /// Bytes of the whole file.
    pub(in crate::storage) size: u64,
}

impl Upload<'_> {
    /// Whether an object is what this upload became. The size is looked at too, because not every store sets metadata
    /// and content in one step (s3s-fs writes the metadata first, and stops there when its disk is full).
    fn became(&self, found: &Found) -> bool {
        found.publication == Some(self.publication) && found.size == self.size
    }

    /// Whether an object is marked as this upload and is not whole.
    fn is_half(&self, found: &Found) -> bool {
        found.publication == Some(self.publication) && found.size != self.size
    }
}

impl Bucket {
    /// Completes an upload, or finds that it was completed before. `overwrite: fail` is checked first and, where the
    /// store knows `If-None-Match` on Complete (AWS, `MinIO`, Ceph), enforced by it; elsewhere two publishers that commit
    /// within the same moment can both pass the check, and the later one stays.
    pub(in crate::storage) async fn commit(
        &self,
        upload: Upload<'_>,
        parts: &[String],
        overwrite: Overwrite,
    ) -> Result<(), Failure> {
        if parts.is_empty() {
            // `object_store` would complete it as an empty object.
            return Err(Failure::new(Code::Internal, "the file at the destination is not whole"));
        }
        let completed = match overwrite {
            Overwrite::Replace => self.complete(&*self.sending, upload, parts).await,
            Overwrite::Fail => match self.settled(upload).await? {
                Some(found) if upload.became(&found) => {
                    self.tidy(upload).await;
                    return Ok(());
                }
                Some(_) => return Err(already_there()),
                None => self.complete_new(upload, parts).await,
            },
        };
        let Err(error) = completed else {
            if self.staging == Staging::Blobs {
                self.settled(upload).await?;
            }
            self.tidy(upload).await;
            return Ok(());
        };
        // A lost answer and a repeated commit both look like a refused one until the object itself is asked.
        let found = self.settled(upload).await;
        if matches!(&found, Ok(Some(found)) if upload.became(found)) {
            self.tidy(upload).await;
            return Ok(());
        }
        Err(match answer(&error) {
            Answer::NoSuchKey if self.staging == Staging::Blobs => withdrawn().with_detail(told(&error)),
            Answer::NoSuchUpload => withdrawn().with_detail(told(&error)),
            Answer::Taken => already_there().with_detail(told(&error)),
            _ => failure(&error),
        })
    }

    async fn complete(
        &self,
        client: &dyn Multi,
        upload: Upload<'_>,
        parts: &[String],
    ) -> object_store::Result<()> {
        if self.staging == Staging::Blobs {
            return blob::copy(client, upload.id, upload.key, Overwrite::Replace).await;
        }
        let key = object_store::path::Path::parse(upload.key)?;
        let parts = parts.iter().map(|etag| PartId { content_id: etag.clone() }).collect();
        client.complete_multipart(&key, &upload.id.to_owned(), parts).await.map(|_| ())
    }

    /// Completes only onto a free key, if the store can; one that says it cannot is asked without the condition.
    pub(in crate::storage) async fn complete_new(
        &self,
        upload: Upload<'_>,
        parts: &[String],
    ) -> object_store::Result<()> {
        if self.staging == Staging::Blobs {
            return blob::copy(&*self.sending, upload.id, upload.key, Overwrite::Fail).await;
        }
        let Some(finishing_new) = &self.finishing_new else {
            return self.complete(&*self.sending, upload, parts).await;
        };
        match self.complete(&**finishing_new, upload, parts).await {
            Err(error) if answer(&error) == Answer::NotImplemented => {
                self.complete(&*self.sending, upload, parts).await
            }
            other => other,
        }
    }

    /// What is at an upload's key. Azure may still be copying a large blob when it answers: what it shows until then is
    /// marked and not whole.
    async fn settled(&self, upload: Upload<'_>) -> Result<Option<Found>, Failure> {
        let mut pause = SETTLE_PAUSE;
        let begun = Instant::now();
        loop {
            let found = self.find(upload.key).await?;
            if self.staging == Staging::Uploads || !found.as_ref().is_some_and(|found| upload.is_half(found))
            {
                return Ok(found);
            }
            if begun.elapsed() > SEND_TIMEOUT {
                let message = "the object store did not finish copying the file";
                return Err(Failure::new(Code::DestinationUnreachable, message));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_SETTLE_PAUSE);
        }
    }

    /// Removes the temporary blob of what was committed. One that stays is harmless: copying it again changes nothing.
    async fn tidy(&self, upload: Upload<'_>) {
        if self.staging == Staging::Blobs
            && let Err(failure) = blob::delete(&*self.reading, upload.id).await
        {
            tracing::warn!(%failure, detail = failure.detail, "could not remove a temporary blob");
        }
    }

    /// Aborts an upload, for ever, and looks whether it had been completed.
    pub(in crate::storage) async fn destroy(&self, upload: Upload<'_>) -> Result<Destroyed, Failure> {
        if self.staging == Staging::Blobs {
            // First the fence, then the look: in the other order a copy could slip in between.
            blob::delete(&*self.reading, upload.id).await?;
            return match self.find(upload.key).await? {
                Some(found) if upload.became(&found) => Ok(Destroyed::WasCommitted),
                // A copy that is not done: without its target it never will be.
                Some(found) if upload.is_half(&found) => {
                    blob::delete(&*self.reading, upload.key).await.map(|()| Destroyed::Dead)
                }
                _ => Ok(Destroyed::Dead),
            };
        }
        let gone = match self.reading.abort_multipart(&path(upload.key)?, &upload.id.to_owned()).await {
            Ok(()) => Gone::Now,
            Err(error) => match answer(&error) {
                // Without its bucket an upload cannot be completed either.
                Answer::NoSuchUpload | Answer::NoSuchBucket => Gone::Before,
                _ => Gone::Unknown(error),
            },
        };
        match (self.find(upload.key).await, gone) {
            (Ok(Some(found)), _) if upload.became(&found) => Ok(Destroyed::WasCommitted),
            (Ok(_), Gone::Now | Gone::Before) => Ok(Destroyed::Dead),
            // Not being allowed to look does not matter when the abort itself found the upload alive.
            (Err(refused), Gone::Now) if refused.code == Code::DestinationForbidden => Ok(Destroyed::Dead),
            (Err(failure), Gone::Now | Gone::Before) => Err(failure),
            (_, Gone::Unknown(error)) => Err(failure(&error)),
        }
    }

    /// Create, one part, Abort, Complete: whether the last one is refused.
    pub(in crate::storage) async fn check_fence(
        &self,
        key: &str,
        publication: PublicationId,
    ) -> Result<bool, Failure> {
        if self.staging == Staging::Blobs {
            return self.check_blob_fence(key, publication).await;
        }
        let probe = path(key)?;
        let id = self.sending.create_multipart(&probe).await.map_err(|error| failure(&error))?;
        let upload = Upload { key, id: &id, publication, size: 4 };
        let part = self.sending.put_part(&probe, &id, 0, bytes::Bytes::from_static(b"flux").into()).await;
        let aborted = self.reading.abort_multipart(&probe, &id).await;
        let part = part.map_err(|error| failure(&error))?;
        aborted.map_err(|error| failure(&error))?;
        match self.complete(&*self.sending, upload, &[part.content_id]).await {
            Ok(()) => {
                self.reading.delete(&probe).await.map_err(|error| failure(&error))?;
                Ok(false)
            }
            Err(error) => match answer(&error) {
                Answer::Unreachable => Err(failure(&error)),
                _ => Ok(self.find(key).await?.is_none()),
            },
        }
    }

    /// Write a temporary blob, delete it, copy it: whether the last one is refused.
    async fn check_blob_fence(&self, key: &str, publication: PublicationId) -> Result<bool, Failure> {
        let id = blob::beside(key, publication);
        let written = self.sending.put(&path(&id)?, bytes::Bytes::from_static(b"flux").into()).await;
        written.map_err(|error| failure(&error))?;
        blob::delete(&*self.reading, &id).await?;
        match blob::copy(&*self.sending, &id, key, Overwrite::Replace).await {
            Ok(()) => {
                blob::delete(&*self.reading, key).await?;
                Ok(false)
            }
            Err(error) => match answer(&error) {
                Answer::Unreachable => Err(failure(&error)),
                _ => Ok(self.find(key).await?.is_none()),
            },
        }
    }
}

/// What an aborted upload had come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Destroyed {
    Dead,
    WasCommitted,
}

/// What an Abort said.
enum Gone {
    Now,
    Before,
    Unknown(object_store::Error),
}

//! Uploads that clients send to the bucket themselves, with URLs signed for one request each.
//!
//! Below `.flux-uploads/` of the configured prefix, where no source and no destination may be named:
//! `ID.incoming` is what a client puts in one request, for as long as its URL is good, again and again if it likes;
//! `ID.parts` holds the store's name of a multipart upload, which nothing else would remember; `ID` is the upload that
//! jobs read. No signed URL names it, so it never changes: one request's bytes are copied there by the store when the
//! upload is claimed, and parts are completed there by this server alone.
//!
//! Nothing here binds how many bytes a client sends: the signer of `object_store` leaves `content-length` out, and Google
//! and Azure have no such thing. What is too much is refused by the claim and swept.
//!
//! Azure has no multipart uploads that a server could complete for a client that it does not trust with the blob itself:
//! there all that one request can carry goes in one, and the rest to this server.

use std::time::Duration;

use http::{HeaderValue, Method, header};
use object_store::ObjectStoreExt as _;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::signer::SignedUrlOptions;
use tokio::time::Instant;
use url::Url;

use super::{Answer, Bucket, LONGEST_SETTLE_PAUSE, SETTLE_PAUSE, Staging, answer, failure, path};
use crate::domain::uploads::{Assembled, Claim, Invitation};
use crate::domain::{Code, Failure, ObjectPath, UploadId};

/// Largest upload in one request. A copy of it takes the store a second or two.
const WHOLE: u64 = 64 * 1024 * 1024;
/// Largest blob of one request.
const WHOLE_BLOB: u64 = 5_000 * 1024 * 1024;
/// Longest wait for Azure's copy of it; the claim of a client that asks again finds it done.
const COPIED: Duration = Duration::from_secs(20);
/// Smallest part, but for the last one.
const PART: u64 = 64 * 1024 * 1024;
/// Most parts: their URLs are half a megabyte. S3 takes 10,000.
const MOST_PARTS: u64 = 1_000;
/// Longest life of a URL that S3 signs.
const LONGEST: Duration = Duration::from_hours(7 * 24);
/// Where uploads are, below the prefix.
pub(in crate::storage) const UPLOADS: &str = ".flux-uploads";

/// Bytes of each part of an upload.
fn part_size(size: u64) -> u64 {
    PART.max(size.div_ceil(MOST_PARTS))
}

impl Bucket {
    /// Where the upload lies that jobs read.
    pub(in crate::storage) fn upload(&self, id: UploadId) -> Result<Path, Failure> {
        self.own(&id.to_string())
    }

    fn own(&self, name: &str) -> Result<Path, Failure> {
        let own = ObjectPath::parse(format!("{UPLOADS}/{name}"))
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        path(&self.key(&own))
    }

    fn incoming(&self, id: UploadId) -> Result<Path, Failure> {
        self.own(&format!("{id}.incoming"))
    }

    fn parts(&self, id: UploadId) -> Result<Path, Failure> {
        self.own(&format!("{id}.parts"))
    }

    /// Whether clients can send an upload of this size to the bucket itself.
    pub(in crate::storage) fn invites(&self, size: u64) -> bool {
        match self.staging {
            Staging::Uploads => true,
            Staging::Blobs => size <= WHOLE_BLOB,
        }
    }

    /// URLs for an upload, good for `life`, at most a week. `None` where the credentials cannot sign any.
    pub(in crate::storage) async fn invite(
        &self,
        (id, size): (UploadId, u64),
        content_type: Option<&str>,
        life: Duration,
    ) -> Result<Option<Invitation>, Failure> {
        let life = life.min(LONGEST);
        match self.staging {
            Staging::Blobs => self.invite_blob(id, life).await,
            Staging::Uploads if size <= WHOLE => {
                let mut options = SignedUrlOptions::default();
                let kind = content_type.and_then(|kind| HeaderValue::from_str(kind).ok());
                options.signed_headers.extend(kind.map(|kind| (header::CONTENT_TYPE, kind)));
                let url =
                    self.reading.signed_url_opts(Method::PUT, &self.incoming(id)?, life, &options).await;
                let headers = content_type.map(|kind| ("content-type".to_owned(), kind.to_owned()));
                Ok(signable(url).map(|url| Invitation::Whole { url, headers: headers.into_iter().collect() }))
            }
            Staging::Uploads => self.invite_parts((id, size), life).await,
        }
    }

    /// Azure signs no headers; it wants to be told what kind of blob it is.
    async fn invite_blob(&self, id: UploadId, life: Duration) -> Result<Option<Invitation>, Failure> {
        let kind = ("x-ms-blob-type".to_owned(), "BlockBlob".to_owned());
        let signed = self.reading.signed_url(Method::PUT, &self.incoming(id)?, life).await;
        Ok(signable(signed).map(|url| Invitation::Whole { url, headers: vec![kind] }))
    }

    async fn invite_parts(
        &self,
        (id, size): (UploadId, u64),
        life: Duration,
    ) -> Result<Option<Invitation>, Failure> {
        let refused = |error| failure(&error);
        let target = self.upload(id)?;
        // Without the ACL of results: what clients send is nobody else's to read.
        let upload = self.reading.create_multipart(&target).await.map_err(refused)?;
        let noted = self.reading.put(&self.parts(id)?, upload.clone().into_bytes().into()).await;
        if let Err(error) = noted {
            // Nobody will know of it; that the abort fails as well is the bucket's lifecycle rule's to repair.
            let _ = self.reading.abort_multipart(&target, &upload).await;
            return Err(refused(error));
        }
        let part = part_size(size);
        let mut urls = Vec::new();
        for number in 1..=size.div_ceil(part) {
            let query = [("partNumber", number.to_string()), ("uploadId", upload.clone())];
            let options = SignedUrlOptions::default().with_query(query);
            let url = self.reading.signed_url_opts(Method::PUT, &target, life, &options).await;
            let Some(url) = signable(url) else {
                self.discard(id).await?;
                return Ok(None);
            };
            urls.push(url);
        }
        Ok(Some(Invitation::Parts { size: part, urls }))
    }

    /// Puts the parts together, given their entity tags in order. One that was completed before stays as it is.
    pub(in crate::storage) async fn assemble(
        &self,
        id: UploadId,
        etags: &[String],
    ) -> Result<Assembled, Failure> {
        let (target, Some(upload)) = (self.upload(id)?, self.multipart(id).await?) else {
            return Ok(Assembled::Done);
        };
        let parts = etags.iter().map(|etag| PartId { content_id: etag.clone() }).collect();
        match self.reading.complete_multipart(&target, &upload, parts).await {
            Ok(_) => {}
            Err(error) => match answer(&error) {
                // Completed before, and the answer was lost; or it is gone, which the claim finds.
                Answer::NoSuchUpload => {}
                Answer::Refused => return Ok(Assembled::Refused),
                _ => return Err(failure(&error)),
            },
        }
        self.remove(&self.parts(id)?).await?;
        Ok(Assembled::Done)
    }

    /// Looks for an upload and keeps it from changing.
    pub(in crate::storage) async fn claim(&self, id: UploadId, size: u64) -> Result<Claim, Failure> {
        let target = self.upload(id)?;
        match self.look(&target, size).await? {
            // Azure shows an empty blob while it copies, for which the copy below is made again.
            Some(Claim::Size(0)) if self.staging == Staging::Blobs => {}
            Some(claim) => return Ok(claim),
            None => {}
        }
        let incoming = self.incoming(id)?;
        match self.look(&incoming, size).await? {
            None => return Ok(Claim::Missing),
            Some(Claim::Whole { .. }) => {}
            Some(other) => return Ok(other),
        }
        self.reading.copy(&incoming, &target).await.map_err(|error| failure(&error))?;
        // The client may have put other bytes between the look and the copy; from here on it cannot.
        let claim = self.copied(&target, size).await?;
        match claim {
            Claim::Whole { .. } => self.remove(&incoming).await?,
            Claim::Size(_) => self.remove(&target).await?,
            Claim::Missing => {}
        }
        Ok(claim)
    }

    /// What a copy has come to, once the store is done with it.
    async fn copied(&self, target: &Path, size: u64) -> Result<Claim, Failure> {
        let (begun, mut pause) = (Instant::now(), SETTLE_PAUSE);
        loop {
            match self.look(target, size).await? {
                Some(Claim::Size(0)) | None if self.staging == Staging::Blobs => {}
                found => return Ok(found.unwrap_or(Claim::Missing)),
            }
            if begun.elapsed() > COPIED {
                return Ok(Claim::Missing);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_SETTLE_PAUSE);
        }
    }

    async fn look(&self, key: &Path, size: u64) -> Result<Option<Claim>, Failure> {
        Ok(self.find(key.as_ref()).await?.map(|found| {
            if found.size == size {
                Claim::Whole { etag: found.etag.unwrap_or_default() }
            } else {
                Claim::Size(found.size)
            }
        }))
    }

    /// Removes whatever there is of an upload; nothing is fine.
    pub(in crate::storage) async fn discard(&self, id: UploadId) -> Result<(), Failure> {
        let target = self.upload(id)?;
        if let Some(upload) = self.multipart(id).await? {
            match self.reading.abort_multipart(&target, &upload).await {
                Ok(()) => {}
                Err(error) if answer(&error) == Answer::NoSuchUpload => {}
                Err(error) => return Err(failure(&error)),
            }
        }
        // The note last: as long as it is there the parts are found.
        for key in [target, self.incoming(id)?, self.parts(id)?] {
            self.remove(&key).await?;
        }
        Ok(())
    }

    /// The store's name of an upload in parts that is not complete.
    async fn multipart(&self, id: UploadId) -> Result<Option<String>, Failure> {
        let result = match self.reading.get(&self.parts(id)?).await {
            Ok(result) => result.bytes().await,
            Err(error) => Err(error),
        };
        match result {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if answer(&error) == Answer::NoSuchKey => Ok(None),
            Err(error) => Err(failure(&error)),
        }
    }

    async fn remove(&self, key: &Path) -> Result<(), Failure> {
        match self.reading.delete(key).await {
            Ok(()) => Ok(()),
            Err(error) if answer(&error) == Answer::NoSuchKey => Ok(()),
            Err(error) => Err(failure(&error)),
        }
    }
}

/// A URL, or `None` where these credentials make none: a token, somebody else's signature, a role that may not sign.
fn signable(signed: object_store::Result<Url>) -> Option<String> {
    signed
        .inspect_err(|error| {
            let error = super::told(error);
            tracing::warn!(
                error,
                "the storage's credentials cannot sign; uploads come to this server instead"
            );
        })
        .ok()
        .map(String::from)
}

#[cfg(test)]
mod tests;

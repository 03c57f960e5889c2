//! A bucket of an object store: publishing by multipart upload, or by a temporary blob.
//!
//! Every file goes as a multipart upload, also an empty one: Abort then fences Complete, in the store itself
//! (`NoSuchUpload`), which no conditional PUT is needed for. The objects carry `flux-publication` and `flux-sha256` as
//! metadata. Needed rights: `s3:PutObject`, `s3:GetObject`, `s3:AbortMultipartUpload`, and `s3:ListBucket`, without
//! which S3 answers 403 instead of 404 for a key that does not exist.
//!
//! Google's XML API has the same uploads. Azure has no abort: see `blob`.
//!
//! A crash between creating an upload and recording its handle leaves an upload without parts; `object_store` cannot
//! list those, so a bucket wants the usual lifecycle rule that aborts incomplete uploads after some days.

mod blob;
mod connector;
mod fault;
mod marks;
mod open;
mod parts;
mod uploads;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use http::Method;
use object_store::multipart::{MultipartStore, PartId};
use object_store::signer::Signer;
use object_store::{Attribute, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMultipartOptions};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

pub(super) use self::connector::blocked;
use self::fault::{Answer, answer};
pub(super) use self::fault::{failure, is_elsewhere, is_refusal, told};
pub(super) use self::marks::Found;
pub(super) use self::open::{Opening, Who};
pub(super) use self::uploads::UPLOADS;
use super::http::HttpClients;
use super::local::{already_there, withdrawn};
use super::{Error, StagedFile};
use crate::domain::{
    self, Acl, Code, Credentials, Failure, ObjectOptions, ObjectPath, Overwrite, PublicationId,
};

/// How to reach a bucket.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// The bucket; it must exist.
    pub bucket: String,
    /// Put before every key.
    pub prefix: Option<ObjectPath>,
    /// `https://…` of a store that is not AWS; `http://…` is allowed too, for loopback and private networks.
    pub endpoint: Option<Url>,
    /// The region; `us-east-1` suits most other stores.
    pub region: String,
    /// The key's id; without it the machine's own role is asked for credentials.
    pub access_key_id: Option<String>,
    /// The key.
    pub secret_access_key: Option<SecretString>,
    /// The token of temporary credentials.
    pub session_token: Option<SecretString>,
    /// Where the bucket's name goes in a URL.
    pub addressing: Addressing,
    /// A canned ACL for new objects; most buckets refuse any.
    pub acl: Option<Acl>,
}

/// Where the bucket's name goes in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Addressing {
    /// Path style with an endpoint, virtual-hosted without.
    #[default]
    Auto,
    /// `https://endpoint/bucket/key`.
    Path,
    /// `https://bucket.endpoint/key`.
    VirtualHost,
}

/// How long to try.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Retries of one request.
    pub(super) retries: usize,
    /// No retry starts after this long.
    pub(super) within: Duration,
    /// First wait; doubled each time up to 5 s, with jitter.
    pub(super) backoff: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { retries: 6, within: Duration::from_mins(1), backoff: Duration::from_millis(100) }
    }
}

/// Time without a byte from the store after which a small request is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// The same for requests that carry a part. reqwest's read timeout starts when the request is *sent*, not when its body
/// has left, so it bounds the upload of a whole part: 20 s would fail on every line below 13 Mbit/s (4 parts of 8 MiB
/// at a time), 300 s works from 0.9 Mbit/s. S3 may also take minutes to answer Complete.
const SEND_TIMEOUT: Duration = Duration::from_mins(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// First wait for a copy inside a store, doubled each time.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_SETTLE_PAUSE: Duration = Duration::from_secs(5);

/// What every store here can do.
trait Multi: ObjectStore + MultipartStore + Signer {}

impl<T: ObjectStore + MultipartStore + Signer> Multi for T {}

/// One bucket with its clients.
#[derive(Debug)]
pub(super) struct Bucket {
    identity: domain::Bucket,
    prefix: Option<ObjectPath>,
    /// Head, get, abort, presign.
    reading: Arc<dyn Multi>,
    /// Create, parts, complete; sends the ACL, which `object_store` only knows as a default header of a client.
    sending: Arc<dyn Multi>,
    /// Complete with `If-None-Match: *`, which `object_store` does not offer for multipart uploads; as a default header
    /// it would be wrong on any other request, therefore a client of its own. Google's multipart uploads have none.
    finishing_new: Option<Arc<dyn Multi>>,
    staging: Staging,
}

/// Where a file waits for its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Staging {
    /// In a multipart upload.
    Uploads,
    /// In a blob with a temporary name.
    Blobs,
}

/// An incomplete upload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upload<'a> {
    pub(super) key: &'a str,
    pub(super) id: &'a str,
    pub(super) publication: PublicationId,
    /// Bytes of the whole file.
    pub(super) size: u64,
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
    /// Builds the clients of the configured bucket; no network.
    pub(super) fn open(
        settings: &S3Settings,
        patience: Patience,
        clients: &Arc<HttpClients>,
    ) -> Result<Self, Error> {
        // reqwest panics without one.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(Error::NoTlsProvider);
        }
        let identity = domain::Bucket::S3 {
            name: settings.bucket.clone(),
            region: Some(settings.region.clone()),
            endpoint: settings.endpoint.as_ref().map(Url::to_string),
            path_style: Some(match settings.addressing {
                Addressing::Auto => settings.endpoint.is_some(),
                Addressing::Path => true,
                Addressing::VirtualHost => false,
            }),
        };
        let who = match (&settings.access_key_id, &settings.secret_access_key) {
            (Some(id), Some(key)) => Who::As(Credentials::S3 {
                access_key_id: id.clone(),
                secret_access_key: key.expose_secret().to_owned(),
                session_token: settings.session_token.as_ref().map(|token| token.expose_secret().to_owned()),
            }),
            _ => Who::Machine,
        };
        let prefix = settings.prefix.clone();
        let opening = Opening { bucket: &identity, prefix, who, acl: settings.acl, patience, clients };
        Self::open_at(opening).map_err(|failure| Error::ObjectStore {
            bucket: settings.bucket.clone(),
            source: failure.message.into(),
        })
    }

    /// Which bucket it is.
    pub(super) const fn identity(&self) -> &domain::Bucket {
        &self.identity
    }

    pub(super) fn name(&self) -> &str {
        self.identity.name()
    }

    pub(super) fn endpoint(&self) -> Option<&str> {
        self.identity.endpoint()
    }

    pub(super) const fn prefix(&self) -> Option<&ObjectPath> {
        self.prefix.as_ref()
    }

    /// The client without special headers.
    pub(super) fn reader(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.reading) as Arc<dyn ObjectStore>
    }

    /// The whole key of a client's path.
    pub(super) fn key(&self, path: &ObjectPath) -> String {
        match &self.prefix {
            Some(prefix) => format!("{prefix}/{path}"),
            None => path.as_str().to_owned(),
        }
    }

    /// Whether objects can be marked so here.
    pub(super) fn check(&self, object: &ObjectOptions) -> Result<(), Failure> {
        match self.staging {
            Staging::Uploads => Ok(()),
            Staging::Blobs => blob::check(object),
        }
    }

    /// Creates an upload and returns its id; a temporary blob is only named.
    pub(super) async fn create(
        &self,
        key: &str,
        publication: PublicationId,
        file: &StagedFile,
        object: &ObjectOptions,
    ) -> Result<String, Failure> {
        if self.staging == Staging::Blobs {
            self.check(object)?;
            return Ok(blob::beside(key, publication));
        }
        let mut attributes = marks::attributes(self.staging, publication, file, object);
        if let Some(class) = &object.storage_class {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        let options = PutMultipartOptions { attributes, ..Default::default() };
        self.sending.create_multipart_opts(&path(key)?, options).await.map_err(|error| failure(&error))
    }

    /// Sends the file's parts and returns their entity tags. Nothing is cleaned up on failure or drop: the caller destroys
    /// the handle.
    pub(super) async fn send(
        &self,
        upload: Upload<'_>,
        file: &StagedFile,
        object: &ObjectOptions,
    ) -> Result<Vec<String>, Failure> {
        match self.staging {
            Staging::Uploads => parts::send(&*self.sending, &path(upload.key)?, upload.id, file).await,
            Staging::Blobs => {
                let attributes = marks::attributes(self.staging, upload.publication, file, object);
                blob::send(&*self.sending, upload.id, attributes, file).await
            }
        }
    }

    /// Completes an upload, or finds that it was completed before. `overwrite: fail` is checked first and, where the
    /// store knows `If-None-Match` on Complete (AWS, `MinIO`, Ceph), enforced by it; elsewhere two publishers that commit
    /// within the same moment can both pass the check, and the later one stays.
    pub(super) async fn commit(
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
    pub(super) async fn complete_new(
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
    pub(super) async fn destroy(&self, upload: Upload<'_>) -> Result<Destroyed, Failure> {
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

    /// Looks at a key.
    pub(super) async fn find(&self, key: &str) -> Result<Option<Found>, Failure> {
        let options = GetOptions { head: true, ..Default::default() };
        match self.reading.get_opts(&path(key)?, options).await {
            Ok(result) => Ok(Some(Found::of(&result))),
            Err(error) => match answer(&error) {
                Answer::NoSuchKey => Ok(None),
                _ => Err(failure(&error)),
            },
        }
    }

    /// Removes an object.
    pub(super) async fn delete(&self, key: &str) -> Result<(), Failure> {
        self.reading.delete(&path(key)?).await.map_err(|error| failure(&error))
    }

    /// Reads a range of bytes; `None` = no such key.
    pub(super) async fn read(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<(Found, BoxStream<'static, std::io::Result<bytes::Bytes>>)>, Failure> {
        // A range request for nothing is an error in HTTP.
        let (head, range) =
            if range.is_empty() { (true, None) } else { (false, Some(GetRange::Bounded(range))) };
        match self.reading.get_opts(&path(key)?, GetOptions { head, range, ..Default::default() }).await {
            Ok(result) => {
                let found = Found::of(&result);
                let stream = if head {
                    futures_util::stream::empty().boxed()
                } else {
                    result.into_stream().map_err(std::io::Error::other).boxed()
                };
                Ok(Some((found, stream)))
            }
            Err(error) => match answer(&error) {
                Answer::NoSuchKey => Ok(None),
                _ => Err(failure(&error)),
            },
        }
    }

    /// A URL that anyone can read the object with for a while.
    pub(super) async fn presign(&self, key: &str, expires: Duration) -> Result<Url, Failure> {
        self.reading.signed_url(Method::GET, &path(key)?, expires).await.map_err(|error| failure(&error))
    }

    /// Create, one part, Abort, Complete: whether the last one is refused.
    pub(super) async fn check_fence(&self, key: &str, publication: PublicationId) -> Result<bool, Failure> {
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

/// `s3://bucket/key`.
pub(super) fn url(bucket: &str, key: &str) -> String {
    format!("s3://{bucket}/{key}")
}

/// What an aborted upload had come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destroyed {
    Dead,
    WasCommitted,
}

/// What an Abort said.
enum Gone {
    Now,
    Before,
    Unknown(object_store::Error),
}

pub(super) fn path(key: &str) -> Result<object_store::path::Path, Failure> {
    object_store::path::Path::parse(key).map_err(|error| {
        Failure::new(Code::DestinationForbidden, "the object store does not take this key")
            .with_detail(error.to_string())
    })
}

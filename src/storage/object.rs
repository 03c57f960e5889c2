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
mod commit;
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
use object_store::multipart::MultipartStore;
use object_store::signer::Signer;
use object_store::{Attribute, GetOptions, GetRange, ObjectStore, PutMultipartOptions};
use url::Url;

pub(super) use self::commit::{Destroyed, Upload};
pub(super) use self::connector::blocked;
use self::fault::{Answer, answer};
pub(super) use self::fault::{failure, is_elsewhere, is_refusal, told};
pub(super) use self::marks::Found;
pub(super) use self::open::{Opening, Who};
pub(super) use self::uploads::UPLOADS;
use super::StagedFile;
use crate::domain::{self, Code, Failure, ObjectOptions, ObjectPath, PublicationId};

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

impl Bucket {
    /// Which bucket it is.
    pub(super) const fn identity(&self) -> &domain::Bucket {
        &self.identity
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

    /// Removes an object; one that is not there is removed already.
    pub(super) async fn delete(&self, key: &str) -> Result<(), Failure> {
        blob::delete(&*self.reading, key).await
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
}

pub(super) fn path(key: &str) -> Result<object_store::path::Path, Failure> {
    object_store::path::Path::parse(key).map_err(|error| {
        Failure::new(Code::DestinationForbidden, "the object store does not take this key")
            .with_detail(error.to_string())
    })
}

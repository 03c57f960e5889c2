//! Sources in an object store (S3 and whatever else `object_store` speaks).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore};

use super::{ByteStream, Extent, Opened, Origin, OriginError, Pin, empty};
use crate::domain::Code;

/// One object. The store's own address, credentials and retries are the operator's; nothing here is a stranger's.
pub(crate) struct ObjectOrigin {
    store: Arc<dyn ObjectStore>,
    path: Path,
    header_timeout: Duration,
}

impl ObjectOrigin {
    /// An origin; nothing is asked yet.
    #[must_use]
    pub(crate) fn new(store: Arc<dyn ObjectStore>, path: Path, header_timeout: Duration) -> Self {
        Self { store, path, header_timeout }
    }

    async fn get(&self, options: GetOptions) -> Result<object_store::GetResult, OriginError> {
        match tokio::time::timeout(self.header_timeout, self.store.get_opts(&self.path, options)).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(translate(&error)),
            Err(_) => {
                Err(OriginError::transient("the object store did not answer in time", "no response header"))
            }
        }
    }
}

#[async_trait]
impl Origin for ObjectOrigin {
    async fn open(&self, first: u64) -> Result<Opened, OriginError> {
        // The size comes first: a range of an empty object is an error that looks like any other.
        let head = self.get(GetOptions { head: true, ..Default::default() }).await?;
        let pin = pin_of(&head.meta);
        if head.meta.size == 0 {
            return Err(OriginError::Refused(empty()));
        }
        let range = 0..first.min(head.meta.size);
        let body = self.range(&pin, range.clone()).await?;
        Ok(Opened { pin, extent: Extent::Range(range), body })
    }

    async fn range(&self, pin: &Pin, range: Range<u64>) -> Result<ByteStream, OriginError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: pin.strong_etag().map(str::to_owned),
            ..Default::default()
        };
        let result = self.get(options).await?;
        let now = pin_of(&result.meta);
        if !pin.agrees(&now) || result.range.start != range.start || result.range.end > range.end {
            return Err(OriginError::changed(format!(
                "pinned {pin:?}, now {now:?}, range {:?}",
                result.range
            )));
        }
        Ok(result.into_stream().map(|chunk| chunk.map_err(|error| translate(&error))).boxed())
    }
}

fn pin_of(meta: &ObjectMeta) -> Pin {
    Pin {
        size: Some(meta.size),
        etag: meta.e_tag.clone(),
        last_modified: Some(meta.last_modified.to_rfc3339()),
    }
}

fn translate(error: &Error) -> OriginError {
    match error {
        Error::NotFound { .. } | Error::InvalidPath { .. } => {
            OriginError::refused(Code::SourceNotFound, "The source does not exist in the storage.")
        }
        Error::Precondition { .. } | Error::NotModified { .. } => OriginError::changed("precondition failed"),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            OriginError::refused(Code::SourceForbidden, "The storage refused access to the source.")
        }
        // `Error` is open to new variants; what is not a definite answer is tried again.
        other => OriginError::transient("the object store answered with an error", other.to_string()),
    }
}

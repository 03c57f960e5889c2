//! Sources in an object store (S3 and whatever else `object_store` speaks).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore};

use super::super::object::{blocked, is_elsewhere, is_refusal, told};
use super::{ByteStream, Extent, Opened, Origin, OriginError, Pin, empty};
use crate::domain::Code;

/// One object. Where the store's address is a stranger's, the store's own client obeys the address policy.
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
    if let Some(failure) = blocked(error) {
        return OriginError::Refused(failure);
    }
    match error {
        Error::NotFound { .. } | Error::InvalidPath { .. } => {
            OriginError::refused(Code::SourceNotFound, "The source does not exist in the storage.")
        }
        Error::Precondition { .. } | Error::NotModified { .. } => OriginError::changed("precondition failed"),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            OriginError::refused(Code::SourceForbidden, "The storage refused access to the source.")
        }
        // `object_store` keeps the status in a private type; its text is all there is.
        other if is_elsewhere(&other.to_string()) => OriginError::refused(
            Code::SourceForbidden,
            "The bucket is in another region than the request says.",
        ),
        other if is_refusal(&other.to_string()) => {
            OriginError::refused(Code::SourceForbidden, "The storage refused the request for the source.")
        }
        // `Error` is open to new variants; what is not a definite answer is tried again.
        other => OriginError::transient("the object store answered with an error", told(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn definite_answers_are_told_from_those_worth_another_try() {
        let cases = [
            (
                generic("status code: 400 Bad Request: <Code>AuthorizationHeaderMalformed</Code> region"),
                Some(Code::SourceForbidden),
            ),
            (
                generic(
                    "Received redirect without LOCATION, this normally indicates an incorrectly configured region",
                ),
                Some(Code::SourceForbidden),
            ),
            (generic("Server returned non-2xx status code: 400 Bad Request"), Some(Code::SourceForbidden)),
            (Error::NotFound { path: "k".into(), source: "x".into() }, Some(Code::SourceNotFound)),
            (Error::PermissionDenied { path: "k".into(), source: "x".into() }, Some(Code::SourceForbidden)),
            (Error::Precondition { path: "k".into(), source: "x".into() }, Some(Code::SourceChanged)),
            (generic("status code: 429 Too Many Requests"), None),
            (generic("status code: 503 Service Unavailable"), None),
            (generic("error sending request"), None),
        ];
        for (error, expected) in cases {
            let found = match translate(&error) {
                OriginError::Refused(failure) => Some(failure.code),
                OriginError::Transient { .. } => None,
            };
            assert_eq!(found, expected, "{error}");
        }
    }
}

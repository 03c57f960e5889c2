//! Where the bytes of a remote source come from: one trait, one implementation per protocol.
//!
//! An origin is asked for ranges under a [`Pin`] taken at the first contact and must refuse bytes of anything else.
//! To add a kind (a cloud's own API), implement [`Origin`]; retries, pacing, caching and verdicts are the
//! gateway's and come for free.

mod ftp;
mod http;
mod object;

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub(super) use self::ftp::FtpOrigin;
pub(super) use self::http::{HttpOrigin, HttpRequest, retry_after, strip};
pub(super) use self::object::ObjectOrigin;
use crate::domain::{Code, Failure};

/// Bytes as they arrive. The stream may end early; whoever reads it counts.
pub(super) type ByteStream = BoxStream<'static, Result<Bytes, OriginError>>;

/// What every later byte must belong to (RFC 9110 §8.8).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pin {
    /// Bytes in all; absent when the origin does not say.
    pub size: Option<u64>,
    /// As sent, weak or strong.
    pub etag: Option<String>,
    /// As sent.
    pub last_modified: Option<String>,
}

impl Pin {
    /// The validator for `If-Match`, which compares strongly.
    #[must_use]
    pub(super) fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| !tag.starts_with("W/"))
    }

    /// Whether `later` can be the same bytes. What either side does not say is no contradiction: caches leave
    /// validators out of partial answers.
    #[must_use]
    pub(super) fn agrees(&self, later: &Self) -> bool {
        fn same<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.zip(b).is_none_or(|(a, b)| a == b)
        }
        same(self.size.as_ref(), later.size.as_ref())
            && same(self.etag.as_ref(), later.etag.as_ref())
            && same(self.last_modified.as_ref(), later.last_modified.as_ref())
    }
}

/// The first contact.
pub(super) struct Opened {
    /// What was pinned.
    pub pin: Pin,
    /// What the body holds.
    pub extent: Extent,
    /// From byte 0.
    pub body: ByteStream,
}

/// How much an origin answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Extent {
    /// Ranges work, and this one is coming.
    Range(Range<u64>),
    /// The whole, from the start, whatever was asked for.
    Whole,
}

/// Why an origin gave no (more) bytes.
#[derive(Debug, Clone)]
pub(super) enum OriginError {
    /// Another try cannot help.
    Refused(Failure),
    /// Another try may help.
    Transient {
        /// For the client, if every try ends so: what happened, as the second half of a sentence.
        what: String,
        /// For the operator.
        detail: String,
        /// What the origin asked us to wait.
        after: Option<Duration>,
    },
}

impl OriginError {
    /// A passing trouble.
    #[must_use]
    pub(super) fn transient(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Transient { what: what.into(), detail: detail.into(), after: None }
    }

    /// A final refusal.
    #[must_use]
    pub(super) fn refused(code: Code, sentence: &str) -> Self {
        Self::Refused(Failure::new(code, sentence))
    }

    /// The bytes are not those that were pinned.
    #[must_use]
    pub(super) fn changed(detail: impl Into<String>) -> Self {
        Self::Refused(changed(detail))
    }

    /// The failure when no try is left.
    #[must_use]
    pub(super) fn exhausted(self, tries: u32) -> Failure {
        match self {
            Self::Refused(failure) => failure,
            Self::Transient { what, detail, .. } => {
                let sentence = format!("The source could not be fetched in {tries} tries: {what}.");
                Failure::new(Code::SourceUnreachable, sentence).with_detail(detail)
            }
        }
    }
}

/// The source is not what it was when it was opened.
pub(super) fn changed(detail: impl Into<String>) -> Failure {
    Failure::new(Code::SourceChanged, "The source changed while it was read.").with_detail(detail)
}

/// The source is there and holds nothing.
pub(super) fn empty() -> Failure {
    Failure::new(Code::MediaCorrupt, "The source is empty.")
}

/// A place that a source can be read from, in ranges where it can.
#[async_trait]
pub(super) trait Origin: Send + Sync + 'static {
    /// First contact: pins the source and begins to send `0..first` (or all, where ranges are not supported).
    async fn open(&self, first: u64) -> Result<Opened, OriginError>;

    /// Bytes of `range` under the pin. Only called when [`Origin::open`] said that ranges work.
    async fn range(&self, pin: &Pin, range: Range<u64>) -> Result<ByteStream, OriginError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_contradict_only_by_what_both_say() {
        let pin = |etag: Option<&str>, size| Pin { size, etag: etag.map(str::to_owned), last_modified: None };
        assert!(pin(Some("\"a\""), Some(1)).agrees(&pin(None, Some(1))));
        assert!(!pin(Some("\"a\""), Some(1)).agrees(&pin(Some("\"b\""), Some(1))));
        assert!(!pin(None, Some(1)).agrees(&pin(None, Some(2))));
        assert_eq!(pin(Some("W/\"a\""), None).strong_etag(), None);
        assert_eq!(pin(Some("\"a\""), None).strong_etag(), Some("\"a\""));
    }
}

//! Reading back what was published: `GET /jobs/{id}/outputs/{n}/content`.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;
use url::Url;

use super::Destinations;
use super::destinations::{Located, blocking};
use super::local::{self, LocalError};
use crate::domain::{Code, Destination, Failure, ObjectPath, OutputFile};

/// Bytes read from a local file at a time.
const CHUNK: usize = 256 * 1024;

/// Which bytes are wanted: one range of RFC 9110 §14.1.2. A request for several is answered with the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ByteRange {
    /// All of them.
    #[default]
    Whole,
    /// `bytes=N-`.
    From(u64),
    /// `bytes=N-M`, both included.
    Between(u64, u64),
    /// `bytes=-N`: the last N.
    Last(u64),
}

impl ByteRange {
    /// The bytes of a file of `size` bytes; `None` = not satisfiable (416). The end is cut to the file.
    #[must_use]
    pub fn of(self, size: u64) -> Option<Range<u64>> {
        match self {
            Self::Whole => Some(0..size),
            Self::From(start) => (start < size).then_some(start..size),
            Self::Between(start, end) => {
                (start < size && start <= end).then(|| start..size.min(end.saturating_add(1)))
            }
            Self::Last(count) => (count > 0 && size > 0).then(|| size.saturating_sub(count)..size),
        }
    }
}

/// A published file, open for reading.
pub struct ResultBody {
    /// Bytes of the whole file.
    pub size: u64,
    /// The bytes that `stream` gives.
    pub range: Range<u64>,
    /// MIME type.
    pub content_type: String,
    /// A strong validator: the quoted SHA-256 of the whole file.
    pub etag: String,
    /// The bytes. An error ends it; the receiver must then close the connection, not the response.
    pub stream: BoxStream<'static, std::io::Result<Bytes>>,
}

impl std::fmt::Debug for ResultBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResultBody")
            .field("size", &self.size)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// Why a result cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not there any more, or something else was put in its place: 404.
    #[error("the published file is not at its destination any more")]
    Gone,
    /// The range begins behind the end: 416 with `Content-Range: bytes */size`.
    #[error("the range is outside of the file's {size} bytes")]
    Range {
        /// Bytes of the whole file.
        size: u64,
    },
    /// It lies where this server has no credentials to read: 410.
    #[error("the result is at its destination, which this server cannot read")]
    Elsewhere,
    /// The destination could not be read.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Destinations {
    /// Opens a published file. What is there must still be what was published, as far as the destination can say it
    /// without reading the whole: its size, and the SHA-256 that was stored with it.
    pub async fn open_result(
        &self,
        destination: &Destination,
        file: &OutputFile,
        range: ByteRange,
    ) -> Result<ResultBody, ReadError> {
        if destination.needs_request() {
            return Err(ReadError::Elsewhere);
        }
        let range = range.of(file.size).ok_or(ReadError::Range { size: file.size })?;
        let stream = match self.locate_result(destination, file)? {
            Located::File { root, path } => {
                let root = root.clone();
                open_local(&root, path, file, range.clone()).await?
            }
            Located::Object { bucket, key } => {
                let (found, stream) = bucket.read(&key, range.clone()).await?.ok_or(ReadError::Gone)?;
                if found.size != file.size || found.sha256.is_some_and(|sha256| sha256 != file.sha256) {
                    return Err(ReadError::Gone);
                }
                stream
            }
        };
        Ok(ResultBody {
            size: file.size,
            range,
            content_type: file.content_type.clone(),
            etag: format!("\"{}\"", file.sha256),
            stream,
        })
    }

    /// A URL to send the client to instead, good for `expires` (S3: 1 s to 7 days); `None` for what this server reads
    /// itself. It says nothing about whether the object is there.
    pub async fn presign(
        &self,
        destination: &Destination,
        file: &OutputFile,
        expires: Duration,
    ) -> Option<Url> {
        match self.locate_result(destination, file).ok()? {
            Located::File { .. } => None,
            Located::Object { bucket, key } => match bucket.presign(&key, expires).await {
                Ok(url) => Some(url),
                Err(failure) => {
                    tracing::warn!(detail = %failure.detail, "cannot presign a result, reading it through this server");
                    None
                }
            },
        }
    }

    /// A single file is at the destination's own path; a file of a set is below it.
    fn locate_result(&self, destination: &Destination, file: &OutputFile) -> Result<Located<'_>, Failure> {
        let folder = destination.text().rsplit_once('/').map_or("", |(folder, _)| folder);
        let within = file.path.strip_prefix(folder).map_or(&*file.path, |path| path.trim_start_matches('/'));
        let other = destination.beside(within).ok_or_else(|| {
            Failure::new(Code::Internal, "the file's name is not a path").with_detail(within.to_owned())
        })?;
        self.locate(&other)
    }
}

async fn open_local(
    root: &local::Root,
    path: ObjectPath,
    expected: &OutputFile,
    range: Range<u64>,
) -> Result<BoxStream<'static, std::io::Result<Bytes>>, ReadError> {
    let root = root.clone();
    // A missing or replaced file is an answer and not a failure, so it travels as one.
    let opened = blocking(move || match root.open_file(&path) {
        Ok(file) => {
            let mark = local::read_mark(&file);
            let size = file.metadata().map_or(0, |metadata| metadata.len());
            Ok(Some((file, size, mark)))
        }
        Err(LocalError::Io { errno: Errno::NOENT | Errno::NOTDIR, .. } | LocalError::NotAFile) => Ok(None),
        Err(error) => Err(error),
    })
    .await?;
    let (file, size, mark) = opened.ok_or(ReadError::Gone)?;
    if size != expected.size || mark.sha256.is_some_and(|sha256| sha256 != expected.sha256) {
        return Err(ReadError::Gone);
    }
    let mut file = tokio::fs::File::from_std(file);
    let length = range.end - range.start;
    let stream = async move {
        file.seek(std::io::SeekFrom::Start(range.start)).await?;
        Ok::<_, std::io::Error>(ReaderStream::with_capacity(file.take(length), CHUNK))
    };
    Ok(futures_util::stream::once(stream).try_flatten().boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        let cases = [
            (ByteRange::Whole, 0, Some(0..0)),
            (ByteRange::Whole, 10, Some(0..10)),
            (ByteRange::From(3), 10, Some(3..10)),
            (ByteRange::From(10), 10, None),
            (ByteRange::Between(0, 0), 10, Some(0..1)),
            (ByteRange::Between(5, 99), 10, Some(5..10)),
            (ByteRange::Between(5, u64::MAX), 10, Some(5..10)),
            (ByteRange::Between(6, 5), 10, None),
            (ByteRange::Between(10, 12), 10, None),
            (ByteRange::Last(3), 10, Some(7..10)),
            (ByteRange::Last(99), 10, Some(0..10)),
            (ByteRange::Last(0), 10, None),
            (ByteRange::Last(1), 0, None),
        ];
        for (range, size, expected) in cases {
            assert_eq!(range.of(size), expected, "{range:?} of {size}");
        }
    }
}

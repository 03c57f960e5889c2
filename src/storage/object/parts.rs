//! Sending a file as parts, some at a time, in bounded memory.

use std::path::Path as FilePath;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use ring::digest;
use tokio::io::AsyncReadExt;

use super::super::{StagedFile, hex};
use super::fault::failure;
use crate::domain::{Code, Failure};

/// Smallest part; S3 wants 5 MiB at least for all but the last.
const MIN_PART: u64 = 8 * 1024 * 1024;
/// S3's own bound on the number of parts.
const MAX_PARTS: u64 = 10_000;
/// Bytes of parts in memory at a time (one part, where a part is larger).
const MEMORY: u64 = 64 * 1024 * 1024;
/// Most requests at a time: enough to fill a line of some 100 ms latency, few enough for a busy server.
const MAX_PARALLEL: u64 = 4;

/// How a file is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    part: u64,
    count: u64,
    parallel: usize,
}

impl Layout {
    /// Parts of 8 MiB up to 8 GiB, of 16 MiB up to 156 GiB, then as large as 10,000 parts need.
    fn of(size: u64) -> Self {
        let part = if size <= 1_000 * MIN_PART { MIN_PART } else { 2 * MIN_PART };
        let part = part.max(size.div_ceil(MAX_PARTS));
        let parallel = (MEMORY / part).clamp(1, MAX_PARALLEL);
        Self { part, count: size.div_ceil(part).max(1), parallel: usize::try_from(parallel).unwrap_or(1) }
    }

    fn length(self, index: u64, size: u64) -> u64 {
        self.part.min(size - index * self.part)
    }
}

/// Sends all parts and returns their entity tags in order. The file's SHA-256 is computed on the way: what is published is
/// what was verified, or nothing.
pub(super) async fn send(
    client: &dyn MultipartStore,
    key: &Path,
    id: &str,
    file: &StagedFile,
) -> Result<Vec<String>, Failure> {
    let mut pieces = Pieces::open(file).await?;
    let layout = pieces.layout;
    let upload = id.to_owned();
    let mut sent: Vec<(u64, String)> = Vec::new();
    let mut flying = FuturesUnordered::new();
    for index in 0..layout.count {
        while flying.len() >= layout.parallel {
            sent.extend(flying.next().await.transpose()?);
        }
        let Some(bytes) = pieces.next().await? else { break };
        let upload = &upload;
        flying.push(async move {
            let part = usize::try_from(index).unwrap_or(usize::MAX);
            let part =
                client.put_part(key, upload, part, bytes.into()).await.map_err(|error| failure(&error))?;
            Ok::<_, Failure>((index, part.content_id))
        });
    }
    // Before the last answers are waited for: a file that changed fails sooner, and nothing is committed either way.
    pieces.finish()?;
    while let Some(part) = flying.next().await {
        sent.push(part?);
    }
    sent.sort_unstable_by_key(|(index, _)| *index);
    Ok(sent.into_iter().map(|(_, etag)| etag).collect())
}

/// A file's parts one after the other, hashed on the way.
pub(super) struct Pieces<'a> {
    layout: Layout,
    file: &'a StagedFile,
    source: tokio::fs::File,
    hash: digest::Context,
    index: u64,
}

impl<'a> Pieces<'a> {
    pub(super) async fn open(file: &'a StagedFile) -> Result<Self, Failure> {
        let source = open(&file.path, file.size).await?;
        let hash = digest::Context::new(&digest::SHA256);
        Ok(Self { layout: Layout::of(file.size), file, source, hash, index: 0 })
    }

    /// How many parts may be on their way at a time.
    pub(super) const fn parallel(&self) -> usize {
        self.layout.parallel
    }

    /// The next part; an empty file has one, which is empty.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.index >= self.layout.count {
            return Ok(None);
        }
        let bytes = read(&mut self.source, self.layout.length(self.index, self.file.size)).await?;
        self.index += 1;
        self.hash.update(&bytes);
        Ok(Some(bytes))
    }

    /// What was read must be what was verified.
    pub(super) fn finish(self) -> Result<(), Failure> {
        if hex(self.hash.finish().as_ref()) == self.file.sha256 {
            Ok(())
        } else {
            Err(changed("another SHA-256"))
        }
    }
}

async fn open(path: &FilePath, size: u64) -> Result<tokio::fs::File, Failure> {
    let mut file = tokio::fs::File::open(path).await.map_err(|error| changed(&error.to_string()))?;
    let length = file.metadata().await.map_err(|error| changed(&error.to_string()))?.len();
    if length != size {
        return Err(changed("another size"));
    }
    file.set_max_buf_size(2 * 1024 * 1024);
    Ok(file)
}

async fn read(file: &mut tokio::fs::File, length: u64) -> Result<Bytes, Failure> {
    let length = usize::try_from(length).map_err(|_| changed("a part does not fit in memory"))?;
    let mut bytes = BytesMut::zeroed(length);
    file.read_exact(&mut bytes).await.map_err(|error| changed(&error.to_string()))?;
    Ok(bytes.freeze())
}

fn changed(detail: &str) -> Failure {
    Failure::new(Code::Internal, "the encoded file changed before it was published").with_detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;
    const GIB: u64 = 1024 * MIB;

    #[test]
    fn parts_fit_the_rules_of_s3_and_the_memory() {
        for size in [0, 1, 8 * MIB, 8 * MIB + 1, 20 * MIB, 8 * GIB, 9 * GIB, 200 * GIB, 5_000 * GIB] {
            let layout = Layout::of(size);
            assert!((1..=MAX_PARTS).contains(&layout.count), "{size}: {layout:?}");
            assert!(layout.part >= 5 * MIB && layout.part <= 5 * GIB);
            assert!(layout.part * layout.parallel as u64 <= MEMORY.max(layout.part));
            let total: u64 = (0..layout.count).map(|index| layout.length(index, size)).sum();
            assert_eq!(total, size);
        }
        assert_eq!(Layout::of(20 * MIB), Layout { part: 8 * MIB, count: 3, parallel: 4 });
        assert_eq!(Layout::of(0).count, 1);
    }
}

//! Publishing where uploads cannot be aborted (Azure): under a temporary name, then a copy inside the store.
//!
//! A commit is a copy of `.flux-<publication>.part`, which lies beside the target; to destroy is to delete it. A copy
//! whose source is gone is refused by the store itself, which is the fence. Uncommitted blocks would be invisible, but a
//! stranger's late list of blocks cannot be prevented: there is no abort, and they may lie there for a week.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::{
    Attributes, CopyMode, CopyOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutMultipartOptions,
};

use super::fault::{Answer, answer, failure};
use super::parts::Pieces;
use super::path;
use crate::domain::{Code, Failure, ObjectOptions, Overwrite, PublicationId};
use crate::storage::StagedFile;
use crate::storage::local::part_name;

/// The temporary name beside a key.
pub(super) fn beside(key: &str, publication: PublicationId) -> String {
    crate::domain::beside(key, &part_name(publication))
}

/// Writes the temporary blob, whole and marked.
pub(super) async fn send(
    store: &dyn ObjectStore,
    part: &str,
    attributes: Attributes,
    file: &StagedFile,
) -> Result<Vec<String>, Failure> {
    let options = PutMultipartOptions { attributes, ..Default::default() };
    let mut upload =
        store.put_multipart_opts(&path(part)?, options).await.map_err(|error| failure(&error))?;
    let mut pieces = Pieces::open(file).await?;
    let mut flying = FuturesUnordered::new();
    while let Some(bytes) = pieces.next().await? {
        // Blocks of no bytes are refused; an empty blob is an empty list of blocks.
        if !bytes.is_empty() {
            flying.push(upload.put_part(bytes.into()));
        }
        if flying.len() >= pieces.parallel() {
            flying.next().await.transpose().map_err(|error| failure(&error))?;
        }
    }
    while let Some(sent) = flying.next().await {
        sent.map_err(|error| failure(&error))?;
    }
    pieces.finish()?;
    let put = upload.complete().await.map_err(|error| failure(&error))?;
    Ok(vec![put.e_tag.unwrap_or_default()])
}

/// Copies the temporary blob over the target, or onto a free name only.
pub(super) async fn copy(
    store: &dyn ObjectStore,
    part: &str,
    key: &str,
    overwrite: Overwrite,
) -> object_store::Result<()> {
    let mode = match overwrite {
        Overwrite::Replace => CopyMode::Overwrite,
        Overwrite::Fail => CopyMode::Create,
    };
    let options = CopyOptions::new().with_mode(mode);
    store.copy_opts(&Path::parse(part)?, &Path::parse(key)?, options).await
}

/// Deletes the temporary blob; what is not there is as good.
pub(super) async fn delete(store: &dyn ObjectStore, part: &str) -> Result<(), Failure> {
    match store.delete(&path(part)?).await {
        Ok(()) => Ok(()),
        Err(error) => match answer(&error) {
            Answer::NoSuchKey | Answer::NoSuchBucket => Ok(()),
            _ => Err(failure(&error)),
        },
    }
}

/// Metadata that Azure takes.
pub(super) fn check(object: &ObjectOptions) -> Result<(), Failure> {
    let refuse = |message: &str| Err(Failure::new(Code::DestinationForbidden, message));
    if object.storage_class.is_some() {
        return refuse("storage_class is not available for Azure in this build");
    }
    let identifier = |name: &str| {
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.starts_with(|first: char| first.is_ascii_digit())
    };
    if object.metadata.keys().all(|name| identifier(name)) {
        return Ok(());
    }
    refuse("Azure takes metadata names of letters, digits and '_' that do not begin with a digit")
}

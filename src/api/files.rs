//! The seam to where bytes live. The command line implements it over the storage room.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use super::ByteRange;
use crate::domain::uploads::{Assembled, Claim, Invitation};
use crate::domain::{Destination, Failure, JobSecrets, ObjectPath, OutputFile, OutputSecrets, Source};
use crate::store::UploadRecord;

/// Bytes as they come; an error ends them.
pub type ByteStream = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// What arrived of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// SHA-256 of the bytes, lower-case hex.
    pub sha256: String,
}

/// Results, uploads and inline sources, and what this server accepts as source and destination.
///
/// The message of a [`Failure`] is shown to the client; its detail goes to the log.
#[async_trait]
pub trait Files: Send + Sync + 'static {
    /// Refuses, without any network, a source that no worker would open (roots, schemes, blocked literal addresses).
    fn check_source(&self, source: &Source, secrets: &JobSecrets) -> Result<(), Failure>;

    /// Refuses a destination that nothing would ever be published to.
    fn check_destination(&self, destination: &Destination, secrets: &OutputSecrets) -> Result<(), Failure>;

    /// A URL at which the client can read the file itself, where the destination can make one.
    async fn presign(&self, destination: &Destination, file: &OutputFile) -> Result<Option<String>, Failure>;

    /// The bytes of a published file, all or a range.
    async fn open_result(
        &self,
        destination: &Destination,
        file: &OutputFile,
        range: Option<ByteRange>,
    ) -> Result<ByteStream, Failure>;

    /// Stores the bytes of an upload, exactly `upload.size` of them, and makes it usable only when it is whole.
    async fn receive_upload(&self, upload: &UploadRecord, body: ByteStream) -> Result<Received, Failure>;

    /// Whether clients can send an upload of this size to the storage themselves.
    fn invites(&self, size: u64) -> bool;

    /// Signed URLs to send an upload to the storage, good for `life`; `None` where its credentials sign none.
    async fn invite(
        &self,
        upload: &UploadRecord,
        content_type: Option<&str>,
        life: Duration,
    ) -> Result<Option<Invitation>, Failure>;

    /// Puts the parts of an upload together, given their entity tags in order.
    async fn assemble(&self, upload: &UploadRecord, etags: &[String]) -> Result<Assembled, Failure>;

    /// Looks for an upload in the storage and keeps it from changing.
    async fn claim(&self, upload: &UploadRecord) -> Result<Claim, Failure>;

    /// Stores an inline source under `key`, durable when it returns.
    async fn store_inline(&self, key: &ObjectPath, bytes: Bytes) -> Result<(), Failure>;

    /// Removes an inline source whose job was not accepted.
    async fn discard_inline(&self, key: &ObjectPath);
}

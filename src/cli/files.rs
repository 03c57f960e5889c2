//! The API's seam to bytes, over the storage room.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;

use crate::api::{ByteRange, ByteStream, Files, Received};
use crate::domain::uploads::{Assembled, Claim, Invitation};
use crate::domain::{Code, Destination, Failure, JobSecrets, ObjectPath, OutputFile, OutputSecrets, Source};
use crate::storage::{self, ReadError, Storage};
use crate::store::UploadRecord;

/// How long a presigned URL is good: long enough to start a download, short enough to be harmless in a log.
const PRESIGNED: Duration = Duration::from_mins(15);

pub(super) struct StorageFiles(Storage);

impl StorageFiles {
    pub(super) const fn new(storage: Storage) -> Self {
        Self(storage)
    }
}

#[async_trait]
impl Files for StorageFiles {
    fn check_source(&self, source: &Source, secrets: &JobSecrets) -> Result<(), Failure> {
        self.0.sources().check(source, secrets)
    }

    fn check_destination(&self, destination: &Destination, secrets: &OutputSecrets) -> Result<(), Failure> {
        self.0.destinations().with(secrets).check(destination)
    }

    async fn presign(&self, destination: &Destination, file: &OutputFile) -> Result<Option<String>, Failure> {
        Ok(self.0.destinations().presign(destination, file, PRESIGNED).await.map(String::from))
    }

    async fn open_result(
        &self,
        destination: &Destination,
        file: &OutputFile,
        range: Option<ByteRange>,
    ) -> Result<ByteStream, Failure> {
        let range =
            range.map_or(storage::ByteRange::Whole, |part| storage::ByteRange::Between(part.start, part.end));
        match self.0.destinations().open_result(destination, file, range).await {
            Ok(body) => Ok(body.stream),
            Err(ReadError::Failed(failure)) => Err(failure),
            Err(gone @ (ReadError::Gone | ReadError::Elsewhere | ReadError::Range { .. })) => {
                Err(Failure::new(Code::SourceNotFound, gone.to_string()))
            }
        }
    }

    async fn receive_upload(&self, upload: &UploadRecord, body: ByteStream) -> Result<Received, Failure> {
        let uploads = self.0.uploads();
        match uploads.receive(upload.id, upload.size, body.boxed()).await {
            Ok(received) => Ok(Received { sha256: received.sha256 }),
            // The server died after the last byte and before the record: what is there is the upload.
            Err(there @ storage::UploadError::AlreadyThere) => match uploads.inspect(upload.id).await? {
                Some(found) if found.size == upload.size => Ok(Received { sha256: found.sha256 }),
                Some(_) | None => Err(there.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    fn invites(&self, size: u64) -> bool {
        self.0.upload_place(size) == storage::UploadPlace::Storage
    }

    async fn invite(
        &self,
        upload: &UploadRecord,
        content_type: Option<&str>,
        life: Duration,
    ) -> Result<Option<Invitation>, Failure> {
        self.0.invite((upload.id, upload.size), content_type, life).await
    }

    async fn assemble(&self, upload: &UploadRecord, etags: &[String]) -> Result<Assembled, Failure> {
        self.0.assemble(upload.id, etags).await
    }

    async fn claim(&self, upload: &UploadRecord) -> Result<Claim, Failure> {
        self.0.claim(upload.id, upload.size).await
    }

    async fn store_inline(&self, key: &ObjectPath, bytes: Bytes) -> Result<(), Failure> {
        Ok(self.0.uploads().store_inline(key, bytes).await.map(drop)?)
    }

    async fn discard_inline(&self, key: &ObjectPath) {
        if let Err(error) = self.0.uploads().remove_inline(key).await {
            tracing::warn!(%error, "could not remove an inline source");
        }
    }
}

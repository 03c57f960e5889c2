//! A source that the control sends, because a client gave it to the control and this machine does not have it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use crate::domain::{Code, Failure};
use crate::rpc::Refusal;
use crate::rpc::wire::Given;

/// Its name in the run's folder.
pub(super) const NAME: &str = "given";

/// What a run waits for. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Delivery {
    /// The run's folder, once it waits.
    folder: Arc<Mutex<Option<PathBuf>>>,
    /// How it ended.
    ended: Arc<watch::Sender<Option<Result<(), Failure>>>>,
    tries: Arc<AtomicU32>,
}

impl Delivery {
    /// Waits for the source to be whole in this folder, after `ask`.
    pub(super) async fn await_in(&self, folder: &Path, ask: impl FnOnce()) -> Result<(), Failure> {
        let mut ended = self.ended.subscribe();
        *self.folder.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder.to_owned());
        ask();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Ok(())),
            // The sender lives in `self`.
            Err(_) => Ok(()),
        }
    }

    /// Takes the source. One that is whole already is not written again.
    pub(super) async fn take(&self, given: Given) -> Result<(), Refusal> {
        let folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let folder = folder.ok_or(Refusal::Stale("the run did not ask for its source"))?;
        if self.ended.borrow().is_some() {
            return Ok(());
        }
        let end = match given {
            Given::Gone => Err(Failure::new(Code::SourceNotFound, "The source is not kept any more.")),
            Given::Bytes { size, mut chunks } => {
                let part = folder.join(format!("{NAME}.{}", self.tries.fetch_add(1, Ordering::Relaxed)));
                let mut received = 0;
                let written = async {
                    let mut file = File::create_new(&part).await?;
                    while let Some(Ok(chunk)) = chunks.next().await {
                        received += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                        file.write_all(&chunk).await?;
                    }
                    file.flush().await?;
                    if received == size { tokio::fs::rename(&part, folder.join(NAME)).await } else { Ok(()) }
                };
                match written.await {
                    Ok(()) if received == size => Ok(()),
                    Ok(()) => {
                        let _ = tokio::fs::remove_file(&part).await;
                        return Err(Refusal::Stale("the source broke off"));
                    }
                    Err(error) => {
                        let full = error.kind() == std::io::ErrorKind::StorageFull;
                        let code = if full { Code::DiskFull } else { Code::Internal };
                        let failure = Failure::new(code, "The source could not be kept on the worker.");
                        Err(failure.with_detail(error.to_string()))
                    }
                }
            }
        };
        self.ended.send_replace(Some(end));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    fn bytes(size: u64, chunks: &[&'static str]) -> Given {
        let chunks: Vec<_> = chunks.iter().map(|text| Ok(Bytes::from_static(text.as_bytes()))).collect();
        Given::Bytes { size, chunks: stream::iter(chunks).boxed() }
    }

    #[tokio::test]
    async fn a_source_arrives_whole_or_not_at_all() {
        let (folder, delivery) = (tempfile::tempdir().unwrap(), Delivery::default());
        assert!(delivery.take(bytes(1, &["x"])).await.is_err(), "nobody asked");
        let asked = delivery.await_in(folder.path(), || {});
        let sent = async {
            tokio::task::yield_now().await;
            assert_eq!(delivery.take(bytes(6, &["abc"])).await, Err(Refusal::Stale("the source broke off")));
            assert!(delivery.take(bytes(2, &["abc"])).await.is_err(), "longer than announced");
            delivery.take(bytes(6, &["abc", "def"])).await.unwrap();
            delivery.take(bytes(3, &["xyz"])).await.unwrap();
        };
        let (arrived, ()) = tokio::join!(asked, sent);
        arrived.unwrap();
        assert_eq!(std::fs::read(folder.path().join(NAME)).unwrap(), b"abcdef");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_source_that_is_gone_is_told() {
        let (folder, delivery) = (tempfile::tempdir().unwrap(), Delivery::default());
        let asked = delivery.await_in(folder.path(), || {});
        let (arrived, sent) = tokio::join!(asked, async {
            tokio::task::yield_now().await;
            delivery.take(Given::Gone).await
        });
        sent.unwrap();
        assert_eq!(arrived.unwrap_err().code, Code::SourceNotFound);
    }
}

//! From a verified file to a visible result, under a permit (PROTOCOL §2, steps 5 to 8).
//!
//! The order is the whole safety argument: the handle is written down, then filled, then permitted, then every lower
//! handle is made dead or adopted, and only then is this one committed.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use super::run::Ended;
use super::service::RunContext;
use super::workspace::RunFolder;
use crate::domain::{
    Code, Destination, Epoch, Failure, OutputIndex, OutputResult, Publication, PublicationId,
    PublicationState,
};
use crate::rpc::wire::{Permitted, RunEvent};
use crate::storage::{Committed, Handle, HandleFate, StagedFile};

/// Time kept back from a permit for the commit itself (PROTOCOL §2, step 6).
const PERMIT_MARGIN: Duration = Duration::from_secs(5);

/// A verified file and where it goes.
pub(super) struct Publishing<'a> {
    pub(super) output: OutputIndex,
    pub(super) epoch: Epoch,
    pub(super) destination: &'a Destination,
    pub(super) file: StagedFile,
    /// What the record will say; `url` is filled in by the commit.
    pub(super) result: OutputResult,
}

/// Sends, asks, commits. On any failure nothing of this attempt is or becomes visible, or the record knows that it may.
pub(super) async fn publish(
    context: &mut RunContext,
    folder: &RunFolder,
    publishing: Publishing<'_>,
) -> Result<(), Ended> {
    let destinations = context.worker.deps.destinations.clone();
    let id = PublicationId::from_uuid(context.worker.deps.ids.random());
    let begun = OnceLock::new();
    let journal = |handle: Handle| {
        let written = folder.journal(&handle.to_json()).map_err(|error| disk_failure(&error));
        let _ = begun.set(handle);
        async move { written }
    };
    let stop = context.stop.token().clone();
    let sent = tokio::select! {
        sent = destinations.stage(publishing.destination, id, &publishing.file, journal) => sent.map_err(Ended::from),
        () = stop.cancelled() => Err(Ended::Stopped),
    };
    let handle = match sent {
        Ok(handle) => handle,
        Err(ended) => {
            if let Some(handle) = begun.get() {
                discard(context, handle).await;
            }
            return Err(ended);
        }
    };
    let publication = Publication {
        id,
        output: publishing.output,
        run: context.run,
        epoch: publishing.epoch,
        handle: handle.to_json(),
        manifest: encode(&publishing.result)?,
        state: PublicationState::Open,
    };
    let permitted = match permit(context, &publication).await {
        Ok(permitted) => permitted,
        Err(ended) => {
            discard(context, &handle).await;
            return Err(ended);
        }
    };
    if let Some(adopted) = settle(context, &permitted.lower).await? {
        discard(context, &handle).await;
        context.log.tell(RunEvent::Resolved(vec![id]));
        context.log.tell(adopted);
        return Ok(());
    }
    commit(context, publication, handle, publishing.result).await
}

/// Makes every one of these dead, or finds the one that is visible: that is the result (PROTOCOL F3).
pub(super) async fn settle(context: &RunContext, open: &[Publication]) -> Result<Option<RunEvent>, Failure> {
    let destinations = &context.worker.deps.destinations;
    let (mut dead, mut visible) = (Vec::new(), None);
    for publication in open {
        let handle = Handle::from_json(&publication.handle)?;
        match destinations.destroy(&handle).await? {
            HandleFate::Dead => dead.push(publication.id),
            HandleFate::Committed(Committed { url }) => {
                let result: OutputResult = decode(&publication.manifest)?;
                visible = Some(RunEvent::OutputDone {
                    output: publication.output,
                    publication: publication.id,
                    result: Box::new(OutputResult { url, ..result }),
                });
            }
        }
    }
    if !dead.is_empty() {
        context.log.tell(RunEvent::Resolved(dead));
    }
    Ok(visible)
}

async fn permit(context: &mut RunContext, publication: &Publication) -> Result<Permitted, Ended> {
    loop {
        context.log.tell(RunEvent::Ready(publication.clone()));
        let grant = loop {
            let grant = tokio::select! {
                grant = context.permits.recv() => grant.ok_or(Ended::Stopped)?,
                () = context.stop.token().cancelled() => return Err(Ended::Stopped),
            };
            if grant.publication == publication.id {
                break grant;
            }
        };
        let permitted = grant.granted.ok_or(Ended::Stopped)?;
        // Counted from what the control last heard of us, never from receipt: a permit that was long on its way is
        // asked for again (the record gives the same answer).
        if context.worker.monotonic() + PERMIT_MARGIN < permitted.echo + permitted.ttl {
            return Ok(permitted);
        }
    }
}

async fn commit(
    context: &RunContext,
    publication: Publication,
    handle: Handle,
    result: OutputResult,
) -> Result<(), Ended> {
    let destinations = &context.worker.deps.destinations;
    let done = |url: String| RunEvent::OutputDone {
        output: publication.output,
        publication: publication.id,
        result: Box::new(OutputResult { url, ..result.clone() }),
    };
    let failure = match destinations.commit(&handle).await {
        Ok(committed) => {
            context.log.tell(done(committed.url));
            return Ok(());
        }
        Err(failure) => failure,
    };
    // The answer may have been lost on its way: only destroying tells what became of it.
    match destinations.destroy(&handle).await {
        Ok(HandleFate::Committed(Committed { url })) => {
            context.log.tell(done(url));
            Ok(())
        }
        Ok(HandleFate::Dead) => {
            context.log.tell(RunEvent::Resolved(vec![publication.id]));
            Err(failure.into())
        }
        // It stays open on the record; the next run of the task settles it first.
        Err(_) => Err(failure.into()),
    }
}

/// Destroys a handle nobody was permitted to commit; what fails here is in the journal and swept later.
async fn discard(context: &RunContext, handle: &Handle) {
    if let Err(failure) = context.worker.deps.destinations.destroy(handle).await {
        tracing::warn!(%failure, detail = failure.detail, "could not destroy an unused publishing handle");
    }
}

fn encode<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| {
        Failure::new(Code::Internal, "a publication could not be written down").with_detail(e.to_string())
    })
}

fn decode<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|e| {
        Failure::new(Code::Internal, "a recorded publication could not be read").with_detail(e.to_string())
    })
}

/// The file to send.
pub(super) fn staged(path: &Path, size: u64, sha256: &str, content_type: &'static str) -> StagedFile {
    StagedFile {
        path: path.to_owned(),
        size,
        sha256: sha256.to_owned(),
        content_type: content_type.to_owned(),
    }
}

pub(super) fn disk_failure(error: &super::WorkspaceError) -> Failure {
    let super::WorkspaceError::Io { source, .. } = error;
    let code = match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::DiskFull,
        _ => Code::Internal,
    };
    Failure::new(code, "the worker could not write to its work folder")
        .with_detail(format!("{error}: {source}"))
}

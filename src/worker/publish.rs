//! From a verified file to a visible result, under a permit (PROTOCOL §2, steps 5 to 8).
//!
//! The order is the whole safety argument: the handle is written down, then filled, then permitted, then every lower
//! handle is made dead or adopted, and only then is this one committed.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use super::run::{Ended, StopReason};
use super::service::RunContext;
use super::workspace::RunFolder;
use crate::domain::{
    Code, Destination, Epoch, Failure, JobSecrets, OutputIndex, OutputResult, OutputSecrets, OutputSpec,
    Publication, PublicationId, PublicationState,
};
use crate::rpc::wire::{PermitGrant, Permitted, RunEvent};
use crate::storage::{Committed, Destinations, Handle, HandleFate, SetFiles, StagedFile};

/// Time kept back from a permit for the commit itself (PROTOCOL §2, step 6).
const PERMIT_MARGIN: Duration = Duration::from_secs(5);

/// What is sent.
pub(super) enum Files {
    One(StagedFile),
    Set(SetFiles),
}

/// Verified files and where they go.
pub(super) struct Publishing<'a> {
    /// A fresh one.
    pub(super) id: PublicationId,
    pub(super) output: OutputIndex,
    pub(super) epoch: Epoch,
    pub(super) destination: &'a Destination,
    /// What the destination asks for.
    pub(super) secrets: &'a OutputSecrets,
    pub(super) files: Files,
    /// What the record will say; `url` is filled in by the commit.
    pub(super) result: OutputResult,
}

/// Sends, asks, commits. On any failure nothing of this attempt is or becomes visible, or the record knows that it may.
pub(super) async fn publish(
    context: &mut RunContext,
    folder: &RunFolder,
    secrets: &JobSecrets,
    publishing: Publishing<'_>,
) -> Result<(), Ended> {
    let destinations = context.worker.deps.destinations.with(publishing.secrets);
    let id = publishing.id;
    let begun = OnceLock::new();
    let journal = |handle: Handle| {
        let written = folder.journal(id, &handle.to_json()).map_err(|error| disk_failure(&error));
        let _ = begun.set(handle);
        async move { written }
    };
    let stop = context.stop.token().clone();
    let destination = publishing.destination;
    let staging = async {
        match &publishing.files {
            Files::One(file) => destinations.stage(destination, id, file, journal).await,
            Files::Set(files) => destinations.stage_set(destination, id, files, journal).await,
        }
    };
    let sent = tokio::select! {
        sent = staging => sent.map_err(Ended::from),
        () = stop.cancelled() => Err(Ended::Stopped),
    };
    let handle = match sent {
        Ok(handle) => handle,
        Err(ended) => {
            if let Some(handle) = begun.get() {
                discard(&destinations, folder, handle).await;
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
            discard(&destinations, folder, &handle).await;
            return Err(ended);
        }
    };
    if !settle(context, secrets, &permitted.lower).await?.is_empty() {
        // The record already counts this one as dead: another publication of its output is the visible one.
        discard(&destinations, folder, &handle).await;
        return Ok(());
    }
    commit(context, &destinations, folder, Sent { publication, handle, result: publishing.result }).await
}

/// Makes every one of these dead, or finds it visible: then it is its output's result (PROTOCOL F3). Tells both, and
/// returns the outputs that need nothing more.
pub(super) async fn settle(
    context: &RunContext,
    secrets: &JobSecrets,
    open: &[Publication],
) -> Result<Vec<OutputIndex>, Failure> {
    let (mut dead, mut visible) = (Vec::new(), Vec::new());
    for publication in open {
        let handle = Handle::from_json(&publication.handle)?;
        let destinations = context.worker.deps.destinations.with(secrets.output(publication.output));
        match destinations.destroy(&handle).await? {
            HandleFate::Dead => dead.push(publication.id),
            HandleFate::Committed(Committed { url }) => {
                let result: OutputResult = decode(&publication.manifest)?;
                visible.push((publication, OutputResult { url, ..result }));
            }
        }
    }
    if !dead.is_empty() {
        context.log.tell(RunEvent::Resolved(dead));
    }
    for (publication, result) in &visible {
        tracing::info!(output = %publication.output, publication = %publication.id, "adopted what an earlier run published");
        context.log.tell(RunEvent::OutputDone {
            output: publication.output,
            publication: publication.id,
            result: Box::new(result.clone()),
        });
    }
    Ok(visible.into_iter().map(|(publication, _)| publication.output).collect())
}

/// Refuses what could never be published, before anything is encoded for it. The commit still decides: a place may be
/// taken meanwhile.
pub(super) async fn refuse_taken(
    context: &RunContext,
    secrets: &JobSecrets,
    wanted: &[(OutputIndex, &OutputSpec)],
) -> Result<(), Ended> {
    let mut taken = Vec::new();
    for (index, output) in wanted {
        let destinations = context.worker.deps.destinations.with(secrets.output(*index));
        let looking = destinations.refuse_taken(&output.destination);
        match context.stop.token().run_until_cancelled(looking).await {
            None => return Err(Ended::Stopped),
            Some(Ok(())) => {}
            // It may be reachable once there is something to send.
            Some(Err(failure)) if failure.retryable() => {
                tracing::debug!(output = %index, %failure, detail = failure.detail, "could not look at a destination");
            }
            Some(Err(failure)) => taken.push((*index, failure)),
        }
    }
    match taken.first() {
        None => Ok(()),
        // The others are worth making, and the commit refuses this one.
        Some(_) if taken.len() < wanted.len() => Ok(()),
        Some((_, first)) => Err(Ended::Failed { failure: first.clone(), outputs: taken }),
    }
}

async fn permit(context: &mut RunContext, publication: &Publication) -> Result<Permitted, Ended> {
    loop {
        // An answer to an earlier question is none to this one.
        context.permits.mark_unchanged();
        context.log.tell(RunEvent::Ready(publication.clone()));
        let mine = |grant: &Option<PermitGrant>| {
            grant.as_ref().is_some_and(|grant| grant.publication == publication.id)
        };
        let grant = loop {
            tokio::select! {
                changed = context.permits.changed() => changed.map_err(|_| Ended::Stopped)?,
                () = context.stop.token().cancelled() => return Err(Ended::Stopped),
            }
            // Somebody who attached is answered about every fact again; only the last one is open.
            let latest = context.permits.borrow_and_update();
            if mine(&latest) {
                break latest.clone();
            }
        };
        let Some(permitted) = grant.and_then(|grant| grant.granted) else {
            // On the record this run is over.
            context.stop.request(StopReason::Cancelled);
            return Err(Ended::Stopped);
        };
        // Counted from what the control last heard of us, never from receipt: a permit that was long on its way is
        // asked for again (the record gives the same answer).
        if context.worker.monotonic() + PERMIT_MARGIN < permitted.echo + permitted.ttl {
            return Ok(permitted);
        }
    }
}

/// A file that is at its destination, invisible, and may be made visible.
struct Sent {
    publication: Publication,
    handle: Handle,
    result: OutputResult,
}

async fn commit(
    context: &RunContext,
    destinations: &Destinations,
    folder: &RunFolder,
    sent: Sent,
) -> Result<(), Ended> {
    let Sent { publication, handle, result } = sent;
    let done = |url: String| RunEvent::OutputDone {
        output: publication.output,
        publication: publication.id,
        result: Box::new(OutputResult { url, ..result.clone() }),
    };
    let failure = match destinations.commit(&handle).await {
        Ok(committed) => {
            folder.settled(publication.id);
            let bytes: u64 = result.files.iter().map(|file| file.size).sum();
            tracing::info!(output = %publication.output, bytes, "output published");
            context.log.tell(done(committed.url));
            return Ok(());
        }
        Err(failure) => failure,
    };
    // The answer may have been lost on its way: only destroying tells what became of it.
    match destinations.destroy(&handle).await {
        Ok(HandleFate::Committed(Committed { url })) => {
            folder.settled(publication.id);
            context.log.tell(done(url));
            Ok(())
        }
        Ok(HandleFate::Dead) => {
            folder.settled(publication.id);
            context.log.tell(RunEvent::Resolved(vec![publication.id]));
            Err(failure.into())
        }
        // It stays open on the record; the next run of the task settles it first.
        Err(_) => Err(failure.into()),
    }
}

/// Destroys a handle that nobody will commit; what fails here stays in the journal and is swept later.
async fn discard(destinations: &Destinations, folder: &RunFolder, handle: &Handle) {
    match destinations.destroy(handle).await {
        Ok(_) => folder.settled(handle.publication()),
        Err(failure) => {
            tracing::warn!(%failure, detail = failure.detail, "could not destroy an unused publishing handle");
        }
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

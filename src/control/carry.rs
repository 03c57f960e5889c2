//! Sends sources that clients gave to this control to workers that do not have them: uploads and inline sources lie in
//! the control's data folder, which a worker on another machine does not see.

use std::sync::Arc;

use async_trait::async_trait;

use super::runs::Held;
use super::settings::Backoff;
use super::shared::Shared;
use crate::domain::{Folder, Source};
use crate::rpc::CallError;
use crate::rpc::wire::Given;

/// Reads what clients gave to this control; given by the room that knows storage.
#[async_trait]
pub trait GivenSources: Send + Sync + 'static {
    /// The bytes of a source; [`Given::Gone`] for one that is not kept here.
    async fn open(&self, source: &Source) -> std::io::Result<Given>;
    /// The folder they lie in.
    fn folder(&self) -> Folder;
}

/// Whether this control can give the source of a task. Of a record of its own it can say that nobody has it any more;
/// else another control may.
pub(super) async fn is_here(shared: &Shared, source: &Source) -> bool {
    if shared.store.sole() || !source.is_given() {
        return true;
    }
    match &shared.discovery.given {
        // What cannot be read now may be read later: trying is the way to be told.
        Some(kept) => !matches!(kept.open(source).await, Ok(Given::Gone)),
        None => false,
    }
}

/// Sends a run's source, again until the worker has it or the run is over. A worker that has it says so at once.
pub(super) fn start(shared: &Arc<Shared>, held: Arc<Held>, source: Source) {
    let task = carry(Arc::clone(shared), held, source);
    shared.spawn("carry", task);
}

async fn carry(shared: Arc<Shared>, held: Arc<Held>, source: Source) {
    let mut backoff = Backoff::new(&shared.pace);
    while shared.runs.holds(held.key.run) {
        let sent = held.stop.run_until_cancelled(send(&shared, &held, &source));
        match sent.await {
            None | Some(Ok(()) | Err(CallError::NotFound)) => return,
            Some(Err(error)) => {
                tracing::warn!(run = %held.key.run, %error, "could not send a source to its worker, trying again");
            }
        }
        let wait = tokio::time::sleep(backoff.step());
        if held.stop.run_until_cancelled(wait).await.is_none() {
            return;
        }
    }
}

async fn send(shared: &Shared, held: &Held, source: &Source) -> Result<(), CallError> {
    let given = match &shared.discovery.given {
        Some(kept) => kept.open(source).await.map_err(|error| {
            CallError::Unreachable(format!("this control cannot read the source: {error}"))
        })?,
        None => Given::Gone,
    };
    held.member.client.put_source(held.key.run, given).await
}

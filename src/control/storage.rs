//! Whether a worker on another machine means the same storage as this control (PROTOCOL §1.10).

use std::sync::Arc;

use super::Found;
use super::fleet::{Member, bounded};
use super::shared::Shared;
use crate::domain::BootId;
use crate::storage::Destinations;

/// Asks each incarnation once: leaves a random text in the storage and has the worker read it back. `Err` says why the
/// worker gets no task, for people.
pub(super) async fn shared(shared: &Shared, member: &Arc<Member>, boot: BootId) -> Result<(), String> {
    let Some(storage) = &shared.discovery.storage else { return Ok(()) };
    if member.found == Found::InProcess || member.seen().shares_storage == Some(boot) {
        return Ok(());
    }
    ask(shared, member, storage).await?;
    member.shares_storage(boot);
    Ok(())
}

async fn ask(shared: &Shared, member: &Member, storage: &Destinations) -> Result<(), String> {
    let (id, text) = (shared.ids.random(), shared.ids.random().to_string());
    let left = storage.leave_token(id, text.clone()).await;
    left.map_err(|failure| format!("this control cannot write to its own storage: {failure}"))?;
    let read = bounded(shared.pace.call, member.client.read_token(id)).await;
    if let Err(failure) = storage.remove_token(id).await {
        tracing::warn!(%id, %failure, "a test file stays in the storage");
    }
    match read {
        Ok(Ok(Some(read))) if read == text => Ok(()),
        Ok(Ok(_)) => {
            Err("its storage is not this control's: give both the same storage.url, which for a folder must \
                          be one that both machines see"
                .to_owned())
        }
        Ok(Err(trouble)) => Err(format!("it cannot read its storage: {trouble}")),
        Err(error) => Err(format!("it did not say whether it sees this control's storage: {error}")),
    }
}

//! Whether a worker on another machine means the same storage as this control (PROTOCOL §1.10).

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Found;
use super::fleet::{Member, bounded};
use super::shared::Shared;
use crate::domain::BootId;
use crate::lifecycle::TaskKind;
use crate::rpc::CallError;
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

/// The text is taken away again whatever happens meanwhile: the task outlives the control's end until that is done.
async fn ask(shared: &Shared, member: &Member, storage: &Destinations) -> Result<(), String> {
    let (id, text) = (shared.ids.random(), shared.ids.random().to_string());
    let (answer, heard) = oneshot::channel();
    let (storage, client, left) = (storage.clone(), member.client.clone(), text.clone());
    let (limit, done) = (shared.pace.call, shared.done.clone());
    shared.lifecycle.spawn(TaskKind::Background, "storage test", async move {
        if let Err(failure) = storage.leave_token(id, left).await {
            drop(answer.send(Err(failure)));
            return;
        }
        let read = done.run_until_cancelled(bounded(limit, client.read_token(id))).await;
        if let Err(failure) = storage.remove_token(id).await {
            tracing::warn!(%id, %failure, "a test file stays in the storage");
        }
        let ended = || Err(CallError::Unreachable("this control ends".to_owned()));
        drop(answer.send(Ok(read.unwrap_or_else(ended))));
    });
    let read = match heard.await {
        Ok(Ok(read)) => read,
        Ok(Err(failure)) => return Err(format!("this control cannot write to its own storage: {failure}")),
        Err(_) => return Err("the test of the storage was not finished".to_owned()),
    };
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

//! What all actors of the control share: immutable, but for leaves that guard themselves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::fleet::{Fleet, Member};
use super::hub::Hub;
use super::runs::Runs;
use super::settings::Pace;
use super::waker::Wakes;
use super::{Discovery, WorkerHandle, minder};
use crate::domain::webhook::WebhookEvent;
use crate::domain::{Clock, Folder, IdSource, SessionId};
use crate::lifecycle::{Lifecycle, TaskKind};
use crate::store::{DynStore, Outbox};

/// Shared by every actor and by the handle.
pub(super) struct Shared {
    pub(super) store: DynStore,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<dyn IdSource>,
    pub(super) name: String,
    pub(super) pace: Pace,
    pub(super) fleet: Fleet,
    pub(super) runs: Arc<Runs>,
    pub(super) hub: Hub,
    pub(super) discovery: Discovery,
    /// The session in force; written by its keeper alone.
    pub(super) session: watch::Sender<SessionId>,
    /// Something may be claimable.
    pub(super) dispatch: Notify,
    /// Something may be due sooner than known.
    pub(super) alarm: Notify,
    /// What this control holds is in doubt: it must begin a new session.
    pub(super) resign: Notify,
    /// Workers may be missing.
    pub(super) wakes: Wakes,
    /// How long finished jobs stay; `None` = for ever.
    pub(super) keep: Option<Duration>,
    /// What receivers are to be told, if anything.
    pub(super) outbox: Option<Arc<dyn Outbox>>,
    /// What a job that does not say is told of.
    pub(super) webhook_events: Option<Vec<WebhookEvent>>,
    /// Joins every task; its soft stage ends claiming.
    pub(super) lifecycle: Lifecycle,
    /// Nothing is left to do: everything is drained, or the process ends now.
    pub(super) done: CancellationToken,
}

impl Shared {
    /// Starts an actor without which the control is useless.
    pub(super) fn spawn_essential(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn_as(TaskKind::Essential, name, task);
    }

    /// Starts a task that concerns one run or one worker, or upkeep.
    pub(super) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_as(TaskKind::Background, name, task);
    }

    /// Takes a worker into the fleet and looks after it, unless one of the same address is there already.
    pub(super) fn join(self: &Arc<Self>, handle: WorkerHandle) {
        let member = Arc::new(Member::new(handle, self.clock.now()));
        if self.fleet.join(&member) {
            tracing::info!(address = %member.address, found = ?member.found, "worker joined");
            self.spawn("minder", minder::mind(Arc::clone(self), member));
        }
    }

    /// Where sources lie that clients gave to this control; of a record of our own there is no other place.
    pub(super) fn folder(&self) -> Folder {
        match &self.discovery.given {
            Some(given) if !self.store.sole() => given.folder(),
            Some(_) | None => Folder::ONLY,
        }
    }

    /// Whether this session is the one in force. What an earlier one claimed is found by `takeover`: to hold it for the
    /// earlier one would drive out whoever holds it now.
    pub(super) fn is_in_force(&self, session: SessionId) -> bool {
        *self.session.borrow() == session
    }

    /// Ends the session, so that nobody waits for it to run out.
    pub(super) async fn close_session(&self) {
        let session = *self.session.borrow();
        match tokio::time::timeout(self.pace.call, self.store.close_session(session)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the session was not closed; it runs out"
                );
            }
            Err(_) => tracing::warn!("the session was not closed in time; it runs out"),
        }
    }

    /// Forgets a worker that is gone; never one that we still hold runs on.
    pub(super) fn leave(&self, member: &Arc<Member>) {
        if self.runs.given_to(member).is_empty() {
            tracing::info!(address = %member.address, "worker left");
            self.fleet.leave(member);
            member.gone.cancel();
        }
    }

    /// A task is dropped at its next wait once the control is done.
    fn spawn_as(&self, kind: TaskKind, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let done = self.done.clone();
        self.lifecycle.spawn(kind, name, async move {
            done.run_until_cancelled_owned(task).await;
        });
    }
}

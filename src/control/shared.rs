//! What all actors of the control share: immutable, but for leaves that guard themselves.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fleet::{Fleet, Member};
use super::hub::Hub;
use super::runs::Runs;
use super::settings::Pace;
use super::{WorkerHandle, minder};
use crate::domain::{Clock, IdSource, SessionId};
use crate::store::DynStore;

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
    /// The session in force; written by its keeper alone.
    pub(super) session: watch::Sender<SessionId>,
    /// Something may be claimable.
    pub(super) dispatch: Notify,
    /// Something may be due sooner than known.
    pub(super) alarm: Notify,
    /// Claim nothing more.
    pub(super) soft: CancellationToken,
    /// Nothing is left to do: everything is drained, or the process ends now.
    pub(super) done: CancellationToken,
    pub(super) tracker: TaskTracker,
}

impl Shared {
    /// Starts an actor or a driver. It is dropped at its next wait once the control is done.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let done = self.done.clone();
        self.tracker.spawn(async move {
            done.run_until_cancelled_owned(task).await;
        });
    }

    /// Takes a worker into the fleet and looks after it.
    pub(super) fn join(self: &Arc<Self>, handle: WorkerHandle) {
        let member = Arc::new(Member::new(handle, self.clock.now()));
        self.fleet.join(Arc::clone(&member));
        self.spawn(minder::mind(Arc::clone(self), member));
    }
}

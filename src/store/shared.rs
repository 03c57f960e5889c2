//! What every verb of a store may use.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, broadcast};

use super::outbox::Letters;
use super::seal::SealKeys;
use crate::domain::machine::Policy;
use crate::domain::{IdSource, JobId, Results};

/// Changes a slow reader may miss before it has to read everything again.
const CHANGES: usize = 1024;

/// What a store was given by whoever opened it, besides keys and bounds.
pub(super) struct Given {
    pub(super) ids: Arc<dyn IdSource>,
    pub(super) letters: Option<Arc<dyn Letters>>,
    pub(super) results: Results,
}

/// Rules, keys and what is only in memory.
pub(super) struct Shared {
    pub(super) policy: Policy,
    pub(super) max_pending: Option<u64>,
    /// What the workers can run at once, as last offered.
    pub(super) slots: AtomicU64,
    pub(super) keys: SealKeys,
    pub(super) ids: Arc<dyn IdSource>,
    pub(super) changes: broadcast::Sender<JobId>,
    /// Writes what receivers are told.
    pub(super) letters: Option<Arc<dyn Letters>>,
    /// What becomes of results when retention removes their job.
    pub(super) results: Results,
    /// Told when a delivery was written here.
    pub(super) posted: Arc<Notify>,
    /// Tasks that wait for a worker or a time, as committed.
    pub(super) waiting: AtomicI64,
    /// The tenant that was served last.
    pub(super) last_tenant: Mutex<Option<String>>,
}

impl Shared {
    /// `waiting` tasks wait already.
    pub(super) fn new(
        keys: SealKeys,
        (max_pending, max_attempts): (Option<u64>, u32),
        given: Given,
        waiting: i64,
    ) -> Self {
        let Given { ids, letters, results } = given;
        Self {
            policy: Policy { max_attempts: max_attempts.max(1), ..Policy::default() },
            max_pending,
            slots: AtomicU64::new(0),
            keys,
            ids,
            changes: broadcast::channel(CHANGES).0,
            letters,
            results,
            posted: Arc::default(),
            waiting: AtomicI64::new(waiting),
            last_tenant: Mutex::default(),
        }
    }
}

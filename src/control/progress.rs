//! Writes how far running tasks are, one statement a second for all of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::shared::Shared;
use crate::domain::{TaskId, TaskReport};
use crate::store::Reported;

/// Runs until the control is done; asleep while nothing is held. A failed write is dropped: the next one has the same
/// or newer marks, and nothing is decided by them.
pub(super) async fn write(shared: Arc<Shared>) {
    let mut load = shared.runs.load();
    let mut written: HashMap<TaskId, TaskReport> = HashMap::new();
    let sole = shared.store.sole();
    loop {
        if load.wait_for(|load| load.runs > 0).await.is_err() {
            return;
        }
        tokio::time::sleep(shared.pace.progress).await;
        let reports = shared.runs.reports();
        // With a record of its own, a control has the rest of a report in memory.
        let same = |old: &TaskReport, new: &TaskReport| {
            if sole { old.progress == new.progress } else { old == new }
        };
        let fresh = |new: &&Reported| written.get(&new.task).is_none_or(|old| !same(old, &new.report));
        let news: Vec<_> = reports.iter().filter(fresh).cloned().collect();
        if news.is_empty() {
            let running: HashSet<_> = reports.iter().map(|known| known.task).collect();
            written.retain(|task, _| running.contains(task));
            continue;
        }
        match shared.store.progress(&news).await {
            Ok(()) => written = reports.into_iter().map(|known| (known.task, known.report)).collect(),
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "progress not written"),
        }
    }
}

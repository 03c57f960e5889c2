//! Writes the high-water marks of progress, one statement a second for all running jobs.

use std::collections::HashMap;
use std::sync::Arc;

use super::shared::Shared;
use crate::domain::{JobId, Progress};

/// Runs until the control is done; asleep while nothing is held. A failed write is dropped: the next one has the same
/// or newer marks, and nothing is decided by them.
pub(super) async fn write(shared: Arc<Shared>) {
    let mut load = shared.runs.load();
    let mut written: HashMap<JobId, Progress> = HashMap::new();
    loop {
        if load.wait_for(|load| load.runs > 0).await.is_err() {
            return;
        }
        tokio::time::sleep(shared.pace.progress).await;
        let marks = shared.runs.marks();
        let news: Vec<_> =
            marks.iter().filter(|(job, mark)| written.get(job) != Some(mark)).copied().collect();
        if news.is_empty() {
            written.retain(|job, _| marks.iter().any(|(known, _)| known == job));
            continue;
        }
        match shared.store.progress(&news).await {
            Ok(()) => written = marks.into_iter().collect(),
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "progress not written"),
        }
    }
}

//! Counts jobs that ended, where the control that ended them sees it.

use super::shared::Shared;
use crate::domain::JobId;
use crate::telemetry::metrics;

/// Counts the job if it is terminal. To be called once, by whoever said the verb that may have ended it.
pub(super) async fn count(shared: &Shared, job: JobId) {
    let Ok(Some(stored)) = shared.store.get(None, job).await else {
        return;
    };
    let job = stored.aggregate.job;
    if let Some(finished) = job.finished_at.filter(|_| job.status.is_terminal()) {
        let took = finished.since(job.created_at);
        tracing::info!(job.id = %job.id, status = job.status.as_str(), seconds = took.as_secs_f64(), "job ended");
        metrics::job_finished(job.status, took);
    }
}

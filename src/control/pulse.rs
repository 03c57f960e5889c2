//! Follows, for readers here, jobs that other controls run; and hears of cancels that other controls took.
//!
//! Of a record that only one control uses everything is heard as it happens. Else hints may get lost and the rows are
//! the truth: once a second those of the jobs that are watched or run here are compared, in a statement for all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::runs::Held;
use super::shared::Shared;
use crate::domain::{JobId, JobStatus};
use crate::store::{Pulse, Result};

/// Jobs compared in one statement.
const BATCH: usize = 500;

/// Runs until the control is done.
pub(super) async fn follow(shared: Arc<Shared>) {
    if shared.store.sole() {
        return;
    }
    let mut known: HashMap<JobId, i64> = HashMap::new();
    loop {
        tokio::time::sleep(shared.pace.progress).await;
        let channels = shared.hub.channels().await;
        let held = shared.runs.all();
        let here: HashSet<JobId> = held.iter().map(|held| held.key.job).collect();
        let watched: HashSet<JobId> = channels.iter().map(|(job, _)| *job).collect();
        let jobs: Vec<JobId> = here.union(&watched).copied().collect();
        let pulses = match read(&shared, &jobs).await {
            Ok(pulses) => pulses,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "pulses not read");
                continue;
            }
        };
        for held in &held {
            heed(held, pulses.get(&held.key.job));
        }
        known.retain(|job, _| watched.contains(job));
        for (job, channel) in channels {
            let Some(pulse) = pulses.get(&job) else { continue };
            // Also the first time: its readers may have read the rows before this.
            let news = known.insert(job, pulse.seq) != Some(pulse.seq);
            let report = pulse.report.clone().filter(|_| !pulse.status.is_terminal());
            channel.send_if_modified(|live| {
                let told = !here.contains(&job) && live.report != report;
                if told {
                    live.report = report;
                }
                live.revision += u64::from(news);
                told || news
            });
        }
    }
}

async fn read(shared: &Shared, jobs: &[JobId]) -> Result<HashMap<JobId, Pulse>> {
    let mut pulses = HashMap::new();
    for some in jobs.chunks(BATCH) {
        pulses.extend(shared.store.pulse(some).await?.into_iter().map(|pulse| (pulse.job, pulse)));
    }
    Ok(pulses)
}

/// Does to a run of ours what another control could not: it wrote the cancel down, the worker is told from here. Every
/// other end of its job is written by the run's own driver, which is not to be disturbed in that.
fn heed(held: &Held, pulse: Option<&Pulse>) {
    match pulse {
        None => held.stop.cancel(),
        Some(pulse) if pulse.status == JobStatus::Cancelled => held.stop.cancel(),
        Some(pulse) if pulse.cancel_asked => held.cancelling.cancel(),
        Some(_) => {}
    }
}

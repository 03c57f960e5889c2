//! Follows, for readers here, jobs that other controls run; and hears of cancels that other controls took.
//!
//! Of a record that only one control uses everything is heard as it happens. Else hints may get lost and the rows are
//! the truth: once a second those of the jobs that are watched or run here are compared, in a statement for all.

use std::collections::HashMap;
use std::sync::Arc;

use super::shared::Shared;
use crate::domain::JobId;
use crate::store::Pulse;

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
        let mut jobs: Vec<JobId> = channels.iter().map(|(job, _)| *job).collect();
        jobs.extend(held.iter().map(|held| held.key.job));
        jobs.sort_unstable();
        jobs.dedup();
        let mut pulses: HashMap<JobId, Pulse> = HashMap::new();
        for some in jobs.chunks(BATCH) {
            match shared.store.pulse(some).await {
                Ok(answer) => pulses.extend(answer.into_iter().map(|pulse| (pulse.job, pulse))),
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "pulses not read");
                    pulses.clear();
                    break;
                }
            }
        }
        if pulses.is_empty() {
            continue;
        }
        for held in &held {
            match pulses.get(&held.key.job) {
                // Cancelled or deleted through another control: the worker must stop.
                None => held.stop.cancel(),
                Some(pulse) if pulse.status.is_terminal() => held.stop.cancel(),
                Some(pulse) if pulse.cancel_asked => held.cancelling.cancel(),
                Some(_) => {}
            }
        }
        let here: std::collections::HashSet<_> = held.iter().map(|held| held.key.job).collect();
        for (job, channel) in channels {
            let Some(pulse) = pulses.get(&job) else { continue };
            let news = known.insert(job, pulse.seq).is_some_and(|seq| seq != pulse.seq);
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
        known.retain(|job, _| pulses.contains_key(job));
    }
}

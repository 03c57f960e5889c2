//! Progress on stderr: a bar for a person, a line now and then for a log.

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::output::{field, interactive, note};

/// Percent between two lines where nobody watches.
const PLAIN_STEP: f64 = 10.0;

/// Shows where a job is.
pub(super) struct ProgressLine {
    bar: Option<ProgressBar>,
    last_phase: String,
    last_percent: f64,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        let bar = interactive().then(|| {
            let bar = ProgressBar::new(1000);
            let style = ProgressStyle::with_template("{prefix:10} [{bar:32}] {percent:>3} %  {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, last_phase: String::new(), last_percent: -PLAIN_STEP }
    }

    /// Shows the job as an event or a snapshot tells it.
    pub(super) fn show(&mut self, job: &Value) {
        let Some(percent) = job["progress"].as_f64() else {
            return;
        };
        let phase = if job["phase"].is_string() { field(&job["phase"]) } else { field(&job["status"]) };
        let figures = figures(job);
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(phase);
                bar.set_message(figures);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "0 to 1000 by contract, clamped"
                )]
                bar.set_position((percent.clamp(0.0, 100.0) * 10.0) as u64);
            }
            None if phase != self.last_phase || percent >= self.last_percent + PLAIN_STEP => {
                note(format_args!("{phase:10} {percent:5.1} %  {figures}"));
                self.last_phase = phase;
                self.last_percent = percent;
            }
            None => {}
        }
    }

    /// Leaves the terminal as it was.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn figures(job: &Value) -> String {
    let part = |key: &str, unit: &str| job[key].as_f64().map(|value| format!("{value:.1}{unit}"));
    let eta = job["eta_seconds"].as_f64().map(|seconds| format!("{seconds:.0} s left"));
    [part("fps", " fps"), part("speed", "x"), eta].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

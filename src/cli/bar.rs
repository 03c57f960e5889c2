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
        let phase = self.phase(job);
        let figures = figures(job);
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(phase.clone());
                bar.set_message(figures);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "0 to 1000 by contract, clamped"
                )]
                bar.set_position((percent.clamp(0.0, 100.0) * 10.0) as u64);
            }
            None if phase != self.last_phase || percent >= self.last_percent + PLAIN_STEP => {
                note(format!("{phase:10} {percent:5.1} %  {figures}").trim_end());
                self.last_percent = percent;
            }
            None => {}
        }
        self.last_phase = phase;
    }

    /// What to call the job's state. Events of the record know no phase: between two reports the last one still holds.
    fn phase(&self, job: &Value) -> String {
        if job["phase"].is_string() {
            field(&job["phase"])
        } else if job["status"] == "running" && !matches!(self.last_phase.as_str(), "" | "queued") {
            self.last_phase.clone()
        } else {
            field(&job["status"])
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
    // An encoder that has just begun reports rates of zero, which say nothing.
    let rate = |key: &str| job[key].as_f64().filter(|value| *value >= 0.05);
    let part = |key: &str, unit: &str| rate(key).map(|value| format!("{value:.1}{unit}"));
    let eta = job["eta_seconds"].as_f64().map(|seconds| format!("{seconds:.0} s left"));
    [part("fps", " fps"), part("speed", "x"), eta].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_without_a_phase_keep_the_last_one() {
        let mut line = ProgressLine { bar: None, last_phase: String::new(), last_percent: 0.0 };
        let mut shown = Vec::new();
        for job in [
            json!({"status": "queued", "phase": null, "progress": 0.0}),
            json!({"status": "running", "phase": null, "progress": 0.0}),
            json!({"status": "running", "phase": "encoding", "progress": 40.0}),
            json!({"status": "running", "phase": null, "progress": 40.0}),
            json!({"status": "queued", "phase": null, "progress": 40.0}),
            json!({"status": "completed", "phase": null, "progress": 100.0}),
        ] {
            line.show(&job);
            shown.push(line.last_phase.clone());
        }
        assert_eq!(shown, ["queued", "running", "encoding", "encoding", "queued", "completed"]);
    }

    #[test]
    fn rates_of_zero_are_not_shown() {
        let job = json!({"fps": 0.0, "speed": 1.26, "eta_seconds": 7.4});
        assert_eq!(figures(&job), "1.3x, 7 s left");
    }
}

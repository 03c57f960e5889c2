//! What an operator sees of a running process: logs, spans and metrics.
//!
//! Owns the subscriber, the recorder, the names of metrics and the shape of spans.
//! Must not know: where metrics are served (the API does that) and what the numbers mean for dispatch.
//! Invariants: logs go to stderr only, data owns stdout; labels come from enums or route templates, never from ids,
//! URLs or client text, so that the number of series is bounded.
//! To add a metric: a constant, its description and a function that records it, all in `telemetry::metrics`.
//!
//! Levels: *info* is a state change that one operator would tell another; *warn* is degraded and recovered;
//! *error* means somebody must act.

pub mod metrics;
mod process;

use std::io::{self, IsTerminal as _};
use std::panic;

use tracing::Span;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Log, LogFormat};
use crate::domain::{Epoch, JobId, WorkerId};

pub use metrics::Metrics;

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter has no meaning. [`crate::config`] refuses such a filter before.
    #[error("cannot read the log filter")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Set up twice.
    #[error("logs are already set up in this process")]
    Subscriber(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Set up twice.
    #[error("metrics are already set up in this process")]
    Recorder(#[source] metrics_exporter_prometheus::BuildError),
}

/// Sends logs to stderr, and panics with them. Once per process.
pub fn init_logs(log: &Log) -> Result<(), Error> {
    let json = match log.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    let filter = EnvFilter::try_new(&log.filter).map_err(Error::Filter)?;
    let form = if json { Form::Json } else { Form::Pretty { color: io::stderr().is_terminal() } };
    tracing::dispatcher::set_global_default(subscriber(form, filter, io::stderr))
        .map_err(|error| Error::Subscriber(error.into()))?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Json,
    Pretty { color: bool },
}

fn subscriber<W>(form: Form, filter: EnvFilter, writer: W) -> tracing::Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match form {
        // Current span only: our spans repeat what their parents say.
        Form::Json => {
            builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish().into()
        }
        Form::Pretty { color: true } => builder.compact().with_target(false).finish().into(),
        Form::Pretty { color: false } => {
            builder.compact().with_target(false).with_ansi(false).finish().into()
        }
    }
}

/// The default hook writes plain lines to stderr, which no collector of JSON lines can read.
fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("no message");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(panic = message, place, backtrace = %std::backtrace::Backtrace::capture(), "panicked");
}

/// The span of everything done for a job.
#[must_use]
pub fn job_span(job: JobId) -> Span {
    tracing::info_span!("job", job.id = %job)
}

/// The span of one run of a task, on both sides.
#[must_use]
pub fn task_span(job: JobId, attempt: Epoch, worker: &WorkerId) -> Span {
    tracing::info_span!("task", job.id = %job, attempt = attempt.0, worker.id = %worker)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use uuid::Uuid;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(form: Form, filter: &str, work: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let dispatch = subscriber(form, EnvFilter::new(filter), move || writer.clone());
        tracing::dispatcher::with_default(&dispatch, work);
        sink.text()
    }

    #[test]
    fn json_lines_carry_the_fields_of_their_task() {
        let text = logged(Form::Json, "info", || {
            let worker: WorkerId = "w1".parse().unwrap();
            let span = task_span(JobId::from_uuid(Uuid::from_u128(7)), Epoch(2), &worker);
            span.in_scope(|| tracing::info!(size = 5, "output uploaded"));
        });
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "output uploaded");
        assert_eq!(line["size"], 5);
        assert_eq!(line["span"]["job.id"], "00000000-0000-0000-0000-000000000007");
        assert_eq!(line["span"]["attempt"], 2);
        assert_eq!(line["span"]["worker.id"], "w1");
    }

    #[test]
    fn a_line_break_in_a_value_does_not_make_a_second_record() {
        for form in [Form::Json, Form::Pretty { color: false }] {
            let text = logged(form, "info", || tracing::info!(title = "a\nb\u{1b}[31m", "seen"));
            assert_eq!(text.trim_end().lines().count(), 1, "{text:?}");
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }

    #[test]
    fn the_filter_is_obeyed() {
        let work = || {
            tracing::debug!("quiet");
            tracing::warn!("loud");
        };
        let text = logged(Form::Pretty { color: false }, "warn", work);
        assert!(text.contains("loud") && !text.contains("quiet"), "{text}");
    }
}

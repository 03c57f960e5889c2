//! The bodies of webhooks: `{type, timestamp, data}`, where `data` is the job as the API shows it.

use serde_json::{Value, json};

use super::view::{Dialect, JobView};
use crate::domain::webhook::Notice;
use crate::domain::{Aggregate, Timestamp};
use crate::store::{Letters, StoredJob};

/// Writes bodies in the public shapes.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobLetters;

impl Letters for JobLetters {
    fn body(&self, notice: &Notice, job: &Aggregate, at: Timestamp) -> String {
        let stored = StoredJob { aggregate: job.clone(), attempts: Vec::new(), queue_position: None };
        let mut data =
            serde_json::to_value(JobView::of(&stored, None, Dialect::Canonical).brief()).unwrap_or_default();
        if let Value::Object(data) = &mut data {
            // Bodies stay small: attempts, command lines and the tools' lines are asked for with the job.
            data.remove("attempts");
            data.remove("queue_position");
            data.insert("run".to_owned(), json!(job.job.run));
            data.insert("output".to_owned(), json!(notice.output));
        }
        without_logs(&mut data);
        json!({"type": notice.event, "timestamp": at, "data": data}).to_string()
    }
}

fn without_logs(data: &mut Value) {
    let outputs = data.get_mut("outputs").and_then(Value::as_array_mut).into_iter().flatten();
    for output in outputs {
        drop(output.get_mut("error").and_then(Value::as_object_mut).and_then(|error| error.remove("log")));
    }
    drop(data.get_mut("error").and_then(Value::as_object_mut).and_then(|error| error.remove("log")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testkit::stored;
    use crate::domain::webhook::WebhookEvent;
    use crate::domain::{Code, Failure, JobStatus, OutputIndex};

    fn body(status: JobStatus, notice: Notice) -> Value {
        let mut job = stored(status).aggregate;
        job.job.failure = Some(
            Failure::new(Code::EncodeFailed, "the encoder failed")
                .with_detail("/host")
                .with_log(["x".into()]),
        );
        serde_json::from_str(&JobLetters.body(&notice, &job, Timestamp::from_micros(0))).unwrap()
    }

    #[test]
    fn a_body_is_the_job_without_logs_and_paths() {
        let body = body(JobStatus::Failed, Notice { event: WebhookEvent::JobFailed, output: None });
        assert_eq!(body["type"], "job.failed");
        assert_eq!(body["timestamp"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(body["data"]["status"], "failed");
        assert_eq!(body["data"]["run"], 1);
        assert_eq!(body["data"]["output"], Value::Null);
        assert_eq!(body["data"]["error"]["code"], "encode_failed");
        let text = body.to_string();
        assert!(!text.contains("\"log\"") && !text.contains("/host"), "{text}");
    }

    #[test]
    fn an_output_is_named() {
        let notice = Notice { event: WebhookEvent::OutputCompleted, output: Some(OutputIndex(0)) };
        let body = body(JobStatus::Completed, notice);
        assert_eq!((&body["type"], &body["data"]["output"]), (&json!("output.completed"), &json!(0)));
    }
}

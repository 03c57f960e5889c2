//! A client per job: submits with a key until it is answered, looks, and asks for what its plan says.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::history::{Status, StreamEvent, Told};
use super::plan::{JobPlan, Wish};
use crate::support::{PATIENCE, fake};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long a client waits for one answer.
const ANSWER: Duration = Duration::from_secs(3);

/// What all clients share.
#[derive(Clone)]
pub struct Clients {
    pub http: reqwest::Client,
    /// Where the controls are now.
    pub urls: watch::Receiver<Vec<String>>,
    /// Counts requests: each goes to another control than the one before.
    pub turn: Arc<AtomicUsize>,
    pub clip: PathBuf,
    pub told: Arc<Mutex<Vec<Told>>>,
}

/// Without dashes, as in a history.
pub fn plain(id: &str) -> String {
    id.replace('-', "")
}

impl Clients {
    fn note(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let (urls, turn) = (self.urls.borrow(), self.turn.fetch_add(1, Ordering::Relaxed));
        // Where nobody listens, if none is up.
        let to = urls.get(turn % urls.len().max(1)).map_or("http://127.0.0.1:1", String::as_str);
        self.http.request(method, format!("{to}{path}")).timeout(ANSWER)
    }

    /// Follows one job from its submission to its end; the id, if it was not deleted.
    pub async fn live(self, number: usize, plan: JobPlan, begin: Instant) -> Option<String> {
        tokio::time::sleep_until(begin + plan.at).await;
        let id = self.submit(number, &plan).await;
        let accepted = Instant::now();
        let (mut wish, job) = (plan.then, plain(&id));
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            assert!(accepted.elapsed() < 2 * PATIENCE, "job {number} ({id}) never ended");
            if let Some((_, asked)) = wish.filter(|(at, w)| *w != Wish::Retry && accepted.elapsed() >= *at) {
                wish = None;
                self.ask(&id, asked).await;
            }
            let Some((code, body)) = self.get(&id).await else { continue };
            match (code, body["status"].as_str().and_then(Status::named)) {
                (StatusCode::NOT_FOUND, _) => {
                    self.note(Told::Gone { job });
                    return None;
                }
                (StatusCode::OK, Some(status)) => {
                    self.note(Told::Saw { job: job.clone(), status });
                    let retries = matches!(wish, Some((_, Wish::Retry)));
                    if status == Status::Failed && retries {
                        wish = None;
                        self.ask(&id, Wish::Retry).await;
                    } else if status.is_terminal() && (retries || wish.is_none()) {
                        return Some(id);
                    }
                }
                _ => {}
            }
        }
    }

    /// Says it until it is answered, always with the same key.
    async fn submit(&self, number: usize, plan: &JobPlan) -> String {
        let source = if plan.inline {
            let bytes = std::fs::read(&self.clip).unwrap();
            json!({"kind": "inline", "data": base64::engine::general_purpose::STANDARD.encode(bytes)})
        } else {
            json!({"kind": "file", "path": self.clip})
        };
        let output = |index: usize| {
            json!({
                "preset": "proxy_360p",
                "audio": {"bitrate": fake::bitrate(number)},
                "destination": {"kind": "storage", "path": format!("{{job_id}}/out-{index}.mp4")},
            })
        };
        let outputs: Vec<_> = (0..plan.outputs).map(output).collect();
        let body = json!({"source": source, "outputs": outputs, "verify": "probe"});
        let key = format!("key-{number}");
        let since = Instant::now();
        let mut again = tokio::time::interval(LOOK);
        loop {
            again.tick().await;
            assert!(since.elapsed() < PATIENCE, "job {number} was never accepted");
            let request = self.request(Method::POST, "/api/v1/jobs").header("idempotency-key", &key);
            let Ok(answer) = request.json(&body).send().await else { continue };
            let code = answer.status();
            let Ok(answer) = answer.json::<Value>().await else { continue };
            if code == StatusCode::ACCEPTED {
                let id = answer["id"].as_str().unwrap().to_owned();
                self.note(Told::Accepted { key, job: plain(&id) });
                return id;
            }
            assert!(code.is_server_error() || code == StatusCode::TOO_MANY_REQUESTS, "{code}: {answer:#}");
        }
    }

    /// Asks once. Whatever is answered, or not, shows later.
    async fn ask(&self, id: &str, wish: Wish) {
        let job = plain(id);
        let path = format!("/api/v1/jobs/{id}");
        let request = match wish {
            Wish::Cancel => self.request(Method::POST, &format!("{path}/cancel")),
            Wish::Delete => {
                self.note(Told::Deleting { job });
                self.request(Method::DELETE, &path)
            }
            Wish::Retry => {
                self.note(Told::Retrying { job });
                self.request(Method::POST, &format!("{path}/retry"))
            }
        };
        let request = if wish == Wish::Delete { request } else { request.json(&json!({})) };
        if let Ok(answer) = request.send().await {
            assert!(!matches!(answer.status(), StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY));
        }
    }

    async fn get(&self, id: &str) -> Option<(StatusCode, Value)> {
        let answer = self.request(Method::GET, &format!("/api/v1/jobs/{id}")).send().await.ok()?;
        Some((answer.status(), answer.json().await.unwrap_or_default()))
    }

    /// A job's events from its beginning to its end.
    pub async fn stream(&self, id: &str) -> Vec<StreamEvent> {
        let request = self.request(Method::GET, &format!("/api/v1/jobs/{id}/stream"));
        let request = request.timeout(PATIENCE).header("last-event-id", "1");
        let text = request.send().await.unwrap().text().await.unwrap();
        let event = |block: &str| {
            let field =
                |name| block.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
            let id = field("id:").and_then(|id| id.parse().ok());
            Some(StreamEvent { id, name: field("event:")? })
        };
        text.split("\n\n").filter_map(event).collect()
    }
}

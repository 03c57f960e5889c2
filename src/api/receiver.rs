//! The other end of a webhook, for people who try them out: checks signatures and hands on what is good.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use http::{HeaderMap, StatusCode};

use crate::domain::Clock;
use crate::domain::webhook::{SignatureError, WebhookSecret, verify};

/// Bytes of a message that are read: far more than this server ever sends.
const MAX_BYTES: usize = 1 << 20;

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `webhook-id`: the same at every try.
    pub id: String,
    /// The bytes as they came.
    pub body: String,
    /// Whether it is what the holder of a secret sent, just now.
    pub verified: Result<(), SignatureError>,
}

/// Who is told of messages.
pub type Sink = Arc<dyn Fn(Message) + Send + Sync>;

#[derive(Clone)]
struct Receiver {
    secrets: Arc<[WebhookSecret]>,
    clock: Arc<dyn Clock>,
    sink: Sink,
}

/// Takes messages at every path: 204 for good ones, 401 for others.
pub fn receiver(secrets: Vec<WebhookSecret>, clock: Arc<dyn Clock>, sink: Sink) -> Router {
    Router::new()
        .route("/", post(receive))
        .route("/{*path}", post(receive))
        .layer(DefaultBodyLimit::max(MAX_BYTES))
        .with_state(Receiver { secrets: secrets.into(), clock, sink })
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (id, body) = (header("webhook-id"), String::from_utf8_lossy(&body).into_owned());
    let parts = (id, header("webhook-timestamp"), header("webhook-signature"));
    let verified = verify(&receiver.secrets, parts, &body, receiver.clock.now());
    let good = verified.is_ok();
    (receiver.sink)(Message { id: id.to_owned(), body, verified });
    if good { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;
    use crate::domain::Timestamp;
    use crate::domain::testing::ManualClock;
    use crate::domain::webhook::sign;

    #[tokio::test]
    async fn good_messages_are_taken_and_others_are_not() {
        let secret = || WebhookSecret::parse(&WebhookSecret::text(&[1; 32])).unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&got);
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(5_000_000)));
        let router =
            receiver(vec![secret()], clock, Arc::new(move |message| sink.lock().unwrap().push(message)));
        let signature = sign(&[secret()], "msg", 5, "{}");
        for (body, status) in [("{}", StatusCode::NO_CONTENT), ("{ }", StatusCode::UNAUTHORIZED)] {
            let request = http::Request::post("/any/path")
                .header("webhook-id", "msg")
                .header("webhook-timestamp", "5")
                .header("webhook-signature", &signature)
                .body(Body::from(body))
                .unwrap();
            assert_eq!(router.clone().oneshot(request).await.unwrap().status(), status);
        }
        let bodies: Vec<_> = got.lock().unwrap().iter().map(|m| (m.body.clone(), m.verified)).collect();
        assert_eq!(bodies, [("{}".to_owned(), Ok(())), ("{ }".to_owned(), Err(SignatureError::Wrong))]);
    }
}

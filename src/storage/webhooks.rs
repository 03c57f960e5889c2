//! Sends webhooks: one POST, no redirect followed, to addresses that the policy permits, within a time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use url::Url;

use super::http::{HttpClients, Lookup, SystemLookup, chain, refusal};
use super::policy::{AddressPolicy, AllowRule};
use crate::domain::Timestamp;
use crate::domain::webhook::TryError;

/// Bytes of an answer that are read, so that the connection can be used again; more is of no interest.
const ANSWER_BYTES: usize = 64 << 10;

/// How long the rest of an answer is waited for.
const REST: Duration = Duration::from_millis(100);

/// What is sent.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// Where; never logged.
    pub url: &'a str,
    /// Names and values of headers.
    pub headers: &'a [(&'static str, String)],
    /// The exact bytes.
    pub body: &'a str,
    /// When.
    pub now: Timestamp,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The receiver's status, if it answered.
    pub status: Option<u16>,
    /// What was wrong; `None` = it took the message.
    pub error: Option<TryError>,
    /// How long it asks us to wait.
    pub retry_after: Option<Duration>,
}

/// Whoever carries messages; tests have their own.
#[async_trait]
pub trait Messenger: Send + Sync + 'static {
    /// Sends one message. Ends within the messenger's own time.
    async fn post(&self, message: Message<'_>) -> Answer;
}

/// Carries messages over HTTP.
#[derive(Debug)]
pub struct HttpMessenger {
    clients: HttpClients,
    timeout: Duration,
}

impl HttpMessenger {
    /// A messenger that reaches public addresses and what `allow` adds, and waits for `timeout` in all.
    #[must_use]
    pub fn new(allow: Vec<AllowRule>, timeout: Duration) -> Self {
        Self::with_lookup(allow, timeout, Arc::new(SystemLookup))
    }

    fn with_lookup(allow: Vec<AllowRule>, timeout: Duration, lookup: Arc<dyn Lookup>) -> Self {
        Self { clients: HttpClients::new(AddressPolicy::new(allow), lookup, timeout), timeout }
    }

    async fn exchange(&self, message: Message<'_>) -> Answer {
        let Ok(url) = Url::parse(message.url) else { return Answer::failed(TryError::Blocked) };
        let Ok(client) = self.clients.guarded(&url) else { return Answer::failed(TryError::Blocked) };
        let mut request = client.post(url).header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in message.headers {
            request = request.header(HeaderName::from_static(name), value);
        }
        match request.body(message.body.to_owned()).send().await {
            Ok(response) => read(response, message.now).await,
            Err(error) => {
                tracing::debug!(error = chain(&error), "a webhook was not delivered");
                let blocked = refusal(&error).is_some();
                let timed_out = error.is_timeout() && !error.is_connect();
                Answer::failed(match (blocked, timed_out) {
                    (true, _) => TryError::Blocked,
                    (false, true) => TryError::TimedOut,
                    (false, false) => TryError::Unreachable,
                })
            }
        }
    }
}

#[async_trait]
impl Messenger for HttpMessenger {
    async fn post(&self, message: Message<'_>) -> Answer {
        let late = Answer::failed(TryError::TimedOut);
        tokio::time::timeout(self.timeout, self.exchange(message)).await.unwrap_or(late)
    }
}

impl Answer {
    const fn failed(error: TryError) -> Self {
        Self { status: None, error: Some(error), retry_after: None }
    }
}

async fn read(response: reqwest::Response, now: Timestamp) -> Answer {
    let status = response.status();
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = asked.and_then(|text| wait_of(text, now));
    let error = match status.as_u16() {
        200..=299 => None,
        300..=399 => Some(TryError::Redirected),
        410 => Some(TryError::Gone),
        _ => Some(TryError::Refused),
    };
    if error.is_none() {
        // The status has said it all; what follows only decides whether the connection serves again.
        let mut body = response.bytes_stream();
        let drain = async {
            let mut left = ANSWER_BYTES;
            while let Some(Ok(bytes)) = body.next().await {
                left = left.saturating_sub(bytes.len());
                if left == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(REST, drain).await;
    }
    Answer { status: Some(status.as_u16()), error, retry_after }
}

/// `Retry-After`: seconds or a date (RFC 9110 §10.2.3).
fn wait_of(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Timestamp::from_micros(date.timestamp().as_microsecond()).since(now))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000)
    }

    fn messenger() -> HttpMessenger {
        HttpMessenger::new(vec!["127.0.0.1".parse().unwrap()], Duration::from_millis(400))
    }

    /// Answers one request with `answer` (nothing = the connection stays open) and returns what came.
    async fn exchange(answer: &str) -> (Answer, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?key=canary", listener.local_addr().unwrap());
        let headers = [("webhook-id", "msg_1".to_owned())];
        let (sender, body) = (messenger(), r#"{"a":1}"#);
        let post = sender.post(Message { url: &url, headers: &headers, body, now: now() });
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut got = Vec::new();
            while !String::from_utf8_lossy(&got).ends_with(body) {
                let mut part = [0; 1024];
                let n = socket.read(&mut part).await.unwrap();
                assert!(n > 0, "the message broke off");
                got.extend_from_slice(&part[..n]);
            }
            match answer {
                "" => {}
                "drop" => return (socket.shutdown().await.ok().is_some().then_some(got), None),
                text => socket.write_all(text.as_bytes()).await.unwrap(),
            }
            (Some(got), Some(socket))
        };
        let (answer, (got, _open)) = tokio::join!(post, serve);
        (answer, String::from_utf8(got.unwrap()).unwrap())
    }

    #[tokio::test]
    async fn a_message_arrives_as_it_is() {
        let (answer, got) = exchange("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(answer, Answer { status: Some(204), error: None, retry_after: None });
        let lower = got.to_ascii_lowercase();
        assert!(got.starts_with("POST /hook?key=canary HTTP/1.1\r\n"), "{got}");
        assert!(
            lower.contains("webhook-id: msg_1\r\n") && lower.contains("content-type: application/json\r\n")
        );
        assert!(got.ends_with("\r\n\r\n{\"a\":1}"), "{got}");
    }

    #[tokio::test]
    async fn answers_that_are_no_success() {
        for (status, error) in [
            ("500 Internal Server Error", TryError::Refused),
            ("404 Not Found", TryError::Refused),
            ("410 Gone", TryError::Gone),
            ("302 Found\r\nLocation: http://127.0.0.1:1/", TryError::Redirected),
        ] {
            let (answer, _) = exchange(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
            assert_eq!(answer.error, Some(error), "{status}");
            assert_eq!(answer.status.map(|n| n.to_string()).as_deref(), Some(&status[..3]));
        }
        let (answer, _) =
            exchange("HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(answer.retry_after, Some(Duration::from_mins(2)));
    }

    #[tokio::test]
    async fn receivers_that_hang_or_break_off() {
        assert_eq!(exchange("").await.0, Answer::failed(TryError::TimedOut));
        assert_eq!(exchange("drop").await.0, Answer::failed(TryError::Unreachable));
        // The status came: the message was taken, whatever the rest does.
        let endless = exchange("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await.0;
        assert_eq!(endless, Answer { status: Some(200), error: None, retry_after: None });
    }

    #[tokio::test]
    async fn strangers_reach_no_private_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let sender = HttpMessenger::new(Vec::new(), Duration::from_millis(400));
        for url in [
            format!("http://127.0.0.1:{port}/"),
            format!("http://localhost:{port}/"),
            "http://127.0.0.1/".to_owned(),
            "http://localhost/".to_owned(),
            "ftp://example.com/".to_owned(),
        ] {
            let answer = sender.post(Message { url: &url, headers: &[], body: "", now: now() }).await;
            assert_eq!(answer.error, Some(TryError::Blocked), "{url}");
        }
        let nobody = tokio::time::timeout(Duration::from_millis(20), listener.accept()).await;
        assert!(nobody.is_err(), "the canary was reached");
    }

    #[test]
    fn both_forms_of_retry_after() {
        assert_eq!(wait_of(" 7 ", now()), Some(Duration::from_secs(7)));
        assert_eq!(wait_of("Tue, 14 Nov 2023 22:14:20 GMT", now()), Some(Duration::from_mins(1)));
        assert_eq!(wait_of("Tue, 14 Nov 2000 22:14:20 GMT", now()), Some(Duration::ZERO));
        assert_eq!(wait_of("soon", now()), None);
    }
}

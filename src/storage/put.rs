//! Publishing by an HTTP request: the whole file in one PUT or POST, answered with 2xx.
//!
//! HTTP has no invisible place and no undo, so nothing is sent before the permit: the request itself is the commit. A
//! receiver that answers is believed. One that does not may have kept the file all the same; then it is sent again, by
//! this run or by the next one, so it is delivered at least once, whole each time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::TryStreamExt;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, Method, Response, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio_util::io::ReaderStream;
use url::Url;

use super::http::{HttpClients, chain, refusal};
use super::local::LocalError;
use super::origin::{HttpRequest, retry_after, strip};
use super::pauses::Pauses;
use super::policy::of_destination;
use crate::domain::{Code, Failure};

/// Redirects followed for one file. Each sends it again.
const MAX_REDIRECTS: usize = 3;
/// Bytes handed to the connection at a time.
const CHUNK: usize = 64 * 1024;

/// Bounds on one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct PutLimits {
    /// Longest time in which the receiver takes no bytes.
    pub(super) stall: Duration,
    /// Until the answer is there, from the last byte: a receiver may check or copy the file first.
    pub(super) answer: Duration,
}

/// A file, and the request that takes it to its destination.
pub(super) struct Put<'a> {
    pub(super) method: Method,
    pub(super) request: HttpRequest,
    pub(super) path: &'a Path,
    /// Bytes of the whole file.
    pub(super) size: u64,
    /// Of the whole file, lower-case hex.
    pub(super) sha256: &'a str,
    pub(super) content_type: &'a str,
}

/// Reads what a destination says into a request.
///
/// # Errors
/// `destination_forbidden`.
pub(super) fn request(text: &str, headers: &BTreeMap<String, String>) -> Result<HttpRequest, Failure> {
    HttpRequest::parse(text, headers)
        .map_err(|error| Failure::new(Code::DestinationForbidden, format!("the destination's {error}")))
}

/// Whether a request may go where it says, as far as that is known before its name is resolved.
///
/// # Errors
/// `destination_forbidden`.
pub(super) fn check(clients: &HttpClients, url: &Url) -> Result<(), Failure> {
    clients.policy().check_url(url).map_err(of_destination)
}

/// Sends the file until the receiver has it.
pub(super) async fn put(
    clients: &Arc<HttpClients>,
    limits: PutLimits,
    mut pauses: Pauses,
    put: &Put<'_>,
) -> Result<(), Failure> {
    loop {
        let (failure, asked) = match follow(clients, limits, put).await {
            Ok(()) => return Ok(()),
            Err(Stop::Failed(failure)) => return Err(failure),
            Err(Stop::Passing { failure, asked }) => (failure, asked),
        };
        let Some(pause) = pauses.next(asked) else {
            return Err(failure);
        };
        tracing::debug!(%failure, detail = failure.detail, ?pause, "sending a result again");
        tokio::time::sleep(pause).await;
    }
}

/// Why a try ended.
enum Stop {
    /// Another try cannot help.
    Failed(Failure),
    /// Another try may help.
    Passing {
        failure: Failure,
        /// What the receiver asked us to wait.
        asked: Option<Duration>,
    },
}

impl Stop {
    fn forbidden(sentence: impl Into<String>) -> Self {
        Self::Failed(Failure::new(Code::DestinationForbidden, sentence))
    }

    fn passing(sentence: impl Into<String>, detail: impl Into<String>) -> Self {
        let failure = Failure::new(Code::DestinationUnreachable, sentence).with_detail(detail);
        Self::Passing { failure, asked: None }
    }
}

/// One try, to where redirects lead. Only 307 and 308 mean the same request elsewhere (RFC 9110 §15.4).
async fn follow(clients: &HttpClients, limits: PutLimits, put: &Put<'_>) -> Result<(), Stop> {
    let mut url = put.request.url().clone();
    for _ in 0..=MAX_REDIRECTS {
        let response = once(clients, limits, put, &url).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        if !matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
            return Err(refused(&response));
        }
        let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        url = target
            .and_then(|text| url.join(text).ok())
            .ok_or_else(|| Stop::forbidden("the destination's server redirects to nowhere"))?;
        // Userinfo in a redirect is the other server's idea, never ours.
        strip(&mut url);
    }
    Err(Stop::forbidden("the destination's server redirects too often"))
}

async fn once(clients: &HttpClients, limits: PutLimits, put: &Put<'_>, url: &Url) -> Result<Response, Stop> {
    let client = clients.guarded(url).map_err(|failure| match failure.code {
        Code::SourceBlocked => Stop::Failed(of_destination(failure)),
        _ => Stop::Failed(failure),
    })?;
    let (body, mut taken) = body(put).await?;
    let mut request = client.request(put.method.clone(), url.clone()).header(CONTENT_LENGTH, put.size);
    if let Some(digest) = digest(put.sha256) {
        request = request.header("content-digest", digest);
    }
    if !(put.request.has_header(CONTENT_TYPE) && url.origin() == put.request.url().origin()) {
        request = request.header(CONTENT_TYPE, put.content_type);
    }
    let mut sending = Box::pin(put.request.dress(url, request).body(body).send());
    let mut bytes_flow = true;
    loop {
        let all_left = *taken.borrow_and_update() >= put.size;
        let limit = if all_left || !bytes_flow { limits.answer } else { limits.stall };
        tokio::select! {
            response = &mut sending => return response.map_err(|error| broken(&error)),
            // Nobody counts any more once the last byte is gone, or the connection with the body.
            changed = taken.changed(), if bytes_flow => bytes_flow = changed.is_ok(),
            () = tokio::time::sleep(limit) => {
                let what = if all_left {
                    "the destination's server did not answer in time"
                } else {
                    "the destination's server stopped taking bytes"
                };
                return Err(Stop::passing(what, format!("nothing for {limit:?}")));
            }
        }
    }
}

/// The file as a body, and how many bytes of it were taken.
async fn body(put: &Put<'_>) -> Result<(Body, watch::Receiver<u64>), Stop> {
    let changed = || Stop::Failed(LocalError::Changed.into());
    let file = tokio::fs::File::open(put.path).await.map_err(|_| changed())?;
    let there = file.metadata().await.map_err(|_| changed())?.len();
    if there != put.size {
        return Err(changed());
    }
    let (counter, taken) = watch::channel(0);
    let bytes = ReaderStream::with_capacity(file.take(put.size), CHUNK)
        .inspect_ok(move |chunk| counter.send_modify(|taken| *taken += chunk.len() as u64));
    Ok((Body::wrap_stream(bytes), taken))
}

/// `Content-Digest` (RFC 9530), for receivers that check.
fn digest(sha256: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> = (0..sha256.len())
        .step_by(2)
        .map(|at| sha256.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect();
    bytes.map(|bytes| format!("sha-256=:{}:", STANDARD.encode(bytes)))
}

fn broken(error: &reqwest::Error) -> Stop {
    if let Some(blocked) = refusal(error) {
        return Stop::Failed(of_destination(blocked));
    }
    let what = match error {
        e if e.is_timeout() => "the destination's server could not be reached in time",
        e if e.is_connect() => "the destination's server could not be reached",
        _ => "the connection to the destination's server broke off",
    };
    Stop::passing(what, chain(error))
}

fn refused(response: &Response) -> Stop {
    let status = response.status();
    let number = status.as_u16();
    match status {
        StatusCode::INSUFFICIENT_STORAGE => {
            Stop::Failed(Failure::new(Code::DiskFull, "no room is left at the destination (HTTP 507)"))
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            busy(number, response)
        }
        // These three will be the same in a minute.
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED | StatusCode::LOOP_DETECTED => {
            Stop::forbidden(format!("the destination's server does not take such requests (HTTP {number})"))
        }
        status if status.is_server_error() => busy(number, response),
        status if status.is_redirection() => Stop::forbidden(format!(
            "the destination's server redirects in a way that does not repeat the request (HTTP {number})"
        )),
        _ => Stop::forbidden(format!("the destination's server refused the file (HTTP {number})")),
    }
}

fn busy(number: u16, response: &Response) -> Stop {
    let sentence = format!("the destination's server answered HTTP {number}");
    let failure = Failure::new(Code::DestinationUnreachable, sentence);
    Stop::Passing { failure, asked: retry_after(response.headers()) }
}

#[cfg(test)]
mod tests;

//! The loopback server that ffmpeg reads from: one listener per source, one path, ranges (RFC 9110 §14).

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::fetcher::Shared;
use super::reader::Reader;
use crate::domain::{Code, Failure, IdSource};

/// Connections at a time; ffmpeg uses one and leaves a few behind while it seeks. More wait to be accepted.
const MAX_CONNECTIONS: usize = 32;
/// The kernel's send buffer per connection. What it holds counts as read although ffmpeg may seek away from it, so
/// it bounds what is fetched in vain.
const SEND_BUFFER: usize = 256 * 1024;
/// For a request's header; also ends idle connections.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A bound listener that serves one source.
pub(super) struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
    url: String,
    path: Arc<str>,
}

impl Server {
    /// Binds a random port of the loopback address.
    pub(super) async fn bind(shared: Arc<Shared>, ids: &dyn IdSource) -> Result<Self, Failure> {
        let bound = async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let port = listener.local_addr()?.port();
            io::Result::Ok((listener, port))
        };
        let (listener, port) = bound.await.map_err(|error| {
            Failure::new(Code::Internal, "The source gateway could not listen.")
                .with_detail(error.to_string())
        })?;
        let path: Arc<str> = format!("/{}/in", ids.random().simple()).into();
        Ok(Self { listener, shared, url: format!("http://{}:{port}{path}", Ipv4Addr::LOCALHOST), path })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Serves until dropped; its connections end with it.
    pub(super) async fn run(self) {
        let mut connections = JoinSet::new();
        loop {
            let full = connections.len() >= MAX_CONNECTIONS;
            tokio::select! {
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if !full => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve(stream, Arc::clone(&self.shared), Arc::clone(&self.path)));
                    }
                    // Out of descriptors, most likely: let some go before the next try.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, path: Arc<str>) {
    // Without them it works as well, only less exactly.
    let _ = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let answer = answer(&request, &shared, &path);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(128 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    // ffmpeg closes connections whenever it seeks.
    if let Err(error) = connection.await {
        tracing::trace!(%error, "a reader's connection ended");
    }
}

fn answer(request: &Request<Incoming>, shared: &Arc<Shared>, path: &str) -> Response<Body> {
    let asked = request.uri().path();
    if !bool::from(asked.as_bytes().ct_eq(path.as_bytes())) {
        // Only a file that names other files, or somebody who guesses, asks for anything else.
        tracing::warn!(security = true, "a request to the source gateway for an unknown path was refused");
        return empty(StatusCode::NOT_FOUND);
    }
    let head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => return empty(StatusCode::METHOD_NOT_ALLOWED),
    };
    let size = shared.spool.size();
    let asked =
        request.headers().get(RANGE).and_then(|value| value.to_str().ok()).map(|v| parse_range(v, size));
    let (status, range) = match asked {
        None | Some(Asked::Ignored) => (StatusCode::OK, 0..size),
        Some(Asked::Part(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Asked::Outside) => {
            let mut response = empty(StatusCode::RANGE_NOT_SATISFIABLE);
            put(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
            return response;
        }
    };
    let body =
        if head { Empty::new().boxed_unsync() } else { stream_body(Arc::clone(shared), range.clone()) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    put(&mut response, ACCEPT_RANGES, "bytes");
    put(&mut response, CONTENT_TYPE, "application/octet-stream");
    put(&mut response, CONTENT_LENGTH, &(range.end - range.start).to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        put(&mut response, CONTENT_RANGE, &format!("bytes {}-{}/{size}", range.start, range.end - 1));
    }
    response
}

/// The bytes of a range as they become readable. On failure it neither ends nor errs: it holds.
fn stream_body(shared: Arc<Shared>, range: Range<u64>) -> Body {
    let reader = Reader::ahead(shared, range);
    let chunks = stream::unfold(reader, |mut reader| async move {
        match reader.next().await {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => Some((Ok(Frame::data(bytes)), reader)),
            Err(_) => std::future::pending().await,
        }
    });
    StreamBody::new(chunks).boxed_unsync()
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = status;
    response
}

fn put(response: &mut Response<Body>, name: hyper::header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Part(Range<u64>),
    /// Nothing of it is inside the source.
    Outside,
    /// Several ranges or not understood: the whole is a correct answer.
    Ignored,
}

fn parse_range(text: &str, size: u64) -> Asked {
    let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
        return Asked::Ignored;
    };
    let (first, last) = (first.trim(), last.trim());
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(suffix)) if first.is_empty() => size.saturating_sub(suffix)..size,
        _ => return Asked::Ignored,
    };
    if range.start < range.end { Asked::Part(range) } else { Asked::Outside }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_source() {
        assert_eq!(parse_range("bytes=0-", 10), Asked::Part(0..10));
        assert_eq!(parse_range("bytes=3-5", 10), Asked::Part(3..6));
        assert_eq!(parse_range("bytes=3-500", 10), Asked::Part(3..10));
        assert_eq!(parse_range("bytes=-4", 10), Asked::Part(6..10));
        assert_eq!(parse_range("bytes=-40", 10), Asked::Part(0..10));
        assert_eq!(parse_range("bytes=0-18446744073709551615", 10), Asked::Part(0..10));
        for outside in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(parse_range(outside, 10), Asked::Outside, "{outside}");
        }
        for ignored in [
            "bytes=5-3",
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(parse_range(ignored, 10), Asked::Ignored, "{ignored}");
        }
    }
}

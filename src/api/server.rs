//! The accept loop: one port, HTTP/1.1 and HTTP/2, every wait bounded.
//!
//! `axum::serve` sets no timer and no cap, so it is not used (STACK §3). A connection costs a permit from before it is
//! accepted; its first bytes, its headers, its silence and its unread output each have a limit.

mod socket;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

pub(super) use self::socket::SendBuffer;
use self::socket::Socket;

/// What every HTTP/2 connection starts with (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A pause after an accept that failed for lack of descriptors: time for connections to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds on connections.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Open connections; more wait in the kernel's backlog.
    pub connections: usize,
    /// From accept to the first bytes, and for the head of each request (so also the idle time of a kept connection).
    pub header_timeout: Duration,
    /// Output that no byte of was taken for so long ends the connection.
    pub write_timeout: Duration,
    /// Pings on HTTP/2, and the wait for their answer.
    pub h2_keep_alive: Duration,
    /// Requests in flight on one HTTP/2 connection.
    pub h2_streams: u32,
    /// How long open requests may finish once the server stops.
    pub drain: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            h2_keep_alive: Duration::from_secs(20),
            h2_streams: 256,
            drain: Duration::from_secs(10),
        }
    }
}

/// Serves until `closing`, then lets open requests finish for at most `limits.drain`. Returns when no connection is left.
pub async fn serve(listener: TcpListener, app: Router, closing: CancellationToken, limits: ServerLimits) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let (graceful, tracker, hard) = (GracefulShutdown::new(), TaskTracker::new(), CancellationToken::new());
    while let Some((tcp, permit)) = accept(&listener, &permits, &closing).await {
        let connection = Connection {
            watcher: graceful.watcher(),
            limits: limits.clone(),
            closing: closing.clone(),
            permit,
        };
        let (app, hard) = (app.clone(), hard.clone());
        tracker.spawn(async move {
            tokio::select! {
                () = hard.cancelled() => {}
                () = connection.run(tcp, app) => {}
            }
        });
    }
    drop(listener);
    tracker.close();
    let drained = tokio::time::timeout(limits.drain, async {
        graceful.shutdown().await;
        tracker.wait().await;
    });
    if drained.await.is_err() {
        tracing::warn!(open = tracker.len(), "connections did not end in time and were cut");
        hard.cancel();
        tracker.wait().await;
    }
}

/// The next connection, once there is room for it; `None` when the server stops.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    closing: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    loop {
        let room = tokio::select! {
            () = closing.cancelled() => return None,
            room = Arc::clone(permits).acquire_owned() => room.ok()?,
        };
        let accepted = tokio::select! {
            () = closing.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, _)) => return Some((tcp, room)),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection and what it holds.
struct Connection {
    watcher: Watcher,
    limits: ServerLimits,
    closing: CancellationToken,
    permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, tcp: TcpStream, app: Router) {
        let Self { watcher, limits, closing, permit: _permit } = self;
        // Answers are written whole; waiting to fill packets only delays events.
        let _ = tcp.set_nodelay(true);
        let greeted = tokio::select! {
            () = closing.cancelled() => return,
            greeted = tokio::time::timeout(limits.header_timeout, greeting(&tcp)) => greeted,
        };
        let Ok(Ok(Some(protocol))) = greeted else { return };
        let buffer = SendBuffer::default();
        let socket = Socket::new(tcp, limits.write_timeout, buffer.clone());
        // The router is shared: a layer of its own for each connection would build all its routes anew.
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(buffer.clone());
            app.clone().oneshot(request)
        });
        let connection =
            builder(&limits, protocol).serve_connection(TokioIo::new(socket), service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(error, "connection ended");
        }
    }
}

/// What a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// Told the protocol it detects none: its detection reads a few bytes ahead, for which every connection's read buffer
/// doubles to 16 KiB.
fn builder(limits: &ServerLimits, protocol: Protocol) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(64 << 10)
        .max_headers(64);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(limits.h2_keep_alive))
        .keep_alive_timeout(limits.h2_keep_alive)
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(16 << 10);
    builder
}

/// Waits until the first bytes tell which protocol it is; `None` when the peer left. The builder's own detection waits
/// for ever (STACK §3).
async fn greeting(tcp: &TcpStream) -> std::io::Result<Option<Protocol>> {
    let mut bytes = [0; PREFACE.len()];
    let (mut seen, mut pause) = (0, Duration::from_millis(5));
    loop {
        let count = tcp.peek(&mut bytes).await?;
        if count == 0 {
            return Ok(None);
        }
        if bytes[..count] != PREFACE[..count] {
            return Ok(Some(Protocol::Http1));
        }
        if count == PREFACE.len() {
            return Ok(Some(Protocol::Http2));
        }
        // Peeking again returns the same bytes at once: without a pause a half-sent preface would spin a core.
        if count == seen {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
        seen = count;
    }
}

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Extension;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::*;

const LIMIT: Duration = Duration::from_millis(200);
/// Longest a test waits for what the limit should have ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server whose limits are short, and what it needs to be stopped.
struct Running {
    address: SocketAddr,
    closing: CancellationToken,
    tasks: TaskTracker,
}

async fn start(limits: ServerLimits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let closing = CancellationToken::new();
    let endless = || async {
        let chunks = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from(vec![b'x'; 64 << 10])));
        Body::from_stream(chunks)
    };
    let events = |Extension(buffer): Extension<SendBuffer>| async move {
        buffer.bound();
        Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())
    };
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/endless", get(endless))
        .route("/events", get(events));
    let tasks = TaskTracker::new();
    tasks.spawn(serve(listener, app, closing.clone(), limits));
    tasks.close();
    Running { address, closing, tasks }
}

fn short() -> ServerLimits {
    ServerLimits {
        header_timeout: LIMIT,
        write_timeout: LIMIT,
        h2_keep_alive: LIMIT,
        drain: LIMIT,
        ..ServerLimits::default()
    }
}

/// Sends `bytes` and waits until the server closes the connection; what it said before.
async fn until_closed(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is a way of closing too.
    let _ = timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("closed in time");
    answer
}

#[tokio::test]
async fn silent_and_half_open_connections_are_closed() {
    let server = start(short()).await;
    for sent in [
        &b""[..],
        b"P",
        b"PRI",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let begun = Instant::now();
        until_closed(server.address, sent).await;
        assert!(begun.elapsed() >= LIMIT / 2, "closed for another reason: {sent:?}");
    }
    let answer = until_closed(server.address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.ends_with(b"hello"), "answered, then closed when idle");
}

#[tokio::test]
async fn each_connection_is_answered_in_the_protocol_it_begins_with() {
    let server = start(short()).await;
    // An empty SETTINGS frame (RFC 9113 §6.5) is answered with one.
    let hello = [&PREFACE[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let answer = until_closed(server.address, &hello).await;
    assert_eq!(answer.get(3), Some(&4), "{answer:?}");
    // Begins as the preface does.
    let answer = until_closed(server.address, b"PROPFIND / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 405"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_reader_that_never_reads_is_cut_off() {
    let server = start(ServerLimits { connections: 1, ..short() }).await;
    let mut deaf = TcpStream::connect(server.address).await.unwrap();
    deaf.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    // It holds the only place, and its stream has no end: only the write limit gives the place to the next.
    let next = until_closed(server.address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(next.ends_with(b"hello"));
    drop(deaf);
}

#[tokio::test]
async fn connections_above_the_cap_wait_their_turn() {
    let server = start(ServerLimits { connections: 1, ..short() }).await;
    let first = TcpStream::connect(server.address).await.unwrap();
    let second = until_closed(server.address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let second = second.await;
    assert!(second.ends_with(b"hello"), "served once the silent first one was closed");
    drop(first);
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_open_streams() {
    let server = start(ServerLimits { header_timeout: PATIENCE, ..short() }).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut bytes = [0; 1024];
    assert!(idle.read(&mut bytes).await.unwrap() > 0);
    let mut open = TcpStream::connect(server.address).await.unwrap();
    open.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(open.read(&mut bytes).await.unwrap() > 0);
    let _untold = TcpStream::connect(server.address).await.unwrap();
    server.closing.cancel();
    timeout(PATIENCE, server.tasks.wait()).await.expect("stopped");
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is free");
}

//! An HTTP origin that misbehaves on request, over raw sockets so that it can lie.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What an origin does wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: ranges, validators, the truth.
    None,
    /// This status for everything.
    Status(u16),
    /// Says it has so many bytes more than it has, then closes.
    SaysMore(usize),
    /// Sends the first so many bytes of the file, then nothing, for ever.
    HangsAfter(usize),
    /// Accepts and never answers.
    Silent,
    /// Sends here.
    Redirect(String),
    /// No ranges, no length: chunked.
    NoLength,
    /// Closes each connection after so many bytes.
    DropsEvery(usize),
    /// After so many requests another file is there.
    ChangesAfter(u64),
    /// After so many requests this status for everything.
    StatusAfter(u64, u16),
    /// No ranges, no length, no end.
    Endless,
}

/// An origin of one file. Ends when dropped.
pub struct Origin {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Origin {
    pub async fn start(bytes: Vec<u8>, fault: Fault) -> Self {
        Self::begin(bytes, Filling::default(), fault).await
    }

    /// An origin without a fault whose file is far longer than what is kept of it: `bytes`, then `filling`.
    pub async fn start_long(bytes: Vec<u8>, filling: Filling) -> Self {
        Self::begin(bytes, filling, Fault::None).await
    }

    async fn begin(bytes: Vec<u8>, filling: Filling, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sent, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let shared = Arc::new(Serving {
            bytes,
            filling,
            fault,
            sent: Arc::clone(&sent),
            requests: Arc::clone(&requests),
        });
        #[expect(clippy::disallowed_methods, reason = "test servers end with their test")]
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let serving = Arc::clone(&shared);
                connections.spawn(async move { while_open(socket, &serving).await });
            }
        });
        Self { address, sent, requests, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}/clip.mp4", self.address)
    }

    /// Body bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What follows after an origin's bytes: a piece again and again, then an end.
#[derive(Debug, Default)]
pub struct Filling {
    pub piece: Vec<u8>,
    pub times: usize,
    pub end: Vec<u8>,
}

impl Filling {
    pub fn len(&self) -> usize {
        self.piece.len() * self.times + self.end.len()
    }

    /// What is at a byte of it, as far as it lies in one piece.
    fn at(&self, byte: usize) -> &[u8] {
        let repeated = self.piece.len() * self.times;
        if byte < repeated { &self.piece[byte % self.piece.len()..] } else { &self.end[byte - repeated..] }
    }
}

struct Serving {
    bytes: Vec<u8>,
    filling: Filling,
    fault: Fault,
    sent: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
}

async fn while_open(mut socket: TcpStream, serving: &Serving) {
    while let Some(head) = read_head(&mut socket).await {
        let earlier = serving.requests.fetch_add(1, Ordering::Relaxed);
        if answer(&mut socket, serving, &head, earlier).await.is_none() {
            return;
        }
    }
}

async fn read_head(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if socket.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).to_lowercase())
}

/// Answers one request; `None` closes the connection.
async fn answer(socket: &mut TcpStream, serving: &Serving, head: &str, earlier: u64) -> Option<()> {
    let claimed = match serving.fault {
        Fault::SaysMore(more) => serving.bytes.len() + more,
        _ => serving.bytes.len() + serving.filling.len(),
    };
    let mut tag = "v1";
    match &serving.fault {
        Fault::Silent => std::future::pending::<()>().await,
        Fault::ChangesAfter(requests) if earlier >= *requests => {
            tag = "v2";
            if head.contains("if-match: \"v1\"") {
                let text = "HTTP/1.1 412 Precondition Failed\r\ncontent-length: 0\r\n\r\n";
                return socket.write_all(text.as_bytes()).await.ok();
            }
        }
        Fault::Endless => {
            let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            socket.write_all(start.as_bytes()).await.ok()?;
            let chunk = [&b"1000\r\n"[..], &[0x47; 0x1000], b"\r\n"].concat();
            loop {
                socket.write_all(&chunk).await.ok()?;
            }
        }
        Fault::StatusAfter(requests, _) if earlier < *requests => {}
        Fault::Status(status) | Fault::StatusAfter(_, status) => {
            let text = format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n");
            return socket.write_all(text.as_bytes()).await.ok();
        }
        Fault::Redirect(to) => {
            let text = format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
            return socket.write_all(text.as_bytes()).await.ok();
        }
        Fault::NoLength => {
            let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            socket.write_all(start.as_bytes()).await.ok()?;
            for piece in serving.bytes.chunks(10_000) {
                socket.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.ok()?;
                socket.write_all(piece).await.ok()?;
                socket.write_all(b"\r\n").await.ok()?;
            }
            return socket.write_all(b"0\r\n\r\n").await.ok();
        }
        Fault::None
        | Fault::SaysMore(_)
        | Fault::HangsAfter(_)
        | Fault::DropsEvery(_)
        | Fault::ChangesAfter(_) => {}
    }
    let (from, to) = range(head, claimed)?;
    let text = format!(
        "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{claimed}\r\n\
         accept-ranges: bytes\r\netag: \"{tag}\"\r\ncontent-type: video/mp4\r\n\r\n",
        to - from,
        to - 1
    );
    socket.write_all(text.as_bytes()).await.ok()?;
    if head.starts_with("head") {
        return Some(());
    }
    let has = &serving.bytes[from.min(serving.bytes.len())..to.min(serving.bytes.len())];
    let limit = match serving.fault {
        Fault::HangsAfter(total) => total.saturating_sub(from).min(has.len()),
        Fault::DropsEvery(most) => most.min(has.len()),
        _ => has.len(),
    };
    socket.write_all(&has[..limit]).await.ok()?;
    serving.sent.fetch_add(limit as u64, Ordering::Relaxed);
    if limit == to - from {
        return Some(());
    }
    if serving.filling.len() > 0 {
        let start = from + limit - serving.bytes.len();
        return fill(socket, serving, start..to - serving.bytes.len()).await;
    }
    if matches!(serving.fault, Fault::HangsAfter(_)) {
        std::future::pending::<()>().await;
    }
    None
}

async fn fill(socket: &mut TcpStream, serving: &Serving, mut left: std::ops::Range<usize>) -> Option<()> {
    while !left.is_empty() {
        let here = serving.filling.at(left.start);
        let step = left.len().min(here.len());
        socket.write_all(&here[..step]).await.ok()?;
        serving.sent.fetch_add(step as u64, Ordering::Relaxed);
        left.start += step;
    }
    Some(())
}

/// The asked range as half-open, the whole file when none is asked.
fn range(head: &str, size: usize) -> Option<(usize, usize)> {
    let Some(at) = head.find("range: bytes=") else { return Some((0, size)) };
    let text = head[at + "range: bytes=".len()..].lines().next()?;
    let (from, to) = text.trim().split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = if to.is_empty() { size } else { to.parse::<usize>().ok()? + 1 };
    (from < size).then_some((from, to.min(size)))
}

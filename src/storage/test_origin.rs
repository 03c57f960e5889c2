//! An HTTP origin that misbehaves as told, for tests: plain TCP, so that nothing corrects its faults.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What goes wrong.
#[derive(Debug, Clone, Default)]
pub(crate) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The connection is closed after so many bytes of each body.
    DropEvery(u64),
    /// The connection is reset after so many bytes of each body.
    ResetEvery(u64),
    /// The first so many bodies stop in the middle and stay open.
    StallTimes(u64),
    /// The first body stops in the middle; from the second request on, another file is there.
    StallThenChange,
    /// Every third request is answered 503.
    BusyEveryThird,
    /// From this request on, another file is there.
    ChangeFrom(u64),
    /// From this request on, this status.
    StatusFrom(u64, u16),
    /// From this request on, one byte per 20 ms.
    TrickleFrom(u64),
    /// A gzip label on the body.
    Gzip,
    /// From this request on, ranges are answered with 200 and the whole.
    WholeFrom(u64),
    /// To this URL, with this status.
    Redirect(u16, String),
    /// To these URLs in turn, the last for ever.
    RedirectInTurn(Vec<String>),
    /// Content-Range begins one byte late.
    WrongRange,
}

/// How the length is told.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Length {
    /// As it is.
    #[default]
    True,
    /// Chunked, without a length.
    Chunked,
    /// As if there were so many bytes.
    Claimed(u64),
}

/// Whether ranges are served.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Ranges {
    #[default]
    Served,
    Ignored,
}

/// How the origin answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    pub(crate) content: Arc<[u8]>,
    pub(crate) fault: Fault,
    pub(crate) length: Length,
    pub(crate) ranges: Ranges,
    pub(crate) etag: Option<&'static str>,
}

/// A running origin. Dropping it ends it.
pub(crate) struct TestOrigin {
    address: SocketAddr,
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    body_bytes: AtomicU64,
    heads: Mutex<Vec<String>>,
}

impl TestOrigin {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&seen);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let (script, seen) = (script.clone(), Arc::clone(&shared));
                connections.spawn(async move { serve(stream, &script, &seen).await });
            }
        });
        Self { address, seen, _tasks: tasks }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.seen.requests.load(Ordering::Relaxed)
    }

    /// Body bytes handed to the kernel so far.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.seen.body_bytes.load(Ordering::Relaxed)
    }

    /// Request heads so far, in lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.seen.heads.lock().unwrap().clone()
    }
}

/// Bytes that differ everywhere, the same for the same length.
pub(crate) fn noise(len: usize) -> Arc<[u8]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

async fn serve(mut stream: TcpStream, script: &Script, seen: &Seen) {
    // So that bytes handed to the kernel are about those that crossed the network.
    socket2::SockRef::from(&stream).set_send_buffer_size(64 * 1024).unwrap();
    let mut buffer = Vec::new();
    loop {
        let head_end = loop {
            if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read_buf(&mut buffer).await {
                Ok(n) if n > 0 => {}
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..head_end]).to_lowercase();
        buffer.drain(..head_end);
        let number = seen.requests.fetch_add(1, Ordering::Relaxed) + 1;
        seen.heads.lock().unwrap().push(head.clone());
        if answer(&mut stream, script, seen, number, &head).await.is_none() {
            return;
        }
    }
}

/// `None` ends the connection.
async fn answer(stream: &mut TcpStream, script: &Script, seen: &Seen, number: u64, head: &str) -> Option<()> {
    let status = match script.fault {
        Fault::BusyEveryThird if number.is_multiple_of(3) => Some(503),
        Fault::StatusFrom(from, status) if number >= from => Some(status),
        _ => None,
    };
    if let Some(status) = status {
        let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        return stream.write_all(text.as_bytes()).await.ok();
    }
    let redirect = match &script.fault {
        Fault::Redirect(status, to) => Some((*status, to)),
        Fault::RedirectInTurn(urls) => {
            let turn = usize::try_from(number - 1).unwrap().min(urls.len() - 1);
            Some((302, &urls[turn]))
        }
        _ => None,
    };
    if let Some((status, to)) = redirect {
        let text = format!("HTTP/1.1 {status} X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
        return stream.write_all(text.as_bytes()).await.ok();
    }
    let changed = match script.fault {
        Fault::ChangeFrom(from) => number >= from,
        Fault::StallThenChange => number >= 2,
        _ => false,
    };
    let etag = script.etag.map(|tag| if changed { "\"changed\"" } else { tag });
    if let Some(wanted) = header(head, "if-match")
        && etag.is_some_and(|tag| tag.to_lowercase() != wanted)
    {
        return stream.write_all(b"HTTP/1.1 412 X\r\ncontent-length: 0\r\n\r\n").await.ok();
    }
    let claimed = match script.length {
        Length::Claimed(bytes) => bytes,
        Length::True | Length::Chunked => script.content.len() as u64,
    };
    let ignore = matches!(script.ranges, Ranges::Ignored)
        || matches!(script.length, Length::Chunked)
        || matches!(script.fault, Fault::WholeFrom(from) if number >= from);
    let range = header(head, "range").filter(|_| !ignore).and_then(|text| parse_range(text, claimed));
    let mut text = match &range {
        Some(range) if range.is_empty() => {
            let text =
                format!("HTTP/1.1 416 X\r\ncontent-range: bytes */{claimed}\r\ncontent-length: 0\r\n\r\n");
            return stream.write_all(text.as_bytes()).await.ok();
        }
        Some(range) => {
            let shift = u64::from(matches!(script.fault, Fault::WrongRange));
            let first = range.start + shift;
            format!("HTTP/1.1 206 X\r\ncontent-range: bytes {first}-{}/{claimed}\r\n", range.end - 1)
        }
        None => "HTTP/1.1 200 X\r\n".to_owned(),
    };
    let range = range.unwrap_or(0..claimed);
    let chunked = matches!(script.length, Length::Chunked);
    let framing = if chunked {
        "transfer-encoding: chunked\r\n".to_owned()
    } else {
        format!("content-length: {}\r\n", range.end - range.start)
    };
    text.push_str(&framing);
    if let Some(tag) = etag {
        text.extend(["etag: ", tag, "\r\n"]);
        // Clients of object stores insist on one.
        text += "last-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    }
    if matches!(script.fault, Fault::Gzip) {
        text += "content-encoding: gzip\r\n";
    }
    text += "\r\n";
    stream.write_all(text.as_bytes()).await.ok()?;
    if head.starts_with("head ") {
        return Some(());
    }
    body(stream, script, seen, number, range, changed).await?;
    if chunked {
        stream.write_all(b"0\r\n\r\n").await.ok()?;
    }
    Some(())
}

async fn body(
    stream: &mut TcpStream,
    script: &Script,
    seen: &Seen,
    number: u64,
    range: Range<u64>,
    changed: bool,
) -> Option<()> {
    let total = range.end - range.start;
    let mut sent = 0;
    while sent < total {
        let trickle = matches!(script.fault, Fault::TrickleFrom(from) if number >= from);
        let most = match script.fault {
            Fault::DropEvery(bytes) if bytes <= sent => return None,
            Fault::ResetEvery(bytes) if bytes <= sent => {
                stream.set_zero_linger().unwrap();
                return None;
            }
            Fault::StallTimes(times) if number <= times && sent * 2 >= total => std::future::pending().await,
            Fault::StallThenChange if number == 1 && sent * 2 >= total => std::future::pending().await,
            Fault::DropEvery(bytes) | Fault::ResetEvery(bytes) => bytes - sent,
            _ if trickle => 1,
            _ => 16 * 1024,
        };
        let from = range.start + sent;
        let step = most.min(16 * 1024).min(total - sent);
        let end = (from + step).min(script.content.len() as u64);
        if end <= from {
            // Fewer bytes than were claimed.
            return None;
        }
        let mut piece =
            script.content[usize::try_from(from).unwrap()..usize::try_from(end).unwrap()].to_vec();
        if changed {
            for byte in &mut piece {
                *byte ^= 0xff;
            }
        }
        if matches!(script.length, Length::Chunked) {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.ok()?;
            piece.extend_from_slice(b"\r\n");
        }
        stream.write_all(&piece).await.ok()?;
        seen.body_bytes.fetch_add(end - from, Ordering::Relaxed);
        sent += end - from;
        if trickle {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Some(())
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

fn parse_range(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end = last.parse::<u64>().map_or(size, |last| (last + 1).min(size));
    Some(first.min(end)..end)
}

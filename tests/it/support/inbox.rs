//! An HTTP server that takes files in, and answers when and as it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// One request that arrived whole.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Request line and headers, in lower case.
    pub head: String,
    /// The file.
    pub body: Vec<u8>,
}

/// Listens; ends when dropped.
pub struct Inbox {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
    open: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Inbox {
    /// Answers its requests by these in turn, the last one for ever.
    pub async fn start(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let open = watch::Sender::new(true);
        let (seen, may, statuses) = (Arc::clone(&taken), open.subscribe(), statuses.to_vec());
        #[expect(clippy::disallowed_methods, reason = "test servers end with their test")]
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (seen, may, statuses) = (Arc::clone(&seen), may.clone(), statuses.clone());
                connections.spawn(async move { take(socket, &seen, may, &statuses).await });
            }
        });
        Self { address, taken, open, task }
    }

    /// Where to send to.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What arrived so far.
    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    /// Takes files from now on, and does not answer.
    pub fn hold(&self) {
        self.open.send_replace(false);
    }

    /// Answers from now on.
    pub fn let_go(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(
    mut socket: TcpStream,
    seen: &Mutex<Vec<Taken>>,
    mut may: watch::Receiver<bool>,
    statuses: &[u16],
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    let turn = {
        let mut seen = seen.lock().unwrap();
        seen.push(Taken { head, body });
        seen.len() - 1
    };
    may.wait_for(|open| *open).await.ok()?;
    let status = statuses[turn.min(statuses.len() - 1)];
    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    socket.write_all(text.as_bytes()).await.ok()
}

//! A receiver of webhooks that answers as it is told and keeps what came.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What it does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// It says nothing and keeps the connection.
    Hang,
    /// It takes the message and closes the connection.
    Drop,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub path: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Got {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }
}

/// Listens until it is dropped.
pub struct Receiver {
    pub address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    answer: Arc<Mutex<Answer>>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    pub async fn start(answer: Answer) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), answer).await
    }

    pub async fn at(address: SocketAddr, answer: Answer) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (got, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(answer)));
        let (sink, how) = (Arc::clone(&got), Arc::clone(&answer));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                open.spawn(converse(socket, Arc::clone(&sink), Arc::clone(&how)));
            }
        });
        Self { address, got, answer, _tasks: tasks }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?key=canary", self.address)
    }

    pub fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

async fn converse(mut socket: TcpStream, sink: Arc<Mutex<Vec<Got>>>, how: Arc<Mutex<Answer>>) {
    let mut bytes = Vec::new();
    loop {
        let Some(message) = read(&mut socket, &mut bytes).await else { return };
        sink.lock().unwrap().push(message);
        let answer = *how.lock().unwrap();
        match answer {
            Answer::Status(status) => {
                let text = format!("HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n");
                if socket.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Answer::Hang => {
                // Until the sender gives up.
                let _ = socket.read(&mut [0]).await;
                return;
            }
            Answer::Drop => return,
        }
    }
}

async fn read(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Got> {
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
            let mut lines = head.lines();
            let path = lines.next()?.split(' ').nth(1)?.to_owned();
            let headers: BTreeMap<_, _> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length: usize = headers.get("content-length")?.parse().ok()?;
            if bytes.len() >= end + 4 + length {
                let body = String::from_utf8(bytes[end + 4..end + 4 + length].to_vec()).ok()?;
                bytes.drain(..end + 4 + length);
                return Some(Got { path, headers, body });
            }
        }
        let mut part = [0; 4096];
        let n = socket.read(&mut part).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&part[..n]);
    }
}

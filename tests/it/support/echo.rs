//! A server that refuses everything and repeats in its answer what it was sent, as object stores do whose signatures
//! do not match.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Listens until it is dropped.
pub struct Echo {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Echo {
    /// Answers with this status.
    pub async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                open.spawn(async move { refuse(socket, status).await });
            }
        });
        Self { address, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn refuse(mut socket: TcpStream, status: u16) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>{head}</Message></Error>"
    );
    let told = head.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let text = format!(
        "HTTP/1.1 {status} Refused {told}\r\ncontent-type: application/xml\r\nx-told: {told}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(text.as_bytes()).await.ok()?;
    socket.shutdown().await.ok()?;
    // What it still sends, so that the answer is not lost with a reset.
    let mut rest = [0; 4096];
    while socket.read(&mut rest).await.ok()? > 0 {}
    Some(())
}

//! A TCP proxy that misbehaves when a test says so: the network between two processes.
//!
//! Bytes are never lost within a connection, only held back or cut off with it, as TCP does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How it treats what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Each piece takes so much longer.
    Delay(Duration),
    /// What callers say does not arrive. Connections are taken and kept.
    Deaf,
    /// What is answered does not arrive.
    Mute,
    /// Neither.
    Hole,
    /// Nobody listens: what is open is reset, connecting is refused.
    Refuse,
}

/// Runs until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    wires: Wires,
    /// Keeps the port while nobody listens on it.
    _port: TcpSocket,
    _task: JoinSet<()>,
}

#[derive(Clone)]
struct Wires {
    mode: watch::Sender<Mode>,
    target: watch::Sender<String>,
    /// Counts resets.
    cuts: watch::Sender<u64>,
    /// Counts half-closes.
    ends: watch::Sender<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

impl Mode {
    fn passes(self, way: Way) -> bool {
        match self {
            Self::Pass | Self::Delay(_) => true,
            Self::Deaf => way == Way::Back,
            Self::Mute => way == Way::There,
            Self::Hole | Self::Refuse => false,
        }
    }
}

impl Proxy {
    /// A proxy in front of `HOST:PORT`.
    pub fn before(target: &str) -> Self {
        let port = socket();
        port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = port.local_addr().unwrap();
        let wires = Wires {
            mode: watch::Sender::new(Mode::Pass),
            target: watch::Sender::new(target.to_owned()),
            cuts: watch::Sender::new(0),
            ends: watch::Sender::new(0),
        };
        let mut task = JoinSet::new();
        // Listening before anybody is told the address.
        task.spawn(wires.clone().serve(address, listen(address)));
        Self { address, wires, _port: port, _task: task }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn set(&self, mode: Mode) {
        self.wires.mode.send_replace(mode);
    }

    /// Where new connections lead.
    pub fn lead(&self, target: &str) {
        self.wires.target.send_replace(target.to_owned());
    }

    /// Resets what is open.
    pub fn reset(&self) {
        self.wires.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends what is answered on all connections; what callers say still arrives.
    pub fn half_close(&self) {
        self.wires.ends.send_modify(|ends| *ends += 1);
    }
}

fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = socket();
    socket.bind(address).unwrap();
    socket.listen(64).unwrap()
}

impl Wires {
    async fn serve(self, address: SocketAddr, first: TcpListener) {
        let mut listener = Some(first);
        let mut mode = self.mode.subscribe();
        let mut calls = JoinSet::new();
        loop {
            let door = listener.take().unwrap_or_else(|| listen(address));
            loop {
                tokio::select! {
                    Ok((caller, _)) = door.accept() => { calls.spawn(self.clone().call(caller)); }
                    Some(_) = calls.join_next() => {}
                    Ok(_) = mode.wait_for(|mode| *mode == Mode::Refuse) => break,
                }
            }
            drop(door);
            self.cuts.send_modify(|cuts| *cuts += 1);
            if mode.wait_for(|mode| *mode != Mode::Refuse).await.is_err() {
                return;
            }
        }
    }

    async fn call(self, mut caller: TcpStream) {
        let mut cuts = self.cuts.subscribe();
        cuts.mark_unchanged();
        let through = async {
            let mut mode = self.mode.subscribe();
            // One that cannot be heard is not connected to either.
            mode.wait_for(|mode| mode.passes(Way::There)).await.ok()?;
            let target = self.target.borrow().clone();
            let mut target = TcpStream::connect(target).await.ok()?;
            let (from_caller, to_caller) = caller.split();
            let (from_target, to_target) = target.split();
            let there = self.carry(Way::There, from_caller, to_target);
            let back = self.carry(Way::Back, from_target, to_caller);
            tokio::join!(there, back);
            Some(())
        };
        let whole = tokio::select! {
            done = through => done.is_some(),
            _ = cuts.changed() => false,
        };
        if !whole {
            let _ = caller.set_zero_linger();
        }
    }

    /// One direction, until its end.
    async fn carry(&self, way: Way, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) {
        let (mut mode, mut ends) = (self.mode.subscribe(), self.ends.subscribe());
        ends.mark_unchanged();
        let mut piece = vec![0; 16 << 10];
        loop {
            let read = tokio::select! {
                read = from.read(&mut piece) => read,
                Ok(()) = ends.changed(), if way == Way::Back => Ok(0),
            };
            let Ok(now) = mode.wait_for(|mode| mode.passes(way)).await.map(|mode| *mode) else { return };
            if let Mode::Delay(longer) = now {
                // What is tried is the wait itself.
                tokio::time::sleep(longer).await;
            }
            match read {
                Ok(0) | Err(_) => {
                    let _ = to.shutdown().await;
                    return;
                }
                Ok(length) => {
                    if to.write_all(&piece[..length]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Answers each piece with itself.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::eventually;

    async fn echo() -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut calls = JoinSet::new();
            loop {
                let (mut caller, _) = listener.accept().await.unwrap();
                calls.spawn(async move {
                    let (mut from, mut to) = caller.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        (address, task)
    }

    async fn asked(stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(b"x").await?;
        heard(stream).await
    }

    async fn heard(stream: &mut TcpStream) -> std::io::Result<()> {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map(drop)
    }

    async fn quiet(stream: &mut TcpStream) -> bool {
        tokio::time::timeout(Duration::from_millis(150), heard(stream)).await.is_err()
    }

    #[tokio::test]
    async fn each_mode_does_what_it_says() {
        let (target, _echo) = echo().await;
        let proxy = Proxy::before(&target);
        let connect = || TcpStream::connect(proxy.address());
        let mut stream = connect().await.unwrap();
        asked(&mut stream).await.unwrap();

        for mode in [Mode::Deaf, Mode::Mute, Mode::Hole] {
            proxy.set(mode);
            stream.write_all(b"x").await.unwrap();
            assert!(quiet(&mut stream).await, "{mode:?}");
            let mut fresh = connect().await.unwrap();
            fresh.write_all(b"y").await.unwrap();
            assert!(quiet(&mut fresh).await, "{mode:?}: a new connection is taken and kept");
            proxy.set(Mode::Pass);
            heard(&mut stream).await.unwrap();
            heard(&mut fresh).await.unwrap();
        }

        proxy.half_close();
        eventually("the answers end", async || heard(&mut stream).await.is_err().then_some(())).await;
        stream.write_all(b"still open").await.unwrap();

        let mut stream = connect().await.unwrap();
        asked(&mut stream).await.unwrap();
        proxy.reset();
        eventually("it is reset", async || asked(&mut stream).await.is_err().then_some(())).await;
        asked(&mut connect().await.unwrap()).await.unwrap();

        let mut stream = connect().await.unwrap();
        asked(&mut stream).await.unwrap();
        proxy.set(Mode::Refuse);
        eventually("nobody listens", async || connect().await.is_err().then_some(())).await;
        assert!(asked(&mut stream).await.is_err());
        proxy.set(Mode::Delay(Duration::from_millis(30)));
        let mut stream = eventually("somebody listens", async || connect().await.ok()).await;
        let since = std::time::Instant::now();
        asked(&mut stream).await.unwrap();
        assert!(since.elapsed() >= Duration::from_millis(60), "both ways");
    }
}

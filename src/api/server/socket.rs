//! A TCP stream whose writes cannot stall for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// Kernel memory for unsent events of one reader, bytes (the kernel doubles it). Left alone it grows to megabytes for a
/// reader that never reads (STACK §5).
const STREAM_BUFFER: usize = 64 << 10;

/// Asks the connection that a request came by to keep its send buffer small. In the extensions of every request.
#[derive(Debug, Clone, Default)]
pub(in crate::api) struct SendBuffer(Arc<AtomicBool>);

impl SendBuffer {
    /// Bounds it, from the next write on.
    pub(in crate::api) fn bound(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The stream with its write limit.
pub(super) struct Socket {
    tcp: TcpStream,
    write_timeout: Duration,
    wanted: SendBuffer,
    bounded: bool,
    /// Runs while a write waits for the peer.
    stall: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, write_timeout: Duration, wanted: SendBuffer) -> Self {
        Self { tcp, write_timeout, wanted, bounded: false, stall: None }
    }

    fn write_with(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if !self.bounded && self.wanted.0.load(Ordering::Relaxed) {
            self.bounded = true;
            // A kernel that refuses only costs memory.
            let _ = SockRef::from(&self.tcp).set_send_buffer_size(STREAM_BUFFER);
        }
        match write(Pin::new(&mut self.tcp), cx) {
            Poll::Ready(result) => {
                self.stall = None;
                Poll::Ready(result)
            }
            Poll::Pending => {
                let limit = self.write_timeout;
                let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                match stall.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write_with(cx, |tcp, cx| tcp.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write_with(cx, |tcp, cx| tcp.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

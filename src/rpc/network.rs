//! The worker's listener: HTTP/2 with a token, TLS, and a bound on everything a caller may take.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tonic::transport::{Certificate, Server, ServerTlsConfig};
use tonic_health::ServingStatus;

use super::DESCRIPTORS;
use super::door::{Door, Greeted};
use super::pb::worker_service_server::SERVICE_NAME;
use super::security::ServerSecurity;
use super::server::{WorkerApi, generated};

/// A pause after an accept that failed for lack of descriptors: time for connections to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds on callers.
#[derive(Debug, Clone, Copy)]
pub struct NetworkLimits {
    /// Open connections; more wait in the kernel's backlog.
    pub connections: usize,
    /// Calls and streams at once on one connection.
    pub streams: u32,
    /// Calls of one connection that may be waiting for the head of their answer.
    pub calls: usize,
    /// For the TLS handshake, and from the accept to the first call that is let in.
    pub handshake: Duration,
    /// Longest time to the head of an answer.
    pub call: Duration,
    /// Pings on a connection, and the wait for their answer.
    pub keep_alive: (Duration, Duration),
    /// How long open calls may finish once the listener is told to stop.
    pub drain: Duration,
}

impl NetworkLimits {
    /// For a worker of so many slots: each run has a stream, and a control calls beside them.
    #[must_use]
    pub fn for_slots(slots: usize) -> Self {
        let streams = u32::try_from(slots).unwrap_or(u32::MAX).saturating_mul(4).saturating_add(64);
        Self {
            connections: 1024,
            streams,
            calls: 64,
            handshake: Duration::from_secs(10),
            call: Duration::from_secs(30),
            keep_alive: (Duration::from_secs(20), Duration::from_secs(10)),
            drain: Duration::from_secs(1),
        }
    }
}

/// Why a listener cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificates cannot be used.
    #[error("cannot use the certificates of the worker's listener")]
    Certificates(#[source] tonic::transport::Error),
    /// The descriptors this program was built with cannot be told.
    #[error("cannot describe the service")]
    Describe(#[source] tonic_reflection::server::Error),
    /// The listener broke.
    #[error("cannot serve workers' calls")]
    Serve(#[source] tonic::transport::Error),
}

/// Serves a worker until `stop`, with health and reflection; health says `NOT_SERVING` from `draining` on. What cannot
/// be served at all is told at once, the rest by the future.
pub fn serve<A: WorkerApi>(
    listener: TcpListener,
    api: Arc<A>,
    security: ServerSecurity,
    limits: NetworkLimits,
    (draining, stop): (CancellationToken, CancellationToken),
) -> Result<impl Future<Output = Result<(), ServeError>> + Send + 'static, ServeError> {
    let mut server = Server::builder()
        .concurrency_limit_per_connection(limits.calls)
        .timeout(limits.call)
        .max_concurrent_streams(limits.streams)
        .http2_keepalive_interval(Some(limits.keep_alive.0))
        .http2_keepalive_timeout(Some(limits.keep_alive.1))
        .http2_max_header_list_size(16 << 10);
    if let Some(tls) = &security.tls {
        let mut config = ServerTlsConfig::new().identity(tls.identity.to_tonic()).timeout(limits.handshake);
        if let Some(ca) = &tls.client_ca {
            config = config.client_ca_root(Certificate::from_pem(ca));
        }
        server = server.tls_config(config).map_err(ServeError::Certificates)?;
    }
    let (reporter, health) = tonic_health::server::health_reporter();
    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(SERVICE_NAME)
            .with_service_name("grpc.health.v1.Health")
    };
    let calls = server
        .layer(Door(security.token))
        .add_service(generated(api))
        .add_service(health)
        .add_service(describe().build_v1().map_err(ServeError::Describe)?)
        .add_service(describe().build_v1alpha().map_err(ServeError::Describe)?)
        .serve_with_incoming_shutdown(incoming(listener, limits), stop.clone().cancelled_owned());
    let unwell = async move {
        reporter.set_service_status(SERVICE_NAME, ServingStatus::Serving).await;
        draining.cancelled().await;
        for service in ["", SERVICE_NAME] {
            reporter.set_service_status(service, ServingStatus::NotServing).await;
        }
        stop.cancelled().await;
        tokio::time::sleep(limits.drain).await;
    };
    Ok(async move {
        tokio::select! {
            biased;
            () = unwell => {
                tracing::debug!("calls did not end in time and were cut");
                Ok(())
            }
            ended = calls => ended.map_err(ServeError::Serve),
        }
    })
}

/// Connections, each once there is room for it.
fn incoming(listener: TcpListener, limits: NetworkLimits) -> impl Stream<Item = io::Result<Caller>> {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let patience = limits.handshake;
    stream::unfold((listener, permits), move |(listener, permits)| async move {
        let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((tcp, _)) => {
                    // Answers are written whole; waiting to fill packets only delays them.
                    let _ = tcp.set_nodelay(true);
                    let caller = Caller {
                        tcp,
                        greeted: Greeted::default(),
                        silence: Some(Box::pin(tokio::time::sleep(patience))),
                        _permit: permit,
                    };
                    return Some((Ok(caller), (listener, permits)));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
    .fuse()
}

/// A connection that ends when nothing was called on it in time: keepalive begins only after the greeting, and a
/// greeting that never comes has no limit of its own.
struct Caller {
    tcp: TcpStream,
    greeted: Greeted,
    silence: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Caller {
    type ConnectInfo = Greeted;

    fn connect_info(&self) -> Greeted {
        self.greeted.clone()
    }
}

impl AsyncRead for Caller {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.greeted.is_set() {
            self.silence = None;
        }
        if let Some(silence) = &mut self.silence
            && silence.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Caller {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

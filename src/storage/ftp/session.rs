//! One control connection: logged in, in binary mode, every command with an end in time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::ClientConfig;
use suppaftp::tokio::{AsyncRustlsConnector, AsyncRustlsStream, ImplAsyncFtpStream, TransferStream};
use suppaftp::tokio_rustls::TlsConnector;
use suppaftp::types::FileType;
use suppaftp::{FtpError, FtpResult, Mode, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fault::FtpFault;
use super::{FtpLimits, FtpLogin, FtpServer};

/// Bytes read or written at a time.
const CHUNK: usize = 64 * 1024;
/// Data connections go nowhere below this port: no FTP server listens there for data.
const LEAST_DATA_PORT: u16 = 1024;

const NO_REPLY: &str = "its server did not answer in time";
const BROKE_OFF: &str = "the connection broke off";
const NO_DATA: &str = "its data connection could not be opened";

type Stream = ImplAsyncFtpStream<AsyncRustlsStream>;

/// A session. Dropping it closes its connections.
pub(in crate::storage) struct Session {
    stream: Stream,
    limits: FtpLimits,
}

/// A data connection with a file on its way.
pub(in crate::storage) struct Transfer {
    stream: TransferStream<AsyncRustlsStream>,
    limits: FtpLimits,
}

impl Session {
    pub(super) async fn begin(
        stream: TcpStream,
        server: &FtpServer,
        login: &FtpLogin,
        tls: Option<Arc<ClientConfig>>,
        limits: FtpLimits,
    ) -> Result<Self, FtpFault> {
        let peer = stream
            .peer_addr()
            .map_err(|error| FtpFault::unreachable("its server could not be reached", error.to_string()))?;
        let greeted = within(limits.reply, Stream::connect_with_stream(stream)).await?;
        let mut stream = greeted.passive_stream_builder(move |address| {
            Box::pin(data_connection(peer.ip(), address, limits.connect))
        });
        // What a passive answer says about the address is never followed; only EPSV can be told from IPv6.
        stream.set_mode(if peer.is_ipv4() { Mode::Passive } else { Mode::ExtendedPassive });
        stream.set_passive_nat_workaround(true);
        if let Some(tls) = tls {
            let connector = AsyncRustlsConnector::from(TlsConnector::from(tls));
            stream = match within(limits.reply, stream.into_secure(connector, &server.host)).await {
                // A server without AUTH TLS refuses the command, and gets no password then.
                Err(FtpFault::Refused(reply)) => return Err(FtpFault::Tls(reply.to_string())),
                other => other?,
            };
        }
        within(limits.reply, stream.login(&login.user, &login.password)).await.map_err(
            |fault| match fault {
                // Whatever the refusal's code: its text may repeat what was sent.
                FtpFault::Denied(_) | FtpFault::Refused(_) | FtpFault::Missing(_) => FtpFault::Login,
                other => other,
            },
        )?;
        within(limits.reply, stream.transfer_type(FileType::Binary)).await?;
        Ok(Self { stream, limits })
    }

    /// Bytes of a file; `None` where the server has no SIZE.
    pub(in crate::storage) async fn size(&mut self, path: &str) -> Result<Option<u64>, FtpFault> {
        match within(self.limits.reply, self.stream.size(path)).await {
            Ok(size) => Ok(Some(size as u64)),
            Err(fault) if fault.is_unsupported() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// When a file was changed, as the server writes it; `None` where it does not say.
    pub(in crate::storage) async fn modified(&mut self, path: &str) -> Result<Option<String>, FtpFault> {
        match within(self.limits.reply, self.stream.mdtm(path)).await {
            Ok(time) => Ok(Some(time.to_string())),
            Err(FtpFault::Unreachable { what, detail }) => Err(FtpFault::Unreachable { what, detail }),
            // A file without a time is a file all the same.
            Err(_) => Ok(None),
        }
    }

    /// Begins to receive a file from some byte on.
    pub(in crate::storage) async fn retrieve(&mut self, path: &str, from: u64) -> Result<Transfer, FtpFault> {
        let limits = self.limits;
        let offset =
            usize::try_from(from).map_err(|_| FtpFault::Nonsense("an offset beyond memory".to_owned()))?;
        within(limits.reply, self.stream.resume_transfer(offset)).await?;
        let stream = within(limits.reply + limits.connect, self.stream.retr_as_stream(path)).await?;
        Ok(Transfer { stream, limits })
    }

    /// Begins to send a file, from its first byte.
    pub(in crate::storage) async fn store(&mut self, path: &str) -> Result<Transfer, FtpFault> {
        let limits = self.limits;
        let stream = within(limits.reply + limits.connect, self.stream.put_with_stream(path)).await?;
        Ok(Transfer { stream, limits })
    }

    pub(in crate::storage) async fn remove(&mut self, path: &str) -> Result<(), FtpFault> {
        within(self.limits.reply, self.stream.rm(path)).await
    }

    pub(in crate::storage) async fn rename(&mut self, from: &str, to: &str) -> Result<(), FtpFault> {
        within(self.limits.reply, self.stream.rename(from, to)).await
    }

    pub(in crate::storage) async fn make_folder(&mut self, path: &str) -> Result<(), FtpFault> {
        within(self.limits.reply, self.stream.mkdir(path)).await
    }

    /// Whether there is a file or folder of that name, for servers without SIZE (RFC 3659 §7).
    pub(super) async fn listed(&mut self, path: &str) -> Result<bool, FtpFault> {
        let asked = self.stream.custom_command(format!("MLST {path}"), &[Status::RequestedFileActionOk]);
        match within(self.limits.reply, asked).await {
            Ok(_) => Ok(true),
            Err(FtpFault::Missing(_)) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Says goodbye, without waiting for long.
    pub(in crate::storage) async fn quit(mut self) {
        let _ = within(self.limits.reply.min(Duration::from_secs(1)), self.stream.quit()).await;
    }
}

impl Transfer {
    /// The next bytes; none at the end of the data connection, which says nothing about the end of the file: ask
    /// [`Transfer::finish`]. The caller bounds its waiting.
    pub(in crate::storage) async fn next(&mut self) -> Result<Bytes, FtpFault> {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        match self.stream.read_buf(&mut buffer).await {
            Ok(_) => Ok(buffer.freeze()),
            // Many servers close an encrypted data connection without TLS's own goodbye. The reply decides.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Bytes::new()),
            Err(error) => Err(FtpFault::unreachable(BROKE_OFF, error.to_string())),
        }
    }

    /// Sends bytes.
    pub(in crate::storage) async fn write(&mut self, bytes: &[u8]) -> Result<(), FtpFault> {
        for chunk in bytes.chunks(CHUNK) {
            match tokio::time::timeout(self.limits.stall, self.stream.write_all(chunk)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(FtpFault::unreachable(BROKE_OFF, error.to_string())),
                Err(_) => return Err(FtpFault::unreachable("its server stopped receiving", "stall limit")),
            }
        }
        Ok(())
    }

    /// Closes the data connection and hears whether the server has the whole (226): the only proof that there is.
    pub(in crate::storage) async fn finish(self) -> Result<(), FtpFault> {
        within(self.limits.confirm, self.stream.finish()).await
    }
}

fn is_no_data(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<NoData>()).is_some()
}

async fn within<T>(limit: Duration, command: impl Future<Output = FtpResult<T>>) -> Result<T, FtpFault> {
    match tokio::time::timeout(limit, command).await {
        Ok(done) => done.map_err(|error| match error {
            FtpError::ConnectionError(error) if is_no_data(&error) => {
                FtpFault::unreachable(NO_DATA, error.to_string())
            }
            error => FtpFault::of(error, BROKE_OFF),
        }),
        Err(_) => Err(FtpFault::unreachable(NO_REPLY, "reply timeout")),
    }
}

/// A data connection that did not come about, told from other trouble of the network.
#[derive(Debug, thiserror::Error)]
#[error("data connection to port {port}: {reason}")]
struct NoData {
    port: u16,
    reason: String,
}

async fn data_connection(server: IpAddr, address: SocketAddr, limit: Duration) -> FtpResult<TcpStream> {
    let port = address.port();
    let no_data = |reason: &str| {
        FtpError::ConnectionError(io::Error::other(NoData { port, reason: reason.to_owned() }))
    };
    if port < LEAST_DATA_PORT {
        return Err(no_data("no FTP server sends data from there"));
    }
    // The library was told so already; this is the line that must hold.
    let address = SocketAddr::new(server, port);
    match tokio::time::timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(no_data(&error.to_string())),
        Err(_) => Err(no_data("no answer in time")),
    }
}

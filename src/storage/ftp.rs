//! FTP and FTPS (RFC 959, 2228, 2428, 3659, 4217), as sources and destinations use them.
//!
//! What a server says is a stranger's word. Its name is resolved here, every address is checked, and the connection goes
//! to the address that was checked. Data connections are passive and go to the address of the control connection,
//! whatever the server's answer names, so that nobody is sent elsewhere. Replies are bounded by `suppaftp`, times here.
//! `ftps` means TLS by `AUTH TLS` with the server's certificate checked, for control and data connections alike.
//!
//! `suppaftp` writes commands, passwords among them, to the `log` crate, which nothing in this process listens to.

mod address;
mod fault;
mod publish;
mod session;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use tokio::net::TcpStream;

pub(super) use self::address::{BadAddress, FtpLogin, FtpServer, FtpTarget, Security};
pub(super) use self::fault::FtpFault;
pub(super) use self::publish::{Fate, Part, Uploads};
pub(super) use self::session::{Session, Transfer};
use super::http::Lookup;
use super::policy::{AddressPolicy, blocked, of_destination};
use crate::domain::{Code, Failure};

/// Bounds on talking to a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct FtpLimits {
    /// Until a connection stands, control or data.
    pub(super) connect: Duration,
    /// Until a command is answered.
    pub(super) reply: Duration,
    /// Until the end of a transfer is confirmed: a server may write a large file to its disk first.
    pub(super) confirm: Duration,
    /// Longest silence while bytes are sent or received.
    pub(super) stall: Duration,
}

/// Opens sessions under the address policy. Cheap to clone.
#[derive(Clone)]
pub(super) struct FtpClients {
    inner: Arc<Inner>,
}

struct Inner {
    policy: AddressPolicy,
    lookup: Arc<dyn Lookup>,
    limits: FtpLimits,
    /// Made for the first encrypted session: the authorities of a machine are hundreds of files.
    tls: OnceLock<ClientConfig>,
}

impl std::fmt::Debug for FtpClients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FtpClients").field("policy", &self.inner.policy).finish_non_exhaustive()
    }
}

impl FtpClients {
    /// Clients that obey `policy` and trust the authorities of this machine (or of `SSL_CERT_FILE`).
    #[must_use]
    pub(super) fn new(policy: AddressPolicy, lookup: Arc<dyn Lookup>, limits: FtpLimits) -> Self {
        Self { inner: Arc::new(Inner { policy, lookup, limits, tls: OnceLock::new() }) }
    }

    /// The same with other authorities.
    #[cfg(test)]
    #[must_use]
    pub(super) fn with_roots(
        policy: AddressPolicy,
        lookup: Arc<dyn Lookup>,
        limits: FtpLimits,
        roots: rustls::RootCertStore,
    ) -> Self {
        let tls = OnceLock::from(trusting(roots));
        Self { inner: Arc::new(Inner { policy, lookup, limits, tls }) }
    }

    pub(super) fn limits(&self) -> &FtpLimits {
        &self.inner.limits
    }

    /// Refuses what can be refused without the network.
    ///
    /// # Errors
    /// [`FtpFault::Blocked`].
    pub(super) fn check(&self, server: &FtpServer) -> Result<(), FtpFault> {
        let fits = self.inner.policy.may_permit_ftp(&server.host, server.port);
        if fits { Ok(()) } else { Err(FtpFault::blocked(server)) }
    }

    /// A new session: connected, encrypted where asked for, logged in, in binary mode.
    pub(super) async fn session(&self, server: &FtpServer, login: &FtpLogin) -> Result<Session, FtpFault> {
        self.check(server)?;
        let stream = self.connect(server).await?;
        let tls = match server.security {
            Security::Plain => None,
            Security::Tls => Some(self.session_tls()),
        };
        Session::begin(stream, server, login, tls, self.inner.limits).await
    }

    /// A configuration of its own for each session: servers want to see the control connection's TLS session again on
    /// the data connections, and only that one.
    fn session_tls(&self) -> Arc<ClientConfig> {
        let mut tls = self.inner.tls.get_or_init(|| trusting(machine_roots())).clone();
        tls.resumption = Resumption::in_memory_sessions(16);
        Arc::new(tls)
    }

    async fn connect(&self, server: &FtpServer) -> Result<TcpStream, FtpFault> {
        let limits = &self.inner.limits;
        let mut last = FtpFault::unreachable("its name could not be resolved", "no address");
        for address in self.addresses(server).await? {
            match tokio::time::timeout(limits.connect, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Commands are small and each waits for its reply.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => {
                    last = FtpFault::unreachable("its server could not be reached", error.to_string());
                }
                Err(_) => {
                    last =
                        FtpFault::unreachable("its server could not be reached in time", "connect timeout");
                }
            }
        }
        Err(last)
    }

    async fn addresses(&self, server: &FtpServer) -> Result<Vec<SocketAddr>, FtpFault> {
        let inner = &self.inner;
        let all = if let Ok(ip) = server.host.parse::<IpAddr>() {
            vec![ip]
        } else {
            let unknown = |detail: String| FtpFault::unreachable("its name could not be resolved", detail);
            let looked = tokio::time::timeout(inner.limits.connect, inner.lookup.lookup(&server.host)).await;
            looked
                .map_err(|_| unknown("lookup timeout".to_owned()))?
                .map_err(|error| unknown(error.to_string()))?
        };
        let known = !all.is_empty();
        let good: Vec<_> = all
            .into_iter()
            .filter(|ip| inner.policy.permits_ftp(&server.host, *ip, server.port))
            .map(|ip| SocketAddr::new(ip, server.port))
            .collect();
        if known && good.is_empty() {
            return Err(FtpFault::blocked(server));
        }
        Ok(good)
    }
}

/// The authorities of this machine.
fn machine_roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    if unusable > 0 || !found.errors.is_empty() {
        tracing::debug!(
            unusable,
            errors = found.errors.len(),
            "some authorities of this machine are of no use"
        );
    }
    roots
}

fn trusting(roots: rustls::RootCertStore) -> ClientConfig {
    // Fails only when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

/// A fault as a destination's failure.
pub(super) fn destination_failure(fault: FtpFault) -> Failure {
    let failure = |code, sentence: &str, detail: String| Failure::new(code, sentence).with_detail(detail);
    match fault {
        FtpFault::Blocked { host, port } => of_destination(blocked(&host, port)),
        FtpFault::Login => failure(
            Code::DestinationForbidden,
            "the FTP server refused the user or the password",
            String::new(),
        ),
        FtpFault::Tls(detail) => failure(
            Code::DestinationForbidden,
            "no encrypted connection to the FTP server could be made",
            detail,
        ),
        FtpFault::Missing(reply) | FtpFault::Denied(reply) | FtpFault::Refused(reply) => {
            failure(Code::DestinationForbidden, "the FTP server refused the request", reply.to_string())
        }
        FtpFault::Full(reply) => {
            failure(Code::DiskFull, "no room is left at the destination", reply.to_string())
        }
        FtpFault::Nonsense(detail) => {
            failure(Code::DestinationUnreachable, "the FTP server answers against the protocol", detail)
        }
        FtpFault::Unreachable { detail, .. } => {
            failure(Code::DestinationUnreachable, "the FTP server could not be reached", detail)
        }
    }
}

#[cfg(test)]
pub(in crate::storage) mod testing;
#[cfg(test)]
mod tests;

//! Connections to workers and controls: made when first needed, kept, made anew when they break.

use std::time::Duration;

use http::header::AUTHORIZATION;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::security::ClientSecurity;

/// The erased transport of every client: a socket or a service in this process.
pub(super) type Transport = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// Longest wait for a connection. Below the time a control gives a call, so that the cause is told.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// Pings on a connection, used or not, and the wait for their answer: a peer that vanished is noticed after both.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Why no connection can even be tried.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not an address.
    #[error("{address} is not an address such as host:50051")]
    Address {
        /// As it was given.
        address: String,
    },
    /// The token cannot be sent.
    #[error("the token has characters that no header can carry")]
    Token,
    /// The certificates cannot be used.
    #[error("cannot use the certificates for connections to workers")]
    Certificates(#[source] tonic::transport::Error),
}

/// A connection to `HOST:PORT`, in the clear or with TLS, as `security` says.
pub(super) fn to_address(address: &str, security: &ClientSecurity) -> Result<Transport, DialError> {
    let scheme = if security.tls.is_some() { "https" } else { "http" };
    to_url(&format!("{scheme}://{address}"), security)
}

/// A connection to `http://HOST:PORT` or `https://HOST:PORT`.
pub(super) fn to_url(url: &str, security: &ClientSecurity) -> Result<Transport, DialError> {
    let address = || DialError::Address { address: url.to_owned() };
    let mut endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| address())?;
    let uri = endpoint.uri().clone();
    let host = uri.host().ok_or_else(address)?;
    if uri.scheme_str() == Some("https") {
        let tls = security.tls.clone().unwrap_or_default();
        let domain = tls.domain.unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
        let mut config = ClientTlsConfig::new().domain_name(domain).timeout(CONNECT_TIMEOUT);
        config = match tls.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(ca)),
            None => config.with_native_roots(),
        };
        if let Some(identity) = &tls.identity {
            config = config.identity(identity.to_tonic());
        }
        endpoint = endpoint.tls_config(config).map_err(DialError::Certificates)?;
    }
    let endpoint = endpoint
        .user_agent(concat!("flux/", env!("CARGO_PKG_VERSION")))
        .map_err(|_| address())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true);
    let bearer = match &security.token {
        Some(token) => Some(token.header().ok_or(DialError::Token)?),
        None => None,
    };
    let authorised = endpoint.connect_lazy().map_request(move |mut request: http::Request<Body>| {
        if let Some(bearer) = &bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        request
    });
    Ok(BoxCloneSyncService::new(authorised.map_err(|error| Status::from_error(Box::new(error)))))
}

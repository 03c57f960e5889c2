//! Sources and destinations on a real FTP server, and on one that errs.

mod destination;
mod source;

use std::time::Duration;

use super::testing::{PASSWORD, Peer, Quirks, Real, USER};
use super::*;
use crate::storage::http::SystemLookup;

const LIMITS: FtpLimits = FtpLimits {
    connect: Duration::from_secs(2),
    reply: Duration::from_millis(1500),
    confirm: Duration::from_secs(3),
    stall: Duration::from_millis(600),
};

fn policy(rules: &[&str]) -> AddressPolicy {
    AddressPolicy::new(rules.iter().map(|rule| rule.parse().unwrap()).collect())
}

fn clients() -> FtpClients {
    FtpClients::new(policy(&["127.0.0.0/8"]), Arc::new(SystemLookup), LIMITS)
}

/// Clients that trust the real server's authority.
fn trusting(server: &Real) -> FtpClients {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(server.authority()).unwrap()).unwrap();
    FtpClients::with_roots(policy(&["127.0.0.0/8", "::1"]), Arc::new(SystemLookup), LIMITS, roots)
}

fn target(url: &str) -> (FtpServer, FtpLogin, String) {
    let target = FtpTarget::parse(url).unwrap();
    (target.server, target.login.unwrap_or_default(), target.path)
}

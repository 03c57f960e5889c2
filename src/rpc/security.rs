//! Tokens and certificates, as they are handed over by the configuration.

use std::fmt;

use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderMap};
use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// The secret that workers and controls share. It is no API key, and an API key is no such token.
#[derive(Clone)]
pub struct Token(SecretString);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// This text.
    #[must_use]
    pub fn new(text: SecretString) -> Self {
        Self(text)
    }

    /// Whether these headers carry it. Takes as long for a near miss as for a far one.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else {
            return false;
        };
        let bearer = value.as_bytes().split_at_checked(7);
        let Some(text) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer ")) else {
            return false;
        };
        let hash = |bytes: &[u8]| digest(&SHA256, bytes);
        hash(text.1).as_ref().ct_eq(hash(self.0.expose_secret().as_bytes()).as_ref()).into()
    }

    /// The header that carries it; `None` for a text that no header can hold.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0.expose_secret())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// A certificate chain and its key, PEM.
#[derive(Clone)]
pub struct Identity {
    /// The chain, leaf first.
    pub certificates: Vec<u8>,
    /// Its private key.
    pub key: SecretString,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

impl Identity {
    pub(super) fn to_tonic(&self) -> tonic::transport::Identity {
        tonic::transport::Identity::from_pem(&self.certificates, self.key.expose_secret())
    }
}

/// How a worker knows who calls, and proves who it is. Empty: everybody who can connect may call.
#[derive(Debug, Clone, Default)]
pub struct ServerSecurity {
    /// What every call must carry.
    pub token: Option<Token>,
    /// Encryption.
    pub tls: Option<ServerTls>,
}

/// TLS of a worker's listener.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// What it shows.
    pub identity: Identity,
    /// Whoever connects must show a certificate of these (PEM).
    pub client_ca: Option<Vec<u8>>,
}

/// How a caller proves who it is, and whom it trusts. Empty: no token, no encryption.
#[derive(Debug, Clone, Default)]
pub struct ClientSecurity {
    /// What every call carries.
    pub token: Option<Token>,
    /// Encryption.
    pub tls: Option<ClientTls>,
}

/// TLS of connections to workers.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// Authorities to trust (PEM); `None` = the machine's own.
    pub ca: Option<Vec<u8>>,
    /// What it shows to a worker that asks.
    pub identity: Option<Identity>,
    /// The name expected in certificates; `None` = the host of the address.
    pub domain: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_token_is_let_in_and_only_once() {
        let token = Token::new("s3cr3t".into());
        let admits = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            token.admits(&headers)
        };
        assert!(admits(&["Bearer s3cr3t"]) && admits(&["bearer s3cr3t"]));
        for bad in [
            &[][..],
            &[""],
            &["Bearer "],
            &["Bearer s3cr3"],
            &["Bearer s3cr3tt"],
            &["Bearer  s3cr3t"],
            &["Basic s3cr3t"],
            &["s3cr3t"],
            &["Bearer s3cr3t", "Bearer s3cr3t"],
        ] {
            assert!(!admits(bad), "{bad:?}");
        }
        assert!(!format!("{token:?}{:?}", token.header()).contains("s3cr3t"));
    }
}

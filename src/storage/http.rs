//! The one place that builds HTTP clients: guarded by the address policy, blind to the environment.
//!
//! A name is resolved inside the client, every address is checked, and only checked addresses are connected to, so a
//! name that changes its answer between check and connect gains nothing. Redirects, proxies and decompression are
//! off; whoever follows a redirect asks [`HttpClients::guarded`] again for each hop.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, redirect};
use url::Url;

use super::policy::{AddressPolicy, blocked};
use crate::domain::{Code, Failure};

/// Clients kept at most; there is one per port, and strangers reach other ports than 80 and 443 only by a rule.
const MAX_CLIENTS: usize = 32;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);

/// Names to addresses; tests pass one that lies.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of a name.
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Guarded HTTP clients, one per port, built when first needed.
pub(super) struct HttpClients {
    policy: Arc<AddressPolicy>,
    lookup: Arc<dyn Lookup>,
    connect_timeout: Duration,
    by_port: Mutex<BTreeMap<u16, Client>>,
}

impl std::fmt::Debug for HttpClients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClients").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl HttpClients {
    /// Clients that obey `policy`.
    #[must_use]
    pub(super) fn new(policy: AddressPolicy, lookup: Arc<dyn Lookup>, connect_timeout: Duration) -> Self {
        // Fails only when one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { policy: Arc::new(policy), lookup, connect_timeout, by_port: Mutex::default() }
    }

    /// The policy they obey.
    #[must_use]
    pub(super) fn policy(&self) -> &AddressPolicy {
        &self.policy
    }

    /// A client that may be used for exactly this URL: its scheme, port and literal address are checked here, the
    /// addresses of its name when it connects.
    pub(super) fn guarded(&self, url: &Url) -> Result<Client, Failure> {
        self.policy.check_url(url)?;
        let port = url.port_or_known_default().unwrap_or(443);
        let mut clients = self.by_port.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&port) {
            return Ok(client.clone());
        }
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        let client = self.build(port)?;
        clients.insert(port, client.clone());
        Ok(client)
    }

    fn build(&self, port: u16) -> Result<Client, Failure> {
        let resolver =
            CheckedResolver { policy: Arc::clone(&self.policy), lookup: Arc::clone(&self.lookup), port };
        Client::builder()
            .dns_resolver(Arc::new(resolver))
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            // Two ranges in parallel are two congestion windows, and giving one up never resets the other.
            .http1_only()
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("flux/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                Failure::new(Code::Internal, "The HTTP client could not be built.").with_detail(chain(&error))
            })
    }
}

/// A failed request or response as one of ours; `None` = worth another try.
#[must_use]
pub(super) fn refusal(error: &reqwest::Error) -> Option<Failure> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(failure) = refused(this) {
            return Some(failure);
        }
        cause = this.source();
    }
    None
}

/// The policy's answer about a name, where this one error is it.
#[must_use]
pub(super) fn refused(error: &(dyn StdError + 'static)) -> Option<Failure> {
    error.downcast_ref::<Refused>().map(|refused| blocked(&refused.name, refused.port))
}

/// An error with its causes, for the operator; never with a URL, which may carry a signature.
#[must_use]
pub(super) fn chain(error: &reqwest::Error) -> String {
    // reqwest's own text ends in the URL; its kind and the causes below say the rest.
    let kind = match error {
        e if e.is_timeout() => "timed out",
        e if e.is_connect() => "connecting failed",
        e if e.is_body() || e.is_decode() => "the body broke off",
        _ => "the request failed",
    };
    let mut text = kind.to_owned();
    let mut cause = error.source();
    while let Some(this) = cause {
        text.push_str(": ");
        text.push_str(&this.to_string());
        cause = this.source();
    }
    text
}

#[derive(Debug, thiserror::Error)]
#[error("no address of the name may be fetched from")]
struct Refused {
    name: String,
    port: u16,
}

/// Gives the client only addresses that the policy permits for this port.
struct CheckedResolver {
    policy: Arc<AddressPolicy>,
    lookup: Arc<dyn Lookup>,
    port: u16,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, lookup, port) = (Arc::clone(&self.policy), Arc::clone(&self.lookup), self.port);
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let all = lookup.lookup(&name).await?;
            let known = !all.is_empty();
            // Dropping the bad ones is as safe as refusing them all, and keeps hosts with a NAT64 address reachable.
            let good: Vec<_> = all
                .into_iter()
                .filter(|ip| policy.permits(&name, *ip, port))
                .map(|ip| SocketAddr::new(ip, port))
                .collect();
            if known && good.is_empty() {
                return Err(Refused { name, port }.into());
            }
            Ok(Box::new(good.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    use super::*;

    /// Answers each question with the next list, the last one for ever.
    struct Script(Vec<Vec<IpAddr>>, AtomicUsize);

    #[async_trait]
    impl Lookup for Script {
        async fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            let turn = self.1.fetch_add(1, Ordering::Relaxed).min(self.0.len() - 1);
            Ok(self.0[turn].clone())
        }
    }

    fn clients(rules: &[&str], answers: Vec<Vec<IpAddr>>) -> HttpClients {
        let rules = rules.iter().map(|r| r.parse().unwrap()).collect();
        let lookup = Arc::new(Script(answers, AtomicUsize::new(0)));
        HttpClients::new(AddressPolicy::new(rules), lookup, Duration::from_millis(300))
    }

    #[tokio::test]
    async fn a_name_that_resolves_inside_is_never_connected_to() {
        let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let port = canary.local_addr().unwrap().port();
        // The rule opens the port for another name, so that only the address stands in the way.
        let clients = clients(&[&format!("192.0.2.1:{port}")], vec![vec![loopback], vec![loopback, mapped]]);
        let url = Url::parse(&format!("http://rebind.example:{port}/")).unwrap();
        for _ in 0..2 {
            let error = clients.guarded(&url).unwrap().get(url.clone()).send().await.unwrap_err();
            assert_eq!(refusal(&error).unwrap().code, Code::SourceBlocked);
            assert!(!chain(&error).contains("rebind.example:"), "{}", chain(&error));
        }
        let nobody = tokio::time::timeout(Duration::from_millis(50), canary.accept()).await;
        assert!(nobody.is_err(), "the canary was reached");
    }

    #[tokio::test]
    async fn bad_addresses_are_dropped_and_good_ones_used() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let answers = vec![vec![IpAddr::from([169, 254, 169, 254]), IpAddr::from([127, 0, 0, 1])]];
        let clients = clients(&["127.0.0.1"], answers);
        let url = Url::parse(&format!("http://nas.example:{port}/")).unwrap();
        let request = clients.guarded(&url).unwrap().get(url).send();
        tokio::select! {
            _ = server.accept() => {}
            _ = request => panic!("the request ended before it was accepted"),
        }
    }

    #[tokio::test]
    async fn literals_are_checked_although_nothing_is_resolved() {
        let clients = clients(&[], vec![vec![]]);
        for url in ["http://127.0.0.1/", "http://[::1]/", "http://2130706433/", "http://8.8.8.8:8080/"] {
            let refused = clients.guarded(&Url::parse(url).unwrap());
            assert_eq!(refused.unwrap_err().code, Code::SourceBlocked, "{url}");
        }
    }
}

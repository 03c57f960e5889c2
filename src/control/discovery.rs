//! How workers on other machines are found: a list, a name with many addresses, and workers that register.
//!
//! All three only add addresses to the fleet and take away those that are gone; whether a worker answers is its
//! minder's business. A listed worker stays for ever; a resolved or registered one leaves when nobody names it any
//! more and it has been silent for a while.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::fleet::{Contact, Member};
use super::shared::Shared;
use super::{Control, Found, GivenSources, WorkerHandle};
use crate::domain::WorkerId;
use crate::rpc::wire::{PROTOCOL, Registered, Registration};
use crate::rpc::{ClientSecurity, DialError, FleetApi, FleetRefusal, WorkerClient};
use crate::storage::Destinations;

/// Between two resolutions of the name, and the longest wait for one.
const RESOLUTION: Duration = Duration::from_secs(10);

/// Between two looks at who is there.
const LOOK: Duration = Duration::from_secs(1);

/// How often workers say that they are there.
const REGISTRATION: Duration = Duration::from_secs(20);

/// A worker that nobody names leaves after so much silence: well above what a reservation holds, so that nothing is
/// claimed for it any more.
const SILENCE: Duration = Duration::from_mins(1);

/// Workers of one control. Each costs a task and a connection.
const MOST: usize = 4096;

/// Where to look for workers, and how to speak to them.
#[derive(Clone, Default)]
pub struct Discovery {
    /// `HOST:PORT` of each.
    pub nodes: Vec<String>,
    /// `HOST:PORT` whose host has one address per worker.
    pub dns: Option<String>,
    /// Token and certificates.
    pub security: ClientSecurity,
    /// Jobs may be sent in the clear to other machines.
    pub trusted_network: bool,
    /// The storage that workers must share; without it they are not asked.
    pub storage: Option<Destinations>,
    /// What clients gave to this control, for workers that do not see it.
    pub given: Option<Arc<dyn GivenSources>>,
}

impl Discovery {
    /// Whether jobs with their secrets may be sent there.
    fn may_send(&self, host: &str) -> bool {
        let here =
            || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        self.security.tls.is_some() || self.trusted_network || here()
    }

    /// A worker to talk to. `name` is the host that its certificate is for, if not the address's own.
    fn handle(&self, address: &str, name: Option<&str>, found: Found) -> Result<WorkerHandle, DialError> {
        let mut security = self.security.clone();
        if let Some(tls) = &mut security.tls
            && tls.domain.is_none()
        {
            tls.domain = name.map(str::to_owned);
        }
        let client = WorkerClient::connect(address, &security)?;
        Ok(WorkerHandle { client, address: address.to_owned(), found })
    }

    /// A worker that a control wrote down; `None`, and told, if this one may not or cannot speak to it.
    pub(super) fn recorded(&self, address: &str) -> Option<WorkerHandle> {
        let host = address.rsplit_once(':')?.0.trim_matches(['[', ']']);
        if !self.may_send(host) {
            tracing::error!(
                address,
                "a worker on record is not used: it is on another machine and workers.tls is not set"
            );
            return None;
        }
        // One that a name resolved to has a certificate for that name.
        let resolved = self.dns.as_deref().filter(|_| host.parse::<IpAddr>().is_ok());
        let name = resolved.and_then(|dns| Some(dns.rsplit_once(':')?.0));
        let handle = self.handle(address, name, Found::Recorded);
        let told = |error: &DialError| tracing::error!(address, %error, "cannot speak to a worker on record");
        handle.inspect_err(told).ok()
    }

    /// The listed workers; an error here is one of certificates or token, and holds for all.
    pub(super) fn listed(&self) -> Result<Vec<WorkerHandle>, DialError> {
        self.nodes.iter().map(|node| self.handle(node, None, Found::Listed)).collect()
    }
}

/// Finds workers and lets go of those that are gone, until the control is done.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut watch = Watch {
        shared: Arc::clone(&shared),
        resolved: HashSet::new(),
        resolves: true,
        named: HashSet::new(),
    };
    let mut resolution = Instant::now();
    loop {
        if Instant::now() >= resolution {
            watch.resolve().await;
            resolution = Instant::now() + RESOLUTION;
        }
        let others = shared.fleet.members().iter().any(|member| member.found != Found::InProcess);
        if others {
            watch.let_go();
            watch.warn_of_namesakes();
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Watch {
    shared: Arc<Shared>,
    /// What the name last resolved to.
    resolved: HashSet<String>,
    /// Whether it did; a name that stops resolving is told once.
    resolves: bool,
    /// Names that were warned of.
    named: HashSet<WorkerId>,
}

impl Watch {
    async fn resolve(&mut self) {
        let discovery = &self.shared.discovery;
        let Some((name, host)) =
            discovery.dns.as_deref().and_then(|name| Some((name, name.rsplit_once(':')?.0)))
        else {
            return;
        };
        let answer = tokio::time::timeout(RESOLUTION, tokio::net::lookup_host(name)).await;
        let addresses: Vec<_> = match answer.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                if std::mem::replace(&mut self.resolves, false) {
                    tracing::warn!(name, %error, "workers.dns does not resolve; trying again");
                }
                return;
            }
        };
        if !std::mem::replace(&mut self.resolves, true) {
            tracing::info!(name, "workers.dns resolves again");
        }
        self.resolved = addresses.iter().map(ToString::to_string).collect();
        for address in addresses {
            let text = address.to_string();
            if self.shared.fleet.at(&text).is_some() {
                continue;
            }
            if !discovery.may_send(&address.ip().to_string()) {
                tracing::error!(
                    address = text,
                    "not used: it is on another machine and workers.tls is not set"
                );
            } else if self.shared.fleet.members().len() >= MOST {
                tracing::error!(address = text, "not used: the control knows as many workers as it may");
            } else {
                match discovery.handle(&text, Some(host), Found::Resolved) {
                    Ok(handle) => self.shared.join(handle),
                    Err(error) => tracing::error!(address = text, %error, "cannot speak to a worker"),
                }
            }
        }
    }

    /// Workers that nobody names any more and that answer no more.
    fn let_go(&self) {
        for member in self.shared.fleet.members().iter().filter(|member| self.is_gone(member)) {
            self.shared.leave(member);
        }
    }

    fn is_gone(&self, member: &Member) -> bool {
        let named = match member.found {
            Found::InProcess | Found::Listed | Found::Started => true,
            Found::Resolved | Found::Recorded => self.resolved.contains(&member.address),
            Found::Registered => false,
        };
        if named {
            return false;
        }
        let seen = member.seen();
        let registered = seen.registered.is_some_and(|at| at.elapsed() < SILENCE);
        let silent = seen.contact != Contact::Answers && self.shared.clock.now().since(seen.at) >= SILENCE;
        !registered && silent
    }

    /// Identity is name and incarnation, so that both work; but people cannot tell them apart.
    fn warn_of_namesakes(&mut self) {
        let mut seen: HashMap<WorkerId, Arc<Member>> = HashMap::new();
        for member in self.shared.fleet.members().iter() {
            let Some(worker) = member.name() else { continue };
            let Some(other) = seen.insert(worker.clone(), Arc::clone(member)) else { continue };
            if self.named.insert(worker.clone()) {
                let (address, other) = (&member.address, &other.address);
                tracing::warn!(%worker, address, other, "two workers have one name; both are used");
            }
        }
    }
}

#[async_trait]
impl FleetApi for Control {
    async fn register(&self, registration: Registration) -> Result<Registered, FleetRefusal> {
        let shared = &self.0;
        let Registration { worker, address, protocol, version, .. } = registration;
        let bad = || FleetRefusal::Address { address: address.clone() };
        let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
        port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(bad)?;
        if !shared.discovery.may_send(host.trim_matches(['[', ']'])) {
            tracing::warn!(%worker, address, "a worker on another machine may not register without workers.tls");
            return Err(FleetRefusal::NotEncrypted { address });
        }
        if shared.fleet.at(&address).is_none() {
            if shared.fleet.members().len() >= MOST {
                return Err(FleetRefusal::Full);
            }
            let handle = shared.discovery.handle(&address, None, Found::Registered).map_err(|error| {
                tracing::warn!(%worker, address, %error, "cannot speak to a worker that registered");
                bad()
            })?;
            shared.join(handle);
        }
        if let Some(member) = shared.fleet.at(&address) {
            member.registered(Instant::now());
            if member.seen().contact != Contact::Answers {
                member.poke.notify_one();
            }
        }
        // It is in the fleet all the same, so that people see why it gets no work.
        if protocol != PROTOCOL {
            tracing::error!(%worker, address, version, protocol, "a worker of another protocol registered");
            return Err(FleetRefusal::Incompatible { theirs: protocol });
        }
        Ok(Registered { again: REGISTRATION })
    }
}

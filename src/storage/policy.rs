//! Which addresses this server fetches from: public ones, plus what the operator allowed.
//!
//! Pure: names are resolved elsewhere ([`super::http`]), and every resolved address is asked about here before it is
//! connected to. The ranges are IANA's special-purpose registries (RFC 6890 and its updates) plus the metadata
//! services that live on public-looking addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use url::{Host, Url};

use crate::domain::{Code, Failure};

/// Ports a stranger's URL may name without a rule of the operator.
const WEB_PORTS: [u16; 2] = [80, 443];
/// The same for FTP's control connection.
const FTP_PORTS: [u16; 1] = [21];

/// IPv4 that is not the public internet.
#[expect(clippy::ip_constant, reason = "a table of networks reads best in one spelling")]
const SPECIAL_V4: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // shared by carriers; Alibaba's metadata service
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's host agent
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local; most metadata services
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments; Oracle's metadata service
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 3),      // multicast, reserved, broadcast
];

/// Parts of `2000::/3` that are not the public internet. All outside `2000::/3` is refused as a whole, which covers
/// `::`, `::1`, v4-mapped, v4-compatible, `64:ff9b::/96`, `fc00::/7` (with Fly's `fdaa::/16`),
/// `fe80::/10` and `ff00::/8`.
const SPECIAL_V6: &[(Ipv6Addr, u8)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4: carries any IPv4 address
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// The public IPv6 internet.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Whether an address belongs to the public internet.
#[must_use]
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !SPECIAL_V4.iter().any(|&(base, bits)| v4_within(v4, base, bits)),
        IpAddr::V6(v6) => {
            v6_within(v6, GLOBAL_V6.0, GLOBAL_V6.1)
                && !SPECIAL_V6.iter().any(|&(base, bits)| v6_within(v6, base, bits))
        }
    }
}

/// Text that is no rule of `sources.allow`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an address, a network (10.0.0.0/8), a host, '*.domain' or one of them with ':port'")]
pub struct InvalidRule(String);

/// One entry of `sources.allow`: what a private deployment may fetch besides the public internet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AllowRule {
    target: Target,
    /// Only this port; absent = any port.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Target {
    Network {
        base: IpAddr,
        bits: u8,
    },
    Name(String),
    /// Any name below this one, not the name itself.
    Below(String),
}

impl FromStr for AllowRule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let invalid = || InvalidRule(text.to_owned());
        let trimmed = text.trim();
        if let Some(network) = parse_network(trimmed) {
            return Ok(Self { target: network, port: None });
        }
        let (host, port) = match trimmed.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse::<u16>().map_err(|_| invalid())?)),
            None => (trimmed, None),
        };
        if port == Some(0) {
            return Err(invalid());
        }
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Some(network) = parse_network(bare) {
            return Ok(Self { target: network, port });
        }
        let (name, below) = match host.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (host, false),
        };
        let Ok(Host::Domain(name)) = Host::parse(name) else {
            return Err(invalid());
        };
        let name = canonical_name(&name);
        if name.is_empty() || name.contains('*') {
            return Err(invalid());
        }
        Ok(Self { target: if below { Target::Below(name) } else { Target::Name(name) }, port })
    }
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.target, self.port) {
            (Target::Network { base: base @ IpAddr::V6(_), bits }, Some(_)) => write!(f, "[{base}/{bits}]")?,
            (Target::Network { base, bits }, _) => write!(f, "{base}/{bits}")?,
            (Target::Name(name), _) => f.write_str(name)?,
            (Target::Below(name), _) => write!(f, "*.{name}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl AllowRule {
    fn takes_port(&self, port: u16) -> bool {
        self.port.is_none_or(|only| only == port)
    }

    fn takes_name(&self, name: &str) -> bool {
        match &self.target {
            Target::Network { .. } => false,
            Target::Name(own) => own == name,
            Target::Below(own) => {
                name.strip_suffix(own.as_str()).is_some_and(|head| head.len() > 1 && head.ends_with('.'))
            }
        }
    }

    fn takes_ip(&self, ip: IpAddr) -> bool {
        match (&self.target, ip.to_canonical()) {
            (&Target::Network { base: IpAddr::V4(base), bits }, IpAddr::V4(ip)) => v4_within(ip, base, bits),
            (&Target::Network { base: IpAddr::V6(base), bits }, IpAddr::V6(ip)) => v6_within(ip, base, bits),
            (Target::Network { .. } | Target::Name(_) | Target::Below(_), _) => false,
        }
    }
}

/// What may be fetched: public addresses on ports 80 and 443, plus the operator's rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressPolicy {
    allow: Vec<AllowRule>,
}

impl AddressPolicy {
    /// A policy with the operator's exceptions.
    #[must_use]
    pub const fn new(allow: Vec<AllowRule>) -> Self {
        Self { allow }
    }

    /// A policy that permits everything: for addresses that the operator wrote down.
    #[must_use]
    pub(super) fn any() -> Self {
        Self::new(["0.0.0.0/0", "::/0"].into_iter().filter_map(|network| network.parse().ok()).collect())
    }

    /// Whether a host (name or literal, as in the URL) may be connected to at this address and port.
    #[must_use]
    pub fn permits(&self, host: &str, ip: IpAddr, port: u16) -> bool {
        self.permits_among(&WEB_PORTS, host, ip, port)
    }

    /// The same for the control connection of FTP.
    #[must_use]
    pub(super) fn permits_ftp(&self, host: &str, ip: IpAddr, port: u16) -> bool {
        self.permits_among(&FTP_PORTS, host, ip, port)
    }

    fn permits_among(&self, open: &[u16], host: &str, ip: IpAddr, port: u16) -> bool {
        let name = canonical_name(host);
        (is_public(ip) && open.contains(&port))
            || self.allow.iter().any(|r| r.takes_port(port) && (r.takes_ip(ip) || r.takes_name(&name)))
    }

    /// Checks what can be checked without resolving a name: scheme, literal addresses, local names, hopeless ports.
    ///
    /// # Errors
    /// `source_blocked`, with the same sentence for addresses, ports and names, so that it does not map the network.
    pub fn check_url(&self, url: &Url) -> Result<(), Failure> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Failure::new(Code::SourceBlocked, "Only http and https URLs are fetched."));
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(Failure::new(Code::SourceBlocked, "The URL has no host."));
        };
        let fits = match host {
            Host::Ipv4(ip) => self.permits("", ip.into(), port),
            Host::Ipv6(ip) => self.permits("", ip.into(), port),
            Host::Domain(name) => self.may_resolve(&WEB_PORTS, name, port),
        };
        if fits { Ok(()) } else { Err(blocked(url.host_str().unwrap_or_default(), port)) }
    }

    /// Whether an FTP server can be permitted, as far as that is known without resolving its name. `host` is an
    /// address without brackets, or a name.
    #[must_use]
    pub(super) fn may_permit_ftp(&self, host: &str, port: u16) -> bool {
        match host.parse::<IpAddr>() {
            Ok(ip) => self.permits_ftp("", ip, port),
            Err(_) => self.may_resolve(&FTP_PORTS, host, port),
        }
    }

    /// Whether some address of this name could be permitted. The addresses themselves are asked about later.
    fn may_resolve(&self, open: &[u16], host: &str, port: u16) -> bool {
        let name = canonical_name(host);
        let local = name == "localhost" || name.ends_with(".localhost") || name.is_empty();
        let ruled = self.allow.iter().any(|rule| {
            rule.takes_port(port) && (rule.takes_name(&name) || matches!(rule.target, Target::Network { .. }))
        });
        ruled || (!local && open.contains(&port))
    }
}

/// The refusal, the same whatever is behind the address.
pub(super) fn blocked(host: &str, port: u16) -> Failure {
    let sentence = "This server does not fetch from that address or port; its operator can permit it in 'sources.allow'.";
    Failure::new(Code::SourceBlocked, sentence).with_detail(format!("blocked {host} port {port}"))
}

/// What the policy refused, said of what is sent.
pub(super) fn of_destination(blocked: Failure) -> Failure {
    let sentence =
        "this server does not send to that address or port; its operator can permit it in 'sources.allow'";
    Failure::new(Code::DestinationForbidden, sentence).with_detail(blocked.detail)
}

/// Lower case, without the root's dot; internationalised names are already ASCII in a parsed URL.
fn canonical_name(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn parse_network(text: &str) -> Option<Target> {
    let (ip, bits) = match text.split_once('/') {
        Some((ip, bits)) => (ip, Some(bits)),
        None => (text, None),
    };
    let base = ip.parse::<IpAddr>().ok()?;
    let widest = if base.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        Some(bits) => bits.parse::<u8>().ok().filter(|bits| *bits <= widest)?,
        None => widest,
    };
    Some(Target::Network { base, bits })
}

fn v4_within(ip: Ipv4Addr, base: Ipv4Addr, bits: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
    (ip.to_bits() ^ base.to_bits()) & mask == 0
}

fn v6_within(ip: Ipv6Addr, base: Ipv6Addr, bits: u8) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    (ip.to_bits() ^ base.to_bits()) & mask == 0
}

#[cfg(test)]
mod tests;

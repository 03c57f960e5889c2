//! Who asks, and what they may do.
//!
//! With keys configured, a bearer key names a tenant and scopes. Without, the server listens on loopback only, and the
//! danger is a web page in the operator's browser: so `Host` and `Origin` must be local (PROTOCOL §1.28).

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri, header};
use subtle::ConstantTimeEq;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::params::Params;
use super::problem::{Kind, Problem};
use super::quota::Rate;
use super::routes::{Access, Pace};
use super::{Api, Limits};
use crate::domain::Tenant;

/// How requests are told apart.
#[derive(Debug, Clone)]
pub enum Auth {
    /// By bearer keys; requests without one are refused.
    Keys(Vec<ApiKey>),
    /// Not at all: a server that listens on loopback only.
    Loopback {
        /// Host names besides loopback's own that `Host` and `Origin` may carry.
        hosts: Vec<String>,
    },
}

/// A configured key. The key itself is never stored.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// For logs.
    pub name: String,
    /// Whose jobs it reaches.
    pub tenant: Tenant,
    /// SHA-256 of the key: keys are random, so a fast hash is right.
    pub sha256: [u8; 32],
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Submissions a minute; `None` = no bound.
    pub submissions_per_minute: Option<NonZeroU32>,
}

/// A right that a key carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Read jobs, results, presets and the state of workers.
    JobsRead,
    /// Submit, cancel, retry and delete jobs; upload.
    JobsWrite,
    /// Submit jobs that go before others of their tenant.
    JobsPriority,
    /// All of the above; speak for another tenant with `?tenant=NAME`, or for all with `?tenant=*`; see workers'
    /// details.
    Admin,
}

impl Scope {
    /// The name in the configuration and in error messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JobsRead => "jobs:read",
            Self::JobsWrite => "jobs:write",
            Self::JobsPriority => "jobs:priority",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::JobsRead, Self::JobsWrite, Self::JobsPriority, Self::Admin]
            .into_iter()
            .find(|scope| scope.as_str() == name)
    }
}

/// A caller that was let in.
#[derive(Clone)]
pub(super) struct Principal {
    /// Owner of what it submits.
    pub(super) tenant: Tenant,
    /// Whether it may see what concerns every tenant.
    pub(super) admin: bool,
    reach: Option<Tenant>,
    share: Arc<Share>,
}

impl Principal {
    /// Whose jobs exist for this request; `None` = everybody's.
    pub(super) fn reach(&self) -> Option<&Tenant> {
        self.reach.as_ref()
    }

    /// Refuses what the key was not given.
    pub(super) fn needs(&self, scope: Scope) -> Result<(), Problem> {
        if self.admin || self.share.scopes.contains(&scope) { Ok(()) } else { Err(insufficient(scope)) }
    }

    /// The right to submit one job now.
    pub(super) fn admit_submission(&self, api: &Api) -> Result<(), Problem> {
        self.share.rate.as_ref().map_or(Ok(()), |rate| rate.admit(api.clock.now()))
    }

    /// The right to hold one event stream.
    pub(super) fn admit_stream(&self, api: &Api) -> Result<StreamPermit, Problem> {
        let full = |what| {
            Problem::new(Kind::TooManyStreams, format!("the limit of open event streams {what} is reached"))
                .retry_after(Duration::from_secs(10))
        };
        let own = Arc::clone(&self.share.streams).try_acquire_owned().map_err(|_| full("for this key"))?;
        let all = Arc::clone(&api.0.streams).try_acquire_owned().map_err(|_| full("of this server"))?;
        Ok(StreamPermit { _own: own, _all: all })
    }
}

/// Held as long as an event stream is open.
pub(super) struct StreamPermit {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    /// Set by [`guard`]; its absence would be a route outside the table.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::internal)
    }
}

/// The door: keys and local names, with each key's share.
pub(super) enum Gate {
    Keys(Vec<(ApiKey, Arc<Share>)>),
    Loopback { hosts: Vec<String>, share: Arc<Share> },
}

/// What one key may take.
pub(super) struct Share {
    scopes: Vec<Scope>,
    streams: Arc<Semaphore>,
    rate: Option<Rate>,
}

impl Share {
    fn new(scopes: Vec<Scope>, streams: usize, per_minute: Option<NonZeroU32>) -> Arc<Self> {
        Arc::new(Self { scopes, streams: Arc::new(Semaphore::new(streams)), rate: per_minute.map(Rate::new) })
    }
}

impl Gate {
    pub(super) fn new(auth: &Auth, limits: &Limits) -> Self {
        let streams = limits.streams_per_key;
        let share = |key: &ApiKey| Share::new(key.scopes.clone(), streams, key.submissions_per_minute);
        match auth {
            Auth::Keys(keys) => Self::Keys(keys.iter().map(|key| (key.clone(), share(key))).collect()),
            Auth::Loopback { hosts } => Self::Loopback {
                hosts: hosts.iter().map(|h| h.to_ascii_lowercase()).collect(),
                share: Share::new(Vec::new(), streams, limits.submissions_per_minute),
            },
        }
    }

    fn admit(&self, parts: &Parts, scope: Option<Scope>) -> Result<Principal, Problem> {
        match self {
            Self::Keys(keys) => {
                let Some(scope) = scope else {
                    return Ok(anonymous());
                };
                let key = bearer(&parts.headers)?;
                let (key, share) =
                    find(keys, key).ok_or_else(|| unauthenticated("the API key is not known", true))?;
                let admin = key.scopes.contains(&Scope::Admin);
                if !admin && !key.scopes.contains(&scope) {
                    return Err(insufficient(scope));
                }
                principal(&key.tenant, admin, share, &parts.uri)
            }
            Self::Loopback { hosts, share } => {
                local_only(&parts.headers, &parts.uri, hosts)?;
                principal(&Tenant::local(), true, share, &parts.uri)
            }
        }
    }
}

/// Lets a request in or answers why not. One per row of the route table.
pub(super) async fn guard(
    State((api, access, pace)): State<(Api, Access, Pace)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let admitted = match access {
        Access::Public => Ok(anonymous()),
        Access::Signed => api.0.gate.admit(&parts, None),
        Access::Needs(scope) => api.0.gate.admit(&parts, Some(scope)),
    };
    match admitted {
        Ok(principal) => parts.extensions.insert(principal),
        Err(problem) => return problem.into_response(),
    };
    let answer = next.run(Request::from_parts(parts, body));
    match pace {
        Pace::Stream => answer.await,
        Pace::Once => tokio::time::timeout(api.limits.request_timeout, answer).await.unwrap_or_else(|_| {
            Problem::new(Kind::Unavailable, "the request took too long")
                .retry_after(Duration::from_secs(5))
                .into_response()
        }),
    }
}

fn principal(tenant: &Tenant, admin: bool, share: &Arc<Share>, uri: &Uri) -> Result<Principal, Problem> {
    let asked = Params::of(uri).one("tenant")?;
    let reach = match asked.as_deref() {
        None => Some(tenant.clone()),
        Some(name) if name == tenant.as_str() => Some(tenant.clone()),
        Some(_) if !admin => return Err(insufficient(Scope::Admin)),
        Some("*") => None,
        Some(name) => {
            let parsed = name
                .parse()
                .map_err(|_| Problem::new(Kind::InvalidRequest, "tenant is not a tenant name"))?;
            Some(parsed)
        }
    };
    Ok(Principal { tenant: tenant.clone(), admin, reach, share: Arc::clone(share) })
}

/// For routes that know nobody: it owns nothing and may open no stream.
fn anonymous() -> Principal {
    Principal { tenant: Tenant::local(), admin: false, reach: None, share: Share::new(Vec::new(), 0, None) }
}

/// The key of an `Authorization: Bearer …` header.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let missing = || unauthenticated("send the key as 'Authorization: Bearer KEY'", false);
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        return Err(unauthenticated("more than one Authorization header", true));
    }
    let text = value.to_str().map_err(|_| missing())?;
    let (scheme, key) = text.split_once(' ').ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") && !key.trim().is_empty() {
        Ok(key.trim())
    } else {
        Err(missing())
    }
}

/// Compares with every key in constant time, so that neither position nor prefix shows.
fn find<'k>(keys: &'k [(ApiKey, Arc<Share>)], key: &str) -> Option<(&'k ApiKey, &'k Arc<Share>)> {
    let hash = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    let mut found = None;
    for (candidate, share) in keys {
        if bool::from(candidate.sha256[..].ct_eq(hash.as_ref())) {
            found = Some((candidate, share));
        }
    }
    found
}

/// Refuses what a foreign web page could send through a browser on this machine (DNS rebinding, cross-site requests).
fn local_only(headers: &HeaderMap, uri: &Uri, hosts: &[String]) -> Result<(), Problem> {
    let refuse = |what: &str| {
        Problem::new(Kind::OriginRefused, format!("this server has no keys and serves {what} only"))
    };
    let host = uri.host().or_else(|| headers.get(header::HOST).and_then(|v| v.to_str().ok()).map(host_of));
    if !host.is_some_and(|host| is_local(host, hosts)) {
        return Err(refuse("requests addressed to localhost"));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let local = origin
            .to_str()
            .ok()
            .and_then(|text| text.split_once("://"))
            .is_some_and(|(_, rest)| is_local(host_of(rest), hosts));
        if !local {
            return Err(refuse("pages of localhost"));
        }
    }
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return Err(refuse("pages of localhost"));
    }
    Ok(())
}

/// The name in `name`, `name:port`, `[v6]` or `[v6]:port`.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => authority.split_once(':').map_or(authority, |(name, _)| name),
    }
}

fn is_local(host: &str, hosts: &[String]) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) || hosts.contains(&host)
}

fn unauthenticated(detail: &str, sent: bool) -> Problem {
    let challenge =
        if sent { r#"Bearer realm="flux", error="invalid_token""# } else { r#"Bearer realm="flux""# };
    Problem::new(Kind::Unauthenticated, detail)
        .with(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

fn insufficient(scope: Scope) -> Problem {
    Problem::new(Kind::Forbidden, format!("the key needs the scope {}", scope.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn bearer_headers() {
        assert_eq!(bearer(&headers(&[("authorization", "Bearer abc")])).unwrap(), "abc");
        assert_eq!(bearer(&headers(&[("authorization", "bearer abc")])).unwrap(), "abc");
        for bad in [
            &[][..],
            &[("authorization", "Basic abc")],
            &[("authorization", "Bearer ")],
            &[("authorization", "abc")],
        ] {
            assert!(bearer(&headers(bad)).is_err());
        }
        assert!(bearer(&headers(&[("authorization", "Bearer a"), ("authorization", "Bearer a")])).is_err());
    }

    #[test]
    fn only_local_hosts_and_origins_reach_a_keyless_server() {
        let uri = Uri::from_static("/jobs");
        let hosts = vec!["encoder.lan".to_owned()];
        let ok = |pairs: &[(&'static str, &str)]| local_only(&headers(pairs), &uri, &hosts).is_ok();
        assert!(ok(&[("host", "localhost:8080")]));
        assert!(ok(&[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")]));
        assert!(ok(&[("host", "[::1]:8080")]));
        assert!(ok(&[("host", "Encoder.LAN")]));
        assert!(!ok(&[]));
        assert!(!ok(&[("host", "evil.example")]));
        assert!(!ok(&[("host", "127.0.0.1.evil.example")]));
        assert!(!ok(&[("host", "localhost"), ("origin", "https://evil.example")]));
        assert!(!ok(&[("host", "localhost"), ("origin", "null")]));
        assert!(!ok(&[("host", "localhost"), ("sec-fetch-site", "cross-site")]));
    }

    #[test]
    fn keys_are_found_by_hash_alone() {
        let sha256: [u8; 32] =
            ring::digest::digest(&ring::digest::SHA256, b"k1").as_ref().try_into().unwrap();
        let key = ApiKey {
            name: "ci".into(),
            tenant: Tenant::local(),
            sha256,
            scopes: vec![],
            submissions_per_minute: None,
        };
        let keys = vec![(key, Share::new(Vec::new(), 1, None))];
        assert!(find(&keys, "k1").is_some());
        assert!(find(&keys, "k2").is_none());
    }
}

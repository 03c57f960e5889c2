//! Texts that name a place: where results go, what may be fetched, what to listen on.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;

use crate::domain::{Bucket, ObjectPath};

/// `host:port`, where the host is an address or `localhost`. Names are not resolved: what a server listens on must
/// not depend on a name server.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.rsplit_once(':') {
        Some(("localhost", port)) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
        _ => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        "expected an address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned()
    })
}

/// `host:port` of a worker to call: a name or an address, never `0.0.0.0`, never port 0.
pub(super) fn node(text: &str) -> Result<String, String> {
    let expected = || "expected HOST:PORT, such as \"worker-1:50051\" or \"[fd00::1]:50051\"".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(expected)?;
    let address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => Some(IpAddr::V6(v6.parse().map_err(|_| expected())?)),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    match address {
        Some(address) if address.is_unspecified() => Err(expected()),
        Some(_) => Ok(text.to_owned()),
        None if matches!(host.parse(), Ok(AllowRule::Host(_))) => Ok(text.to_ascii_lowercase()),
        None => Err(expected()),
    }
}

/// Whether `host:port` or a URL's host is certain to be this machine.
pub(super) fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let plain = host.trim_matches(['[', ']']);
    plain == "localhost" || plain.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The forms of `storage.url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StorageUrl {
    Folder(PathBuf),
    Bucket { bucket: String, prefix: Option<ObjectPath> },
    Container { container: Bucket, prefix: Option<ObjectPath> },
}

/// `s3://BUCKET`, `gs://BUCKET` or `az://ACCOUNT/CONTAINER`, with or without a prefix.
pub(super) fn container(text: &str) -> Option<(Bucket, Option<ObjectPath>)> {
    // A bucket alone is no object: it gets a key to be read with.
    let whole = format!("{}/x", text.trim_end_matches('/'));
    let (bucket, key) = Bucket::parse_url(&whole)?;
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    let fits = match &bucket {
        Bucket::S3 { name, .. } | Bucket::Gcs { name, .. } => plain(name),
        Bucket::Azure { account, container, .. } => plain(account) && plain(container),
    };
    let prefix = match key.strip_suffix("/x") {
        Some(prefix) => Some(ObjectPath::parse(prefix).ok()?),
        None => None,
    };
    fits.then_some((bucket, prefix))
}

pub(super) fn storage_url(text: &str, cwd: &Path) -> Result<StorageUrl, String> {
    let expected = || {
        "expected \"file:PATH\", \"s3://BUCKET/PREFIX\", \"gs://BUCKET/PREFIX\" or \"az://ACCOUNT/CONTAINER/PREFIX\""
            .to_owned()
    };
    let (scheme, rest) = text.split_once(':').ok_or_else(expected)?;
    match scheme {
        "file" => {
            let path = match rest.strip_prefix("//") {
                Some(path) if path.starts_with('/') => path,
                Some(_) => return Err("a file URL has no host: write file:PATH or file:///PATH".to_owned()),
                None => rest,
            };
            if path.is_empty() {
                Err("names no folder".to_owned())
            } else {
                Ok(StorageUrl::Folder(cwd.join(path)))
            }
        }
        "s3" => {
            let rest = rest.strip_prefix("//").unwrap_or_default();
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if !is_bucket(bucket) {
                return Err("names no bucket: 3 to 63 lower-case letters, digits, '.', '-' or '_'".to_owned());
            }
            let prefix = match prefix.trim_end_matches('/') {
                "" => None,
                prefix => Some(ObjectPath::parse(prefix).map_err(|error| error.to_string())?),
            };
            Ok(StorageUrl::Bucket { bucket: bucket.to_owned(), prefix })
        }
        "gs" | "az" => {
            let (container, prefix) = container(text).ok_or_else(expected)?;
            Ok(StorageUrl::Container { container, prefix })
        }
        _ => Err(expected()),
    }
}

/// S3's rules, with `_` and upper case refused only where no server has them: MinIO and old buckets allow `_`.
fn is_bucket(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b))
}

/// `http(s)://host[:port]` without path, query or userinfo.
pub(super) fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none();
    if plain { Ok(url) } else { Err("expected http://HOST[:PORT] or https://HOST[:PORT]".to_owned()) }
}

/// One entry of `sources.allow`: private addresses or hosts that may be fetched all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowRule {
    /// A network; a single address has the full prefix length.
    Network {
        /// Any address of it.
        address: IpAddr,
        /// Bits that count: at most 32 or 128.
        prefix: u8,
    },
    /// A host by its name as in the URL, lower case.
    Host(String),
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { address, prefix } => write!(f, "{address}/{prefix}"),
            Self::Host(name) => f.write_str(name),
        }
    }
}

impl FromStr for AllowRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a network (\"10.0.0.0/8\"), an address or a host name".to_owned();
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        if let Ok(address) = address.parse::<IpAddr>() {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.map_or(Ok(most), str::parse).map_err(|_| expected())?;
            return if prefix <= most { Ok(Self::Network { address, prefix }) } else { Err(expected()) };
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        let is_host = prefix.is_none() && text.len() <= 253 && text.split('.').all(label);
        // A name of digits and dots only is a mistyped address.
        let has_letter = text.bytes().any(|b| b.is_ascii_alphabetic());
        if is_host && has_letter { Ok(Self::Host(text.to_ascii_lowercase())) } else { Err(expected()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_takes_addresses_and_localhost_only() {
        assert_eq!(listen("localhost:80"), Ok("127.0.0.1:80".parse().unwrap()));
        assert_eq!(listen("[::1]:0"), Ok("[::1]:0".parse().unwrap()));
        for bad in ["", "8080", ":8080", "example.com:80", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn storage_urls() {
        let cwd = Path::new("/w");
        let folder = |path: &str| Ok(StorageUrl::Folder(path.into()));
        assert_eq!(storage_url("file:out", cwd), folder("/w/out"));
        assert_eq!(storage_url("file:/out", cwd), folder("/out"));
        assert_eq!(storage_url("file:///out/a b%20", cwd), folder("/out/a b%20"));
        let bucket = |prefix: Option<&str>| {
            let prefix = prefix.map(|prefix| ObjectPath::parse(prefix).unwrap());
            Ok(StorageUrl::Bucket { bucket: "media".to_owned(), prefix })
        };
        assert_eq!(storage_url("s3://media", cwd), bucket(None));
        assert_eq!(storage_url("s3://media/", cwd), bucket(None));
        assert_eq!(storage_url("s3://media/a/b/", cwd), bucket(Some("a/b")));
        for bad in [
            "",
            "out",
            "file:",
            "file://host/x",
            "s3:media",
            "s3://",
            "s3://B/x",
            "s3://media/../x",
            "ftp://x",
        ] {
            assert!(storage_url(bad, cwd).is_err(), "{bad}");
        }
        for (url, name, prefix) in [
            ("gs://media", "gs://media", None),
            ("gs://media/a/b/", "gs://media", Some("a/b")),
            ("az://acc/box/a", "az://acc/box", Some("a")),
        ] {
            let Ok(StorageUrl::Container { container, prefix: found }) = storage_url(url, cwd) else {
                panic!("{url}");
            };
            assert_eq!(container.url(), name);
            assert_eq!(found.as_ref().map(ObjectPath::as_str), prefix);
        }
        for bad in ["gs://", "az://acc", "gs://b/../x", "az://a b/c"] {
            assert!(storage_url(bad, cwd).is_err(), "{bad}");
        }
    }

    #[test]
    fn endpoints_are_plain() {
        assert!(endpoint("http://127.0.0.1:9000").is_ok());
        for bad in ["127.0.0.1:9000", "ftp://h", "http://u:p@h", "http://h?x=1"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_are_names_or_addresses_with_a_port() {
        for good in ["worker-1:50051", "10.0.0.7:1", "[fd00::1]:50051", "w.internal:65535"] {
            assert_eq!(node(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "w",
            "w:",
            "w:0",
            "w:65536",
            ":1",
            "0.0.0.0:1",
            "[::]:1",
            "fd00::1:1",
            "[x]:1",
            "a b:1",
            "http://w:1",
        ] {
            assert!(node(bad).is_err(), "{bad}");
        }
        for (address, expected) in [
            ("localhost:1", true),
            ("127.0.0.9:1", true),
            ("[::1]:1", true),
            ("10.0.0.1:1", false),
            ("w:1", false),
        ] {
            assert_eq!(is_loopback(address), expected, "{address}");
        }
    }

    #[test]
    fn allow_rules() {
        let net =
            |address: &str, prefix| Ok(AllowRule::Network { address: address.parse().unwrap(), prefix });
        assert_eq!("127.0.0.0/8".parse(), net("127.0.0.0", 8));
        assert_eq!("10.1.2.3".parse(), net("10.1.2.3", 32));
        assert_eq!("fd00::/8".parse(), net("fd00::", 8));
        assert_eq!("NAS.local".parse(), Ok(AllowRule::Host("nas.local".to_owned())));
        for bad in ["", "10.0.0.0/33", "10.0.0", "a/8", "a..b", "http://h", "h:80", "*"] {
            assert!(bad.parse::<AllowRule>().is_err(), "{bad}");
        }
    }
}

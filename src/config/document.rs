//! The keys as an operator writes them, with their defaults. `config/flux.toml` documents each of them.
//!
//! Only shapes are checked here; what a value means is decided in [`super::typed`]. Serialising a document gives
//! the effective configuration, with secrets hidden, so `config show` cannot leak what it cannot read.

mod storage;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) use self::storage::{ProfileKeys, Storage};
use crate::domain::limits::SourceLimits;
use crate::domain::webhook::WebhookEvent;

/// The whole file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Document {
    pub(super) server: Server,
    pub(super) auth: Auth,
    pub(super) store: Store,
    pub(super) storage: Storage,
    pub(super) secrets: Secrets,
    pub(super) sources: Sources,
    pub(super) destinations: Destinations,
    pub(super) queue: Queue,
    pub(super) workers: Workers,
    pub(super) worker: Worker,
    pub(super) sandbox: Sandbox,
    pub(super) verify: Verify,
    pub(super) presets: Presets,
    pub(super) webhooks: Webhooks,
    pub(super) retention: Retention,
    pub(super) log: Log,
}

/// Keys whose value in the environment is a comma-separated list.
pub(super) const LISTS: &[&str] = &[
    "auth.keys",
    "secrets.keys",
    "sources.file_roots",
    "sources.allow",
    "destinations.file_roots",
    "sources.buckets",
    "destinations.buckets",
    "workers.nodes",
    "workers.wake_command",
    "worker.control",
    "sandbox.readable",
    "webhooks.secrets",
    "webhooks.events",
    "webhooks.allow",
];

/// Keys that the design names and this build cannot serve yet, with what they belong to.
pub(super) const LATER: &[(&str, &str)] = &[("scratch", "split jobs"), ("split", "split jobs")];

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    pub(super) listen: String,
    pub(super) data_dir: String,
    pub(super) drain_timeout: Span,
    pub(super) header_timeout: Span,
    pub(super) max_streams: u32,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            data_dir: "./flux-data".to_owned(),
            drain_timeout: Span(Duration::from_secs(30)),
            header_timeout: Span(Duration::from_secs(15)),
            max_streams: 8000,
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Auth {
    pub(super) keys: Vec<Key>,
    pub(super) rate_per_minute: u32,
}

/// One entry of `auth.keys`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
    pub(super) sha256: Hidden,
    #[serde(default = "default_scopes")]
    pub(super) scopes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_per_minute: Option<u32>,
}

fn default_scopes() -> Vec<String> {
    vec!["jobs:read".to_owned(), "jobs:write".to_owned()]
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Store {
    pub(super) url: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_file: Option<String>,
}

impl Default for Store {
    fn default() -> Self {
        Self { url: Address("sqlite".into()), password: None, password_file: None }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Secrets {
    pub(super) keys: Vec<Hidden>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sources {
    pub(super) file_roots: Vec<String>,
    pub(super) allow: Vec<String>,
    pub(super) buckets: Vec<String>,
    pub(super) max_bytes: Size,
    pub(super) cache_bytes: Size,
    pub(super) max_duration: Span,
    pub(super) max_pixels: u64,
    pub(super) stall_timeout: Span,
    pub(super) retries: u32,
}

impl Default for Sources {
    fn default() -> Self {
        let limits = SourceLimits::default();
        Self {
            file_roots: Vec::new(),
            allow: Vec::new(),
            buckets: Vec::new(),
            max_bytes: Size(limits.max_bytes),
            cache_bytes: Size(16 << 30),
            max_duration: Span(limits.max_duration),
            max_pixels: limits.max_pixels,
            stall_timeout: Span(Duration::from_secs(15)),
            retries: 5,
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Destinations {
    pub(super) file_roots: Vec<String>,
    pub(super) buckets: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the names of the keys")]
pub(super) struct Queue {
    pub(super) max_pending: u64,
    pub(super) max_pending_per_tenant: u64,
    pub(super) max_attempts: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self { max_pending: 10_000, max_pending_per_tenant: 0, max_attempts: 3 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Workers {
    pub(super) nodes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dns: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls_ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls_cert_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls_key_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls_domain: Option<String>,
    pub(super) trusted_network: bool,
    pub(super) waker: String,
    pub(super) startup_timeout: Span,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wake_max: Option<u32>,
    pub(super) wake_command: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fly_app: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fly_group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fly_token: Option<Hidden>,
    pub(super) fly_api_url: String,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            dns: None,
            token: None,
            tls: None,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            tls_domain: None,
            trusted_network: false,
            waker: "none".to_owned(),
            startup_timeout: Span(Duration::from_mins(1)),
            wake_max: None,
            wake_command: Vec::new(),
            fly_app: None,
            fly_group: None,
            fly_token: None,
            fly_api_url: "http://_api.internal:4280".to_owned(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Worker {
    pub(super) listen: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advertise: Option<String>,
    pub(super) control: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls_cert_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls_key_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls_client_ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slots: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) work_dir: Option<String>,
    pub(super) ffmpeg: String,
    pub(super) ffprobe: String,
    pub(super) nice: u8,
    pub(super) stall_timeout: Span,
    pub(super) task_timeout: Span,
    pub(super) orphan_grace: Span,
    pub(super) disk_floor: Size,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idle_timeout: Option<Span>,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:50051".to_owned(),
            advertise: None,
            control: Vec::new(),
            token: None,
            tls_cert_file: None,
            tls_key_file: None,
            tls_client_ca_file: None,
            id: None,
            slots: None,
            work_dir: None,
            ffmpeg: "ffmpeg".to_owned(),
            ffprobe: "ffprobe".to_owned(),
            nice: 10,
            stall_timeout: Span(Duration::from_mins(1)),
            task_timeout: Span(Duration::from_hours(24)),
            orphan_grace: Span(Duration::from_mins(10)),
            disk_floor: Size(1 << 30),
            idle_timeout: None,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sandbox {
    pub(super) mode: String,
    pub(super) readable: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Size>,
    pub(super) file_size: Size,
    pub(super) open_files: u32,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            mode: "auto".to_owned(),
            readable: Vec::new(),
            memory: None,
            file_size: Size(256 << 30),
            open_files: 256,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Verify {
    pub(super) level: String,
}

impl Default for Verify {
    fn default() -> Self {
        Self { level: "sampled".to_owned() }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Presets {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dir: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Webhooks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Hidden>,
    pub(super) secrets: Vec<Hidden>,
    pub(super) events: Vec<String>,
    pub(super) allow: Vec<String>,
    pub(super) timeout: Span,
    pub(super) give_up_after: Span,
    pub(super) concurrency: u32,
    pub(super) concurrency_per_host: u32,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            secret: None,
            secrets: Vec::new(),
            events: WebhookEvent::ALL.iter().map(|event| event.as_str().to_owned()).collect(),
            allow: Vec::new(),
            timeout: Span(Duration::from_secs(15)),
            give_up_after: Span(Duration::from_hours(24)),
            concurrency: 32,
            concurrency_per_host: 4,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Retention {
    pub(super) hours: u32,
    pub(super) delete_results: bool,
}

impl Default for Retention {
    fn default() -> Self {
        Self { hours: 168, delete_results: false }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: String,
    pub(super) level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: "auto".to_owned(), level: "info".to_owned() }
    }
}

/// A duration with its unit in the text (`90s`, `1h 30m`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map(Self)
            .map_err(|error| D::Error::custom(format!("not a duration such as \"90s\" or \"2h\": {error}")))
    }
}

/// A number of bytes (`64GiB`, `10MB`, `1048576`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    /// Exact: the largest binary unit that divides it, else plain bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, unit) in UNITS {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        self.0.fmt(f)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        bytesize::ByteSize::from_str(&text)
            .map(|size| Self(size.as_u64()))
            .map_err(|_| D::Error::custom("not a size such as \"64GiB\" or \"500MB\""))
    }
}

/// A secret: readable on purpose only, shown as [`Hidden::SHOWN`].
#[derive(Debug, Clone)]
pub(super) struct Hidden(pub(super) SecretString);

impl Hidden {
    /// What stands for a secret wherever the configuration is shown.
    pub(super) const SHOWN: &'static str = "<redacted>";

    pub(super) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Self::SHOWN)
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SecretString::deserialize(deserializer).map(Self)
    }
}

/// The address of something that may be protected: shown without its password.
#[derive(Clone)]
pub(super) struct Address(pub(super) SecretString);

impl Address {
    pub(super) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    fn shown(&self) -> String {
        match url::Url::parse(self.expose()) {
            Ok(mut url) if url.password().is_some() => {
                // Refused only where there is no host, and then there is no password either.
                let _ = url.set_password(Some("redacted"));
                url.to_string()
            }
            Ok(_) => self.expose().to_owned(),
            // A word such as "sqlite"; anything with more in it is not understood and may be a secret.
            Err(_) if self.expose().chars().all(|c| c.is_ascii_alphanumeric()) => self.expose().to_owned(),
            Err(_) => Hidden::SHOWN.to_owned(),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SecretString::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (text, shown) in [
            ("sqlite", "sqlite"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            (
                "postgres://u:s3cr3t@h:5433/d?sslmode=require",
                "postgres://u:redacted@h:5433/d?sslmode=require",
            ),
            ("postgres//u:s3cr3t@h", "<redacted>"),
        ] {
            assert_eq!(Address(text.into()).shown(), shown);
        }
    }

    #[test]
    fn sizes_are_shown_exactly() {
        for (bytes, text) in
            [(0, "0"), (1, "1"), (1024, "1KiB"), (1536, "1536"), (64 << 30, "64GiB"), (3 << 40, "3TiB")]
        {
            assert_eq!(Size(bytes).to_string(), text);
            assert_eq!(serde_json::from_value::<Size>(text.into()).unwrap(), Size(bytes));
        }
    }

    #[test]
    fn a_duration_needs_its_unit() {
        let error = serde_json::from_value::<Span>("60".into()).unwrap_err();
        assert!(error.to_string().contains("time unit needed"), "{error}");
    }

    #[test]
    fn a_hidden_value_is_not_printed() {
        let hidden = Hidden("s3cr3t".into());
        assert!(!format!("{hidden:?}").contains("s3cr3t"));
        assert_eq!(serde_json::to_string(&hidden).unwrap(), "\"<redacted>\"");
        assert_eq!(hidden.expose(), "s3cr3t");
    }
}

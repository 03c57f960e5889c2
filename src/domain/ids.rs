//! One newtype per identifier, so that mixing them up does not compile.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Timestamp;

/// A text that is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct InvalidId(&'static str);

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident = $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that is already known to name such a thing (a row, a message, an [`IdSource`]).
            #[must_use]
            pub const fn from_uuid(id: Uuid) -> Self { Self(id) }
            /// The UUID inside, for rows and messages.
            #[must_use]
            pub const fn uuid(self) -> Uuid { self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, concat!(stringify!($name), "({})"), self.0) }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId($what))
            }
        }
    )*};
}

id! {
    /// A job, sortable by creation (UUIDv7).
    JobId = "job id";
    /// A task: the unit that is dispatched.
    TaskId = "task id";
    /// One run of a task: random, the fencing token (PROTOCOL F1).
    RunId = "run id";
    /// A control's lease on everything it holds; never reused or revived.
    SessionId = "session id";
    /// One start of a worker process; with the [`WorkerId`] it names an incarnation.
    BootId = "boot id";
    /// One publishing handle of one (output, run).
    PublicationId = "publication id";
    /// An upload a client was given a place for.
    UploadId = "upload id";
    /// A webhook delivery.
    DeliveryId = "delivery id";
}

macro_rules! name {
    ($($(#[$doc:meta])* $name:ident = $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                let fits = (1..=64).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
                if fits { Ok(Self(text)) } else { Err(InvalidId($what)) }
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self { name.0 }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> { Self::try_from(text.to_owned()) }
        }
    )*};
}

name! {
    /// A worker's configured or host-derived name: 1 to 64 of `[A-Za-z0-9._-]`.
    WorkerId = "worker id (1 to 64 letters, digits, '.', '_', '-')";
    /// The owner of jobs: what an API key belongs to. Same alphabet as [`WorkerId`].
    Tenant = "tenant (1 to 64 letters, digits, '.', '_', '-')";
}

impl Tenant {
    /// The tenant of a server without keys and of `flux encode`.
    #[must_use]
    pub fn local() -> Self {
        Self("local".to_owned())
    }
}

/// Position of an output in its job, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OutputIndex(pub u16);

/// Order of a task's runs: 0 before the first claim, then one more per claim, never reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

/// Run number of a job, from 1; `retry` starts the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunNumber(pub u32);

impl fmt::Display for OutputIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where fresh identifiers and random numbers come from; tests pass a seeded one.
pub trait IdSource: Send + Sync + 'static {
    /// A time-ordered UUID (version 7) for rows that are listed by age.
    fn sortable(&self, now: Timestamp) -> Uuid;
    /// A random UUID (version 4): fencing tokens, URL tokens; from the system's generator outside tests.
    fn random(&self) -> Uuid;
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    fn sortable(&self, now: Timestamp) -> Uuid {
        let micros = u64::try_from(now.micros()).unwrap_or(0);
        let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
        let nanos = u32::try_from(rest * 1_000).unwrap_or(0);
        Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos))
    }

    fn random(&self) -> Uuid {
        Uuid::new_v4()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sortable_ids_sort_by_time() {
        let ids = SystemIds;
        let older = ids.sortable(Timestamp::from_micros(1_000_000_000));
        let newer = ids.sortable(Timestamp::from_micros(1_000_002_000));
        assert!(older < newer);
    }

    #[test]
    fn names_refuse_what_could_break_a_path_or_a_label() {
        assert!("w-1.a_b".parse::<WorkerId>().is_ok());
        for bad in ["", "a/b", "a b", "ü", &"x".repeat(65)] {
            assert!(bad.parse::<WorkerId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_round_trip_as_text_and_json() {
        let id = JobId::from_uuid(Uuid::from_u128(7));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"00000000-0000-0000-0000-000000000007\"");
        assert!("nope".parse::<JobId>().is_err());
    }
}

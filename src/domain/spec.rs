//! What a client asked for, checked and without secrets: the document stored with a job and sent to workers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::preset::{EncodeSpec, PresetName};
use super::webhook::WebhookEvent;
use super::{Access, Bucket, HttpMethod, ObjectOptions, ObjectPath, UploadId};

/// A job as accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Where the media comes from.
    pub source: Source,
    /// What is made of it: 1 to 50.
    pub outputs: Vec<OutputSpec>,
    /// -100 to 100, higher first.
    #[serde(default)]
    pub priority: i16,
    /// Filterable marks.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The client's own data, returned as it came.
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Where state changes are told, as it may be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification_url: Option<String>,
    /// Which state changes are told there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notification_events: Vec<WebhookEvent>,
    /// How it is run.
    #[serde(default)]
    pub options: JobOptions,
}

/// How a job is run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobOptions {
    /// What damage in the source means.
    #[serde(default)]
    pub on_damage: OnDamage,
    /// How closely outputs are checked; absent = the server's `verify.level`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyLevel>,
    /// Longest wall time of one run, seconds; absent = the server's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

/// What damage in the source means (MEDIA-RULES §1.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDamage {
    /// Any lost frame fails the job.
    #[default]
    Fail,
    /// Up to 1 % of frames and no hole above 2 s are warned about.
    Warn,
}

/// How closely outputs are checked (DESIGN §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyLevel {
    /// Streams, counts and durations only.
    Probe,
    /// Also every packet, all keyframes, and a full decode of the ends and random GOPs.
    #[default]
    Sampled,
    /// Also a full decode.
    Full,
}

/// Where the media comes from. Secrets (userinfo, query strings, headers,
/// credentials) live in [`JobSecrets`](super::JobSecrets).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// `http` or `https`.
    Http {
        /// Without userinfo; the query is replaced by `…` when it was sealed.
        url: String,
    },
    /// `ftp` or `ftps`.
    Ftp {
        /// Without userinfo, which is sealed as the source's credentials.
        url: String,
    },
    /// An object in a bucket that the request names.
    Bucket {
        /// The bucket.
        bucket: Bucket,
        /// The object's key.
        path: ObjectPath,
        /// With whose credentials it is read.
        #[serde(default)]
        access: Access,
    },
    /// A file below a configured root.
    File {
        /// As the client wrote it.
        path: String,
    },
    /// Bytes in the request, stored below the data folder at submission.
    Inline {
        /// Key below the server's inline store.
        key: ObjectPath,
        /// Bytes.
        size: u64,
    },
    /// An upload to this server.
    Upload {
        /// Its id.
        id: UploadId,
    },
    /// A key in the configured storage.
    Storage {
        /// The key.
        path: ObjectPath,
    },
}

impl Source {
    /// The name used in the API and in metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Ftp { .. } => "ftp",
            Self::Bucket { bucket, .. } => bucket.kind(),
            Self::File { .. } => "file",
            Self::Inline { .. } => "inline",
            Self::Upload { .. } => "upload",
            Self::Storage { .. } => "storage",
        }
    }

    /// Whether a client gave the bytes to a control, which keeps them in its data folder.
    #[must_use]
    pub const fn is_given(&self) -> bool {
        match self {
            Self::Inline { .. } | Self::Upload { .. } => true,
            Self::Http { .. }
            | Self::Ftp { .. }
            | Self::Bucket { .. }
            | Self::File { .. }
            | Self::Storage { .. } => false,
        }
    }

    /// The file stem for `{name}`: the last path segment without its extension.
    #[must_use]
    pub fn stem(&self) -> &str {
        let path = match self {
            Self::Http { url } => url.split(['?', '#']).next().unwrap_or(url),
            Self::Ftp { url } => url,
            Self::File { path } => path,
            Self::Storage { path } | Self::Bucket { path, .. } => path.as_str(),
            Self::Inline { .. } => "inline",
            Self::Upload { .. } => "upload",
        };
        let name = path.rsplit('/').find(|s| !s.is_empty()).unwrap_or("source");
        name.rsplit_once('.').map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem })
    }
}

/// One deliverable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// The preset it came from, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<PresetName>,
    /// The resolved setting.
    pub encode: EncodeSpec,
    /// Where the result goes.
    pub destination: Destination,
    /// Said back to the client with the result (for example, that a field of a seed body was ignored).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Where a result goes. Paths are final (templates were filled in at submission).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Destination {
    /// A key in the configured storage.
    Storage {
        /// The key.
        path: ObjectPath,
        /// What happens to an object already there.
        #[serde(default)]
        overwrite: Overwrite,
        /// Object metadata (S3); ignored by file systems.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        metadata: BTreeMap<String, String>,
    },
    /// A file below a configured root.
    File {
        /// Absolute path, or relative to the first root.
        path: String,
        /// What happens to a file already there.
        #[serde(default)]
        overwrite: Overwrite,
    },
    /// An object in a bucket that the request names.
    Bucket {
        /// The bucket.
        bucket: Bucket,
        /// The object's key.
        path: ObjectPath,
        /// With whose credentials it is written.
        #[serde(default)]
        access: Access,
        /// What happens to an object already there.
        #[serde(default)]
        overwrite: Overwrite,
        /// How it is marked.
        #[serde(default)]
        object: ObjectOptions,
    },
    /// An HTTP server. Whether something is there already is for it to say: nothing is looked at.
    Http {
        /// Without userinfo; the query is replaced by `…` when it was sealed.
        url: String,
        /// How it is sent.
        #[serde(default)]
        method: HttpMethod,
    },
    /// A file of an FTP server.
    Ftp {
        /// `ftp` or `ftps`, without userinfo, which is sealed as the output's credentials.
        url: String,
        /// What happens to a file already there.
        #[serde(default)]
        overwrite: Overwrite,
    },
}

impl Destination {
    /// The name used in the API and in metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Storage { .. } => "storage",
            Self::File { .. } => "file",
            Self::Bucket { bucket, .. } => bucket.kind(),
            Self::Http { .. } => "http",
            Self::Ftp { .. } => "ftp",
        }
    }

    /// What happens to an object already there.
    #[must_use]
    pub const fn overwrite(&self) -> Overwrite {
        match self {
            Self::Storage { overwrite, .. }
            | Self::File { overwrite, .. }
            | Self::Bucket { overwrite, .. }
            | Self::Ftp { overwrite, .. } => *overwrite,
            Self::Http { .. } => Overwrite::Replace,
        }
    }

    /// Whether only its request can reach it: once the secrets are wiped, nobody here can read or remove what is there.
    #[must_use]
    pub const fn needs_request(&self) -> bool {
        match self {
            Self::Storage { .. } | Self::File { .. } => false,
            Self::Bucket { access, .. } => matches!(access, Access::Request),
            Self::Http { .. } | Self::Ftp { .. } => true,
        }
    }

    /// The same place for another file: `relative` is read from the folder of this one. `None` where a destination is
    /// one receiver and no place among others, or the name is none.
    #[must_use]
    pub fn beside(&self, relative: &str) -> Option<Self> {
        let mut other = self.clone();
        match &mut other {
            Self::Storage { path, .. } | Self::Bucket { path, .. } => {
                *path = ObjectPath::parse(super::path::beside(path.as_str(), relative)).ok()?;
            }
            Self::File { path, .. } => *path = super::path::beside(path, relative),
            Self::Ftp { url, .. } => *url = super::path::beside(url, relative),
            Self::Http { .. } => return None,
        }
        Some(other)
    }

    /// Its path or URL, for naming files; never a secret.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Storage { path, .. } | Self::Bucket { path, .. } => path.as_str(),
            Self::File { path, .. } => path,
            Self::Http { url, .. } | Self::Ftp { url, .. } => url,
        }
    }
}

/// What happens to an object already there; a job's own earlier publications are always recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overwrite {
    /// It is replaced at the moment of publishing.
    #[default]
    Replace,
    /// The output fails with `destination_exists`.
    Fail,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_set_lie_beside_each_other() {
        let beside =
            |destination: Destination, name| destination.beside(name).map(|other| other.text().to_owned());
        let storage = |path: &str| Destination::Storage {
            path: ObjectPath::parse(path).unwrap(),
            overwrite: Overwrite::Fail,
            metadata: BTreeMap::new(),
        };
        assert_eq!(beside(storage("a/b/master.m3u8"), "c0/1.m4s").as_deref(), Some("a/b/c0/1.m4s"));
        assert_eq!(beside(storage("master.m3u8"), "c0/1.m4s").as_deref(), Some("c0/1.m4s"));
        assert_eq!(beside(storage("a/master.m3u8"), "../1.m4s"), None);
        let ftp = Destination::Ftp { url: "ftp://h/x/m.mpd".into(), overwrite: Overwrite::Replace };
        assert_eq!(beside(ftp, "c0/i.mp4").as_deref(), Some("ftp://h/x/c0/i.mp4"));
        let http = Destination::Http { url: "https://h/m.mpd".into(), method: HttpMethod::Put };
        assert_eq!(beside(http, "i.mp4"), None);
    }

    #[test]
    fn stems_come_from_the_last_segment() {
        let http = |url: &str| Source::Http { url: url.into() };
        assert_eq!(http("https://h/a/film.final.mov?sig=1").stem(), "film.final");
        assert_eq!(http("https://h/").stem(), "h");
        assert_eq!(Source::File { path: "/x/.hidden".into() }.stem(), ".hidden");
    }
}

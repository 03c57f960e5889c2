//! What must never be stored in the clear, logged or returned. Sealed at rest with the job's id (PROTOCOL §1.9); workers
//! get it inside START only.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Bucket, OutputIndex};

/// The secrets of one job.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSecrets {
    /// The whole source URL, where it holds userinfo or a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_url: Option<String>,
    /// Request headers for the source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub source_headers: BTreeMap<String, String>,
    /// Who the source is read as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_credentials: Option<Credentials>,
    /// What outputs need; those that need nothing have no entry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<OutputIndex, OutputSecrets>,
    /// The whole notification URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification_url: Option<String>,
}

/// The secrets of one output's destination.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSecrets {
    /// The whole URL, where it holds a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Request headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Who the result is written as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

/// Who somebody else's storage is used as.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Credentials {
    /// A key of S3.
    S3 {
        /// The key's id.
        access_key_id: String,
        /// The key.
        secret_access_key: String,
        /// The token of temporary credentials.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_token: Option<String>,
    },
    /// A service account of Google Cloud: its key file, as JSON.
    ServiceAccount {
        /// The file's text.
        json: String,
    },
    /// An OAuth 2 access token, for Google Cloud or Azure.
    Bearer {
        /// The token.
        token: String,
    },
    /// The key of an Azure storage account.
    AccountKey {
        /// Base64, as Azure shows it.
        key: String,
    },
    /// A shared access signature of Azure.
    Sas {
        /// The query string, with or without its `?`.
        token: String,
    },
    /// A name and a password (FTP).
    Login {
        /// The name.
        username: String,
        /// The password; may be empty.
        password: String,
    },
}

static NOTHING: OutputSecrets = OutputSecrets { url: None, headers: BTreeMap::new(), credentials: None };

impl JobSecrets {
    /// Whether there is nothing to seal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // A field that is forgotten here would be lost, so all are named.
        let Self { source_url, source_headers, source_credentials, outputs, notification_url } = self;
        source_url.is_none()
            && source_headers.is_empty()
            && source_credentials.is_none()
            && outputs.is_empty()
            && notification_url.is_none()
    }

    /// What an output's destination needs.
    #[must_use]
    pub fn output(&self, index: OutputIndex) -> &OutputSecrets {
        self.outputs.get(&index).unwrap_or_else(|| OutputSecrets::none())
    }
}

impl OutputSecrets {
    /// Those of a destination that needs none.
    #[must_use]
    pub fn none() -> &'static Self {
        &NOTHING
    }

    /// Whether there is nothing to seal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == NOTHING
    }
}

impl fmt::Debug for JobSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobSecrets(…)")
    }
}

impl fmt::Debug for OutputSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutputSecrets(…)")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::S3 { .. } => "S3(…)",
            Self::ServiceAccount { .. } => "ServiceAccount(…)",
            Self::Bearer { .. } => "Bearer(…)",
            Self::AccountKey { .. } => "AccountKey(…)",
            Self::Sas { .. } => "Sas(…)",
            Self::Login { .. } => "Login(…)",
        })
    }
}

/// Credentials with a name, which requests may name and never see.
#[derive(Debug, Clone)]
pub struct Profile {
    /// What they are for, with an empty bucket name: provider, endpoint, region, account.
    pub place: Bucket,
    /// Absent: the machine's own role.
    pub credentials: Option<Credentials>,
    /// Buckets it may be used for; none = any.
    pub buckets: Vec<String>,
}

/// With whose credentials buckets of requests are used (PROTOCOL §1.9).
#[derive(Debug, Clone, Default)]
pub struct BucketAccess {
    /// By name.
    pub profiles: BTreeMap<String, Profile>,
    /// Buckets that may be read with the server's own credentials, as [`Bucket::url`] writes them.
    pub sources: Vec<String>,
    /// The same for writing.
    pub destinations: Vec<String>,
    /// The server's own for S3; absent: the machine's role.
    pub s3: Option<Credentials>,
    /// The server's own for Google.
    pub gcs: Option<Credentials>,
    /// The server's own for Azure.
    pub azure: Option<Credentials>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_never_print() {
        let canary = || "canary".to_owned();
        let all = [
            Credentials::S3 {
                access_key_id: canary(),
                secret_access_key: canary(),
                session_token: Some(canary()),
            },
            Credentials::ServiceAccount { json: canary() },
            Credentials::Bearer { token: canary() },
            Credentials::AccountKey { key: canary() },
            Credentials::Sas { token: canary() },
            Credentials::Login { username: canary(), password: canary() },
        ];
        for credentials in all {
            let output = OutputSecrets {
                url: Some(canary()),
                credentials: Some(credentials.clone()),
                ..OutputSecrets::default()
            };
            let secrets = JobSecrets {
                source_url: Some("https://u:p@h/?k=canary".into()),
                source_credentials: Some(credentials.clone()),
                outputs: [(OutputIndex(0), output.clone())].into(),
                ..JobSecrets::default()
            };
            assert!(!format!("{credentials:?} {output:?} {secrets:?} {secrets:#?}").contains("canary"));
        }
    }

    #[test]
    fn what_earlier_builds_sealed_is_read_and_all_of_it_survives() {
        let old: JobSecrets =
            serde_json::from_str(r#"{"source_url":"https://h/?k","notification_url":"n"}"#).unwrap();
        assert_eq!(old.source_url.as_deref(), Some("https://h/?k"));
        let login = Credentials::Login { username: "u".into(), password: String::new() };
        let output = OutputSecrets { credentials: Some(login), ..OutputSecrets::default() };
        let new = JobSecrets { outputs: [(OutputIndex(49), output.clone())].into(), ..old };
        let text = serde_json::to_string(&new).unwrap();
        assert_eq!(serde_json::from_str::<JobSecrets>(&text).unwrap(), new);
        assert_eq!(new.output(OutputIndex(49)), &output);
        assert!(new.output(OutputIndex(0)).is_empty() && !new.is_empty());
    }
}

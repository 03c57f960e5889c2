//! `[storage]` and its profiles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Hidden;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Storage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) path_style: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) access_key_id: Option<String>,
    /// Some clients and the seeds say `access_key_secret`.
    #[serde(alias = "access_key_secret", skip_serializing_if = "Option::is_none")]
    pub(in crate::config) secret_access_key: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) session_token: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) service_account_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) account_key: Option<Hidden>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::config) profiles: BTreeMap<String, ProfileKeys>,
}

/// One `[storage.profiles.NAME]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ProfileKeys {
    pub(in crate::config) kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) path_style: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) access_key_id: Option<String>,
    #[serde(alias = "access_key_secret", skip_serializing_if = "Option::is_none")]
    pub(in crate::config) secret_access_key: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) secret_access_key_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) session_token: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) service_account_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) account_key: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) account_key_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) sas_token: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) sas_token_file: Option<String>,
    #[serde(default)]
    pub(in crate::config) buckets: Vec<String>,
}

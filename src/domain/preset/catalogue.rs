//! Named presets: the built-in ones and those of the operator's folder.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::EncodeSpec;

/// A preset's name: 1 to 64 of `[a-z0-9_-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PresetName(String);

impl PresetName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PresetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PresetName {
    type Err = InvalidPreset;
    fn from_str(text: &str) -> Result<Self, InvalidPreset> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for PresetName {
    type Error = InvalidPreset;
    fn try_from(text: String) -> Result<Self, InvalidPreset> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
        if fits {
            Ok(Self(text))
        } else {
            Err(InvalidPreset::Name(text))
        }
    }
}

impl From<PresetName> for String {
    fn from(name: PresetName) -> Self {
        name.0
    }
}

/// Why a preset is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPreset {
    /// Not a name.
    #[error("{0:?} is not a preset name (1 to 64 of a-z, 0-9, '_', '-')")]
    Name(String),
    /// A field is wrong.
    #[error("{path}: {reason}")]
    Field {
        /// Dotted path below the document.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// All presets of this process, resolved.
#[derive(Debug, Clone, Default)]
pub struct Presets {
    /// By name: description and resolved setting.
    entries: BTreeMap<PresetName, (String, EncodeSpec)>,
}

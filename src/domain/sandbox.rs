//! How much of the sandbox around tools must be there.

use serde::{Deserialize, Serialize};

/// What a worker makes of a kernel that lacks a part of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxMode {
    /// Uses what there is, and says so.
    #[default]
    Auto,
    /// Does not start.
    Required,
    /// Uses none of it.
    Off,
}

impl SandboxMode {
    /// Its name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Required => "required",
            Self::Off => "off",
        }
    }
}

//! What is wrong with a document somebody sent, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One fault of a request or preset, as the API's `errors` array shows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to the faulty value; empty = the whole document.
    pub pointer: String,
    /// One sentence: what is wrong and what would be right.
    pub detail: String,
}

impl Fault {
    /// A fault at a pointer.
    #[must_use]
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }

    /// The same fault inside a larger document.
    #[must_use]
    pub fn below(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }

    /// A pointer to `key` below `parent`, escaped as RFC 6901 §3 says.
    #[must_use]
    pub fn join(parent: &str, key: &str) -> String {
        format!("{parent}/{}", key.replace('~', "~0").replace('/', "~1"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            f.write_str(&self.detail)
        } else {
            write!(f, "{}: {}", self.pointer, self.detail)
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_escaped_and_nest() {
        assert_eq!(Fault::join("/video", "a/b~c"), "/video/a~1b~0c");
        let fault = Fault::new("/rate/crf", "too high").below("/outputs/2/video");
        assert_eq!(fault.to_string(), "/outputs/2/video/rate/crf: too high");
    }
}

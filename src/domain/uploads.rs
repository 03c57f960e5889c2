//! How clients send large files to the storage themselves, and what is found of them there.

/// How a client sends an upload to the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invitation {
    /// All bytes in one PUT.
    Whole {
        /// Where to.
        url: String,
        /// Headers that the request must carry, by name.
        headers: Vec<(String, String)>,
    },
    /// One PUT for each part, then the completion by this server.
    Parts {
        /// Bytes of each part but the last.
        size: u64,
        /// Where each part goes, in order.
        urls: Vec<String>,
    },
}

/// What came of putting the parts of an upload together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assembled {
    /// They are one object, or were before.
    Done,
    /// The storage does not have these parts, or they are too small.
    Refused,
}

/// What was found of an upload that a client sends to the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// All of it; it cannot change any more.
    Whole {
        /// The storage's entity tag.
        etag: String,
    },
    /// Nothing yet, or not all parts.
    Missing,
    /// Another number of bytes than announced.
    Size(u64),
}

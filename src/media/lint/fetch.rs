//! Where the linter reads from.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of one file or piece of a file at most.
const MAX_BYTES: u64 = 256 << 20;

/// Reads what manifests name. Blocking.
pub trait Fetch {
    /// What a reference in the document at `base` means; `None` when that may not be read.
    fn resolve(&self, base: &str, reference: &str) -> Option<String>;
    /// Reads a file, or a range of one; fewer bytes than the range has are no error here.
    fn fetch(&mut self, place: &str, range: Option<Range<u64>>) -> Result<Fetched, FetchError>;
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How a server called them; `None` on a disk.
    pub served: Option<Served>,
}

/// How a server sent a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// `Content-Type`.
    pub content_type: String,
    /// Whether it was compressed on the way.
    pub compressed: bool,
}

/// Why something could not be read: the second half of a sentence, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchError(pub String);

/// A folder on this machine. References that lead out of it are not followed.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Everything below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }
}

impl Fetch for Folder {
    fn resolve(&self, base: &str, reference: &str) -> Option<String> {
        let reference = reference.split(['?', '#']).next()?;
        if reference.starts_with('/') || reference.contains("://") {
            return None;
        }
        let reference = percent_encoding::percent_decode_str(reference).decode_utf8().ok()?;
        let mut parts: Vec<&str> = base.split('/').collect();
        parts.pop();
        for part in reference.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop()?;
                }
                part => parts.push(part),
            }
        }
        (!parts.is_empty()).then(|| parts.join("/"))
    }

    fn fetch(&mut self, place: &str, range: Option<Range<u64>>) -> Result<Fetched, FetchError> {
        let error = |error: std::io::Error| FetchError(error.to_string());
        let file = File::open(self.0.join(place)).map_err(error)?;
        let metadata = file.metadata().map_err(error)?;
        if !metadata.is_file() {
            return Err(FetchError("not a file".into()));
        }
        let range = range.unwrap_or(0..metadata.len());
        let end = range.end.min(metadata.len());
        let length = end.saturating_sub(range.start);
        if length > MAX_BYTES {
            return Err(FetchError(format!("{length} bytes are too many")));
        }
        let mut bytes = Vec::new();
        if range.start == 0 {
            file.take(length).read_to_end(&mut bytes).map_err(error)?;
        } else {
            bytes.resize(usize::try_from(length).unwrap_or(0), 0);
            file.read_exact_at(&mut bytes, range.start).map_err(error)?;
        }
        Ok(Fetched { bytes, served: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_stay_in_the_folder() {
        let folder = Folder::new(Path::new("/x"));
        let to = |base: &str, reference: &str| folder.resolve(base, reference);
        assert_eq!(to("master.m3u8", "a/p.m3u8").as_deref(), Some("a/p.m3u8"));
        assert_eq!(to("a/p.m3u8", "../b/s%201.ts?token=1").as_deref(), Some("b/s 1.ts"));
        for outside in
            ["../x", "/etc/passwd", "http://h/x", "file:///etc/passwd", "a/../../x", "%2e%2e/x", ""]
        {
            assert_eq!(to("master.m3u8", outside), None, "{outside}");
        }
    }
}

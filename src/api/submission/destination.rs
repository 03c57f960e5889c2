//! The `destination` object.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::fields::{Faults, Fields, Place};
use crate::domain::limits::MAX_KEYS;
use crate::domain::preset::Container;
use crate::domain::{Destination, Overwrite, PathTemplate, PathValues};

/// Kinds that other builds or later versions know.
const ELSEWHERE: [&str; 9] = ["s3", "gcs", "gs", "azure", "az", "http", "https", "ftp", "ftps"];
const KNOWN: &str = "storage or file";

/// A destination whose path still has its placeholders.
pub(super) struct DestinationDraft {
    pub(super) kind: Kind,
    pub(super) path: Place<String>,
    pub(super) overwrite: Overwrite,
    pub(super) metadata: BTreeMap<String, String>,
    /// What the client says the result is (`output.type` of a seed).
    pub(super) shape: Option<Place<Shape>>,
}

/// Which destination it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Storage,
    File,
}

/// One file or a set of them.
#[derive(Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shape {
    Single,
    Hls,
    Dash,
}

impl DestinationDraft {
    /// Reports a declared shape that the container does not give.
    pub(super) fn agrees_with(&self, container: Container, faults: &Faults) {
        let given = match container {
            Container::Mp4 | Container::Webm | Container::Mkv | Container::Mov => Shape::Single,
        };
        if let Some(said) = self.shape.as_ref().filter(|said| said.value != given) {
            faults.add(said.at.as_str(), "does not agree with the preset, which gives \"single\"");
        }
    }

    /// The destination with its path filled in.
    pub(super) fn fill(self, values: &PathValues<'_>, faults: &Faults) -> Option<Destination> {
        // Only local files have absolute paths; below the slash the rules are the same.
        let (root, relative) = match (self.kind, self.path.value.strip_prefix('/')) {
            (Kind::File, Some(rest)) => ("/", rest),
            (Kind::File | Kind::Storage, _) => ("", self.path.value.as_str()),
        };
        let path = match PathTemplate::parse(relative).and_then(|template| template.render(values)) {
            Ok(path) => path,
            Err(error) => {
                faults.add(self.path.at, error.to_string());
                return None;
            }
        };
        Some(match self.kind {
            Kind::Storage => {
                Destination::Storage { path, overwrite: self.overwrite, metadata: self.metadata }
            }
            Kind::File => Destination::File { path: format!("{root}{path}"), overwrite: self.overwrite },
        })
    }
}

/// Reads `{kind, path, overwrite?, metadata?}`.
pub(super) fn read(place: Place<Value>, faults: &Faults) -> Option<DestinationDraft> {
    let mut fields = Fields::of(place, faults)?;
    let kind = fields.required_string("kind")?;
    let which = match kind.value.as_str() {
        "storage" => Kind::Storage,
        "file" => Kind::File,
        other => {
            faults.add(kind.at, unknown_kind(other));
            return None;
        }
    };
    let path = fields.required_string("path");
    let overwrite = fields.one_of("overwrite", "\"replace\" or \"fail\"").unwrap_or_default();
    let metadata = match which {
        Kind::Storage => object_metadata(&mut fields),
        Kind::File => BTreeMap::new(),
    };
    fields.finish();
    Some(DestinationDraft { kind: which, path: path?, overwrite, metadata, shape: None })
}

/// Object metadata travels in headers, so it is held to what those can carry.
pub(super) fn object_metadata(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    fields.strings("metadata", MAX_KEYS, |key, value| {
        let key_fits = (1..=64).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        let value_fits = value.len() <= 1024 && value.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if key_fits && value_fits {
            Ok(())
        } else {
            Err("object metadata has keys of 1 to 64 letters, digits, '_', '-' and printable ASCII values up to 1024 bytes")
        }
    })
}

fn unknown_kind(kind: &str) -> String {
    if ELSEWHERE.contains(&kind) {
        format!("{kind:?} destinations are not available in this build; known: {KNOWN}")
    } else {
        format!("must be one of {KNOWN}")
    }
}

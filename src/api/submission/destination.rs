//! The `destination` object.

use std::collections::BTreeMap;

use serde_json::Value;

use super::bucket::{self, BucketDraft, Provider};
use super::source::header_fits;
use super::{ftp_url, http_url};
use crate::api::fields::{Faults, Fields, Place};
use crate::domain::limits::{MAX_HEADERS, MAX_KEYS};
use crate::domain::preset::{Container, EncodeSpec};
use crate::domain::{
    Destination, HttpMethod, ObjectOptions, OutputSecrets, Overwrite, PathTemplate, PathValues,
};

/// What the storage room serves; it refuses the other kinds by name.
const KNOWN: &str = "storage, file, s3, gcs, azure, http, https, ftp or ftps";

/// A destination whose path still has its placeholders.
pub(super) struct DestinationDraft {
    pub(super) kind: Kind,
    /// The path, or the whole URL.
    pub(super) path: Place<String>,
    pub(super) overwrite: Overwrite,
    /// What the client says the result is (`output.type` of a seed).
    pub(super) shape: Option<Place<Shape>>,
}

/// Which destination it is.
pub(super) enum Kind {
    Storage { metadata: BTreeMap<String, String> },
    File,
    Bucket { place: Box<BucketDraft>, object: Box<ObjectOptions> },
    Http { method: HttpMethod, headers: BTreeMap<String, String> },
    Ftp { username: Option<Place<String>>, password: Option<Place<String>> },
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
        let (given, name) = match container {
            Container::Hls | Container::Cmaf => (Shape::Hls, "hls"),
            Container::Dash => (Shape::Dash, "dash"),
            _ => (Shape::Single, "single"),
        };
        if let Some(said) = self.shape.as_ref().filter(|said| said.value != given) {
            faults.add(said.at.as_str(), format!("does not agree with the preset, which gives \"{name}\""));
        }
    }

    /// Refuses a poster where only one file can go.
    pub(super) fn has_room_for_a_poster(&self, encode: &EncodeSpec, faults: &Faults) {
        if let (true, Kind::Http { .. }) = (encode.poster, &self.kind) {
            faults.add(self.path.at.as_str(), "an HTTP server takes one file; a poster would be a second");
        }
    }

    /// Makes the path of a set that of the file which clients open: a path that ends with a list's name says it, any
    /// other is a folder (MEDIA-RULES §4).
    pub(super) fn point_at_entry(&mut self, encode: &EncodeSpec, faults: &Faults) {
        let Some(entry) = encode.entry_name() else { return };
        if let Kind::Http { .. } = self.kind {
            faults.add(
                self.path.at.as_str(),
                format!("{} makes many files; an HTTP server takes one", encode.container.name()),
            );
            return;
        }
        let last = self.path.value.rsplit('/').next().unwrap_or_default();
        let last = last.replace("{ext}", encode.container.extension());
        let names_a_list = [".m3u8", ".mpd", ".vtt"].iter().any(|end| last.ends_with(end));
        if !names_a_list {
            self.path.value = format!("{}/{entry}", self.path.value.trim_end_matches('/'));
        } else if !encode.lists_in(&last) {
            let container = encode.container.name();
            faults.add(self.path.at.as_str(), format!("names a list that {container} does not have"));
        }
    }

    /// The destination with its path filled in, and what it needs to stay secret.
    pub(super) fn fill(
        self,
        values: &PathValues<'_>,
        faults: &Faults,
    ) -> Option<(Destination, OutputSecrets)> {
        let overwrite = self.overwrite;
        let filled = match &self.kind {
            Kind::Storage { .. } | Kind::Bucket { .. } => render(&self.path.value, values).map(Into::into),
            // Only local files have absolute paths; below the slash the rules are the same.
            Kind::File => match self.path.value.strip_prefix('/') {
                Some(rest) => render(rest, values).map(|path| format!("/{path}")),
                None => render(&self.path.value, values).map(Into::into),
            },
            Kind::Http { .. } | Kind::Ftp { .. } => values.fill(&self.path.value),
        };
        let path = match filled {
            Ok(path) => path,
            Err(error) => {
                faults.add(self.path.at, error.to_string());
                return None;
            }
        };
        let none = OutputSecrets::default();
        Some(match self.kind {
            Kind::Storage { metadata } => {
                (Destination::Storage { path: path.try_into().ok()?, overwrite, metadata }, none)
            }
            Kind::File => (Destination::File { path, overwrite }, none),
            Kind::Bucket { place, object } => {
                let BucketDraft { bucket, access, credentials } = *place;
                let path = path.try_into().ok()?;
                let destination = Destination::Bucket { bucket, path, access, overwrite, object: *object };
                (destination, OutputSecrets { credentials, ..none })
            }
            Kind::Http { method, headers } => {
                let (url, whole) = http_url(&Place { at: self.path.at, value: path }, faults)?;
                (Destination::Http { url, method }, OutputSecrets { url: whole, headers, ..none })
            }
            Kind::Ftp { username, password } => {
                let place = Place { at: self.path.at, value: path };
                let (url, credentials) = ftp_url(&place, username, password, faults)?;
                (Destination::Ftp { url, overwrite }, OutputSecrets { credentials, ..none })
            }
        })
    }
}

fn render(
    text: &str,
    values: &PathValues<'_>,
) -> Result<crate::domain::ObjectPath, crate::domain::InvalidPath> {
    PathTemplate::parse(text).and_then(|template| template.render(values))
}

/// Reads `{kind, path or url, overwrite?, …}`.
pub(super) fn read(place: Place<Value>, faults: &Faults) -> Option<DestinationDraft> {
    let mut fields = Fields::of(place, faults)?;
    let kind = fields.required_string("kind")?;
    let (which, path) = match kind.value.as_str() {
        "storage" => {
            let path = fields.required_string("path");
            (Some(Kind::Storage { metadata: object_metadata(&mut fields) }), path)
        }
        "file" => (Some(Kind::File), fields.required_string("path")),
        "http" | "https" => {
            let url = fields.required_string("url");
            let method = fields.one_of("method", "\"PUT\" or \"POST\"").unwrap_or_default();
            let headers = fields.strings("headers", MAX_HEADERS, header_fits);
            (Some(Kind::Http { method, headers }), url)
        }
        "ftp" | "ftps" => {
            let url = fields.required_string("url");
            let (username, password) = (fields.string("username"), fields.string("password"));
            (Some(Kind::Ftp { username, password }), url)
        }
        other => {
            let Some(provider) = Provider::of(other) else {
                faults.add(kind.at, format!("must be one of {KNOWN}"));
                return None;
            };
            let path = fields.required_string("path");
            let place = bucket::read(provider, &mut fields);
            let object = Box::new(object(provider, &mut fields));
            (place.map(|place| Kind::Bucket { place: Box::new(place), object }), path)
        }
    };
    let overwrite = match &which {
        Some(Kind::Http { .. }) => Overwrite::Replace,
        _ => fields.one_of("overwrite", "\"replace\" or \"fail\"").unwrap_or_default(),
    };
    fields.finish();
    Some(DestinationDraft { kind: which?, path: path?, overwrite, shape: None })
}

/// How the object is to be marked.
fn object(provider: Provider, fields: &mut Fields<'_>) -> ObjectOptions {
    const ACLS: &str = "\"private\", \"public-read\", \"public-read-write\", \"authenticated-read\", \
                        \"bucket-owner-read\" or \"bucket-owner-full-control\"";
    let acl = match provider {
        Provider::S3 => fields.one_of("acl", ACLS),
        Provider::Gcs | Provider::Azure => None,
    };
    let mut header = |name| {
        let place = fields.string(name)?;
        let text = place.value.trim();
        if !text.is_empty() && text.len() <= 256 && text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Some(text.to_owned());
        }
        fields.faults.add(place.at, "must be 1 to 256 printable ASCII characters");
        None
    };
    let storage_class = header("storage_class");
    let (content_type, cache_control) = (header("content_type"), header("cache_control"));
    ObjectOptions { acl, storage_class, content_type, cache_control, metadata: object_metadata(fields) }
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

//! The request bodies of the seed systems, mapped value by value (MEDIA-RULES §4).

use serde_json::{Map, Value};
use url::Url;

use super::OutputDraft;
use super::destination::{DestinationDraft, Kind, object_metadata};
use super::encoder_v2::Spellings;
use super::source::{self, SourceDraft};
use crate::api::fields::{Faults, Fields, Place};
use crate::domain::{ObjectPath, Overwrite, Source, UploadId};

/// The resolutions of the cloud pipeline, which are its default ladder too.
const RESOLUTIONS: [&str; 3] = ["480p", "720p", "1080p"];

/// `{input_url, preset, output: {storage, path, metadata?, type?}}`.
pub(super) fn flux_encoder(fields: &mut Fields<'_>) -> (Option<SourceDraft>, Vec<OutputDraft>) {
    let faults = fields.faults;
    let source = fields.required_string("input_url").and_then(|url| input_url(url, faults));
    let preset = fields.required_string("preset").map(|p| p.value);
    let Some(output) = fields.take("output") else {
        faults.add(fields.at("output"), "is required");
        return (source, Vec::new());
    };
    let mut warnings = Vec::new();
    let destination = flux_output(output, faults, &mut warnings);
    // Pointers of faults that the preset finds start at the body itself: `/preset` is where it stands.
    let output = OutputDraft {
        at: String::new(),
        preset,
        overrides: Map::new(),
        spellings: Spellings::default(),
        destination,
        warnings,
    };
    (source, vec![output])
}

fn flux_output(place: Place<Value>, faults: &Faults, warnings: &mut Vec<String>) -> Option<DestinationDraft> {
    let mut fields = Fields::of(place, faults)?;
    let path = fields.required_string("path");
    if let Some(profile) = fields.string("storage") {
        warnings.push(format!(
            "storage {:?} is not a configured profile; the result is in the server's default storage",
            profile.value.chars().take(64).collect::<String>(),
        ));
    }
    let metadata = object_metadata(&mut fields);
    let at = fields.at("type");
    let shape = fields.one_of("type", "\"single\", \"hls\" or \"dash\"").map(|value| Place { at, value });
    fields.finish();
    Some(DestinationDraft {
        kind: Kind::Storage { metadata },
        path: path?,
        overwrite: Overwrite::default(),
        shape,
    })
}

/// A URL of any scheme the seed took: what this build does not fetch is refused by name.
pub(super) fn input_url(url: Place<String>, faults: &Faults) -> Option<SourceDraft> {
    let at = url.at.clone();
    let scheme = url.value.split_once(':').map(|(scheme, _)| scheme.trim().to_ascii_lowercase());
    match scheme.as_deref() {
        Some("http" | "https") => SourceDraft::http(at, &url, faults),
        Some("file") => {
            let Some(path) = local_path(&url.value) else {
                faults.add(at, "is not a local file URL");
                return None;
            };
            source::file(at, url.map(|_| path), faults)
        }
        Some("s3" | "gs" | "az") => SourceDraft::bucket_url(at, &url.value, faults),
        Some("ftp" | "ftps") => SourceDraft::ftp(at, &url, [None, None], faults),
        _ => {
            faults.add(at, "must be an http, https, s3, gs, az, ftp, ftps or file URL");
            None
        }
    }
}

fn local_path(url: &str) -> Option<String> {
    let path = Url::parse(url).ok()?.to_file_path().ok()?;
    path.into_os_string().into_string().ok()
}

/// `{input_key, resolutions?}`: one output per resolution, by default all of them.
pub(super) fn cloud_pipeline(fields: &mut Fields<'_>) -> (Option<SourceDraft>, Vec<OutputDraft>) {
    let faults = fields.faults;
    let source = fields.required_string("input_key").and_then(|key| input_key(key, faults));
    let asked = match fields.take("resolutions") {
        None => Vec::new(),
        Some(Place { at, value: Value::Array(items) }) => items
            .into_iter()
            .enumerate()
            .filter_map(|(index, item)| {
                resolution(Place { at: format!("{at}/{index}"), value: item }, faults)
            })
            .collect(),
        Some(Place { at, .. }) => {
            faults.add(at, "must be an array of strings");
            Vec::new()
        }
    };
    let asked = if asked.is_empty() {
        RESOLUTIONS.map(|r| Place { at: fields.at("resolutions"), value: r }).into()
    } else {
        asked
    };
    (source, asked.into_iter().map(rung).collect())
}

/// The key of an object; `uploads/{id}/{name}` may name an upload to this server instead.
pub(super) fn input_key(key: Place<String>, faults: &Faults) -> Option<SourceDraft> {
    match ObjectPath::parse(key.value) {
        Ok(path) => {
            let maybe_upload = upload_of(path.as_str());
            Some(SourceDraft { maybe_upload, ..SourceDraft::plain(key.at, Source::Storage { path }) })
        }
        Err(error) => {
            faults.add(key.at, error.to_string());
            None
        }
    }
}

fn upload_of(key: &str) -> Option<UploadId> {
    let mut parts = key.strip_prefix("uploads/")?.split('/');
    let id = parts.next()?.parse().ok()?;
    (parts.next().is_some() && parts.next().is_none()).then_some(id)
}

fn resolution(place: Place<Value>, faults: &Faults) -> Option<Place<&'static str>> {
    let known = RESOLUTIONS.into_iter().find(|name| place.value.as_str() == Some(name));
    if known.is_none() {
        faults.add(place.at.as_str(), format!("must be one of {}", RESOLUTIONS.join(", ")));
    }
    known.map(|name| place.map(|_| name))
}

fn rung(resolution: Place<&'static str>) -> OutputDraft {
    let name = resolution.value;
    OutputDraft {
        at: resolution.at.clone(),
        preset: Some(format!("{name}_h264")),
        overrides: Map::new(),
        spellings: Spellings::default(),
        destination: Some(DestinationDraft {
            kind: Kind::Storage { metadata: std::collections::BTreeMap::new() },
            path: resolution.map(|name| format!("outputs/{{job_id}}/{{name}}_{name}.mp4")),
            overwrite: Overwrite::default(),
            shape: None,
        }),
        warnings: Vec::new(),
    }
}

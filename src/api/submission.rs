//! From a request body to a checked [`JobSpec`]: the canonical shape and those of the seeds, all faults at once.
//!
//! The top-level key decides the shape: `source` (canonical), `input_url` or `input_key` (seeds). Every shape becomes the
//! same [`Draft`], whose parts keep the pointers of what the client wrote.

mod bucket;
mod destination;
mod encoder_v2;
mod seeds;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde_json::{Map, Value};
use url::Url;

use self::destination::DestinationDraft;
use self::encoder_v2::Spellings;
use self::source::SourceDraft;
use super::fields::{Faults, Fields, Place};
use crate::domain::limits::{MAX_KEYS, MAX_METADATA_BYTES, MAX_OUTPUTS, MAX_PRIORITY, MAX_URL_BYTES};
use crate::domain::preset::{BoxSize, Clip, EncodeSpec, PresetName, Presets, poster_name};
use crate::domain::webhook::WebhookEvent;
use crate::domain::{
    Credentials, Destination, Fault, JobId, JobOptions, JobSecrets, JobSpec, OutputIndex, OutputSecrets,
    OutputSpec, PathValues, Source, UploadId, beside,
};

/// Longest `timeout_seconds`: a week.
const MAX_TIMEOUT_SECONDS: i64 = 7 * 24 * 3600;

/// A body that is a legal job as far as text can tell; files and uploads are checked next.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) spec: JobSpec,
    pub(super) secrets: JobSecrets,
    /// Bytes to store under the source's key.
    pub(super) inline: Option<Bytes>,
    /// An upload that the source's key may name; if it does not exist, the key is the storage's own.
    pub(super) maybe_upload: Option<UploadId>,
    /// Where the source and each destination stand in the body.
    pub(super) source_at: String,
    pub(super) destinations_at: Vec<String>,
}

/// What every shape of body becomes.
struct Draft {
    source: Option<SourceDraft>,
    outputs: Vec<OutputDraft>,
    notification_url: Option<Place<String>>,
    notification_events: Vec<WebhookEvent>,
    priority: i16,
    labels: BTreeMap<String, String>,
    metadata: Map<String, Value>,
    options: JobOptions,
}

/// An output before its preset is resolved and its path filled in.
struct OutputDraft {
    /// Where it stands; faults of presets are relative to it.
    at: String,
    preset: Option<String>,
    overrides: Map<String, Value>,
    spellings: Spellings,
    destination: Option<DestinationDraft>,
    warnings: Vec<String>,
}

/// Reads a body. `faults` holds what parsing the JSON found already.
pub(super) fn read(
    body: Value,
    faults: Faults,
    presets: &Presets,
    job: JobId,
) -> Result<Submission, Vec<Fault>> {
    let draft = draft(body, &faults);
    let built = draft.and_then(|draft| build(draft, &faults, presets, job));
    match built {
        Some(submission) if faults.is_empty() => Ok(submission),
        _ => Err(faults.into_vec()),
    }
}

/// Reads a body that has a source and nothing else, in every shape that a job's source has. The result has no outputs.
pub(super) fn read_source(
    body: Value,
    faults: Faults,
    presets: &Presets,
    job: JobId,
) -> Result<Submission, Vec<Fault>> {
    let built = source_only(body, &faults).and_then(|draft| build(draft, &faults, presets, job));
    match built {
        Some(submission) if faults.is_empty() => Ok(submission),
        _ => Err(faults.into_vec()),
    }
}

fn source_only(body: Value, faults: &Faults) -> Option<Draft> {
    let mut fields = Fields::of(Place { at: String::new(), value: body }, faults)?;
    let source = match shape(&fields)? {
        Shape::FluxEncoder => {
            fields.required_string("input_url").and_then(|url| seeds::input_url(url, faults))
        }
        Shape::CloudPipeline => {
            fields.required_string("input_key").and_then(|key| seeds::input_key(key, faults))
        }
        Shape::Canonical => {
            let place = fields.take("source");
            if place.is_none() {
                faults.add("/source", "is required");
            }
            place.and_then(|place| source::read(place, faults))
        }
    };
    fields.finish();
    Some(Draft {
        source,
        outputs: Vec::new(),
        notification_url: None,
        notification_events: Vec::new(),
        priority: 0,
        labels: BTreeMap::new(),
        metadata: Map::new(),
        options: JobOptions::default(),
    })
}

/// Whose shape a body has.
enum Shape {
    Canonical,
    FluxEncoder,
    CloudPipeline,
}

/// The shape of a body; `None`, and a fault, where it has two.
fn shape(fields: &Fields<'_>) -> Option<Shape> {
    let shapes: Vec<_> =
        ["source", "input_url", "input_key"].into_iter().filter(|name| fields.has(name)).collect();
    if let [first, second, ..] = shapes.as_slice() {
        fields.faults.add(fields.at(second), format!("cannot stand beside {first:?}"));
        return None;
    }
    Some(match shapes.first() {
        Some(&"input_url") => Shape::FluxEncoder,
        Some(&"input_key") => Shape::CloudPipeline,
        Some(_) | None => Shape::Canonical,
    })
}

fn draft(body: Value, faults: &Faults) -> Option<Draft> {
    let mut fields = Fields::of(Place { at: String::new(), value: body }, faults)?;
    let (source, outputs) = match shape(&fields)? {
        Shape::FluxEncoder => seeds::flux_encoder(&mut fields),
        Shape::CloudPipeline => seeds::cloud_pipeline(&mut fields),
        Shape::Canonical => {
            if !fields.has("source") {
                faults.add("/source", "is required");
            }
            canonical(&mut fields)
        }
    };
    let draft = Draft {
        source,
        outputs,
        // First: it asks whether there is a URL.
        notification_events: notification_events(&mut fields),
        notification_url: notification(&mut fields),
        priority: fields
            .integer("priority", -i64::from(MAX_PRIORITY)..=i64::from(MAX_PRIORITY))
            .and_then(|n| i16::try_from(n).ok())
            .unwrap_or_default(),
        labels: fields.strings("labels", MAX_KEYS, label_fits),
        metadata: metadata(&mut fields),
        options: JobOptions {
            on_damage: fields.one_of("on_damage", "\"fail\" or \"warn\"").unwrap_or_default(),
            verify: fields.one_of("verify", "\"probe\", \"sampled\" or \"full\""),
            timeout_seconds: fields
                .integer("timeout_seconds", 1..=MAX_TIMEOUT_SECONDS)
                .map(i64::unsigned_abs),
        },
    };
    fields.finish();
    Some(draft)
}

/// `{source, outputs: [{preset?, …overrides, destination}], destination?, clip?}`.
fn canonical(fields: &mut Fields<'_>) -> (Option<SourceDraft>, Vec<OutputDraft>) {
    let faults = fields.faults;
    let source = fields.take("source").and_then(|place| source::read(place, faults));
    let default = fields.take("destination");
    let clip = fields.take("clip").and_then(|place| clip(place, faults));
    let Some(place) = fields.take("outputs") else {
        faults.add(fields.at("outputs"), "is required");
        return (source, Vec::new());
    };
    let Value::Array(items) = place.value else {
        faults.add(place.at, "must be an array");
        return (source, Vec::new());
    };
    if items.is_empty() || items.len() > MAX_OUTPUTS {
        faults.add(place.at, format!("must have 1 to {MAX_OUTPUTS} outputs"));
        return (source, Vec::new());
    }
    let outputs = items.into_iter().enumerate().filter_map(|(index, value)| {
        let output = Place { at: format!("{}/{index}", place.at), value };
        let mut output = canonical_output(output, default.as_ref(), faults)?;
        if let Some(clip) = &clip {
            output.overrides.entry("clip").or_insert_with(|| clip.clone());
        }
        Some(output)
    });
    (source, outputs.collect())
}

/// The clip of all outputs that have none of their own, as it was written.
fn clip(place: Place<Value>, faults: &Faults) -> Option<Value> {
    match serde_path_to_error::deserialize::<_, Clip>(&place.value) {
        Ok(clip) => match clip.fault() {
            None => Some(place.value),
            Some(fault) => {
                faults.add(format!("{}{}", place.at, fault.pointer), fault.detail);
                None
            }
        },
        Err(error) => {
            let field = match error.path().iter().next() {
                Some(serde_path_to_error::Segment::Map { key }) => format!("/{key}"),
                _ => String::new(),
            };
            faults.add(format!("{}{field}", place.at), error.into_inner().to_string());
            None
        }
    }
}

fn canonical_output(
    place: Place<Value>,
    default: Option<&Place<Value>>,
    faults: &Faults,
) -> Option<OutputDraft> {
    let at = place.at.clone();
    let mut fields = Fields::of(place, faults)?;
    let preset = fields.string("preset").map(|p| p.value);
    let own = fields.take("destination");
    let destination = own.or_else(|| default.map(|d| Place { at: d.at.clone(), value: d.value.clone() }));
    if destination.is_none() {
        faults.add(fields.at("destination"), "is required");
    }
    let destination = destination.and_then(|place| destination::read(place, faults));
    let (flat, spellings, warnings) = encoder_v2::overrides(&mut fields);
    let mut overrides = fields.rest();
    overrides.extend(flat);
    Some(OutputDraft { at, preset, overrides, spellings, destination, warnings })
}

/// Resolves presets and paths of a draft.
fn build(draft: Draft, faults: &Faults, presets: &Presets, job: JobId) -> Option<Submission> {
    let mut secrets = JobSecrets::default();
    let notification_url = draft.notification_url.and_then(|place| {
        let (shown, sealed) = http_url(&place, faults)?;
        secrets.notification_url = sealed;
        Some(shown)
    });
    let source_at = draft.source.as_ref().map(|s| s.at.clone()).unwrap_or_default();
    let (source, inline, maybe_upload) = match draft.source {
        Some(source) => {
            secrets.source_url = source.sealed_url;
            secrets.source_headers = source.headers;
            secrets.source_credentials = source.credentials;
            let (at, maybe_upload) = (source.at, source.maybe_upload);
            match source.source.finish(job) {
                Ok((source, inline)) => (Some(source), inline, maybe_upload),
                Err(error) => {
                    faults.add(at, error.to_string());
                    (None, None, None)
                }
            }
        }
        None => (None, None, None),
    };
    let stem = source.as_ref().map_or("source", Source::stem).to_owned();
    let mut places: HashMap<String, usize> = HashMap::new();
    let (mut outputs, mut destinations_at) = (Vec::new(), Vec::new());
    for (index, output) in draft.outputs.into_iter().enumerate() {
        let encode = resolve(&output, presets, faults);
        let Some(mut destination) = output.destination else { continue };
        let preset = output.preset.as_deref().and_then(|name| name.parse::<PresetName>().ok());
        let values = PathValues {
            job_id: &job.to_string(),
            index: u16::try_from(index).unwrap_or(u16::MAX),
            preset: preset.as_ref().map_or("custom", PresetName::as_str),
            name: &stem,
            height: encode.as_ref().and_then(nominal_height),
            ext: encode.as_ref().map_or("mp4", |encode| encode.container.extension()),
        };
        let path_at = destination.path.at.clone();
        if let Some(encode) = &encode {
            destination.agrees_with(encode.container, faults);
            destination.has_room_for_a_poster(encode, faults);
            destination.point_at_entry(encode, faults);
        }
        // Filled in even where the setting is wrong: all faults are told at once.
        let (Some((destination, secret)), Some(encode)) = (destination.fill(&values, faults), encode) else {
            continue;
        };
        let key = place_key(&destination, &secret);
        let poster = encode.poster.then(|| beside(&key, &poster_name(&key)));
        if let Some(other) = poster.and_then(|poster| places.insert(poster, index)) {
            faults.add(&path_at, format!("has its poster where output {other} is; give each its own name"));
        }
        let folder = encode.container.is_set().then(|| beside(&key, ""));
        if let Some(other) = folder.and_then(|folder| places.insert(folder, index)) {
            faults.add(
                &path_at,
                format!("is in the folder of output {other}, which is a set too; give each its own"),
            );
        } else if let Some(other) = places.insert(key, index) {
            faults.add(
                &path_at,
                format!("is the destination of output {other} too; use {{index}}, {{preset}} or {{height}}"),
            );
        }
        if let Some(index) = u16::try_from(index).ok().map(OutputIndex).filter(|_| !secret.is_empty()) {
            secrets.outputs.insert(index, secret);
        }
        destinations_at.push(path_at);
        outputs.push(OutputSpec { preset, encode, destination, warnings: output.warnings });
    }
    let spec = JobSpec {
        source: source?,
        outputs,
        priority: draft.priority,
        labels: draft.labels,
        metadata: draft.metadata,
        notification_url,
        notification_events: draft.notification_events,
        options: draft.options,
    };
    Some(Submission { spec, secrets, inline, maybe_upload, source_at, destinations_at })
}

fn resolve(output: &OutputDraft, presets: &Presets, faults: &Faults) -> Option<EncodeSpec> {
    match presets.resolve(output.preset.as_deref(), output.overrides.clone()) {
        Ok(encode) => Some(encode),
        Err(found) => {
            faults.extend(&output.at, output.spellings.apply(&output.at, found));
            None
        }
    }
}

fn nominal_height(encode: &EncodeSpec) -> Option<u32> {
    let video = encode.encoded_picture()?;
    let bounds = encode.ladder.first().map(|top| top.bounds).or(video.bounds);
    video.height.or_else(|| bounds.map(BoxSize::height))
}

/// What two outputs must not share. A folder that is also a file is caught by publishing, not here.
fn place_key(destination: &Destination, secrets: &OutputSecrets) -> String {
    match destination {
        Destination::Storage { path, .. } => format!("storage:{path}"),
        Destination::File { path, .. } => format!("file:{path}"),
        Destination::Bucket { bucket, path, .. } => {
            format!("{}/{path} {}", bucket.url(), bucket.endpoint().unwrap_or_default())
        }
        Destination::Http { url, .. } => secrets.url.clone().unwrap_or_else(|| url.clone()),
        Destination::Ftp { url, .. } => url.clone(),
    }
}

fn notification(fields: &mut Fields<'_>) -> Option<Place<String>> {
    let url = fields.string("notification_url");
    let seed = fields.string("callback_url");
    if let (Some(_), Some(second)) = (&url, &seed) {
        fields
            .faults
            .add(second.at.as_str(), "is another spelling of \"notification_url\", which is given too");
    }
    url.or(seed)
}

/// What is to be told; none = what the server's configuration says.
fn notification_events(fields: &mut Fields<'_>) -> Vec<WebhookEvent> {
    let Some(place) = fields.take("notification_events") else { return Vec::new() };
    let Value::Array(items) = place.value else {
        fields.faults.add(place.at, "must be an array of events");
        return Vec::new();
    };
    if items.is_empty() {
        fields.faults.add(place.at.as_str(), "names no event; leave it out for the server's choice");
    }
    let mut events = Vec::new();
    for (n, item) in items.iter().enumerate() {
        match item.as_str().and_then(WebhookEvent::named) {
            Some(event) if events.contains(&event) => {}
            Some(event) => events.push(event),
            None => {
                let known =
                    WebhookEvent::ALL.iter().map(|event| event.as_str()).collect::<Vec<_>>().join(", ");
                fields.faults.add(format!("{}/{n}", place.at), format!("must be one of {known}"));
            }
        }
    }
    if !fields.has("notification_url") && !fields.has("notificationUrl") && !fields.has("callback_url") {
        fields.faults.add(place.at, "means nothing without notification_url");
    }
    events
}

fn metadata(fields: &mut Fields<'_>) -> Map<String, Value> {
    let Some(place) = fields.take("metadata") else {
        return Map::new();
    };
    match place.value {
        Value::Object(map) if map.len() > MAX_KEYS => {
            fields.faults.add(place.at, format!("has more than {MAX_KEYS} keys"));
            Map::new()
        }
        Value::Object(map) if serde_json::to_vec(&map).is_ok_and(|json| json.len() <= MAX_METADATA_BYTES) => {
            map
        }
        Value::Object(_) => {
            fields.faults.add(place.at, format!("is more than {MAX_METADATA_BYTES} bytes of JSON"));
            Map::new()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            fields.faults.add(place.at, "must be an object");
            Map::new()
        }
    }
}

fn label_fits(key: &str, value: &str) -> Result<(), &'static str> {
    let key_fits = (1..=64).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
    let value_fits = value.len() <= 256 && !value.chars().any(char::is_control);
    if key_fits && value_fits {
        Ok(())
    } else {
        Err("labels have keys of 1 to 64 letters, digits, '.', '_', '-', '/' and values of at most 256 bytes")
    }
}

/// A URL of one of two schemes, with a host.
fn url_of(place: &Place<String>, [plain, secure]: [&str; 2], faults: &Faults) -> Option<Url> {
    let parsed = if place.value.len() > MAX_URL_BYTES {
        Err("is longer than 8192 bytes".to_owned())
    } else {
        Url::parse(place.value.trim()).map_err(|_| "is not a URL".to_owned())
    };
    let fits =
        |url: &Url| [plain, secure].contains(&url.scheme()) && url.host_str().is_some_and(|h| !h.is_empty());
    let fitting = parsed.and_then(|url| {
        if fits(&url) { Ok(url) } else { Err(format!("must be an {plain} or {secure} URL")) }
    });
    fitting.map_err(|detail| faults.add(place.at.as_str(), detail)).ok()
}

/// An http(s) URL as it may be shown (no userinfo, no fragment, no query), and whole where that hides something.
fn http_url(place: &Place<String>, faults: &Faults) -> Option<(String, Option<String>)> {
    let mut url = url_of(place, ["http", "https"], faults)?;
    url.set_fragment(None);
    let whole = url.as_str().to_owned();
    let hides = url.query().is_some() || !url.username().is_empty() || url.password().is_some();
    let queried = url.query().is_some();
    // These only fail for URLs without a host.
    let _ = (url.set_username(""), url.set_password(None));
    url.set_query(None);
    let shown = if queried { format!("{url}?…") } else { url.to_string() };
    Some((shown, hides.then_some(whole)))
}

/// An ftp(s) URL without its login, and the login that stands in it or beside it.
fn ftp_url(
    place: &Place<String>,
    username: Option<Place<String>>,
    password: Option<Place<String>>,
    faults: &Faults,
) -> Option<(String, Option<Credentials>)> {
    let refuse = |detail: &str| {
        faults.add(place.at.as_str(), detail);
        None
    };
    let mut url = url_of(place, ["ftp", "ftps"], faults)?;
    if url.path().ends_with('/') || url.query().is_some() || url.fragment().is_some() {
        return refuse("must name a file, without query and fragment");
    }
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let within = (!url.username().is_empty())
        .then(|| (decoded(url.username()), url.password().map(decoded).unwrap_or_default()));
    let _ = (url.set_username(""), url.set_password(None));
    // What is spoken over the control connection must stay one line.
    let lines = |text: &str| text.chars().any(char::is_control);
    if lines(&decoded(url.path())) {
        return refuse("has a control character");
    }
    let beside = match (username, password) {
        (None, None) => None,
        (None, Some(password)) => {
            faults.add(password.at, "needs username as well");
            return None;
        }
        (Some(username), _) if within.is_some() => {
            faults.add(username.at, "cannot stand beside a login in the URL");
            return None;
        }
        (Some(username), password) => {
            let password = match password {
                Some(place) => bucket::secret(place, faults)?,
                None => String::new(),
            };
            Some((bucket::secret(username, faults)?, password))
        }
    };
    let login = within.or(beside);
    if login.as_ref().is_some_and(|(username, password)| lines(username) || lines(password)) {
        return refuse("has a control character in its login");
    }
    let credentials = login.map(|(username, password)| Credentials::Login { username, password });
    Some((url.into(), credentials))
}

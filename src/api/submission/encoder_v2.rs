//! The flat output fields of Encoder v2, mapped value by value (MEDIA-RULES §4) to those of a preset.

use serde_json::{Map, Value, json};

use crate::api::fields::{Fields, Place};
use crate::domain::Fault;

/// What a flat field means. The left side is the spelling with underscores; [`Fields`] takes the camel-case one too.
const FLAT: [(&str, &str, &str); 6] = [
    ("video_codec", "video", "codec"),
    ("video_bitrate", "video", "bitrate"),
    ("width", "video", "width"),
    ("height", "video", "height"),
    ("audio_codec", "audio", "codec"),
    ("audio_bitrate", "audio", "bitrate"),
];

/// Where a fault about a canonical field belongs in the body that was sent.
#[derive(Default)]
pub(super) struct Spellings(Vec<(String, String)>);

impl Spellings {
    /// Points faults, which are relative to the output, to what the client wrote.
    pub(super) fn apply(&self, at: &str, faults: Vec<Fault>) -> Vec<Fault> {
        let told = |mut fault: Fault| {
            let spelled = self.0.iter().find(|(canonical, _)| fault.pointer == *canonical);
            if let Some((_, spelled)) = spelled {
                fault.pointer = spelled.strip_prefix(at).unwrap_or(spelled).to_owned();
            }
            fault
        };
        faults.into_iter().map(told).collect()
    }
}

/// Takes the flat fields of an output and returns them as canonical overrides.
pub(super) fn overrides(fields: &mut Fields<'_>) -> (Map<String, Value>, Spellings, Vec<String>) {
    let mut made = Map::new();
    let mut spellings = Spellings::default();
    for (flat, section, name) in FLAT {
        let Some(place) = fields.take(flat) else { continue };
        if fields.has(section) {
            fields.faults.add(place.at, format!("cannot stand beside \"{section}\""));
            continue;
        }
        spellings.0.push((format!("/{section}/{name}"), place.at.clone()));
        if flat == "video_bitrate" {
            // A bit rate in one word is read as a rate with a target.
            spellings.0.push(("/video/rate/target".to_owned(), place.at.clone()));
        }
        let Some(value) = value(flat, place, fields) else { continue };
        let section = made.entry(section).or_insert_with(|| json!({}));
        section[name] = value;
    }
    if let Some(place) = fields.either_value("container", "format") {
        spellings.0.push(("/container".to_owned(), place.at));
        made.insert("container".to_owned(), place.value);
    }
    if let Some(place) = fields.take("extra_args") {
        let nothing = match &place.value {
            Value::Array(items) => items.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        };
        if !nothing {
            fields.faults.add(place.at, "raw ffmpeg arguments are not accepted");
        }
    }
    let mut warnings = Vec::new();
    let silent = made.contains_key("video") && !made.contains_key("audio");
    if silent && !fields.has("audio") && !fields.has("preset") {
        warnings.push("no audio codec was asked for, so the result has no sound".to_owned());
    }
    (made, spellings, warnings)
}

/// The value as a preset spells it; `None` = a fault was left.
fn value(flat: &str, place: Place<Value>, fields: &Fields<'_>) -> Option<Value> {
    let Some(name) = place.value.as_str() else { return Some(place.value) };
    let known = match flat {
        "video_codec" => match name {
            "libx264" | "h264" => "h264",
            "libx265" | "h265" | "hevc" => "hevc",
            "libvpx-vp9" | "vp9" => "vp9",
            "libsvtav1" | "libaom-av1" | "librav1e" | "av1" => "av1",
            "copy" => "copy",
            _ => {
                let detail = "must be a name of h264, hevc, vp9 or av1 (libx264, libx265, libvpx-vp9, libsvtav1 …) or copy";
                fields.faults.add(place.at, detail);
                return None;
            }
        },
        "audio_codec" => match name {
            "aac" | "libfdk_aac" => "aac",
            "libopus" | "opus" => "opus",
            "libmp3lame" | "mp3" => "mp3",
            // The reader of presets says which it knows.
            other => other,
        },
        _ => return Some(place.value),
    };
    Some(Value::from(known))
}

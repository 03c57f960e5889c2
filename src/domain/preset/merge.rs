//! One setting laid over another: a preset over the one it extends, a request over a preset.
//!
//! Objects merge field by field; arrays and `rate` are replaced; null takes a field away (as in RFC 7396).
//! Fields that only make sense together go together: see [`over`].

use serde_json::{Map, Value, json};

use super::VideoCodec;
use super::read::default_rate;
use crate::domain::Fault;

/// Replaces the short forms `video.bitrate` and `video.crf` by the `rate` they stand for.
pub(super) fn spell_out(document: &mut Map<String, Value>) -> Vec<Fault> {
    let Some(Value::Object(video)) = document.get_mut("video") else {
        return Vec::new();
    };
    let (bitrate, crf) = (take(video, "bitrate"), take(video, "crf"));
    let rate = match (bitrate, crf) {
        (None, None) => return Vec::new(),
        (Some(_), Some(_)) => {
            return vec![Fault::new("/video/crf", "crf and bitrate exclude each other; give one")];
        }
        (Some(target), None) => json!({ "mode": "bitrate", "target": target }),
        (None, Some(crf)) => json!({ "mode": "crf", "crf": crf }),
    };
    if video.get("rate").is_some_and(|r| !r.is_null()) {
        return vec![Fault::new("/video/rate", "rate excludes the short forms crf and bitrate; give one")];
    }
    video.insert("rate".to_owned(), rate);
    Vec::new()
}

/// Lays `upper` over `base`. Beside plain merging: a new size replaces the old one whatever its spelling, and a new
/// codec takes away what was chosen for the old one (profile, level, B-frames, the quality number), `copy` all of it.
pub(super) fn over(base: &mut Map<String, Value>, mut upper: Map<String, Value>) {
    if upper.get("video").is_some_and(|video| video.is_null() || video["codec"] == "copy") {
        // A poster is made of what is encoded.
        base.remove("poster");
    }
    for section in ["video", "audio"] {
        let copies = upper.get(section).is_some_and(|new| new.get("codec") == Some(&json!("copy")));
        if let Some(Value::Object(old)) = base.get_mut(section).filter(|_| copies) {
            // How it would have been encoded means nothing any more.
            old.retain(|field, _| field == "required");
        }
    }
    if let (Some(Value::Object(old)), Some(Value::Object(new))) =
        (base.get_mut("video"), upper.get_mut("video"))
    {
        if ["box", "width", "height"].iter().any(|side| new.contains_key(*side)) {
            for side in ["box", "width", "height"] {
                old.remove(side);
            }
        }
        let changed = new.get("codec").is_some_and(|codec| old.get("codec") != Some(codec));
        if changed {
            old.remove("profile");
            old.remove("level");
            old.remove("bframes");
            requalify(old, new.get("codec"));
        }
        if new.contains_key("rate") {
            old.remove("rate");
        }
    }
    if let (Some(Value::Object(old)), Some(Value::Object(new))) =
        (base.get_mut("stills"), upper.get("stills"))
    {
        let ways = ["at", "every_seconds", "every_percent", "count"];
        if ways.iter().any(|way| new.contains_key(*way)) {
            for way in ways {
                old.remove(way);
            }
        }
    }
    merge(base, upper);
}

/// Quality numbers of one codec mean something else to another: take the new codec's default.
fn requalify(old: &mut Map<String, Value>, codec: Option<&Value>) {
    let codec = codec.and_then(|name| serde_json::from_value::<VideoCodec>(name.clone()).ok());
    let quality = codec.map(default_rate).and_then(|rate| serde_json::to_value(rate).ok());
    if let (Some(Value::Object(rate)), Some(quality)) = (old.get_mut("rate"), quality)
        && rate.contains_key("crf")
    {
        rate.insert("crf".to_owned(), quality["crf"].clone());
    }
}

fn merge(base: &mut Map<String, Value>, upper: Map<String, Value>) {
    for (key, value) in upper {
        match (base.get_mut(&key), value) {
            (_, Value::Null) => {
                base.remove(&key);
            }
            (Some(Value::Object(below)), Value::Object(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn take(map: &mut Map<String, Value>, key: &str) -> Option<Value> {
    map.remove(key).filter(|value| !value.is_null())
}

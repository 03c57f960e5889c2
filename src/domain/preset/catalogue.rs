//! Named presets: the built-in ones and those of the operator's file.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{EncodeSpec, merge, read};
use crate::domain::Fault;

/// A preset's name: 1 to 64 of `[a-z0-9_-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PresetName(String);

impl PresetName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PresetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PresetName {
    type Err = InvalidPreset;
    fn from_str(text: &str) -> Result<Self, InvalidPreset> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for PresetName {
    type Error = InvalidPreset;
    fn try_from(text: String) -> Result<Self, InvalidPreset> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
        if fits { Ok(Self(text)) } else { Err(InvalidPreset::Name(text)) }
    }
}

impl From<PresetName> for String {
    fn from(name: PresetName) -> Self {
        name.0
    }
}

/// Why a preset is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPreset {
    /// Not a name.
    #[error("{0:?} is not a preset name (1 to 64 of a-z, 0-9, '_', '-')")]
    Name(String),
    /// The document cannot be read at all.
    #[error("the presets are not valid TOML: {0}")]
    Syntax(String),
    /// A field is wrong.
    #[error("{path}: {reason}")]
    Field {
        /// Dotted path below the document.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl InvalidPreset {
    fn field(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field { path: path.into(), reason: reason.into() }
    }
}

/// The built-in presets; also the reference of the format.
const BUILTIN: &str = include_str!("../../../config/presets/builtin.toml");

/// All presets of this process, resolved.
#[derive(Debug, Clone, Default)]
pub struct Presets {
    /// By name: description and resolved setting.
    entries: BTreeMap<PresetName, (String, EncodeSpec)>,
}

impl Presets {
    /// The presets every flux has.
    #[must_use]
    pub fn builtin() -> Self {
        // The embedded document is proved good by a test of this file.
        Self::default().with_document(BUILTIN).unwrap_or_default()
    }

    /// Adds the presets of a TOML document. A name that exists is only taken over with `replace = true`.
    ///
    /// # Errors
    /// Every fault of the document; nothing of it is used then.
    pub fn with_document(mut self, toml_text: &str) -> Result<Self, Vec<InvalidPreset>> {
        let document: Document = toml::from_str(toml_text)
            .map_err(|err| vec![InvalidPreset::Syntax(err.to_string().trim().to_owned())])?;
        let mut faults = Vec::new();
        let mut waiting = BTreeMap::new();
        for (text, body) in document.presets {
            match read_entry(&text, body) {
                Ok((name, raw)) => {
                    if self.entries.contains_key(&name) && !raw.replace {
                        let reason = "there is a preset of this name; say `replace = true` to take its place";
                        faults.push(InvalidPreset::field(format!("presets.{name}"), reason));
                    }
                    waiting.insert(name, raw);
                }
                Err(found) => faults.extend(found),
            }
        }
        // A preset may extend one that stands later in the document: go round until nothing moves.
        loop {
            let ready: Vec<PresetName> = waiting
                .iter()
                .filter(|(name, raw)| match &raw.extends {
                    // A replacement may extend what it replaces.
                    Some(parent) => !waiting.contains_key(parent) || parent == *name,
                    None => true,
                })
                .map(|(name, _)| name.clone())
                .collect();
            if ready.is_empty() {
                break;
            }
            for name in ready {
                let Some(raw) = waiting.remove(&name) else {
                    continue;
                };
                match self.finish(&name, raw) {
                    Ok(entry) => {
                        self.entries.insert(name, entry);
                    }
                    Err(found) => faults.extend(found),
                }
            }
        }
        for name in waiting.keys() {
            faults.push(InvalidPreset::field(
                format!("presets.{name}.extends"),
                "the presets extend each other in a circle",
            ));
        }
        if faults.is_empty() { Ok(self) } else { Err(faults) }
    }

    fn finish(&self, name: &PresetName, raw: Raw) -> Result<(String, EncodeSpec), Vec<InvalidPreset>> {
        let mut document = Map::new();
        if let Some(parent) = &raw.extends {
            let Some((_, spec)) = self.entries.get(parent) else {
                let reason = format!("no preset is named \"{parent}\"");
                return Err(vec![InvalidPreset::field(format!("presets.{name}.extends"), reason)]);
            };
            document = as_document(spec);
        }
        let mut body = raw.body;
        let mut faults = merge::spell_out(&mut body);
        merge::over(&mut document, body);
        let spec = read::encode_spec(document).map_err(|more| faults.extend(more)).ok();
        match spec {
            Some(spec) if faults.is_empty() => Ok((raw.description, spec)),
            _ => Err(faults
                .into_iter()
                .map(|f| {
                    InvalidPreset::field(format!("presets.{name}{}", f.pointer.replace('/', ".")), f.detail)
                })
                .collect()),
        }
    }

    /// A preset's setting.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&EncodeSpec> {
        self.entry(name).map(|(_, spec)| spec)
    }

    /// A preset's line for people.
    #[must_use]
    pub fn description(&self, name: &str) -> Option<&str> {
        self.entry(name).map(|(description, _)| description.as_str())
    }

    fn entry(&self, name: &str) -> Option<&(String, EncodeSpec)> {
        self.entries.get(&PresetName::from_str(name).ok()?)
    }

    /// All presets by name.
    pub fn iter(&self) -> impl Iterator<Item = (&PresetName, &str, &EncodeSpec)> {
        self.entries.iter().map(|(name, (description, spec))| (name, description.as_str(), spec))
    }

    /// Up to three names that a misspelt one may have meant, likeliest first.
    #[must_use]
    pub fn near(&self, name: &str) -> Vec<&PresetName> {
        /// Jaro-Winkler similarity below which a suggestion would only puzzle.
        const ALIKE: f64 = 0.75;
        let name = name.to_ascii_lowercase();
        let mut ranked: Vec<_> =
            self.entries.keys().map(|known| (strsim::jaro_winkler(&name, known.as_str()), known)).collect();
        ranked.retain(|(likeness, _)| *likeness >= ALIKE);
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranked.into_iter().take(3).map(|(_, known)| known).collect()
    }

    /// The setting of an output: a preset with the request's fields over it, or the request's fields alone.
    ///
    /// `overrides` is the output object without `preset` and `destination`. Objects merge, arrays and `rate`
    /// replace, null removes; the container of a preset stays (MEDIA-RULES §3).
    ///
    /// # Errors
    /// Every fault, with pointers relative to the output object.
    pub fn resolve(
        &self,
        name: Option<&str>,
        mut overrides: Map<String, Value>,
    ) -> Result<EncodeSpec, Vec<Fault>> {
        let mut faults = merge::spell_out(&mut overrides);
        let mut document = Map::new();
        if let Some(name) = name {
            let Some(preset) = self.get(name) else {
                faults.push(Fault::new("/preset", self.unknown(name)));
                return Err(faults);
            };
            // Most requests change nothing of a preset; it was checked when it was read.
            if overrides.is_empty() {
                return Ok(preset.clone());
            }
            if let Some(container) = overrides.remove("container")
                && container.as_str() != Some(preset.container.name())
            {
                let kept = preset.container.name();
                faults.push(Fault::new(
                    "/container",
                    format!("the preset's container ({kept}) cannot be changed"),
                ));
            }
            document = as_document(preset);
        }
        merge::over(&mut document, overrides);
        match read::encode_spec(document) {
            Ok(spec) if faults.is_empty() => Ok(spec),
            Ok(_) => Err(faults),
            Err(more) => Err(faults.into_iter().chain(more).collect()),
        }
    }

    fn unknown(&self, name: &str) -> String {
        let near: Vec<_> = self.near(name).into_iter().map(PresetName::as_str).collect();
        match near.as_slice() {
            [] => "there is no such preset; GET /presets lists them".to_owned(),
            some => format!("there is no such preset; near names: {}", some.join(", ")),
        }
    }
}

/// A presets file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    presets: BTreeMap<String, Value>,
}

/// A preset as written, before what it extends is known.
struct Raw {
    description: String,
    extends: Option<PresetName>,
    replace: bool,
    /// Container, video, audio.
    body: Map<String, Value>,
}

fn read_entry(text: &str, body: Value) -> Result<(PresetName, Raw), Vec<InvalidPreset>> {
    let name = PresetName::from_str(text).map_err(|err| vec![err])?;
    let Value::Object(mut body) = body else {
        return Err(vec![InvalidPreset::field(format!("presets.{name}"), "is not a table")]);
    };
    let mut faults = Vec::new();
    let mut field =
        |key: &str, reason: &str| faults.push(InvalidPreset::field(format!("presets.{name}.{key}"), reason));
    let description = match body.remove("description") {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(_) => {
            field("description", "is not a text");
            String::new()
        }
    };
    let extends = match body.remove("extends") {
        None => None,
        Some(parent) => {
            let parent = parent.as_str().and_then(|text| PresetName::from_str(text).ok());
            if parent.is_none() {
                field("extends", "is not the name of a preset");
            }
            parent
        }
    };
    let replace = match body.remove("replace") {
        None => false,
        Some(Value::Bool(replace)) => replace,
        Some(_) => {
            field("replace", "is not true or false");
            false
        }
    };
    if faults.is_empty() { Ok((name, Raw { description, extends, replace, body })) } else { Err(faults) }
}

fn as_document(spec: &EncodeSpec) -> Map<String, Value> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(map)) => map,
        // The type is a struct of plain values, so neither can happen; an empty document is refused by the reader.
        Ok(_) | Err(_) => Map::new(),
    }
}

#[cfg(test)]
mod tests;

//! Sets of text: one file of WebVTT for all of a presentation. Other text is only fetched.

use super::super::text::{self, is_language};
use super::super::xml::Element;
use super::{Reader, Rule};

/// Roles that say what text is for.
const ROLES: [&str; 4] = ["subtitle", "caption", "forced-subtitle", "forced_subtitle"];

/// Whether a representation is text. `path` leads to it from the root.
pub(super) fn is_text(path: &[&Element; 4]) -> bool {
    let inherited = |name: &str| path.iter().rev().find_map(|element| element.get(name)).unwrap_or_default();
    let (mime, codecs) = (inherited("mimeType"), inherited("codecs"));
    inherited("contentType") == "text"
        || mime.starts_with("text/")
        || mime == "application/ttml+xml"
        || codecs.starts_with("wvtt")
        || codecs.starts_with("stpp")
}

impl Reader<'_, '_> {
    /// What an adaptation set says of itself.
    pub(super) fn set(&mut self, set: &Element) {
        let name = set.get("id").or(set.get("lang")).unwrap_or_default();
        let place = format!("{} AdaptationSet \"{name}\"", self.entry);
        if let Some(tag) = set.get("lang").filter(|tag| !is_language(tag)) {
            let said = format!("lang=\"{tag}\"");
            self.session.find(Rule::LanguageTag, &*place, said, "a language tag such as \"en\"");
        }
        let is_text = |element: &Element| {
            element.get("contentType") == Some("text")
                || element.get("mimeType").is_some_and(|mime| mime.starts_with("text/"))
        };
        if !is_text(set) && !set.all("Representation").any(is_text) {
            return;
        }
        if set.get("lang").is_none() {
            self.session.find(Rule::Language, &*place, "no lang", "a language tag such as \"en\"");
        }
        let role = |role: &Element| {
            role.get("schemeIdUri") == Some("urn:mpeg:dash:role:2011")
                && role.get("value").is_some_and(|value| ROLES.contains(&value))
        };
        if !set.all("Role").any(role) {
            self.session.find(Rule::Role, place, "none for text", "subtitle, caption or forced-subtitle");
        }
    }

    /// Reads the file of a representation of text; of what is no WebVTT only whether it can be read.
    pub(super) fn text(&mut self, place: &str, file: &str, path: &[&Element; 4]) {
        if path.iter().all(|element| element.child("BaseURL").is_none()) {
            self.syntax(place, "text without a BaseURL", "one, which leads to the file");
            return;
        }
        self.texts += 1;
        if path.iter().rev().find_map(|element| element.get("mimeType")) != Some("text/vtt") {
            let _ = self.session.read(file, None);
            return;
        }
        let Some(document) = text::file(self.session, file, None) else { return };
        let late = document.cues.iter().find(|cue| self.total.is_some_and(|end| cue.start.seconds() >= end));
        if let (Some(cue), Some(end)) = (late, self.total) {
            let said = format!("a cue at {}", cue.start);
            self.session.find(Rule::CuePlace, file, said, format!("cues that begin before {end:.3} s"));
        }
    }
}

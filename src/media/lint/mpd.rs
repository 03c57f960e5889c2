//! MPDs (ISO 23009-1): what they must say, and the renditions that they tell of.

mod segments;
mod text;

use std::sync::Arc;

use super::fetch::Fetched;
use super::measure::Init;
use super::stream::{Claim, Manifest, Part, Stream};
use super::xml::{self, Element};
use super::{Rule, Session};

/// What tells of segments.
const SEGMENTED: [&str; 3] = ["SegmentTemplate", "SegmentList", "SegmentBase"];

/// Checks an MPD and all that it names.
pub(super) fn check(session: &mut Session<'_>, entry: &str, text: &str, document: &Fetched) -> Vec<Stream> {
    if let Some(served) = &document.served {
        let kind = served.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind != "application/dash+xml" {
            let said = format!("Content-Type \"{kind}\"");
            session.find(Rule::ContentType, entry, said, "application/dash+xml");
        }
    }
    let mpd = match xml::parse(text) {
        Ok(root) if root.name == "MPD" => root,
        Ok(root) => {
            session.find(Rule::MpdSyntax, entry, format!("<{}>", root.name), "<MPD>");
            return Vec::new();
        }
        Err(error) => {
            session.find(Rule::MpdSyntax, entry, error, "XML");
            return Vec::new();
        }
    };
    if mpd.get("type").unwrap_or("static") != "static" {
        session.find(Rule::MpdSyntax, entry, "type=\"dynamic\"", "type=\"static\"");
    }
    if mpd.get("minBufferTime").and_then(duration).is_none() {
        session.find(Rule::MpdSyntax, entry, "no minBufferTime", "a duration");
    }
    if mpd.get("profiles").is_none() {
        session.find(Rule::MpdSyntax, entry, "no profiles", "a list of profiles");
    }
    let total = mpd.get("mediaPresentationDuration").and_then(duration);
    let mut reader = Reader { session, entry, total, streams: Vec::new(), texts: 0 };
    for period in mpd.all("Period") {
        for set in period.all("AdaptationSet") {
            reader.set(set);
            for representation in set.all("Representation") {
                reader.representation(&[&mpd, period, set, representation]);
            }
        }
    }
    let (streams, texts) = (reader.streams, reader.texts);
    session.report.renditions += texts;
    if streams.is_empty() {
        session.find(Rule::MpdSyntax, entry, "no representation with segments", "one at least");
    }
    let longest = streams.iter().filter(|stream| stream.is_whole()).map(Stream::duration).fold(0.0, f64::max);
    let frame = streams.iter().map(Stream::frame).fold(0.0, f64::max);
    match mpd.get("mediaPresentationDuration").and_then(duration) {
        None => {
            session.find(Rule::MpdDuration, entry, "no mediaPresentationDuration", format!("{longest:.3} s"));
        }
        Some(told) if longest > 0.0 && (told - longest).abs() > frame + 0.001 => {
            session.find(Rule::MpdDuration, entry, format!("{told:.3} s"), format!("{longest:.3} s"));
        }
        Some(_) => {}
    }
    streams
}

/// `PT1H2M3.5S` in seconds; calendar parts have no fixed length and are refused.
fn duration(text: &str) -> Option<f64> {
    let mut rest = text.strip_prefix("PT")?;
    let mut seconds = 0.0;
    for (unit, length) in [('H', 3600.0), ('M', 60.0), ('S', 1.0)] {
        if let Some((number, after)) = rest.split_once(unit) {
            seconds += number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0)? * length;
            rest = after;
        }
    }
    rest.is_empty().then_some(seconds)
}

struct Reader<'s, 'f> {
    session: &'s mut Session<'f>,
    entry: &'s str,
    /// Seconds that the MPD says it lasts.
    total: Option<f64>,
    streams: Vec<Stream>,
    /// Files of text.
    texts: usize,
}

/// A segment before it is read: reference, range, length and beginning in seconds.
struct Listed {
    uri: String,
    range: Option<(u64, u64)>,
    claimed: f64,
    /// `None` where the MPD says it only roughly.
    begins: Option<f64>,
}

impl Reader<'_, '_> {
    /// Reads a representation; `path` leads to it from the root.
    fn representation(&mut self, path: &[&Element; 4]) {
        let inherited = |name: &str| path.iter().rev().find_map(|element| element.get(name));
        let [.., representation] = path;
        let id = representation.get("id").unwrap_or_default();
        let place = format!("{} Representation \"{id}\"", self.entry);
        let Some(base) = self.base(path) else { return };
        let number = |name: &str| inherited(name).and_then(|value| value.parse().ok());
        let resolution = number("width").zip(number("height")).map(|(w, h): (u64, u64)| format!("{w}x{h}"));
        let claim = Claim {
            place: place.clone(),
            codecs: inherited("codecs").map(str::to_owned),
            bandwidth: number("bandwidth"),
            resolution,
            frame_rate: inherited("frameRate").map(str::to_owned),
            ..Claim::default()
        };
        if id.is_empty() || claim.bandwidth.is_none() || inherited("mimeType").is_none() {
            self.session.find(Rule::MpdSyntax, &*place, "no id, bandwidth or mimeType", "all of them");
        }
        let is_text = text::is_text(path);
        if is_text && SEGMENTED.iter().all(|name| nearest(path, name).is_none()) {
            self.text(&place, &base, path);
            return;
        }
        let parts = if let Some(template) = nearest(path, "SegmentTemplate") {
            self.template(&place, &base, template, id, claim.bandwidth)
        } else if let Some(list) = nearest(path, "SegmentList") {
            self.list(&place, &base, list)
        } else {
            self.indexed(&place, &base, nearest(path, "SegmentBase"))
        };
        // Text in MP4 is read, and no more is known of it.
        let Some(parts) = parts.filter(|parts| !parts.is_empty() && !is_text) else { return };
        let longest = parts.iter().map(|part| part.claimed).fold(0.0, f64::max);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "f64 to integer saturates"
        )]
        let target = longest.round().max(1.0) as u32;
        let claims = vec![claim];
        self.streams.push(Stream { place, manifest: Manifest::Dash, claims, segments: parts, target });
    }

    /// Where references are resolved from: `BaseURL`s, from the root down.
    fn base(&mut self, path: &[&Element; 4]) -> Option<String> {
        let mut base = self.entry.to_owned();
        for url in path.iter().filter_map(|element| element.child("BaseURL")) {
            base = self.resolve(&base, &url.text)?;
        }
        Some(base)
    }

    fn resolve(&mut self, base: &str, reference: &str) -> Option<String> {
        let place = self.session.fetch.resolve(base, reference);
        if place.is_none() {
            let said = format!("a reference to {reference:?}");
            self.session.find(Rule::Fetch, base, said, "one that may be read");
        }
        place
    }

    fn syntax(&mut self, place: &str, measured: &str, expected: &str) {
        self.session.find(Rule::MpdSyntax, place, measured, expected);
    }

    fn read(&mut self, place: &str, base: &str, init: &Arc<Init>, listed: Vec<Listed>) -> Option<Vec<Part>> {
        let mut parts = Vec::new();
        for (n, Listed { uri, range, claimed, begins }) in listed.into_iter().enumerate() {
            let file = if uri.is_empty() { base.to_owned() } else { self.resolve(base, &uri)? };
            let measured = self.session.segment(Some(init), &file, range);
            let place = format!("{place} segment {n}");
            parts.push(Part { place, claimed, begins, measured });
        }
        Some(parts)
    }
}

/// The element of that name nearest to the representation.
fn nearest<'a>(path: &[&'a Element; 4], name: &str) -> Option<&'a Element> {
    path.iter().rev().find_map(|element| element.child(name))
}

#[expect(clippy::cast_precision_loss, reason = "exact to far below a microsecond for any film")]
fn ratio(ticks: u64, timescale: u64) -> f64 {
    ticks as f64 / timescale as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_clock_times() {
        assert_eq!(duration("PT1H2M3.5S"), Some(3723.5));
        assert_eq!(duration("PT13.000000S"), Some(13.0));
        for bad in ["", "13", "P1D", "PT1X", "PT-1S", "PTNaNS"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}

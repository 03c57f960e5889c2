//! MPDs (ISO 23009-1): what they must say, and the renditions that they tell of.

use std::fmt::Write;
use std::sync::Arc;

use super::fetch::Fetched;
use super::measure::Init;
use super::stream::{Claim, Manifest, Part, Stream};
use super::xml::{self, Element};
use super::{Rule, Session};
use crate::media::boxes::{Fields, atoms};

/// Segments of one representation at most.
const MAX_SEGMENTS: usize = 100_000;

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
    let mut reader = Reader { session, entry, total, streams: Vec::new() };
    for period in mpd.all("Period") {
        for set in period.all("AdaptationSet") {
            for representation in set.all("Representation") {
                reader.representation(&[&mpd, period, set, representation]);
            }
        }
    }
    let streams = reader.streams;
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
        let parts = if let Some(template) = nearest(path, "SegmentTemplate") {
            self.template(&place, &base, template, id, claim.bandwidth)
        } else {
            self.indexed(&place, &base, nearest(path, "SegmentBase"))
        };
        let Some(parts) = parts.filter(|parts| !parts.is_empty()) else { return };
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

    fn template(
        &mut self,
        place: &str,
        base: &str,
        template: &Element,
        id: &str,
        bandwidth: Option<u64>,
    ) -> Option<Vec<Part>> {
        let timescale = template.number("timescale").filter(|&scale| scale > 0).unwrap_or(1);
        let (Some(media), Some(initialization)) = (template.get("media"), template.get("initialization"))
        else {
            self.syntax(place, "a SegmentTemplate without media or initialization", "both");
            return None;
        };
        let fill = |text: &str, n: u64, time: u64| filled(text, id, bandwidth.unwrap_or(0), n, time);
        let mut number = template.number("startNumber").unwrap_or(1);
        let zero = template.number("presentationTimeOffset").unwrap_or(0);
        let (mut listed, mut time) = (Vec::new(), 0_u64);
        let Some(timeline) = template.child("SegmentTimeline") else {
            let lengths = template.number("duration").and_then(|length| even(length, timescale, self.total?));
            let Some(lengths) = lengths else {
                self.syntax(place, "a SegmentTemplate without SegmentTimeline or duration", "one of them");
                return None;
            };
            for (n, claimed) in (number..).zip(lengths) {
                listed.push(Listed { uri: fill(media, n, 0), range: None, claimed, begins: None });
            }
            let init = self.resolve(base, &fill(initialization, 0, 0))?;
            let init = self.session.init(&init, None)?;
            return self.read(place, base, &init, listed);
        };
        for entry in timeline.all("S") {
            time = entry.number("t").unwrap_or(time);
            let Some(length) = entry.number("d").filter(|&length| length > 0) else {
                self.syntax(place, "an S without d", "its length");
                return None;
            };
            let more = match entry.get("r").map(str::parse::<u64>) {
                None => 0,
                Some(Ok(more)) => more,
                Some(Err(_)) => {
                    self.syntax(place, "an S whose r is no count", "how often it is repeated");
                    return None;
                }
            };
            for _ in 0..=more {
                if listed.len() >= MAX_SEGMENTS {
                    self.syntax(place, "too many segments", "at most 100000");
                    return None;
                }
                listed.push(Listed {
                    uri: fill(media, number, time),
                    range: None,
                    claimed: ratio(length, timescale),
                    begins: Some(ratio(time.saturating_sub(zero), timescale)),
                });
                number = number.saturating_add(1);
                time = time.saturating_add(length);
            }
        }
        let init = self.resolve(base, &fill(initialization, 0, 0))?;
        let init = self.session.init(&init, None)?;
        self.read(place, base, &init, listed)
    }

    /// A single file with a segment index.
    fn indexed(&mut self, place: &str, file: &str, segments: Option<&Element>) -> Option<Vec<Part>> {
        let range = |text: &str| {
            let (first, last) = text.split_once('-')?;
            let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
            Some((first, last.checked_sub(first)?.checked_add(1)?))
        };
        let index = segments.and_then(|base| base.get("indexRange")).and_then(range);
        let init = segments.and_then(|base| base.child("Initialization"));
        let init = init.and_then(|init| init.get("range")).and_then(range);
        let (Some(index), Some(init)) = (index, init) else {
            self.syntax(place, "neither a SegmentTemplate nor a SegmentBase with ranges", "one of them");
            return None;
        };
        let init = self.session.init(file, Some(init))?;
        let (from, size) = index;
        let bytes = self.session.read(file, Some(from..from.saturating_add(size)))?.bytes;
        let sidx = atoms(&bytes).find(|atom| atom.kind == *b"sidx" && atom.end == bytes.len());
        let Some(listed) = sidx.and_then(|sidx| entries(sidx.body, from.saturating_add(size))) else {
            self.session.find(Rule::MpdTimeline, place, "indexRange is no segment index", "exactly a sidx");
            return None;
        };
        let listed = listed.into_iter().map(|entry| Listed { uri: String::new(), ..entry }).collect();
        self.read(place, file, &init, listed)
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

/// Seconds of segments that are all as long but for the last (ISO 23009-1 §5.3.9.5.3).
fn even(length: u64, timescale: u64, total: f64) -> Option<Vec<f64>> {
    let length = Some(ratio(length, timescale)).filter(|&length| length > 0.0)?;
    let mut lengths = Vec::new();
    let mut left = total;
    // Less than a millisecond is rounding.
    while left > 0.001 {
        if lengths.len() >= MAX_SEGMENTS {
            return None;
        }
        lengths.push(length.min(left));
        left -= length;
    }
    Some(lengths)
}

/// ISO 23009-1 §5.3.9.4.4.
fn filled(template: &str, id: &str, bandwidth: u64, number: u64, time: u64) -> String {
    let mut text = String::new();
    let mut parts = template.split('$');
    text.push_str(parts.next().unwrap_or_default());
    while let (Some(name), Some(after)) = (parts.next(), parts.next()) {
        let (name, width) = match name.split_once("%0") {
            Some((name, format)) => (
                name,
                format.strip_suffix('d').and_then(|width| width.parse().ok()).unwrap_or(1_usize).min(20),
            ),
            None => (name, 1),
        };
        match name {
            "" => text.push('$'),
            "RepresentationID" => text.push_str(id),
            "Number" => number_into(&mut text, number, width),
            "Time" => number_into(&mut text, time, width),
            "Bandwidth" => number_into(&mut text, bandwidth, width),
            _ => {}
        }
        text.push_str(after);
    }
    text
}

fn number_into(text: &mut String, number: u64, width: usize) {
    let _ = write!(text, "{number:0width$}");
}

/// The subsegments of a `sidx` whose first byte after it is `anchor`.
fn entries(sidx: &[u8], anchor: u64) -> Option<Vec<Listed>> {
    let mut fields = Fields::new(sidx);
    let (version, _) = fields.full()?;
    fields.skip(4)?;
    let timescale = u64::from(fields.u32()?).max(1);
    let mut time = fields.wide(version)?;
    let mut offset = anchor.checked_add(fields.wide(version)?)?;
    fields.skip(2)?;
    let count = fields.u16()?;
    let mut listed = Vec::new();
    for _ in 0..count {
        let (size, length) = (fields.u32()?, u64::from(fields.u32()?));
        fields.skip(4)?;
        // The highest bit says that an index follows and not media.
        let size = Some(u64::from(size)).filter(|&size| size > 0 && size < 1 << 31)?;
        listed.push(Listed {
            uri: String::new(),
            range: Some((offset, size)),
            claimed: ratio(length, timescale),
            begins: Some(ratio(time, timescale)),
        });
        offset = offset.checked_add(size)?;
        time = time.checked_add(length)?;
    }
    Some(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_in() {
        assert_eq!(filled("$RepresentationID$_$Number%05d$.m4s", "720p", 0, 7, 0), "720p_00007.m4s");
        assert_eq!(filled("a$$b$Time$-$Bandwidth$", "", 5, 0, 90), "a$b90-5");
        assert_eq!(filled("plain.mp4", "x", 0, 0, 0), "plain.mp4");
    }

    #[test]
    fn segments_of_one_length_fill_the_presentation() {
        assert_eq!(even(4000, 1000, 9.0), Some(vec![4.0, 4.0, 1.0]));
        assert_eq!(even(4, 1, 8.0), Some(vec![4.0, 4.0]));
        assert_eq!(even(0, 1, 8.0), None);
        assert_eq!(even(1, 1_000_000, 1e9), None);
    }

    #[test]
    fn durations_are_clock_times() {
        assert_eq!(duration("PT1H2M3.5S"), Some(3723.5));
        assert_eq!(duration("PT13.000000S"), Some(13.0));
        for bad in ["", "13", "P1D", "PT1X", "PT-1S", "PTNaNS"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}

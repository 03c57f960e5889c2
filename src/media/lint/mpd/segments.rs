//! Segments as an MPD lists them: by a template, one by one, or by the index in their file.

use std::fmt::Write;

use super::super::stream::Part;
use super::super::xml::Element;
use super::super::{Rule, at};
use super::{Listed, Reader, ratio};
use crate::media::boxes::{Fields, atoms};

/// Segments of one representation at most.
const MAX_SEGMENTS: usize = 100_000;

impl Reader<'_, '_> {
    pub(super) fn template(
        &mut self,
        place: &str,
        base: &str,
        template: &Element,
        id: &str,
        bandwidth: Option<u64>,
    ) -> Option<Vec<Part>> {
        let (Some(media), Some(initialization)) = (template.get("media"), template.get("initialization"))
        else {
            self.syntax(place, "a SegmentTemplate without media or initialization", "both");
            return None;
        };
        let fill = |text: &str, n: u64, time: u64| filled(text, id, bandwidth.unwrap_or(0), n, time);
        let first = template.number("startNumber").unwrap_or(1);
        let Some(times) = self.times(place, template, None)? else {
            self.syntax(place, "a SegmentTemplate without SegmentTimeline or duration", "one of them");
            return None;
        };
        let listed = (0..).zip(times).map(|(n, Time { at, claimed, begins })| Listed {
            uri: fill(media, first.saturating_add(n), at),
            range: None,
            claimed,
            begins,
        });
        let init = self.resolve(base, &fill(initialization, 0, 0))?;
        let init = self.session.init(&init, None)?;
        self.read(place, base, &init, listed.collect())
    }

    /// Segments that are named one by one (ISO 23009-1 §5.3.9.3).
    pub(super) fn list(&mut self, place: &str, base: &str, list: &Element) -> Option<Vec<Part>> {
        let mut pieces = Vec::new();
        for url in list.all("SegmentURL") {
            let Ok(range) = ranged(url, "mediaRange") else {
                self.syntax(place, "a mediaRange that is none", "first-last");
                return None;
            };
            pieces.push((url.get("media").unwrap_or_default(), range));
        }
        if pieces.len() > MAX_SEGMENTS {
            self.syntax(place, "too many segments", "at most 100000");
            return None;
        }
        let Some(times) = self.times(place, list, Some(pieces.len()))? else {
            self.syntax(place, "a SegmentList without SegmentTimeline or duration", "one of them");
            return None;
        };
        if times.len() != pieces.len() {
            let said = format!("{} lengths for {} segments", times.len(), pieces.len());
            self.syntax(place, &said, "one for each");
            return None;
        }
        for pair in pieces.windows(2) {
            if let [(one, Some((from, size))), (two, Some(after))] = pair
                && one == two
                && after.0 < from.saturating_add(*size)
            {
                let file = if one.is_empty() { base } else { one };
                let said = format!("{}, which the segment before has too", at(file, Some(*after)));
                self.session.find(Rule::ByteRange, place, said, "ranges that do not overlap");
            }
        }
        let init = list.child("Initialization").map(|init| (init.get("sourceURL"), ranged(init, "range")));
        let Some((file, Ok(range))) = init else {
            self.syntax(place, "a SegmentList without an Initialization that can be read", "one");
            return None;
        };
        let file = match file {
            Some(file) => self.resolve(base, file)?,
            None => base.to_owned(),
        };
        let init = self.session.init(&file, range)?;
        let listed = pieces.into_iter().zip(times).map(|((uri, range), Time { claimed, begins, .. })| {
            Listed { uri: uri.to_owned(), range, claimed, begins }
        });
        self.read(place, base, &init, listed.collect())
    }

    /// A single file with a segment index.
    pub(super) fn indexed(
        &mut self,
        place: &str,
        file: &str,
        segments: Option<&Element>,
    ) -> Option<Vec<Part>> {
        let index = segments.and_then(|base| base.get("indexRange")).and_then(range);
        let init = segments.and_then(|base| base.child("Initialization"));
        let init = init.and_then(|init| init.get("range")).and_then(range);
        let (Some(index), Some(init)) = (index, init) else {
            let said = "neither a SegmentTemplate nor a SegmentList nor a SegmentBase with ranges";
            self.syntax(place, said, "one of them");
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

    /// When segments begin and how long they last: as a `SegmentTimeline` says, or all as long. `count` is how many there
    /// are, where that is known. The inner `None` says that the element tells nothing of times, the outer one that what it
    /// tells is a finding.
    #[expect(clippy::option_option, reason = "nothing said and something wrong said are different")]
    fn times(&mut self, place: &str, element: &Element, count: Option<usize>) -> Option<Option<Vec<Time>>> {
        let timescale = element.number("timescale").filter(|&scale| scale > 0).unwrap_or(1);
        let zero = element.number("presentationTimeOffset").unwrap_or(0);
        if let Some(timeline) = element.child("SegmentTimeline") {
            return self.timeline(place, timeline, timescale, zero).map(Some);
        }
        let even = match (element.number("duration"), count) {
            (Some(length), None) => self.total.and_then(|total| even(length, timescale, total)),
            (Some(length), Some(count)) => Some(counted(length, timescale, self.total, count)),
            // One segment may be all there is.
            (None, Some(1)) => self.total.map(|total| vec![total]),
            (None, _) => None,
        };
        let times = even.map(|lengths| {
            lengths.into_iter().map(|claimed| Time { at: 0, claimed, begins: None }).collect()
        });
        Some(times)
    }

    fn timeline(&mut self, place: &str, timeline: &Element, timescale: u64, zero: u64) -> Option<Vec<Time>> {
        let (mut times, mut time) = (Vec::new(), 0_u64);
        let mut entries = timeline.all("S").peekable();
        while let Some(entry) = entries.next() {
            time = entry.number("t").unwrap_or(time);
            let Some(length) = entry.number("d").filter(|&length| length > 0) else {
                self.syntax(place, "an S without d", "its length");
                return None;
            };
            let more = match entry.get("r").map(str::parse::<i64>) {
                None => 0,
                Some(Ok(more)) if more >= 0 => more.unsigned_abs(),
                Some(Ok(_)) => {
                    // To the next one, or to the end.
                    let next = entries.peek().and_then(|next| next.number("t"));
                    let Some(end) = next.or_else(|| Some(zero.saturating_add(ticks(self.total?, timescale))))
                    else {
                        self.syntax(place, "an S that is repeated to no end", "a count");
                        return None;
                    };
                    end.saturating_sub(time).div_ceil(length).saturating_sub(1)
                }
                Some(Err(_)) => {
                    self.syntax(place, "an S whose r is no count", "how often it is repeated");
                    return None;
                }
            };
            for _ in 0..=more {
                if times.len() >= MAX_SEGMENTS {
                    self.syntax(place, "too many segments", "at most 100000");
                    return None;
                }
                let begins = Some(ratio(time.saturating_sub(zero), timescale));
                times.push(Time { at: time, claimed: ratio(length, timescale), begins });
                time = time.saturating_add(length);
            }
        }
        Some(times)
    }
}

/// When a segment begins, ticks and seconds, and how long it lasts, seconds.
struct Time {
    at: u64,
    claimed: f64,
    /// `None` where the MPD says it only roughly.
    begins: Option<f64>,
}

/// `first-last` in bytes as offset and size.
fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    Some((first, last.checked_sub(first)?.checked_add(1)?))
}

/// The range in an attribute that may be left out.
fn ranged(element: &Element, name: &str) -> Result<Option<(u64, u64)>, ()> {
    element.get(name).map(|text| range(text).ok_or(())).transpose()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "f64 to integer saturates"
)]
fn ticks(seconds: f64, timescale: u64) -> u64 {
    (seconds * timescale as f64).round() as u64
}

/// Seconds of so many segments that are all as long but for the last.
fn counted(length: u64, timescale: u64, total: Option<f64>, count: usize) -> Vec<f64> {
    let length = ratio(length, timescale);
    let mut left = total.unwrap_or(f64::INFINITY);
    let lengths = (0..count).map(|_| {
        let this = length.min(left).max(0.0);
        left -= length;
        this
    });
    lengths.collect()
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
}

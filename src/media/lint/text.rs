//! Subtitles: files of WebVTT, by themselves and cut into segments.

use std::collections::BTreeSet;

use super::stream::Stream;
use super::{Rule, Session, at};
use crate::media::webvtt::{self, Document, Moment, TimestampMap, Wrong};

/// Seconds that a cue may reach into a segment without being in it: rounding of EXTINF and of milliseconds.
const SLACK: f64 = 0.05;
/// How far the cues' zero may be from the media's, ticks of 1/90000 s: a millisecond.
const MAP_SLACK: i64 = 90;
/// MPEG's clock begins anew after so many ticks.
const CLOCK_END: i64 = 1 << 33;

/// Reads a file of text and checks what can be seen in it alone.
pub(super) fn file(session: &mut Session<'_>, place: &str, range: Option<(u64, u64)>) -> Option<Document> {
    let fetched = session.read(place, range.map(|(offset, size)| offset..offset.saturating_add(size)))?;
    if let Some(served) = &fetched.served {
        let kind = served.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind != "text/vtt" {
            session.find(Rule::ContentType, place, format!("Content-Type \"{kind}\""), "text/vtt");
        }
    }
    session.texts += 1;
    let place = at(place, range);
    let Ok(text) = std::str::from_utf8(&fetched.bytes) else {
        session.find(Rule::WebVtt, place, "bytes that are no UTF-8", "text in UTF-8");
        return None;
    };
    let document = match webvtt::read(text) {
        Ok(document) => document,
        Err(fault) => {
            let place = format!("{place}:{}", fault.line);
            let (rule, expected) = match fault.what {
                Wrong::EndsTooSoon => (Rule::CueTimes, "a later end"),
                _ => (Rule::WebVtt, "a file as W3C describes it"),
            };
            session.find(rule, place, fault.what.to_string(), expected);
            return None;
        }
    };
    if let Some(pair) = document.cues.windows(2).find(|pair| pair[0].start > pair[1].start) {
        let said = format!("a cue at {} behind one at {}", pair[1].start, pair[0].start);
        session.find(Rule::CueTimes, &*place, said, "the order of their beginnings");
    }
    if let Some(cue) = document.cues.iter().find(|cue| cue.has_controls()) {
        let said = format!("control characters in the cue at {}", cue.start);
        session.find(Rule::CueText, place, said, "text");
    }
    Some(document)
}

/// Where cues' zero must be: the beginning of the media, ticks of 1/90000 s. `None` without media.
pub(super) fn zero(streams: &[Stream]) -> Option<i64> {
    let playable = || streams.iter().filter(|stream| stream.plays());
    let leader = playable().find(|stream| stream.is_video()).or(playable().next())?;
    let first = leader.segments.first()?.measured.as_deref()?;
    // Fragmented MP4 begins at 0, and where it does not, that is a finding of its own.
    Some(if first.facts.transport { first.start } else { 0 })
}

/// What makes a cue the same in two segments.
type Key = (Moment, Moment, String);

/// Follows the segments of one rendition.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Where the media begin; the first segment says it where there are none.
    pub(super) zero: Option<i64>,
    /// Where the next segment begins, seconds.
    pub(super) begin: f64,
    /// Cues that are shown behind the end of the segment before; `None` when that could not be read.
    reaching: Option<BTreeSet<Key>>,
}

impl Segments {
    pub(super) fn new(zero: Option<i64>) -> Self {
        Self { zero, begin: 0.0, reaching: Some(BTreeSet::new()) }
    }

    /// Checks the next segment, of that many seconds; `None` is one that could not be read.
    pub(super) fn next(
        &mut self,
        session: &mut Session<'_>,
        place: &str,
        length: f64,
        document: Option<Document>,
    ) {
        let begin = self.begin;
        let end = begin + length;
        self.begin = end;
        let before = self.reaching.take();
        let Some(document) = document else { return };
        if !self.map(session, place, document.timestamp_map) {
            return;
        }
        let mut reaching = BTreeSet::new();
        let mut here = BTreeSet::new();
        let mut fault = None;
        for cue in document.cues {
            let (from, to) = (cue.start.seconds(), cue.end.seconds());
            let shown = || format!("the cue from {} to {}", cue.start, cue.end);
            let key = (cue.start, cue.end, cue.payload);
            let known = before.as_ref().is_none_or(|before| before.contains(&key));
            if from >= end + SLACK || to <= begin - SLACK {
                fault.get_or_insert_with(|| (shown(), "cues of its time alone"));
            } else if from < begin - SLACK && !known {
                fault.get_or_insert_with(|| (shown(), "it in the segment before as well"));
            }
            if to > end + SLACK {
                reaching.insert(key.clone());
            }
            here.insert(key);
        }
        let missing =
            before.iter().flatten().find(|key| key.1.seconds() > begin + SLACK && !here.contains(key));
        if let Some((from, to, _)) = missing {
            fault.get_or_insert((
                format!("no cue from {from} to {to}"),
                "what the segment before has of its time",
            ));
        }
        if let Some((said, expected)) = fault {
            session.find(Rule::CuePlace, place, said, format!("{expected}: {begin:.3} s to {end:.3} s"));
        }
        self.reaching = Some(reaching);
    }

    /// Whether the times of cues are those of the media. Where nothing is said, that is told and yes is taken.
    fn map(&mut self, session: &mut Session<'_>, place: &str, map: Option<TimestampMap>) -> bool {
        let Some(map) = map else {
            session.find(Rule::TimestampMap, place, "no X-TIMESTAMP-MAP", "one in the header");
            return true;
        };
        let told = map.ticks(Moment::default());
        let zero = *self.zero.get_or_insert(told);
        let apart = told.saturating_sub(zero).rem_euclid(CLOCK_END);
        if apart.min(CLOCK_END - apart) > MAP_SLACK {
            let said = format!("{map}: zero at {}", told.rem_euclid(CLOCK_END));
            session.find(Rule::TimestampMap, place, said, format!("zero at {}", zero.rem_euclid(CLOCK_END)));
            return false;
        }
        true
    }
}

/// Whether a language is shaped like a tag (RFC 5646 §2.1): letters, then letters and digits, apart by hyphens.
pub(super) fn is_language(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let private = matches!(first, "x" | "X" | "i" | "I") && !rest.is_empty();
    let begins = (2..=8).contains(&first.len()) && first.bytes().all(|byte| byte.is_ascii_alphabetic());
    let part =
        |part: &&str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    // A single letter announces what follows it, but for those behind an x.
    let open = rest.split_last().is_some_and(|(last, before)| {
        last.len() == 1 && !private && !before.iter().any(|part| part.eq_ignore_ascii_case("x"))
    });
    (private || begins) && rest.iter().all(part) && !open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_shaped_like_tags() {
        for tag in
            ["de", "deu", "en-GB", "zh-Hant-TW", "es-419", "de-CH-1996", "x-klingon", "i-enochian", "en-x-a"]
        {
            assert!(is_language(tag), "{tag}");
        }
        for tag in
            ["", "d", "x", "german-languages", "de_CH", "de-", "-de", "de--CH", "12", "Deutsch (AT)", "en-x"]
        {
            assert!(!is_language(tag), "{tag}");
        }
    }
}

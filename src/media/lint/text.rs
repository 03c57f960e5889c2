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
    /// Cues of the segment before that are shown at its end or behind it; `None` when that could not be read.
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
            // What barely reaches may be there and need not.
            if to > end - SLACK {
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
    use std::ops::Range;

    use proptest::prelude::*;

    use super::super::{Fetch, FetchError, Fetched};
    use super::*;
    use crate::media::webvtt::Cue;

    /// Everything is in memory already.
    struct Nothing;

    impl Fetch for Nothing {
        fn resolve(&self, _: &str, _: &str) -> Option<String> {
            None
        }

        fn fetch(&mut self, _: &str, _: Option<Range<u64>>) -> Result<Fetched, FetchError> {
            Err(FetchError("nothing".into()))
        }
    }

    fn cue((n, (start, length)): (usize, (u64, u64))) -> Cue {
        let (start, end) = (Moment::from_millis(start), Moment::from_millis(start + length));
        Cue { id: None, start, end, settings: String::new(), payload: n.to_string() }
    }

    /// Each cue in all segments in which any of it is shown.
    fn cut(cues: &[Cue], lengths: &[u64]) -> Vec<Vec<Cue>> {
        let mut begin = 0;
        let segments = lengths.iter().map(|length| {
            let (from, to) = (begin, begin + length);
            begin = to;
            cues.iter().filter(|cue| cue.start.millis() < to && cue.end.millis() > from).cloned().collect()
        });
        segments.collect()
    }

    fn found(segments: &[Vec<Cue>], lengths: &[u64]) -> Vec<Rule> {
        let mut nothing = Nothing;
        let mut session = Session::new(&mut nothing);
        let mut walk = Segments::new(Some(0));
        for (cues, &length) in segments.iter().zip(lengths) {
            let map = Some(TimestampMap::default());
            let document = Document { timestamp_map: map, cues: cues.clone(), ..Document::default() };
            walk.next(&mut session, "s", Moment::from_millis(length).seconds(), Some(document));
        }
        session.report.findings.iter().map(|finding| finding.rule).collect()
    }

    proptest! {
        #[test]
        fn cues_that_are_cut_right_pass_and_one_that_is_gone_is_missed(
            times in proptest::collection::vec((0..20_000_u64, 1..9000_u64), 0..8),
            lengths in proptest::collection::vec(100..6000_u64, 1..6),
            chosen in any::<proptest::sample::Index>(),
        ) {
            let cues: Vec<Cue> = times.into_iter().enumerate().map(cue).collect();
            let mut segments = cut(&cues, &lengths);
            prop_assert_eq!(found(&segments, &lengths), []);
            // Pieces of cues that are long enough to be seen, and whose other pieces are too.
            let mut pieces = Vec::new();
            let mut begin = 0;
            for (n, (segment, length)) in segments.iter().zip(&lengths).enumerate() {
                let (from, to) = (begin, begin + length);
                begin = to;
                pieces.extend(segment.iter().enumerate().filter_map(|(at, cue)| {
                    let shown = cue.end.millis().min(to) - cue.start.millis().max(from);
                    let before = from.saturating_sub(cue.start.millis());
                    let after = cue.end.millis().saturating_sub(to);
                    let more = n + 1 < lengths.len() && after > 60;
                    (shown > 60 && (before > 60 || more)).then_some((n, at))
                }));
            }
            if !pieces.is_empty() {
                let (n, at) = pieces[chosen.index(pieces.len())];
                segments[n].remove(at);
                prop_assert!(found(&segments, &lengths).contains(&Rule::CuePlace));
            }
        }
    }

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

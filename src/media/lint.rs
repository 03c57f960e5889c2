//! Checks of HLS and DASH presentations: what manifests say against what the media are.
//!
//! The worker runs it on a package before anything is published, `flux validate` on any folder or URL. It shares the
//! readers of boxes, transport packets and texts with [`super::package`] and nothing else: it believes no manifest, and knows
//! of no plan. Everything it reads may be hostile: sizes are bounded, nothing panics, references cannot leave what the
//! [`Fetch`] may read.
//! To add a check: a variant of [`Rule`], its row in `docs/validate.md`, a fault in `tests/it/package/` that makes
//! it and nothing else fail (tests compare all three).

mod claims;
mod fetch;
mod hls;
mod measure;
mod mpd;
mod playlist;
mod rule;
mod stream;
mod text;
mod timeline;
mod xml;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use fetch::{Fetch, FetchError, Fetched, Folder, Served};
pub use rule::{Rule, Severity};

use measure::{Init, Measured};

/// References followed at most; a film of ten hours in ten renditions has 60,000.
const MAX_FETCHES: usize = 100_000;
/// Findings of one rule at most; the rest are alike.
const MAX_ALIKE: usize = 20;

/// One thing that is not as it must or should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub rule: Rule,
    /// Which file, and where in it.
    pub place: String,
    /// What is there.
    pub measured: String,
    /// What would be right.
    pub expected: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, place, measured, expected } = self;
        write!(f, "{} {}: {place}: {measured}; expected {expected}", rule.severity().as_str(), rule.as_str())
    }
}

/// What a check of a presentation found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order found.
    pub findings: Vec<Finding>,
    /// Renditions that were looked at.
    pub renditions: usize,
    /// Segments that were read.
    pub segments: usize,
}

impl Report {
    /// Whether nothing is against a MUST.
    #[must_use]
    pub fn passes(&self) -> bool {
        !self.findings.iter().any(|finding| finding.rule.severity() == Severity::Must)
    }
}

/// Checks the presentation whose master playlist, media playlist or MPD is at `entry`.
pub fn lint(fetch: &mut dyn Fetch, entry: &str) -> Report {
    let mut session = Session::new(fetch);
    session.presentation(entry);
    session.report
}

/// Checks several manifests of one package; what they share is read once.
pub fn lint_all<'a>(fetch: &mut dyn Fetch, entries: impl IntoIterator<Item = &'a str>) -> Report {
    let mut session = Session::new(fetch);
    for entry in entries {
        session.presentation(entry);
    }
    session.report
}

/// A piece of a file: the key of what has been measured.
type Piece = (String, Option<(u64, u64)>);

/// One run.
struct Session<'f> {
    fetch: &'f mut dyn Fetch,
    report: Report,
    alike: BTreeMap<Rule, usize>,
    fetches: usize,
    inits: BTreeMap<Piece, Option<Arc<Init>>>,
    measured: BTreeMap<Piece, Option<Arc<Measured>>>,
    /// Files of text that were read.
    texts: usize,
}

impl<'f> Session<'f> {
    fn new(fetch: &'f mut dyn Fetch) -> Self {
        Self {
            fetch,
            report: Report::default(),
            alike: BTreeMap::new(),
            fetches: 0,
            inits: BTreeMap::new(),
            measured: BTreeMap::new(),
            texts: 0,
        }
    }

    fn presentation(&mut self, entry: &str) {
        let Some(document) = self.read(entry, None) else { return };
        let text = String::from_utf8_lossy(&document.bytes).into_owned();
        let streams = if text.trim_start_matches('\u{feff}').trim_start().starts_with('<') {
            mpd::check(self, entry, &text, &document)
        } else {
            hls::check(self, entry, &text, &document)
        };
        claims::check(self, &streams);
        timeline::check(self, &streams);
        self.report.renditions += streams.len();
        self.report.segments = self.measured.len() + self.texts;
    }

    /// Adds a finding.
    fn find(
        &mut self,
        rule: Rule,
        place: impl Into<String>,
        measured: impl Into<String>,
        expected: impl Into<String>,
    ) {
        let times = self.alike.entry(rule).or_default();
        *times += 1;
        if *times <= MAX_ALIKE {
            let finding =
                Finding { rule, place: place.into(), measured: measured.into(), expected: expected.into() };
            // Two manifests over the same bytes share their faults.
            if !self.report.findings.contains(&finding) {
                self.report.findings.push(finding);
            }
        }
    }

    /// Reads a file or part of one; a failure is a finding.
    fn read(&mut self, place: &str, range: Option<Range<u64>>) -> Option<Fetched> {
        self.fetches += 1;
        if self.fetches > MAX_FETCHES {
            if self.fetches == MAX_FETCHES + 1 {
                self.find(Rule::Fetch, place, "too many files", format!("at most {MAX_FETCHES}"));
            }
            return None;
        }
        let wanted = range.as_ref().map(|range| range.end - range.start);
        match self.fetch.fetch(place, range.clone()) {
            Ok(fetched) => {
                let got = fetched.bytes.len() as u64;
                if let (Some(wanted), Some(range)) = (wanted, range)
                    && got != wanted
                {
                    let said = format!("bytes {}-{} are {got} bytes", range.start, range.end);
                    self.find(Rule::ByteRange, place, said, format!("{wanted} bytes"));
                    return None;
                }
                Some(fetched)
            }
            Err(error) => {
                self.find(Rule::Fetch, place, error.0, "a file that can be read");
                None
            }
        }
    }

    /// What an init segment says, read once.
    fn init(&mut self, place: &str, range: Option<(u64, u64)>) -> Option<Arc<Init>> {
        let piece = (place.to_owned(), range);
        if let Some(known) = self.inits.get(&piece) {
            return known.clone();
        }
        let init = self.read(place, range.map(|(offset, size)| offset..offset + size)).and_then(|fetched| {
            let init = Init::parse(&fetched.bytes);
            if init.is_none() {
                self.find(Rule::Contents, place, "no index that can be read", "an init segment with a moov");
            }
            init.map(Arc::new)
        });
        self.inits.insert(piece, init.clone());
        init
    }

    /// What a segment holds, read once.
    fn segment(
        &mut self,
        init: Option<&Init>,
        place: &str,
        range: Option<(u64, u64)>,
    ) -> Option<Arc<Measured>> {
        let piece = (place.to_owned(), range);
        if let Some(known) = self.measured.get(&piece) {
            return known.clone();
        }
        let bytes = self.read(place, range.map(|(offset, size)| offset..offset + size));
        let measured = bytes.and_then(|fetched| match Measured::of(init, &fetched.bytes) {
            Ok(measured) => Some(Arc::new(measured)),
            Err(_) if init.is_none() && measure::is_fragmented(&fetched.bytes) => {
                self.find(Rule::Map, at(place, range), "fragmented MP4 without an init segment", "EXT-X-MAP");
                None
            }
            Err(why) => {
                self.find(Rule::Contents, at(place, range), why.measured, why.expected);
                None
            }
        });
        self.measured.insert(piece, measured.clone());
        measured
    }
}

/// A piece of a file, for people.
fn at(place: &str, range: Option<(u64, u64)>) -> String {
    range.map_or_else(|| place.to_owned(), |(offset, size)| format!("{place} bytes {offset}+{size}"))
}

//! Subtitles as ffmpeg writes them, on the film's timeline and without what `WebVTT` would take for its own.
//!
//! ffmpeg's writer puts a source's text between times as it is: empty lines, `&`, `<` and arrows too. So it is read by
//! what it never leaves out, a line of two times, and spelt anew.

use super::webvtt::{Cue, MAX_BYTES, MAX_CUES, MAX_LINE, MAX_LINES, Moment};

/// What was found in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extracted {
    /// On the film's timeline, in the order of their beginnings.
    pub cues: Vec<Cue>,
    /// Texts in the file, those that are not in the film too.
    pub found: usize,
    /// Texts that no player would show: too long, or more than a file can hold.
    pub refused: usize,
    /// Bytes that the cues take in a file.
    bytes: usize,
}

/// Bytes of a cue beside its text: two times, an arrow and line ends.
const FRAME: usize = 64;

/// Reads a file whose times begin at `zero`, milliseconds. What is shown before it or from `end` on is left out.
#[must_use]
pub fn read(text: &str, zero: u64, end: Option<u64>) -> Extracted {
    let mut extracted = Extracted::default();
    let mut open: Option<(u64, u64, Vec<&str>)> = None;
    for line in text.split(['\r', '\n']) {
        if let Some((start, stop)) = times(line) {
            extracted.take(open.replace((start, stop, Vec::new())), zero, end);
        } else if let Some((.., lines)) = &mut open
            && !line.trim().is_empty()
        {
            lines.push(line);
        }
    }
    extracted.take(open, zero, end);
    extracted.cues.sort_by_key(|cue| (cue.start, cue.end));
    extracted
}

impl Extracted {
    fn take(&mut self, block: Option<(u64, u64, Vec<&str>)>, zero: u64, end: Option<u64>) {
        let Some((start, stop, lines)) = block else { return };
        self.found += 1;
        let last = end.map_or(u64::MAX, |end| end.saturating_add(zero));
        let (start, stop) = (start.max(zero), stop.min(last));
        if lines.is_empty() || stop <= start {
            return;
        }
        let lines: Vec<String> = lines.into_iter().map(spelt).collect();
        let bytes = lines.iter().map(|line| line.len() + 1).sum::<usize>() + FRAME;
        let fits = self.cues.len() < MAX_CUES
            && lines.len() <= MAX_LINES
            && lines.iter().all(|line| line.len() <= MAX_LINE)
            // The head of the file is a frame's length, too.
            && self.bytes + bytes + FRAME <= MAX_BYTES;
        if !fits {
            self.refused += 1;
            return;
        }
        self.bytes += bytes;
        self.cues.push(Cue {
            id: None,
            start: Moment::from_millis(start - zero),
            end: Moment::from_millis(stop - zero),
            settings: String::new(),
            payload: lines.join("\n"),
        });
    }
}

/// A line of two times, milliseconds.
fn times(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_once(" --> ")?;
    let moment = |text: &str| text.parse::<Moment>().ok().map(Moment::millis);
    Some((moment(start)?, moment(end.trim_end())?))
}

/// The marks that ffmpeg makes of a source's styles, and the characters that it writes as they are.
const MARKS: [&str; 6] = ["<i>", "</i>", "<b>", "</b>", "<u>", "</u>"];
/// What can be meant by `&`.
const ENTITIES: [&str; 6] = ["&amp;", "&lt;", "&gt;", "&nbsp;", "&lrm;", "&rlm;"];

/// A line of text that says the same to a player.
fn spelt(line: &str) -> String {
    let mut spelt = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let kept = MARKS.iter().chain(&ENTITIES).find(|mark| rest.starts_with(**mark));
        if let Some(mark) = kept {
            spelt.push_str(mark);
            rest = &rest[mark.len()..];
            continue;
        }
        match c {
            '&' => spelt.push_str("&amp;"),
            '<' => spelt.push_str("&lt;"),
            '>' => spelt.push_str("&gt;"),
            c if c.is_control() && c != '\t' => {}
            c => spelt.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    spelt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::webvtt::{self, Document};

    const HOUR: u64 = 3_600_000;

    fn told(extracted: &Extracted) -> Vec<(u64, u64, &str)> {
        extracted
            .cues
            .iter()
            .map(|cue| (cue.start.millis(), cue.end.millis(), cue.payload.as_str()))
            .collect()
    }

    #[test]
    fn times_are_the_films() {
        let text = "WEBVTT\n\n09:59:58.000 --> 09:59:59.500\ngone\n\n09:59:59.000 --> 10:00:01.523\nbegun\n\n\
                    10:00:05.000 --> 10:00:09.000\nlasts\n\n10:00:07.000 --> 10:00:08.000\nafter\n\n10:00:04.000 --> 10:00:04.500\n\n";
        let extracted = read(text, 10 * HOUR, Some(7000));
        assert_eq!(told(&extracted), [(0, 1523, "begun"), (5000, 7000, "lasts")]);
        assert_eq!((extracted.found, extracted.refused), (5, 0));
        assert_eq!(told(&read(text, 10 * HOUR, None)).len(), 3);
        assert_eq!(read("", 0, None), Extracted::default());
    }

    #[test]
    fn nobodys_text_becomes_structure() {
        let text = "WEBVTT\n\n10:00:01.000 --> 10:00:02.000\n<i>Tom</i> & Jerry <3 &amp; <v X>\n\nx --> y\nNOTE\n\u{7}bell\r\n";
        let extracted = read(text, 10 * HOUR, None);
        let payload = "<i>Tom</i> &amp; Jerry &lt;3 &amp; &lt;v X&gt;\nx --&gt; y\nNOTE\nbell";
        assert_eq!(told(&extracted), [(1000, 2000, payload)]);
        let document = Document { cues: extracted.cues, ..Document::default() };
        assert_eq!(webvtt::read(&document.to_string()).unwrap(), document);
    }

    #[test]
    fn what_no_player_shows_is_left_out() {
        let long = format!("00:00:01.000 --> 00:00:02.000\n{}\n", "x".repeat(MAX_LINE + 1));
        let extracted = read(&long, 0, None);
        assert_eq!((extracted.cues.len(), extracted.found, extracted.refused), (0, 1, 1));
        // What is spelt out takes more room than it did.
        let line = "<".repeat(4000);
        let many = format!("00:00:01.000 --> 00:00:02.000\n{line}\n\n").repeat(700);
        let extracted = read(&many, 0, None);
        let whole = Document { cues: extracted.cues.clone(), ..Document::default() }.to_string();
        assert!(extracted.refused > 0 && whole.len() > MAX_BYTES / 2, "{}", whole.len());
        assert_eq!(webvtt::read(&whole).unwrap().cues, extracted.cues);
    }
}

//! Reading a file: blocks of lines, as W3C's parser collects them.

use super::{Cue, Document, Fault, MAX_BYTES, MAX_CUES, MAX_LINE, MAX_LINES, Wrong};

const ARROW: &str = "-->";
const SPACES: [char; 2] = [' ', '\t'];

/// A line and its number.
type Line<'a> = (usize, &'a str);

/// Reads a file.
///
/// # Errors
/// The first thing in it at which a player would fail, or leave something out.
pub fn read(text: &str) -> Result<Document, Fault> {
    if text.len() > MAX_BYTES {
        return Err(fault(0, Wrong::TooLarge));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Lines { rest: Some(text), number: 0 };
    let signature = lines.next().map_or("", |(_, line)| line);
    short(1, signature)?;
    let after = signature.strip_prefix("WEBVTT").ok_or(fault(1, Wrong::Signature))?;
    if !(after.is_empty() || after.starts_with(SPACES)) {
        return Err(fault(1, Wrong::Signature));
    }
    let mut document = Document::default();
    let mut block = Vec::new();
    let mut head = true;
    let ends = std::iter::once((0, ""));
    for (number, line) in lines.chain(ends) {
        short(number, line)?;
        if !line.is_empty() {
            if block.len() >= MAX_LINES {
                return Err(fault(number, Wrong::TooManyLines));
            }
            block.push((number, line));
            continue;
        }
        if head {
            header(&mut document, &block)?;
        } else if !block.is_empty() {
            add(&mut document, &block)?;
        }
        head = false;
        block.clear();
    }
    Ok(document)
}

const fn fault(line: usize, what: Wrong) -> Fault {
    Fault { line, what }
}

fn short(number: usize, line: &str) -> Result<(), Fault> {
    if line.len() > MAX_LINE { Err(fault(number, Wrong::LongLine)) } else { Ok(()) }
}

/// Lines that end with CR, LF or both.
struct Lines<'a> {
    rest: Option<&'a str>,
    number: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = self.rest?;
        self.number += 1;
        let Some((line, after)) = rest.split_once(['\r', '\n']) else {
            self.rest = None;
            return Some((self.number, rest));
        };
        let pair = rest.get(line.len()..).is_some_and(|end| end.starts_with("\r\n"));
        self.rest = Some(if pair { after.strip_prefix('\n').unwrap_or(after) } else { after });
        Some((self.number, line))
    }
}

/// Blocks that are no cue, by their first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Comment,
    Style,
    Region,
}

impl Kind {
    pub(super) fn of(line: &str) -> Option<Self> {
        match line.trim_end_matches(SPACES) {
            "STYLE" => Some(Self::Style),
            "REGION" => Some(Self::Region),
            _ if line == "NOTE" || line.starts_with("NOTE ") || line.starts_with("NOTE\t") => {
                Some(Self::Comment)
            }
            _ => None,
        }
    }
}

/// The lines between the signature and the first empty one.
fn header(document: &mut Document, block: &[Line<'_>]) -> Result<(), Fault> {
    no_arrow(block)?;
    for &(number, line) in block.iter().filter(|(_, line)| line.starts_with("X-TIMESTAMP-MAP")) {
        let map = line.parse().map_err(|wrong| fault(number, wrong))?;
        if document.timestamp_map.replace(map).is_some() {
            return Err(fault(number, Wrong::TimestampMap));
        }
    }
    Ok(())
}

fn no_arrow(block: &[Line<'_>]) -> Result<(), Fault> {
    match block.iter().find(|(_, line)| line.contains(ARROW)) {
        Some(&(number, _)) => Err(fault(number, Wrong::Arrow)),
        None => Ok(()),
    }
}

/// Takes up a block: a cue has an arrow in its first or second line.
fn add(document: &mut Document, block: &[Line<'_>]) -> Result<(), Fault> {
    let (id, times, text) = match block {
        [times, text @ ..] if times.1.contains(ARROW) => {
            // Times below: what is above them was meant to be a name.
            let named = text.first().is_some_and(|(_, line)| line.contains(ARROW));
            if named && moments(times.1).is_err() {
                return Err(fault(times.0, Wrong::Arrow));
            }
            (None, times, text)
        }
        // Some players read a cue of that name, others a comment or style with times in it.
        [id, times, ..] if times.1.contains(ARROW) && Kind::of(id.1).is_some() => {
            return Err(fault(times.0, Wrong::Arrow));
        }
        [id, times, text @ ..] if times.1.contains(ARROW) => (Some(id.1), times, text),
        _ => return other(document, block),
    };
    let number = times.0;
    let (start, end, settings) = moments(times.1).map_err(|wrong| fault(number, wrong))?;
    if start >= end {
        return Err(fault(number, Wrong::EndsTooSoon));
    }
    if settings.contains(ARROW) {
        return Err(fault(number, Wrong::Arrow));
    }
    no_arrow(text)?;
    if document.cues.len() >= MAX_CUES {
        return Err(fault(number, Wrong::TooManyCues));
    }
    let (id, settings, payload) = (id.map(str::to_owned), settings.to_owned(), joined(text));
    document.cues.push(Cue { id, start, end, settings, payload });
    Ok(())
}

/// A block that is no cue.
fn other(document: &mut Document, block: &[Line<'_>]) -> Result<(), Fault> {
    no_arrow(block)?;
    let Some((&(number, kind), inside)) = block.split_first() else { return Ok(()) };
    let list = match Kind::of(kind) {
        Some(Kind::Comment) => return Ok(()),
        Some(Kind::Style) => &mut document.styles,
        Some(Kind::Region) => &mut document.regions,
        None => return Err(fault(number, Wrong::NoArrow)),
    };
    if !document.cues.is_empty() {
        return Err(fault(number, Wrong::LateBlock));
    }
    list.push(joined(inside));
    Ok(())
}

fn joined(lines: &[Line<'_>]) -> String {
    let lines: Vec<&str> = lines.iter().map(|(_, line)| *line).collect();
    lines.join("\n")
}

/// `00:00:01.000 --> 00:00:02.000 settings`.
fn moments(line: &str) -> Result<(super::Moment, super::Moment, &str), Wrong> {
    let (start, rest) = line.split_once(ARROW).ok_or(Wrong::Times)?;
    if !start.ends_with(SPACES) || !rest.starts_with(SPACES) {
        return Err(Wrong::Times);
    }
    let rest = rest.trim_start_matches(SPACES);
    let (end, settings) = rest.split_once(SPACES).unwrap_or((rest, ""));
    let start = start.trim_matches(SPACES).parse()?;
    Ok((start, end.parse()?, settings.trim_matches(SPACES)))
}

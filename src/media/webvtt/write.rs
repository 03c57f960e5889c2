//! Writing a file. What cannot stand in one is left out or spelt otherwise, so that nobody's text becomes structure.

use std::fmt::{Display, Formatter, Result, Write};

use super::read::Kind;
use super::{Cue, Document};

impl Display for Document {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("WEBVTT\n")?;
        if let Some(map) = self.timestamp_map {
            writeln!(f, "{map}")?;
        }
        for (kind, blocks) in [("STYLE", &self.styles), ("REGION", &self.regions)] {
            for block in blocks {
                write!(f, "\n{kind}\n")?;
                // An arrow in a style sheet could only be in a comment or a string.
                lines(f, block, "-- >")?;
            }
        }
        self.cues.iter().try_for_each(|cue| write!(f, "\n{cue}"))
    }
}

/// A cue with its name, its times and its text; every line ended, no empty line after it.
impl Display for Cue {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if let Some(id) =
            self.id.as_deref().filter(|id| !id.is_empty() && plain(id) && Kind::of(id).is_none())
        {
            writeln!(f, "{id}")?;
        }
        write!(f, "{} --> {}", self.start, self.end)?;
        if !self.settings.is_empty() && plain(&self.settings) {
            write!(f, " {}", self.settings)?;
        }
        f.write_char('\n')?;
        lines(f, &self.payload, "--&gt;")
    }
}

/// Whether a text is one line without an arrow.
fn plain(text: &str) -> bool {
    !text.contains("-->") && !text.contains(['\r', '\n'])
}

/// Lines without the empty ones, which would end the block.
fn lines(f: &mut Formatter<'_>, text: &str, arrow: &str) -> Result {
    let lines = text.split(['\r', '\n']).filter(|line| !line.is_empty());
    for line in lines {
        writeln!(f, "{}", line.replace("-->", arrow))?;
    }
    Ok(())
}

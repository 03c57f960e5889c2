//! Writing for people and for programs. The only place that prints.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde_json::Value;

use super::Exit;

/// Writes data to stdout. A reader that went away (a closed pipe) is not an error.
pub(super) fn data(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Writes a message to stderr.
pub(super) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes JSON to stdout.
pub(super) fn json(value: &Value) {
    data(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Whether a person watches stderr.
pub(super) fn interactive() -> bool {
    std::io::stderr().is_terminal()
}

/// Reports an error with its causes.
pub(super) fn fail(error: &anyhow::Error, exit: Exit) -> ExitCode {
    note(format_args!("error: {error:#}"));
    exit.into()
}

/// Writes rows under headings, columns as wide as they need to be.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(headings.get(column).map(|h| h.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    data(&line(&mut headings.iter().copied()));
    for row in rows {
        data(&line(&mut row.iter().map(String::as_str)));
    }
}

/// A text field of a JSON answer, or a dash; control characters never reach a terminal.
pub(super) fn field(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_never_sees_control_characters() {
        assert_eq!(field(&Value::String("a\u{1b}[31m\nb".into())), "a [31m b");
        assert_eq!(field(&Value::Null), "-");
        assert_eq!(field(&serde_json::json!(41.7)), "41.7");
    }
}

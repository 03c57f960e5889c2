//! Lines of a program's output, bounded in length and number: a tool that floods us costs time, not memory.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of a line that are kept; ffmpeg's longest meaningful lines (encoder settings) are below 2 KiB.
const LINE_MAX: usize = 4096;

/// Calls `each` with every line (ended by LF, CR or the end), cut to 4 KiB, until the end of the stream.
/// Empty lines are left out.
pub(in crate::media) async fn each_line<R>(mut reader: R, mut each: impl FnMut(&str)) -> io::Result<()>
where
    R: AsyncRead + Unpin,
{
    let mut chunk = vec![0_u8; 16 * 1024];
    let mut splitter = Splitter::default();
    loop {
        let read = reader.read(&mut chunk).await?;
        if read == 0 {
            splitter.finish(&mut each);
            return Ok(());
        }
        splitter.feed(&chunk[..read], &mut each);
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    line: Vec<u8>,
}

impl Splitter {
    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], each: &mut impl FnMut(&str)) {
        for part in bytes.split_inclusive(|b| matches!(b, b'\n' | b'\r')) {
            let (text, ended) = match part.split_last() {
                Some((b'\n' | b'\r', text)) => (text, true),
                _ => (part, false),
            };
            let room = LINE_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                self.finish(each);
            }
        }
    }

    /// The stream has ended.
    pub(super) fn finish(&mut self, each: &mut impl FnMut(&str)) {
        if !self.line.is_empty() {
            each(&String::from_utf8_lossy(&self.line));
            self.line.clear();
        }
    }
}

/// The last lines of a log.
#[derive(Debug, Clone)]
pub(in crate::media) struct Tail {
    lines: VecDeque<String>,
    most: usize,
}

impl Tail {
    /// Keeps the last `most` lines.
    pub(in crate::media) fn new(most: usize) -> Self {
        Self { lines: VecDeque::with_capacity(most), most }
    }

    /// Adds a line, dropping the oldest when full.
    pub(in crate::media) fn push(&mut self, line: impl Into<String>) {
        if self.lines.len() == self.most {
            self.lines.pop_front();
        }
        self.lines.push_back(line.into());
    }

    /// The lines, oldest first.
    pub(in crate::media) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(parts: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        let mut each = |line: &str| lines.push(line.to_owned());
        for part in parts {
            splitter.feed(part, &mut each);
        }
        splitter.finish(&mut each);
        lines
    }

    #[test]
    fn lines_survive_any_cut() {
        assert_eq!(split(&[b"a\nbc", b"d\r\n\n", b"e"]), ["a", "bcd", "e"]);
        assert_eq!(split(&[b"\xff\n"]), ["\u{fffd}"]);
    }

    #[test]
    fn a_flood_without_line_ends_is_cut() {
        let flood = vec![b'x'; 100_000];
        assert_eq!(split(&[&flood, &flood, b"\nnext"]), ["x".repeat(LINE_MAX), "next".to_owned()]);
    }

    #[test]
    fn the_tail_keeps_the_last() {
        let mut tail = Tail::new(2);
        for n in 0..5 {
            tail.push(n.to_string());
        }
        assert_eq!(tail.into_lines(), ["3", "4"]);
    }
}

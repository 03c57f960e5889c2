//! Log lines fit for clients: no host paths, no addresses, no secrets, no memory addresses.

use std::path::Path;

use crate::media::Input;

/// Removes what clients must not read from a tool's log lines.
#[derive(Debug, Clone, Default)]
pub(in crate::media) struct Tidy {
    /// Known texts and what stands for them, longest first.
    known: Vec<(String, &'static str)>,
}

impl Tidy {
    /// Knows the names of this task. Paths that are not known are recognised by their shape.
    pub(in crate::media) fn new(input: &Input, work: &Path) -> Self {
        let mut known = vec![(work.to_string_lossy().into_owned(), "work")];
        match input {
            Input::File(path) => known.push((path.to_string_lossy().into_owned(), "source")),
            Input::Loopback { url } => known.push((url.clone(), "source")),
        }
        known.retain(|(text, _)| text.len() > 1);
        known.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Self { known }
    }

    /// One line, made fit.
    pub(in crate::media) fn line(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (text, name) in &self.known {
            line = line.replace(text.as_str(), name);
        }
        line.split_inclusive(' ').map(word).collect::<String>().replace(" @ …]", "]").trim_end().to_owned()
    }

    /// Many lines, made fit.
    pub(in crate::media) fn lines(&self, lines: impl IntoIterator<Item = String>) -> Vec<String> {
        lines.into_iter().map(|line| self.line(&line)).collect()
    }
}

/// Hides a word that is a path, a URL or a memory address, keeping the punctuation around it.
fn word(word: &str) -> String {
    let is_edge = |c: char| matches!(c, '\'' | '"' | '(' | ')' | '[' | ']' | ',' | ';' | ':' | ' ');
    let bare = word.trim_matches(is_edge);
    let after_scheme = bare.strip_prefix("file:").unwrap_or(bare);
    let hidden = bare.contains("://")
        || (after_scheme.starts_with('/') && after_scheme.len() > 1)
        || bare.starts_with("0x") && bare.len() > 8
        || is_address(bare);
    if hidden { word.replacen(bare, "…", 1) } else { word.to_owned() }
}

/// `127.0.0.1:8080` and the like.
fn is_address(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_ipv4())
        || text.parse::<std::net::SocketAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_host_is_left() {
        let input = Input::File("/srv/media/my holiday.mp4".into());
        let tidy = Tidy::new(&input, Path::new("/var/lib/flux/work/17"));
        for (line, fit) in [
            (
                "[mov,mp4 @ 0x55d9b67c1a80] [error] moov atom not found",
                "[mov,mp4] [error] moov atom not found",
            ),
            ("[error] file:/srv/media/my holiday.mp4: Invalid data", "[error] file:source: Invalid data"),
            ("Input #0, mov, from 'file:/etc/passwd':", "Input #0, mov, from '…':"),
            (
                "/var/lib/flux/work/17/out-0.mp4: No space left on device",
                "work/out-0.mp4: No space left on device",
            ),
            ("http://127.0.0.1:4000/s3cr3t/in: Server returned 404", "…: Server returned 404"),
            ("[tcp @ 0x55d9b67c1a80] Connection to 10.0.0.8:80 failed", "[tcp] Connection to … failed"),
            ("frame= 49 fps=0.0 1/2", "frame= 49 fps=0.0 1/2"),
        ] {
            assert_eq!(tidy.line(line), fit);
        }
    }
}

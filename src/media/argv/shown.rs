//! A command line as clients may read it.

use crate::domain::CommandReport;

/// Stands for the source, whose name may be a path of this machine or hold a token.
const SOURCE: &str = "SOURCE";

/// The command line of a process as the outputs with these file names show it: whole where it is short enough, else
/// without the options of other outputs and the graph that they share.
#[must_use]
pub fn shown(argv: &[String], own: &[&str], most: usize) -> CommandReport {
    let words: Vec<String> = argv.iter().enumerate().map(|(n, word)| clean(argv, n, word)).collect();
    let complete = words.iter().map(|word| word.len() + 1).sum::<usize>() <= most;
    let words = if complete { words } else { reduced(&words, own) };
    CommandReport { argv: std::iter::once("ffmpeg".to_owned()).chain(words).collect(), complete }
}

/// No word of ours but the input's name is a path or a URL; what looks like one is hidden all the same.
fn clean(argv: &[String], n: usize, word: &str) -> String {
    let is_input = n.checked_sub(1).and_then(|before| argv.get(before)).is_some_and(|before| before == "-i");
    if is_input {
        SOURCE.to_owned()
    } else if word.starts_with('/') || word.starts_with("file:/") || word.contains("://") {
        "…".to_owned()
    } else {
        word.to_owned()
    }
}

fn reduced(words: &[String], own: &[&str]) -> Vec<String> {
    let (head, rest) = words.split_at(words.iter().position(|word| word == SOURCE).map_or(0, |at| at + 1));
    let mut kept = head.to_vec();
    let rest = match rest {
        [option, _, rest @ ..] if option == "-filter_complex" => {
            kept.extend([option.clone(), "…".to_owned()]);
            rest
        }
        rest => rest,
    };
    for output in rest.split_inclusive(|word| word.starts_with("file:")) {
        let name = output.last().and_then(|word| word.strip_prefix("file:")).unwrap_or_default();
        if own.contains(&name) {
            kept.extend_from_slice(output);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn neither_the_source_nor_a_path_of_the_machine_is_shown() {
        for input in ["file:/srv/films/a.mp4", "http://127.0.0.1:4000/s3cr3t/in"] {
            let argv = words(&format!("-y -i {input} -vf fps=30000/1001 -x /tmp/x file:out-0.mp4"));
            let said = shown(&argv, &["out-0.mp4"], 1000);
            assert_eq!(said.argv, words("ffmpeg -y -i SOURCE -vf fps=30000/1001 -x … file:out-0.mp4"));
            assert!(said.complete);
        }
    }

    #[test]
    fn what_fifty_ladders_of_one_process_repeat_is_bounded() {
        let sections = (0..50).flat_map(|output| {
            (0..6)
                .map(move |rung| format!("{} file:out-{output}-{rung}.mp4", ["-option value"; 25].join(" ")))
        });
        let text = format!(
            "-i file:/a -filter_complex {} {}",
            "x".repeat(40_000),
            sections.collect::<Vec<_>>().join(" ")
        );
        let own: Vec<String> = (0..6).map(|rung| format!("out-7-{rung}.mp4")).collect();
        let said = shown(&words(&text), &own.iter().map(String::as_str).collect::<Vec<_>>(), 8192);
        let size: usize = said.argv.iter().map(|word| word.len() + 3).sum();
        assert!(
            size < 6_000 && said.argv.iter().filter(|word| word.starts_with("file:")).count() == 6,
            "{size}"
        );
    }

    #[test]
    fn a_long_line_keeps_what_made_the_output() {
        let argv =
            words("-y -i file:/a -filter_complex [0:0]split -c:v a file:out-0.mp4 -c:v b file:out-1.mp4");
        let said = shown(&argv, &["out-1.mp4"], 40);
        assert_eq!(said.argv, words("ffmpeg -y -i SOURCE -filter_complex … -c:v b file:out-1.mp4"));
        assert!(!said.complete);
    }
}

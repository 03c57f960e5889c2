//! Secrets that can be recognised wherever they turn up, and in whatever form.

use std::path::Path;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// In every canary. Letters and digits only, which percent-encoding leaves as they are.
const SONG: &str = "canaryofflux";

/// Makes canaries and finds them again.
pub struct Canaries {
    made: Mutex<Vec<&'static str>>,
    /// What a canary looks like: in the clear, in base64 after no, one or two bytes of a group, in hexadecimal digits.
    forms: Vec<Vec<u8>>,
}

impl Canaries {
    pub fn new() -> Self {
        let mut forms = vec![SONG.as_bytes().to_vec()];
        for before in 0..3 {
            let bytes = [&vec![b' '; before][..], SONG.as_bytes()].concat();
            let text = STANDARD.encode(&bytes);
            // Only digits that no byte before or after the song has a part in.
            let (from, to) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
            forms.push(text.as_bytes()[from..to].to_vec());
        }
        forms.push(SONG.bytes().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect());
        Self { made: Mutex::default(), forms }
    }

    /// A new one for this place.
    pub fn of(&self, place: &'static str) -> String {
        let mut made = self.made.lock().unwrap();
        made.push(place);
        format!("{SONG}{:03}", made.len())
    }

    /// A word about each canary in these bytes.
    pub fn found(&self, wherein: &str, bytes: &[u8]) -> Vec<String> {
        let lower = bytes.to_ascii_lowercase();
        let song = positions(&lower, &self.forms[0]).into_iter();
        let others = self.forms[1..].iter().flat_map(|form| positions(bytes, form));
        let word = |at: usize| {
            let around = &bytes[at.saturating_sub(120)..bytes.len().min(at + 60)];
            let number = lower.get(at + SONG.len()..at + SONG.len() + 3);
            let number = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
            let made = self.made.lock().unwrap();
            let place = number.and_then(|number| made.get(number.checked_sub(1)?).copied());
            format!("{}: {} … {}", wherein, place.unwrap_or("encoded"), around.escape_ascii())
        };
        song.chain(others).map(word).collect()
    }

    /// The same for all files below a folder, none larger than `most` bytes.
    pub fn found_below(&self, folder: &Path, most: u64) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            // What is removed meanwhile is not there to leak.
            let Ok(about) = entry.metadata() else { continue };
            found.extend(self.found("a name", path.as_os_str().as_encoded_bytes()));
            if about.is_dir() {
                found.extend(self.found_below(&path, most));
            } else if about.is_file() && about.len() <= most {
                let bytes = std::fs::read(&path).unwrap_or_default();
                found.extend(self.found(&path.display().to_string(), &bytes));
            }
        }
        found
    }
}

fn positions(bytes: &[u8], form: &[u8]) -> Vec<usize> {
    let first = form[0];
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(step) = bytes[from..].iter().position(|byte| *byte == first) {
        let at = from + step;
        if bytes[at..].starts_with(form) {
            found.push(at);
        }
        from = at + 1;
    }
    found
}

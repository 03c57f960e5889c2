//! Languages of tracks.

/// An ISO 639-2 code, the only kind that every container takes: three lower-case letters, so that no other text of a
/// file gets onto a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Language([u8; 3]);

/// A line for each language with a code of two letters: ISO 639-2/T, ISO 639-2/B where it differs, ISO 639-1, and what its
/// speakers call it, where that is known. One text, because a table of texts costs every process its relocations.
const LANGUAGES: &str = include_str!("languages.txt");

impl Language {
    pub(super) fn parse(tag: &str) -> Option<Self> {
        let letters: [u8; 3] = tag.as_bytes().try_into().ok()?;
        letters.iter().all(u8::is_ascii_lowercase).then_some(Self(letters))
    }

    /// As playlists and MPDs name it: the shortest code (RFC 5646 §2.2.1).
    #[must_use]
    pub fn tag(self) -> String {
        self.row().map_or_else(|| self.to_string(), |[_, _, short, _]| short.to_owned())
    }

    /// What people choose it by.
    #[must_use]
    pub fn name(self) -> String {
        match self.row() {
            Some([.., name]) if name != "-" => name.to_owned(),
            _ => self.tag(),
        }
    }

    /// As `QuickTime` files name it, which know a list of languages and not all of them: mostly by ISO 639-2/B (every code tried
    /// with ffmpeg 5.1.9).
    #[must_use]
    pub fn in_quicktime(self) -> Self {
        match self.row() {
            Some([long, other, ..]) if !matches!(long, "fra" | "ron" | "slk") => {
                Self::parse(other).unwrap_or(self)
            }
            Some([long, ..]) => Self::parse(long).unwrap_or(self),
            None => self,
        }
    }

    fn row(self) -> Option<[&'static str; 4]> {
        let own = std::str::from_utf8(&self.0).ok()?;
        LANGUAGES.lines().find_map(|line| {
            let mut columns = line.splitn(4, ' ');
            let row = [columns.next()?, columns.next()?, columns.next()?, columns.next()?];
            row[..2].contains(&own).then_some(row)
        })
    }
}

impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_are_languages() {
        for tag in ["eng", "und", "fra"] {
            assert_eq!(Language::parse(tag).unwrap().to_string(), tag);
        }
        for tag in ["", "en", "en-US", "ENG", "e=g", "a:b", "é1", "engl"] {
            assert_eq!(Language::parse(tag), None, "{tag}");
        }
    }

    #[test]
    fn players_see_the_shortest_code_and_people_a_name() {
        let told = |code: &str| {
            let language = Language::parse(code).unwrap();
            (language.tag(), language.name())
        };
        assert_eq!(told("deu"), ("de".into(), "Deutsch".into()));
        assert_eq!(told("ger"), ("de".into(), "Deutsch".into()));
        assert_eq!(told("nob"), ("nb".into(), "norsk bokmål".into()));
        assert_eq!(told("lat"), ("la".into(), "la".into()));
        let quicktime = |code: &str| Language::parse(code).unwrap().in_quicktime().to_string();
        assert_eq!(
            ["deu", "ger", "fre", "fra", "eng", "gsw"].map(quicktime),
            ["ger", "ger", "fra", "fra", "eng", "gsw"]
        );
        // No code of two letters.
        assert_eq!(told("gsw"), ("gsw".into(), "gsw".into()));
    }

    #[test]
    fn every_line_is_whole_and_no_code_is_there_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for line in LANGUAGES.lines() {
            let row: Vec<&str> = line.splitn(4, ' ').collect();
            let [long, other, short, name] = row[..] else { panic!("{line}") };
            assert!(Language::parse(long).is_some() && short.len() == 2 && !name.is_empty(), "{line}");
            assert!(name.chars().all(|c| c != '"' && !c.is_control()), "{line}");
            for code in [long, other, short].into_iter().filter(|code| *code != "-") {
                assert!(seen.insert(code), "{code}");
            }
        }
    }
}

//! Names of results: safe below any root, and templates that make them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits::MAX_PATH_BYTES;

/// Why a path is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// Nothing there.
    #[error("the path is empty")]
    Empty,
    /// Longer than [`MAX_PATH_BYTES`].
    #[error("the path is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// Starts with `/`.
    #[error("the path must be relative")]
    Absolute,
    /// Has an empty, `.` or `..` segment.
    #[error("the path has an empty, '.' or '..' segment")]
    Segment,
    /// Has a backslash, NUL or control character.
    #[error("the path has a backslash or control character")]
    Character,
    /// One name is longer than a file system takes.
    #[error("a name in the path is longer than 255 bytes")]
    NameTooLong,
    /// `{…}` that is not a known placeholder.
    #[error("unknown placeholder {{{0}}}; known: job_id, index, preset, name, height, ext")]
    Placeholder(String),
    /// A brace without its partner.
    #[error("a '{{' without its '}}'")]
    Brace,
}

/// A relative, normalised object path: it stays below whatever it is joined to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectPath(String);

impl ObjectPath {
    /// Checks a path. Percent signs are plain characters: nothing is decoded twice.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidPath> {
        let text = text.into();
        if text.is_empty() {
            return Err(InvalidPath::Empty);
        }
        if text.len() > MAX_PATH_BYTES {
            return Err(InvalidPath::TooLong);
        }
        if text.starts_with('/') {
            return Err(InvalidPath::Absolute);
        }
        if text.chars().any(|c| c == '\\' || c.is_control()) {
            return Err(InvalidPath::Character);
        }
        for segment in text.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Err(InvalidPath::Segment);
            }
            if segment.len() > 255 {
                return Err(InvalidPath::NameTooLong);
            }
        }
        Ok(Self(text))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ObjectPath {
    type Error = InvalidPath;
    fn try_from(text: String) -> Result<Self, InvalidPath> {
        Self::parse(text)
    }
}

impl From<ObjectPath> for String {
    fn from(path: ObjectPath) -> Self {
        path.0
    }
}

/// A name in the folder of a path or URL.
#[must_use]
pub fn beside(path: &str, name: &str) -> String {
    match path.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{name}"),
        None => name.to_owned(),
    }
}

/// A destination path with placeholders `{job_id} {index} {preset} {name} {height} {ext}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathTemplate(String);

/// Values for the placeholders. Each is reduced to a safe segment before use.
#[derive(Debug, Clone, Copy)]
pub struct PathValues<'a> {
    /// The job's id.
    pub job_id: &'a str,
    /// The output's index.
    pub index: u16,
    /// The preset's name, or `custom`.
    pub preset: &'a str,
    /// The source's file stem.
    pub name: &'a str,
    /// The preset's nominal height, pixels.
    pub height: Option<u32>,
    /// The container's extension.
    pub ext: &'a str,
}

impl PathTemplate {
    /// Checks the template and that it gives a legal path.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidPath> {
        let template = Self(text.into());
        let sample = PathValues { job_id: "j", index: 0, preset: "p", name: "n", height: Some(1), ext: "e" };
        template.render(&sample)?;
        Ok(template)
    }

    /// The template as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path for these values.
    pub fn render(&self, values: &PathValues<'_>) -> Result<ObjectPath, InvalidPath> {
        ObjectPath::parse(values.fill(&self.0)?)
    }
}

impl PathValues<'_> {
    /// `text` with its placeholders filled in; what is put there needs no escape in a URL either.
    pub fn fill(&self, text: &str) -> Result<String, InvalidPath> {
        let mut rest = text;
        let mut out = String::with_capacity(text.len() + 40);
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let (key, tail) = after.split_once('}').ok_or(InvalidPath::Brace)?;
            match key {
                "job_id" => out.push_str(self.job_id),
                "index" => out.push_str(&self.index.to_string()),
                "preset" => out.push_str(&safe_segment(self.preset)),
                "name" => out.push_str(&safe_segment(self.name)),
                "height" => {
                    out.push_str(&self.height.map_or_else(|| "source".to_owned(), |h| h.to_string()));
                }
                "ext" => out.push_str(self.ext),
                other => return Err(InvalidPath::Placeholder(other.to_owned())),
            }
            rest = tail;
        }
        out.push_str(rest);
        Ok(out)
    }
}

impl TryFrom<String> for PathTemplate {
    type Error = InvalidPath;
    fn try_from(text: String) -> Result<Self, InvalidPath> {
        Self::parse(text)
    }
}

impl From<PathTemplate> for String {
    fn from(template: PathTemplate) -> Self {
        template.0
    }
}

/// A client's name as one harmless path segment: letters, digits, `._-`, at most 100 bytes, never empty.
fn safe_segment(text: &str) -> String {
    let mut out: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .take(100)
        .collect();
    if out.chars().all(|c| c == '.') {
        "_".clone_into(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_could_leave_the_root() {
        for bad in ["", "/etc/passwd", "..", "a/../b", "a//b", "./a", "a/", "a\\b", "a\0b", "a\nb"] {
            assert!(ObjectPath::parse(bad).is_err(), "{bad:?}");
        }
        assert!(ObjectPath::parse("x".repeat(5000)).is_err());
        assert!(ObjectPath::parse("x".repeat(256)).is_err());
        for good in ["a", "out/720p.mp4", "ü/%2e%2e/x", "a..b"] {
            assert!(ObjectPath::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn placeholders_are_filled_and_unknown_ones_named() {
        let template = PathTemplate::parse("outputs/{job_id}/{name}_{height}.{ext}").unwrap();
        let values = PathValues {
            job_id: "J",
            index: 2,
            preset: "p",
            name: "../my film",
            height: Some(720),
            ext: "mp4",
        };
        assert_eq!(template.render(&values).unwrap().as_str(), "outputs/J/.._my_film_720.mp4");
        assert_eq!(PathTemplate::parse("{foo}"), Err(InvalidPath::Placeholder("foo".into())));
        assert_eq!(PathTemplate::parse("a{b"), Err(InvalidPath::Brace));
    }

    proptest! {
        #[test]
        fn a_parsed_path_never_leaves_its_root(text in "\\PC{0,40}") {
            if let Ok(path) = ObjectPath::parse(text) {
                let joined = std::path::Path::new("/root").join(path.as_str());
                prop_assert!(joined.starts_with("/root"));
                prop_assert!(joined.components().all(|c| c != std::path::Component::ParentDir));
            }
        }

        #[test]
        fn any_source_name_gives_a_legal_segment(name in "\\PC{0,300}") {
            let template = PathTemplate::parse("d/{name}").unwrap();
            let values = PathValues { job_id: "j", index: 0, preset: "p", name: &name, height: None, ext: "mp4" };
            let path = template.render(&values);
            prop_assert!(name.is_empty() || path.is_ok(), "{path:?}");
        }
    }
}

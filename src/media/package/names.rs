//! What the files of a package are called.

use std::collections::BTreeSet;

use super::{CaptionRendition, Layout, Rendition};

/// Templates of file names. `%v` is the rendition's place in the request, counted from 0, `%n` its name, `%d` or `%03d`
/// the segment's number, counted from 0. Folders are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The master playlist; `None` where the playlist of the only rendition is what players open.
    pub master: Option<String>,
    /// The MPD.
    pub manifest: String,
    /// A rendition's playlist.
    pub playlist: String,
    /// A rendition's playlist of key frames.
    pub iframes: String,
    /// An init segment.
    pub init: String,
    /// A segment; must have its number.
    pub segment: String,
    /// A whole rendition ([`Layout::SingleFile`]).
    pub single: String,
    /// A segment of subtitles; must have its number.
    pub captions: String,
    /// A whole rendition of subtitles.
    pub captions_whole: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            master: Some("master.m3u8".into()),
            manifest: "manifest.mpd".into(),
            playlist: "%n.m3u8".into(),
            iframes: "%n_iframes.m3u8".into(),
            init: "%n_init.mp4".into(),
            segment: "%n_%05d.m4s".into(),
            single: "%n.mp4".into(),
            captions: "%n_%05d.vtt".into(),
            captions_whole: "%n.vtt".into(),
        }
    }
}

impl Names {
    /// The defaults of a layout: MPEG-TS segments end in `.ts`.
    #[must_use]
    pub fn of(layout: Layout) -> Self {
        let segment = match layout {
            Layout::Transport => "%n_%05d.ts",
            Layout::Fragments | Layout::SingleFile => "%n_%05d.m4s",
        };
        Self { segment: segment.into(), ..Self::default() }
    }

    /// The same with everything in a folder but the master playlist and the MPD. Two attempts at one output then never
    /// mix their files (PROTOCOL §1.2).
    #[must_use]
    pub fn below(self, folder: &str) -> Self {
        let below = |name: String| format!("{folder}/{name}");
        Self {
            master: self.master,
            manifest: self.manifest,
            playlist: below(self.playlist),
            iframes: below(self.iframes),
            init: below(self.init),
            segment: below(self.segment),
            single: below(self.single),
            captions: below(self.captions),
            captions_whole: below(self.captions_whole),
        }
    }

    /// Whether these templates give every file of the request a name of its own.
    pub(super) fn check(
        &self,
        renditions: &[Rendition],
        captions: &[CaptionRendition],
        layout: Layout,
    ) -> Result<(), BadName> {
        let mut taken = BTreeSet::new();
        let mut take = |name: String| {
            plain(&name)?;
            if taken.insert(name.clone()) { Ok(()) } else { Err(BadName::Twice(name)) }
        };
        if let Some(master) = &self.master {
            take(master.clone())?;
        }
        take(self.manifest.clone())?;
        let numbered = layout != Layout::SingleFile;
        if numbered && number(&self.segment).is_none() {
            return Err(BadName::Unnumbered(self.segment.clone()));
        }
        if number(&self.captions).is_none() {
            return Err(BadName::Unnumbered(self.captions.clone()));
        }
        let media = renditions.iter().map(|rendition| (&rendition.name, false));
        let named = media.chain(captions.iter().map(|captions| (&captions.name, true)));
        for (index, (name, is_text)) in named.enumerate() {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
                return Err(BadName::Rendition(name.clone()));
            }
            let own: &[&String] = match layout {
                _ if is_text => &[&self.captions, &self.captions_whole],
                Layout::Fragments => &[&self.iframes, &self.init, &self.segment],
                Layout::SingleFile => &[&self.iframes, &self.single],
                Layout::Transport => &[&self.iframes, &self.segment],
            };
            for template in std::iter::once(&self.playlist).chain(own.iter().copied()) {
                take(filled(template, index, name, Some(0)))?;
            }
        }
        Ok(())
    }
}

/// Why files cannot be called so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Not a plain relative path.
    #[error("\"{0}\" is no name for a file of a package")]
    Path(String),
    /// Not a plain name.
    #[error("\"{0}\" is no name for a rendition")]
    Rendition(String),
    /// Two files would have it.
    #[error("two files of the package would be called \"{0}\"; templates need %v or %n")]
    Twice(String),
    /// All segments would be called the same.
    #[error("\"{0}\" has no %d for the segment's number")]
    Unnumbered(String),
}

/// A relative path that is safe on every destination and needs no escaping in a URL or an attribute.
fn plain(path: &str) -> Result<(), BadName> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(good);
    if path.len() <= 200 && path.split('/').all(part) { Ok(()) } else { Err(BadName::Path(path.to_owned())) }
}

/// Where the segment's number goes: the text before, its least width, the text after.
fn number(template: &str) -> Option<(&str, usize, &str)> {
    for (at, _) in template.match_indices('%') {
        let (before, rest) = template.split_at(at);
        let rest = &rest[1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if let Some(after) = rest[digits..].strip_prefix('d') {
            let width = rest[..digits].parse::<usize>().unwrap_or(0);
            return (width <= 12).then_some((before, width, after));
        }
    }
    None
}

/// A template with its places filled in. Without a number its place stays, for [`dash`].
pub(super) fn filled(template: &str, index: usize, name: &str, segment: Option<usize>) -> String {
    let text = match (segment, number(template)) {
        (Some(segment), Some((before, width, after))) => format!("{before}{segment:0width$}{after}"),
        _ => template.to_owned(),
    };
    text.replace("%v", &index.to_string()).replace("%n", name)
}

/// The same as a `SegmentTemplate` wants it (ISO 23009-1 §5.3.9.4.4).
pub(super) fn dash(template: &str, index: usize, name: &str) -> String {
    let text = match number(template) {
        Some((before, 0, after)) => format!("{before}$Number${after}"),
        Some((before, width, after)) => format!("{before}$Number%0{width}d${after}"),
        None => template.to_owned(),
    };
    text.replace("%v", &index.to_string()).replace("%n", name)
}

/// How a file in one place names another, both below the same folder.
pub(super) fn relative(from: &str, to: &str) -> String {
    let mut here: Vec<&str> = from.split('/').collect();
    here.pop();
    let there: Vec<&str> = to.split('/').collect();
    let folders = there.len() - 1;
    let shared = here.iter().zip(&there[..folders]).take_while(|(a, b)| a == b).count();
    let mut path = "../".repeat(here.len() - shared);
    path.push_str(&there[shared..].join("/"));
    path
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    fn renditions(names: &[&str]) -> Vec<Rendition> {
        let one = |name: &&str| Rendition { file: "x".into(), name: (*name).into(), kind: Kind::Video };
        names.iter().map(one).collect()
    }

    #[test]
    fn templates_of_ffmpeg_are_understood() {
        assert_eq!(filled("segment_%v_%03d.ts", 1, "480p", Some(7)), "segment_1_007.ts");
        assert_eq!(filled("%n/%d.m4s", 1, "480p", Some(12)), "480p/12.m4s");
        assert_eq!(dash("%n_%05d.m4s", 0, "720p"), "720p_$Number%05d$.m4s");
        assert_eq!(dash("%v_%d.m4s", 3, "720p"), "3_$Number$.m4s");
    }

    #[test]
    fn names_must_differ_and_stay_inside() {
        let names = |playlist: &str| Names { playlist: playlist.into(), ..Names::default() };
        let two = renditions(&["a", "b"]);
        assert_eq!(names("%v.m3u8").check(&two, &[], Layout::Fragments), Ok(()));
        assert_eq!(names("p.m3u8").check(&two[..1], &[], Layout::Fragments), Ok(()));
        assert!(matches!(names("p.m3u8").check(&two, &[], Layout::Fragments), Err(BadName::Twice(_))));
        assert!(matches!(
            names("master.m3u8").check(&two[..1], &[], Layout::Fragments),
            Err(BadName::Twice(_))
        ));
        for bad in ["/%v.m3u8", "../%v.m3u8", "%v/.m3u8", "%v m3u8", "", "%v//x", "%v$Time$", "%s%v"] {
            assert!(matches!(names(bad).check(&two, &[], Layout::Fragments), Err(BadName::Path(_))), "{bad}");
        }
        let unnumbered = Names { segment: "%v.m4s".into(), ..Names::default() };
        assert!(matches!(unnumbered.check(&two, &[], Layout::Fragments), Err(BadName::Unnumbered(_))));
        assert_eq!(unnumbered.check(&two, &[], Layout::SingleFile), Ok(()));
        let odd = renditions(&["a b"]);
        assert!(matches!(Names::default().check(&odd, &[], Layout::Fragments), Err(BadName::Rendition(_))));
    }

    #[test]
    fn files_name_each_other_relatively() {
        assert_eq!(relative("master.m3u8", "a/p.m3u8"), "a/p.m3u8");
        assert_eq!(relative("a/p.m3u8", "a/0.ts"), "0.ts");
        assert_eq!(relative("lists/p.m3u8", "media/0.ts"), "../media/0.ts");
        assert_eq!(relative("a/b/p.m3u8", "0.ts"), "../../0.ts");
    }
}

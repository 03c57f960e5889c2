//! Reading playlists (RFC 8216), as a strict reader does.

use std::collections::BTreeMap;

/// Attributes of a tag; quotes are taken off.
pub(super) type Attributes = BTreeMap<String, String>;

/// Lines read at most.
const MAX_LINES: usize = 1_000_000;

/// A playlist of either kind.
#[expect(clippy::struct_excessive_bools, reason = "tags that are there or not")]
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Playlist {
    pub(super) version: u32,
    pub(super) independent: bool,
    pub(super) variants: Vec<Variant>,
    /// EXT-X-MEDIA.
    pub(super) media: Vec<Attributes>,
    /// EXT-X-I-FRAME-STREAM-INF.
    pub(super) iframes: Vec<Attributes>,
    pub(super) target: Option<u32>,
    pub(super) vod: bool,
    pub(super) ended: bool,
    pub(super) only_key_frames: bool,
    pub(super) segments: Vec<Segment>,
    /// The least version that its tags need (§7).
    pub(super) needs: u32,
    /// What is wrong, with line numbers.
    pub(super) faults: Vec<(usize, String)>,
}

/// EXT-X-STREAM-INF.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Variant {
    pub(super) line: usize,
    pub(super) attributes: Attributes,
    pub(super) uri: String,
}

/// One media segment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Segment {
    pub(super) line: usize,
    /// Seconds.
    pub(super) duration: f64,
    pub(super) uri: String,
    /// Offset and size.
    pub(super) range: Option<(u64, u64)>,
    /// The EXT-X-MAP in force.
    pub(super) map: Option<Map>,
}

/// EXT-X-MAP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) uri: String,
    pub(super) range: Option<(u64, u64)>,
}

impl Playlist {
    pub(super) fn is_master(&self) -> bool {
        !self.variants.is_empty() || !self.media.is_empty() || !self.iframes.is_empty()
    }

    /// Reads the text of a playlist; what cannot be read is a fault and left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut reader =
            Reader { playlist: Self { version: 1, needs: 1, ..Self::default() }, ..Reader::default() };
        if text.lines().next().map(str::trim_end) != Some("#EXTM3U") {
            reader.fault(1, "the first line is not #EXTM3U");
        }
        for (n, line) in text.lines().take(MAX_LINES).enumerate() {
            reader.line(n + 1, line.trim_end());
        }
        reader.end()
    }
}

#[derive(Debug, Default)]
struct Reader {
    playlist: Playlist,
    /// EXT-X-STREAM-INF that waits for its URI.
    variant: Option<(usize, Attributes)>,
    duration: Option<f64>,
    range: Option<(u64, Option<u64>)>,
    map: Option<Map>,
    /// Where the last range ended, and of which file.
    last: Option<(String, u64)>,
    has_version: bool,
}

impl Reader {
    fn fault(&mut self, line: usize, text: impl Into<String>) {
        if self.playlist.faults.len() < 100 {
            self.playlist.faults.push((line, text.into()));
        }
    }

    fn need(&mut self, version: u32) {
        self.playlist.needs = self.playlist.needs.max(version);
    }

    fn line(&mut self, n: usize, line: &str) {
        if line.is_empty() {
            return;
        }
        if !line.starts_with('#') {
            self.uri(n, line);
            return;
        }
        let Some(tag) = line.strip_prefix("#EXT") else { return };
        let (name, value) = tag.split_once(':').unwrap_or((tag, ""));
        match name {
            "-X-VERSION" => {
                if std::mem::replace(&mut self.has_version, true) {
                    self.fault(n, "a second EXT-X-VERSION");
                }
                self.playlist.version = self.integer(n, name, value);
            }
            "-X-INDEPENDENT-SEGMENTS" => self.playlist.independent = true,
            "-X-TARGETDURATION" => self.playlist.target = Some(self.integer(n, name, value)),
            "-X-PLAYLIST-TYPE" => self.playlist.vod = value == "VOD",
            "-X-ENDLIST" => self.playlist.ended = true,
            "-X-I-FRAMES-ONLY" => {
                self.playlist.only_key_frames = true;
                self.need(4);
            }
            "INF" => {
                let seconds = value.split(',').next().unwrap_or_default();
                if seconds.contains('.') {
                    self.need(3);
                }
                match seconds.parse::<f64>() {
                    Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => self.duration = Some(seconds),
                    _ => self.fault(n, "EXTINF is no duration"),
                }
            }
            "-X-BYTERANGE" => {
                self.need(4);
                self.range = range(value);
                if self.range.is_none() {
                    self.fault(n, "EXT-X-BYTERANGE is no range");
                }
            }
            "-X-MAP" => self.map(n, value),
            "-X-STREAM-INF" => {
                let attributes = self.attributes(n, value);
                self.variant = Some((n, attributes));
            }
            "-X-MEDIA" => {
                let attributes = self.attributes(n, value);
                for needed in ["TYPE", "GROUP-ID", "NAME"] {
                    if !attributes.contains_key(needed) {
                        self.fault(n, format!("EXT-X-MEDIA without {needed}"));
                    }
                }
                if attributes.get("TYPE").is_some_and(|kind| kind == "SUBTITLES")
                    && !attributes.contains_key("URI")
                {
                    self.fault(n, "EXT-X-MEDIA of subtitles without URI");
                }
                self.playlist.media.push(attributes);
            }
            "-X-I-FRAME-STREAM-INF" => {
                let attributes = self.attributes(n, value);
                for needed in ["BANDWIDTH", "URI"] {
                    if !attributes.contains_key(needed) {
                        self.fault(n, format!("EXT-X-I-FRAME-STREAM-INF without {needed}"));
                    }
                }
                self.playlist.iframes.push(attributes);
            }
            _ => {}
        }
    }

    fn integer(&mut self, n: usize, name: &str, value: &str) -> u32 {
        value.trim().parse().unwrap_or_else(|_| {
            self.fault(n, format!("EXT{name} is no number"));
            0
        })
    }

    fn map(&mut self, n: usize, value: &str) {
        let attributes = self.attributes(n, value);
        let range = attributes.get("BYTERANGE").map(|text| range(text));
        match (attributes.get("URI"), range) {
            (Some(uri), None) => self.map = Some(Map { uri: uri.clone(), range: None }),
            (Some(uri), Some(Some((size, offset)))) => {
                self.map = Some(Map { uri: uri.clone(), range: Some((offset.unwrap_or(0), size)) });
            }
            _ => self.fault(n, "EXT-X-MAP without a URI or with a range that is none"),
        }
    }

    fn attributes(&mut self, n: usize, text: &str) -> Attributes {
        let mut attributes = Attributes::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let Some((name, after)) = rest.split_once('=') else {
                self.fault(n, "an attribute without a value");
                break;
            };
            let good = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-';
            if name.is_empty() || !name.bytes().all(good) {
                self.fault(n, "an attribute whose name is none");
                break;
            }
            let (value, tail) = if let Some(quoted) = after.strip_prefix('"') {
                let Some(parts) = quoted.split_once('"') else {
                    self.fault(n, format!("{name} has no closing quote"));
                    break;
                };
                parts
            } else {
                let at = after.find(',').unwrap_or(after.len());
                after.split_at(at)
            };
            if attributes.insert(name.to_owned(), value.to_owned()).is_some() {
                self.fault(n, format!("{name} is there twice"));
            }
            rest = match tail.strip_prefix(',') {
                Some(more) => more.trim_start(),
                None if tail.is_empty() => "",
                None => {
                    self.fault(n, format!("something follows the value of {name}"));
                    break;
                }
            };
        }
        attributes
    }

    fn uri(&mut self, n: usize, uri: &str) {
        if let Some((line, attributes)) = self.variant.take() {
            if !attributes.contains_key("BANDWIDTH") {
                self.fault(line, "EXT-X-STREAM-INF without BANDWIDTH");
            }
            self.playlist.variants.push(Variant { line, attributes, uri: uri.to_owned() });
            return;
        }
        let Some(duration) = self.duration.take() else {
            self.fault(n, "a segment without EXTINF");
            return;
        };
        let range = self.range.take().map(|(size, offset)| {
            let follows = self.last.as_ref().filter(|(file, _)| file == uri).map(|(_, end)| *end);
            (offset.or(follows).unwrap_or(0), size)
        });
        self.last = range.map(|(offset, size)| (uri.to_owned(), offset.saturating_add(size)));
        let map = self.map.clone();
        self.playlist.segments.push(Segment { line: n, duration, uri: uri.to_owned(), range, map });
    }

    fn end(mut self) -> Playlist {
        if let Some((line, _)) = self.variant.take() {
            self.fault(line, "EXT-X-STREAM-INF without a URI after it");
        }
        if self.map.is_some() {
            self.need(if self.playlist.only_key_frames { 5 } else { 6 });
        }
        if !self.playlist.is_master() {
            match self.playlist.target {
                None => self.fault(1, "there is no EXT-X-TARGETDURATION"),
                Some(0) => self.fault(1, "EXT-X-TARGETDURATION is 0"),
                Some(_) => {}
            }
            if self.playlist.segments.is_empty() {
                self.fault(1, "there is no segment");
            }
        }
        self.playlist
    }
}

/// `size[@offset]`.
fn range(text: &str) -> Option<(u64, Option<u64>)> {
    let (size, offset) = match text.split_once('@') {
        Some((size, offset)) => (size, Some(offset.parse::<u64>().ok()?)),
        None => (text, None),
    };
    let size = size.parse::<u64>().ok().filter(|&size| size > 0)?;
    offset.unwrap_or(0).checked_add(size)?;
    Some((size, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_and_versions_follow_from_them() {
        let text = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:4\n#EXT-X-PLAYLIST-TYPE:VOD\n\
                    #EXT-X-MAP:URI=\"a.mp4\",BYTERANGE=\"10@0\"\n#EXTINF:4.0,\n#EXT-X-BYTERANGE:20@10\na.mp4\n\
                    #EXTINF:3,title\n#EXT-X-BYTERANGE:5\na.mp4\n#EXT-X-ENDLIST\n";
        let playlist = Playlist::parse(text);
        assert_eq!(playlist.faults, []);
        assert_eq!((playlist.version, playlist.needs, playlist.target), (7, 6, Some(4)));
        assert!(playlist.vod && playlist.ended && !playlist.is_master());
        let ranges: Vec<_> = playlist.segments.iter().map(|segment| segment.range).collect();
        assert_eq!(ranges, [Some((10, 20)), Some((30, 5))]);
        assert_eq!(playlist.segments[0].map, Some(Map { uri: "a.mp4".into(), range: Some((0, 10)) }));
    }

    #[test]
    fn commas_in_quotes_divide_nothing() {
        let text = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"a,b\",RESOLUTION=2x3\nv.m3u8\n";
        let playlist = Playlist::parse(text);
        assert_eq!(playlist.variants[0].attributes["CODECS"], "a,b");
        assert_eq!(playlist.variants[0].attributes["RESOLUTION"], "2x3");
        assert_eq!(playlist.faults, []);
    }

    #[test]
    fn faults_have_their_lines() {
        let faulty = [
            ("#EXT-X-VERSION:7\n", 1),
            ("#EXTM3U\n#EXTINF:x,\n", 2),
            ("#EXTM3U\nx.ts\n", 2),
            ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"a\nx\n", 2),
            ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,BANDWIDTH=2\nx\n", 2),
            ("#EXTM3U\n#EXT-X-STREAM-INF:CODECS=\"a\"\nx\n", 2),
            ("#EXTM3U\n#EXT-X-BYTERANGE:0@1\n", 2),
        ];
        for (text, line) in faulty {
            assert_eq!(Playlist::parse(text).faults.first().map(|fault| fault.0), Some(line), "{text}");
        }
        let _ = Playlist::parse("\u{feff}#EXTM3U\n\0=\"");
    }
}

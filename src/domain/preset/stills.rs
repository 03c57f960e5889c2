//! Stills: single pictures of a film, and series of them for timelines.

use serde::{Deserialize, Serialize};

use super::{BoxSize, Container};
use crate::domain::Fault;

/// Most stills of one output.
pub const MAX_STILLS: u32 = 10_000;
/// Longest distance between stills, seconds: a day.
const MAX_SECONDS: f64 = 86_400.0;
/// Shortest distance, seconds: less is a film.
const MIN_SECONDS: f64 = 0.1;
/// Largest side of a sprite sheet, pixels: what WebP holds and every browser shows.
const MAX_SHEET: u32 = 16_383;
/// Most pixels of a sheet.
const MAX_SHEET_PIXELS: u64 = 64 << 20;
/// The box of a cell where the setting has none.
const CELL: (u32, u32) = (160, 90);

/// Quality where a setting does not say.
pub(super) const DEFAULT_QUALITY: u8 = 85;

/// Stills of an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Document", into = "Document")]
pub struct StillsSpec {
    /// Which moments.
    pub times: StillTimes,
    /// Largest picture, pixels; turned to the film's orientation. Absent = the film's size, for cells of a sprite 160x90.
    pub bounds: Option<BoxSize>,
    /// 1 to 100, higher is better; of no meaning for png.
    pub quality: u8,
    /// Whether another moment is looked for where the picture is black.
    pub skip_black: bool,
    /// What the pictures of a series are; of single ones the container says it.
    pub format: StillFormat,
    /// Many stills in one picture.
    pub sprite: Option<Sprite>,
}

/// As clients write it: exactly one way to say which moments.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<StillMoment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    every_seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    every_percent: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(rename = "box", default, skip_serializing_if = "Option::is_none")]
    bounds: Option<BoxSize>,
    #[serde(default = "default_quality")]
    quality: u8,
    #[serde(default = "default_skip_black")]
    skip_black: bool,
    #[serde(default)]
    format: StillFormat,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sprite: Option<Sprite>,
}

const fn default_quality() -> u8 {
    DEFAULT_QUALITY
}

const fn default_skip_black() -> bool {
    true
}

impl From<StillsSpec> for Document {
    fn from(spec: StillsSpec) -> Self {
        let StillsSpec { times, bounds, quality, skip_black, format, sprite } = spec;
        let mut document = Self {
            at: None,
            every_seconds: None,
            every_percent: None,
            count: None,
            bounds,
            quality,
            skip_black,
            format,
            sprite,
        };
        match times {
            StillTimes::Best => document.at = Some(StillMoment(None)),
            StillTimes::At(seconds) => document.at = Some(StillMoment(Some(seconds))),
            StillTimes::EverySeconds(seconds) => document.every_seconds = Some(seconds),
            StillTimes::EveryPercent(percent) => document.every_percent = Some(percent),
            StillTimes::Count(count) => document.count = Some(count),
        }
        document
    }
}

impl TryFrom<Document> for StillsSpec {
    type Error = &'static str;
    fn try_from(document: Document) -> Result<Self, Self::Error> {
        let Document { at, every_seconds, every_percent, count, bounds, quality, skip_black, format, sprite } =
            document;
        let times = match (at, every_seconds, every_percent, count) {
            (Some(moment), None, None, None) => moment.into(),
            (None, Some(seconds), None, None) => StillTimes::EverySeconds(seconds),
            (None, None, Some(percent), None) => StillTimes::EveryPercent(percent),
            (None, None, None, Some(count)) => StillTimes::Count(count),
            _ => return Err("stills have exactly one of at, every_seconds, every_percent and count"),
        };
        Ok(Self { times, bounds, quality, skip_black, format, sprite })
    }
}

/// `"best"`, seconds, or `HH:MM:SS.mmm`; `None` = best.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub(super) struct StillMoment(Option<f64>);

impl From<StillMoment> for StillTimes {
    fn from(moment: StillMoment) -> Self {
        moment.0.map_or(Self::Best, Self::At)
    }
}

impl From<StillMoment> for serde_json::Value {
    fn from(moment: StillMoment) -> Self {
        moment.0.map_or_else(|| "best".into(), Self::from)
    }
}

impl TryFrom<serde_json::Value> for StillMoment {
    type Error = &'static str;
    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        const WANTED: &str = "at is \"best\", seconds or \"HH:MM:SS.mmm\"";
        if let Some(seconds) = value.as_f64() {
            return Ok(Self(Some(seconds)));
        }
        let text = value.as_str().ok_or(WANTED)?;
        if text == "best" {
            return Ok(Self(None));
        }
        let parts: Option<Vec<f64>> = text
            .split(':')
            .map(|part| part.parse().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit() || b == b'.')))
            .collect();
        match parts.as_deref() {
            Some([hours, minutes, seconds]) if *minutes < 60.0 && *seconds < 60.0 => {
                Ok(Self(Some(hours * 3600.0 + minutes * 60.0 + seconds)))
            }
            _ => Err(WANTED),
        }
    }
}

/// Which moments of a film.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StillTimes {
    /// One that shows something, chosen among a few.
    Best,
    /// This one, seconds from the beginning.
    At(f64),
    /// One in so many seconds.
    EverySeconds(f64),
    /// One in so many percent of the film.
    EveryPercent(f64),
    /// So many, evenly spread.
    Count(u32),
}

/// What a picture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StillFormat {
    /// JPEG.
    #[default]
    Jpg,
    /// PNG.
    Png,
    /// `WebP`, lossy.
    Webp,
}

impl StillFormat {
    /// The extension, which is the name in the API.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jpg => "jpg",
            Self::Png => "png",
            Self::Webp => "webp",
        }
    }

    /// MIME type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Jpg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
        }
    }
}

/// How stills are laid out in one picture, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sprite {
    /// Stills in a row, 1 to 100.
    pub columns: u32,
    /// Rows, 1 to 100.
    pub rows: u32,
}

impl Sprite {
    /// Stills of a full sheet.
    #[must_use]
    pub const fn cells(self) -> u32 {
        self.columns * self.rows
    }
}

impl StillsSpec {
    /// The box of a picture; `None` = the film's own size.
    #[must_use]
    pub fn picture(&self) -> Option<(u32, u32)> {
        let given = self.bounds.map(|size| (size.width(), size.height()));
        given.or_else(|| self.sprite.map(|_| CELL))
    }
}

/// The name of a film's poster, which lies beside it.
#[must_use]
pub fn poster_name(film: &str) -> String {
    let name = film.rsplit('/').next().unwrap_or(film);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem });
    format!("{stem}.poster.jpg")
}

/// Stills by themselves, and against the container.
pub(super) fn check(container: Container, stills: Option<&StillsSpec>, faults: &mut Vec<Fault>) {
    let mut fault = |at: &str, detail: String| faults.push(Fault::new(format!("/stills{at}"), detail));
    let Some(spec) = stills else {
        if container.is_stills() {
            fault("", format!("{} is made of stills; say which", container.name()));
        }
        return;
    };
    if !container.is_stills() {
        return fault("", "stills need container jpg, png, webp or vtt".to_owned());
    }
    let within = |value: f64, least: f64, most: f64| value.is_finite() && (least..=most).contains(&value);
    match spec.times {
        StillTimes::At(at) if !within(at, 0.0, MAX_SECONDS) => {
            fault("/at", format!("at is \"best\" or 0 to {MAX_SECONDS} seconds"));
        }
        StillTimes::EverySeconds(step) if !within(step, MIN_SECONDS, MAX_SECONDS) => {
            fault("/every_seconds", format!("every_seconds is {MIN_SECONDS} to {MAX_SECONDS}"));
        }
        StillTimes::EveryPercent(step) if !within(step, 100.0 / f64::from(MAX_STILLS), 100.0) => {
            fault("/every_percent", format!("every_percent is {} to 100", 100.0 / f64::from(MAX_STILLS)));
        }
        StillTimes::Count(count) if !(1..=MAX_STILLS).contains(&count) => {
            fault("/count", format!("count is 1 to {MAX_STILLS}"));
        }
        StillTimes::Best
        | StillTimes::At(_)
        | StillTimes::EverySeconds(_)
        | StillTimes::EveryPercent(_)
        | StillTimes::Count(_) => {}
    }
    let one = match spec.times {
        StillTimes::Best | StillTimes::At(_) => true,
        StillTimes::Count(count) => count == 1,
        StillTimes::EverySeconds(_) | StillTimes::EveryPercent(_) => false,
    };
    match (container, spec.times) {
        (Container::Vtt, StillTimes::Best | StillTimes::At(_)) => {
            fault("/at", "vtt lists a series; one still needs container jpg, png or webp".to_owned());
        }
        (Container::Vtt, _) => {}
        _ if !one => fault("", "several stills are a set with a list; use container vtt".to_owned()),
        _ if spec.sprite.is_some() => fault("/sprite", "a sprite needs container vtt".to_owned()),
        _ => {}
    }
    if !(1..=100).contains(&spec.quality) {
        fault("/quality", "quality is 1 to 100".to_owned());
    }
    if let Some(Sprite { columns, rows }) = spec.sprite {
        let (width, height) = spec.picture().unwrap_or(CELL);
        for (name, count) in [("columns", columns), ("rows", rows)] {
            if !(1..=100).contains(&count) {
                fault(&format!("/sprite/{name}"), format!("{name} is 1 to 100"));
            }
        }
        // A portrait film turns the box.
        let side = width.max(height);
        let most = columns.max(rows).saturating_mul(side);
        let pixels = u64::from(width) * u64::from(height) * u64::from(columns) * u64::from(rows);
        if most > MAX_SHEET || pixels > MAX_SHEET_PIXELS {
            fault("/sprite", format!("a sheet is at most {MAX_SHEET} pixels wide and high, and 64 Mpx"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_say_the_moments_in_one_way_and_read_back() {
        for document in [
            json!({"at": "best", "quality": 85, "skip_black": true, "format": "jpg"}),
            json!({"at": 83.5, "quality": 1, "skip_black": false, "format": "png"}),
            json!({"every_seconds": 10.0, "box": "160x90", "quality": 75, "skip_black": true, "format": "webp",
                   "sprite": {"columns": 10, "rows": 10}}),
        ] {
            let spec: StillsSpec = serde_json::from_value(document.clone()).unwrap();
            assert_eq!(serde_json::to_value(&spec).unwrap(), document);
        }
        let spec: StillsSpec = serde_json::from_value(json!({"at": "00:01:23.500"})).unwrap();
        assert_eq!(spec.times, StillTimes::At(83.5));
        for wrong in
            [json!({}), json!({"at": 1, "count": 2}), json!({"at": "1:2"}), json!({"at": "00:61:00"})]
        {
            assert!(serde_json::from_value::<StillsSpec>(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_fault_points_at_its_field() {
        let said = |container, document: serde_json::Value| {
            let spec: StillsSpec = serde_json::from_value(document).unwrap();
            let mut faults = Vec::new();
            check(container, Some(&spec), &mut faults);
            faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>()
        };
        assert!(said(Container::Jpg, json!({"at": "best"})).is_empty());
        assert!(
            said(Container::Vtt, json!({"count": 100, "sprite": {"columns": 10, "rows": 10}})).is_empty()
        );
        for (container, document, pointer) in [
            (Container::Mp4, json!({"at": 1}), "/stills"),
            (Container::Jpg, json!({"at": -1}), "/stills/at"),
            (Container::Jpg, json!({"count": 2}), "/stills"),
            (Container::Png, json!({"at": 1, "sprite": {"columns": 1, "rows": 1}}), "/stills/sprite"),
            (Container::Vtt, json!({"at": 1}), "/stills/at"),
            (Container::Vtt, json!({"count": 10_001}), "/stills/count"),
            (Container::Vtt, json!({"every_seconds": 0.01}), "/stills/every_seconds"),
            (Container::Vtt, json!({"every_percent": 0.001}), "/stills/every_percent"),
            (Container::Vtt, json!({"count": 3, "quality": 0}), "/stills/quality"),
            (
                Container::Vtt,
                json!({"count": 3, "sprite": {"columns": 0, "rows": 1}}),
                "/stills/sprite/columns",
            ),
            (
                Container::Vtt,
                json!({"count": 3, "box": "1920x1080", "sprite": {"columns": 10, "rows": 1}}),
                "/stills/sprite",
            ),
        ] {
            assert_eq!(said(container, document.clone()), [pointer], "{document}");
        }
        let mut faults = Vec::new();
        check(Container::Vtt, None, &mut faults);
        assert_eq!(faults.len(), 1);
    }
}

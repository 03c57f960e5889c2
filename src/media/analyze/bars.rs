//! Black bars: where they end, and when that is certain enough to cut there.
//!
//! `cropdetect` calls a line black whose mean is at most 24 of 255. Measured with ffmpeg 5.1.9 on moving pictures with noise
//! between bars of 46 lines, 640x360, x264: at crf 18, 28 and 38 the edges are found to the line, at crf 45 one is off by
//! two; a limit of 16 misses up to twelve lines from crf 38 on, where ringing lightens the bars.

use crate::domain::Area;

/// Frames looked at per place, and how far they are apart.
pub(super) const FRAMES: u32 = 3;
pub(super) const STEP: u32 = 8;
/// Places of a source that are looked at; a shorter one than [`SHORT`] seconds is looked at once.
const PLACES: u32 = 8;
const SHORT: f64 = 4.0;

/// Bars below this part of a side are the soft edge of an old camera or a codec's padding, not worth a resampled picture.
const LEAST_PART: f64 = 0.01;
const LEAST_PIXELS: u32 = 4;
/// By how much two opposite bars, or two places, may differ, as a part of the side: what coarse compression hides.
const SLACK: f64 = 0.02;
const SLACK_PIXELS: u32 = 4;
/// Least part of a side that a film fills: 9:16 inside 16:9 fills 0.316.
const LEAST_SIDE: f64 = 0.3;
/// Least part of the whole that it fills when there are bars on all sides: 16:9 in 4:3 in 16:9 fills 0.5625. Less is a
/// title or a logo on black.
const LEAST_WINDOW: f64 = 0.5;

/// What one place showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing but black.
    Black,
    /// The smallest part that holds everything else.
    Lit(Area),
}

/// Where to look, seconds from the start.
pub(super) fn places(seconds: Option<f64>) -> Vec<f64> {
    match seconds.filter(|seconds| *seconds >= SHORT) {
        // Titles and credits stand at the ends: each place is the middle of its part.
        Some(all) => (0..PLACES).map(|n| all * (f64::from(n) + 0.5) / f64::from(PLACES)).collect(),
        None => vec![0.0],
    }
}

/// The last word of a `cropdetect`, which speaks of all frames so far: `… crop=640:268:0:46`.
pub(super) fn read(log: &[String]) -> Option<Seen> {
    let text = log.iter().rev().find_map(|line| line.rsplit_once(" crop=").map(|(_, text)| text))?;
    let numbers: Vec<i64> = text.split(':').map(|part| part.trim().parse().ok()).collect::<Option<_>>()?;
    let [width, height, x, y] = numbers[..] else { return None };
    if width <= 0 || height <= 0 {
        return Some(Seen::Black);
    }
    let side = |side: i64| u32::try_from(side).ok();
    Some(Seen::Lit(Area { x: side(x)?, y: side(y)?, width: side(width)?, height: side(height)? }))
}

/// Whether a place shows that there are no bars.
pub(super) fn is_whole(seen: Seen, whole: (u32, u32)) -> bool {
    matches!(seen, Seen::Lit(area) if cut(area, whole).is_none())
}

/// What is left of the picture, where it is certain: at least half of the places that show anything end where the bars
/// end (the others are dark scenes), the bars are as wide on one side as on the other, and enough is left for a film.
pub(super) fn decide(places: &[Seen], whole: (u32, u32)) -> Option<Area> {
    let lit: Vec<Area> = places
        .iter()
        .filter_map(|seen| match seen {
            Seen::Lit(area) => Some(*area),
            Seen::Black => None,
        })
        .collect();
    let all = lit.iter().copied().reduce(around)?;
    let agreeing = lit.iter().filter(|area| is_near(**area, all, whole)).count();
    if agreeing * 2 < lit.len() {
        return None;
    }
    let area = cut(all, whole)?;
    let part = |inner: u32, outer: u32| f64::from(inner) / f64::from(outer.max(1));
    let (across, down) = (part(area.width, whole.0), part(area.height, whole.1));
    let window = across < 1.0 && down < 1.0;
    let enough = across.min(down) >= LEAST_SIDE && (!window || across * down >= LEAST_WINDOW);
    let even = |before: u32, size: u32, all: u32| {
        before.abs_diff(all - before - size) <= slack(all).max(LEAST_PIXELS)
    };
    let centred = even(area.x, area.width, whole.0) && even(area.y, area.height, whole.1);
    (enough && centred).then_some(area)
}

/// The area on even places, whole where the bars of a side are too small to matter; `None` where nothing is left to cut.
fn cut(area: Area, whole: (u32, u32)) -> Option<Area> {
    let side = |from: u32, size: u32, all: u32| {
        let (from, end) = (from.min(all), from.saturating_add(size).min(all));
        let worth =
            f64::from(all - (end - from)) >= (f64::from(all) * LEAST_PART).max(f64::from(LEAST_PIXELS));
        if worth {
            let start = from.next_multiple_of(2);
            (start, (end / 2 * 2).saturating_sub(start))
        } else {
            (0, all)
        }
    };
    let ((x, width), (y, height)) = (side(area.x, area.width, whole.0), side(area.y, area.height, whole.1));
    let is_cut = (width, height) != whole && width > 0 && height > 0;
    // Beside a cut, an odd side loses its last line: there is no half of a chroma sample.
    is_cut.then_some(Area { x, y, width: width / 2 * 2, height: height / 2 * 2 })
}

fn around(a: Area, b: Area) -> Area {
    let (x, y) = (a.x.min(b.x), a.y.min(b.y));
    let (right, bottom) = ((a.x + a.width).max(b.x + b.width), (a.y + a.height).max(b.y + b.height));
    Area { x, y, width: right - x, height: bottom - y }
}

fn is_near(area: Area, all: Area, whole: (u32, u32)) -> bool {
    let near = |a: u32, b: u32, side: u32| a.abs_diff(b) <= slack(side);
    near(area.x, all.x, whole.0)
        && near(area.y, all.y, whole.1)
        && near(area.x + area.width, all.x + all.width, whole.0)
        && near(area.y + area.height, all.y + all.height, whole.1)
}

fn slack(side: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a side")]
    let part = (f64::from(side) * SLACK) as u32;
    part.max(SLACK_PIXELS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HD: (u32, u32) = (1920, 1080);

    fn lit(width: u32, height: u32, x: u32, y: u32) -> Seen {
        Seen::Lit(Area { x, y, width, height })
    }

    #[test]
    fn bars_are_cut_where_they_are_certain() {
        let scope = lit(1920, 800, 0, 140);
        let cut = |width, height, x, y| Some(Area { x, y, width, height });
        for (what, places, expected) in [
            ("cinema", vec![scope; 8], cut(1920, 800, 0, 140)),
            ("one place of a short clip", vec![scope], cut(1920, 800, 0, 140)),
            ("fades to black", vec![Seen::Black, scope, Seen::Black], cut(1920, 800, 0, 140)),
            ("dark scenes show less", vec![scope, scope, lit(400, 300, 600, 300)], cut(1920, 800, 0, 140)),
            ("compressed", vec![scope, lit(1920, 806, 0, 138)], cut(1920, 806, 0, 138)),
            ("a phone's", vec![lit(608, 1080, 656, 0); 3], cut(608, 1080, 656, 0)),
            (
                "television in cinema in television",
                vec![lit(1440, 810, 240, 135); 3],
                cut(1440, 808, 240, 136),
            ),
            ("nothing", vec![], None),
            ("black all through", vec![Seen::Black; 8], None),
            ("no bars", vec![lit(1920, 1080, 0, 0); 3], None),
            ("a soft edge", vec![lit(1912, 1080, 4, 0); 3], None),
            ("most scenes are dark", vec![scope, lit(400, 300, 600, 300), lit(300, 300, 800, 300)], None),
            ("only below", vec![lit(1920, 940, 0, 0); 3], None),
            ("a logo", vec![lit(600, 400, 660, 340); 3], None),
            ("a line of text", vec![lit(1920, 200, 0, 440); 3], None),
        ] {
            assert_eq!(decide(&places, HD), expected, "{what}");
        }
    }

    #[test]
    fn odd_sides_end_on_pairs() {
        let cut = decide(&[lit(853, 360, 0, 60)], (853, 480));
        assert_eq!(cut, Some(Area { x: 0, y: 60, width: 852, height: 360 }));
    }

    #[test]
    fn the_filters_last_word_counts() {
        let log = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let words = "[Parsed_cropdetect_0 @ 0x1] [info] x1:0 x2:639 t:0.1 crop=640:260:0:50\n\
            [Parsed_cropdetect_0 @ 0x1] [info] x1:0 x2:639 t:0.2 crop=640:268:0:46\n[info] video:1kB";
        assert_eq!(read(&log(words)), Some(lit(640, 268, 0, 46)));
        assert_eq!(read(&log("[x] x1:639 x2:0 crop=-638:-358:640:360")), Some(Seen::Black));
        assert_eq!(read(&log("[info] nothing")), None);
        assert_eq!(read(&log("[x] crop=1:2:3")), None);
    }

    #[test]
    fn long_sources_are_looked_at_in_eight_places() {
        assert_eq!(places(None), [0.0]);
        assert_eq!(places(Some(2.0)), [0.0]);
        let places = places(Some(80.0));
        assert_eq!((places.len(), places[0], places[7]), (8, 5.0, 75.0));
    }
}

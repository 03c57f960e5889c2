//! Fields: are the frames of a source whole pictures, or two half pictures of different times, or film in a 29.97 frame?
//!
//! Thresholds: MEDIA-RULES §1.12, measured with `idet` of ffmpeg 5.1.9 on interlaced, telecined, static and progressive clips.
//! Beside them one more: real interlaced pictures have one order. A progressive test picture of fine moving lines
//! (`testsrc2`, 720x576) counts 55 frames of one order, 34 of the other and 32 progressive: that is no interlace but no
//! certainty either. In its first two seconds the other order does not show yet (41, 1 and 9 of 640x360; after three seconds
//! 41, 26 and 9), so against a codec that calls its frames progressive more frames must speak, and with one voice.

use crate::domain::{FieldOrder, Rational, Scan, VideoStream};

/// Frames looked at per place.
pub(super) const FRAMES: u32 = 120;
/// A source with fewer frames than this many looks is decoded as a whole.
const PLACES: f64 = 3.0;
/// Least frames with a verdict.
const DETERMINED: u32 = 30;
/// Least part of them that is interlaced.
const INTERLACED: f64 = 0.4;
/// Parts of all frames that repeat a field in 3:2 pulldown: 48 of 121 were measured.
const REPEATED: std::ops::RangeInclusive<f64> = 0.3..=0.5;
/// Most of the interlaced frames that may have the other order.
const STRAY: f64 = 0.2;
/// The same of a source that does not declare fields.
const UNSAID_DETERMINED: u32 = 75;
const UNSAID_STRAY: f64 = 0.05;
/// Tallest interlaced format, lines, with the padding of its coding.
const TALLEST: u32 = 1152;

/// What `idet` counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) top_first: u32,
    pub(super) bottom_first: u32,
    pub(super) progressive: u32,
    pub(super) undetermined: u32,
    /// Frames that repeat a field of the one before.
    pub(super) repeated: u32,
}

/// Lines of television that comes in fields: 480 and 486 (SMPTE 125M), 576 (BT.601), 1080 (SMPTE 274M) and 1088 as it is
/// coded. Nothing else was ever interlaced; 720 lines have no fields (SMPTE 296M).
const RASTERS: [u32; 5] = [480, 486, 576, 1080, 1088];

/// Whether it can matter: a codec that has fields, and a source that says so or has the rate and the lines of television.
pub(super) fn may_have(stream: &VideoStream) -> bool {
    let rate = stream.frame_rate.map_or(0.0, Rational::as_f64);
    // 30 is a phone or a screen, 29.97 may be anything.
    let rhythm = (rate - 25.0).abs() < 0.05 || (rate - 29.97).abs() < 0.02;
    let television = rhythm && RASTERS.contains(&stream.height);
    // Fewer frames than a verdict needs are no reason to start a tool.
    let enough = stream.packets.is_none_or(|packets| packets >= u64::from(DETERMINED));
    enough
        && stream.codec_has_fields()
        && stream.height <= TALLEST
        && (stream.declares_fields() || television)
}

/// Whether the first place is enough: nobody says fields, and the middle of the source shows none. A look costs 0.75 s of a
/// core for 720p and 1.5 s for 1080p, so most sources are spared two of three.
pub(super) fn is_clear(counts: Counts, stream: &VideoStream) -> bool {
    let interlaced = counts.top_first + counts.bottom_first;
    let determined = interlaced + counts.progressive;
    !stream.declares_fields() && determined >= FRAMES / 2 && interlaced * 20 <= determined
}

/// Where to look, seconds from the start, and how many frames there.
pub(super) fn places(seconds: Option<f64>, rate: Option<Rational>) -> Vec<(f64, u32)> {
    let frames = seconds.zip(rate).map(|(seconds, rate)| seconds * rate.as_f64());
    match (seconds, frames) {
        (Some(seconds), Some(frames)) if frames > f64::from(FRAMES) * PLACES => {
            [0.5, 0.1, 0.85].map(|part| (seconds * part, FRAMES)).into()
        }
        // Of a source that cannot be sought, as many frames from its start.
        _ => vec![(0.0, FRAMES * 3)],
    }
}

/// Reads `idet`'s last words, such as `Multi frame detection: TFF:   121 BFF:     0 Progressive:     0 Undetermined:     0`.
pub(super) fn read(log: &[String], counts: &mut Counts) {
    let number = |line: &str, mark: &str| -> u32 {
        let rest = line.split_once(mark).map_or("", |(_, rest)| rest.trim_start());
        rest.split(' ').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
    };
    for line in log {
        if let Some((_, line)) = line.split_once("Repeated Fields:") {
            counts.repeated += number(line, "Top:") + number(line, "Bottom:");
        } else if let Some((_, line)) = line.split_once("Multi frame detection:") {
            counts.top_first += number(line, "TFF:");
            counts.bottom_first += number(line, "BFF:");
            counts.progressive += number(line, "Progressive:");
            counts.undetermined += number(line, "Undetermined:");
        }
    }
}

/// The verdict.
pub(super) fn decide(counts: Counts, stream: &VideoStream) -> Scan {
    let Counts { top_first, bottom_first, progressive, undetermined, repeated } = counts;
    let interlaced = top_first + bottom_first;
    let determined = interlaced + progressive;
    if determined < DETERMINED {
        // A still picture says nothing; then a codec of television is believed.
        let believed = matches!(stream.codec.as_str(), "mpeg2video" | "h264" | "dvvideo" | "vc1");
        let declared = stream.declares_fields() && believed;
        return if declared { Scan::Interlaced(stream.field_order) } else { Scan::Progressive };
    }
    let part = |some: u32, all: u32| f64::from(some) / f64::from(all.max(1));
    if part(interlaced, determined) < INTERLACED {
        return Scan::Progressive;
    }
    let order = if top_first >= bottom_first { FieldOrder::TopFirst } else { FieldOrder::BottomFirst };
    let rate = stream.frame_rate.map_or(0.0, Rational::as_f64);
    if REPEATED.contains(&part(repeated, determined + undetermined)) && (rate - 29.97).abs() < 0.05 {
        return Scan::Telecined(order);
    }
    let (least, stray) =
        if stream.declares_fields() { (DETERMINED, STRAY) } else { (UNSAID_DETERMINED, UNSAID_STRAY) };
    let certain = determined >= least && part(top_first.min(bottom_first), interlaced) <= stray;
    if certain { Scan::Interlaced(order) } else { Scan::Mixed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::plan::tests::video;

    fn stream(codec: &str, field_order: FieldOrder, rate: &str) -> VideoStream {
        VideoStream { codec: codec.into(), field_order, frame_rate: rate.parse().ok(), ..video(720, 480) }
    }

    const PAL: &str = "25";
    const NTSC: &str = "30000/1001";

    fn counts(
        top_first: u32,
        bottom_first: u32,
        progressive: u32,
        undetermined: u32,
        repeated: u32,
    ) -> Counts {
        Counts { top_first, bottom_first, progressive, undetermined, repeated }
    }

    #[test]
    fn verdicts() {
        use FieldOrder::{BottomFirst, Progressive, TopFirst, Unknown};
        let dvd = |order| stream("mpeg2video", order, PAL);
        for (what, counts, stream, expected) in [
            ("interlaced", counts(360, 0, 0, 0, 0), dvd(TopFirst), Scan::Interlaced(TopFirst)),
            (
                "interlaced and nobody says so",
                counts(0, 355, 2, 3, 0),
                dvd(Progressive),
                Scan::Interlaced(BottomFirst),
            ),
            ("progressive", counts(0, 3, 350, 7, 0), dvd(Progressive), Scan::Progressive),
            ("progressive, flagged otherwise", counts(2, 0, 358, 0, 0), dvd(TopFirst), Scan::Progressive),
            ("just below", counts(39, 0, 61, 0, 0), dvd(TopFirst), Scan::Progressive),
            ("just there", counts(40, 0, 60, 0, 0), dvd(TopFirst), Scan::Interlaced(TopFirst)),
            (
                "film at 29.97",
                counts(360, 0, 0, 0, 144),
                stream("h264", Unknown, NTSC),
                Scan::Telecined(TopFirst),
            ),
            (
                "film at 29.97, bottom first",
                counts(20, 330, 5, 5, 140),
                stream("mpeg2video", Unknown, NTSC),
                Scan::Telecined(BottomFirst),
            ),
            (
                "repeats at 25 are no pulldown",
                counts(360, 0, 0, 0, 144),
                dvd(TopFirst),
                Scan::Interlaced(TopFirst),
            ),
            (
                "too few repeats",
                counts(360, 0, 0, 0, 100),
                stream("h264", Unknown, NTSC),
                Scan::Interlaced(TopFirst),
            ),
            (
                "too many repeats",
                counts(360, 0, 0, 0, 190),
                stream("h264", Unknown, NTSC),
                Scan::Interlaced(TopFirst),
            ),
            ("fine lines", counts(55, 34, 32, 0, 0), stream("h264", Progressive, PAL), Scan::Mixed),
            (
                "fine lines of two seconds",
                counts(41, 1, 9, 0, 0),
                stream("h264", Progressive, PAL),
                Scan::Mixed,
            ),
            (
                "two seconds of what is declared",
                counts(41, 1, 9, 0, 0),
                dvd(TopFirst),
                Scan::Interlaced(TopFirst),
            ),
            ("static black", counts(0, 0, 0, 360, 0), dvd(Unknown), Scan::Progressive),
            (
                "static black of television",
                counts(0, 0, 0, 360, 0),
                dvd(BottomFirst),
                Scan::Interlaced(BottomFirst),
            ),
            (
                "static black, HEVC says fields",
                counts(29, 0, 0, 331, 0),
                stream("hevc", TopFirst, PAL),
                Scan::Progressive,
            ),
            ("nothing seen", Counts::default(), dvd(Progressive), Scan::Progressive),
        ] {
            assert_eq!(decide(counts, &stream), expected, "{what}");
        }
    }

    #[test]
    fn the_filters_words_are_added_up() {
        let log: Vec<String> = "[Parsed_idet_0 @ 0x5] [info] Repeated Fields: Neither:    73 Top:    24 Bottom:    25\n\
            [Parsed_idet_0 @ 0x5] [info] Single frame detection: TFF:   107 BFF:     9 Progressive:     5 Undetermined:     1\n\
            [Parsed_idet_0 @ 0x5] [info] Multi frame detection: TFF:   120 BFF:     3 Progressive:     2 Undetermined:     1"
            .lines()
            .map(str::to_owned)
            .collect();
        let mut found = Counts::default();
        read(&log, &mut found);
        read(&log, &mut found);
        read(&["TFF: x".to_owned(), "Multi frame detection: nothing".to_owned()], &mut found);
        assert_eq!(found, counts(240, 6, 4, 2, 98));
    }

    #[test]
    fn only_what_may_have_fields_is_looked_at() {
        use FieldOrder::{Progressive, TopFirst, Unknown};
        for (stream, expected) in [
            (stream("mpeg2video", TopFirst, "50"), true),
            (stream("h264", Progressive, PAL), true),
            (stream("h264", Unknown, NTSC), true),
            (stream("h264", Progressive, "30"), false),
            (stream("h264", Progressive, "24000/1001"), false),
            (stream("vp9", Unknown, PAL), false),
            (VideoStream { height: 720, ..stream("h264", Progressive, PAL) }, false),
            (VideoStream { height: 720, ..stream("h264", TopFirst, PAL) }, true),
            (VideoStream { packets: Some(29), ..stream("mpeg2video", TopFirst, PAL) }, false),
            (VideoStream { height: 2160, ..stream("hevc", Progressive, PAL) }, false),
        ] {
            assert_eq!(may_have(&stream), expected, "{stream:?}");
        }
    }

    #[test]
    fn one_place_is_enough_where_nothing_speaks_of_fields() {
        use FieldOrder::{Progressive, TopFirst};
        let plain = stream("h264", Progressive, PAL);
        assert!(is_clear(counts(3, 2, 115, 0, 0), &plain));
        assert!(!is_clear(counts(4, 3, 113, 0, 0), &plain), "some fields");
        assert!(!is_clear(counts(0, 0, 20, 100, 0), &plain), "hardly anything moves");
        assert!(!is_clear(counts(0, 0, 120, 0, 0), &stream("h264", TopFirst, PAL)), "it says fields");
    }

    #[test]
    fn long_sources_are_looked_at_in_three_places() {
        let rate = Rational::new(25, 1).ok();
        assert_eq!(places(Some(100.0), rate), [(50.0, 120), (10.0, 120), (85.0, 120)]);
        assert_eq!(places(Some(14.0), rate), [(0.0, 360)]);
        assert_eq!(places(None, rate), [(0.0, 360)]);
    }
}

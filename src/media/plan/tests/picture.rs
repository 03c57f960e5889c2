//! What is done to the picture itself before it is scaled.

use serde_json::json;

use super::*;
use crate::domain::preset::Flip;
use crate::domain::{Area, Scan};

#[test]
fn pictures_are_cut_then_turned_then_fitted() {
    let turned = VideoStream { rotation: Rotation::Cw90, ..video(1920, 1080) };
    let measured =
        Measured { lit: Some(Area { x: 0, y: 140, width: 1920, height: 800 }), ..Measured::default() };
    let barred = VideoStream { measured, ..video(1920, 1080) };
    let anamorphic = VideoStream { sar: "64:45".parse().unwrap(), ..video(720, 576) };
    let ntsc = VideoStream { pix_fmt: "yuv411p".into(), ..video(720, 480) };
    let crop = |width, height, x, y| Filter::Crop { width, height, x, y };
    let (mirrored, half) = (Filter::Mirror(Flip::Horizontal), Filter::Turn(Rotation::Half));
    for (what, stream, fields, size, steps) in [
        (
            "cut",
            video(1920, 1080),
            json!({"crop": {"x": 4, "y": 2, "w": 640, "h": 360}}),
            (640, 360),
            vec![crop(640, 360, 4, 2)],
        ),
        // The rectangle is one of the picture as it is shown: 1080x1920.
        (
            "cut upright",
            turned.clone(),
            json!({"crop": {"x": 0, "y": 0, "w": 1080, "h": 800}}),
            (1080, 800),
            vec![crop(1080, 800, 0, 0)],
        ),
        (
            "turned",
            video(1920, 1080),
            json!({"rotate": 90}),
            (1080, 1920),
            vec![Filter::Turn(Rotation::Cw90)],
        ),
        ("turned back", turned, json!({"rotate": 270}), (1920, 1080), vec![Filter::Turn(Rotation::Cw270)]),
        (
            "turned into the box",
            video(1920, 1080),
            json!({"rotate": 90, "box": "1280x720"}),
            (720, 1280),
            vec![Filter::Turn(Rotation::Cw90)],
        ),
        (
            "turned with long pixels",
            anamorphic,
            json!({"rotate": 90}),
            (576, 1024),
            vec![Filter::Turn(Rotation::Cw90)],
        ),
        (
            "all",
            video(1280, 720),
            json!({"crop": {"x": 0, "y": 0, "w": 640, "h": 720}, "rotate": 180, "flip": "horizontal"}),
            (640, 720),
            vec![crop(640, 720, 0, 0), half, mirrored],
        ),
        (
            "bars",
            barred.clone(),
            json!({"crop": "auto", "box": "1280x720"}),
            (1280, 534),
            vec![crop(1920, 800, 0, 140)],
        ),
        ("bars stay", barred, json!({"box": "1280x720"}), (1280, 720), vec![]),
        ("bars nobody measured", video(1280, 720), json!({"crop": "auto"}), (1280, 720), vec![]),
        (
            "chroma of four columns",
            ntsc,
            json!({"crop": {"x": 2, "y": 0, "w": 640, "h": 480}}),
            (636, 480),
            vec![crop(636, 480, 4, 0)],
        ),
    ] {
        let (plan, warnings) = picture_of(stream, &fields);
        assert_eq!((plan.width, plan.height), size, "{what}");
        assert_eq!(plan.filters[..steps.len()], steps, "{what}");
        let said: &[&str] = if what == "bars" { &["bars_removed: 1920x800 at 0,140 is left"] } else { &[] };
        assert_eq!(warnings, said, "{what}");
    }
}

/// The failure of a picture that is planned from a source of 1280x720 with 30 frames a second.
fn refused(fields: &serde_json::Value) -> Failure {
    let spec = spec(None, json!({"container": "mp4", "video": fields}));
    plan(&media(vec![video(1280, 720)], vec![]), &[(OutputIndex(0), spec)], &Policy::default()).unwrap_err().1
}

#[test]
fn what_the_source_cannot_give_is_named_by_its_field() {
    for (fields, said) in [
        (
            json!({"codec": "h264", "crop": {"x": 642, "y": 0, "w": 640, "h": 720}}),
            "video.crop of 640x720 at 642,0 lies outside the picture, which is 1280x720 pixels",
        ),
        (
            json!({"codec": "h264", "level": 3}),
            "video.level 3 does not hold pictures of this size: 1280x720, 30.00 frames a second",
        ),
        (
            json!({"codec": "hevc", "level": "3.1", "fps": {"mode": "cfr", "value": 60}}),
            "video.level 3.1 does not hold this many frames of this size a second: 1280x720, 60.00 frames a second",
        ),
    ] {
        let failure = refused(&fields);
        assert_eq!((failure.code, failure.message.as_str()), (Code::MediaUnsupported, said));
    }
}

#[test]
fn a_level_that_was_asked_for_holds() {
    let (plan, _) = picture_of(video(1280, 720), &json!({"level": "4.1", "crf": 20}));
    let bits = |bits| crate::domain::preset::BitRate::new(bits).unwrap();
    assert_eq!(plan.level.unwrap().name(), "4.1");
    assert_eq!(
        plan.rate,
        Rate::CappedCrf { crf: 20.0, max: bits(62_500_000), buffer: Some(bits(78_125_000)) }
    );
}

#[test]
fn hued_bars_are_painted_in_the_matrix_that_pad_knows() {
    let pad = |color: &str| json!({"box": "640x640", "orient": "fixed", "fit": "pad", "pad_color": color});
    let steps = |stream, color| {
        let (plan, _) = picture_of(stream, &pad(color));
        let at = plan.filters.iter().position(|filter| matches!(filter, Filter::Pad { .. })).unwrap();
        let by_zimg = |filter: &Filter| matches!(filter, Filter::Convert { .. });
        (plan.filters[..at].iter().any(by_zimg), plan.filters[at..].iter().any(by_zimg))
    };
    let old = VideoStream { color: tags("smpte170m", "smpte170m", "smpte170m"), ..video(640, 480) };
    assert_eq!(steps(video(640, 360), "#102030"), (true, true));
    assert_eq!(steps(video(640, 360), "white"), (false, false));
    assert_eq!(steps(old, "#102030"), (false, false));
}

#[test]
fn a_ladder_is_cut_and_turned_once() {
    let fields =
        json!({"video": {"crop": {"x": 0, "y": 140, "w": 1920, "h": 800}, "rotate": 90, "flip": "vertical"}});
    let (files, names) = ladder(video(1920, 1080), fields);
    assert_eq!(names[..2], ["1080p 800x1920", "720p 534x1280"]);
    let changes = |file: &OutputPlan| {
        let filters = &file.video.as_ref().unwrap().filters;
        filters
            .iter()
            .filter(|f| matches!(f, Filter::Crop { .. } | Filter::Turn(_) | Filter::Mirror(_)))
            .count()
    };
    assert_eq!((changes(&files[0]), changes(&files[1])), (3, 0));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn measured_fields_decide() {
    use FieldOrder::{BottomFirst, TopFirst};
    let with = |scan, rate: &str| VideoStream {
        measured: Measured { scan: Some(scan), ..Measured::default() },
        frame_rate: Some(rate.parse().unwrap()),
        field_order: BottomFirst,
        ..video(720, 576)
    };
    let (pal, ntsc, film) = ("25", "30000/1001", "24000/1001".parse().unwrap());
    let join = |joining| vec![Filter::Deinterlace(joining)];
    let telecine = vec![
        Filter::Fps(ntsc.parse().unwrap()),
        Filter::MatchFields(TopFirst),
        Filter::Deinterlace(Joining::Flagged),
        Filter::Decimate,
    ];
    let passed = Timing::Passthrough;
    for (what, stream, fields, steps, timing, rate, said) in [
        (
            "progressive, whatever is declared",
            with(Scan::Progressive, pal),
            json!({}),
            vec![],
            passed,
            25.0,
            None,
        ),
        (
            "interlaced",
            with(Scan::Interlaced(TopFirst), pal),
            json!({}),
            join(Joining::PerFrame(TopFirst)),
            passed,
            25.0,
            Some("deinterlaced"),
        ),
        (
            "off",
            with(Scan::Interlaced(TopFirst), pal),
            json!({"deinterlace": "off"}),
            vec![],
            passed,
            25.0,
            None,
        ),
        (
            "per field",
            with(Scan::Interlaced(TopFirst), pal),
            json!({"deinterlace": "field"}),
            join(Joining::PerField(TopFirst)),
            passed,
            50.0,
            Some("deinterlaced"),
        ),
        (
            "an order",
            with(Scan::Progressive, pal),
            json!({"deinterlace": "frame"}),
            join(Joining::PerFrame(BottomFirst)),
            passed,
            25.0,
            Some("deinterlaced"),
        ),
        (
            "progressive per field",
            with(Scan::Progressive, pal),
            json!({"deinterlace": "field"}),
            vec![],
            passed,
            25.0,
            None,
        ),
        (
            "mixed",
            with(Scan::Mixed, pal),
            json!({"deinterlace": "field"}),
            join(Joining::Flagged),
            passed,
            25.0,
            None,
        ),
        (
            "film",
            with(Scan::Telecined(TopFirst), ntsc),
            json!({}),
            telecine,
            Timing::Cfr(film),
            24_000.0 / 1001.0,
            Some("telecine_removed"),
        ),
    ] {
        let (plan, warnings) = picture_of(stream, &fields);
        assert_eq!(plan.filters[..steps.len()], steps, "{what}");
        assert!(
            !plan.filters[steps.len()..].iter().any(|f| matches!(f, Filter::Deinterlace(_) | Filter::Fps(_))),
            "{what}"
        );
        assert_eq!(plan.timing, timing, "{what}");
        assert!((plan.frame_rate.unwrap().as_f64() - rate).abs() < 1e-9, "{what}: {:?}", plan.frame_rate);
        assert_eq!(warnings, said.into_iter().collect::<Vec<_>>(), "{what}");
    }
    let (plan, _) = picture_of(with(Scan::Interlaced(TopFirst), pal), &json!({"deinterlace": "field"}));
    assert_eq!(plan.time_base.to_string(), "1/30720", "half the source's ticks");
    let (plan, _) = picture_of(with(Scan::Telecined(TopFirst), ntsc), &json!({"fps": {"max": 12}}));
    assert_eq!((plan.filters[4], plan.timing), (Filter::Fps(film.halved()), Timing::Cfr(film.halved())));
}

#[test]
fn libvpx_gets_even_frames_for_its_two_passes() {
    let timing = |passes: u8| {
        let rate = json!({"mode": "bitrate", "target": "1M", "passes": passes});
        let (plan, _) = picture_of(video(640, 360), &json!({"codec": "vp9", "rate": rate}));
        (plan.timing, plan.time_base.to_string())
    };
    assert_eq!(timing(1), (Timing::Passthrough, "1/15360".to_owned()));
    assert_eq!(timing(2), (Timing::Cfr("30".parse().unwrap()), "1/30".to_owned()));
}

/// Follows the sides of a picture through a chain; `None` = a step asks for what is not there.
fn followed(mut sides: (u32, u32), filters: &[Filter]) -> Option<(u32, u32)> {
    for filter in filters {
        match *filter {
            Filter::Crop { width, height, x, y } => {
                let inside = x + width <= sides.0 && y + height <= sides.1 && x % 2 == 0 && y % 2 == 0;
                sides = inside.then_some((width, height))?;
            }
            Filter::Turn(Rotation::Cw90 | Rotation::Cw270) => sides = (sides.1, sides.0),
            Filter::Scale { width, height, .. }
            | Filter::Convert { width, height, .. }
            | Filter::Linearise { width, height, .. } => sides = (width, height),
            Filter::Pad { width, height, x, y, .. } => {
                let inside = x + sides.0 <= width && y + sides.1 <= height;
                sides = inside.then_some((width, height))?;
            }
            Filter::Extend { width, height, right, bottom } => {
                let exact = (sides.0 + right, sides.1 + bottom) == (width, height);
                sides = exact.then_some((width, height))?;
            }
            _ => {}
        }
    }
    Some(sides)
}

proptest! {
    /// Whatever is cut, turned, framed, joined and converted: every step finds what it needs, and the last one leaves the
    /// picture that was planned.
    #[test]
    fn chains_end_in_the_picture_that_is_planned(
        (width, height) in (32_u32..2200, 32_u32..2200), stored_turn in 0_u16..4, turn in 0_u16..4, flip in 0_usize..3,
        cut in proptest::option::of((0_u32..40, 0_u32..40)), fit in 0_usize..4, upscale: bool, wide: bool,
        color in 0_usize..3, hdr in 0_usize..3, scan in 0_usize..5, join in 0_usize..4,
    ) {
        let order = FieldOrder::BottomFirst;
        let scans = [None, Some(Scan::Progressive), Some(Scan::Interlaced(order)), Some(Scan::Telecined(order)), Some(Scan::Mixed)];
        let signals = [tags("bt709", "bt709", "bt709"), tags("bt2020", "smpte2084", "bt2020nc"), tags("smpte170m", "smpte170m", "smpte170m")];
        let stream = VideoStream {
            rotation: Rotation::try_from(stored_turn * 90).unwrap(),
            sar: if wide { "64:45".parse().unwrap() } else { Rational::ONE },
            color: signals[hdr].clone(),
            measured: Measured { scan: scans[scan], ..Measured::default() },
            ..video(width, height)
        };
        let upright = size::stored(&stream);
        let crop = cut.map(|(x, y)| (x / 2 * 2, y / 2 * 2)).filter(|(x, y)| x + 16 < upright.0 && y + 16 < upright.1);
        let crop = crop.map_or(json!("none"), |(x, y)| {
            json!({"x": x, "y": y, "w": (upright.0 - x) / 2 * 2, "h": (upright.1 - y) / 2 * 2})
        });
        let fit = ["contain", "cover", "pad", "stretch"][fit];
        let flip = ["none", "horizontal", "vertical"][flip];
        let wanted = ["auto", "off", "frame", "field"][join];
        let color = ["black", "white", "#c08040"][color];
        let mut fields = json!({
            "crop": crop, "rotate": turn * 90, "flip": flip, "box": "640x360",
            "fit": fit, "upscale": upscale, "deinterlace": wanted,
        });
        if fit == "pad" {
            fields["pad_color"] = json!(color);
        }
        let (plan, _) = picture_of(stream.clone(), &fields);
        prop_assert_eq!(followed(upright, &plan.filters), Some((plan.width, plan.height)), "{:?}", plan.filters);
        prop_assert!(plan.width % 2 == 0 && plan.height % 2 == 0);
        let doubled = scans[scan] == Some(Scan::Interlaced(order)) && join == 3;
        prop_assert_eq!(plan.cadence == Cadence::Doubled, doubled);
    }
}

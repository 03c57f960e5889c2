use proptest::prelude::*;

use super::super::tests::{spec, video};
use super::*;

fn fitted(stream: (u32, u32), mode: &str, frame: (u32, u32), upscale: bool) -> Geometry {
    let fields = serde_json::json!({"container": "mkv", "video": {
        "codec": "h264", "box": format!("{}x{}", frame.0, frame.1), "fit": mode, "orient": "fixed", "upscale": upscale,
    }});
    fit(&video(stream.0, stream.1), spec(None, fields).encoded_picture().unwrap())
}

#[test]
fn a_side_is_rounded_once() {
    // 192.55 is nearest to 192; by way of 193 it would become 194.
    for (side, even) in [(192.55, 192), (193.1, 194), (192.0, 192), (191.1, 192), (190.99, 190), (0.4, 0)] {
        assert_eq!(even_nearest(side), even, "{side}");
    }
    // 853x100 covered by 320x100 has the scale of its height; 427x337 by 110x110 needs a width of 139.38.
    assert_eq!(fitted((427, 337), "cover", (110, 110), false).scaled, (140, 110));
    assert_eq!(fitted((3851, 2200), "cover", (110, 110), false).scaled, (192, 110));
}

proptest! {
    /// Whatever the mode, no side is further from its exact value than one pixel, unless a limit says so.
    #[test]
    fn no_side_is_off_by_more_than_a_pixel(
        stream in (16_u32..5000, 16_u32..5000),
        frame in (16_u32..3000, 16_u32..3000),
        mode in prop_oneof![Just("cover"), Just("contain"), Just("pad"), Just("stretch")],
        upscale: bool,
    ) {
        let even = (even_below(frame.0), even_below(frame.1));
        let shown = (f64::from(stream.0), f64::from(stream.1));
        let geometry = fitted(stream, mode, frame, upscale);
        let (scaled, size) = (geometry.scaled, (geometry.width, geometry.height));
        prop_assert!(size.0 % 2 == 0 && size.1 % 2 == 0 && size.0 >= MIN_SIDE && size.1 >= MIN_SIDE);
        let near = |side: u32, exact: f64| {
            (f64::from(side) - exact).abs() <= 1.0 + HALFWAY || f64::from(MIN_SIDE) >= exact
        };
        match mode {
            "cover" => {
                // The picture covers the canvas, and is in its own shape.
                let scale = (f64::from(size.0) / shown.0).max(f64::from(size.1) / shown.1);
                prop_assert!(near(scaled.0, shown.0 * scale) && near(scaled.1, shown.1 * scale), "{geometry:?}");
                prop_assert!(scaled.0 >= size.0 && scaled.1 >= size.1);
            }
            "contain" => {
                let wanted = (f64::from(even.0) / shown.0).min(f64::from(even.1) / shown.1);
                let scale = if upscale { wanted } else { wanted.min(1.0) };
                prop_assert!(near(size.0, shown.0 * scale) && near(size.1, shown.1 * scale), "{geometry:?}");
            }
            _ => {
                // The canvas keeps the frame's shape when it is made smaller.
                let (wide, high) = (f64::from(even.0) / shown.0, f64::from(even.1) / shown.1);
                let wanted = if mode == "pad" { wide.min(high) } else { wide.max(high) };
                let shrink = if upscale { 1.0 } else { wanted.max(1.0) };
                let exact = (f64::from(even.0) / shrink, f64::from(even.1) / shrink);
                prop_assert!(near(size.0, exact.0) && near(size.1, exact.1), "{geometry:?}");
            }
        }
    }
}

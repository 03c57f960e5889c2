//! Static metadata of HDR pictures, which lie in the frames and not in headers: for what display a film was made, and how
//! bright it gets. ffmpeg 5.1 does not hand them to encoders (MEDIA-RULES §1.15).

use serde::Deserialize;

use crate::domain::{ContentLight, Mastering, MasteringDisplay};

/// `-show_frames` of one frame.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    frames: Vec<Frame>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Frame {
    side_data_list: Vec<SideData>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SideData {
    #[serde(rename = "side_data_type")]
    kind: String,
    red_x: Option<String>,
    red_y: Option<String>,
    green_x: Option<String>,
    green_y: Option<String>,
    blue_x: Option<String>,
    blue_y: Option<String>,
    white_point_x: Option<String>,
    white_point_y: Option<String>,
    min_luminance: Option<String>,
    max_luminance: Option<String>,
    max_content: Option<u16>,
    max_average: Option<u16>,
}

/// Reads what ffprobe says of the first frame; `None` = there is nothing of the kind.
pub(super) fn read(document: &[u8]) -> Option<Mastering> {
    let document: Document = serde_json::from_slice(document).ok()?;
    let data = document.frames.first()?.side_data_list.iter();
    let of = |kind: &'static str| data.clone().find(move |data| data.kind == kind);
    let light = of("Content light level metadata").and_then(|data| {
        Some(ContentLight { brightest: data.max_content?, average: data.max_average? })
            .filter(|light| light.brightest > 0)
    });
    let mastering = Mastering { display: of("Mastering display metadata").and_then(display), light };
    (mastering.display.is_some() || mastering.light.is_some()).then_some(mastering)
}

fn display(data: &SideData) -> Option<MasteringDisplay> {
    let point = |x: &Option<String>, y: &Option<String>| {
        Some((units(x.as_deref()?, 50_000)?, units(y.as_deref()?, 50_000)?))
    };
    let chroma = |(x, y): (u32, u32)| Some((u16::try_from(x).ok()?, u16::try_from(y).ok()?));
    let display = MasteringDisplay {
        red: chroma(point(&data.red_x, &data.red_y)?)?,
        green: chroma(point(&data.green_x, &data.green_y)?)?,
        blue: chroma(point(&data.blue_x, &data.blue_y)?)?,
        white: chroma(point(&data.white_point_x, &data.white_point_y)?)?,
        brightest: units(data.max_luminance.as_deref()?, 10_000)?,
        darkest: units(data.min_luminance.as_deref()?, 10_000)?,
    };
    (display.brightest > display.darkest).then_some(display)
}

/// A ratio such as `34000/50000` in parts of `unit`; none of a hostile file's leaves 32 bits.
fn units(text: &str, unit: u64) -> Option<u32> {
    let (num, den) = text.split_once('/')?;
    let (num, den): (u64, u64) = (num.parse().ok()?, den.parse().ok()?);
    u32::try_from(num.checked_mul(unit)?.checked_add(den / 2)?.checked_div(den)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frames_metadata_is_read_in_the_standards_units() {
        let text = r#"{"frames": [{"side_data_list": [
            {"side_data_type": "Mastering display metadata", "red_x": "34000/50000", "red_y": "16000/50000",
             "green_x": "13250/50000", "green_y": "34500/50000", "blue_x": "7500/50000", "blue_y": "3000/50000",
             "white_point_x": "15635/50000", "white_point_y": "16450/50000", "min_luminance": "5/1000", "max_luminance": "1000/1"},
            {"side_data_type": "Content light level metadata", "max_content": 1000, "max_average": 400}]}]}"#;
        let display = MasteringDisplay {
            red: (34_000, 16_000),
            green: (13_250, 34_500),
            blue: (7_500, 3_000),
            white: (15_635, 16_450),
            brightest: 10_000_000,
            darkest: 50,
        };
        let light = ContentLight { brightest: 1000, average: 400 };
        assert_eq!(read(text.as_bytes()), Some(Mastering { display: Some(display), light: Some(light) }));
        let half = text.replace("34000/50000", "99999999999999999/1");
        assert_eq!(read(half.as_bytes()), Some(Mastering { display: None, light: Some(light) }));
        for nothing in [
            "",
            "{}",
            r#"{"frames": [{}]}"#,
            r#"{"frames": [{"side_data_list": [{"side_data_type": "x"}]}]}"#,
        ] {
            assert_eq!(read(nothing.as_bytes()), None, "{nothing}");
        }
    }
}

//! Pictures cut, turned, mirrored and framed on demand, looked at pixel by pixel.

use std::path::Path;

use serde_json::{Value, json};

use super::kit::{self, Bench};

/// Steps of 255 that compression and one conversion may cost.
const CLOSE: u8 = 8;
const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];
const YELLOW: [u8; 3] = [255, 255, 0];

/// Four quarters of 160x120, in BT.709: red, green over blue, yellow.
fn quarters(bench: &Bench, name: &str) -> std::path::PathBuf {
    let boxes = "color=c=red:s=320x240:r=25:d=0.6,format=gbrp,drawbox=x=160:w=160:h=120:c=lime:t=fill,drawbox=y=120:w=160:h=120:c=blue:t=fill,drawbox=x=160:y=120:w=160:h=120:c=yellow:t=fill";
    bench.make(
        name,
        &format!(
            "-f lavfi -i {boxes},scale=out_color_matrix=bt709:out_range=tv,format=yuv420p -c:v libx264 -preset ultrafast -qp 4 \
             -color_primaries bt709 -color_trc bt709 -colorspace bt709 -color_range tv"
        ),
    )
}

fn job(clip: &Path, outputs: &[Value]) -> Value {
    let outputs: Vec<Value> = outputs
        .iter()
        .enumerate()
        .map(|(n, video)| {
            let mut video = video.clone();
            video["codec"] = json!("h264");
            video["crf"] = json!(8);
            video["speed"] = json!("ultrafast");
            json!({"container": "mp4", "video": video, "destination": {"kind": "storage", "path": format!("{{job_id}}/{n}.mp4")}})
        })
        .collect();
    json!({"source": {"kind": "file", "path": clip}, "outputs": outputs})
}

fn file(bench: &Bench, job: &Value, n: usize) -> std::path::PathBuf {
    let path = job["outputs"][n]["result"]["files"][0]["path"].as_str().unwrap_or_else(|| panic!("{job:#}"));
    bench.server.data().join("storage").join(path)
}

fn assert_close(what: &str, found: [u8; 3], wanted: [u8; 3]) {
    let off = found.iter().zip(wanted).map(|(a, b)| a.abs_diff(b)).max().unwrap_or(0);
    assert!(off <= CLOSE, "{what}: {found:?} instead of {wanted:?}");
}

#[tokio::test]
async fn pictures_are_cut_turned_mirrored_and_framed() {
    let bench = Bench::start().await;
    let clip = quarters(&bench, "quarters.mp4");
    // Size, and what stands in the four corners: upper left, upper right, lower left, lower right.
    let cases = [
        (json!({}), (320, 240), [RED, GREEN, BLUE, YELLOW]),
        (json!({"rotate": 90}), (240, 320), [BLUE, RED, YELLOW, GREEN]),
        (json!({"rotate": 180}), (320, 240), [YELLOW, BLUE, GREEN, RED]),
        (json!({"rotate": 270}), (240, 320), [GREEN, YELLOW, RED, BLUE]),
        (json!({"flip": "horizontal"}), (320, 240), [GREEN, RED, YELLOW, BLUE]),
        (json!({"flip": "vertical"}), (320, 240), [BLUE, YELLOW, RED, GREEN]),
        (json!({"rotate": 90, "flip": "horizontal"}), (240, 320), [RED, BLUE, GREEN, YELLOW]),
        (json!({"crop": {"x": 160, "y": 0, "w": 160, "h": 240}}), (160, 240), [GREEN, GREEN, YELLOW, YELLOW]),
        (
            json!({"crop": {"x": 0, "y": 120, "w": 320, "h": 120}, "rotate": 90}),
            (120, 320),
            [BLUE, BLUE, YELLOW, YELLOW],
        ),
        // Red is what BT.601's coefficients miss most on a BT.709 picture.
        (json!({"box": "240x240", "fit": "pad", "pad_color": "red"}), (240, 240), [RED, RED, RED, RED]),
        (json!({"box": "240x240", "fit": "pad", "pad_color": "#c08040"}), (240, 240), [[192, 128, 64]; 4]),
        (json!({"box": "240x240", "fit": "pad"}), (240, 240), [[0; 3]; 4]),
    ];
    let asked: Vec<Value> = cases.iter().map(|(video, _, _)| video.clone()).collect();
    let id = bench.server.submit(&job(&clip, &asked)).await;
    let done = bench.server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    for (n, (video, size, corners)) in cases.iter().enumerate() {
        let output = file(&bench, &done, n);
        let seen = kit::look(&output);
        assert_eq!((seen.size, seen.color.as_str()), (*size, "bt709/bt709/bt709"), "{video}");
        let pixel = kit::first_frame(&output, seen.size);
        let (right, bottom) = (size.0 - 12, size.1 - 12);
        for ((x, y), wanted) in
            [(12, 12), (right, 12), (12, bottom), (right, bottom)].into_iter().zip(corners)
        {
            assert_close(&format!("{video} at {x},{y}"), pixel(x, y), *wanted);
        }
        if video["fit"] == "pad" {
            assert_close(&format!("{video}, the picture inside"), pixel(60, 80), RED);
            assert_close(&format!("{video}, the picture inside"), pixel(180, 160), YELLOW);
        }
    }
    bench.server.assert_clean().await;
}

#[tokio::test]
async fn black_bars_go_where_they_are_certain() {
    let bench = Bench::start().await;
    let scope = bench.make(
        "scope.mp4",
        "-f lavfi -i testsrc2=s=320x134:r=25:d=6 -vf fade=in:0:25,pad=320:180:0:24 -pix_fmt yuv420p -preset ultrafast -crf 28",
    );
    let black = bench
        .make("black.mp4", "-f lavfi -i color=c=black:s=320x180:r=25:d=5 -pix_fmt yuv420p -preset ultrafast");
    let full =
        bench.make("full.mp4", "-f lavfi -i testsrc2=s=320x180:r=25:d=1 -pix_fmt yuv420p -preset ultrafast");
    let submit = async |clip: &Path| {
        let outputs = [json!({"crop": "auto"}), json!({})];
        let id = bench.server.submit(&job(clip, &outputs)).await;
        let done = bench.server.finished(&id).await;
        assert_eq!(done["status"], "completed", "{done:#}");
        let sizes = [0, 1].map(|n| kit::look(&file(&bench, &done, n)).size);
        (sizes, kit::warnings(&done))
    };
    // 134 lines from the 24th on; the black second at the start tells nothing.
    assert_eq!(submit(&scope).await, ([(320, 134), (320, 180)], vec!["bars_removed".to_owned()]));
    assert_eq!(submit(&black).await, ([(320, 180), (320, 180)], vec![]));
    assert_eq!(submit(&full).await, ([(320, 180), (320, 180)], vec![]));
    bench.server.assert_clean().await;
}

#[tokio::test]
async fn a_ladder_loses_its_bars_on_every_rung() {
    let bench = Bench::start().await;
    let clip = bench.make(
        "barred.mp4",
        "-f lavfi -i testsrc2=s=320x134:r=25:d=4 -vf pad=320:180:0:24 -pix_fmt yuv420p -preset ultrafast",
    );
    let rate = json!({"mode": "crf", "crf": 30});
    let body = json!({"source": {"kind": "file", "path": clip}, "outputs": [{
        "preset": "hls_1080p_abr", "video": {"speed": "ultrafast", "crop": "auto", "rotate": 90}, "package": {"segment_seconds": 2},
        "ladder": [{"name": "big", "box": "320x180", "rate": rate, "level": "3"}, {"name": "small", "box": "160x90", "rate": rate}],
        "destination": {"kind": "storage", "path": "vod/{name}"},
    }]});
    let id = bench.server.submit(&body).await;
    let done = bench.server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    let renditions = done["outputs"][0]["result"]["renditions"].as_array().unwrap();
    let sizes: Vec<_> = renditions.iter().map(|r| (r["width"].as_u64(), r["height"].as_u64())).collect();
    assert_eq!(sizes, [(Some(134), Some(320)), (Some(68), Some(160))], "{done:#}");
    assert_eq!(kit::warnings(&done), ["bars_removed"]);
}

#[tokio::test]
async fn what_does_not_fit_the_source_is_named() {
    let bench = Bench::start().await;
    let clip = quarters(&bench, "small.mp4");
    for (video, field) in [
        (json!({"crop": {"x": 2, "y": 0, "w": 320, "h": 240}}), "video.crop"),
        (
            json!({"level": "3", "fps": {"mode": "cfr", "value": 120, "max": 120}, "width": 1280, "upscale": true}),
            "video.level",
        ),
    ] {
        let id = bench.server.submit(&job(&clip, &[video])).await;
        let done = bench.server.finished(&id).await;
        assert_eq!(
            (&done["status"], &done["error"]["code"]),
            (&json!("failed"), &json!("media_unsupported"))
        );
        assert!(done["error"]["message"].as_str().unwrap().contains(field), "{done:#}");
    }
    bench.server.assert_clean().await;
}

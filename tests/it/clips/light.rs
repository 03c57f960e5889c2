//! HDR kept and mapped from one source in one job, and colour bars through every matrix and range.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::kit::{self, Bench};

/// Steps of 255 that 8-bit chroma, scaling and the encoder may cost.
const CLOSE: u8 = 7;

/// Eleven steps of grey from black to the peak, as code values of this transfer.
fn ramp(bench: &Bench, name: &str, transfer: &str, more: &str) -> PathBuf {
    let ramp = "nullsrc=s=352x64:r=25:d=0.4,format=yuv420p10le,geq=lum='64+876*floor(X/32)/10':cb=512:cr=512";
    bench.make(
        name,
        &format!(
            "-f lavfi -i {ramp} -c:v libx265 -preset ultrafast -crf 8 -color_primaries bt2020 -color_trc {transfer} \
             -colorspace bt2020nc -color_range tv -x265-params log-level=none{more}"
        ),
    )
}

async fn finished(bench: &Bench, clip: &Path, outputs: &Value) -> (Value, Vec<PathBuf>) {
    let body = json!({"source": {"kind": "file", "path": clip}, "outputs": outputs});
    let id = bench.server.submit(&body).await;
    let done = bench.server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    let files = done["outputs"].as_array().unwrap().iter().map(|output| {
        let path = output["result"]["files"][0]["path"].as_str().unwrap();
        bench.server.data().join("storage").join(path)
    });
    let files = files.collect();
    (done, files)
}

fn video(container: &str, n: usize, fields: &Value) -> Value {
    json!({"container": container, "video": fields, "destination": {"kind": "storage", "path": format!("{{job_id}}/{n}.{container}")}})
}

#[tokio::test]
async fn hdr_is_mapped_and_kept_in_one_job() {
    let bench = Bench::start().await;
    let mastering = ":hdr10=1:repeat-headers=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400";
    let pq = ramp(&bench, "pq.mp4", "smpte2084", mastering);
    let hlg = ramp(&bench, "hlg.mp4", "arib-std-b67", "");
    let outputs = json!([
        video("mp4", 0, &json!({"codec": "h264", "speed": "ultrafast", "crf": 8})),
        video(
            "mp4",
            1,
            &json!({"codec": "hevc", "speed": "ultrafast", "crf": 8, "bit_depth": 10, "range": "keep"})
        ),
        video(
            "mp4",
            2,
            &json!({"codec": "av1", "speed": "ultrafast", "crf": 20, "bit_depth": 10, "range": "keep", "upscale": true, "height": 128})
        ),
    ]);
    for (clip, transfer) in [(&pq, "smpte2084"), (&hlg, "arib-std-b67")] {
        let (done, files) = finished(&bench, clip, &outputs).await;
        assert_eq!(kit::warnings(&done), ["tone_mapped"], "{transfer}");
        let mapped = kit::look(&files[0]);
        assert_eq!((mapped.size, mapped.color.as_str()), ((352, 64), "bt709/bt709/bt709"), "{transfer}");
        let pixel = kit::first_frame(&files[0], mapped.size);
        let steps: Vec<[u8; 3]> = (0..11).map(|step| pixel(step * 32 + 16, 32)).collect();
        for [red, green, blue] in &steps {
            assert!(
                red.abs_diff(*green).max(green.abs_diff(*blue)) <= CLOSE,
                "{transfer} is not neutral: {steps:?}"
            );
        }
        // PQ reaches the brightest light that is mapped before its last steps.
        assert!(
            steps.is_sorted_by(|a, b| a[1] <= b[1] && (a[1] < b[1] || a[1] > 230)),
            "{transfer}: {steps:?}"
        );
        assert!(steps[0][1] < 8 && steps[10][1] > 230, "{transfer}: {steps:?}");
        for kept in &files[1..] {
            let seen = kit::first_frame_facts(kept);
            assert_eq!(seen.tags, format!("tv/bt2020/{transfer}/bt2020nc/yuv420p10le"), "{}", kept.display());
            let expected: &[&str] =
                if transfer == "smpte2084" { &["0.680,0.320 1000 0.005", "1000 400"] } else { &[] };
            assert_eq!(seen.light, expected, "{}", kept.display());
        }
    }
    bench.server.assert_clean().await;
}

/// Eight bars of 40 columns, at three quarters of full colour.
const BARS: [[u8; 3]; 8] = [
    [191, 191, 191],
    [191, 191, 0],
    [0, 191, 191],
    [0, 191, 0],
    [191, 0, 191],
    [191, 0, 0],
    [0, 0, 191],
    [16, 16, 16],
];

fn bars(bench: &Bench, name: &str, matrix: &str, range: &str, tags: &str) -> PathBuf {
    let boxes: Vec<String> = BARS
        .iter()
        .enumerate()
        .map(|(n, [r, g, b])| format!("drawbox=x={}:w=40:h=180:c=0x{r:02x}{g:02x}{b:02x}:t=fill", n * 40))
        .collect();
    bench.make(
        name,
        &format!(
            "-f lavfi -i color=c=black:s=320x180:r=25:d=0.6,format=gbrp,{},scale=out_color_matrix={matrix}:out_range={range}:flags=accurate_rnd,format={} \
             -c:v libx264 -preset ultrafast -qp 2 -color_range {range} {tags}",
            boxes.join(","),
            if range == "pc" { "yuvj420p" } else { "yuv420p" },
        ),
    )
}

#[tokio::test]
async fn colour_bars_keep_their_colours_whatever_they_were_stored_as() {
    let bench = Bench::start().await;
    let all = |name: &str| format!("-color_primaries {name} -color_trc {name} -colorspace {name}");
    let clips = [
        (bars(&bench, "601.mp4", "bt601", "tv", &all("smpte170m")), "smpte170m"),
        (bars(&bench, "709.mp4", "bt709", "tv", &all("bt709")), "bt709"),
        (bars(&bench, "full.mp4", "bt709", "pc", &all("bt709")), "bt709"),
    ];
    let outputs = json!([
        video("mp4", 0, &json!({"codec": "h264", "speed": "ultrafast", "crf": 6})),
        // Scaled, and with bars of a colour of its own.
        video(
            "mp4",
            1,
            &json!({"codec": "h264", "speed": "ultrafast", "crf": 6, "box": "160x160", "fit": "pad", "pad_color": "#0000bf"})
        ),
        video("mkv", 2, &json!({"codec": "hevc", "speed": "ultrafast", "crf": 6, "bit_depth": 10})),
    ]);
    for (clip, family) in &clips {
        let (_, files) = finished(&bench, clip, &outputs).await;
        for (n, file) in files.iter().enumerate() {
            let facts = kit::first_frame_facts(file);
            let layout = if n == 2 { "yuv420p10le" } else { "yuv420p" };
            assert_eq!(
                facts.tags,
                format!("tv/{family}/{family}/{family}/{layout}"),
                "{} of {}",
                n,
                clip.display()
            );
            let (size, bar, row) = if n == 1 { ((160, 160), 20, 80) } else { ((320, 180), 40, 90) };
            let pixel = kit::first_frame(file, size);
            for (place, wanted) in (0..).zip(BARS) {
                let found = pixel(place * bar + bar / 2, row);
                let off = found.iter().zip(wanted).map(|(a, b)| a.abs_diff(b)).max().unwrap_or(0);
                assert!(off <= CLOSE, "output {n} of {}: {found:?} instead of {wanted:?}", clip.display());
            }
            if n == 1 {
                let found = pixel(80, 8);
                let off = found.iter().zip([0, 0, 191]).map(|(a, b)| a.abs_diff(b)).max().unwrap_or(0);
                assert!(off <= CLOSE, "bars of {}: {found:?}", clip.display());
            }
        }
    }
    bench.server.assert_clean().await;
}

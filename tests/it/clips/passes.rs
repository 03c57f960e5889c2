//! Two passes: the average that was asked for is met, by encoders that read what the first pass wrote down.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::kit::{self, Bench};

/// Ten seconds: half of them still, half of them restless.
fn uneven(bench: &Bench) -> PathBuf {
    let still = "color=c=gray:s=320x240:r=25:d=5,format=yuv420p[a]";
    let noise = "nullsrc=s=320x240:r=25:d=5,geq=lum='128+60*sin((X+7*N)/5)*sin((Y+3*N)/4)':cb=128:cr=128,noise=alls=20:allf=t,format=yuv420p[b]";
    bench.make(
        "uneven.mkv",
        &format!(
            "-filter_complex {still};{noise};[a][b]concat=n=2[v] -map [v] -c:v libx264 -preset ultrafast -crf 10"
        ),
    )
}

fn output(codec: &str, container: &str, kbits: u32, passes: u8) -> Value {
    json!({"container": container,
        "video": {"codec": codec, "speed": "veryfast",
                  "rate": {"mode": "bitrate", "target": format!("{kbits}k"), "max": "2M", "buffer": "4M", "passes": passes}},
        "destination": {"kind": "storage", "path": format!("{{job_id}}/{codec}-{passes}.{container}")}})
}

async fn finished(bench: &Bench, clip: &Path, outputs: Value) -> (Value, Vec<PathBuf>) {
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

/// Kilobits a second of a file of ten seconds.
fn kbits(path: &Path) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a small file")]
    let bytes = std::fs::metadata(path).unwrap().len() as f64;
    bytes * 8.0 / 10.0 / 1000.0
}

fn holds(path: &Path, text: &str) -> bool {
    std::fs::read(path).unwrap().windows(text.len()).any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn the_average_is_met_by_encoders_that_read_what_the_first_pass_saw() {
    let bench = Bench::start().await;
    let clip = uneven(&bench);
    let outputs = json!([
        output("h264", "mp4", 300, 2),
        output("hevc", "mp4", 300, 2),
        output("vp9", "webm", 300, 2),
        output("h264", "mkv", 300, 1),
    ]);
    let (done, files) = finished(&bench, &clip, outputs).await;
    for path in &files[..3] {
        let off = (kbits(path) / 300.0 - 1.0).abs();
        assert!(off <= 0.1, "{}: {:.0} kbit/s", path.display(), kbits(path));
        assert_eq!(kit::packets(path), 250, "{}", path.display());
    }
    // x264 and x265 write their settings into the stream.
    assert!(holds(&files[0], "rc=2pass"), "x264 did not read the first pass");
    assert!(holds(&files[1], "stats-read=2"), "x265 did not read the first pass");
    assert!(holds(&files[3], "rc=abr"), "one pass was asked for");
    // One pass has spent too much on what it did not see coming (464 kbit/s of 300 were measured).
    assert!(kbits(&files[3]) / 300.0 > 1.2, "{:.0} kbit/s", kbits(&files[3]));
    assert_eq!(done["progress"], 100.0);

    // Both passes see the same part: one frame more or less and the encoder refuses to go on.
    let part = json!({"start": 3.48, "duration": 4});
    let with = |output: Value| {
        let mut output = output;
        output["clip"] = part.clone();
        output
    };
    let outputs = json!([with(output("h264", "mp4", 300, 2)), with(output("vp9", "webm", 300, 2))]);
    let (_, files) = finished(&bench, &clip, outputs).await;
    assert!(files.iter().all(|path| kit::packets(path) == 100), "{files:?}");
    assert!(holds(&files[0], "rc=2pass"), "x264 did not read the first pass of a part");
    bench.server.assert_clean().await;
}

#[tokio::test]
async fn a_ladder_is_encoded_twice_from_one_decode_each_time() {
    let bench = Bench::start().await;
    let clip = uneven(&bench);
    let rung = |name: &str, size: &str, rate: Value| json!({"name": name, "box": size, "rate": rate});
    let twice = |kbits: u32| json!({"mode": "bitrate", "target": format!("{kbits}k"), "passes": 2});
    let outputs = json!([{
        "preset": "hls_1080p_abr", "video": {"speed": "veryfast"}, "package": {"segment_seconds": 2},
        // The smallest is made of one that is encoded once.
        "ladder": [rung("big", "320x240", twice(300)), rung("mid", "240x180", json!({"mode": "crf", "crf": 30})), rung("small", "160x120", twice(100))],
        "destination": {"kind": "storage", "path": "vod/{name}"},
    }]);
    let body = json!({"source": {"kind": "file", "path": clip}, "outputs": outputs});
    let id = bench.server.submit(&body).await;
    let done = bench.server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    let renditions = done["outputs"][0]["result"]["renditions"].as_array().unwrap();
    let rate = |n: usize| renditions[n]["average_bandwidth"].as_f64().unwrap() / 1000.0;
    assert!((rate(0) / 300.0 - 1.0).abs() < 0.15 && (rate(2) / 100.0 - 1.0).abs() < 0.25, "{renditions:#?}");
    bench.server.assert_clean().await;
}

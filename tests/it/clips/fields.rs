//! Interlaced, telecined, still and wrongly declared sources: what is done is measured, and what comes out is whole frames.

use std::path::Path;

use serde_json::{Value, json};

use super::kit::{self, Bench};

/// Half the width of television: sources that do not say that they have fields are looked at where their lines are its.
const TELEVISION: &str = "176x480";

/// A smooth pattern in motion, which `idet` is sure about.
fn waves(size: &str, rate: &str, seconds: u32) -> String {
    format!(
        "nullsrc=s={size}:r={rate}:d={seconds},geq=lum='128+100*sin((X+5*N)/11)*sin((Y+2*N)/15)':cb=128:cr=128"
    )
}

async fn encoded(bench: &Bench, clip: &Path, wanted: &[&str]) -> Value {
    part(bench, clip, wanted, &json!(null)).await
}

/// The same of a part of the source.
async fn part(bench: &Bench, clip: &Path, wanted: &[&str], part: &Value) -> Value {
    let outputs: Vec<Value> = wanted
        .iter()
        .map(|deinterlace| {
            json!({"container": "mp4", "video": {"codec": "h264", "speed": "ultrafast", "crf": 12, "deinterlace": deinterlace},
                   "destination": {"kind": "storage", "path": format!("{{job_id}}/{deinterlace}.mp4")}})
        })
        .collect();
    let body = json!({"source": {"kind": "file", "path": clip}, "outputs": outputs, "clip": part});
    let id = bench.server.submit(&body).await;
    let done = bench.server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    done
}

/// Frames of an output, and the part of them that is still combed.
fn frames(bench: &Bench, job: &Value, n: usize) -> (u64, f64) {
    let path = job["outputs"][n]["result"]["files"][0]["path"].as_str().unwrap();
    let path = bench.server.data().join("storage").join(path);
    (kit::look(&path).frames, kit::combed(&path))
}

fn said(job: &Value, n: usize) -> Vec<&str> {
    let list = job["outputs"][n]["result"]["warnings"].as_array().unwrap();
    list.iter().map(|w| w.as_str().unwrap()).collect()
}

#[tokio::test]
async fn interlaced_pictures_become_whole_ones_though_nobody_says_that_they_are() {
    let bench = Bench::start().await;
    let clip = bench.make(
        "unsaid.mp4",
        &format!(
            "-f lavfi -i {} -vf tinterlace=interleave_top -pix_fmt yuv420p -preset ultrafast -crf 12",
            waves(TELEVISION, "50", 5)
        ),
    );
    let job = encoded(&bench, &clip, &["auto", "field", "off", "frame"]).await;
    let each: Vec<_> = (0..4).map(|n| (frames(&bench, &job, n).0, said(&job, n))).collect();
    let joined = vec!["deinterlaced"];
    assert_eq!(each, [(125, joined.clone()), (250, joined.clone()), (125, vec![]), (125, joined.clone())]);
    for n in [0, 1, 3] {
        assert!(frames(&bench, &job, n).1 < 0.05, "output {n} is combed");
    }
    assert!(frames(&bench, &job, 2).1 > 0.9, "what is left alone stays combed");

    let job = part(&bench, &clip, &["auto", "field"], &json!({"start": 1.52, "duration": 2})).await;
    let each: Vec<_> = (0..2).map(|n| (frames(&bench, &job, n).0, said(&job, n))).collect();
    assert_eq!(each, [(50, joined.clone()), (100, joined)], "of two seconds");
    assert!(frames(&bench, &job, 1).1 < 0.05, "a part is combed");
    bench.server.assert_clean().await;
}

#[tokio::test]
async fn fields_become_frames_of_a_ladder_too() {
    let bench = Bench::start().await;
    let clip = bench.make(
        "said.ts",
        &format!(
            "-f lavfi -i {} -vf tinterlace=interleave_top -c:v mpeg2video -flags +ilme+ildct -qscale:v 3",
            waves("320x240", "50", 4)
        ),
    );
    let rate = json!({"mode": "crf", "crf": 30});
    let body = json!({"source": {"kind": "file", "path": clip}, "outputs": [{
        "preset": "hls_1080p_abr", "video": {"speed": "ultrafast", "deinterlace": "field"}, "package": {"segment_seconds": 2},
        "ladder": [{"name": "big", "box": "320x240", "rate": rate}, {"name": "small", "box": "160x120", "rate": rate, "fps_max": 30}],
        "destination": {"kind": "storage", "path": "vod/{name}"},
    }]});
    let id = bench.server.submit(&body).await;
    let done = bench.server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    let result = &done["outputs"][0]["result"];
    let rates: Vec<_> =
        result["renditions"].as_array().unwrap().iter().map(|r| r["frame_rate"].as_f64().unwrap()).collect();
    assert_eq!((rates, result["frames"].as_u64()), (vec![50.0, 25.0], Some(200)), "{done:#}");
    assert_eq!(said(&done, 0), ["deinterlaced"]);
}

#[tokio::test]
async fn film_comes_out_of_telecine() {
    let bench = Bench::start().await;
    let film = waves(TELEVISION, "24000/1001", 8);
    let clip = bench.make(
        "telecined.ts",
        &format!(
            "-f lavfi -i {film} -vf format=yuv420p,telecine=first_field=top -c:v mpeg2video -qscale:v 2"
        ),
    );
    let job = encoded(&bench, &clip, &["auto", "off"]).await;
    let (frames_of_film, still_combed) = frames(&bench, &job, 0);
    // 8 s of film are 191 or 192 frames, and 239 or 240 of television.
    assert!(frames_of_film.abs_diff(192) <= 2, "{frames_of_film}");
    assert!(still_combed < 0.05, "{still_combed}");
    assert_eq!((said(&job, 0), said(&job, 1)), (vec!["telecine_removed"], vec![]));
    assert!(frames(&bench, &job, 1).0.abs_diff(240) <= 2);

    let job = part(&bench, &clip, &["auto"], &json!({"start": 2.1, "duration": 4})).await;
    let (frames_of_film, still_combed) = frames(&bench, &job, 0);
    // The frames at both ends have no neighbours to be matched with.
    assert!(frames_of_film.abs_diff(96) <= 2 && still_combed < 0.08, "{frames_of_film}, {still_combed}");
    bench.server.assert_clean().await;
}

#[tokio::test]
async fn what_is_only_declared_is_believed_of_still_pictures_alone() {
    let bench = Bench::start().await;
    let declared = "-pix_fmt yuv420p -preset ultrafast -x264-params interlaced=1";
    let wrong = bench.make("wrong.mp4", &format!("-f lavfi -i {} {declared}", waves("320x240", "25", 5)));
    let job = encoded(&bench, &wrong, &["auto", "field"]).await;
    let whole = [0, 1].map(|n| (frames(&bench, &job, n).0, said(&job, n)));
    assert_eq!(whole, [(125, vec![]), (125, vec![])], "progressive, whatever its flags say");

    let still = "-f lavfi -i color=c=black:s=320x240:r=25:d=5 -pix_fmt yuv420p -preset ultrafast";
    let black = bench.make("black.mp4", still);
    let job = encoded(&bench, &black, &["auto"]).await;
    assert_eq!((frames(&bench, &job, 0).0, said(&job, 0)), (125, vec![]));
    let television = bench.make("television.mp4", &format!("{still} -x264-params interlaced=1"));
    let job = encoded(&bench, &television, &["auto"]).await;
    assert_eq!((frames(&bench, &job, 0).0, said(&job, 0)), (125, vec!["deinterlaced"]));
    bench.server.assert_clean().await;
}

use serde_json::json;

use super::super::*;
use super::{ladder, tags, video};

fn hdr_source() -> VideoStream {
    VideoStream {
        codec: "hevc".into(),
        pix_fmt: "yuv420p10le".into(),
        bit_depth: 10,
        color: tags("bt2020", "smpte2084", "bt2020nc"),
        ..video(1920, 1080)
    }
}

/// Name, codec, transfer, and the place that it is made of.
fn told(files: &[OutputPlan]) -> Vec<(String, VideoCodec, String, Option<usize>)> {
    let pictures = files.iter().filter_map(|file| Some((file.rendition.clone()?, file.video.as_ref()?)));
    pictures
        .map(|(name, video)| {
            let from = match video.feed {
                Feed::Source => None,
                Feed::Picture(place) => Some(place),
            };
            (name, video.codec, video.color.transfer.clone(), from)
        })
        .collect()
}

fn rungs(fields: &serde_json::Value) -> serde_json::Value {
    let rung = |name: &str, size: &str, more: &serde_json::Value| {
        let mut rung = json!({"name": name, "box": size, "rate": {"mode": "crf", "crf": 25}});
        rung.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rung
    };
    json!({"ladder": [
        rung("a-1080", "1920x1080", fields),
        rung("a-540", "960x540", fields),
        rung("b-1080", "1920x1080", &json!({})),
        rung("b-540", "960x540", &json!({})),
    ]})
}

#[test]
fn ladders_of_two_ranges_do_not_feed_each_other() {
    use VideoCodec::{H264, Hevc};
    let keeps = rungs(&json!({"codec": "hevc", "bit_depth": 10, "range": "keep"}));
    let (files, _) = ladder(hdr_source(), keeps.clone());
    let told = told(&files);
    let row = |name: &str, codec, transfer: &str, from| (name.to_owned(), codec, transfer.to_owned(), from);
    assert_eq!(
        told,
        [
            row("a-1080", Hevc, "smpte2084", None),
            row("a-540", Hevc, "smpte2084", Some(0)),
            row("b-1080", H264, "bt709", None),
            row("b-540", H264, "bt709", Some(2)),
        ]
    );
    assert_eq!(files[0].warnings, ["tone_mapped"]);
    // Nothing to keep: one ladder is left.
    let (files, _) = ladder(video(1920, 1080), keeps);
    assert_eq!(self::told(&files).into_iter().map(|row| row.0).collect::<Vec<_>>(), ["b-1080", "b-540"]);
}

#[test]
fn ladders_of_two_codecs_share_what_is_large_enough() {
    let (files, _) = ladder(video(1920, 1080), rungs(&json!({"codec": "hevc"})));
    let from: Vec<_> = told(&files).into_iter().map(|(name, _, _, from)| (name, from)).collect();
    let row = |name: &str, from| (name.to_owned(), from);
    assert_eq!(
        from,
        [row("a-1080", None), row("a-540", Some(0)), row("b-1080", Some(0)), row("b-540", Some(2))]
    );
}

use super::*;
use crate::domain::{ColorRange, Rational, Rotation};

/// What ffprobe 5.1 says about a phone's portrait clip (shortened).
const PHONE: &str = r#"{"packets":[{"stream_index":1,"pts":0,"dts":0,"duration":20},{"stream_index":1,"pts":20,"dts":20,"duration":20},
{"stream_index":0,"pts":0,"dts":0,"duration":1024}],
"streams":[{"index":0,"codec_name":"aac","codec_type":"audio","channels":1,"sample_rate":"44100","time_base":"1/44100","start_time":"0.000000",
"duration":"2.043356","disposition":{"default":1},"tags":{"language":"und"}},
{"index":1,"codec_name":"h264","codec_type":"video","width":568,"height":320,"sample_aspect_ratio":"0:1","pix_fmt":"yuv420p","color_range":"tv",
"color_space":"bt709","color_transfer":"unknown","color_primaries":"reserved","field_order":"tb","r_frame_rate":"30000/1001","avg_frame_rate":"30/1",
"time_base":"1/600","duration":"2.068333","disposition":{"default":1,"attached_pic":0},
"side_data_list":[{"side_data_type":"Display Matrix","rotation":-90}]},
{"index":2,"codec_type":"data","disposition":{"default":0}}],
"format":{"duration":"2.068333","size":"241000"}}"#;

fn read(text: &str) -> Document {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_document_is_read_into_types() {
    let document = read(PHONE);
    document.refuse_limits(&SourceLimits::default()).unwrap();
    let info = document.into_info(Demuxer::Mov, 241_000, 240);
    let video = &info.video[0];
    assert_eq!((video.rotation, video.sar, video.bit_depth), (Rotation::Cw90, Rational::ONE, 8));
    assert_eq!(video.display_size(), (320, 568));
    assert_eq!(video.color.range, Some(ColorRange::Limited));
    assert_eq!((video.color.matrix.as_deref(), video.color.transfer.as_deref()), (Some("bt709"), None));
    assert_eq!(video.color.primaries, None);
    assert_eq!(video.field_order, crate::domain::FieldOrder::BottomFirst);
    assert_eq!(video.packets, Some(2));
    assert_eq!(video.frame_rate.unwrap().to_string(), "30/1");
    assert_eq!((info.audio[0].sample_rate, &info.audio[0].language), (44_100, &None));
    assert_eq!(info.other[0].kind, "data");
}

#[test]
fn every_limit_is_kept() {
    let refused = |change: fn(&mut SourceLimits)| {
        let mut limits = SourceLimits::default();
        change(&mut limits);
        read(PHONE).refuse_limits(&limits).unwrap_err().code
    };
    assert_eq!(refused(|l| l.max_streams = 2), Code::MediaLimit);
    assert_eq!(refused(|l| l.max_pixels = 568 * 320 - 1), Code::MediaLimit);
    assert_eq!(refused(|l| l.max_duration = Duration::from_secs(2)), Code::MediaLimit);
    assert_eq!(refused(|l| l.max_frame_rate = 29), Code::MediaLimit);
    let encrypted = PHONE.replace(r#""codec_name":"h264""#, r#""codec_tag_string":"encv""#);
    let failure = read(&encrypted).refuse_limits(&SourceLimits::default()).unwrap_err();
    assert_eq!(failure.code, Code::MediaUnsupported);
    assert_eq!(
        Document::default().refuse_limits(&SourceLimits::default()).unwrap_err().code,
        Code::MediaCorrupt
    );
}

#[test]
fn an_impossible_duration_is_no_claim() {
    let liar = PHONE.replace(r#"{"duration":"2.068333""#, r#"{"duration":"143165.57""#);
    assert_eq!(read(&liar).duration(), None);
    read(&liar).refuse_limits(&SourceLimits::default()).unwrap();
}

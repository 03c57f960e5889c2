//! `POST /probe`: what a source is, asked before a job is made of it.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::auth::Principal;
use super::params::Params;
use super::problem::{Kind, Problem};
use super::{Api, accept, body};
use crate::domain::{AudioStream, ColorSpace, OtherStream, Remark, SubtitleStream, VideoStream};
use crate::worker::{Looked, Refused};

/// When somebody who found all seats taken should come again: most sources are known within a second.
const LATER: Duration = Duration::from_secs(2);

/// Opens the source as a worker would and shows what it is. It runs in this process, so it ends with the request, and a
/// server without tools says that it has none.
pub(super) async fn create(
    State(api): State<Api>,
    who: Principal,
    request: Request,
) -> Result<Response, Problem> {
    Params::of(request.uri()).only(&[])?;
    let none = || Problem::new(Kind::ProbeUnavailable, "sources are probed by servers of the role all");
    let prober = api.prober.clone().ok_or_else(none)?;
    who.admit_submission(&api)?;
    let body = body::read_json(&api, request).await?;
    let given = accept::check_source(&api, &who, body).await?;
    let looked = prober.probe(given).await?;
    Ok(axum::Json(document(&looked)).into_response())
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::new(Kind::Unavailable, refused.to_string()).retry_after(LATER),
            Refused::Failed(failure) => Self::of_source(failure),
        }
    }
}

/// What a source is, as clients and `flux probe` show it.
#[must_use]
pub fn document(looked: &Looked) -> Value {
    let Looked { media, codecs } = looked;
    let codec = |index: u32| codecs.get(&index).map(String::as_str);
    let main = (media.main_video().map(|v| v.index), media.main_audio().map(|a| a.index));
    let (pictures, covers): (Vec<&VideoStream>, Vec<&VideoStream>) =
        media.video.iter().partition(|video| !video.attached_picture);
    let video = |v: &&VideoStream| picture(v, codec(v.index), main.0 == Some(v.index));
    let audio = |a: &AudioStream| sound(a, codec(a.index), main.1 == Some(a.index));
    json!({
        "container": media.container.ffmpeg_name(),
        "size": media.size,
        "duration_seconds": media.duration_seconds.map(micros),
        "video": pictures.iter().map(video).collect::<Vec<_>>(),
        "audio": media.audio.iter().map(audio).collect::<Vec<_>>(),
        "subtitles": media.subtitles.iter().map(subtitles).collect::<Vec<_>>(),
        "attached_pictures": covers.into_iter().map(cover).collect::<Vec<_>>(),
        "other": media.other.iter().map(other).collect::<Vec<_>>(),
        "warnings": media.remarks().into_iter().map(Remark::as_str).collect::<Vec<_>>(),
    })
}

fn picture(video: &VideoStream, codec_string: Option<&str>, main: bool) -> Value {
    let (width, height) = video.display_size();
    json!({
        "index": video.index,
        "main": main,
        "codec": video.codec,
        "codec_string": codec_string,
        "width": width,
        "height": height,
        "stored_width": video.width,
        "stored_height": video.height,
        "sample_aspect_ratio": format!("{}:{}", video.sar.num(), video.sar.den()),
        "rotation": u16::from(video.rotation),
        "frame_rate": video.frame_rate.map(|rate| (rate.as_f64() * 1000.0).round() / 1000.0),
        "variable_frame_rate": video.variable_rate,
        "pixel_format": video.pix_fmt,
        "bit_depth": video.bit_depth,
        "field_order": video.field_order,
        "hdr": video.color.is_hdr(),
        "color": color(&video.color),
        "start_seconds": video.start_seconds.map(micros),
        "duration_seconds": video.duration_seconds.map(micros),
        "default": video.default,
    })
}

fn color(tags: &ColorSpace) -> Value {
    let ColorSpace { range, matrix, primaries, transfer } = tags;
    json!({"range": range, "matrix": matrix, "primaries": primaries, "transfer": transfer})
}

fn sound(audio: &AudioStream, codec_string: Option<&str>, main: bool) -> Value {
    json!({
        "index": audio.index,
        "main": main,
        "codec": audio.codec,
        "codec_string": codec_string,
        "channels": audio.channels,
        "sample_rate": audio.sample_rate,
        "language": audio.language,
        "start_seconds": audio.start_seconds.map(micros),
        "duration_seconds": audio.duration_seconds.map(micros),
        "default": audio.default,
    })
}

fn subtitles(stream: &SubtitleStream) -> Value {
    json!({
        "index": stream.index,
        "codec": stream.codec,
        "text": stream.is_text(),
        "language": stream.language,
        "default": stream.default,
        "forced": stream.forced,
        "hearing_impaired": stream.hearing_impaired,
    })
}

fn cover(video: &VideoStream) -> Value {
    json!({"index": video.index, "codec": video.codec, "width": video.width, "height": video.height})
}

fn other(stream: &OtherStream) -> Value {
    json!({"index": stream.index, "kind": stream.kind, "codec": stream.codec})
}

/// Times without the noise of floats; one that is none is not shown (JSON has no NaN).
fn micros(seconds: f64) -> Option<f64> {
    seconds.is_finite().then(|| (seconds * 1e6).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::{Code, Demuxer, Failure, FieldOrder, MediaInfo, Rational, Rotation};

    #[test]
    fn a_phones_film_with_a_cover() {
        let film = VideoStream {
            index: 0,
            codec: "hevc".into(),
            width: 1920,
            height: 1080,
            sar: Rational::ONE,
            rotation: Rotation::Cw90,
            pix_fmt: "yuv420p10le".into(),
            bit_depth: 10,
            color: ColorSpace { transfer: Some("arib-std-b67".into()), ..ColorSpace::default() },
            field_order: FieldOrder::Progressive,
            frame_rate: Rational::new(30_000, 1001).ok(),
            variable_rate: true,
            time_base: Rational::new(1, 600).unwrap(),
            start_seconds: Some(0.0),
            duration_seconds: Some(3.000_000_04),
            packets: Some(90),
            attached_picture: false,
            default: true,
            measured: crate::domain::Measured::default(),
        };
        let cover = VideoStream { index: 2, codec: "png".into(), attached_picture: true, ..film.clone() };
        let sound = AudioStream {
            index: 1,
            codec: "aac".into(),
            channels: 2,
            sample_rate: 44_100,
            start_seconds: None,
            duration_seconds: Some(f64::INFINITY),
            language: Some("deu".into()),
            default: true,
        };
        let media = MediaInfo {
            container: Demuxer::Mov,
            size: 1000,
            duration_seconds: Some(3.0),
            video: vec![film, cover],
            audio: vec![sound],
            subtitles: vec![SubtitleStream {
                index: 4,
                codec: "mov_text".into(),
                language: Some("deu".into()),
                default: false,
                forced: true,
                hearing_impaired: false,
            }],
            other: vec![OtherStream { index: 3, kind: "data".into(), codec: None }],
        };
        let codecs = BTreeMap::from([(0, "hvc1.2.4.L120.b0".into()), (1, "mp4a.40.2".into())]);
        insta::assert_json_snapshot!(document(&Looked { media, codecs }));
    }

    #[test]
    fn failures_keep_the_code_that_a_job_would_have() {
        let said = |code| {
            let failure = Failure::new(code, "a sentence").with_detail("/srv/host");
            let problem = Problem::from(Refused::Failed(failure));
            let body = String::from_utf8(problem.body("id")).unwrap();
            assert!(!body.contains("/srv"), "{body}");
            let body: Value = serde_json::from_str(&body).unwrap();
            (problem.status().as_u16(), body["code"].as_str().unwrap().to_owned(), body["retryable"].clone())
        };
        assert_eq!(said(Code::MediaCorrupt), (422, "media_corrupt".into(), json!(false)));
        assert_eq!(said(Code::SourceForbidden), (422, "source_forbidden".into(), json!(false)));
        assert_eq!(said(Code::SourceUnreachable), (503, "source_unreachable".into(), json!(true)));
        assert_eq!(said(Code::ToolMissing), (503, "tool_missing".into(), json!(false)));
        assert_eq!(said(Code::Internal), (500, "internal".into(), json!(true)));
        assert_eq!(Problem::from(Refused::Full).status().as_u16(), 503);
    }
}

//! Which moments of a film become stills, and how large they are. Pure.

use super::{Filter, Policy, VideoPlan, picture};
use crate::domain::preset::{
    Clip, Container, EncodeSpec, MAX_STILLS, MediaTime, Sprite, StillFormat, StillTimes, StillsSpec,
    VideoSpec,
};
use crate::domain::{Code, Failure, MediaInfo, OutputIndex};

/// Where a picture that shows something is looked for, parts of the film.
const CANDIDATES: [f64; 5] = [0.1, 0.2, 0.35, 0.5, 0.7];
/// And in a film that does not say how long it is, seconds.
const EARLY: [f64; 5] = [0.0, 1.0, 3.0, 5.0, 10.0];
/// By how much the last moment lies before the end, seconds.
const MARGIN: f64 = 0.05;

/// Stills of one output, every decision made.
#[derive(Debug, Clone, PartialEq)]
pub struct StillsPlan {
    /// The job's output.
    pub index: OutputIndex,
    /// Source stream, size and filters of a picture; nothing is encoded with its codec.
    pub picture: VideoPlan,
    /// Moments, seconds from the film's beginning.
    pub moments: Vec<f64>,
    /// Time that one still of a series stands for, seconds; the last one's ends with the film.
    pub step: f64,
    /// Length of the film, or of the part that is asked for, seconds; 0 = unknown.
    pub seconds: f64,
    /// Where that part ends in the source, seconds.
    pub end: f64,
    /// What is made of the moments.
    pub choice: Choice,
    /// What pictures are written as.
    pub format: StillFormat,
    /// 1 to 100.
    pub quality: u8,
    /// Whether black pictures are replaced by others of their time.
    pub skip_black: bool,
    /// What the client should know.
    pub warnings: Vec<String>,
}

/// What is made of the moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// One picture: the best of them.
    Best,
    /// A picture each.
    Each,
    /// Sheets of them.
    Sheets(Sprite),
}

impl StillsPlan {
    /// Bytes of one picture as it is handed on, three a pixel.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        u64::from(self.picture.width) * u64::from(self.picture.height) * 3
    }

    /// Bytes to set aside on the disk: one batch as it is, and all pictures at a byte a pixel.
    #[must_use]
    pub fn expected_bytes(&self) -> u64 {
        let pictures = u64::try_from(self.moments.len()).unwrap_or(u64::MAX);
        self.raw_bytes().saturating_mul(100 + pictures / 3)
    }
}

/// Plans the stills of an output.
///
/// # Errors
/// `no_video_stream`; `media_limit` where they are more than 10,000; `media_unsupported` where the source does not say
/// how long it is and that must be known, or where the moment lies behind its end.
pub fn stills(
    info: &MediaInfo,
    index: OutputIndex,
    spec: &EncodeSpec,
) -> Result<Option<StillsPlan>, Failure> {
    let Some(wanted) = &spec.stills else { return Ok(None) };
    let stream = info.main_video().ok_or_else(|| {
        Failure::new(Code::NoVideoStream, "the output needs a picture and the source has none")
    })?;
    let seconds = stream.duration_seconds.or(info.duration_seconds).filter(|s| s.is_finite() && *s > 0.0);
    let (start, seconds) = part(spec.clip, seconds)?;
    let (mut moments, step) = moments(wanted, seconds)?;
    for moment in &mut moments {
        *moment += start;
    }
    let mut warnings = Vec::new();
    let mut picture = picture(stream, &picture_spec(wanted)?, &Policy::default(), &mut warnings)?;
    picture.filters.retain(|filter| !matches!(filter, Filter::Fps(_)));
    let choice = match (spec.container, wanted.sprite) {
        (Container::Vtt, Some(sprite)) => Choice::Sheets(sprite),
        (Container::Vtt, None) => Choice::Each,
        _ => Choice::Best,
    };
    let format = match spec.container {
        Container::Png => StillFormat::Png,
        Container::Webp => StillFormat::Webp,
        Container::Jpg => StillFormat::Jpg,
        _ => wanted.format,
    };
    warnings.retain(|warning| warning != "frame_rate_assumed");
    Ok(Some(StillsPlan {
        index,
        picture,
        moments,
        step,
        seconds: seconds.unwrap_or_default(),
        end: start + seconds.unwrap_or_default(),
        choice,
        format,
        quality: wanted.quality,
        skip_black: wanted.skip_black,
        warnings,
    }))
}

/// A picture setting as a document with these fields would have it: everything else has its default.
fn picture_spec(stills: &StillsSpec) -> Result<VideoSpec, Failure> {
    let mut document = serde_json::json!({"codec": "h264", "rate": {"mode": "crf", "crf": 23}});
    if let Some((width, height)) = stills.picture() {
        document["box"] = format!("{width}x{height}").into();
    }
    serde_json::from_value(document).map_err(|error| {
        Failure::new(Code::Internal, "The stills could not be planned.").with_detail(error.to_string())
    })
}

/// Where the part that is asked for begins, and how long it is, if anybody knows, seconds.
fn part(clip: Option<Clip>, seconds: Option<f64>) -> Result<(f64, Option<f64>), Failure> {
    let Some(clip) = clip else { return Ok((0.0, seconds)) };
    let (start, asked) = (clip.start.seconds(), clip.duration.map(MediaTime::seconds));
    match seconds {
        Some(all) if start >= all => {
            let message = format!("the part begins at {start} s, behind the end of the source ({all:.3} s)");
            Err(Failure::new(Code::ClipOutOfRange, message))
        }
        Some(all) => Ok((start, Some(asked.map_or(all - start, |asked| asked.min(all - start))))),
        None => Ok((start, asked)),
    }
}

/// The moments, and the time that each stands for.
fn moments(spec: &StillsSpec, seconds: Option<f64>) -> Result<(Vec<f64>, f64), Failure> {
    let known = || {
        seconds.ok_or_else(|| {
            Failure::new(
                Code::MediaUnsupported,
                "the source does not say how long it is, so its stills cannot be spread",
            )
        })
    };
    match spec.times {
        StillTimes::Best => Ok(match seconds {
            Some(all) => (CANDIDATES.iter().map(|part| part * all).collect(), all),
            None => (EARLY.to_vec(), 0.0),
        }),
        StillTimes::At(at) => match seconds {
            Some(all) if at >= all => Err(Failure::new(
                Code::MediaUnsupported,
                format!("the still at {at} s lies behind the end of the source ({all:.3} s)"),
            )),
            _ => Ok((vec![at], 0.0)),
        },
        StillTimes::EverySeconds(step) => every(step, known()?),
        StillTimes::EveryPercent(percent) => {
            let all = known()?;
            every(all * percent / 100.0, all)
        }
        StillTimes::Count(count) => {
            let all = known()?;
            let step = all / f64::from(count);
            Ok(((0..count).map(|n| (f64::from(n) + 0.5) * step).collect(), step))
        }
    }
}

fn every(step: f64, all: f64) -> Result<(Vec<f64>, f64), Failure> {
    let many = (all / step - 1e-9).ceil().max(1.0);
    if many > f64::from(MAX_STILLS) {
        let message = format!("the source would have {many:.0} stills, more than {MAX_STILLS}");
        return Err(Failure::new(Code::MediaLimit, message));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 10,000")]
    let count = many as u32;
    let last = (all - MARGIN).max(0.0);
    Ok(((0..count).map(|n| (f64::from(n) * step).min(last)).collect(), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(times: StillTimes) -> StillsSpec {
        let format = StillFormat::Jpg;
        StillsSpec { times, bounds: None, quality: 85, skip_black: true, format, sprite: None }
    }

    #[test]
    fn moments_cover_the_film_and_never_lie_behind_it() {
        let times = |times, seconds| moments(&spec(times), seconds).map(|(moments, _)| moments);
        assert_eq!(times(StillTimes::EverySeconds(10.0), Some(25.0)).unwrap(), [0.0, 10.0, 20.0]);
        assert_eq!(times(StillTimes::EverySeconds(10.0), Some(20.0)).unwrap(), [0.0, 10.0]);
        assert_eq!(times(StillTimes::EveryPercent(50.0), Some(8.0)).unwrap(), [0.0, 4.0]);
        assert_eq!(times(StillTimes::Count(2), Some(8.0)).unwrap(), [2.0, 6.0]);
        assert_eq!(times(StillTimes::At(3.0), Some(8.0)).unwrap(), [3.0]);
        assert_eq!(times(StillTimes::At(8.0), Some(8.0)).unwrap_err().code, Code::MediaUnsupported);
        assert_eq!(times(StillTimes::EverySeconds(0.1), Some(1001.0)).unwrap_err().code, Code::MediaLimit);
        assert_eq!(times(StillTimes::Count(3), None).unwrap_err().code, Code::MediaUnsupported);
        assert_eq!(times(StillTimes::Best, None).unwrap().len(), 5);
    }
}

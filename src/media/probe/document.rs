//! ffprobe's JSON and its reading.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::rate;
use crate::domain::limits::SourceLimits;
use crate::domain::{
    AudioStream, Code, ColorRange, ColorSpace, Demuxer, Failure, FieldOrder, Measured, MediaInfo,
    OtherStream, Rational, Rotation, SubtitleStream, VideoStream,
};

/// `-show_streams -show_format -show_entries packet=…`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::media) struct Document {
    pub(in crate::media) packets: Vec<Packet>,
    pub(in crate::media) streams: Vec<Stream>,
    pub(in crate::media) format: Format,
}

impl Document {
    /// Width and height of the first picture that is no cover, pixels.
    pub(in crate::media) fn picture_size(&self) -> Option<(u32, u32)> {
        let pictures = self.streams.iter().filter(|stream| stream.codec_type.as_deref() == Some("video"));
        pictures.filter(|stream| !stream.is_cover()).map(|stream| (stream.width, stream.height)).next()
    }
}

/// A packet; times in ticks of its stream.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(in crate::media) struct Packet {
    pub(in crate::media) stream_index: u32,
    pub(in crate::media) pts: Option<i64>,
    pub(in crate::media) dts: Option<i64>,
    pub(in crate::media) duration: Option<i64>,
}

/// A stream, as ffprobe spells it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::media) struct Stream {
    pub(in crate::media) index: u32,
    pub(in crate::media) codec_type: Option<String>,
    pub(in crate::media) codec_name: Option<String>,
    pub(super) profile: Option<String>,
    /// The codec's own configuration, as a dump; only where it was asked for.
    pub(super) extradata: Option<String>,
    codec_tag_string: Option<String>,
    pub(in crate::media) width: u32,
    pub(in crate::media) height: u32,
    sample_aspect_ratio: Option<String>,
    pub(in crate::media) pix_fmt: Option<String>,
    /// As the codec stores it: tens of H.264's, thirties of HEVC's.
    pub(in crate::media) level: Option<i32>,
    bits_per_raw_sample: Option<String>,
    color_range: Option<String>,
    color_space: Option<String>,
    color_transfer: Option<String>,
    color_primaries: Option<String>,
    field_order: Option<String>,
    avg_frame_rate: Option<String>,
    r_frame_rate: Option<String>,
    pub(in crate::media) time_base: Option<String>,
    start_time: Option<String>,
    duration: Option<String>,
    pub(in crate::media) channels: u16,
    pub(in crate::media) sample_rate: Option<String>,
    disposition: Disposition,
    tags: BTreeMap<String, String>,
    side_data_list: Vec<SideData>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Disposition {
    default: u8,
    forced: u8,
    hearing_impaired: u8,
    attached_pic: u8,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SideData {
    rotation: Option<f64>,
}

/// The container.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::media) struct Format {
    duration: Option<String>,
    size: Option<String>,
}

impl Document {
    /// Refuses what is beyond the limits or encrypted.
    pub(super) fn refuse_limits(&self, limits: &SourceLimits) -> Result<(), Failure> {
        let limit = |what: String| Err(Failure::new(Code::MediaLimit, what));
        if self.streams.is_empty() {
            return Err(Failure::new(Code::MediaCorrupt, "The source holds no streams."));
        }
        if self.streams.len() > limits.max_streams as usize {
            return limit(format!("The source has more than {} streams.", limits.max_streams));
        }
        for stream in &self.streams {
            if matches!(stream.codec_tag_string.as_deref(), Some("encv" | "enca" | "drmi" | "drms")) {
                return Err(Failure::new(Code::MediaUnsupported, "The source is encrypted."));
            }
            let pixels = u64::from(stream.width) * u64::from(stream.height);
            if pixels > limits.max_pixels {
                let (width, height, most) = (stream.width, stream.height, limits.max_pixels);
                return limit(format!("The source's picture of {width}x{height} is above {most} pixels."));
            }
        }
        let longest = self.duration().filter(|s| *s > limits.max_duration.as_secs_f64());
        if let Some(seconds) = longest {
            let most = limits.max_duration.as_secs();
            return limit(format!("The source lasts {seconds:.0} s, longer than {most} s."));
        }
        let fastest =
            self.streams.iter().filter_map(|stream| self.frame_rate(stream).0).map(Rational::as_f64);
        if fastest.fold(0.0, f64::max) > f64::from(limits.max_frame_rate) {
            return limit(format!("The source has more than {} frames per second.", limits.max_frame_rate));
        }
        Ok(())
    }

    /// The declared duration, seconds; a claim that leaves less than 50 bytes to a second is a lie
    /// (RELIABILITY §4.3 has a clip of one second that claims forty hours), and no claim.
    pub(in crate::media) fn duration(&self) -> Option<f64> {
        let seconds = positive(self.format.duration.as_deref())?;
        let size: f64 =
            self.format.size.as_deref().and_then(|text| text.parse().ok()).unwrap_or(f64::INFINITY);
        (seconds < 60.0 || size / seconds >= 50.0).then_some(seconds)
    }

    /// The typed result. `asked` is how many packets the probe may have read.
    pub(super) fn into_info(self, container: Demuxer, size: u64, asked: usize) -> MediaInfo {
        let mut info = MediaInfo {
            container,
            size,
            duration_seconds: self.duration(),
            video: Vec::new(),
            audio: Vec::new(),
            subtitles: Vec::new(),
            other: Vec::new(),
        };
        for stream in &self.streams {
            match stream.codec_type.as_deref() {
                Some("video") => info.video.push(self.video(stream, asked)),
                Some("audio") => info.audio.push(stream.audio()),
                Some("subtitle") => info.subtitles.push(stream.subtitles()),
                kind => info.other.push(OtherStream {
                    index: stream.index,
                    kind: kind.unwrap_or("unknown").to_owned(),
                    codec: stream.codec_name.clone(),
                }),
            }
        }
        info
    }

    fn packets_of(&self, stream: &Stream) -> impl Iterator<Item = &Packet> {
        let index = stream.index;
        self.packets.iter().filter(move |packet| packet.stream_index == index)
    }

    fn frame_rate(&self, stream: &Stream) -> (Option<Rational>, bool) {
        if stream.codec_type.as_deref() != Some("video") || stream.disposition.attached_pic == 1 {
            return (None, false);
        }
        let base = stream.base();
        let packets: Vec<Packet> = self.packets_of(stream).copied().collect();
        let hints = [&stream.avg_frame_rate, &stream.r_frame_rate].map(|text| ratio(text.as_deref()));
        rate::measure(&packets, base, hints)
    }

    fn video(&self, stream: &Stream, asked: usize) -> VideoStream {
        let (frame_rate, variable_rate) = self.frame_rate(stream);
        let pix_fmt = stream.pix_fmt.clone().unwrap_or_else(|| "unknown".into());
        VideoStream {
            index: stream.index,
            codec: stream.codec_name.clone().unwrap_or_else(|| "unknown".into()),
            width: stream.width,
            height: stream.height,
            sar: ratio(stream.sample_aspect_ratio.as_deref()).unwrap_or(Rational::ONE),
            rotation: stream.rotation(),
            bit_depth: bit_depth(&pix_fmt, stream.bits_per_raw_sample.as_deref()),
            pix_fmt,
            color: stream.color(),
            field_order: match stream.field_order.as_deref() {
                Some("progressive") => FieldOrder::Progressive,
                Some("tt" | "bt") => FieldOrder::TopFirst,
                Some("bb" | "tb") => FieldOrder::BottomFirst,
                _ => FieldOrder::Unknown,
            },
            frame_rate,
            variable_rate,
            time_base: stream.base(),
            start_seconds: number(stream.start_time.as_deref()),
            duration_seconds: stream.seconds(),
            // Fewer than asked for: the source had no more.
            packets: (self.packets.len() < asked).then(|| self.packets_of(stream).count() as u64),
            attached_picture: stream.disposition.attached_pic == 1,
            default: stream.disposition.default == 1,
            measured: Measured::default(),
        }
    }
}

impl Stream {
    /// Its ticks, seconds.
    pub(in crate::media) fn base(&self) -> Rational {
        ratio(self.time_base.as_deref()).unwrap_or(Rational::ONE)
    }

    /// Its ISO 639 tag, where one is set.
    pub(in crate::media) fn language(&self) -> Option<String> {
        let tag = self.tags.iter().find(|(name, _)| name.eq_ignore_ascii_case("language"))?.1;
        (tag != "und" && tag.len() <= 35).then(|| tag.clone())
    }

    /// ffprobe's angle is counter-clockwise; ours is the clockwise turn that shows the picture upright.
    pub(in crate::media) fn rotation(&self) -> Rotation {
        let angle = self.side_data_list.iter().find_map(|data| data.rotation).unwrap_or(0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "one of four quarters after rem_euclid"
        )]
        match (-angle / 90.0).round().rem_euclid(4.0) as u8 {
            1 => Rotation::Cw90,
            2 => Rotation::Half,
            3 => Rotation::Cw270,
            _ => Rotation::None,
        }
    }

    /// Frames per second on average, as the container has it.
    pub(super) fn average_rate(&self) -> Option<f64> {
        ratio(self.avg_frame_rate.as_deref()).map(Rational::as_f64)
    }

    /// The sample aspect ratio; `None` where it is unknown.
    pub(in crate::media) fn sar(&self) -> Option<Rational> {
        ratio(self.sample_aspect_ratio.as_deref())
    }

    /// Colour tags, without the spellings of "not said".
    pub(in crate::media) fn color(&self) -> ColorSpace {
        let said = |tag: &Option<String>| {
            tag.clone().filter(|t| !matches!(t.as_str(), "unknown" | "reserved" | "unspecified"))
        };
        ColorSpace {
            range: match self.color_range.as_deref() {
                Some("tv") => Some(ColorRange::Limited),
                Some("pc") => Some(ColorRange::Full),
                _ => None,
            },
            matrix: said(&self.color_space),
            primaries: said(&self.color_primaries),
            transfer: said(&self.color_transfer),
        }
    }

    /// Whether it is a cover picture.
    pub(in crate::media) fn is_cover(&self) -> bool {
        self.disposition.attached_pic == 1
    }

    /// Whether it is to be read also by those who follow the sound.
    pub(in crate::media) fn is_forced(&self) -> bool {
        self.disposition.forced == 1
    }

    /// The stream's declared duration; Matroska keeps it in a tag such as `00:00:01.234000000`.
    fn seconds(&self) -> Option<f64> {
        positive(self.duration.as_deref()).or_else(|| {
            let tag = self.tags.iter().find(|(name, _)| name.eq_ignore_ascii_case("duration"))?.1;
            let parts: Option<Vec<f64>> = tag.split(':').map(|part| part.parse().ok()).collect();
            match parts?.as_slice() {
                [hours, minutes, seconds] => {
                    Some(hours * 3600.0 + minutes * 60.0 + seconds).filter(|s| *s > 0.0)
                }
                _ => None,
            }
        })
    }

    fn audio(&self) -> AudioStream {
        AudioStream {
            index: self.index,
            codec: self.codec_name.clone().unwrap_or_else(|| "unknown".into()),
            channels: self.channels,
            sample_rate: self.sample_rate.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0),
            start_seconds: number(self.start_time.as_deref()),
            duration_seconds: self.seconds(),
            language: self.language(),
            default: self.disposition.default == 1,
        }
    }

    fn subtitles(&self) -> SubtitleStream {
        SubtitleStream {
            index: self.index,
            codec: self.codec_name.clone().unwrap_or_else(|| "unknown".into()),
            language: self.language(),
            default: self.disposition.default == 1,
            forced: self.is_forced(),
            hearing_impaired: self.disposition.hearing_impaired == 1,
        }
    }
}

/// A positive ratio; `0/0`, `0:1` and `N/A` are none.
fn ratio(text: Option<&str>) -> Option<Rational> {
    text.and_then(|text| text.parse().ok())
}

fn number(text: Option<&str>) -> Option<f64> {
    text.and_then(|text| text.parse::<f64>().ok()).filter(|n| n.is_finite())
}

fn positive(text: Option<&str>) -> Option<f64> {
    number(text).filter(|n| *n > 0.0)
}

/// Bits per component: ffmpeg's names carry them (`yuv420p10le`, `p010le`, `gray12be`) where they are not 8.
pub(super) fn bit_depth(pix_fmt: &str, declared: Option<&str>) -> u8 {
    let name = pix_fmt.strip_suffix("le").or_else(|| pix_fmt.strip_suffix("be"));
    let digits = |name: &str| {
        let start = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        name[start..].parse::<u8>().ok()
    };
    match name.and_then(digits) {
        // `p010`, `p012`, `p016`: two digits after the family's zero.
        Some(bits @ 9..=16) => bits,
        _ if pix_fmt.starts_with("x2rgb10") || pix_fmt.starts_with("x2bgr10") => 10,
        _ if name.is_some_and(|n| n.starts_with("rgb48") || n.starts_with("rgba64")) => 16,
        _ if name.is_some() => {
            declared.and_then(|text| text.parse().ok()).filter(|bits| (8..=16).contains(bits)).unwrap_or(8)
        }
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_depths_follow_the_names() {
        for (name, bits) in [
            ("yuv420p", 8),
            ("yuvj420p", 8),
            ("yuv420p10le", 10),
            ("p010le", 10),
            ("yuv444p12be", 12),
            ("gray16le", 16),
            ("nv12", 8),
            ("rgb24", 8),
            ("rgb48le", 16),
            ("unknown", 8),
            ("gbrp", 8),
            ("yuva444p9le", 9),
        ] {
            assert_eq!(bit_depth(name, None), bits, "{name}");
        }
    }
}

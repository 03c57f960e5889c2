//! Reads an encode setting from JSON field by field, so that one answer names every fault.
//!
//! Derived deserialisation stops at the first fault; clients who fix bodies by hand should not need ten tries.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    AudioSpec, BitRate, CaptionMode, CaptionSource, CaptionsSpec, Container, CopyWord, Crop, EncodeSpec,
    FpsSpec, PackageSpec, Picture, PictureCopy, Rate, Rung, SET_GOP_SECONDS, Segment, Sound, SoundCopy,
    StillTimes, StillsSpec, VideoCodec, VideoSpec, captions, check, default_gop_seconds, default_sample_rate,
    package,
    stills::{self, StillMoment},
};
use crate::domain::{Area, Fault, Rational};

/// Formats of the documented schema that this version does not write.
const LATER_CONTAINERS: &[&str] = &["gif"];
/// Fields of the documented schema that this version does not have.
const LATER_FIELDS: &[&str] = &["preview", "watermark"];

/// Reads a whole setting.
pub(super) fn encode_spec(document: Map<String, Value>) -> Result<EncodeSpec, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut fields = Fields::new(String::new(), document, &mut faults);
    let container = container(&mut fields);
    let is_set = container.is_some_and(Container::is_set);
    let video = fields.nested("video").and_then(|fields| video(fields, is_set));
    let audio = fields.nested("audio").and_then(audio);
    let encoded = match &video {
        Some(Picture::Encode(spec)) => Some(spec),
        Some(Picture::Copy(_)) | None => None,
    };
    let ladder = ladder(&mut fields, encoded);
    let package = package(&mut fields, container);
    let clip = fields.optional("clip");
    let stills = fields.nested("stills").and_then(read_stills);
    let poster = fields.optional("poster").unwrap_or_default();
    let captions = captions(&mut fields, container);
    fields.finish();

    if let Some(Picture::Encode(video)) = &video {
        check::video(video, &mut faults);
    }
    if let Some(Sound::Encode(audio)) = &audio {
        check::audio(audio, &mut faults);
    }
    let spec = container.map(|container| EncodeSpec {
        container,
        video,
        audio,
        ladder,
        package,
        clip,
        stills,
        poster,
        captions,
    });
    if let Some(spec) = &spec {
        check::container(spec, &mut faults);
        check::copies(spec, &mut faults);
        check::set(spec, &mut faults);
        check::clip(spec.clip, &mut faults);
        if faults.is_empty() {
            check::stills(spec.container, spec.stills.as_ref(), &mut faults);
            check::poster(spec, &mut faults);
            check::captions(spec, &mut faults);
        }
    }
    // Every section that could not be read has left a fault, so "no picture and no sound" is only said of a
    // document that really asks for neither.
    if faults.is_empty() && spec.as_ref().is_some_and(EncodeSpec::is_empty) {
        faults.push(check::nothing());
    }
    match spec {
        Some(spec) if faults.is_empty() => Ok(spec),
        _ => Err(faults),
    }
}

/// The rungs, those that can be read. One without a `rate` has that of the picture, if that is a quality.
fn ladder(fields: &mut Fields<'_>, video: Option<&VideoSpec>) -> Vec<Rung> {
    let Some(rungs) = fields.take("ladder") else {
        return Vec::new();
    };
    let Value::Array(rungs) = rungs else {
        fields.fault("ladder", "is not a list");
        return Vec::new();
    };
    let at = Fault::join(&fields.at, "ladder");
    let read = rungs.into_iter().enumerate().filter_map(|(n, value)| {
        let at = Fault::join(&at, &n.to_string());
        let Value::Object(map) = value else {
            fields.faults.push(Fault::new(at, "is not an object"));
            return None;
        };
        let mut fields = Fields::new(at, map, fields.faults);
        let (name, bounds) = (fields.required("name"), fields.required("box"));
        let codec = fields.optional("codec");
        // Numbers of one codec mean something else to another.
        let same = codec.is_none_or(|codec| video.is_some_and(|video| video.codec == codec));
        let silent = fields.map.get("rate").is_none_or(Value::is_null);
        let inherited = video.map(|video| video.rate).filter(|_| silent && same);
        let rate = match inherited {
            Some(rate) => {
                fields.asked.push("rate");
                fields.map.remove("rate");
                Some(rate)
            }
            None => fields.nested("rate").and_then(rate),
        };
        let (fps_max, profile) = (fields.optional("fps_max"), fields.optional("profile"));
        let level = fields.optional("level");
        let (bit_depth, range) = (fields.optional("bit_depth"), fields.optional("range"));
        if silent && !same {
            fields.fault("rate", "a rung of another codec has a rate of its own");
        }
        let whole = fields.finish();
        let (name, bounds, rate) = (name?, bounds?, rate?);
        whole.then_some(Rung { name, bounds, rate, codec, bit_depth, range, fps_max, profile, level })
    });
    read.collect()
}

/// The packaging; a set has one whatever the document says.
fn package(fields: &mut Fields<'_>, container: Option<Container>) -> Option<PackageSpec> {
    let set = container.filter(|container| container.is_presentation());
    if set.is_none() && fields.map.get("package").is_none_or(Value::is_null) {
        fields.take("package");
        return None;
    }
    let mut fields = match fields.map.get("package") {
        None | Some(Value::Null) => {
            fields.take("package");
            Fields::new(String::new(), Map::new(), fields.faults)
        }
        Some(_) => fields.nested("package")?,
    };
    let segment: Segment = fields.optional("segment").unwrap_or_default();
    // Said for readers of presets: what it can be follows from the segments.
    let sound: Option<String> = fields.optional("audio");
    let follows = match segment {
        Segment::Fmp4 => "separate",
        Segment::Ts => "muxed",
    };
    if sound.is_some_and(|sound| sound != follows) {
        fields.fault("audio", format!("the sound of these segments is {follows}"));
    }
    let package = PackageSpec {
        segment_seconds: fields.optional("segment_seconds").unwrap_or(package::default_segment_seconds()),
        segment,
        single_file: fields.optional("single_file").unwrap_or_default(),
        iframes: fields.optional("iframes").unwrap_or(true),
        manifests: fields
            .optional("manifests")
            .unwrap_or_else(|| set.map(PackageSpec::manifests_of).unwrap_or_default()),
        names: fields.optional("names").unwrap_or_default(),
    };
    fields.finish().then_some(package)
}

/// The subtitles; none where the source of them is "none".
fn captions(fields: &mut Fields<'_>, container: Option<Container>) -> Option<CaptionsSpec> {
    let mut fields = fields.nested("captions")?;
    let elsewhere = matches!(fields.map.get("source"), Some(Value::Array(_) | Value::Object(_)));
    let source = if elsewhere {
        fields.take("source");
        fields
            .fault("source", "subtitles from elsewhere are not available in this version; there is \"auto\"");
        None
    } else {
        fields.optional("source")
    };
    // Said for readers of presets: it follows from the container.
    let mode: Option<CaptionMode> = fields.optional("mode");
    let follows = container.and_then(Container::captions);
    if let (Some(said), Some(follows)) = (mode, follows)
        && said != follows
    {
        let word = match follows {
            CaptionMode::Hls => "hls",
            CaptionMode::Mux => "mux",
        };
        fields.fault("mode", format!("this container carries subtitles as \"{word}\""));
    }
    let languages = fields.optional("languages");
    let whole = fields.finish();
    let source = source.unwrap_or_default();
    let languages = languages.unwrap_or(captions::all());
    (whole && source == CaptionSource::Auto).then_some(CaptionsSpec { source, languages })
}

fn container(fields: &mut Fields<'_>) -> Option<Container> {
    let Some(name) = fields.map.get("container").and_then(Value::as_str) else {
        return fields.required("container");
    };
    if LATER_CONTAINERS.contains(&name) {
        let names: Vec<_> = Container::ALL.iter().map(|container| container.name()).collect();
        let detail =
            format!("container \"{name}\" is not available in this version; there are {}", names.join(", "));
        fields.fault("container", detail);
        fields.asked.push("container");
        fields.map.remove("container");
        return None;
    }
    fields.required("container")
}

fn video(mut fields: Fields<'_>, in_a_set: bool) -> Option<Picture> {
    if fields.says_copy() {
        return fields.finish().then_some(Picture::Copy(PictureCopy { codec: CopyWord::Copy }));
    }
    let codec: Option<VideoCodec> = fields.required("codec");
    let rate = fields.nested("rate").and_then(rate);
    let spec = VideoSpec {
        speed: fields.optional("speed").unwrap_or_default(),
        bounds: fields.optional("box"),
        width: fields.optional("width"),
        height: fields.optional("height"),
        fit: fields.optional("fit").unwrap_or_default(),
        orient: fields.optional("orient").unwrap_or_default(),
        upscale: fields.optional("upscale").unwrap_or_default(),
        fps: fields.nested("fps").and_then(fps).unwrap_or_default(),
        gop_seconds: fields.optional("gop_seconds").unwrap_or(if in_a_set {
            SET_GOP_SECONDS
        } else {
            default_gop_seconds()
        }),
        bframes: fields.optional("bframes"),
        profile: fields.optional("profile"),
        bit_depth: fields.optional("bit_depth").unwrap_or_default(),
        range: fields.optional("range").unwrap_or_default(),
        deinterlace: fields.optional("deinterlace").unwrap_or_default(),
        level: fields.optional("level"),
        crop: crop(&mut fields),
        rotate: fields.optional("rotate").unwrap_or_default(),
        flip: fields.optional("flip").unwrap_or_default(),
        pad_color: fields.optional("pad_color").unwrap_or_default(),
        // Where the codec is missing the document is refused below, whatever stands here.
        codec: codec.unwrap_or(VideoCodec::H264),
        rate: rate.unwrap_or(default_rate(codec.unwrap_or(VideoCodec::H264))),
    };
    fields.finish().then_some(Picture::Encode(spec))
}

/// A rectangle is read side by side, so that each fault has its own place.
fn crop(fields: &mut Fields<'_>) -> Crop {
    if !matches!(fields.map.get("crop"), Some(Value::Object(_))) {
        return fields.optional("crop").unwrap_or_default();
    }
    let Some(mut sides) = fields.nested("crop") else { return Crop::None };
    let [x, y, width, height] = ["x", "y", "w", "h"].map(|side| sides.required::<u32>(side));
    sides.finish();
    match (x, y, width, height) {
        (Some(x), Some(y), Some(width), Some(height)) => Crop::Area(Area { x, y, width, height }),
        _ => Crop::None,
    }
}

/// Quality used when a request names a codec and nothing else: that of the built-in presets.
pub(super) const fn default_rate(codec: VideoCodec) -> Rate {
    Rate::Crf {
        crf: match codec {
            VideoCodec::H264 => 23.0,
            VideoCodec::Hevc => 26.0,
            VideoCodec::Av1 => 34.0,
            VideoCodec::Vp9 => 32.0,
        },
    }
}

fn rate(mut fields: Fields<'_>) -> Option<Rate> {
    let mode: Option<String> = fields.required("mode");
    let rate = match mode.as_deref() {
        Some("crf") => fields.required("crf").map(|crf| Rate::Crf { crf }),
        Some("capped_crf") => {
            let (crf, max) = (fields.required("crf"), fields.required("max"));
            let buffer = fields.optional("buffer");
            crf.zip(max).map(|(crf, max)| Rate::CappedCrf { crf, max, buffer })
        }
        Some("bitrate") => {
            let (target, max, buffer) =
                (fields.required::<BitRate>("target"), fields.optional("max"), fields.optional("buffer"));
            let passes = fields.optional("passes").unwrap_or_default();
            target.map(|target| Rate::Bitrate { target, max, buffer, passes })
        }
        Some(other) => {
            fields.fault("mode", format!("unknown rate mode {other:?}; there are crf, capped_crf, bitrate"));
            // What else belongs here depends on the mode, so nothing more can be said.
            return None;
        }
        None => return None,
    };
    if fields.finish() { rate } else { None }
}

fn fps(mut fields: Fields<'_>) -> Option<FpsSpec> {
    // Rates are commonly written as numbers; only those with an exact meaning are taken.
    if let Some(Value::Number(number)) = fields.map.get("value") {
        let exact = match number.to_string().as_str() {
            "23.976" | "23.98" => "24000/1001".to_owned(),
            "29.97" => "30000/1001".to_owned(),
            "59.94" => "60000/1001".to_owned(),
            plain => plain.strip_suffix(".0").unwrap_or(plain).to_owned(),
        };
        fields.map.insert("value".to_owned(), exact.into());
    }
    let spec = FpsSpec {
        mode: fields.optional("mode").unwrap_or_default(),
        value: fields.optional::<Rational>("value"),
        max: fields.optional("max"),
    };
    fields.finish().then_some(spec)
}

fn read_stills(mut fields: Fields<'_>) -> Option<StillsSpec> {
    let ways = ["at", "every_seconds", "every_percent", "count"];
    let given: Vec<&str> =
        ways.into_iter().filter(|way| fields.map.get(*way).is_some_and(|value| !value.is_null())).collect();
    match given.as_slice() {
        [] => fields.fault("at", "one of at, every_seconds, every_percent and count is needed"),
        [_] => {}
        [_, second, ..] => fields.fault(second, format!("cannot stand beside {:?}", given[0])),
    }
    let at = fields.optional::<StillMoment>("at").map(StillTimes::from);
    let times = [
        at,
        fields.optional("every_seconds").map(StillTimes::EverySeconds),
        fields.optional("every_percent").map(StillTimes::EveryPercent),
        fields.optional("count").map(StillTimes::Count),
    ];
    let spec = StillsSpec {
        times: times.into_iter().flatten().next().unwrap_or(StillTimes::Best),
        bounds: fields.optional("box"),
        quality: fields.optional("quality").unwrap_or(stills::DEFAULT_QUALITY),
        skip_black: fields.optional("skip_black").unwrap_or(true),
        format: fields.optional("format").unwrap_or_default(),
        sprite: fields.optional("sprite"),
    };
    fields.finish().then_some(spec)
}

fn audio(mut fields: Fields<'_>) -> Option<Sound> {
    if fields.map.get("codec").and_then(Value::as_str) == Some("none") {
        return None;
    }
    if fields.says_copy() {
        let required = fields.optional("required").unwrap_or_default();
        return fields.finish().then_some(Sound::Copy(SoundCopy { codec: CopyWord::Copy, required }));
    }
    let codec = fields.required("codec");
    let spec = AudioSpec {
        codec: codec.unwrap_or(super::AudioCodec::Aac),
        bitrate: fields.optional("bitrate"),
        channels: fields.optional("channels").unwrap_or_default(),
        sample_rate: fields.optional("sample_rate").unwrap_or(default_sample_rate()),
        tracks: fields.optional("tracks").unwrap_or_default(),
        required: fields.optional("required").unwrap_or_default(),
        loudness: fields.optional("loudness"),
    };
    fields.finish().then_some(Sound::Encode(spec))
}

/// One JSON object on its way into a struct: remembers what was asked for and what was wrong.
struct Fields<'f> {
    /// Pointer to the object.
    at: String,
    map: Map<String, Value>,
    asked: Vec<&'static str>,
    faults: &'f mut Vec<Fault>,
    /// Faults of the document before this object was opened.
    before: usize,
}

impl<'f> Fields<'f> {
    fn new(at: String, map: Map<String, Value>, faults: &'f mut Vec<Fault>) -> Self {
        let before = faults.len();
        Self { at, map, asked: Vec::new(), faults, before }
    }

    /// Whether the codec is `copy`, which is then read.
    fn says_copy(&mut self) -> bool {
        let says = self.map.get("codec").and_then(Value::as_str) == Some("copy");
        if says {
            self.take("codec");
        }
        says
    }

    fn fault(&mut self, key: &str, detail: impl Into<String>) {
        self.faults.push(Fault::new(Fault::join(&self.at, key), detail));
    }

    /// The value, if it is there and not null.
    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.map.remove(key).filter(|value| !value.is_null())
    }

    fn optional<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        let value = self.take(key)?;
        match serde_path_to_error::deserialize(value) {
            Ok(read) => Some(read),
            Err(err) => {
                let mut pointer = Fault::join(&self.at, key);
                for segment in err.path() {
                    if let serde_path_to_error::Segment::Map { key } = segment {
                        pointer = Fault::join(&pointer, key);
                    }
                }
                self.faults.push(Fault::new(pointer, in_plain_words(&err.inner().to_string())));
                None
            }
        }
    }

    fn required<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        if self.map.get(key).is_none_or(Value::is_null) {
            self.asked.push(key);
            self.map.remove(key);
            self.fault(key, "is missing");
            return None;
        }
        self.optional(key)
    }

    fn nested(&mut self, key: &'static str) -> Option<Fields<'_>> {
        let Value::Object(map) = self.take(key)? else {
            self.fault(key, "is not an object");
            return None;
        };
        Some(Fields::new(Fault::join(&self.at, key), map, self.faults))
    }

    /// Reports what nobody asked for; whether the object and everything below it was free of faults.
    fn finish(mut self) -> bool {
        for key in std::mem::take(&mut self.map).keys() {
            let detail = if LATER_FIELDS.contains(&key.as_str()) {
                "is not available in this version".to_owned()
            } else {
                match self.asked.iter().find(|known| strsim::damerau_levenshtein(known, key) <= 2) {
                    Some(near) => format!("unknown field; did you mean \"{near}\"?"),
                    None => format!("unknown field; there are {}", self.asked.join(", ")),
                }
            };
            self.fault(key, detail);
        }
        self.faults.len() == self.before
    }
}

/// serde speaks of Rust types; clients should not have to know them.
fn in_plain_words(message: &str) -> String {
    let mut words = message.to_owned();
    for (rust, plain) in [
        ("expected f32", "expected a number"),
        ("expected u32", "expected a whole number from 0"),
        ("expected u8", "expected a whole number from 0 to 255"),
        ("expected a boolean", "expected true or false"),
    ] {
        words = words.replace(rust, plain);
    }
    words
}

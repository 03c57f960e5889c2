//! What a set may be: rungs against each other, segments against codecs, names against names.

use std::collections::BTreeSet;

use super::super::{AudioCodec, Container, EncodeSpec, Fit, PackageSpec, Profile, Rung, Segment, VideoCodec};
use super::VideoSpec;
use crate::domain::Fault;

/// Most pictures of one ladder: what one decode feeds in one process (MEDIA-RULES §5).
const MAX_RUNGS: usize = 12;
/// Segment lengths, seconds.
const SEGMENT_SECONDS: std::ops::RangeInclusive<u32> = 1..=30;

pub(in crate::domain::preset) fn check(spec: &EncodeSpec, faults: &mut Vec<Fault>) {
    if !spec.container.is_presentation() {
        for (given, pointer) in [(!spec.ladder.is_empty(), "/ladder"), (spec.package.is_some(), "/package")] {
            if given {
                faults.push(Fault::new(pointer, "only hls, dash and cmaf are sets"));
            }
        }
        return;
    }
    if let Some(video) = spec.encoded_picture() {
        ladder(spec, video, faults);
    } else if !spec.ladder.is_empty() {
        faults.push(Fault::new("/ladder", "a ladder needs video"));
    }
    if let Some(package) = &spec.package {
        self::package(spec, package, faults);
    }
}

fn ladder(spec: &EncodeSpec, video: &VideoSpec, faults: &mut Vec<Fault>) {
    let mut fault = |at: &str, detail: String| faults.push(Fault::new(format!("/ladder{at}"), detail));
    if spec.ladder.len() > MAX_RUNGS {
        fault("", format!("a ladder has at most {MAX_RUNGS} rungs"));
    }
    let mut names = BTreeSet::new();
    for (n, rung) in spec.ladder.iter().enumerate() {
        if !names.insert(&rung.name) {
            fault(&format!("/{n}/name"), format!("two rungs are named {}", rung.name));
        }
        let picture = rung.over(video);
        let mut at = |pointer: &str, detail: String| fault(&format!("/{n}{pointer}"), detail);
        super::rate(&picture, &mut at);
        super::size(&picture, &mut at);
        if let Some(codec) = rung.codec.filter(|codec| !super::pictures(spec.container).contains(codec)) {
            at("/codec", format!("{} does not hold {}", spec.container.name(), codec.codec_name()));
        }
        let own_depth = rung.codec.is_some() || rung.bit_depth.is_some() || rung.range.is_some();
        if own_depth || rung.profile.is_some() {
            super::depth(&picture, &mut at);
        }
        match (rung.level, video.level) {
            (Some(level), _) => super::picture::level(&picture, level, "/level", &mut at),
            (None, Some(level)) => super::picture::level(&picture, level, "/rate", &mut at),
            (None, None) => {}
        }
        if rung.fps_max.is_some_and(|max| !(1..=super::MAX_FPS).contains(&max)) {
            at("/fps_max", format!("fps_max is 1 to {}", super::MAX_FPS));
        }
    }
    if !spec.ladder.is_empty() {
        for (given, field) in [(video.width.is_some(), "width"), (video.height.is_some(), "height")] {
            if given {
                fault("", format!("the rungs' boxes and video.{field} exclude each other"));
            }
        }
        if video.fit != Fit::Contain {
            fault("", "the pictures of a ladder have one shape: fit is \"contain\"".to_owned());
        }
    }
    // Pictures with and without B-frames do not begin at the same time (MEDIA-RULES §1.6).
    let plain = |profile: Option<Profile>| profile.or(video.profile) == Some(Profile::Baseline);
    let same = |rung: &&Rung| rung.codec.is_none_or(|codec| codec == video.codec);
    if let Some(first) = spec.ladder.iter().find(same) {
        for (n, rung) in spec.ladder.iter().enumerate().filter(|(_, rung)| same(rung)) {
            if plain(rung.profile) != plain(first.profile) && video.bframes != Some(0) {
                let detail = "baseline beside other profiles makes players jump; set bframes = 0 for all";
                fault(&format!("/{n}/profile"), detail.to_owned());
            }
        }
    }
}

fn package(spec: &EncodeSpec, package: &PackageSpec, faults: &mut Vec<Fault>) {
    let mut fault = |at: &str, detail: String| faults.push(Fault::new(format!("/package{at}"), detail));
    let seconds = f64::from(package.segment_seconds);
    if !SEGMENT_SECONDS.contains(&package.segment_seconds) {
        let (least, most) = (SEGMENT_SECONDS.start(), SEGMENT_SECONDS.end());
        fault("/segment_seconds", format!("segment_seconds is {least} to {most}"));
    } else if spec.encoded_picture().is_some_and(|video| f64::from(video.gop_seconds) > seconds) {
        fault("/segment_seconds", "a segment holds at least one GOP (video.gop_seconds)".to_owned());
    }
    let allowed = PackageSpec::manifests_of(spec.container);
    if package.manifests.is_empty() {
        fault("/manifests", "there is at least one manifest".to_owned());
    }
    for (n, manifest) in package.manifests.iter().enumerate() {
        let at = format!("/manifests/{n}");
        if !allowed.contains(manifest) {
            fault(&at, format!("{} has no such manifest; use cmaf for both", spec.container.name()));
        } else if package.manifests[..n].contains(manifest) {
            fault(&at, "is there twice".to_owned());
        }
    }
    if package.segment == Segment::Ts {
        transport(spec, package, &mut fault);
    }
    names(spec, package, &mut fault);
}

fn transport(spec: &EncodeSpec, package: &PackageSpec, fault: &mut impl FnMut(&str, String)) {
    if spec.container != Container::Hls {
        fault("/segment", "ts segments are for hls only".to_owned());
    }
    if package.single_file {
        fault("/single_file", "single_file needs fmp4 segments".to_owned());
    }
    if spec.video.is_none() {
        fault("/segment", "sound alone needs fmp4 segments".to_owned());
    }
    // Without edit lists, pictures of another rate begin a frame apart from the rest.
    if spec.ladder.iter().any(|rung| rung.fps_max.is_some()) {
        fault(
            "/segment",
            "the pictures of ts segments have one rate; set video.fps.max instead of fps_max".to_owned(),
        );
    }
    // Apple's rules: HEVC and AV1 only in fMP4 (FIELD §3.1, 1.5).
    if spec.pictures().iter().any(|video| video.codec != VideoCodec::H264) {
        fault("/segment", "ts segments hold h264 only".to_owned());
    }
    let sound = spec.encoded_sound();
    if sound.is_some_and(|sound| sound.codec != AudioCodec::Aac) {
        fault("/segment", "ts segments hold aac only".to_owned());
    }
    if sound.is_some_and(|sound| sound.tracks != super::Tracks::First) {
        fault("/segment", "ts segments hold one sound track".to_owned());
    }
}

fn names(spec: &EncodeSpec, package: &PackageSpec, fault: &mut impl FnMut(&str, String)) {
    let names = &package.names;
    let many = spec.ladder.len() > 1 || (spec.audio.is_some() && package.segment == Segment::Fmp4);
    if many {
        for (name, field) in [(&names.playlist, "playlist"), (&names.segment, "segment")] {
            if name.as_ref().is_some_and(|name| !name.tells_renditions_apart()) {
                fault(&format!("/names/{field}"), "several renditions need %v in the name".to_owned());
            }
        }
    }
    if !package.single_file && names.segment.as_ref().is_some_and(|name| !name.tells_segments_apart()) {
        fault("/names/segment", "segments need %d or %03d in the name".to_owned());
    }
    for (name, field) in [(&names.master, "master"), (&names.manifest, "manifest")] {
        if name.as_ref().is_some_and(|name| name.as_str().contains('%')) {
            fault(&format!("/names/{field}"), "there is one; its name has no placeholder".to_owned());
        }
    }
    let lists = [
        (&names.master, "m3u8", "master"),
        (&names.playlist, "m3u8", "playlist"),
        (&names.manifest, "mpd", "manifest"),
    ];
    for (name, extension, field) in lists {
        if name.as_ref().is_some_and(|name| !name.as_str().ends_with(&format!(".{extension}"))) {
            fault(&format!("/names/{field}"), format!("the name ends with .{extension}"));
        }
    }
    let given: Vec<_> =
        [&names.master, &names.playlist, &names.segment, &names.manifest].into_iter().flatten().collect();
    if given.iter().collect::<BTreeSet<_>>().len() < given.len() {
        fault("/names", "two kinds of files have the same name".to_owned());
    }
}

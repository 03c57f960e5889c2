//! Encoder options: rate, effort, keyframes, threads. Values: MEDIA-RULES §1.8 and §1.17, FIELD §3.3, ENCODING §3.
//!
//! Plain files: `keyint` is the longest distance, scene cuts may put keyframes earlier, GOPs are closed.

use std::num::NonZeroU16;

use super::{Argv, Pass};
use crate::domain::preset::{BitRate, Rate, Speed, VideoCodec};
use crate::domain::{Mastering, MasteringDisplay};
use crate::media::plan::{Keyframes, VideoPlan};

/// x265's largest coding unit needs a picture of at least that size.
const CTU: [u32; 3] = [64, 32, 16];

pub(super) fn video(argv: &mut Argv, video: &VideoPlan, threads: Option<NonZeroU16>, pass: Option<&Pass>) {
    argv.pair("-c:v", video.codec.encoder());
    match video.codec {
        VideoCodec::H264 => x264(argv, video, pass),
        VideoCodec::Hevc => x265(argv, video, threads, pass),
        VideoCodec::Av1 => svt(argv, video, threads),
        VideoCodec::Vp9 => vpx(argv, video, threads, pass),
    }
    if let Some(threads) = threads {
        argv.pair("-threads:v", threads);
    }
}

fn x264(argv: &mut Argv, video: &VideoPlan, pass: Option<&Pass>) {
    argv.pair("-preset:v", x26x_preset(video.speed));
    capped_rate(argv, video.rate);
    if let Some(profile) = video.profile {
        argv.pair("-profile:v", profile);
    }
    if let Some(level) = video.level {
        argv.pair("-level:v", level);
    }
    if let Some(bframes) = video.bframes {
        argv.pair("-bf:v", bframes);
    }
    // Caption bytes of the source would be garbled by any change of rate (MEDIA-RULES §1.13).
    argv.pair("-a53cc:v", 0);
    let mut list = groups(video);
    if let Some(pass) = pass {
        // The number as an option, for the faster first pass; the file here, because ffmpeg's own name for it has the number
        // of the stream in it, which differs between the passes.
        argv.pair("-pass:v", pass.number);
        list.push(("stats", pass.log.clone()));
    }
    argv.pair("-x264-params", params(&list, video));
}

/// Closed GOPs of x264 and x265; in a set all of one length (MEDIA-RULES §1.8).
fn groups(video: &VideoPlan) -> Vec<(&'static str, String)> {
    let mut list = vec![("keyint", video.keyframes.longest().to_string())];
    if let Keyframes::Every(frames) = video.keyframes {
        list.extend([("min-keyint", frames.to_string()), ("scenecut", "0".to_owned())]);
    }
    list.push(("open-gop", "0".to_owned()));
    list
}

fn x265(argv: &mut Argv, video: &VideoPlan, threads: Option<NonZeroU16>, pass: Option<&Pass>) {
    argv.pair("-preset:v", x26x_preset(video.speed));
    capped_rate(argv, video.rate);
    if let Some(profile) = video.profile {
        argv.pair("-profile:v", profile);
    }
    let mut list = groups(video);
    if let Some(level) = video.level {
        list.push(("level-idc", level.to_string()));
    }
    if let Some(bframes) = video.bframes {
        list.push(("bframes", bframes.to_string()));
    }
    let side = video.width.min(video.height);
    if let Some(ctu) = CTU.into_iter().find(|ctu| *ctu <= side).filter(|ctu| *ctu < CTU[0]) {
        list.push(("ctu", ctu.to_string()));
    }
    match threads.map(NonZeroU16::get) {
        Some(1) => list.extend([("pools", "none".to_owned()), ("frame-threads", "1".to_owned())]),
        Some(n) => list.push(("pools", n.to_string())),
        None => {}
    }
    list.extend(mastering(video));
    if let Some(pass) = pass {
        list.extend([("pass", pass.number.to_string()), ("stats", pass.log.clone())]);
    }
    // x265 writes to standard error past ffmpeg's log level.
    list.push(("log-level", "warning".to_owned()));
    argv.pair("-x265-params", params(&list, video));
}

/// Both libraries take the rate as a hint for levels and buffers; timestamps decide everything else. Without it a
/// variable-rate source passes on its container's ticks as a rate.
fn params(list: &[(&str, String)], video: &VideoPlan) -> String {
    let mut parts: Vec<String> = list.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if let Some(rate) = video.frame_rate {
        parts.push(format!("fps={rate}"));
    }
    parts.join(":")
}

/// ffmpeg 5.1 does not hand the source's static metadata on (MEDIA-RULES §1.15).
fn mastering(video: &VideoPlan) -> Vec<(&'static str, String)> {
    let Some(Mastering { display, light }) = video.mastering else { return Vec::new() };
    let mut list = vec![("hdr10", "1".to_owned())];
    list.extend(display.map(|display| {
        let MasteringDisplay { red, green, blue, white, brightest, darkest } = display;
        let point = |(x, y): (u16, u16)| format!("({x},{y})");
        let text = format!(
            "G{}B{}R{}WP{}L({brightest},{darkest})",
            point(green),
            point(blue),
            point(red),
            point(white)
        );
        ("master-display", text)
    }));
    list.extend(light.map(|light| ("max-cll", format!("{},{}", light.brightest, light.average))));
    list
}

/// The same as SVT-AV1 takes it: in whole units instead of parts.
fn mastering_in_units(video: &VideoPlan) -> Vec<String> {
    let Some(Mastering { display, light }) = video.mastering else { return Vec::new() };
    let mut list = Vec::new();
    list.extend(display.map(|display| {
        let MasteringDisplay { red, green, blue, white, brightest, darkest } = display;
        let part = |number: u16| f64::from(number) / 50_000.0;
        let point = |(x, y): (u16, u16)| format!("({:.5},{:.5})", part(x), part(y));
        let nit = |parts: u32| f64::from(parts) / 10_000.0;
        let (green, blue, red, white) = (point(green), point(blue), point(red), point(white));
        let (most, least) = (nit(brightest), nit(darkest));
        format!("mastering-display=G{green}B{blue}R{red}WP{white}L({most:.4},{least:.4})")
    }));
    list.extend(light.map(|light| format!("content-light={},{}", light.brightest, light.average)));
    list
}

fn svt(argv: &mut Argv, video: &VideoPlan, threads: Option<NonZeroU16>) {
    let preset = match video.speed {
        Speed::Ultrafast => 11,
        Speed::Veryfast => 10,
        Speed::Fast => 9,
        Speed::Medium => 8,
        Speed::Slow => 6,
        Speed::Slower => 4,
    };
    argv.pair("-preset:v", preset);
    match video.rate {
        // SVT-AV1 takes a ceiling with constant quality only.
        Rate::Bitrate { target, .. } => argv.pair("-b:v", target),
        Rate::Crf { .. } | Rate::CappedCrf { .. } => capped_rate(argv, video.rate),
    }
    argv.pair("-g:v", video.keyframes.longest());
    let mut list = vec!["tune=0".to_owned(), "irefresh-type=2".to_owned(), "scd=0".to_owned()];
    list.extend(mastering_in_units(video));
    if let Some(threads) = threads {
        list.push(format!("lp={threads}"));
    }
    argv.pair("-svtav1-params", list.join(":"));
}

fn vpx(argv: &mut Argv, video: &VideoPlan, threads: Option<NonZeroU16>, pass: Option<&Pass>) {
    let cpu_used = match video.speed {
        Speed::Ultrafast => 8,
        Speed::Veryfast => 6,
        Speed::Fast => 5,
        Speed::Medium => 4,
        Speed::Slow => 2,
        Speed::Slower => 1,
    };
    argv.pair("-deadline", "good");
    argv.pair("-cpu-used", cpu_used);
    match video.rate {
        Rate::Crf { crf } => {
            argv.pair("-crf:v", crf);
            argv.pair("-b:v", 0);
        }
        // Constrained quality: with a quality, libvpx reads the bit rate as the ceiling.
        Rate::CappedCrf { crf, max, .. } => {
            argv.pair("-crf:v", crf);
            argv.pair("-b:v", max);
        }
        Rate::Bitrate { .. } => capped_rate(argv, video.rate),
    }
    argv.pair("-g:v", video.keyframes.longest());
    if let Keyframes::Every(frames) = video.keyframes {
        argv.pair("-keyint_min:v", frames);
    }
    // Tiles are at least 256 pixels wide; more of them only cost bits.
    let tile_columns = match video.width {
        0..=639 => 0,
        640..=1919 => 1,
        1920.. => 2,
    };
    let single = threads.is_some_and(|n| n.get() == 1);
    argv.pair("-row-mt", u8::from(!single));
    argv.pair("-tile-columns", tile_columns);
    argv.pair("-auto-alt-ref", 1);
    argv.pair("-lag-in-frames", 25);
    if let Some(pass) = pass {
        argv.pair("-pass:v", pass.number);
        argv.pair("-passlogfile:v", &pass.log);
    }
}

/// `-crf`, `-b:v` and the ceiling, with the documented defaults (1.5 × target, 2 × ceiling).
fn capped_rate(argv: &mut Argv, rate: Rate) {
    let mut ceiling = |max: BitRate, buffer: Option<BitRate>| {
        argv.pair("-maxrate:v", max);
        argv.pair("-bufsize:v", buffer.unwrap_or(max.percent(200)));
    };
    match rate {
        Rate::Crf { crf } => argv.pair("-crf:v", crf),
        Rate::CappedCrf { crf, max, buffer } => {
            ceiling(max, buffer);
            argv.pair("-crf:v", crf);
        }
        Rate::Bitrate { target, max, buffer, .. } => {
            ceiling(max.unwrap_or(target.percent(150)), buffer);
            argv.pair("-b:v", target);
        }
    }
}

const fn x26x_preset(speed: Speed) -> &'static str {
    match speed {
        Speed::Ultrafast => "ultrafast",
        Speed::Veryfast => "veryfast",
        Speed::Fast => "fast",
        Speed::Medium => "medium",
        Speed::Slow => "slow",
        Speed::Slower => "slower",
    }
}

//! What the built-in presets do to awkward pictures: turned, stretched, odd, tiny, wide-gamut, full-range, HDR.
//! Size, tags and faststart are looked at from outside, and pixels are compared with what the tags claim.

use std::path::{Path, PathBuf};

use super::kit::{self, Bench};
use crate::support::server::job_for;

/// A colour that every wrong matrix, range or primaries moves by far more than [`CLOSE`].
const CLAY: [u8; 3] = [192, 128, 64];
/// The same light in BT.709 when those numbers mean P3 primaries.
const CLAY_OF_P3: [u8; 3] = [203, 125, 48];
const RED: [u8; 3] = [255, 0, 0];
/// Steps of 255 that 8-bit chroma, the encoder and the curve's approximation may cost.
const CLOSE: u8 = 6;

/// A plain field of [`CLAY`] of that size, stored as told: the first words convert, the others tag.
fn field(bench: &Bench, name: &str, size: &str, stored: &str, tags: &str) -> PathBuf {
    bench.make(
        name,
        &format!(
            "-f lavfi -i color=c=0xc08040:s={size}:r=25:d=1,format=rgb24,{stored} -c:v libx264 -preset ultrafast -qp 4 {tags}"
        ),
    )
}

/// Red in the upper left quarter, black elsewhere: shows how it is turned.
fn corner(bench: &Bench, name: &str, more: &str) -> PathBuf {
    let picture = "color=c=black:s=320x180:r=25:d=1,format=rgb24,drawbox=w=160:h=90:c=red:t=fill,scale=out_color_matrix=bt601:out_range=tv,format=yuv420p";
    bench.make(name, &format!("-f lavfi -i {picture} -c:v libx264 -preset ultrafast {more}"))
}

/// Writes a quarter turn clockwise into the first track header, as phones do.
fn turn(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let header = bytes.windows(4).position(|name| name == b"tkhd").unwrap();
    // ISO 14496-12 §8.3.2, version 0: the matrix follows 40 bytes behind version and flags.
    let matrix: [i32; 9] = [0, 0x1_0000, 0, -0x1_0000, 0, 0, 0, 0, 0x4000_0000];
    let matrix: Vec<u8> = matrix.iter().flat_map(|part| part.to_be_bytes()).collect();
    bytes[header + 44..header + 44 + 36].copy_from_slice(&matrix);
    std::fs::write(path, bytes).unwrap();
}

/// A clip, and how its output must look.
struct Case {
    clip: PathBuf,
    size: (u64, u64),
    color: &'static str,
    warnings: &'static [&'static str],
    /// A place, and its colour there.
    pixel: (u64, u64, [u8; 3]),
}

const HD: &str = "bt709/bt709/bt709";
const SD525: &str = "smpte170m/smpte170m/smpte170m";
const SD625: &str = "bt470bg/smpte170m/bt470bg";

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases(bench: &Bench) -> Vec<Case> {
    let turned = corner(bench, "turned.mp4", "");
    turn(&turned);
    let tagged = "-color_primaries bt709 -color_trc bt709 -colorspace bt709 -color_range tv";
    let case = |clip, size, color, warnings, pixel| Case { clip, size, color, warnings, pixel };
    let small: &[&str] = &["not_upscaled"];
    vec![
        // Turned by its track header: the red quarter goes to the upper right, the tag goes away.
        case(turned, (180, 320), SD625, small, (135, 80, RED)),
        case(corner(bench, "upright.mp4", ""), (320, 180), SD625, small, (80, 45, RED)),
        // Samples of 4:3 stand for a picture of 426.7x180; 427 is made even.
        case(corner(bench, "wide.mp4", "-aspect 64:27"), (428, 180), SD625, small, (106, 45, RED)),
        // A portrait picture turns the box: 360x640 holds 540x960.
        case(
            field(
                bench,
                "portrait.mp4",
                "540x960",
                "scale=out_color_matrix=bt601:out_range=tv,format=yuv420p",
                "",
            ),
            (360, 640),
            SD625,
            &[],
            (100, 100, CLAY),
        ),
        // Odd sides are filled up, not cut.
        case(
            field(
                bench,
                "odd.mp4",
                "321x181",
                "scale=out_color_matrix=bt601:out_range=tv,format=yuv444p",
                "",
            ),
            (322, 182),
            SD625,
            small,
            (100, 100, CLAY),
        ),
        case(
            field(
                bench,
                "tagged.mp4",
                "1280x720",
                "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p",
                tagged,
            ),
            (640, 360),
            HD,
            &[],
            (100, 100, CLAY),
        ),
        // Untagged: high definition is 709, anything smaller 601 with the lines of its rate.
        case(
            field(
                bench,
                "large.mp4",
                "1280x720",
                "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p",
                "",
            ),
            (640, 360),
            HD,
            &[],
            (100, 100, CLAY),
        ),
        case(
            field(
                bench,
                "film.mp4",
                "720x480",
                "fps=24,scale=out_color_matrix=bt601:out_range=tv,format=yuv420p",
                "",
            ),
            (540, 360),
            SD525,
            &[],
            (100, 100, CLAY),
        ),
        // Full range becomes limited.
        case(
            field(
                bench,
                "full.mp4",
                "640x360",
                "scale=out_color_matrix=bt709:out_range=pc,format=yuvj420p",
                "-color_primaries bt709 -color_trc bt709 -colorspace bt709 -color_range pc",
            ),
            (640, 360),
            HD,
            &[],
            (100, 100, CLAY),
        ),
        // As phones film: a display's primaries, 601's matrix, full range. All of it is converted.
        case(
            field(
                bench,
                "phone.mov",
                "640x360",
                "scale=out_color_matrix=bt601:out_range=pc,format=yuvj420p",
                "-color_primaries smpte432 -color_trc bt709 -colorspace smpte170m -color_range pc",
            ),
            (640, 360),
            HD,
            &[],
            (100, 100, CLAY_OF_P3),
        ),
    ]
}

fn distance(a: [u8; 3], b: [u8; 3]) -> u8 {
    a.iter().zip(b).map(|(a, b)| a.abs_diff(b)).max().unwrap_or(0)
}

#[tokio::test]
async fn pictures_arrive_upright_square_and_in_the_colours_their_tags_claim() {
    let bench = Bench::start().await;
    let server = &bench.server;
    let mut submitted = Vec::new();
    for case in cases(&bench) {
        let id = server.submit(&job_for(&case.clip)).await;
        submitted.push((case, id));
    }
    for (case, id) in submitted {
        let name = case.clip.file_name().unwrap().display();
        let job = server.finished(&id).await;
        assert_eq!(job["status"], "completed", "{name}: {job:#}");
        let output = kit::output_of(server, &job);
        let seen = kit::look(&output);
        assert_eq!((seen.size, seen.color.as_str()), (case.size, case.color), "{name}");
        assert_eq!(kit::warnings(&job), case.warnings, "{name}");
        let (x, y, wanted) = case.pixel;
        let found = kit::first_frame(&output, seen.size)(x, y);
        assert!(distance(found, wanted) <= CLOSE, "{name}: {found:?} instead of {wanted:?}");
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn hdr_becomes_a_standard_picture_with_neutral_greys() {
    let bench = Bench::start().await;
    let server = &bench.server;
    // Eleven steps of grey from black to the peak, in HLG code values.
    let ramp = "nullsrc=s=352x64:r=25:d=0.2,format=yuv420p10le,geq=lum='64+876*floor(X/32)/10':cb=512:cr=512";
    let tags = "-color_primaries bt2020 -color_trc arib-std-b67 -colorspace bt2020nc -color_range tv";
    let clip = bench.make(
        "hlg.mp4",
        &format!(
            "-f lavfi -i {ramp} -c:v libx265 -preset ultrafast -x265-params log-level=none -crf 8 {tags}"
        ),
    );
    let id = server.submit(&job_for(&clip)).await;
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    assert_eq!(kit::warnings(&job), ["not_upscaled", "tone_mapped"]);
    let output = kit::output_of(server, &job);
    let seen = kit::look(&output);
    assert_eq!((seen.size, seen.color.as_str()), ((352, 64), HD));
    let pixel = kit::first_frame(&output, seen.size);
    let steps: Vec<[u8; 3]> = (0..11).map(|step| pixel(step * 32 + 16, 32)).collect();
    for [red, green, blue] in &steps {
        assert!(red.abs_diff(*green).max(green.abs_diff(*blue)) <= CLOSE, "not neutral: {steps:?}");
    }
    assert!(steps.is_sorted_by(|a, b| a[1] < b[1]), "not monotone: {steps:?}");
    // Reference white (BT.2408: 75 % of HLG) stays bright without clipping: MEDIA-RULES §1.15.
    let white = f64::from(steps[7][1]).midpoint(f64::from(steps[8][1])) / 255.0;
    assert!((0.70..=0.85).contains(&white), "reference white at {white:.2}: {steps:?}");
}

#[tokio::test]
async fn only_the_language_of_the_source_survives() {
    let bench = Bench::start().await;
    let server = &bench.server;
    let clip = bench.make(
        "tagged.mov",
        "-f lavfi -i testsrc2=s=160x90:r=25:d=1 -f lavfi -i aevalsrc=0.1*sin(440*2*PI*t):d=1:c=5.1 -pix_fmt yuv420p \
         -preset ultrafast -c:a aac -movflags use_metadata_tags -metadata location=+27.1281+100.2508/ \
         -metadata com.apple.quicktime.location.ISO6709=+27.1281+100.2508/ -metadata make=Apple -metadata title=Home \
         -metadata:s:v:0 handler_name=Anna -metadata:s:a:0 language=fra -metadata:s:a:0 title=Anna",
    );
    let job = server.encode(&clip).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    // `look` refuses every other tag.
    let seen = kit::look(&kit::output_of(server, &job));
    assert_eq!((seen.language.as_deref(), seen.channels), (Some("fra"), Some(2)));
    let bytes = std::fs::read(kit::output_of(server, &job)).unwrap();
    for secret in ["27.1281", "Apple", "Anna", "Home"] {
        assert!(
            !bytes.windows(secret.len()).any(|part| part == secret.as_bytes()),
            "{secret} is in the output"
        );
    }
}

#[tokio::test]
async fn late_sound_is_led_in_by_silence() {
    let bench = Bench::start().await;
    let clip = bench.make(
        "late.mkv",
        "-f lavfi -i testsrc2=s=160x90:r=50:d=2 -itsoffset 0.4 -f lavfi -i sine=d=1.6 -pix_fmt yuv420p -preset ultrafast -c:a aac",
    );
    let job = bench.server.encode(&clip).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    let output = kit::output_of(&bench.server, &job);
    assert_eq!((kit::look(&output).frames, kit::silence(&output)), (100, Some(0.4)));
}

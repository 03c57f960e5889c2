//! Decoding the output again, as much of it as the level asks (MEDIA-RULES §1.4).
//!
//! Measured there: a full decode costs 8 % of an x264 medium encode and 21 % of a veryfast one; all key frames, the
//! first, the last and some random groups cost about 2 %.

use super::output::{Spans, seconds};
use super::packets::PacketTable;
use super::{Checker, failed};
use crate::domain::Failure;
use crate::domain::preset::VideoCodec;

/// Outputs up to this are decoded whole.
const WHOLE_SECONDS: f64 = 20.0;
/// Least that is decoded of longer ones, seconds and as a part.
const LEAST_SECONDS: f64 = 10.0;
const LEAST_PART: f64 = 0.05;
/// Most groups in one command.
const MOST_GROUPS: usize = 24;

/// What a decode gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Picture frames, all inputs together.
    pub(super) frames: u64,
}

impl Decoded {
    /// Reads the account at the end of the log: `Input stream #0:0 (video): 132 packets read (…); 132 frames decoded;`.
    pub(super) fn read(log: &[String]) -> Self {
        let frames = log
            .iter()
            .filter(|line| line.contains("Input stream #") && line.contains("(video)"))
            .filter_map(|line| {
                let head = line.split(" frames decoded").next()?;
                head.rsplit(' ').next()?.parse::<u64>().ok()
            });
        Self { frames: frames.sum() }
    }
}

/// Every frame of every stream.
pub(super) async fn full(checker: &Checker<'_>, spans: &Spans) -> Result<(), Failure> {
    let Some(tracks) = encoded(checker) else { return Ok(()) };
    let mut args = strict(checker);
    args.extend(["-map", tracks, "-sn", "-f", "null", "-"].map(str::to_owned));
    let decoded = checker.decode(args).await?;
    let encoded = checker.plan.video.is_some();
    let wanted = spans.video.filter(|_| encoded).map_or(0, |video| video.packets);
    if decoded.frames == wanted {
        return Ok(());
    }
    Err(failed(format_args!("{} of {wanted} frames can be decoded", decoded.frames)))
}

/// The tracks that flux encoded: what a copied one holds is the source's.
fn encoded(checker: &Checker<'_>) -> Option<&'static str> {
    match (checker.plan.copied.is_empty(), &checker.plan.video, &checker.plan.audio[..]) {
        (true, _, _) => Some("0"),
        (false, Some(_), _) => Some("0:v"),
        (false, None, [_, ..]) => Some("0:a"),
        (false, None, []) => None,
    }
}

/// All key frames, the first and the last group, and random ones.
pub(super) async fn sampled(
    checker: &Checker<'_>,
    table: &PacketTable,
    spans: &Spans,
    seed: u64,
) -> Result<(), Failure> {
    let long = checker.plan.video.is_some() && spans.seconds() > WHOLE_SECONDS;
    let Some(video) = spans.video.filter(|_| long) else {
        return full(checker, spans).await;
    };
    let keys = table.stream(0)?.key_times();
    let starts: Vec<f64> = keys.iter().map(|key| seconds(*key, video.base)).collect();
    let groups = choose(&starts, video.end, seed);
    // Side by side: the encoder has left its cores, and starting a tool takes longer than decoding key frames.
    tokio::try_join!(key_frames(checker, keys.len()), some_groups(checker, &groups))?;
    Ok(())
}

/// Every key frame by itself.
async fn key_frames(checker: &Checker<'_>, keys: usize) -> Result<(), Failure> {
    // dav1d does not skip by frame type (MEDIA-RULES §1.17): there it would be a full decode.
    if checker.plan.video.as_ref().is_none_or(|plan| plan.codec == VideoCodec::Av1) {
        return Ok(());
    }
    let mut args = vec!["-skip_frame".to_owned(), "nokey".to_owned()];
    args.extend(strict(checker));
    args.extend(["-map", "0:v", "-fps_mode", "passthrough", "-f", "null", "-"].map(str::to_owned));
    let decoded = checker.decode(args).await?;
    if decoded.frames < keys as u64 {
        return Err(failed(format_args!("{} of {keys} key frames can be decoded", decoded.frames)));
    }
    Ok(())
}

/// Every frame of these groups, in one command.
async fn some_groups(checker: &Checker<'_>, groups: &[(f64, f64)]) -> Result<(), Failure> {
    let mut args = Vec::new();
    for (start, end) in groups {
        // From a little behind the key, without exact seeking: the demuxer then lands on this key, not the one before.
        let (at, length) = (format!("{:.6}", start + 0.001), format!("{:.6}", (end - start).max(0.001)));
        args.extend(["-noaccurate_seek".to_owned(), "-ss".to_owned(), at, "-t".to_owned(), length]);
        args.extend(strict(checker));
    }
    let which = if checker.plan.copied.is_empty() { "" } else { ":v" };
    for n in 0..groups.len() {
        args.extend(["-map".to_owned(), format!("{n}{which}")]);
    }
    args.extend(["-sn", "-fps_mode", "passthrough", "-f", "null", "-"].map(str::to_owned));
    let decoded = checker.decode(args).await?;
    if decoded.frames < groups.len() as u64 {
        return Err(failed("parts of it decode to nothing"));
    }
    Ok(())
}

/// Input options of a decode that forgives nothing.
fn strict(checker: &Checker<'_>) -> Vec<String> {
    let mut args = vec!["-err_detect".to_owned(), "explode".to_owned()];
    args.extend(checker.input_options());
    args
}

/// The first and the last group, and random ones until enough is covered: (start, end) in seconds, in order.
fn choose(starts: &[f64], end: f64, seed: u64) -> Vec<(f64, f64)> {
    let groups: Vec<(f64, f64)> = starts
        .iter()
        .enumerate()
        .map(|(n, start)| (*start, starts.get(n + 1).copied().unwrap_or(end)))
        .collect();
    let total: f64 = groups.iter().map(|(start, end)| end - start).sum();
    let least = LEAST_SECONDS.max(total * LEAST_PART);
    let (mut chosen, mut covered, mut state) = (vec![0, groups.len().saturating_sub(1)], 0.0, seed);
    chosen.dedup();
    loop {
        covered = chosen
            .iter()
            .filter_map(|n| groups.get(*n))
            .map(|(start, end)| end - start)
            .sum::<f64>()
            .max(covered);
        if covered >= least || chosen.len() >= MOST_GROUPS.min(groups.len()) {
            break;
        }
        let free: Vec<usize> = (0..groups.len()).filter(|n| !chosen.contains(n)).collect();
        let Some(pick) =
            usize::try_from(next_random(&mut state)).ok().and_then(|n| free.get(n % free.len().max(1)))
        else {
            break;
        };
        chosen.push(*pick);
    }
    chosen.sort_unstable();
    chosen.into_iter().filter_map(|n| groups.get(n).copied()).collect()
}

/// `SplitMix64` (Steele, Lea, Flood 2014): small, seeded, good enough to choose groups.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_random_groups_are_chosen() {
        let starts: Vec<f64> = (0..120).map(|n| f64::from(n) * 5.0).collect();
        let groups = choose(&starts, 600.0, 7);
        assert_eq!((groups.first(), groups.last()), (Some(&(0.0, 5.0)), Some(&(595.0, 600.0))));
        let covered: f64 = groups.iter().map(|(a, b)| b - a).sum();
        assert!((30.0..=40.0).contains(&covered), "{covered}");
        assert_eq!(groups, choose(&starts, 600.0, 7));
        assert_ne!(groups, choose(&starts, 600.0, 8));
        assert_eq!(choose(&[0.0], 60.0, 1), [(0.0, 60.0)]);
        assert_eq!(choose(&[], 60.0, 1), []);
    }

    #[test]
    fn the_account_is_read() {
        let log = [
            "[verbose]   Input stream #0:0 (video): 132 packets read (795933 bytes); 132 frames decoded; ",
            "[verbose]   Input stream #0:1 (audio): 249 packets read (2 bytes); 249 frames decoded (9 samples); ",
            "[verbose]   Input stream #1:0 (video): 10 packets read (9 bytes); 8 frames decoded; ",
        ];
        assert_eq!(Decoded::read(&log.map(str::to_owned)), Decoded { frames: 140 });
    }
}

//! A set's subtitles on their way into it: read from what ffmpeg extracted, checked against its account.

use std::path::Path;

use super::processes::Made;
use crate::domain::{Code, Failure, OutputIndex};
use crate::media::captions::{Extracted, read};
use crate::media::package::CaptionRendition;
use crate::media::plan::{CaptionsPlan, Language};
use crate::media::webvtt::MAX_BYTES;

/// The subtitles of an output, and what its client should know of them.
pub(super) async fn of(
    work: &Path,
    made: &Made,
    index: OutputIndex,
) -> Result<(Vec<CaptionRendition>, Vec<String>), Failure> {
    let (mut renditions, mut warnings) = (Vec::new(), Vec::new());
    let first = made.plan.outputs.len() + made.plan.posters.len();
    for (n, plan) in made.plan.captions.iter().enumerate() {
        if !plan.outputs.contains(&index) {
            continue;
        }
        let language = plan.track.language;
        let named = language.map_or_else(|| format!("track {}", plan.track.stream), |code| code.to_string());
        let Some(text) = text(&work.join(&plan.file_name)).await? else {
            warnings.push(format!("captions_left_out: more than {MAX_BYTES} bytes ({named})"));
            continue;
        };
        let extracted = read(&text, millis(plan.zero), plan.end.map(millis));
        let written = made.report.output(first + n).map(|stream| stream.packets).sum::<u64>();
        if extracted.found as u64 != written {
            let (found, what) = (extracted.found, "texts of subtitles");
            let message =
                format!("The output did not pass verification: {found} {what} of {written} written.");
            return Err(Failure::new(Code::VerificationFailed, message));
        }
        warnings.extend(lost(made, plan, &extracted, &named));
        renditions.push(CaptionRendition {
            name: format!("captions_{}", renditions.len()),
            language: language.map(Language::tag),
            label: language.map(Language::name).unwrap_or_default(),
            forced: plan.track.forced,
            hearing_impaired: plan.track.hearing_impaired,
            cues: extracted.cues,
        });
    }
    Ok((renditions, warnings))
}

/// The file's text; `None` where it is larger than a player reads.
async fn text(path: &Path) -> Result<Option<String>, Failure> {
    let unread = |error: std::io::Error| {
        let message = "The output did not pass verification: its subtitles cannot be read.";
        Failure::new(Code::VerificationFailed, message).with_detail(error.to_string())
    };
    let size = tokio::fs::metadata(path).await.map_err(unread)?.len();
    if size > MAX_BYTES as u64 {
        return Ok(None);
    }
    let bytes = tokio::fs::read(path).await.map_err(unread)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// What of the source's track is not in the set.
fn lost(made: &Made, plan: &CaptionsPlan, extracted: &Extracted, named: &str) -> Option<String> {
    let source = made.report.decoded_stream(plan.track.stream);
    let broken = source.map_or(0, |stream| stream.errors + stream.early_errors);
    let lost = broken + extracted.refused as u64;
    (lost > 0).then(|| format!("captions_damaged: {lost} texts of {named} could not be read"))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "f64 to integer saturates")]
fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

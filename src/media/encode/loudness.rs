//! The measuring pass: ebur128's summary (EBU R 128), which ffmpeg writes to its log at the end.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::{Code, Failure};
use crate::media::process::{Reach, Spec, Stdout, Tidy, run};
use crate::media::{Input, Toolbox};

/// What a measuring pass found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loudness {
    /// Integrated loudness, LUFS; -70 is silence.
    pub integrated: f64,
    /// Loudness range, LU.
    pub range: f64,
    /// Highest true peak of all channels, dBTP; minus infinity for silence.
    pub true_peak: f64,
}

/// Runs a measuring pass (`ebur128=peak=true`, made by `argv`) and reads its summary.
///
/// # Errors
/// `encode_failed` when it fails or says nothing, `encode_timeout` past `time`, `cancelled`.
pub async fn measure_loudness(
    toolbox: &Toolbox,
    (argv, input): (Vec<String>, &Input),
    time: Duration,
    cancel: &CancellationToken,
) -> Result<Loudness, Failure> {
    let mut spec = Spec::new(&toolbox.tools.ffmpeg, argv, "/").confined(Reach::reading(input));
    spec.stdout = Stdout::Null;
    let finished = run(&toolbox.spawner, spec, (time, 0), cancel).await?;
    let read = if finished.status.success() { summary(&finished.log) } else { None };
    read.ok_or_else(|| {
        Failure::new(Code::EncodeFailed, "The sound's loudness could not be measured.")
            .with_detail(finished.status.to_string())
            .with_log(Tidy::new(input, Path::new("")).lines(finished.log))
    })
}

/// The lines after `Summary:`, such as `    I:         -23.0 LUFS`.
fn summary(log: &[String]) -> Option<Loudness> {
    let start = log.iter().rposition(|line| line.contains("Summary:"))?;
    let value = |mark: &str, unit: &str| {
        let line = log[start..].iter().find(|line| {
            let bare = line.rsplit(']').next().unwrap_or(line).trim();
            bare.starts_with(mark) && bare.ends_with(unit)
        })?;
        let text = line.rsplit_once(mark)?.1.trim().trim_end_matches(unit).trim();
        text.parse::<f64>().ok().filter(|number| !number.is_nan())
    };
    let (integrated, range, true_peak) =
        (value("I:", "LUFS")?, value("LRA:", "LU")?, value("Peak:", "dBFS")?);
    Some(Loudness { integrated, range, true_peak })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_summary_is_read() {
        let log = lines(
            "[Parsed_ebur128_0 @ 0x5] [info] t: 1.9 I: -99.0 LUFS\n[Parsed_ebur128_0 @ 0x5] [info] Summary:\n[info] \n\
             [info]   Integrated loudness:\n[info]     I:         -21.8 LUFS\n[info]     Threshold: -31.8 LUFS\n\
             [info]   Loudness range:\n[info]     LRA:         3.4 LU\n[info]     LRA low:   -23.9 LUFS\n\
             [info]   True peak:\n[info]     Peak:       -18.1 dBFS",
        );
        assert_eq!(summary(&log), Some(Loudness { integrated: -21.8, range: 3.4, true_peak: -18.1 }));
    }

    #[test]
    fn silence_has_no_peak() {
        let log = lines("Summary:\n    I: -70.0 LUFS\n    LRA: 0.0 LU\n    Peak: -inf dBFS");
        assert_eq!(summary(&log).map(|l| l.true_peak), Some(f64::NEG_INFINITY));
        assert_eq!(summary(&lines("Summary:\n I: x LUFS")), None);
        assert_eq!(summary(&[]), None);
    }
}

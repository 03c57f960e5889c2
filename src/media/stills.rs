//! Stills: frames are sought, looked at, and written as pictures; nothing else of the film is decoded (MEDIA-RULES
//! §1.18f).
//!
//! Each frame comes from a short process of its own as plain samples, so that looking at it (is it black, which of five
//! shows most) is arithmetic here. Pictures and sheets are then made of batches of frames, and what was written is read
//! back: its kind, its size, its end.

mod check;

pub use check::jpeg as jpeg_size;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::argv::{self, Moment, Reading};
use super::plan::{Choice, StillsPlan};
use super::process::{Reach, Spec, Tidy, run};
use super::{Input, Toolbox};
use crate::domain::{Code, Failure};

/// Longest seek of one frame, and longest writing of one batch.
const TIME: Duration = Duration::from_mins(1);
/// Bytes of the frames of one batch of single pictures.
const BATCH: u64 = 192 << 20;
/// Frames that are looked at in one batch at most.
const BATCH_FRAMES: u64 = 100;
/// Parts of its time at which a black still is replaced.
const ELSEWHERE: [f64; 3] = [0.25, 0.5, 0.75];
/// How far before a moment that has no frame one is looked for, seconds: tracks of sound may be longer.
const EARLIER: [f64; 3] = [0.5, 2.0, 5.0];
/// Luma (of 255) up to which a pixel is black, and the part of pixels that makes a picture black.
const BLACK: u32 = 32;
const BLACK_PART: f64 = 0.98;

/// What was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Stills {
    /// Pictures or sheets, in order; names in the work folder.
    pub files: Vec<String>,
    /// Pixels of one still.
    pub width: u32,
    /// Pixels of one still.
    pub height: u32,
    /// Stills in all.
    pub count: u32,
    /// What the client should know.
    pub warnings: Vec<String>,
}

/// What stills are made with.
#[derive(Debug, Clone, Copy)]
pub struct Making<'a> {
    /// What is made.
    pub plan: &'a StillsPlan,
    /// The source.
    pub reading: &'a Reading<'a>,
    /// The work folder.
    pub work: &'a Path,
    /// Longest time in all.
    pub total: Duration,
}

/// Makes them. `told` is called with the part that is done.
///
/// # Errors
/// `encode_failed` where no frame can be read, `encode_timeout`, `cancelled`, `tool_missing`, `disk_full`,
/// `verification_failed`.
pub async fn make(
    toolbox: &Toolbox,
    making: Making<'_>,
    cancel: &CancellationToken,
    told: &mut (dyn FnMut(f64) + Send),
) -> Result<Stills, Failure> {
    let maker = Maker { toolbox, making, cancel, until: Instant::now() + making.total };
    match making.plan.choice {
        Choice::Best => maker.best(told).await,
        Choice::Each => {
            let fitting = (BATCH / making.plan.raw_bytes().max(1)).clamp(1, BATCH_FRAMES);
            maker.series(usize::try_from(fitting).unwrap_or(1), told).await
        }
        Choice::Sheets(sprite) => maker.series(usize::try_from(sprite.cells()).unwrap_or(1), told).await,
    }
}

struct Maker<'a> {
    toolbox: &'a Toolbox,
    making: Making<'a>,
    cancel: &'a CancellationToken,
    until: Instant,
}

impl Maker<'_> {
    async fn best(&self, told: &mut (dyn FnMut(f64) + Send)) -> Result<Stills, Failure> {
        let plan = self.making.plan;
        let mut best: Option<(f64, Vec<u8>)> = None;
        for (n, moment) in plan.moments.iter().enumerate() {
            let Some(frame) = self.frame(*moment, Moment::Exact).await? else { continue };
            let look = Look::at(&frame);
            // Anything is better than black.
            let score = if plan.skip_black && look.black { -1.0 } else { look.contrast };
            if best.as_ref().is_none_or(|(known, _)| score > *known) {
                best = Some((score, frame));
            }
            told(share(n + 1, plan.moments.len()));
        }
        let (score, frame) = best.ok_or_else(nothing)?;
        let mut warnings = plan.warnings.clone();
        warnings.extend((score < 0.0).then(|| "still_is_black".to_owned()));
        let files = self.write(vec![frame], 1, None).await?;
        Ok(self.made(files, 1, warnings))
    }

    async fn series(&self, batch: usize, told: &mut (dyn FnMut(f64) + Send)) -> Result<Stills, Failure> {
        let plan = self.making.plan;
        let sheet = match plan.choice {
            Choice::Sheets(sprite) => Some(sprite),
            Choice::Best | Choice::Each => None,
        };
        let (mut files, mut before, mut repeated) = (Vec::new(), None::<Vec<u8>>, 0_u32);
        for moments in plan.moments.chunks(batch.max(1)) {
            let mut frames = Vec::with_capacity(moments.len());
            for moment in moments {
                let found = self.in_its_time(*moment, before.as_deref()).await?;
                repeated += u32::from(found.is_none());
                let frame = found.or_else(|| before.clone()).ok_or_else(nothing)?;
                before = Some(frame.clone());
                frames.push(frame);
            }
            let first = files.len() + 1;
            files.extend(self.write(frames, first, sheet).await?);
            told(share(files.len() * batch, plan.moments.len()));
        }
        let mut warnings = plan.warnings.clone();
        warnings.extend(
            (repeated > 0)
                .then(|| format!("stills_repeated: {repeated} moments have no picture of their own")),
        );
        Ok(self.made(files, plan.moments.len(), warnings))
    }

    /// The frame of a moment of a series: a key frame, unless keys are further apart than stills.
    async fn in_its_time(&self, moment: f64, before: Option<&[u8]>) -> Result<Option<Vec<u8>>, Failure> {
        let plan = self.making.plan;
        let mut found = self.frame(moment, Moment::Key).await?;
        if found.is_none() || found.as_deref() == before {
            found = self.frame(moment, Moment::Exact).await?.or(found);
        }
        if plan.skip_black && found.as_deref().is_some_and(|frame| Look::at(frame).black) {
            for part in ELSEWHERE {
                let other = moment + part * plan.step;
                if other >= plan.end {
                    break;
                }
                let other = self.frame(other, Moment::Exact).await?;
                if let Some(frame) = other.filter(|frame| !Look::at(frame).black) {
                    return Ok(Some(frame));
                }
            }
        }
        Ok(found)
    }

    /// The frame of a moment, or of one a little before where the picture has ended.
    async fn frame(&self, moment: f64, which: Moment) -> Result<Option<Vec<u8>>, Failure> {
        if let Some(frame) = self.grab(moment, which).await? {
            return Ok(Some(frame));
        }
        for earlier in EARLIER {
            if moment > 0.0
                && let Some(frame) = self.grab((moment - earlier).max(0.0), which).await?
            {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    async fn grab(&self, moment: f64, which: Moment) -> Result<Option<Vec<u8>>, Failure> {
        let Making { plan, reading, .. } = self.making;
        let size = usize::try_from(plan.raw_bytes()).unwrap_or(usize::MAX);
        let args = argv::still(&plan.picture, reading, moment, which);
        let spec = Spec::new(&self.toolbox.tools.ffmpeg, args, "/").confined(Reach::reading(reading.input));
        let finished = run(&self.toolbox.spawner, spec, (self.time()?, size + 1), self.cancel).await?;
        Ok((finished.stdout.len() == size).then_some(finished.stdout))
    }

    /// Pictures of these frames, checked; their names.
    async fn write(
        &self,
        frames: Vec<Vec<u8>>,
        first: usize,
        sheet: Option<crate::domain::preset::Sprite>,
    ) -> Result<Vec<String>, Failure> {
        let Making { plan, work, .. } = self.making;
        let raw = format!("stills-{}.raw", plan.index);
        let path = work.join(&raw);
        let count = sheet.map_or(frames.len(), |_| 1);
        store(&path, frames).await.map_err(|error| unwritten(&error))?;
        let name = |number: &str| format!("still-{}-{number}.{}", plan.index, plan.format.extension());
        let args =
            argv::still_files(plan, sheet, (&raw, &name("%05d")), u32::try_from(first).unwrap_or(u32::MAX));
        let reach = Reach::reading(&Input::File(path.clone())).writing(work);
        let spec = Spec::new(&self.toolbox.tools.ffmpeg, args, work).confined(reach);
        let finished = run(&self.toolbox.spawner, spec, (self.time()?, 0), self.cancel).await?;
        let _ = tokio::fs::remove_file(&path).await;
        if !finished.status.success() {
            let log = Tidy::new(&Input::File(path), work).lines(finished.log);
            let unknown = log.iter().any(|line| line.contains("Unknown encoder"));
            let code = if unknown { Code::EncoderUnavailable } else { Code::EncodeFailed };
            return Err(Failure::new(code, "The stills could not be written.").with_log(log));
        }
        let (width, height) = match sheet {
            Some(sheet) => (plan.picture.width * sheet.columns, plan.picture.height * sheet.rows),
            None => (plan.picture.width, plan.picture.height),
        };
        let names: Vec<String> = (first..first + count).map(|n| name(&format!("{n:05}"))).collect();
        for name in &names {
            let bytes = tokio::fs::read(work.join(name)).await.map_err(|error| unwritten(&error))?;
            if check::size(&bytes, plan.format) != Some((width, height)) {
                let message =
                    format!("A still is not a whole {} of {width}x{height}.", plan.format.extension());
                return Err(Failure::new(Code::VerificationFailed, message));
            }
        }
        Ok(names)
    }

    fn made(&self, files: Vec<String>, count: usize, warnings: Vec<String>) -> Stills {
        let (width, height) = (self.making.plan.picture.width, self.making.plan.picture.height);
        Stills { files, width, height, count: u32::try_from(count).unwrap_or(u32::MAX), warnings }
    }

    /// Time for the next process.
    fn time(&self) -> Result<Duration, Failure> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let most = self.making.total.as_secs_f32();
            return Err(Failure::new(Code::EncodeTimeout, format!("The stills took longer than {most} s.")));
        }
        Ok(left.min(TIME))
    }
}

/// What a picture shows.
struct Look {
    black: bool,
    /// Variance of the luma.
    contrast: f64,
}

impl Look {
    /// Of RGB samples; every seventh pixel says enough.
    fn at(frame: &[u8]) -> Self {
        let lumas = frame
            .chunks_exact(3)
            .step_by(7)
            .map(|rgb| (u32::from(rgb[0]) * 54 + u32::from(rgb[1]) * 183 + u32::from(rgb[2]) * 19) / 256);
        let (mut count, mut dark, mut sum, mut squares) = (0_u32, 0_u32, 0.0, 0.0);
        for luma in lumas {
            count += 1;
            dark += u32::from(luma < BLACK);
            sum += f64::from(luma);
            squares += f64::from(luma * luma);
        }
        let count = f64::from(count.max(1));
        let mean = sum / count;
        Self { black: f64::from(dark) / count >= BLACK_PART, contrast: squares / count - mean * mean }
    }
}

async fn store(path: &PathBuf, frames: Vec<Vec<u8>>) -> std::io::Result<()> {
    let mut file = tokio::fs::File::create(path).await?;
    for frame in frames {
        file.write_all(&frame).await?;
    }
    file.flush().await
}

fn nothing() -> Failure {
    Failure::new(Code::EncodeFailed, "No frame of the source could be read for a still.")
}

fn unwritten(error: &std::io::Error) -> Failure {
    let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let code = if full { Code::DiskFull } else { Code::Internal };
    Failure::new(code, "The stills could not be kept on the worker.").with_detail(error.to_string())
}

#[expect(clippy::cast_precision_loss, reason = "at most 10,000 stills")]
fn share(done: usize, all: usize) -> f64 {
    (done as f64 / all.max(1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn black_is_told_from_dark_and_flat_from_rich() {
        assert!(Look::at(&[4; 3 * 700]).black);
        let mut title = vec![4; 3 * 700];
        title[..90].fill(255);
        assert!(!Look::at(&title).black, "a title on black shows something");
        assert!(Look::at(&title).contrast > Look::at(&[128; 3 * 700]).contrast);
        assert!(Look::at(&[]).black || Look::at(&[]).contrast.abs() < 1e-9);
    }
}

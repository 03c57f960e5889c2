//! Stills of a job: made beside its films, checked, and handed on like them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::packaging::members;
use super::progress::{Figures, Step};
use super::publish::{self, Files, Publishing, staged};
use super::run::Ended;
use super::service::RunContext;
use super::workspace::RunFolder;
use crate::domain::{
    Code, Epoch, Failure, FileRole, JobSecrets, MediaInfo, OutputFile, OutputIndex, OutputReport,
    OutputResult, OutputSpec, OutputStatus, PublicationId, beside,
};
use crate::media::argv::Reading;
use crate::media::plan::{self, Choice, StillsPlan};
use crate::media::stills::{Making, Stills, make};
use crate::media::verify::digest;
use crate::storage::SetFiles;

/// What was made for one output, or why not.
pub(super) type Made = (StillsPlan, Result<Stills, Failure>);

/// The stills that the outputs want; those that cannot be made are added to `failed`.
pub(super) fn plan_all(
    media: &MediaInfo,
    wanted: &[(OutputIndex, &OutputSpec)],
    failed: &mut Vec<(OutputIndex, Failure)>,
) -> Vec<StillsPlan> {
    let mut plans = Vec::new();
    for (index, output) in wanted {
        match plan::stills(media, *index, &output.encode) {
            Ok(plan) => plans.extend(plan),
            Err(failure) => failed.push((*index, failure)),
        }
    }
    plans
}

/// Makes them, one output after the other; one that fails does not keep the others back.
pub(super) async fn make_all(
    context: &RunContext,
    folder: &RunFolder,
    plans: Vec<StillsPlan>,
    reading: &Reading<'_>,
) -> Result<Vec<Made>, Ended> {
    let mut made = Vec::with_capacity(plans.len());
    for plan in plans {
        let total = context.worker.settings.limits.timeout;
        let making = Making { plan: &plan, reading, work: folder.path(), total };
        let mut told = |share: f64| context.log.report(&Step::Encoding(share).report(Figures::default()));
        let stop = context.stop.token();
        let done = make(&context.worker.deps.toolbox, making, stop, &mut told).await;
        if stop.is_cancelled() {
            return Err(Ended::Stopped);
        }
        made.push((plan, done));
    }
    Ok(made)
}

/// What is published of them, and what failed.
pub(super) struct Readying<'a> {
    pub(super) folder: &'a RunFolder,
    pub(super) wanted: &'a [(OutputIndex, &'a OutputSpec)],
    pub(super) secrets: &'a JobSecrets,
    pub(super) epoch: Epoch,
}

/// Hashes and lists.
pub(super) async fn ready<'a>(
    context: &RunContext,
    readying: &Readying<'a>,
    made: &[Made],
    failed: &mut Vec<(OutputIndex, Failure)>,
) -> Vec<Publishing<'a>> {
    let ffmpeg = context.worker.deps.capabilities.borrow().as_ref().map(|known| known.version.clone());
    let tools = ffmpeg.map(|version| ("ffmpeg".to_owned(), version)).into_iter().collect();
    let mut ready = Vec::new();
    for (plan, done) in made {
        let spec = readying.wanted.iter().find(|(index, _)| *index == plan.index).map(|(_, spec)| *spec);
        let Some(spec) = spec else { continue };
        context.log.tell(crate::rpc::wire::RunEvent::OutputMoved(plan.index, OutputStatus::Verifying));
        let id = PublicationId::from_uuid(context.worker.deps.ids.random());
        let listed = match done {
            Ok(stills) => listed(readying, (id, spec), plan, (stills, &tools)).await,
            Err(failure) => Err(failure.clone()),
        };
        match listed {
            Ok((files, result)) => ready.push(Publishing {
                id,
                output: plan.index,
                epoch: readying.epoch,
                destination: &spec.destination,
                secrets: readying.secrets.output(plan.index),
                files,
                result,
            }),
            Err(failure) => failed.push((plan.index, failure)),
        }
    }
    ready
}

async fn listed(
    readying: &Readying<'_>,
    (id, spec): (PublicationId, &OutputSpec),
    plan: &StillsPlan,
    (stills, tools): (&Stills, &BTreeMap<String, String>),
) -> Result<(Files, OutputResult), Failure> {
    let entry = spec.destination.text();
    let (role, stem) = match plan.choice {
        Choice::Sheets(_) => (FileRole::Sprite, "sprite"),
        Choice::Best | Choice::Each => (FileRole::Still, "still"),
    };
    let (mut files, mut sent) = (Vec::new(), Vec::new());
    for (n, file) in stills.files.iter().enumerate() {
        let path = readying.folder.path().join(file);
        let found = digest(path.clone()).await?;
        let name = format!("{}/{stem}_{:05}.{}", members(id), n + 1, plan.format.extension());
        let content_type = plan.format.content_type();
        files.push(OutputFile {
            path: if plan.choice == Choice::Best { entry.to_owned() } else { beside(entry, &name) },
            size: found.size,
            sha256: found.sha256.clone(),
            content_type: content_type.to_owned(),
            role: (plan.choice != Choice::Best).then_some(role),
        });
        sent.push((name, staged(&path, found.size, &found.sha256, content_type)));
    }
    let result = |files| OutputResult {
        url: String::new(),
        files,
        duration_seconds: if plan.choice == Choice::Best { 0.0 } else { (plan.seconds * 1e6).round() / 1e6 },
        frames: Some(stills.count.into()),
        width: Some(stills.width),
        height: Some(stills.height),
        renditions: Vec::new(),
        warnings: [&spec.warnings[..], &stills.warnings].concat(),
        report: Some(Box::new(OutputReport { tools: tools.clone(), ..OutputReport::default() })),
    };
    if plan.choice == Choice::Best {
        let one = sent.into_iter().next();
        let (_, file) = one.ok_or_else(|| Failure::new(Code::Internal, "No still was made."))?;
        return Ok((Files::One(file), result(files)));
    }
    let names: Vec<&str> = sent.iter().map(|(name, _)| name.as_str()).collect();
    let path = readying.folder.path().join(format!("thumbnails-{}.vtt", plan.index));
    let written = tokio::fs::write(&path, vtt(plan, stills, &names)).await;
    written.map_err(|source| {
        publish::disk_failure(&super::WorkspaceError::Io { doing: "write", path: path.clone(), source })
    })?;
    let found = digest(path.clone()).await?;
    files.insert(
        0,
        OutputFile {
            path: entry.to_owned(),
            size: found.size,
            sha256: found.sha256.clone(),
            content_type: VTT.to_owned(),
            role: Some(FileRole::Thumbnails),
        },
    );
    let entry = staged(&path, found.size, &found.sha256, VTT);
    Ok((Files::Set(SetFiles { entry, lists: Vec::new(), members: sent }), result(files)))
}

const VTT: &str = "text/vtt";

/// The list: for each time which picture, and where in a sheet.
fn vtt(plan: &StillsPlan, stills: &Stills, names: &[&str]) -> String {
    let mut text = String::from("WEBVTT\n");
    let all = plan.moments.len();
    for n in 0..all {
        #[expect(clippy::cast_precision_loss, reason = "at most 10,000 stills")]
        let (from, to) = (n as f64 * plan.step, (n + 1) as f64 * plan.step);
        let to = if n + 1 == all { plan.seconds.max(from) } else { to };
        let place = match plan.choice {
            Choice::Sheets(sprite) => {
                let cells = usize::try_from(sprite.cells()).unwrap_or(1).max(1);
                let columns = usize::try_from(sprite.columns).unwrap_or(1).max(1);
                let cell = n % cells;
                let (x, y) = (cell % columns, cell / columns);
                let (width, height) = (stills.width as usize, stills.height as usize);
                let name = names.get(n / cells).copied().unwrap_or_default();
                format!("{name}#xywh={},{},{width},{height}", x * width, y * height)
            }
            Choice::Best | Choice::Each => names.get(n).copied().unwrap_or_default().to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{} --> {}\n{place}\n", clock(from), clock(to));
    }
    text
}

/// `HH:MM:SS.mmm`.
fn clock(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 12 h in milliseconds"
    )]
    let millis = (seconds.max(0.0) * 1000.0).round() as u64;
    let (s, ms) = (millis / 1000, millis % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_written_as_webvtt_wants() {
        assert_eq!(clock(0.0), "00:00:00.000");
        assert_eq!(clock(3723.4996), "01:02:03.500");
    }
}

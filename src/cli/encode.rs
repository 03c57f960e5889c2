//! `flux encode`: the whole machinery for one file, with a record in memory and no server.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::args::{Damage, EncodeArgs, Verify};
use super::assemble::{self, Machinery, Record};
use super::bar::ProgressLine;
use super::output::{data, field, note};
use super::{Exit, Failed, Outcome};
use crate::config::{self, Config, Overrides};
use crate::domain::preset::{Clip, EncodeSpec};
use crate::domain::{
    Access, Bucket, Destination, IdSource, JobId, JobOptions, JobSecrets, JobSpec, JobStatus, ObjectPath,
    OnDamage, OutputSpec, Overwrite, Source, SystemIds, TaskId, Tenant, VerifyLevel,
};
use crate::lifecycle::{Lifecycle, ShutdownReason};
use crate::store::{JobStore, NewJob, StoredJob, Submitted};

/// A folder that goes with its owner.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Result<Self, Failed> {
        let path = config::temporary_folder().join(format!("flux-encode-{}", SystemIds.random()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) async fn run(args: EncodeArgs) -> Outcome {
    let overrides =
        Overrides { file: args.file.config.clone(), log_level: Some("error".into()), ..Overrides::default() };
    let mut config = assemble::load(&overrides)?;
    crate::telemetry::init_logs(&config.log).map_err(anyhow::Error::new)?;
    let encode = resolve(&config, &args)?;
    let (root, output) = output_path(&args, &encode)?;
    let (source, secrets) = source(&args.input)?;
    let scratch = Scratch::new()?;
    confine(&mut config, scratch.path(), &source)?;
    config.destination_roots = vec![root];

    let single = !encode.container.is_set();
    let lifecycle = Lifecycle::new();
    let (control, worker) = config.alone();
    let machinery = assemble::start((&control, &worker), Record::Ephemeral, &lifecycle).await?;
    let destination = Destination::File {
        path: output.display().to_string(),
        overwrite: if args.no_clobber { Overwrite::Fail } else { Overwrite::Replace },
    };
    let spec = JobSpec {
        source,
        outputs: vec![OutputSpec {
            preset: args.preset.parse().ok(),
            encode,
            destination,
            warnings: Vec::new(),
        }],
        priority: 0,
        labels: std::collections::BTreeMap::new(),
        metadata: serde_json::Map::new(),
        notification_url: None,
        notification_events: Vec::new(),
        options: options(&args),
    };
    let ended = encode_one(&machinery, spec, secrets).await;
    machinery.worker.release_all();
    lifecycle.stop_now(ShutdownReason::Requested);
    lifecycle.drain(std::time::Duration::from_secs(5)).await;
    match ended? {
        None => Ok(Exit::Interrupted),
        // A file is said as it was asked for; what to open of a set was not asked for.
        Some(job) => Ok(say(&job, args.output.as_deref().filter(|_| single).unwrap_or(&output))),
    }
}

fn resolve(config: &Config, args: &EncodeArgs) -> Result<EncodeSpec, Failed> {
    let presets = assemble::presets(&config.presets)?;
    let mut fields = serde_json::Map::new();
    if args.start.is_some() || args.duration.is_some() {
        fields.insert(
            "clip".to_owned(),
            json!(Clip { start: args.start.unwrap_or_default(), duration: args.duration }),
        );
    }
    presets.resolve(Some(&args.preset), fields).map_err(|faults| {
        let faults: Vec<String> = faults.into_iter().map(|fault| fault.detail).collect();
        Failed::msg(Exit::Validation, faults.join("; "))
    })
}

/// The folder that may be written, which exists, and the file to open afterwards. A set gets a folder of its own, unless
/// a list is named.
fn output_path(args: &EncodeArgs, encode: &EncodeSpec) -> Result<(PathBuf, PathBuf), Failed> {
    let default = || {
        let name = args.input.split(['?', '#']).next().unwrap_or(&args.input);
        let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or("output");
        let stem = format!("{stem}_{}", args.preset);
        if encode.container.is_set() {
            return PathBuf::from(stem);
        }
        PathBuf::from(format!("{stem}.{}", encode.container.extension()))
    };
    let path = args.output.clone().unwrap_or_else(default);
    let absolute = std::path::absolute(&path).context("cannot resolve the output's path")?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    let folder = folder.canonicalize().with_context(|| format!("there is no folder {}", folder.display()));
    let folder = folder.map_err(|error| Failed::new(Exit::NotFound, error))?;
    let name = absolute.file_name().ok_or_else(|| Failed::msg(Exit::Usage, "the output names no file"))?;
    let output = folder.join(name);
    let named = name.to_str().is_some_and(|name| encode.lists_in(name));
    let output = match encode.entry_name() {
        Some(entry) if !named => output.join(entry),
        _ => output,
    };
    Ok((folder, output))
}

/// What a person means by a path or a URL.
pub(super) fn source(input: &str) -> Result<(Source, JobSecrets), Failed> {
    if input.starts_with("http://") || input.starts_with("https://") {
        let mut shown = url::Url::parse(input).map_err(|error| Failed::new(Exit::Usage, error))?;
        shown.set_query(None);
        let _ = shown.set_username("").and_then(|()| shown.set_password(None));
        let secrets = JobSecrets { source_url: Some(input.to_owned()), ..JobSecrets::default() };
        return Ok((Source::Http { url: shown.into() }, secrets));
    }
    if let Some((bucket, key)) = Bucket::parse_url(input) {
        let path = ObjectPath::parse(key).map_err(|error| Failed::new(Exit::Usage, error))?;
        return Ok((Source::Bucket { bucket, path, access: Access::Unsaid }, JobSecrets::default()));
    }
    let path = Path::new(input).canonicalize().with_context(|| format!("cannot read {input}"));
    let path = path.map_err(|error| Failed::new(Exit::NotFound, error))?;
    Ok((Source::File { path: path.display().to_string() }, JobSecrets::default()))
}

/// What is given to a job on the command line, and no more, is within its reach.
pub(super) fn confine(config: &mut Config, scratch: &Path, source: &Source) -> Result<(), Failed> {
    scratch.clone_into(&mut config.server.data_dir);
    config.worker.work_dir = scratch.join("work");
    config.storage = config::Storage::Local { root: scratch.join("storage") };
    config.queue.max_attempts = std::num::NonZeroU32::MIN;
    config.queue.max_pending = 1;
    config.destination_roots = Vec::new();
    // Whoever types the command may reach what they can reach.
    config.sources.allow = ["0.0.0.0/0", "::/0"].iter().filter_map(|network| network.parse().ok()).collect();
    if let Source::File { path } = source {
        let folder =
            Path::new(path).parent().ok_or_else(|| Failed::msg(Exit::Usage, "the input is no file"))?;
        config.sources.file_roots = vec![folder.to_owned()];
    }
    Ok(())
}

fn options(args: &EncodeArgs) -> JobOptions {
    JobOptions {
        on_damage: match args.on_damage {
            Some(Damage::Warn) => OnDamage::Warn,
            Some(Damage::Fail) | None => OnDamage::Fail,
        },
        verify: args.verify.map(|level| match level {
            Verify::Probe => VerifyLevel::Probe,
            Verify::Sampled => VerifyLevel::Sampled,
            Verify::Full => VerifyLevel::Full,
        }),
        timeout_seconds: None,
    }
}

/// The finished job; `None` when it was interrupted.
async fn encode_one(
    machinery: &Machinery,
    spec: JobSpec,
    secrets: JobSecrets,
) -> Result<Option<StoredJob>, Failed> {
    let now = machinery.ground.clock.now();
    let id = JobId::from_uuid(machinery.ground.ids.sortable(now));
    let task = TaskId::from_uuid(machinery.ground.ids.random());
    let job = NewJob { id, task, tenant: Tenant::local(), spec, secrets, idempotency: None, now };
    let submitted = machinery.control.submit(job).await.context("cannot record the job")?;
    if submitted != Submitted::Created {
        return Err(Failed::msg(Exit::Failed, "the job was not taken"));
    }
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut line = ProgressLine::new();
    let done = tokio::select! {
        job = follow(machinery, id, &mut line) => Some(job),
        _ = &mut interrupt => None,
    };
    line.finish();
    let Some(job) = done else {
        machinery.control.cancel(None, id).await.context("cannot cancel")?;
        return Ok(None);
    };
    job.map(Some)
}

async fn follow(machinery: &Machinery, id: JobId, bar: &mut ProgressLine) -> Result<StoredJob, Failed> {
    let mut changes = machinery.control.watch(id).await;
    let store: &dyn JobStore = &*machinery.ground.store;
    loop {
        let report = changes.borrow_and_update().report.clone();
        if let Some(report) = report {
            bar.show(&json!({
                "phase": report.phase,
                "progress": report.progress.percent(),
                "fps": report.fps,
                "speed": report.speed,
                "eta_seconds": report.eta_seconds,
            }));
        }
        let found = store.get(None, id).await.context("cannot read the job")?;
        let job = found.ok_or_else(|| Failed::msg(Exit::Failed, "the job vanished"))?;
        if job.aggregate.job.status.is_terminal() {
            return Ok(job);
        }
        if changes.changed().await.is_err() {
            return Err(Failed::msg(Exit::Failed, "the job is not followed any more"));
        }
    }
}

fn say(job: &StoredJob, output: &Path) -> Exit {
    let results = job.aggregate.outputs.iter().filter_map(|output| output.result.as_ref());
    for warning in results.flat_map(|result| &result.warnings) {
        note(format_args!("warning: {}", field(&warning.as_str().into())));
    }
    if job.aggregate.job.status == JobStatus::Completed {
        data(&output.display().to_string());
        return Exit::Ok;
    }
    if let Some(failure) = &job.aggregate.job.failure {
        note(format_args!("error: {}: {}", failure.code, failure.message));
        for line in &failure.log {
            note(format_args!("  {}", field(&line.as_str().into())));
        }
    }
    Exit::Failed
}

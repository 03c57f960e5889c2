//! `flux doctor`: what this machine can do, tried and not assumed.

use super::args::ConfigFile;
use super::output::data;
use super::{Exit, Failed, Outcome, assemble};
use crate::config::{Config, Overrides, Storage, Store};
use crate::domain::{IdSource, PublicationId, SandboxMode, SystemIds};
use crate::media::process::Confined;
use crate::media::tools::{ENCODERS, FILTERS, Tools};
use crate::storage::Fencing;

/// Free space below which encodes of ordinary films may fail, bytes.
const LITTLE_SPACE: u64 = 10 * 1024 * 1024 * 1024;

/// One finding.
enum Finding {
    Good(String),
    Note(String),
    Bad(String),
}

pub(super) async fn run(file: &ConfigFile) -> Outcome {
    let overrides =
        Overrides { file: file.config.clone(), data_dir: file.data_dir.clone(), ..Overrides::default() };
    let config = assemble::load(&overrides)?;
    let fresh = !config.server.data_dir.exists();
    let mut findings = vec![Finding::Good(format!("flux {}", env!("CARGO_PKG_VERSION")))];
    findings.extend(config.warnings.iter().cloned().map(Finding::Note));
    findings.extend(tools(&config).await?);
    findings.push(disk(&config));
    findings.push(storage(&config).await);
    findings.extend(database(&config).await);
    if fresh {
        remove_empty_folders(&config.server.data_dir);
    }
    findings.push(api(&config));
    let mut ill = false;
    for finding in findings {
        match finding {
            Finding::Good(text) => data(&format!("ok    {text}")),
            Finding::Note(text) => data(&format!("note  {text}")),
            Finding::Bad(text) => {
                ill = true;
                data(&format!("BAD   {text}"));
            }
        }
    }
    Ok(if ill { Exit::Unavailable } else { Exit::Ok })
}

async fn tools(config: &Config) -> Result<Vec<Finding>, Failed> {
    let (ffmpeg, ffprobe) = (&config.worker.ffmpeg, &config.worker.ffprobe);
    let tools = match Tools::locate(ffmpeg, ffprobe) {
        Ok(tools) => tools,
        Err(error) => {
            let hint = "install ffmpeg (Debian, Ubuntu: apt-get install ffmpeg) or set worker.ffmpeg and worker.ffprobe";
            return Ok(vec![Finding::Bad(format!("{error}; {hint}"))]);
        }
    };
    let toolbox = assemble::worker::toolbox(&config.worker)?;
    let known = match tools.prove(&toolbox.spawner).await {
        Ok(known) => known,
        Err(error) => return Ok(vec![Finding::Bad(error.to_string())]),
    };
    let mut findings = vec![Finding::Good(format!("ffmpeg {} at {}", known.version, tools.ffmpeg.display()))];
    for encoder in ENCODERS {
        findings.push(if known.encoders.contains(encoder) {
            Finding::Good(format!("encoder {encoder}: encoded a frame"))
        } else if matches!(*encoder, "libx264" | "aac") {
            Finding::Bad(format!("encoder {encoder} does not work: most presets need it"))
        } else {
            Finding::Note(format!("encoder {encoder} does not work: its presets will fail"))
        });
    }
    let confined = assemble::worker::confined(&config.worker, &toolbox).await;
    findings.extend(sandbox(config.worker.sandbox.mode, confined));
    let missing: Vec<&str> =
        FILTERS.iter().copied().filter(|filter| !known.filters.contains(filter)).collect();
    if !missing.is_empty() {
        findings.push(Finding::Note(format!("filters missing: {}", missing.join(", "))));
    }
    Ok(findings)
}

fn sandbox(mode: SandboxMode, confined: Result<Confined, Failed>) -> Vec<Finding> {
    if mode == SandboxMode::Off {
        return vec![Finding::Note(
            "sandbox: off, as sandbox.mode says; ffmpeg may do what this user may".into(),
        )];
    }
    let confined = match confined {
        Ok(confined) => confined,
        Err(failed) => return vec![Finding::Bad(format!("sandbox: {:#}", failed.error))],
    };
    let active = confined.active();
    let active = (!active.is_empty()).then(|| Finding::Good(format!("sandbox: {}", active.join(", "))));
    let missing = confined.missing().into_iter().map(|what| Finding::Note(format!("sandbox: {what}")));
    active.into_iter().chain(missing).collect()
}

fn disk(config: &Config) -> Finding {
    let folder = config.worker.work_dir.ancestors().find(|folder| folder.is_dir());
    let Some(Ok(space)) = folder.map(rustix::fs::statvfs) else {
        return Finding::Bad(format!("cannot look at the disk of {}", config.worker.work_dir.display()));
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let text =
        format!("{} free for work files in {}", bytesize::ByteSize(free), config.worker.work_dir.display());
    if free < LITTLE_SPACE { Finding::Note(text) } else { Finding::Good(text) }
}

async fn storage(config: &Config) -> Finding {
    let place = match &config.storage {
        Storage::Local { root } => root.display().to_string(),
        Storage::Bucket { bucket, .. } => bucket.url(),
    };
    let storage = match assemble::open_storage(&config.common()) {
        Ok(storage) => storage,
        Err(failed) => return Finding::Bad(format!("storage {place}: {:#}", failed.error)),
    };
    let probe = PublicationId::from_uuid(SystemIds.random());
    match storage.destinations().reachable(probe).await {
        Ok(Fencing::Works) => {
            Finding::Good(format!("storage {place}: writes, and refuses what was destroyed"))
        }
        Ok(Fencing::Broken) => Finding::Note(format!(
            "storage {place}: commits what was destroyed, so a worker that lost its task could still publish there"
        )),
        Err(failure) => Finding::Bad(format!("storage {place}: {} ({})", failure.message, failure.detail)),
    }
}

async fn database(config: &Config) -> Option<Finding> {
    let Store::Postgres(postgres) = &config.store else { return None };
    let place = match assemble::control::place(postgres) {
        Ok(place) => place,
        Err(failed) => return Some(Finding::Bad(format!("{:#}", failed.error))),
    };
    Some(match place.look().await {
        Ok(found) => Finding::Good(format!("database {place}: {found}")),
        Err(error) => Finding::Bad(format!("database {place}: {:#}", anyhow::Error::new(error))),
    })
}

/// Trying the storage makes the data folder, which nobody asked for here. Folders with anything in them stay.
fn remove_empty_folders(data_dir: &std::path::Path) {
    for folder in ["storage", "uploads", "inline", ""] {
        let _ = std::fs::remove_dir(data_dir.join(folder));
    }
}

fn api(config: &Config) -> Finding {
    let listen = config.server.listen;
    if config.keys.is_empty() {
        Finding::Note(format!("the API on {listen} needs no key: everybody on this machine may use it"))
    } else {
        Finding::Good(format!("the API on {listen} knows {} key(s)", config.keys.len()))
    }
}

//! Puts the rooms together for one process: what `serve` and `encode` have in common.

pub(super) mod control;
mod waking;
pub(super) mod webhooks;
pub(super) mod worker;

use anyhow::Context;
use std::sync::Arc;

use self::control::Ground;
use super::{Exit, Failed};
use crate::config::{self, Common, Config, ControlPlan, PresetDocument, WorkerPlan};
use crate::control::{Control, Found, WorkerHandle};
use crate::domain::preset::Presets;
use crate::lifecycle::Lifecycle;
use crate::rpc::WorkerClient;
use crate::storage::{self, Storage, StorageSettings};
use crate::worker::Worker;

/// Where jobs are recorded.
pub(super) enum Record<'a> {
    /// Below the data folder, or in the database; told each time that the database is found to be down.
    Durable(WhileDown<'a>),
    /// In memory, for one command.
    Ephemeral,
}

/// What is done while the database is down.
pub(super) type WhileDown<'a> = &'a mut (dyn FnMut() -> Result<(), Failed> + Send);

/// A control and a worker in one process.
pub(super) struct Machinery {
    pub(super) control: Control,
    pub(super) worker: Worker,
    pub(super) ground: Ground,
}

/// Reads the configuration the command line points to.
pub(super) fn load(overrides: &config::Overrides) -> Result<Config, Failed> {
    let around = config::Surroundings::of_process().map_err(|error| Failed::new(Exit::Failed, error))?;
    Config::load(&around, overrides).map_err(|error| Failed::new(Exit::Validation, error))
}

/// The built-in presets with the operator's.
pub(super) fn presets(documents: &[PresetDocument]) -> Result<Presets, Failed> {
    let mut presets = Presets::builtin();
    for document in documents {
        presets = presets.with_document(&document.text).map_err(|faults| {
            let faults: Vec<String> =
                faults.iter().map(|fault| format!("{}: {fault}", document.file)).collect();
            Failed::msg(Exit::Validation, faults.join("\n"))
        })?;
    }
    Ok(presets)
}

/// Starts everything but the API.
pub(super) async fn start(
    (control, worker): (&ControlPlan, &WorkerPlan),
    record: Record<'_>,
    lifecycle: &Lifecycle,
) -> Result<Machinery, Failed> {
    let ground = control::open(control, record, lifecycle).await?;
    let worker = worker::start(worker, &ground.storage, &ground.ids, lifecycle).await?;
    let own = WorkerHandle {
        client: WorkerClient::in_process(Arc::new(worker.clone())),
        address: "in-process".to_owned(),
        found: Found::InProcess,
    };
    let control = control::start(control, &ground, vec![own], lifecycle).await?;
    Ok(Machinery { control, worker, ground })
}

/// Sources and destinations as configured.
pub(super) fn open_storage(common: &Common) -> Result<Storage, Failed> {
    let storage = match &common.storage {
        config::Storage::Local { root } => StorageSettings::Local { root: root.clone() },
        config::Storage::Bucket { bucket, prefix, credentials } => StorageSettings::Bucket {
            bucket: bucket.clone(),
            prefix: prefix.clone(),
            credentials: credentials.clone(),
        },
    };
    let allow = common.sources.allow.iter().map(|rule| rule.to_string().parse::<storage::AllowRule>());
    let settings = storage::Settings {
        storage,
        destination_roots: common.destination_roots.clone(),
        data_dir: common.data_dir.clone(),
        // A root that is missing was warned about; what is below it does not exist.
        file_roots: common.sources.file_roots.iter().filter(|root| root.is_dir()).cloned().collect(),
        allow: allow.collect::<Result<_, _>>().context("cannot use sources.allow")?,
        buckets: common.buckets.clone(),
        limits: common.sources.limits,
        fetch: storage::FetchLimits {
            stall_timeout: common.sources.stall_timeout,
            header_timeout: common.sources.stall_timeout,
            retries: common.sources.retries,
            cache: common.sources.cache_bytes,
            ..storage::FetchLimits::default()
        },
    };
    Ok(Storage::open(&settings).context("cannot open the storage")?)
}

//! `flux config check | show`.

use super::args::{ConfigAction, ConfigArgs, ConfigFile};
use super::output::{data, note};
use super::{Exit, Failed, Outcome, assemble};
use crate::config::{Config, Overrides, Plan};

pub(super) fn run(args: &ConfigArgs) -> Outcome {
    match &args.action {
        ConfigAction::Check(check) => {
            let config = read(&check.file)?;
            Plan::resolve(check.role.into(), &config)
                .map_err(|error| Failed::new(Exit::Validation, error))?;
            for warning in &config.warnings {
                note(format_args!("warning: {warning}"));
            }
            note("the configuration is in order");
        }
        ConfigAction::Show(file) => data(read(file)?.show().trim_end()),
    }
    Ok(Exit::Ok)
}

/// The configuration with its presets, which are part of what can be wrong.
fn read(file: &ConfigFile) -> Result<Config, Failed> {
    let overrides =
        Overrides { file: file.config.clone(), data_dir: file.data_dir.clone(), ..Overrides::default() };
    let config = assemble::load(&overrides)?;
    assemble::presets(&config.presets)?;
    Ok(config)
}

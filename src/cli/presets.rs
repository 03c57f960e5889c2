//! `flux presets`.

use serde_json::json;

use super::args::{Format, PresetsArgs};
use super::output::{data, table};
use super::{Exit, Failed, Outcome, assemble, output};
use crate::config::Overrides;
use crate::domain::preset::{EncodeSpec, PresetName};

pub(super) fn run(args: &PresetsArgs) -> Outcome {
    let overrides = Overrides {
        file: args.file.config.clone(),
        data_dir: args.file.data_dir.clone(),
        ..Overrides::default()
    };
    let presets = assemble::presets(&assemble::load(&overrides)?.presets)?;
    if let Some(name) = &args.name {
        let Some(spec) = presets.get(name) else {
            let near: Vec<&str> = presets.near(name).into_iter().map(PresetName::as_str).collect();
            let hint = if near.is_empty() {
                "; `flux presets` lists them".to_owned()
            } else {
                format!("; near names: {}", near.join(", "))
            };
            return Err(Failed::msg(Exit::NotFound, format_args!("there is no preset {name:?}{hint}")));
        };
        match args.format {
            Format::Json => output::json(&json!({"name": name, "encode": spec})),
            Format::Table => data(&toml::to_string_pretty(spec).map_err(anyhow::Error::new)?),
        }
        return Ok(Exit::Ok);
    }
    match args.format {
        Format::Json => {
            let all: Vec<_> = presets
                .iter()
                .map(|(name, description, spec)| json!({"name": name, "description": description, "encode": spec}))
                .collect();
            output::json(&json!({"presets": all}));
        }
        Format::Table => {
            let rows: Vec<_> = presets
                .iter()
                .map(|(name, description, spec)| vec![name.to_string(), shape(spec), description.to_owned()])
                .collect();
            table(&["NAME", "MAKES", "DESCRIPTION"], &rows);
        }
    }
    Ok(Exit::Ok)
}

fn shape(spec: &EncodeSpec) -> String {
    let video = spec.encoded_picture().map(|video| {
        let bounds = video.bounds.map_or_else(String::new, |bounds| format!(" {bounds}"));
        format!("{}{bounds}", video.codec.codec_name())
    });
    let audio = spec.encoded_sound().map(|audio| audio.codec.codec_name().to_owned());
    let streams: Vec<String> = [video, audio].into_iter().flatten().collect();
    format!("{}: {}", spec.container.name(), streams.join(" + "))
}

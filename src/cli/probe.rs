//! `flux probe`: what a source is, without a server.

use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;

use super::args::{Format, ProbeArgs};
use super::assemble::{self, worker};
use super::encode::{Scratch, confine, source};
use super::output::{data, field, json, note, table};
use super::{Exit, Failed, Outcome};
use crate::api::probe_document;
use crate::config::Overrides;
use crate::domain::{Code, Failure, SystemIds};
use crate::worker::{Given, Prober, ProberParts, Refused};

pub(super) async fn run(args: ProbeArgs) -> Outcome {
    let overrides =
        Overrides { file: args.file.config.clone(), log_level: Some("error".into()), ..Overrides::default() };
    let mut config = assemble::load(&overrides)?;
    crate::telemetry::init_logs(&config.log).map_err(anyhow::Error::new)?;
    let (source, secrets) = source(&args.source)?;
    let scratch = Scratch::new()?;
    confine(&mut config, scratch.path(), &source)?;
    let (_, plan) = config.alone();
    let toolbox = worker::toolbox(&plan.worker)?;
    worker::confined(&plan.worker, &toolbox).await?;
    let folder = scratch.path().canonicalize().context("cannot resolve the temporary folder")?;
    let prober = Prober::new(ProberParts {
        sources: assemble::open_storage(&plan.common)?.sources().clone(),
        toolbox,
        ids: Arc::new(SystemIds),
        limits: plan.common.sources.limits,
        folder,
    });
    let looked = tokio::select! {
        looked = prober.probe(Given::Source(source, Box::new(secrets))) => looked,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("cannot listen for signals")?;
            return Ok(Exit::Interrupted);
        }
    };
    match looked {
        Ok(looked) => {
            let document = probe_document(&looked);
            match (args.json, args.format) {
                (true, _) | (_, Format::Json) => json(&document),
                (false, Format::Table) => print(&document),
            }
            Ok(Exit::Ok)
        }
        Err(Refused::Failed(failure)) => Ok(refuse(&failure)),
        Err(full @ Refused::Full) => Err(Failed::new(Exit::Unavailable, full)),
    }
}

fn refuse(failure: &Failure) -> Exit {
    note(format_args!("error: {}: {}", failure.code, failure.message));
    for line in &failure.log {
        note(format_args!("  {}", field(&line.as_str().into())));
    }
    match failure.code {
        Code::SourceNotFound => Exit::NotFound,
        Code::ToolMissing => Exit::Unavailable,
        _ => Exit::Failed,
    }
}

fn print(document: &Value) {
    let whole = ["container", "size", "duration_seconds"];
    let facts: Vec<String> = whole.iter().map(|name| format!("{name} {}", field(&document[*name]))).collect();
    data(&facts.join("  "));
    let rows = |kind: &str, about: fn(&Value) -> String| {
        let streams = document[kind].as_array().into_iter().flatten();
        let row = |stream: &Value| {
            vec![field(&stream["index"]), kind.to_owned(), field(&stream["codec"]), about(stream)]
        };
        streams.map(row).collect::<Vec<_>>()
    };
    let all = [
        rows("video", picture),
        rows("audio", sound),
        rows("subtitles", text),
        rows("attached_pictures", size),
        rows("other", |other| field(&other["kind"])),
    ];
    table(&["STREAM", "KIND", "CODEC", "ABOUT"], &all.concat());
    let warnings: Vec<String> = document["warnings"].as_array().into_iter().flatten().map(field).collect();
    if !warnings.is_empty() {
        data(&format!("warnings {}", warnings.join(" ")));
    }
}

fn picture(stream: &Value) -> String {
    let mut parts = vec![size(stream), format!("{} fps", field(&stream["frame_rate"]))];
    parts.push(field(&stream["pixel_format"]));
    let turned = stream["rotation"].as_u64().filter(|degrees| *degrees != 0);
    parts.extend(turned.map(|degrees| format!("turned by {degrees} degrees")));
    parts.extend((stream["hdr"] == true).then(|| "HDR".to_owned()));
    parts.extend(stream["codec_string"].as_str().map(|text| field(&text.into())));
    parts.join(", ")
}

fn sound(stream: &Value) -> String {
    let mut parts = vec![
        format!("{} Hz", field(&stream["sample_rate"])),
        format!("{} channels", field(&stream["channels"])),
    ];
    let texts = ["language", "codec_string"].into_iter().filter_map(|name| stream[name].as_str());
    parts.extend(texts.map(|text| field(&text.into())));
    parts.join(", ")
}

fn text(stream: &Value) -> String {
    let kind = if stream["text"] == true { "text" } else { "not text" };
    let mut parts = vec![kind.to_owned()];
    parts.extend(stream["language"].as_str().map(|text| field(&text.into())));
    let flags = [("forced", "forced"), ("hearing_impaired", "for those who do not hear")];
    parts
        .extend(flags.into_iter().filter(|(name, _)| stream[*name] == true).map(|(_, said)| said.to_owned()));
    parts.join(", ")
}

fn size(stream: &Value) -> String {
    format!("{}x{}", field(&stream["width"]), field(&stream["height"]))
}

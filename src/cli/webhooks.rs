//! `flux webhooks listen | list | redeliver | secret`.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::args::{Format, IdArgs, ListenArgs, RedeliverArgs, WebhooksAction};
use super::assemble::webhooks::{SECRET_FILE, new_secret};
use super::client::Client;
use super::jobs::segment;
use super::output::{data, field, json, note, table};
use super::{Exit, Failed, Outcome};
use crate::api::{self, ServerLimits};
use crate::config::Surroundings;
use crate::domain::SystemClock;
use crate::domain::webhook::WebhookSecret;

/// Holds the secrets, separated by commas or lines.
const SECRET_VARIABLE: &str = "FLUX_WEBHOOK_SECRET";

pub(super) async fn run(action: WebhooksAction) -> Outcome {
    match action {
        WebhooksAction::Listen(args) => listen(args).await,
        WebhooksAction::List(args) => list(&args).await,
        WebhooksAction::Redeliver(args) => redeliver(&args).await,
        WebhooksAction::Secret => {
            data(&new_secret()?);
            Ok(Exit::Ok)
        }
    }
}

/// Receives until it is interrupted. Data is what came and is good; what is not is a note.
async fn listen(args: ListenArgs) -> Outcome {
    let secrets = secrets(&args)?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr().context("cannot listen")?;
    note(format_args!("listening on http://{address}/; ctrl-c ends it"));
    let format = args.format;
    let sink = Arc::new(move |message| show(&message, format));
    let app = api::receiver(secrets, Arc::new(SystemClock), sink);
    let stop = CancellationToken::new();
    let serving = api::serve(listener, app, stop.clone(), ServerLimits::default());
    tokio::select! {
        () = serving => {}
        _ = tokio::signal::ctrl_c() => stop.cancel(),
    }
    Ok(Exit::Ok)
}

fn show(message: &api::Message, format: Format) {
    if let Err(error) = message.verified {
        note(format_args!("refused {}: {error}", field(&message.id.as_str().into())));
        return;
    }
    let body: Value = serde_json::from_str(&message.body).unwrap_or_default();
    match format {
        Format::Json => data(&message.body),
        Format::Table => {
            let (time, event) = (field(&body["timestamp"]), field(&body["type"]));
            let (job, status) = (field(&body["data"]["id"]), field(&body["data"]["status"]));
            data(&format!("{time}  {event}  {job}  {status}  {}", field(&message.id.as_str().into())));
        }
    }
}

/// From a file, the environment, or the data folder of a server on this machine: never from the command line, which
/// everybody on the machine can read.
fn secrets(args: &ListenArgs) -> Result<Vec<WebhookSecret>, Failed> {
    let mut around = Surroundings::of_process().context("cannot read the environment")?;
    let text = match (&args.secret_file, around.env.remove(SECRET_VARIABLE)) {
        (Some(file), _) => read(file)?,
        (None, Some(text)) => text,
        (None, None) => read(&args.data_dir.join(SECRET_FILE))?,
    };
    let parse = |text: &str| {
        let parsed = WebhookSecret::parse(text);
        parsed.map_err(|error| Failed::msg(Exit::Validation, format_args!("the secret {error}")))
    };
    text.split([',', '\n']).map(str::trim).filter(|text| !text.is_empty()).map(parse).collect()
}

fn read(file: &Path) -> Result<String, Failed> {
    std::fs::read_to_string(file).map_err(|error| {
        let hint = format_args!("give the secret in {SECRET_VARIABLE} or a file with --secret-file");
        Failed::msg(Exit::Validation, format_args!("cannot read {}: {error}; {hint}", file.display()))
    })
}

async fn list(args: &IdArgs) -> Outcome {
    let found = deliveries(&Client::new(&args.server)?, &args.id).await?;
    match args.server.format {
        Format::Json => json(&found),
        Format::Table => {
            let rows: Vec<_> = found["deliveries"].as_array().into_iter().flatten().map(row).collect();
            table(&["ID", "EVENT", "STATE", "TRIES", "LAST", "NEXT"], &rows);
        }
    }
    Ok(Exit::Ok)
}

async fn deliveries(client: &Client, job: &str) -> Result<Value, Failed> {
    client.get(&format!("/jobs/{}/deliveries", segment(job))).await
}

fn row(delivery: &Value) -> Vec<String> {
    let last = &delivery["last"];
    let last = match (&last["error"], &last["status"]) {
        (Value::Null, status) => field(status),
        (error, Value::Null) => field(error),
        (error, status) => format!("{} {}", field(error), field(status)),
    };
    let mut cells: Vec<_> =
        ["id", "event", "state", "tries"].iter().map(|name| field(&delivery[*name])).collect();
    cells.extend([last, field(&delivery["next_at"])]);
    cells
}

/// One delivery, or all of the job that no receiver took.
async fn redeliver(args: &RedeliverArgs) -> Outcome {
    let client = Client::new(&args.job.server)?;
    let ids: Vec<String> = if let Some(id) = &args.delivery {
        vec![id.clone()]
    } else {
        let found = deliveries(&client, &args.job.id).await?;
        let all = found["deliveries"].as_array().into_iter().flatten();
        let missed = all.filter(|delivery| delivery["state"] != "delivered");
        missed.filter_map(|delivery| delivery["id"].as_str().map(str::to_owned)).collect()
    };
    if ids.is_empty() {
        note("every delivery of the job was taken; name one to send it again");
    }
    for id in ids {
        let path = format!("/jobs/{}/deliveries/{}/redeliver", segment(&args.job.id), segment(&id));
        let delivery = client.post(&path, None, None).await?;
        match args.job.server.format {
            Format::Json => json(&delivery),
            Format::Table => data(&row(&delivery).join("  ")),
        }
    }
    Ok(Exit::Ok)
}

//! `flux watch`: follows a job by its event stream, through broken connections, to its end.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;

use super::args::{Format, IdArgs};
use super::bar::ProgressLine;
use super::client::Client;
use super::jobs::{print_job, segment};
use super::output::note;
use super::sse::{SseEvent, SseParser};
use super::{Exit, Failed, Outcome};

/// Broken streams in a row before giving up.
const RETRIES: u32 = 5;

pub(super) async fn run(args: &IdArgs) -> Outcome {
    follow(&Client::new(&args.server)?, &args.id, args.server.format).await
}

/// Shows progress until the job is over, then the job.
pub(super) async fn follow(client: &Client, id: &str, format: Format) -> Outcome {
    let mut line = ProgressLine::new();
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let ended = tokio::select! {
        ended = stream(client, id, &mut line) => ended,
        // The job goes on; only the watching ends.
        _ = &mut interrupt => return Ok(Exit::Interrupted),
    };
    line.finish();
    ended?;
    let job = client.get(&format!("/jobs/{}", segment(id))).await?;
    print_job(&job, format);
    Ok(if job["status"] == "completed" { Exit::Ok } else { Exit::Failed })
}

async fn stream(client: &Client, id: &str, line: &mut ProgressLine) -> Result<(), Failed> {
    let path = format!("/jobs/{}/stream", segment(id));
    let (mut last, mut broken, mut seen) = (None::<String>, 0, false);
    loop {
        let opened = client.stream(&path, last.as_deref()).await;
        let mut bytes = match opened {
            Ok(response) => response.bytes_stream(),
            // A stream that was there once is worth waiting for; a server that never answered is a mistake to tell.
            Err(failed) if failed.exit == Exit::Unavailable && seen && broken < RETRIES => {
                broken += 1;
                note(format_args!("{:#}; trying again", failed.error));
                tokio::time::sleep(Duration::from_secs(1 << broken.min(4))).await;
                continue;
            }
            Err(failed) => return Err(failed),
        };
        seen = true;
        let mut parser = SseParser::default();
        while let Some(Ok(chunk)) = bytes.next().await {
            broken = 0;
            for event in parser.push(&chunk) {
                last = event.id.clone().or(last);
                if show(&event, line) {
                    return Ok(());
                }
            }
        }
        if broken >= RETRIES {
            return Err(Failed::msg(Exit::Unavailable, "the event stream keeps breaking off"));
        }
        broken += 1;
    }
}

/// Shows one event; whether it was the job's last.
fn show(event: &SseEvent, line: &mut ProgressLine) -> bool {
    let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
    line.show(&data);
    matches!(data["status"].as_str(), Some("completed" | "failed" | "cancelled"))
}

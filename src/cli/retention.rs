//! `flux retention`: what a server is about to remove.

use serde_json::Value;

use super::args::{Format, RetentionArgs};
use super::client::Client;
use super::output::{data, field, json, note, table};
use super::{Exit, Outcome};

pub(super) async fn run(args: &RetentionArgs) -> Outcome {
    let hours = args.hours.map(|hours| format!("&hours={hours}")).unwrap_or_default();
    let path = format!("/retention?limit={}{hours}", args.limit);
    let found = Client::new(&args.server)?.get(&path).await?;
    if args.server.format == Format::Json {
        json(&found);
        return Ok(Exit::Ok);
    }
    let list = |name: &str| found[name].as_array().cloned().unwrap_or_default();
    let jobs: Vec<_> = list("jobs").iter().map(|job| row("job", job, &job["finished_at"])).collect();
    let uploads: Vec<_> =
        list("uploads").iter().map(|upload| row("upload", upload, &upload["expires_at"])).collect();
    table(&["WHAT", "ID", "TENANT", "SINCE", "RESULTS"], &[jobs, uploads].concat());
    if found["more"] == true {
        note(format_args!("more: --limit {}", args.limit.saturating_mul(10).min(1000)));
    }
    data(&format!("{} removed things are still to be cleared from disk", field(&found["garbage"])));
    Ok(Exit::Ok)
}

fn row(what: &str, thing: &Value, since: &Value) -> Vec<String> {
    let results = thing["results"]
        .as_array()
        .map(|results| results.iter().map(|result| field(&result["path"])).collect::<Vec<_>>().join(" "));
    vec![
        what.to_owned(),
        field(&thing["id"]),
        field(&thing["tenant"]),
        field(since),
        results.unwrap_or_default(),
    ]
}

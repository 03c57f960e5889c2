//! `flux workers`.

use super::args::{Format, Server};
use super::client::Client;
use super::output::{field, json, table};
use super::{Exit, Outcome};

pub(super) async fn run(server: &Server) -> Outcome {
    let answer = Client::new(server)?.get("/workers").await?;
    if server.format == Format::Json {
        json(&answer);
        return Ok(Exit::Ok);
    }
    let workers = answer["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |worker: &serde_json::Value| {
        let capabilities = &worker["capabilities"];
        let encoders: Vec<String> =
            capabilities["encoders"].as_array().into_iter().flatten().map(field).collect();
        vec![
            field(&worker["id"]),
            field(&worker["state"]),
            format!("{}/{}", field(&worker["running"]), field(&worker["slots"])),
            field(&worker["address"]),
            field(&worker["reason"]),
            field(&capabilities["ffmpeg"]),
            encoders.join(" "),
        ]
    };
    let rows: Vec<_> = workers.iter().map(row).collect();
    table(&["ID", "STATE", "SLOTS", "ADDRESS", "REASON", "FFMPEG", "ENCODERS"], &rows);
    Ok(Exit::Ok)
}

//! `flux jobs | job | cancel | retry | delete | logs`.

use serde_json::Value;

use super::args::{Format, IdArgs, JobsArgs};
use super::client::Client;
use super::output::{data, field, json, note, table};
use super::{Exit, Failed, Outcome};

pub(super) async fn list(args: &JobsArgs) -> Outcome {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &args.limit.to_string());
    let filters = [("status", &args.status), ("label", &args.label), ("cursor", &args.cursor)];
    for (name, value) in filters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let page = Client::new(&args.server)?.get(&format!("/jobs?{}", query.finish())).await?;
    match args.server.format {
        Format::Json => json(&page),
        Format::Table => {
            let jobs = page["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
            let rows: Vec<_> = jobs.iter().map(row).collect();
            table(&["ID", "STATUS", "PROGRESS", "SOURCE", "OUTPUTS", "CREATED"], &rows);
            if let Some(cursor) = page["next_cursor"].as_str() {
                note(format_args!("more: --cursor {cursor}"));
            }
        }
    }
    Ok(Exit::Ok)
}

fn row(job: &Value) -> Vec<String> {
    let outputs = job["outputs"].as_array().map_or(0, Vec::len);
    vec![
        field(&job["id"]),
        field(&job["status"]),
        format!("{:.1} %", job["progress"].as_f64().unwrap_or(0.0)),
        source(&job["source"]),
        outputs.to_string(),
        field(&job["created_at"]),
    ]
}

fn source(source: &Value) -> String {
    let place = ["url", "path"].iter().find_map(|key| source[*key].as_str()).map(|s| field(&s.into()));
    let place = place.unwrap_or_else(|| match &source["id"] {
        Value::String(_) => format!("{} {}", field(&source["kind"]), field(&source["id"])),
        _ => field(&source["kind"]),
    });
    let length = place.chars().count();
    // The end of a path says more than its beginning.
    if length > 48 { format!("…{}", place.chars().skip(length - 47).collect::<String>()) } else { place }
}

pub(super) async fn show(args: &IdArgs) -> Outcome {
    let job = Client::new(&args.server)?.get(&format!("/jobs/{}", segment(&args.id))).await?;
    print_job(&job, args.server.format);
    Ok(Exit::Ok)
}

/// Writes one job.
pub(super) fn print_job(job: &Value, format: Format) {
    if format == Format::Json {
        return json(job);
    }
    data(&format!(
        "{}  {}  {:.1} %",
        field(&job["id"]),
        field(&job["status"]),
        job["progress"].as_f64().unwrap_or(0.0)
    ));
    data(&format!("source   {}", source(&job["source"])));
    for output in job["outputs"].as_array().into_iter().flatten() {
        let (index, preset, status) =
            (field(&output["index"]), field(&output["preset"]), field(&output["status"]));
        let place = output["result"]["url"].as_str().map_or_else(String::new, |url| field(&url.into()));
        data(format!("output {index} {preset}  {status}  {place}").trim_end());
        for warning in output["result"]["warnings"].as_array().into_iter().flatten() {
            data(&format!("         warning: {}", field(warning)));
        }
        // What made the whole job fail is said once, at the end.
        if output["error"] != job["error"] {
            print_error(&output["error"]);
        }
    }
    print_error(&job["error"]);
}

fn print_error(error: &Value) {
    if error.is_object() {
        data(&format!("error    {}: {}", field(&error["code"]), field(&error["message"])));
    }
}

pub(super) async fn cancel(args: &IdArgs) -> Outcome {
    let job =
        Client::new(&args.server)?.post(&format!("/jobs/{}/cancel", segment(&args.id)), None, None).await?;
    print_job(&job, args.server.format);
    Ok(Exit::Ok)
}

pub(super) async fn retry(args: &IdArgs) -> Outcome {
    let job =
        Client::new(&args.server)?.post(&format!("/jobs/{}/retry", segment(&args.id)), None, None).await?;
    print_job(&job, args.server.format);
    Ok(Exit::Ok)
}

pub(super) async fn delete(args: &IdArgs) -> Outcome {
    Client::new(&args.server)?.delete(&format!("/jobs/{}", segment(&args.id))).await?;
    Ok(Exit::Ok)
}

pub(super) async fn logs(args: &IdArgs) -> Outcome {
    let log = Client::new(&args.server)?.get(&format!("/jobs/{}/log", segment(&args.id))).await?;
    if args.server.format == Format::Json {
        json(&log);
        return Ok(Exit::Ok);
    }
    for attempt in log["attempts"].as_array().into_iter().flatten() {
        let (number, worker) = (field(&attempt["number"]), field(&attempt["worker_id"]));
        data(&format!("attempt {number} on {worker}: {}", field(&attempt["outcome"])));
        for line in attempt["lines"].as_array().into_iter().flatten() {
            data(&format!("  {}", field(line)));
        }
    }
    Ok(Exit::Ok)
}

/// An id as one path segment, whatever was typed.
pub(super) fn segment(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The id in a job's answer.
pub(super) fn id_of(job: &Value) -> Result<String, Failed> {
    let missing = || Failed::msg(Exit::Unavailable, "the server's answer has no job id");
    job["id"].as_str().map(str::to_owned).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sources_keep_their_end() {
        let shown = source(
            &serde_json::json!({"kind": "http", "url": format!("https://h/{}/film.mp4", "x".repeat(80))}),
        );
        assert_eq!(shown.chars().count(), 48);
        assert!(shown.ends_with("/film.mp4"));
        assert_eq!(source(&serde_json::json!({"kind": "inline"})), "inline");
        assert_eq!(source(&serde_json::json!({"kind": "upload", "id": "1b29"})), "upload 1b29");
    }

    #[test]
    fn ids_cannot_climb_paths() {
        assert_eq!(segment("../x?y"), "%2E%2E%2Fx%3Fy");
    }
}

//! The environment variables of the systems flux comes from (MEDIA-RULES §4, PEERS §1), as keys of ours.
//!
//! They rank above the file and below `FLUX__…`. A variable whose capability does not exist here is answered with
//! a warning and not with a refusal: names like `DATABASE_URL` are often meant for somebody else.

use std::collections::BTreeMap;

use config::{Map, Value, ValueKind};

use super::fault::{Fault, Origin};

/// Plain renames: (variable, key).
const RENAMED: &[(&str, &str)] = &[
    ("MAX_CONCURRENT_JOBS", "worker.slots"),
    ("WORKER_ID", "worker.id"),
    ("WORK_DIR", "worker.work_dir"),
    ("FFMPEG_PATH", "worker.ffmpeg"),
    ("FFPROBE_PATH", "worker.ffprobe"),
    ("QUEUE_MAX_ATTEMPTS", "queue.max_attempts"),
    ("RETENTION_HOURS", "retention.hours"),
    ("LOG_LEVEL", "log.level"),
    ("S3_REGION", "storage.region"),
    ("S3_ENDPOINT", "storage.endpoint"),
    ("S3_USE_PATH_STYLE", "storage.path_style"),
    ("S3_ACCESS_KEY", "storage.access_key_id"),
    ("S3_SECRET_KEY", "storage.secret_access_key"),
];

/// The cloud vendor's own variables: they fill what nothing else has said about a configured bucket.
#[derive(Debug, Default)]
pub(super) struct Ambient<'a> {
    pub(super) region: Option<&'a str>,
    /// Key and secret; half a pair is none.
    pub(super) pair: Option<(&'a str, &'a str)>,
    pub(super) session_token: Option<&'a str>,
}

const DATABASES: &[&str] =
    &["MYSQL_HOST", "MYSQL_PORT", "MYSQL_USER", "MYSQL_PASSWORD", "MYSQL_DATABASE", "REDIS_ADDR"];

/// What the variables say.
#[derive(Debug, Default)]
pub(super) struct Seeds {
    /// Values by dotted key, with their origin.
    pub(super) values: Map<String, Value>,
    /// Ports (`PORT`, `GRPC_PORT`) by the key of the address whose port they replace, whatever address is configured
    /// below `FLUX__…`.
    pub(super) ports: Vec<Port>,
    /// `API_KEY`, in clear.
    pub(super) api_key: Option<String>,
    /// Contradictions.
    pub(super) faults: Vec<Fault>,
    /// For the operator.
    pub(super) warnings: Vec<String>,
}

/// A port without an address.
#[derive(Debug)]
pub(super) struct Port {
    /// The key of the address.
    pub(super) key: &'static str,
    pub(super) variable: &'static str,
    pub(super) text: String,
}

/// Reads them. Empty variables count as absent: compose files set them so.
pub(super) fn read(env: &BTreeMap<String, String>) -> Seeds {
    let get = |name: &str| env.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let mut seeds = Seeds::default();
    for &(variable, key) in RENAMED {
        if let Some(value) = get(variable) {
            seeds.set(key, variable, value);
        }
    }
    let port = |key, names: &[&'static str]| {
        names.iter().find_map(|&variable| Some(Port { key, variable, text: get(variable)?.to_owned() }))
    };
    seeds.ports.extend(port("server.listen", &["PORT", "API_PORT"]));
    seeds.ports.extend(port("worker.listen", &["GRPC_PORT"]));
    if let Some(nodes) = get("WORKER_NODES") {
        let origin = Some("WORKER_NODES".to_owned());
        let nodes = nodes.split(',').map(str::trim).filter(|node| !node.is_empty());
        let nodes = nodes.map(|node| Value::new(origin.as_ref(), ValueKind::String(node.to_owned())));
        seeds
            .values
            .insert("workers.nodes".to_owned(), Value::new(origin.as_ref(), nodes.collect::<Vec<_>>()));
    }
    seeds.api_key = get("API_KEY").map(str::to_owned);
    if let Some(format) = get("ENV").and_then(log_format) {
        seeds.set("log.format", "ENV", format);
    }
    seeds.place(get("STORAGE_TYPE"), get("S3_BUCKET"), get("LOCAL_STORAGE_DIR"));
    seeds.warn(&get);
    seeds
}

/// Reads the vendor's variables.
pub(super) fn ambient(env: &BTreeMap<String, String>) -> Ambient<'_> {
    let get = |name: &str| env.get(name).map(String::as_str).filter(|value| !value.is_empty());
    Ambient {
        region: get("AWS_REGION").or_else(|| get("AWS_DEFAULT_REGION")),
        pair: get("AWS_ACCESS_KEY_ID").zip(get("AWS_SECRET_ACCESS_KEY")),
        session_token: get("AWS_SESSION_TOKEN"),
    }
}

/// Whether a variable is about a bucket, and so means nothing while results are kept in a folder.
pub(super) fn is_about_buckets(variable: &str) -> bool {
    variable.starts_with("S3_")
}

impl Seeds {
    fn set(&mut self, key: &str, variable: &str, value: &str) {
        let value = Value::new(Some(&variable.to_owned()), ValueKind::String(value.to_owned()));
        self.values.insert(key.to_owned(), value);
    }

    /// The seeds name the place of results in up to three variables; `STORAGE_TYPE` decides where it is given.
    fn place(&mut self, kind: Option<&str>, bucket: Option<&str>, folder: Option<&str>) {
        match (kind.map(str::to_ascii_lowercase).as_deref(), bucket, folder) {
            (Some("s3") | None, Some(bucket), _) => {
                self.set("storage.url", "S3_BUCKET", &format!("s3://{bucket}"));
            }
            (Some("s3"), None, _) => self.fault("needs S3_BUCKET as well"),
            (Some("local") | None, _, Some(folder)) => {
                self.set("storage.url", "LOCAL_STORAGE_DIR", &format!("file:{folder}"));
            }
            (Some("local") | None, ..) => {}
            (Some(_), ..) => self.fault("expected \"local\" or \"s3\""),
        }
    }

    fn fault(&mut self, problem: &str) {
        self.faults.push(Fault {
            key: "storage.url".to_owned(),
            problem: problem.to_owned(),
            origin: Origin::Variable("STORAGE_TYPE".to_owned()),
        });
    }

    fn warn<'a>(&mut self, get: &impl Fn(&str) -> Option<&'a str>) {
        let mut ignored = |names: &[&str], why: &str| {
            let found: Vec<&str> = names.iter().copied().filter(|name| get(name).is_some()).collect();
            if !found.is_empty() {
                self.warnings.push(format!("{} ignored: {why}", found.join(", ")));
            }
        };
        ignored(&["WORKER_STARTUP_TIMEOUT"], "waking workers is not in this build yet");
        ignored(DATABASES, "flux keeps jobs and queue in its own store and needs neither MySQL nor Redis");
        if get("DATABASE_URL").is_some_and(|url| url.starts_with("postgres")) {
            ignored(&["DATABASE_URL"], "a database is used where store.url (FLUX__STORE__URL) names it");
        }
        if get("DISABLE_AUTO_SHUTDOWN").is_some_and(|value| !is_true(value)) {
            ignored(&["DISABLE_AUTO_SHUTDOWN"], "stopping when idle is not in this build yet");
        }
    }
}

fn log_format(env: &str) -> Option<&'static str> {
    match env {
        "production" => Some("json"),
        "development" => Some("pretty"),
        _ => None,
    }
}

fn is_true(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
}

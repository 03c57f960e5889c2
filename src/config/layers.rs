//! Merging the sources into one document: defaults < file < seeds' variables < `FLUX__…` < flags.
//!
//! Each value keeps its origin, so that a fault can say where to look.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{ConfigError, File, FileFormat, Map, Source, Value, ValueKind};
use serde_path_to_error::Segment;

use super::document::{Document, Hidden, LATER, LISTS};
use super::fault::{Error, Fault, Origin};
use super::seeds::{self, Port, Seeds};
use super::{Overrides, Surroundings};

/// The one key with two spellings (MEDIA-RULES §4): higher sources use the second only.
const SECRET_ALIAS: (&str, &str) = ("storage.access_key_secret", "storage.secret_access_key");

/// Documents, origins and faults of one load.
pub(super) struct Merged {
    pub(super) document: Document,
    pub(super) origins: Origins,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<String>,
    pub(super) api_key: Option<String>,
}

/// Where each value came from.
#[derive(Clone)]
pub(super) struct Origins {
    tree: Value,
    file: Option<String>,
}

impl fmt::Debug for Origins {
    /// The values themselves hold secrets in clear.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Origins(…)")
    }
}

impl Origins {
    /// The configuration file that was read.
    pub(super) fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The origin of a key; an element of a list has its list's.
    pub(super) fn of(&self, key: &str) -> Origin {
        let path = key.split('[').next().unwrap_or(key);
        let mut value = &self.tree;
        for name in path.split('.') {
            let ValueKind::Table(table) = &value.kind else {
                break;
            };
            let Some(next) = table.get(name) else {
                return Origin::Default;
            };
            value = next;
        }
        match (value.origin(), &self.file) {
            (Some("--listen"), _) => Origin::Flag("--listen"),
            (Some("--grpc-listen"), _) => Origin::Flag("--grpc-listen"),
            (Some("--data-dir"), _) => Origin::Flag("--data-dir"),
            (Some("--log-level"), _) => Origin::Flag("--log-level"),
            (Some(variable), _) => Origin::Variable(variable.to_owned()),
            (None, Some(file)) => Origin::File(file.clone()),
            (None, None) => Origin::Default,
        }
    }
}

pub(super) fn merge(around: &Surroundings, overrides: &Overrides) -> Result<Merged, Error> {
    let file = find_file(around, overrides);
    let text = match &file {
        Some(path) => read_file(path)?,
        None => String::new(),
    };
    let Seeds { mut values, ports, api_key, mut faults, warnings } = seeds::read(&around.env);
    for port in &ports {
        listen_on_port(&text, port, &mut values, &mut faults)?;
    }
    let own = own_variables(&around.env, &mut faults);
    let flags = flags(overrides);
    let mut tree = build(&text, [Layer(values), Layer(own), Layer(flags)])?;
    drop_idle_bucket_settings(&mut tree);
    drop_outranked_alias(&mut tree);

    let file = file.map(|path| path.display().to_string());
    let mut origins = Origins { tree, file };
    let mut document = read_document(&mut origins, &mut faults);
    if document.storage.url.as_deref().is_some_and(|url| url.starts_with("s3:")) {
        fill_from_vendor(&around.env, &mut document);
    }
    Ok(Merged { document, origins, faults, warnings, api_key })
}

/// The named file, or the first of the usual places that exists. None is fine: every key has a default.
fn find_file(around: &Surroundings, overrides: &Overrides) -> Option<PathBuf> {
    if let Some(path) = &overrides.file {
        return Some(around.cwd.join(path));
    }
    let folder = |name: &str| around.env.get(name).filter(|path| path.starts_with('/')).map(PathBuf::from);
    let user = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
    let mut usual = vec![around.cwd.join("flux.toml")];
    usual.extend(user.map(|user| user.join("flux").join("flux.toml")));
    usual.into_iter().find(|path| path.is_file())
}

/// Reads the file and checks that it is TOML, with a message that does not quote it.
fn read_file(path: &Path) -> Result<String, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    match text.parse::<toml::Table>() {
        Ok(_) => Ok(text),
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text.as_bytes().iter().take(start).filter(|&&byte| byte == b'\n').count() + 1;
            Err(Error::Syntax { path: path.to_owned(), line, problem: error.message().to_owned() })
        }
    }
}

#[derive(Debug, Clone)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

fn build<const N: usize>(text: &str, layers: [Layer; N]) -> Result<Value, Error> {
    let mut builder = config::Config::builder().add_source(File::from_str(text, FileFormat::Toml));
    for layer in layers {
        builder = builder.add_source(layer);
    }
    let built = builder.build().map_err(|error| Error::Merge(Box::new(error)))?;
    Ok(built.cache)
}

/// A port keeps the host of the address below it and changes the port only.
fn listen_on_port(
    text: &str,
    Port { key, variable, text: port }: &Port,
    values: &mut Map<String, Value>,
    faults: &mut Vec<Fault>,
) -> Result<(), Error> {
    let Ok(port) = port.parse::<u16>() else {
        let origin = Origin::Variable((*variable).to_owned());
        faults.push(Fault { key: (*key).to_owned(), problem: "expected a port number".to_owned(), origin });
        return Ok(());
    };
    let configured = Origins { tree: build::<0>(text, [])?, file: None };
    let listen = match lookup(&configured.tree, key).map(|value| &value.kind) {
        Some(ValueKind::String(listen)) => listen.clone(),
        _ if *key == "worker.listen" => Document::default().worker.listen,
        _ => Document::default().server.listen,
    };
    let host = listen.rsplit_once(':').map_or(listen.as_str(), |(host, _)| host);
    values.insert((*key).to_owned(), text_value(variable, &format!("{host}:{port}")));
    Ok(())
}

/// `FLUX__SECTION__KEY`, lists comma-separated or, for lists of tables, in TOML brackets.
fn own_variables(env: &BTreeMap<String, String>, faults: &mut Vec<Fault>) -> Map<String, Value> {
    let mut values = Map::new();
    for (variable, text) in env {
        let Some(path) = variable.strip_prefix("FLUX__") else {
            continue;
        };
        let path = path.to_ascii_lowercase();
        let fault = |problem: String| Fault {
            key: path.replace("__", "."),
            problem,
            origin: Origin::Variable(variable.clone()),
        };
        let Some((section, key)) =
            path.split_once("__").filter(|(section, key)| is_name(section) && is_name(key))
        else {
            faults.push(fault("expected a variable of the form FLUX__SECTION__KEY".to_owned()));
            continue;
        };
        let dotted = match format!("{section}.{key}") {
            alias if alias == SECRET_ALIAS.0 => SECRET_ALIAS.1.to_owned(),
            dotted => dotted,
        };
        if !LISTS.contains(&dotted.as_str()) {
            values.insert(dotted, text_value(variable, text));
            continue;
        }
        match list(variable, text) {
            Ok(list) => {
                values.insert(dotted, list);
            }
            Err(problem) => faults.push(fault(problem)),
        }
    }
    values
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn list(variable: &str, text: &str) -> Result<Value, String> {
    let origin = variable.to_owned();
    if text.trim_start().starts_with('[') {
        let table = build::<0>(&format!("list = {text}"), []).ok();
        let kind = table.as_ref().and_then(|table| lookup(table, "list")).map(|value| value.kind.clone());
        return kind
            .map(|kind| Value::new(Some(&origin), kind))
            .ok_or_else(|| "not a list in TOML's form".to_owned());
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Ok(Value::new(Some(&origin), items.map(|item| text_value(variable, item)).collect::<Vec<_>>()))
}

fn flags(overrides: &Overrides) -> Map<String, Value> {
    let given = [
        ("server.listen", "--listen", overrides.listen.clone()),
        ("worker.listen", "--grpc-listen", overrides.grpc_listen.clone()),
        ("server.data_dir", "--data-dir", overrides.data_dir.as_ref().map(|path| path.display().to_string())),
        ("log.level", "--log-level", overrides.log_level.clone()),
    ];
    given
        .into_iter()
        .filter_map(|(key, flag, text)| Some((key.to_owned(), text_value(flag, &text?))))
        .collect()
}

fn text_value(origin: &str, text: &str) -> Value {
    Value::new(Some(&origin.to_owned()), ValueKind::String(text.to_owned()))
}

fn lookup<'a>(tree: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(tree, |value, name| match &value.kind {
        ValueKind::Table(table) => table.get(name),
        _ => None,
    })
}

/// `S3_REGION` and its like are often set for everything on a machine; they count only for a bucket.
fn drop_idle_bucket_settings(tree: &mut Value) {
    let url = lookup(tree, "storage.url").map(|value| value.kind.clone());
    if matches!(url, Some(ValueKind::String(url)) if url.starts_with("s3:")) {
        return;
    }
    let ValueKind::Table(sections) = &mut tree.kind else {
        return;
    };
    if let Some(ValueKind::Table(storage)) = sections.get_mut("storage").map(|value| &mut value.kind) {
        storage.retain(|_, value| !value.origin().is_some_and(seeds::is_about_buckets));
    }
}

/// The other spelling in the file must not stand beside the usual one from a higher source.
fn drop_outranked_alias(tree: &mut Value) {
    let (alias, usual) = SECRET_ALIAS;
    let outranked = lookup(tree, usual).is_some_and(|value| value.origin().is_some());
    if let Some((section, key)) = alias.split_once('.').filter(|_| outranked) {
        remove(tree, &[section.to_owned(), key.to_owned()]);
    }
}

/// Reads the tree as a document. serde stops at its first fault, so the faulty key is noted, taken out and the
/// rest read again; each round removes one key, so it ends.
fn read_document(origins: &mut Origins, faults: &mut Vec<Fault>) -> Document {
    loop {
        let error = match serde_path_to_error::deserialize::<_, Document>(origins.tree.clone()) {
            Ok(document) => return document,
            Err(error) => error,
        };
        let (key, names) = key_of(error.path());
        let problem = problem_of(&key, error.inner());
        faults.push(Fault { origin: origins.of(&key), key, problem });
        if !remove(&mut origins.tree, &names) {
            return Document::default();
        }
    }
}

/// The key as shown, and the section and key to take out.
fn key_of(path: &serde_path_to_error::Path) -> (String, Vec<String>) {
    let mut shown = String::new();
    let mut names = Vec::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => shown.extend(["[", &index.to_string(), "]"]),
            Segment::Map { key } => {
                if !shown.is_empty() {
                    shown.push('.');
                }
                shown.push_str(key);
                if names.len() < 2 {
                    names.push(key.clone());
                }
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    (shown, names)
}

fn problem_of(key: &str, error: &ConfigError) -> String {
    let later = LATER.iter().find(|(prefix, _)| key == *prefix || key.starts_with(&format!("{prefix}.")));
    if let Some((_, what)) = later {
        return format!("{what} are not in this build yet; remove the key");
    }
    match error {
        ConfigError::At { error, .. } => problem_of(key, error),
        // The value itself is left out: it may be a secret.
        ConfigError::Type { expected, .. } => format!("expected {expected}"),
        ConfigError::NotFound(field) => format!("`{field}` is missing"),
        ConfigError::Message(message) => match message.split_once(", expected ") {
            Some((what, _)) if what.starts_with("invalid type") && key.split('.').count() == 1 => {
                "expected a section with keys".to_owned()
            }
            Some((what, expected)) if what.starts_with("invalid type") => format!("expected {expected}"),
            Some((what, expected)) if what.starts_with("unknown field") => {
                format!("no such key; expected {expected}")
            }
            _ => message.clone(),
        },
        other => other.to_string(),
    }
}

fn remove(tree: &mut Value, names: &[String]) -> bool {
    let ValueKind::Table(sections) = &mut tree.kind else {
        return false;
    };
    match names {
        [] => false,
        [section] => sections.remove(section).is_some(),
        [section, key, ..] => match sections.get_mut(section).map(|value| &mut value.kind) {
            Some(ValueKind::Table(keys)) => keys.remove(key).is_some(),
            _ => false,
        },
    }
}

/// The vendor's variables fill gaps only, and a pair of keys comes from one place: half a pair of another is useless.
fn fill_from_vendor(env: &BTreeMap<String, String>, document: &mut Document) {
    let storage = &mut document.storage;
    let seeds::Ambient { region, pair, session_token } = seeds::ambient(env);
    if storage.region.is_none() {
        storage.region = region.map(str::to_owned);
    }
    let own = storage.access_key_id.is_some() || storage.secret_access_key.is_some();
    if let Some((id, secret)) = pair.filter(|_| !own) {
        storage.access_key_id = Some(id.to_owned());
        storage.secret_access_key = Some(Hidden(secret.into()));
        storage.session_token = session_token.map(|token| Hidden(token.into()));
    }
}

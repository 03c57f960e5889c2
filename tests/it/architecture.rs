//! The map of rooms, made executable: who may import whom, who may use which library, how long a file may be.
//!
//! `domain ← {config, media, storage, store, rpc} ← {worker, control} ← api ← cli ← main`; rooms of one tier do not
//! import each other. To add a room, add it to [`ROOMS`] and to ARCHITECTURE.md.

mod paths;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use paths::Named;

/// A room and the rooms it may import.
const ROOMS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("lifecycle", &[]),
    ("config", &["domain"]),
    ("media", &["domain"]),
    ("storage", &["domain"]),
    ("store", &["domain"]),
    ("rpc", &["domain"]),
    ("telemetry", &["domain", "config"]),
    // No store: a worker on another machine has no database.
    ("worker", &["domain", "config", "media", "storage", "rpc", "lifecycle", "telemetry"]),
    ("control", &["domain", "config", "media", "storage", "store", "rpc", "lifecycle", "telemetry"]),
    (
        "api",
        &[
            "domain",
            "config",
            "media",
            "storage",
            "store",
            "rpc",
            "lifecycle",
            "telemetry",
            "worker",
            "control",
        ],
    ),
    (
        "cli",
        &[
            "domain",
            "config",
            "media",
            "storage",
            "store",
            "rpc",
            "lifecycle",
            "telemetry",
            "worker",
            "control",
            "api",
        ],
    ),
    // The binary: it may also need what runs before the command line (the launcher in media).
    ("main", &["cli", "media"]),
];

/// A path prefix and the rooms that may use it. Test code may use any library.
const OWNED: &[(&[&str], &[&str])] = &[
    (&["sqlx"], &["store"]),
    (&["tonic"], &["rpc"]),
    (&["tonic_prost"], &["rpc"]),
    (&["prost"], &["rpc"]),
    (&["object_store"], &["storage"]),
    (&["suppaftp"], &["storage"]),
    // The control asks the API of whoever starts its workers (`control::waker`).
    (&["reqwest"], &["storage", "cli", "control"]),
    (&["anyhow"], &["cli", "main"]),
    (&["clap"], &["cli", "main"]),
    (&["std", "process", "Command"], &["media"]),
    (&["process", "Command"], &["media"]),
    (&["tokio", "process"], &["media"]),
    (&["std", "env"], &["config", "main"]),
    (&["tokio", "spawn"], &["lifecycle"]),
    (&["tokio", "signal"], &["lifecycle", "cli"]),
];

/// What `domain` must not know: it is pure.
const IMPURE: &[&[&str]] = &[
    &["tokio"],
    &["futures_util"],
    &["std", "fs"],
    &["std", "net"],
    &["std", "process"],
    &["std", "thread"],
    &["tracing"],
    &["metrics"],
];

/// A longer file tells more than one story.
const MAX_LINES: usize = 600;

/// One breach of the map.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    file: String,
    line: usize,
    problem: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.file, self.line, self.problem)
    }
}

/// Checks one file; `file` is its path below `src`.
fn check(file: &str, text: &str) -> Vec<Breach> {
    let breach = |line, problem: String| Breach { file: file.to_owned(), line, problem };
    let mut breaches = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        breaches.push(breach(lines, format!("{lines} lines; the cap is {MAX_LINES}: split it by story")));
    }
    let module = module_of(file);
    if module.len() <= 1 && file != "main.rs" && !text.starts_with("//!") {
        breaches.push(breach(1, "a room begins with its page (`//!`)".to_owned()));
    }
    // The crate's root is the map itself.
    let Some(room) = module.first() else {
        return breaches;
    };
    let Some((_, may_import)) = ROOMS.iter().find(|(name, _)| name == room) else {
        breaches.push(breach(1, format!("`{room}` is not on the map of rooms")));
        return breaches;
    };
    let test_file = file.ends_with("tests.rs") || file.contains("/tests/");
    for named in paths::paths(text) {
        if let Some(other) = imported_room(&named, &module)
            && other != *room
            && !may_import.contains(&other.as_str())
        {
            breaches.push(breach(named.line, format!("`{room}` must not import `{other}`")));
        }
        if !test_file && !named.in_test {
            breaches.extend(foreign(room, &named).map(|problem| breach(named.line, problem)));
        }
    }
    breaches
}

/// `config/typed.rs` → `[config, typed]`; the crate's root → `[]`.
fn module_of(file: &str) -> Vec<String> {
    match file {
        "lib.rs" => Vec::new(),
        _ => file.trim_end_matches(".rs").split('/').map(str::to_owned).collect(),
    }
}

/// The top-level module a path leads to, when it is written from the root or from above.
fn imported_room(named: &Named, module: &[String]) -> Option<String> {
    let mut here: Vec<&String> = module.iter().chain(&named.modules).collect();
    let mut rest = named.segments.as_slice();
    match rest.first()?.as_str() {
        "crate" => return rest.get(1).cloned(),
        "flux" if module == ["main"] => return rest.get(1).cloned(),
        "super" | "self" => {}
        _ => return None,
    }
    while let Some((first, more)) = rest.split_first() {
        match first.as_str() {
            "super" => {
                here.pop();
            }
            "self" => {}
            _ => break,
        }
        rest = more;
    }
    if here.is_empty() { rest.first().cloned() } else { here.first().map(|&room| room.clone()) }
}

/// Use of something that belongs to another room.
fn foreign(room: &str, named: &Named) -> Option<String> {
    let begins = |prefix: &[&str]| {
        named.segments.len() >= prefix.len()
            && named.segments.iter().zip(prefix).all(|(have, want)| have == want)
    };
    let owned = OWNED.iter().find(|(prefix, owners)| begins(prefix) && !owners.contains(&room));
    if let Some((prefix, owners)) = owned {
        return Some(format!("`{}` belongs to {}", prefix.join("::"), owners.join(", ")));
    }
    let impure = IMPURE.iter().find(|prefix| room == "domain" && begins(prefix));
    impure.map(|prefix| format!("`domain` is pure and must not use `{}`", prefix.join("::")))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_file_keeps_to_the_map() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    assert!(files.len() > 10, "the sources were not found");
    let mut breaches = Vec::new();
    for path in &files {
        let file = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        breaches.extend(check(&file, &fs::read_to_string(path).unwrap()));
    }
    let list: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{} breaches of the map:\n{}", list.len(), list.join("\n"));
}

#[test]
fn only_tiers_below_are_on_the_map() {
    for (n, (room, may_import)) in ROOMS.iter().enumerate() {
        for other in *may_import {
            let below = ROOMS.iter().take(n).any(|(name, _)| name == other);
            assert!(below, "{room} imports {other}, which is not below it");
        }
    }
}

fn problems(file: &str, text: &str) -> Vec<String> {
    check(file, text).into_iter().map(|breach| breach.problem).collect()
}

#[test]
fn the_direction_is_checked() {
    let upward = ["`media` must not import `worker`"];
    assert_eq!(problems("media/plan.rs", "use crate::worker::Slot;"), upward);
    assert_eq!(problems("media/plan.rs", "use crate::{domain::Job, worker};"), upward);
    assert_eq!(problems("media/plan.rs", "fn f(_: &crate::worker::Slot) {}"), upward);
    assert_eq!(problems("media/plan.rs", "use super::super::worker::Slot;"), upward);
    assert_eq!(problems("media/plan.rs", "mod a { use super::super::super::worker::Slot; }"), upward);
    assert_eq!(problems("media/plan.rs", "#[cfg(test)] mod tests { use crate::worker::Slot; }"), upward);
    assert_eq!(problems("storage/s3.rs", "use crate::media::Input;"), ["`storage` must not import `media`"]);
    assert_eq!(
        problems("worker/run.rs", "use crate::store::DynStore;"),
        ["`worker` must not import `store`"]
    );
    assert_eq!(problems("main.rs", "fn main() { flux::store::open() }"), ["`main` must not import `store`"]);
    let fine: [String; 0] = [];
    assert_eq!(
        problems("media/plan.rs", "use crate::domain::Job; use super::argv; use crate::media::x;"),
        fine
    );
    assert_eq!(problems("media/plan.rs", "mod tests { use super::*; use super::super::argv; }"), fine);
    assert_eq!(problems("cli/serve.rs", "use crate::{api, control, worker};"), fine);
    assert_eq!(problems("media/plan.rs", "// crate::worker\nconst A: &str = \"crate::worker::x\";"), fine);
}

#[test]
fn libraries_stay_in_their_rooms() {
    assert_eq!(problems("api/jobs.rs", "async fn f() { sqlx::query(\"\") }"), ["`sqlx` belongs to store"]);
    assert_eq!(problems("worker/run.rs", "use tonic::Status;"), ["`tonic` belongs to rpc"]);
    assert_eq!(problems("api/x.rs", "use reqwest as r;"), ["`reqwest` belongs to storage, cli, control"]);
    assert_eq!(problems("worker/a.rs", "use std::process::{Command, Stdio};").len(), 1);
    assert_eq!(problems("worker/a.rs", "use std::process; fn f() { process::Command::new(\"x\") }").len(), 1);
    assert_eq!(
        problems("store/a.rs", "fn f() { std::env::var(\"X\") }"),
        ["`std::env` belongs to config, main"]
    );
    assert_eq!(
        problems("worker/a.rs", "fn f() { tokio::spawn(x) }"),
        ["`tokio::spawn` belongs to lifecycle"]
    );
    assert_eq!(problems("domain/a.rs", "use std::fs;"), ["`domain` is pure and must not use `std::fs`"]);
    let fine: [String; 0] = [];
    assert_eq!(problems("store/sqlite.rs", "use sqlx::Row;"), fine);
    assert_eq!(problems("store/a.rs", "#[cfg(test)] mod tests { fn f() { std::env::temp_dir() } }"), fine);
    assert_eq!(problems("api/tests.rs", "use reqwest::Client;"), fine);
    assert_eq!(
        problems("api/a.rs", "use std::process::ExitCode; const V: &str = env!(\"CARGO_PKG_VERSION\");"),
        fine
    );
}

#[test]
fn rooms_have_a_page_and_files_an_end() {
    assert_eq!(problems("media.rs", "use std::fmt;"), ["a room begins with its page (`//!`)"]);
    assert_eq!(problems("lib.rs", "pub mod x;"), ["a room begins with its page (`//!`)"]);
    assert_eq!(problems("garage.rs", "//! Cars."), ["`garage` is not on the map of rooms"]);
    assert_eq!(problems("media/a.rs", &"\n".repeat(601)).len(), 1);
    assert_eq!(problems("media/a.rs", &"\n".repeat(600)).len(), 0);
}

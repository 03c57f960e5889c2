//! The Dockerfile and the files for Fly against the program they start. No image is built here.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use crate::support::server::flux;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The instructions of a Dockerfile with their arguments, by stage.
fn stages(text: &str) -> Vec<Vec<(String, String)>> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let mut stages: Vec<Vec<(String, String)>> = Vec::new();
    for line in joined.lines() {
        let Some((name, rest)) = line.split_once(' ') else { continue };
        if name == "FROM" {
            stages.push(Vec::new());
        }
        // What comes before the first stage is its arguments.
        if let Some(stage) = stages.last_mut() {
            stage.push((name.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    stages
}

fn one<'s>(stage: &'s [(String, String)], name: &str) -> &'s str {
    let mut found = stage.iter().filter(|(instruction, _)| instruction == name);
    let (_, value) = found.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(found.next().is_none(), "more than one {name}");
    value
}

/// A list in the form that is run without a shell.
fn exec(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("{text} is not in exec form"))
}

fn pairs(env: &str) -> BTreeMap<String, String> {
    let pair = |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    env.split(' ').filter_map(pair).collect()
}

/// Whether the real program takes this configuration for this role; what it says if not.
fn checked(role: &str, env: &BTreeMap<String, String>) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let mut command = flux(&["config", "check", "--role", role]);
    let output = command.current_dir(folder.path()).envs(env).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// What the program says it would do, given such a configuration.
fn shown(env: &BTreeMap<String, String>) -> Table {
    let folder = tempfile::tempdir().unwrap();
    let output = flux(&["config", "show"]).current_dir(folder.path()).envs(env).output().unwrap();
    String::from_utf8(output.stdout).unwrap().parse().unwrap()
}

/// The words of a command line that the program would understand.
fn parses(words: &[&str]) {
    let output = flux(words).arg("--help").output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn port(address: &Value) -> u16 {
    address.as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

fn span(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap()
}

fn image_env() -> BTreeMap<String, String> {
    let stages = stages(&file("Dockerfile"));
    pairs(one(stages.last().unwrap(), "ENV"))
}

#[test]
fn the_image_runs_the_program_as_nobody_special_below_an_init() {
    let stages = stages(&file("Dockerfile"));
    let image = stages.last().unwrap();
    let entry = exec(one(image, "ENTRYPOINT"));
    assert_eq!((entry[0].as_str(), entry.last().unwrap().as_str()), ("tini", "flux"));
    assert_eq!(entry[entry.len() - 2], "--");
    let command = exec(one(image, "CMD"));
    parses(&command.iter().map(String::as_str).collect::<Vec<_>>());
    let user = one(image, "USER").split(':').next().unwrap().to_owned();
    assert!(user.parse::<u32>().is_ok_and(|id| id > 0), "Kubernetes' runAsNonRoot reads numbers only");
    let (_, install) = image.iter().find(|(name, _)| name == "RUN").unwrap();
    assert!(install.contains(&format!("--uid {user} ")), "{install}");
    for package in ["ca-certificates", "ffmpeg", "tini"] {
        assert!(install.contains(&format!(" {package} ")), "{package}");
    }
    assert_eq!(one(image, "STOPSIGNAL"), "SIGTERM");
    let env = image_env();
    assert_eq!(one(image, "VOLUME"), env["FLUX__SERVER__DATA_DIR"]);
    assert!(install.contains(&format!("--owner flux --group flux {}", env["FLUX__SERVER__DATA_DIR"])));
}

#[test]
fn the_image_exposes_what_the_program_listens_on() {
    let stages = stages(&file("Dockerfile"));
    let exposed: Vec<u16> =
        one(stages.last().unwrap(), "EXPOSE").split(' ').map(|port| port.parse().unwrap()).collect();
    for config in [shown(&BTreeMap::new()), shown(&image_env())] {
        assert_eq!(exposed, [port(&config["server"]["listen"]), port(&config["worker"]["listen"])]);
    }
}

#[test]
fn the_image_starts_with_a_key_and_says_what_it_lacks_without() {
    let mut env = image_env();
    let refused = checked("all", &env).unwrap_err();
    assert!(refused.contains("API key"), "{refused}");
    env.insert("API_KEY".into(), "k".into());
    checked("all", &env).unwrap();
    let refused = checked("worker", &env).unwrap_err();
    assert!(refused.contains("worker.token"), "{refused}");
    env.insert("FLUX__WORKER__TOKEN".into(), "t".into());
    checked("worker", &env).unwrap();
}

/// It becomes a script for the linker as it stands.
#[test]
fn the_order_of_functions_is_a_list_of_their_names() {
    let order = file("start.order");
    let name = |line: &&str| line.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.$*".contains(&b));
    assert_eq!(order.lines().find(|line| line.len() < 3 || !name(line)), None);
    assert!(order.contains("_ZN4flux3cli"), "begins with the command line");
}

#[test]
fn the_build_copies_what_it_needs() {
    let manifest: Table = file("Cargo.toml").parse().unwrap();
    let rust = manifest["package"]["rust-version"].as_str().unwrap();
    let text = file("Dockerfile");
    assert!(text.contains(&format!("ARG RUST={rust}\n")), "rust-version is {rust}");
    let stages = stages(&text);
    let copied: Vec<&str> = stages[0]
        .iter()
        .filter(|(name, _)| name == "COPY")
        .flat_map(|(_, args)| args.rsplit_once(' ').unwrap().0.split(' '))
        .collect();
    let ignore = file(".dockerignore");
    let let_through: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert_eq!(copied, let_through, "what is copied is what the builder is sent");
    for path in &copied {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "{path}");
    }
    let targets = [&manifest["lib"], &manifest["bin"][0], &manifest["test"][0]];
    let mut paths: Vec<&str> = targets.iter().map(|target| target["path"].as_str().unwrap()).collect();
    paths.push("benches/whole.rs");
    for path in paths {
        assert!(copied.iter().any(|copied| path.starts_with(copied)), "{path}");
    }
}

struct Fly {
    config: Table,
    env: BTreeMap<String, String>,
}

/// With what its comments say is to be set as secrets.
fn fly(name: &str, secrets: &[&str]) -> Fly {
    let text = file(name);
    let config: Table = text.parse().unwrap();
    // An app's environment comes on top of its image's.
    let mut env = image_env();
    for (name, value) in config["env"].as_table().unwrap() {
        assert!(!name.starts_with("FLY_"), "Fly refuses {name}");
        env.insert(name.clone(), value.as_str().expect("only strings are allowed").to_owned());
    }
    let comments: String = text.lines().filter(|line| line.starts_with('#')).collect();
    for secret in secrets {
        assert!(comments.contains(&format!("{secret}=")), "{name} does not say that {secret} is needed");
        env.insert((*secret).to_owned(), "s3cr3t".to_owned());
    }
    let dockerfile = config["build"]["dockerfile"].as_str().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    assert!(folder.parent().unwrap().join(dockerfile).exists());
    Fly { config, env }
}

const BUCKET: [&str; 2] = ["FLUX__STORAGE__ACCESS_KEY_ID", "FLUX__STORAGE__SECRET_ACCESS_KEY"];

fn control() -> Fly {
    fly("fly.toml", &["API_KEY", "FLUX__WORKERS__TOKEN", "FLUX__WORKERS__FLY_TOKEN", BUCKET[0], BUCKET[1]])
}

fn worker() -> Fly {
    fly("deploy/fly.worker.toml", &["FLUX__WORKER__TOKEN", BUCKET[0], BUCKET[1]])
}

/// A process group's command, after the image's entry point.
fn role(fly: &Fly) -> String {
    let processes = fly.config["processes"].as_table().unwrap();
    let command = processes.values().next().unwrap().as_str().unwrap();
    let words: Vec<&str> = command.split(' ').collect();
    parses(&words);
    words.iter().skip_while(|word| **word != "--role").nth(1).unwrap().to_string()
}

#[test]
fn the_program_takes_what_the_files_for_fly_say() {
    for (fly, expected) in [(control(), "control"), (worker(), "worker")] {
        assert_eq!(role(&fly), expected);
        checked(expected, &fly.env).unwrap();
        assert_eq!(fly.config["kill_signal"].as_str(), Some("SIGTERM"));
        let kill = Duration::from_secs(fly.config["kill_timeout"].as_integer().unwrap().unsigned_abs());
        assert!(kill <= Duration::from_mins(5), "Fly's most");
        let drain = shown(&fly.env)["server"]["drain_timeout"].as_str().map(span).unwrap();
        assert!(
            drain + Duration::from_secs(15) <= kill,
            "{drain:?} of draining, {kill:?} until it is killed"
        );
    }
}

#[tokio::test]
async fn fly_asks_the_control_where_it_answers() {
    let control = control();
    let service = &control.config["http_service"];
    let listen = shown(&control.env);
    assert_eq!(service["internal_port"].as_integer(), Some(port(&listen["server"]["listen"]).into()));
    assert_eq!(service["auto_stop_machines"].as_str(), Some("off"));
    assert_eq!(
        control.config["mounts"][0]["destination"].as_str(),
        Some(control.env["FLUX__SERVER__DATA_DIR"].as_str())
    );
    let path = service["checks"][0]["path"].as_str().unwrap();
    let server = crate::support::server::Start::role(crate::support::server::Role::Control).server().await;
    assert_eq!(server.get(path).await.0, 200);
    let url = worker().env["FLUX__WORKER__CONTROL"].clone();
    let app = control.config["app"].as_str().unwrap();
    assert_eq!(url, format!("http://{app}.internal:{}", port(&listen["server"]["listen"])));
}

#[test]
fn workers_on_fly_are_woken_and_stop_by_themselves() {
    let (control, worker) = (control(), worker());
    assert_eq!(control.env["FLUX__WORKERS__WAKER"], "fly");
    assert_eq!(control.env["FLUX__WORKERS__FLY_APP"], worker.config["app"].as_str().unwrap());
    assert!(shown(&worker.env)["worker"].get("idle_timeout").is_some());
    for service in ["http_service", "services"] {
        assert!(worker.config.get(service).is_none(), "the proxy would stop a machine that encodes");
    }
    assert_eq!(
        worker.config["restart"][0]["policy"].as_str(),
        Some("on-failure"),
        "exit 0 must stay stopped"
    );
    for key in ["FLUX__STORAGE__URL", "FLUX__STORAGE__ENDPOINT", "FLUX__STORAGE__REGION"] {
        assert_eq!(control.env[key], worker.env[key], "they share the storage");
    }
}

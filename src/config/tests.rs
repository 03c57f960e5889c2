mod buckets;
mod reference;
mod roles;
mod seeds;
mod waking;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;

fn around(cwd: &Path) -> Surroundings {
    Surroundings {
        env: BTreeMap::new(),
        cwd: cwd.to_owned(),
        hostname: "box.example".to_owned(),
        cores: NonZeroUsize::new(4).unwrap(),
    }
}

/// Loads with this file and this environment in an empty folder.
fn load(file: &str, env: &[(&str, &str)]) -> Result<Config, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flux.toml");
    fs::write(&path, file).unwrap();
    let mut around = around(Path::new("/somewhere"));
    around.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::load(&around, &Overrides { file: Some(path), ..Overrides::default() })
}

fn faults(file: &str, env: &[(&str, &str)]) -> Vec<Fault> {
    match load(file, env) {
        Err(Error::Invalid(Faults(faults))) => faults,
        other => panic!("expected faults, got {other:?}"),
    }
}

#[test]
fn what_is_shown_reads_back() {
    let config =
        load("[queue]\nmax_pending = 7\n[sources]\nallow = [\"10.0.0.0/8\"]\nmax_bytes = \"3MB\"", &[])
            .unwrap();
    let shown = config.show();
    assert_eq!(load(&shown, &[]).unwrap().show(), shown);
    assert!(shown.contains("max_pending = 7"));
    assert!(shown.contains("data_dir = \"/somewhere/flux-data\""), "{shown}");
    assert_eq!(config.sources.limits.max_bytes, 3_000_000);
}

#[test]
fn derived_defaults() {
    let config = load("[server]\ndata_dir = \"/d\"", &[]).unwrap();
    assert_eq!(config.worker.work_dir, PathBuf::from("/d/work"));
    assert!(matches!(config.storage, Storage::Local { root } if root.as_path() == Path::new("/d/storage")));
    assert_eq!(config.worker.id.as_str(), "box.example");
    assert_eq!(config.worker.slots.get(), 4);
    assert_eq!(config.retention.keep, Duration::from_hours(168));
}

#[test]
fn later_sources_win() {
    let file = "[queue]\nmax_attempts = 1\nmax_pending = 1\n[log]\nlevel = \"warn\"\n[worker]\nslots = 1";
    let env = [
        ("QUEUE_MAX_ATTEMPTS", "2"),
        ("FLUX__QUEUE__MAX_ATTEMPTS", "5"),
        ("MAX_CONCURRENT_JOBS", "3"),
        ("FLUX__LOG__LEVEL", "info"),
    ];
    let config = load(file, &env).unwrap();
    assert_eq!(config.queue.max_pending, 1);
    assert_eq!(config.queue.max_attempts.get(), 5);
    assert_eq!(config.worker.slots.get(), 3);
    assert_eq!(config.log.filter, "info");

    let overrides = Overrides {
        listen: Some("127.0.0.1:0".to_owned()),
        data_dir: Some("other".into()),
        log_level: Some("debug".to_owned()),
        ..Overrides::default()
    };
    let mut around = around(Path::new("/nowhere"));
    around.env.insert("FLUX__LOG__LEVEL".to_owned(), "info".to_owned());
    let config = Config::load(&around, &overrides).unwrap();
    assert_eq!(config.server.listen.port(), 0);
    assert_eq!(config.server.data_dir, PathBuf::from("/nowhere/other"));
    assert_eq!(config.log.filter, "debug");
}

#[test]
fn the_file_is_found_in_the_usual_places() {
    let dir = tempfile::tempdir().unwrap();
    let mut around = around(&dir.path().join("cwd"));
    around.env.insert("HOME".to_owned(), dir.path().display().to_string());
    let attempts =
        |around: &Surroundings| Config::load(around, &Overrides::default()).unwrap().queue.max_attempts.get();
    assert_eq!(attempts(&around), 3);
    fs::create_dir_all(dir.path().join(".config/flux")).unwrap();
    fs::write(dir.path().join(".config/flux/flux.toml"), "[queue]\nmax_attempts = 4").unwrap();
    assert_eq!(attempts(&around), 4);
    fs::create_dir_all(&around.cwd).unwrap();
    fs::write(around.cwd.join("flux.toml"), "[queue]\nmax_attempts = 5").unwrap();
    assert_eq!(attempts(&around), 5);

    let overrides = Overrides { file: Some("missing.toml".into()), ..Overrides::default() };
    assert!(matches!(Config::load(&around, &overrides), Err(Error::Read { .. })));
}

#[test]
fn a_syntax_error_names_the_line_and_does_not_quote_it() {
    let error = load("[storage]\n\nsecret_access_key = \"s3cr3t", &[]).unwrap_err();
    assert!(matches!(error, Error::Syntax { line: 3, .. }), "{error:?}");
    assert!(!error.to_string().contains("s3cr3t"), "{error}");
}

#[test]
fn all_faults_come_at_once_with_their_origin() {
    let file = r#"
        [server]
        listen = "here"
        drain_timeout = 5
        [queue]
        max_pendng = 5
        max_attempts = "many"
        [sources]
        allow = ["127.0.0.0/8", "10.0.0.0/99"]
        max_bytes = "big"
        [log]
        format = "xml"
        [verify]
        level = "half"
        [nonsense]
        a = 1
    "#;
    let found =
        faults(file, &[("FLUX__WORKER__NICE", "20"), ("FLUX__WORKER", "x"), ("RETENTION_HOURS", "0")]);
    let keys: Vec<&str> = found.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "log.format",
            "nonsense",
            "queue.max_attempts",
            "queue.max_pendng",
            "retention.hours",
            "server.drain_timeout",
            "server.listen",
            "sources.allow[1]",
            "sources.max_bytes",
            "verify.level",
            "worker",
            "worker.nice",
        ]
    );
    for fault in &found {
        let expected = match fault.key.as_str() {
            "worker.nice" => Origin::Variable("FLUX__WORKER__NICE".to_owned()),
            "worker" => Origin::Variable("FLUX__WORKER".to_owned()),
            "retention.hours" => Origin::Variable("RETENTION_HOURS".to_owned()),
            _ => {
                assert!(
                    matches!(&fault.origin, Origin::File(path) if path.ends_with("flux.toml")),
                    "{fault}"
                );
                continue;
            }
        };
        assert_eq!(fault.origin, expected, "{fault}");
    }
    let text = Faults(found).to_string();
    for part in [
        "queue.max_pendng: no such key; expected one of `max_pending`, `max_pending_per_tenant`, `max_attempts` (file ",
        "queue.max_attempts: expected an integer",
        "verify.level: unknown variant `half`, expected one of `probe`, `sampled`, `full`",
        "worker.nice: must be from 0 to 19 (environment variable FLUX__WORKER__NICE)",
    ] {
        assert!(text.contains(part), "{part} not in:\n{text}");
    }
}

#[test]
fn a_section_that_is_a_value_is_a_fault() {
    let found = faults("queue = 5\n[worker]\nnice = 30", &[]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].key, "queue");
    assert_eq!(found[0].problem, "expected a section with keys");
}

#[test]
fn keys_of_later_builds_are_refused_with_the_reason() {
    let file = "[split]\nchunk = \"6s\"\n[scratch]\nurl = \"x\"";
    let found = faults(file, &[]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|fault| fault.problem.contains("not in this build yet")), "{found:?}");
}

#[test]
fn lists_in_the_environment() {
    let hash = "ab".repeat(32);
    let config = load(
        "[sources]\nallow = [\"x.example\"]",
        &[
            ("FLUX__SOURCES__ALLOW", "127.0.0.0/8, nas.local,"),
            ("FLUX__DESTINATIONS__FILE_ROOTS", ""),
            ("FLUX__AUTH__KEYS", &format!("[{{ name = \"ci\", sha256 = \"{hash}\" }}]")),
        ],
    )
    .unwrap();
    let allow: Vec<String> = config.sources.allow.iter().map(ToString::to_string).collect();
    assert_eq!(allow, ["127.0.0.0/8", "nas.local"]);
    assert!(config.destination_roots.is_empty());
    assert_eq!(config.keys[0].tenant.as_str(), "ci");
    assert_eq!(config.keys[0].hash, KeyHash([0xab; 32]));
    assert!(config.keys[0].allows(Scope::JobsWrite) && !config.keys[0].allows(Scope::Admin));
    assert_eq!(faults("", &[("FLUX__AUTH__KEYS", "[oops")])[0].key, "auth.keys");
}

#[test]
fn a_faulty_key_is_not_mistaken_for_no_key() {
    let file = "[server]\nlisten = \"0.0.0.0:1\"\n[auth]\nkeys = [{ name = \"a\", sha256 = \"12\", scopes = [\"x\"] }, \
                { name = \"b\", tenant = \"no good\", sha256 = \"12\", scopes = [] }]";
    let keys: Vec<String> = faults(file, &[]).into_iter().map(|fault| fault.key).collect();
    let at = ["0].scopes[0]", "0].sha256", "1].scopes", "1].sha256", "1].tenant"];
    assert_eq!(keys, at.map(|at| format!("auth.keys[{at}")));
}

#[test]
fn two_keys_do_not_share_a_name_or_a_hash() {
    let key = |name: &str| format!("{{ name = \"{name}\", sha256 = \"{}\" }}", "0".repeat(64));
    let file = format!("[auth]\nkeys = [{}, {}, {}]", key("a"), key("a"), key("b"));
    let keys: Vec<String> = faults(&file, &[]).into_iter().map(|fault| fault.key).collect();
    assert_eq!(keys, ["auth.keys[1].name", "auth.keys[1].sha256", "auth.keys[2].sha256"]);
}

#[test]
fn secrets_are_shown_nowhere() {
    let file = format!(
        "[storage]\nurl = \"s3://media\"\naccess_key_id = \"AK\"\nsecret_access_key = \"s3cr3t\"\n\
         [secrets]\nkeys = [\"{}\"]\n[auth]\nkeys = [{{ name = \"a\", sha256 = \"{}\" }}]",
        base64_of(b's'),
        "c0".repeat(32)
    );
    let config = load(&file, &[("API_KEY", "plain-key")]).unwrap();
    assert_eq!(config.sealing_keys[0].expose(), &[b's'; 32]);
    let shown = format!("{}\n{config:?}", config.show());
    for secret in ["s3cr3t", &base64_of(b's'), &"c0".repeat(32), "plain-key", "[115, 115"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    let found = faults(&format!("{file}\n[queue]\nx = 1").replace("keys = [\"", "keys = [\"hush"), &[]);
    assert!(!Faults(found).to_string().contains("hush"));
}

fn base64_of(byte: u8) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode([byte; 32])
}

#[test]
fn a_database_is_named_by_its_address_and_its_password_is_given_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "fr0m-file\n").unwrap();
    let at = |url: &str, more: &str| format!("[store]\nurl = \"{url}\"\n{more}\n");
    let from_file = format!("password_file = {file:?}");
    for (url, more, password) in [
        ("postgres://u@h/d", "", None),
        ("postgresql://u:p%40ss@h:5433/d?sslmode=require", "", Some("p@ss")),
        ("postgres://u@h/d", "password = \"beside\"", Some("beside")),
        ("postgres://u@h/d", &from_file, Some("fr0m-file")),
    ] {
        let config = load(&at(url, more), &[]).unwrap();
        let Store::Postgres(postgres) = &config.store else { panic!("{:?}", config.store) };
        let read = postgres.read_password().unwrap();
        assert_eq!(read.as_ref().map(secrecy::ExposeSecret::expose_secret), password);
        let shown = format!("{}\n{config:?}", config.show());
        assert!(
            !["p%40ss", "p@ss", "beside", "fr0m-file"].iter().any(|secret| shown.contains(secret)),
            "{shown}"
        );
    }
    for (file, key) in [
        (at("mysql://u@h/d", ""), "store.url"),
        (at("postgres", ""), "store.url"),
        (at("postgres://u@h", ""), "store.url"),
        (at("postgres://u:a@h/d", "password = \"b\""), "store.url"),
        (at("sqlite", "password = \"b\""), "store.password"),
    ] {
        assert_eq!(faults(&file, &[]).iter().map(|f| f.key.as_str()).collect::<Vec<_>>(), [key], "{file}");
    }
}

#[test]
fn a_record_that_controls_share_needs_a_key_that_they_share() {
    let resolve = |file: &str| Plan::resolve(Role::Control, &load(file, &[]).unwrap());
    let file = "[store]\nurl = \"postgres://u@h/d\"\npassword_file = \"/nowhere/at/all\"";
    let Err(Error::Invalid(Faults(found))) = resolve(file) else { panic!("it is not complete") };
    assert_eq!(
        found.iter().map(|f| f.key.as_str()).collect::<Vec<_>>(),
        ["secrets.keys", "store.password_file"]
    );
    let whole = format!("[store]\nurl = \"postgres://u@h/d\"\n[secrets]\nkeys = [\"{}\"]", base64_of(b'k'));
    assert!(resolve(&whole).is_ok());
    assert!(Plan::resolve(Role::Worker, &load(file, &[]).unwrap()).is_ok(), "a worker has no record");
}

#[test]
fn programs_are_looked_up_in_path() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("ffmpeg");
    fs::write(&program, "").unwrap();
    let path = dir.path().display().to_string();
    let ffmpeg = |file: &str| load(file, &[("PATH", &path)]).unwrap().worker.ffmpeg;
    assert_eq!(ffmpeg(""), PathBuf::from("ffmpeg"));
    std::os::unix::fs::PermissionsExt::set_mode(&mut program.metadata().unwrap().permissions(), 0o755);
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(ffmpeg(""), program);
    assert_eq!(ffmpeg("[worker]\nffmpeg = \"bin/ff\""), PathBuf::from("/somewhere/bin/ff"));
}

#[test]
fn preset_documents_come_sorted() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("b.toml", "2"), ("a.toml", "1"), ("note.txt", "no")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let presets = load(&format!("[presets]\ndir = {:?}", dir.path()), &[]).unwrap().presets;
    let names: Vec<(&str, &str)> =
        presets.iter().map(|preset| (preset.file.as_str(), preset.text.as_str())).collect();
    assert_eq!(names, [("a.toml", "1"), ("b.toml", "2")]);
    assert_eq!(faults("[presets]\ndir = \"/does/not/exist\"", &[])[0].key, "presets.dir");
}

#[test]
fn roots_are_folders_below_the_root() {
    let config = load("[sources]\nfile_roots = [\"media\"]", &[]).unwrap();
    assert_eq!(config.sources.file_roots, [PathBuf::from("/somewhere/media")]);
    assert_eq!(config.warnings.len(), 1);
    assert_eq!(faults("[destinations]\nfile_roots = [\"/\"]", &[])[0].key, "destinations.file_roots[0]");
}

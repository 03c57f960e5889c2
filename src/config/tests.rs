use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::json;

use super::document::{self, Document};
use super::*;

const REFERENCE: &str = include_str!("../../config/flux.toml");

fn around(cwd: &std::path::Path) -> Surroundings {
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
    let mut around = around(std::path::Path::new("/somewhere"));
    around.env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Config::load(
        &around,
        &Overrides {
            file: Some(path),
            ..Overrides::default()
        },
    )
}

fn faults(file: &str, env: &[(&str, &str)]) -> Vec<Fault> {
    match load(file, env) {
        Err(Error::Invalid(Faults(faults))) => faults,
        other => panic!("expected faults, got {other:?}"),
    }
}

/// The reference with its commented keys switched on.
fn reference_in_full() -> String {
    let is_key = |line: &str| {
        line.strip_prefix("# ")
            .and_then(|rest| rest.split_once(" = "))
            .is_some_and(|(key, _)| {
                key.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            })
    };
    REFERENCE
        .lines()
        .map(|line| if is_key(line) { &line[2..] } else { line })
        .collect::<Vec<_>>()
        .join("\n")
}

fn keys_of(table: &toml::Table) -> BTreeSet<String> {
    table
        .iter()
        .flat_map(|(section, keys)| {
            keys.as_table()
                .unwrap()
                .keys()
                .map(move |key| format!("{section}.{key}"))
        })
        .collect()
}

/// Field names of a section, from serde's own refusal of a field that is none.
fn fields<T: serde::de::DeserializeOwned>(section: &str) -> Vec<String> {
    let error = serde_json::from_value::<T>(json!({"?": 0}))
        .err()
        .unwrap()
        .to_string();
    let (_, names) = error.split_once("expected").unwrap();
    let names = names
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| *name != "access_key_secret");
    names.map(|name| format!("{section}.{name}")).collect()
}

#[test]
fn the_reference_holds_the_defaults() {
    let (plain, reference) = (load("", &[]).unwrap(), load(REFERENCE, &[]).unwrap());
    assert_eq!(plain.show(), reference.show());
    assert!(plain.warnings.is_empty());
}

#[test]
fn the_reference_names_every_key() {
    use document::{
        Auth, Destinations, Log, Presets, Queue, Retention, Secrets, Server, Sources, Storage, Store, Verify,
        Worker,
    };
    let full: toml::Table = reference_in_full().parse().unwrap();
    serde_json::from_value::<Document>(serde_json::to_value(&full).unwrap()).unwrap();
    let known = [
        fields::<Server>("server"),
        fields::<Auth>("auth"),
        fields::<Store>("store"),
        fields::<Storage>("storage"),
        fields::<Secrets>("secrets"),
        fields::<Sources>("sources"),
        fields::<Destinations>("destinations"),
        fields::<Queue>("queue"),
        fields::<Worker>("worker"),
        fields::<Verify>("verify"),
        fields::<Presets>("presets"),
        fields::<Retention>("retention"),
        fields::<Log>("log"),
    ];
    let known: BTreeSet<String> = known.into_iter().flatten().collect();
    assert_eq!(keys_of(&full), known);
    let sections: BTreeSet<String> = fields::<Document>("").into_iter().collect();
    assert_eq!(
        sections,
        full.keys().map(|section| format!(".{section}")).collect()
    );
    for list in document::LISTS {
        assert!(known.contains(*list), "{list}");
    }
    for (later, _) in document::LATER {
        assert!(!known.contains(*later), "{later}");
    }
}

#[test]
fn the_reference_explains_every_key() {
    let full = reference_in_full();
    let lines: Vec<&str> = full.lines().collect();
    let mut explained = 0;
    for pair in lines.windows(2) {
        if !pair[1].starts_with('#') && pair[1].contains(" = ") {
            assert!(pair[0].starts_with("# "), "no comment above: {}", pair[1]);
            explained += 1;
        }
    }
    assert_eq!(explained, keys_of(&full.parse().unwrap()).len());
}

#[test]
fn what_is_shown_reads_back() {
    let config = load(
        "[queue]\nmax_pending = 7\n[sources]\nallow = [\"10.0.0.0/8\"]\nmax_bytes = \"3MB\"",
        &[],
    )
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
    assert!(matches!(config.storage, Storage::Local { root } if root == PathBuf::from("/d/storage")));
    assert_eq!(config.worker.id.as_str(), "box.example");
    assert_eq!(config.worker.slots.get(), 4);
    assert_eq!(config.retention, Duration::from_secs(7 * 24 * 3600));
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
    let mut around = around(std::path::Path::new("/nowhere"));
    around
        .env
        .insert("FLUX__LOG__LEVEL".to_owned(), "info".to_owned());
    let config = Config::load(&around, &overrides).unwrap();
    assert_eq!(config.server.listen.port(), 0);
    assert_eq!(config.server.data_dir, PathBuf::from("/nowhere/other"));
    assert_eq!(config.log.filter, "debug");
}

#[test]
fn the_file_is_found_in_the_usual_places() {
    let dir = tempfile::tempdir().unwrap();
    let mut around = around(&dir.path().join("cwd"));
    around
        .env
        .insert("HOME".to_owned(), dir.path().display().to_string());
    let attempts = |around: &Surroundings| {
        Config::load(around, &Overrides::default())
            .unwrap()
            .queue
            .max_attempts
            .get()
    };
    assert_eq!(attempts(&around), 3);
    fs::create_dir_all(dir.path().join(".config/flux")).unwrap();
    fs::write(
        dir.path().join(".config/flux/flux.toml"),
        "[queue]\nmax_attempts = 4",
    )
    .unwrap();
    assert_eq!(attempts(&around), 4);
    fs::create_dir_all(&around.cwd).unwrap();
    fs::write(around.cwd.join("flux.toml"), "[queue]\nmax_attempts = 5").unwrap();
    assert_eq!(attempts(&around), 5);

    let overrides = Overrides {
        file: Some("missing.toml".into()),
        ..Overrides::default()
    };
    assert!(matches!(
        Config::load(&around, &overrides),
        Err(Error::Read { .. })
    ));
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
    let found = faults(
        file,
        &[
            ("FLUX__WORKER__NICE", "20"),
            ("FLUX__WORKER", "x"),
            ("RETENTION_HOURS", "0"),
        ],
    );
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
        "queue.max_pendng: no such key; expected `max_pending` or `max_attempts` (file ",
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
    let file = "[workers]\nnodes = [\"a:1\"]\n[worker]\ntoken = \"t\"\n[split]\nchunk = \"6s\"\n[webhooks]\nsecret = \"w\"\n\
                [scratch]\nurl = \"x\"\n[storage.profiles.a]\nurl = \"x\"\n[store]\nurl = \"postgres://h/d\"";
    let found = faults(file, &[]);
    assert_eq!(found.len(), 7, "{found:?}");
    assert!(
        found
            .iter()
            .all(|fault| fault.problem.contains("not in this build yet")),
        "{found:?}"
    );
    for role in [Role::Control, Role::Worker] {
        let error = Plan::resolve(role, load("", &[]).unwrap()).unwrap_err();
        assert!(error.to_string().contains("not in this build yet"));
    }
    assert!(matches!(
        Plan::resolve(Role::All, load("", &[]).unwrap()),
        Ok(Plan::All(_))
    ));
}

#[test]
fn lists_in_the_environment() {
    let hash = "ab".repeat(32);
    let config = load(
        "[sources]\nallow = [\"x.example\"]",
        &[
            ("FLUX__SOURCES__ALLOW", "127.0.0.0/8, nas.local,"),
            ("FLUX__DESTINATIONS__FILE_ROOTS", ""),
            (
                "FLUX__AUTH__KEYS",
                &format!("[{{ name = \"ci\", sha256 = \"{hash}\" }}]"),
            ),
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
fn without_keys_only_loopback_is_served() {
    let open = "[server]\nlisten = \"0.0.0.0:8080\"\n";
    let found = faults(open, &[]);
    assert_eq!(found[0].key, "server.listen");
    assert!(found[0].problem.contains("flux key new"), "{}", found[0]);
    assert!(load(open, &[("API_KEY", "k")]).is_ok());
    let key = format!("[[auth.keys]]\nname = \"a\"\nsha256 = \"{}\"", "0".repeat(64));
    assert!(load(&format!("{open}{key}"), &[]).is_ok());
    assert!(load("[server]\nlisten = \"[::1]:1\"", &[]).is_ok());
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
    assert_eq!(
        keys,
        ["auth.keys[1].name", "auth.keys[1].sha256", "auth.keys[2].sha256"]
    );
}

#[test]
fn the_seeds_variables() {
    let config = load(
        "[server]\nlisten = \"127.0.0.1:1\"",
        &[
            ("PORT", "9000"),
            ("WORKER_ID", "w7"),
            ("WORK_DIR", "/tmp/w"),
            ("RETENTION_HOURS", "24"),
            ("LOG_LEVEL", "debug"),
            ("ENV", "production"),
            ("API_KEY", "abc"),
            ("LOCAL_STORAGE_DIR", "/media/out"),
            ("S3_REGION", "eu-west-1"),
            ("AWS_ACCESS_KEY_ID", "AK"),
            ("WORKER_NODES", "a:1"),
            ("GRPC_PORT", "50051"),
            ("REDIS_ADDR", "r:1"),
            ("MYSQL_HOST", ""),
            ("DATABASE_URL", "postgres://h/d"),
            ("DISABLE_AUTO_SHUTDOWN", "true"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.listen, "127.0.0.1:9000".parse().unwrap());
    assert_eq!(config.worker.id.as_str(), "w7");
    assert_eq!(config.worker.work_dir, PathBuf::from("/tmp/w"));
    assert_eq!(config.retention, Duration::from_secs(24 * 3600));
    assert_eq!(
        (config.log.format, config.log.filter.as_str()),
        (LogFormat::Json, "debug")
    );
    assert!(matches!(&config.storage, Storage::Local { root } if root == &PathBuf::from("/media/out")));
    // SHA-256 of "abc", FIPS 180-2 appendix B.1.
    assert_eq!(config.keys[0].hash.0[..4], [0xba, 0x78, 0x16, 0xbf]);
    assert_eq!(config.keys[0].tenant, Tenant::local());
    assert_eq!(config.warnings.len(), 3, "{:?}", config.warnings);
    assert!(
        config.warnings[0].starts_with("WORKER_NODES, GRPC_PORT ignored"),
        "{:?}",
        config.warnings
    );
    assert!(load("", &[("API_PORT", "9000")]).is_ok_and(|config| config.server.listen.port() == 9000));
    assert_eq!(faults("", &[("PORT", "tcp://x")])[0].key, "server.listen");
}

fn s3(file: &str, env: &[(&str, &str)]) -> S3 {
    match load(file, env).unwrap().storage {
        Storage::S3(s3) => s3,
        Storage::Local { root } => panic!("expected a bucket, got {}", root.display()),
    }
}

#[test]
fn a_bucket_from_the_seeds_variables() {
    let env = [
        ("STORAGE_TYPE", "s3"),
        ("S3_BUCKET", "media"),
        ("S3_REGION", "eu-west-1"),
        ("S3_ENDPOINT", "http://minio:9000"),
        ("S3_ACCESS_KEY", "AK"),
        ("S3_SECRET_KEY", "s3cr3t"),
    ];
    let bucket = s3("[storage]\nregion = \"other\"", &env);
    assert_eq!(
        (bucket.bucket.as_str(), bucket.region.as_str(), bucket.path_style),
        ("media", "eu-west-1", true)
    );
    assert_eq!(bucket.credentials.unwrap().access_key_id, "AK");
    assert_eq!(faults("", &[("STORAGE_TYPE", "s3")])[0].key, "storage.url");
    assert_eq!(
        faults("", &[("STORAGE_TYPE", "gcs")])[0].problem,
        "expected \"local\" or \"s3\""
    );
    assert!(load("", &[("STORAGE_TYPE", "local"), ("S3_BUCKET", "media")]).is_ok());
}

#[test]
fn the_vendors_variables_fill_gaps_and_never_mix_pairs() {
    let ambient = [
        ("AWS_REGION", "eu-north-1"),
        ("AWS_ACCESS_KEY_ID", "ambient"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_SESSION_TOKEN", "t"),
    ];
    let bucket = s3("[storage]\nurl = \"s3://media/a\"", &ambient);
    assert_eq!((bucket.region.as_str(), bucket.path_style), ("eu-north-1", false));
    assert_eq!(bucket.prefix.unwrap().as_str(), "a");
    assert!(bucket.credentials.unwrap().session_token.is_some());

    let own = "[storage]\nurl = \"s3://media\"\naccess_key_id = \"own\"\naccess_key_secret = \"y\"";
    let credentials = s3(own, &ambient).credentials.unwrap();
    assert_eq!(credentials.access_key_id, "own");
    assert!(credentials.session_token.is_none());
    assert_eq!(
        faults(
            "[storage]\nurl = \"s3://media\"\naccess_key_id = \"own\"",
            &ambient
        )[0]
        .problem,
        "needs storage.secret_access_key as well"
    );
    assert_eq!(faults("[storage]\nregion = \"x\"", &[])[0].key, "storage.region");
    assert!(s3("[storage]\nurl = \"s3://media\"", &[]).credentials.is_none());
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
    for secret in [
        "s3cr3t",
        &base64_of(b's'),
        &"c0".repeat(32),
        "plain-key",
        "[115, 115",
    ] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    let found = faults(
        &format!("{file}\n[queue]\nx = 1").replace("keys = [\"", "keys = [\"hush"),
        &[],
    );
    assert!(!Faults(found).to_string().contains("hush"));
}

fn base64_of(byte: u8) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode([byte; 32])
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
    assert_eq!(
        ffmpeg("[worker]\nffmpeg = \"bin/ff\""),
        PathBuf::from("/somewhere/bin/ff")
    );
}

#[test]
fn preset_documents_come_sorted() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("b.toml", "2"), ("a.toml", "1"), ("note.txt", "no")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let presets = load(&format!("[presets]\ndir = {:?}", dir.path()), &[])
        .unwrap()
        .presets;
    let names: Vec<(&str, &str)> = presets
        .iter()
        .map(|preset| (preset.file.as_str(), preset.text.as_str()))
        .collect();
    assert_eq!(names, [("a.toml", "1"), ("b.toml", "2")]);
    assert_eq!(
        faults("[presets]\ndir = \"/does/not/exist\"", &[])[0].key,
        "presets.dir"
    );
}

#[test]
fn roots_are_folders_below_the_root() {
    let config = load("[sources]\nfile_roots = [\"media\"]", &[]).unwrap();
    assert_eq!(config.sources.file_roots, [PathBuf::from("/somewhere/media")]);
    assert_eq!(config.warnings.len(), 1);
    assert_eq!(
        faults("[destinations]\nfile_roots = [\"/\"]", &[])[0].key,
        "destinations.file_roots[0]"
    );
}

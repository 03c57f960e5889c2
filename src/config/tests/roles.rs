//! What each role needs, and what it refuses.

use super::{faults, load};
use crate::config::{Error, Faults, Listener, Plan, Role, WorkersAccess};

fn refused(role: Role, file: &str, env: &[(&str, &str)]) -> Vec<(String, String)> {
    match Plan::resolve(role, &load(file, env).unwrap()) {
        Err(Error::Invalid(Faults(faults))) => faults.into_iter().map(|f| (f.key, f.problem)).collect(),
        other => panic!("expected faults, got {other:?}"),
    }
}

fn listener(file: &str) -> Listener {
    match Plan::resolve(Role::Worker, &load(file, &[]).unwrap()).unwrap() {
        Plan::Worker(_, listener) => *listener,
        other => panic!("{other:?}"),
    }
}

fn access(file: &str) -> WorkersAccess {
    match Plan::resolve(Role::Control, &load(file, &[]).unwrap()).unwrap() {
        Plan::Control(control) => control.workers,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_role_starts_with_the_defaults() {
    assert!(access("").nodes.is_empty());
    assert!(listener("").network.listen.ip().is_loopback());
    assert!(matches!(Plan::resolve(Role::All, &load("", &[]).unwrap()), Ok(Plan::All(..))));
}

#[test]
fn without_keys_only_loopback_is_served() {
    let open = "[server]\nlisten = \"0.0.0.0:8080\"\n";
    for role in [Role::All, Role::Control] {
        let (key, problem) = &refused(role, open, &[])[0];
        assert!(key == "server.listen" && problem.contains("flux key new"), "{key}: {problem}");
        let allowed =
            |file: &str, env: &[(&str, &str)]| Plan::resolve(role, &load(file, env).unwrap()).is_ok();
        assert!(allowed(open, &[("API_KEY", "k")]));
        let key = format!("[[auth.keys]]\nname = \"a\"\nsha256 = \"{}\"", "0".repeat(64));
        assert!(allowed(&format!("{open}{key}"), &[]));
        assert!(allowed("[server]\nlisten = \"[::1]:1\"", &[]));
    }
    // A worker has no API, whatever a shared file or image says of it.
    assert!(listener(open).network.listen.ip().is_loopback());
}

#[test]
fn a_worker_that_others_reach_asks_who_calls() {
    let open = "[worker]\nlisten = \"0.0.0.0:50051\"";
    let faults = refused(Role::Worker, open, &[]);
    assert_eq!(faults[0].0, "worker.listen");
    for key in ["worker.token", "worker.tls_client_ca_file", "127.0.0.1"] {
        assert!(faults[0].1.contains(key), "{faults:?}");
    }
    // Only the role that listens there minds.
    access(open);
    assert_eq!(listener(&format!("{open}\ntoken = \"t0ken\"")).network.listen.port(), 50051);
}

#[test]
fn secrets_are_not_sent_in_the_clear_to_other_machines() {
    let far =
        "[workers]\nnodes = [\"127.0.0.1:1\", \"far:1\", \"localhost:2\", \"10.0.0.1:3\"]\ndns = \"many:1\"";
    for role in [Role::Control, Role::All] {
        let keys: Vec<_> = refused(role, far, &[]).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["workers.dns", "workers.nodes[1]", "workers.nodes[3]"]);
    }
    assert_eq!(access(&format!("{far}\ntls = true")).nodes.len(), 4);
    assert_eq!(access(&format!("{far}\ntrusted_network = true")).dns.as_deref(), Some("many:1"));
    let from_the_seeds = refused(Role::Control, "", &[("WORKER_NODES", "worker:50051")]);
    assert_eq!(from_the_seeds[0].0, "workers.nodes[0]");
}

#[test]
fn certificates_are_read_by_the_role_that_shows_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let pem = file("a.pem", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n");
    let other = file("b.pem", "no certificate");
    let section = |name: &str, keys: &[(&str, &str)]| {
        let lines: Vec<_> = keys.iter().map(|(key, path)| format!("tls_{key} = \"{path}\"")).collect();
        format!("[{name}]\n{}\n", lines.join("\n"))
    };
    let worker = section("worker", &[("cert_file", &pem), ("key_file", &pem), ("client_ca_file", &pem)]);
    let tls = listener(&worker).tls.unwrap();
    assert!(tls.client_ca.is_some() && !tls.identity.certificates.is_empty());
    access(&worker);
    let bad = section("worker", &[("cert_file", "/nowhere.pem"), ("key_file", &other)]);
    let faults = refused(Role::Worker, &bad, &[]);
    assert!(faults[0].1.contains("cannot read /nowhere.pem"), "{faults:?}");
    assert!(faults[1].1.contains("is not PEM"), "{faults:?}");

    let tls = access(&section("workers", &[("ca_file", &pem), ("domain", "w.example")])).tls.unwrap();
    assert_eq!((tls.ca.is_some(), tls.domain.as_deref()), (true, Some("w.example")));
    assert!(access("[workers]\ntls = true").tls.unwrap().ca.is_none(), "the machine's own authorities");
}

#[test]
fn what_does_not_fit_together_is_told_at_once() {
    let file = "[workers]\nnodes = [\"w\", \"w:0\", \"w:1\", \"W:1\"]\ndns = \"x\"\ntoken = \"a b\"\ntls = false\n\
                tls_cert_file = \"c\"\n\
                [worker]\nlisten = \"host:1\"\nadvertise = \"0.0.0.0:1\"\ncontrol = [\"far:1\", \"http://far:1\"]\n\
                token = \"\"\ntls_key_file = \"k\"\ntls_client_ca_file = \"c\"\norphan_grace = \"1s\"";
    let keys: Vec<_> = faults(file, &[]).into_iter().map(|fault| fault.key).collect();
    let expected = [
        "worker.advertise",
        "worker.control[0]",
        "worker.listen",
        "worker.orphan_grace",
        "worker.tls_client_ca_file",
        "worker.tls_key_file",
        "worker.token",
        "workers.dns",
        "workers.nodes[0]",
        "workers.nodes[1]",
        "workers.nodes[3]",
        "workers.tls_cert_file",
        "workers.token",
    ];
    let mut found = keys.clone();
    found.dedup();
    assert_eq!(found, expected, "{keys:?}");
    let alone = faults("[worker]\ncontrol = [\"http://far:1\"]", &[]);
    assert!(alone[0].problem.contains("worker.token"), "{alone:?}");
    assert!(load("[worker]\ncontrol = [\"http://127.0.0.1:8080\"]", &[]).is_ok());
}

#[test]
fn tokens_are_shown_nowhere() {
    let config = load("[workers]\ntoken = \"s3cr3t-a\"\n[worker]\ntoken = \"s3cr3t-b\"", &[]).unwrap();
    let plan = Plan::resolve(Role::Control, &config).unwrap();
    assert!(!format!("{config:?}{plan:?}{}", config.show()).contains("s3cr3t"));
}

#[test]
fn a_keys_own_rate_goes_before_the_one_for_all() {
    let digits = |c: &str| c.repeat(64);
    let file = format!(
        "[auth]\nrate_per_minute = 10\nkeys = [{{ name = \"a\", sha256 = \"{}\" }}, \
         {{ name = \"b\", sha256 = \"{}\", rate_per_minute = 3 }}, \
         {{ name = \"c\", sha256 = \"{}\", rate_per_minute = 0, scopes = [\"jobs:priority\"] }}]",
        digits("a"),
        digits("b"),
        digits("c")
    );
    let config = load(&file, &[]).unwrap();
    let rates: Vec<_> =
        config.keys.iter().map(|key| key.rate_per_minute.map(std::num::NonZero::get)).collect();
    assert_eq!(rates, [Some(10), Some(3), None]);
    let bad = faults(&file.replace("= 3", "= 1000001"), &[]);
    assert_eq!(bad[0].key, "auth.keys[1].rate_per_minute");
}

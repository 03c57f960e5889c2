//! `config/flux.toml` is the reference of every key: it must not lie and must not be silent.

use std::collections::BTreeSet;

use serde_json::json;

use super::super::document::{self, Document};
use super::load;

const REFERENCE: &str = include_str!("../../../config/flux.toml");

/// The reference with its commented keys switched on.
fn reference_in_full() -> String {
    let is_key = |line: &str| {
        line.strip_prefix("# ").and_then(|rest| rest.split_once(" = ")).is_some_and(|(key, _)| {
            key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
    };
    REFERENCE.lines().map(|line| if is_key(line) { &line[2..] } else { line }).collect::<Vec<_>>().join("\n")
}

fn keys_of(table: &toml::Table) -> BTreeSet<String> {
    table
        .iter()
        .flat_map(|(section, keys)| {
            keys.as_table().unwrap().keys().map(move |key| format!("{section}.{key}"))
        })
        .collect()
}

/// Field names of a section, from serde's own refusal of a field that is none.
fn fields<T: serde::de::DeserializeOwned>(section: &str) -> Vec<String> {
    let error = serde_json::from_value::<T>(json!({"?": 0})).err().unwrap().to_string();
    let (_, names) = error.split_once("expected").unwrap();
    let names = names.split('`').skip(1).step_by(2).filter(|name| *name != "access_key_secret");
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
        Auth, Destinations, Log, Presets, Queue, Retention, Sandbox, Secrets, Server, Sources, Storage,
        Store, Verify, Webhooks, Worker, Workers,
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
        fields::<Workers>("workers"),
        fields::<Worker>("worker"),
        fields::<Sandbox>("sandbox"),
        fields::<Verify>("verify"),
        fields::<Presets>("presets"),
        fields::<Webhooks>("webhooks"),
        fields::<Retention>("retention"),
        fields::<Log>("log"),
    ];
    let known: BTreeSet<String> = known.into_iter().flatten().collect();
    assert_eq!(keys_of(&full), known);
    let sections: BTreeSet<String> = fields::<Document>("").into_iter().collect();
    assert_eq!(sections, full.keys().map(|section| format!(".{section}")).collect());
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

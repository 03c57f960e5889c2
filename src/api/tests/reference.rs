//! `docs/api.md` is the reference of routes and problem codes: it must not lie and must not be silent.

use super::super::problem::{Kind, Problem};
use super::*;

const PAGE: &str = include_str!("../../../docs/api.md");

/// The rows of the table below a heading, without its own heading and rule.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(|cell| cell.trim_matches('`').to_owned()).collect()).collect()
}

#[test]
fn every_route_is_described_with_its_access() {
    let known: Vec<_> = table()
        .iter()
        .map(|route| {
            let access = match route.access {
                Access::Public => "public",
                Access::Signed => "signed URL",
                Access::Needs(scope) => scope.as_str(),
            };
            let method = format!("{:?}", route.verb).to_uppercase();
            vec![method, route.path.to_owned(), access.to_owned()]
        })
        .collect();
    let said: Vec<_> = rows("Routes").iter().map(|row| row[..3].to_vec()).collect();
    assert_eq!(said, known);
}

#[test]
fn every_problem_is_listed() {
    let known: Vec<_> = Kind::ALL
        .iter()
        .map(|kind| {
            let status = Problem::new(*kind, "").status().as_u16().to_string();
            let retryable = if kind.retryable() { "yes" } else { "no" };
            vec![kind.code().to_owned(), status, retryable.to_owned(), kind.title().to_owned()]
        })
        .collect();
    assert_eq!(rows("Problem codes"), known);
}

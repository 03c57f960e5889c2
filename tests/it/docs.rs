//! The pages for people must say what the code does.

use std::path::Path;

use flux::domain::Code;
use flux::media::lint::Rule;

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of the rows of tables whose first cell is code, such as a name.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(|cell| cell.trim_matches('`')).collect()).collect()
}

#[test]
fn the_failure_catalogue_is_complete_and_true() {
    let page = page("docs/failures.md");
    let known: Vec<_> = Code::ALL
        .iter()
        .map(|code| {
            let class = serde_json::to_value(code.class()).unwrap();
            let retried = if code.retryable() { "yes" } else { "no" };
            vec![code.as_str().to_owned(), class.as_str().unwrap().to_owned(), retried.to_owned()]
        })
        .collect();
    let said = rows(&page);
    assert!(said.iter().all(|row| row.len() == 4 && row[3].ends_with('.')), "a code without a meaning");
    let said: Vec<_> = said.iter().map(|row| row[..3].to_vec()).collect();
    assert_eq!(said, known);
}

#[test]
fn every_rule_of_the_linter_is_described() {
    let page = page("docs/validate.md");
    let known: Vec<_> = Rule::ALL
        .iter()
        .map(|rule| {
            [rule.as_str(), rule.severity().as_str(), rule.source(), rule.text()].map(str::to_owned).to_vec()
        })
        .collect();
    let said: Vec<Vec<String>> =
        rows(&page).iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
    assert_eq!(said, known);
}

#[test]
fn the_readme_lists_the_built_in_presets() {
    let readme = page("README.md");
    let presets = flux::domain::preset::Presets::builtin();
    let known: Vec<_> = presets.iter().map(|(name, about, _)| (name.to_string(), about.to_owned())).collect();
    let table = readme.split("## Presets").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let said: Vec<_> = rows(table).iter().map(|row| (row[0].to_owned(), row[1].to_owned())).collect();
    assert_eq!(said, known);
}

#[test]
fn links_between_pages_lead_somewhere() {
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "docs/api.md",
        "docs/failures.md",
        "docs/guarantees.md",
        "docs/validate.md",
    ] {
        let text = page(name);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap();
            assert!(folder.parent().unwrap().join(file).exists(), "{name} links to {link}");
        }
    }
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let page = page("docs/guarantees.md");
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        + &sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"));
    let promises: Vec<_> = page.lines().filter(|line| line.starts_with("| G")).collect();
    assert_eq!(promises.len(), 16);
    for promise in promises {
        let tests = promise.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<_> = tests.split_whitespace().map(|name| name.trim_matches('`')).collect();
        assert!(!names.is_empty());
        for name in names {
            assert!(sources.contains(&format!("fn {name}(")), "{promise} names {name}");
        }
    }
}

/// All Rust below a folder.
fn sources(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.extension() {
            _ if path.is_dir() => sources(&path),
            Some(extension) if extension == "rs" => std::fs::read_to_string(&path).unwrap(),
            _ => String::new(),
        })
        .collect()
}

//! Who may use whom: ARCHITECTURE.md's table against what cargo knows of the crates.
//!
//! The table is read from the document itself, so that the law that people read is the one that is enforced.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

const ARCHITECTURE: &str = include_str!("../../../ARCHITECTURE.md");

type Names = BTreeSet<String>;

/// What a crate may use of ours, and what it must never use of others.
#[derive(Debug)]
struct Law {
    may: Names,
    never: Names,
}

/// One edge as a manifest has it.
#[derive(Debug)]
struct Use {
    /// The other crate; ours without their `l5d-`.
    name: String,
    ours: bool,
    /// `normal`, `dev` or `build`.
    kind: String,
    features: Names,
}

fn law() -> BTreeMap<String, Law> {
    let (_, table) =
        ARCHITECTURE.split_once("| crate | may use | must never use |\n|---|---|---|\n").expect("the table is there");
    let words = |cell: &str| {
        let words = cell.split(',').map(|word| word.trim().trim_matches('`'));
        words.filter(|word| !word.is_empty() && *word != "–").map(str::to_owned).collect()
    };
    table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 3, "{line}");
            (cells[0].to_owned(), Law { may: words(cells[1]), never: words(cells[2]) })
        })
        .collect()
}

fn uses() -> BTreeMap<String, Vec<Use>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path", manifest])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let short = |name: &str| name.strip_prefix("l5d-").unwrap_or(name).to_owned();
    let list = |value: &Value| value.as_array().cloned().expect("a list");
    let one = |dependency: &Value| Use {
        name: short(&text(&dependency["name"])),
        ours: dependency["path"].is_string(),
        kind: dependency["kind"].as_str().unwrap_or("normal").to_owned(),
        features: list(&dependency["features"]).iter().map(text).collect(),
    };
    list(&metadata["packages"])
        .iter()
        .map(|package| (short(&text(&package["name"])), list(&package["dependencies"]).iter().map(one).collect()))
        .collect()
}

#[test]
fn the_table_names_every_crate_and_no_other() {
    let (law, uses) = (law(), uses());
    assert_eq!(law.keys().collect::<Vec<_>>(), uses.keys().collect::<Vec<_>>());
    for (name, rule) in &law {
        for other in &rule.may {
            assert!(law.contains_key(other), "{name} may use {other}, which is no crate");
        }
    }
}

#[test]
fn crates_use_only_what_the_table_allows() {
    let law = law();
    for (name, uses) in uses() {
        for one in uses.iter().filter(|one| one.ours) {
            let for_tests = one.kind == "dev" && one.name == "testkit";
            assert!(
                for_tests || law[&name].may.contains(&one.name),
                "{name} uses {} ({}), which the table of ARCHITECTURE.md does not allow",
                one.name,
                one.kind
            );
        }
    }
}

#[test]
fn crates_stay_away_from_what_is_not_theirs() {
    let law = law();
    for (name, uses) in uses() {
        for one in uses.iter().filter(|one| !one.ours && one.kind != "dev") {
            assert!(!law[&name].never.contains(&one.name), "{name} must never use {}", one.name);
        }
    }
}

#[test]
fn naming_takes_nothing_of_tokio_but_its_channels() {
    let uses = uses();
    let tokio = uses["naming"].iter().filter(|one| one.name == "tokio" && one.kind == "normal");
    for one in tokio {
        assert_eq!(one.features, Names::from(["sync".to_owned()]));
    }
}

#[test]
fn nobody_uses_the_binary_and_only_tests_use_the_testkit() {
    for (name, uses) in uses() {
        for one in uses.iter().filter(|one| one.ours) {
            assert_ne!(one.name, "l5d", "{name} uses the binary");
            assert!(one.name != "testkit" || one.kind == "dev", "{name} uses the testkit outside of tests");
        }
    }
}

/// Cargo allows a cycle through a dev-dependency; such a crate is compiled twice, and its types are not one another's.
#[test]
fn no_crate_uses_itself_by_way_of_others_not_even_for_tests() {
    let uses = uses();
    for start in uses.keys() {
        let (mut seen, mut left) = (Names::new(), vec![start.clone()]);
        while let Some(name) = left.pop() {
            for one in uses[&name].iter().filter(|one| one.ours) {
                assert_ne!(&one.name, start, "{start} uses itself by way of {name}");
                if seen.insert(one.name.clone()) {
                    left.push(one.name.clone());
                }
            }
        }
    }
}

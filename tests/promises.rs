//! The README names a test for every promise, docs/zeek-client.md one for everything that it compares, and docs/survival.md
//! one for every failure of others. This holds them to their word: each of them exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_readme_names_exists() {
    check("README.md", "## Promises", 10);
}

#[test]
fn every_test_that_the_comparison_with_zeek_names_exists() {
    check("docs/zeek-client.md", "## Event by event", 30);
}

#[test]
fn every_test_that_is_named_for_a_failure_of_others_exists() {
    check("docs/survival.md", "## What others failed at", 20);
}

/// Looks at the last column of the table in that section, which has more than so many rows.
fn check(document: &str, heading: &str, least: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join(document)).unwrap();
    let section = text.split(heading).nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > least, "{rows:?}");

    let mut code = String::new();
    ["src", "tests"].iter().for_each(|folder| read(&root.join(folder), &mut code));
    let functions: BTreeSet<&str> = code.split("fn ").filter_map(|rest| rest.split(['(', '<']).next()).collect();
    for row in rows {
        let tests: Vec<_> = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test is named for: {row}");
        for test in tests {
            assert!(functions.contains(test), "there is no test `{test}`, named for: {row}");
        }
    }
}

fn read(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, code);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            code.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

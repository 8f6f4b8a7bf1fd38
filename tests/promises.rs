//! The documents name tests: docs/promises.md for every promise, the README for the chief ones, docs/zeek-client.md for
//! everything that it compares, and docs/survival.md for every failure of others. This holds them to their word.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

#[test]
fn every_promise_names_tests_and_each_of_them_exists() {
    let text = document("docs/promises.md");
    let promises: Vec<_> = text.split("\n**").skip(1).collect();
    assert!(promises.len() > 40, "{promises:?}");
    for promise in promises {
        let tests = promise.lines().filter_map(|line| line.strip_prefix("- `")?.strip_suffix('`'));
        let tests: Vec<_> = tests.collect();
        let repeated = tests.iter().enumerate().find(|(at, test)| tests[..*at].contains(test));
        assert_eq!(repeated, None, "named twice for: {promise}");
        all_exist(&tests, promise);
    }
}

#[test]
fn every_test_that_the_readme_names_stands_with_its_promise() {
    let promised = document("docs/promises.md");
    for (row, tests) in table("README.md", "## Promises", 10) {
        all_exist(&tests.iter().map(String::as_str).collect::<Vec<_>>(), &row);
        assert!(tests.iter().all(|test| promised.contains(&format!("- `{test}`\n"))), "not in docs/promises.md: {row}");
    }
}

#[test]
fn every_test_that_the_comparison_with_zeek_names_exists() {
    check_table("docs/zeek-client.md", "## Event by event", 30);
}

#[test]
fn every_failure_of_others_has_a_test_of_its_number_and_all_that_are_named_exist() {
    check_table("docs/survival.md", "## What others failed at", 30);
    let mut numbers = 0;
    for (row, tests) in table("docs/survival.md", "## What others failed at", 30) {
        for number in numbers_of(row.split('|').nth(1).unwrap()) {
            let is_in = |test: &String| test.contains(&format!("_{number}_"));
            assert!(tests.iter().any(is_in), "no test has {number} in its name: {row}");
            numbers += 1;
        }
    }
    assert!(numbers > 40, "{numbers}");
}

/// The numbers of issues and the hashes of commits in parentheses, up to the semicolon behind which they are told again.
fn numbers_of(cell: &str) -> Vec<&str> {
    let groups = cell.split('(').skip(1).map(|rest| rest.split([')', ';']).next().unwrap());
    let words = groups.flat_map(|group| group.split(", "));
    words
        .filter_map(|word| word.split_once('#').or(word.split_once("commit ")).or(word.split_once("posts/")))
        .map(|(_, number)| number)
        .collect()
}

fn check_table(name: &str, heading: &str, least: usize) {
    for (row, tests) in table(name, heading, least) {
        all_exist(&tests.iter().map(String::as_str).collect::<Vec<_>>(), &row);
    }
}

/// The rows of the table in that section, which has more than so many, each with the tests that its last column names.
fn table(name: &str, heading: &str, least: usize) -> Vec<(String, Vec<String>)> {
    let text = document(name);
    let section = text.split(heading).nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let tests = |row: &str| row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).map(String::from).collect();
    let rows: Vec<_> = rows.map(|row| (row.to_owned(), tests(row))).collect();
    assert!(rows.len() > least, "{rows:?}");
    rows
}

fn all_exist(tests: &[&str], named_for: &str) {
    assert!(!tests.is_empty(), "no test is named for: {named_for}");
    for test in tests {
        assert!(functions().contains(*test), "there is no test `{test}`, named for: {named_for}");
    }
}

/// The names of all functions, tests among them.
fn functions() -> &'static BTreeSet<String> {
    static FUNCTIONS: OnceLock<BTreeSet<String>> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let mut code = String::new();
        ["src", "tests"].iter().for_each(|folder| read(&root().join(folder), &mut code));
        code.split("fn ").filter_map(|rest| rest.split(['(', '<']).next()).map(String::from).collect()
    })
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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

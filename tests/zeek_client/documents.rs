//! The documentation names a test for everything it says. This holds it to its word: each of them exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_documentation_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/zeek-client.md")).unwrap();
    let mut code = String::new();
    ["src", "tests"].iter().for_each(|folder| read(&root.join(folder), &mut code));
    let functions: BTreeSet<&str> = code.split("fn ").filter_map(|rest| rest.split(['(', '<']).next()).collect();
    let rows: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("| `") || line.starts_with("| ") && line.ends_with("` |"))
        .collect();
    assert!(rows.len() > 30, "{rows:?}");
    for row in rows {
        let tests: Vec<_> =
            row.trim_end_matches(" |").rsplit("| ").next().unwrap().split('`').skip(1).step_by(2).collect();
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

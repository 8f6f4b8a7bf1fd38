//! Every script that is shipped or rendered, as Zeek's public grammar sees it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::install;

/// Names the scripts that it is given which have errors, and where the first one is.
const PARSE: &str = "
import sys, zeekscript
for path in sys.argv[1:]:
    script = zeekscript.Script(path)
    script.parse()
    if script.has_error():
        print(path, script.get_error())
";

#[test]
fn every_script_that_is_shipped_or_rendered_is_zeeks_language() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut scripts = Vec::new();
    ["src", "tests/golden/zeek"].iter().for_each(|folder| find(&root.join(folder), &mut scripts));
    let names: BTreeSet<_> = scripts.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert!(names.contains("channel.zeek") && names.contains("last.zeek") && scripts.len() > 50, "{names:?}");
    assert_eq!(errors(&scripts), "");

    let broken = tempfile::Builder::new().suffix(".zeek").tempfile().unwrap();
    std::fs::write(broken.path(), "event zeek_init( {\n").unwrap();
    let found = errors(&[broken.path().to_owned()]);
    assert!(found.contains(broken.path().to_str().unwrap()), "what is wrong is found: {found}");
}

fn errors(scripts: &[PathBuf]) -> String {
    let output = Command::new(install::program("python3")).args(["-c", PARSE]).args(scripts).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn find(folder: &Path, scripts: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, scripts);
        } else if path.extension().is_some_and(|ending| ending == "zeek") {
            scripts.push(path);
        }
    }
    scripts.sort();
}

//! Puts zeek-client, and what knows the grammar of Zeek's language, where the tests find them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Exactly these, so that what passes today passes tomorrow.
const PACKAGES: &[&str] = &[
    "zeek-client==1.5.0",
    "websocket-client==1.9.2",
    "argcomplete==3.7.2",
    "zeekscript==1.3.6",
    "tree-sitter==0.25.2",
    "tree-sitter-zeek==0.2.15",
];

/// A program of the virtual environment.
pub fn program(name: &str) -> PathBuf {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    HOME.get_or_init(install).join("bin").join(name)
}

fn install() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(directory).unwrap();
    // Tests of other processes may be about to do the same.
    let lock = File::create(directory.join("zeek-client.lock")).unwrap();
    lock.lock().unwrap();
    let home = directory.join("zeek-client");
    let list = home.join("installed");
    if fs::read_to_string(&list).is_ok_and(|installed| installed == PACKAGES.join("\n")) {
        return home;
    }
    let _ = fs::remove_dir_all(&home); // whatever is left of another attempt
    let help = "these tests need python3 with its venv module: run `tests/run` as root, or `sudo apt-get install \
                python3 python3-venv`";
    run(Command::new("python3").args(["-m", "venv"]).arg(&home), help);
    let help = "these tests need zeek-client and what it needs from the Python package index, by `pip`";
    let pip = ["install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(home.join("bin/pip")).args(pip).args(PACKAGES), help);
    fs::write(list, PACKAGES.join("\n")).unwrap();
    home
}

fn run(command: &mut Command, help: &str) {
    let output = command.output().unwrap_or_else(|error| panic!("{help} ({command:?}: {error})"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{help}\n{command:?} said:\n{}", String::from_utf8_lossy(&said));
}

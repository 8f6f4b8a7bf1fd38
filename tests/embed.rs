//! The example of the front door does what it says.

#[path = "common/processes.rs"]
#[allow(dead_code, reason = "only a part of it is needed here")]
mod processes;

use std::path::Path;
use std::process::Command;

use watchpost::model::InstanceName;
use watchpost::run::{AgentOptions, start_agent};
use watchpost::supervisor::process::tree;

#[test]
fn the_example_shows_a_node_killed_and_back_and_leaves_nothing_behind() {
    let example = Path::new(env!("CARGO_BIN_EXE_watchpost")).with_file_name("examples").join("embed");
    assert!(example.exists(), "build it first: cargo build --example embed (a plain `cargo test` does)");
    let home = tempfile::tempdir().unwrap();
    let run = Command::new(example).env("TMPDIR", home.path()).output().unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));

    let mut rest = said.as_str();
    for line in [
        "deployed 2 nodes",
        "one: PENDING → RUNNING",
        "killing one",
        "one: RUNNING → CRASHED (killed by signal 9",
        "one: CRASHED → PENDING",
        "one: PENDING → RUNNING",
        "stopped",
    ] {
        let at = rest.find(line).unwrap_or_else(|| panic!("`{line}` does not follow in:\n{said}"));
        rest = &rest[at + line.len()..];
    }
    let left: Vec<_> = home.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    // Where its nodes work, and would be found also once the directories are gone.
    assert_eq!(processes::working_in(home.path()), Vec::<u32>::new());
    let mut other = Command::new("sleep").arg("1000").current_dir(home.path()).spawn().unwrap();
    let found = processes::working_in(home.path());
    other.kill().and_then(|()| other.wait()).unwrap();
    assert_eq!(found, [other.id()], "whoever works there is found");
}

#[test]
fn a_host_is_given_the_orphans_of_its_nodes_only_if_it_asks_for_them() {
    let state = tempfile::tempdir().unwrap();
    actix_rt::System::new().block_on(async {
        let options = AgentOptions::new(InstanceName::new("here").unwrap(), state.path().join("nodes"));
        start_agent(options).unwrap();
    });
    assert!(!tree::is_subreaper().unwrap(), "whoever embeds an agent has children of its own");
    tree::become_subreaper().unwrap();
    assert!(tree::is_subreaper().unwrap());
}

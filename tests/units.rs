//! The units that are shipped for systemd: systemd accepts them, and so does the program that they start.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use watchpost::settings::{Machine, Settings};
use watchpost::supervisor::process::groups::Place;

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/systemd");

#[test]
fn systemd_accepts_the_units() {
    let home = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for unit in fs::read_dir(UNITS).unwrap() {
        let unit = unit.unwrap();
        // It looks for the program, which is not installed here.
        let text = fs::read_to_string(unit.path()).unwrap();
        let text = text.replace("/usr/local/bin/watchpost", env!("CARGO_BIN_EXE_watchpost"));
        let file = home.path().join(unit.file_name());
        fs::write(&file, text).unwrap();
        files.push(file);
    }
    assert_eq!(files.len(), 4);
    let checked = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&files).output();
    let checked = checked.expect("systemd-analyze, of the Debian package systemd: tests/run installs it");
    let said = String::from_utf8_lossy(&checked.stderr);
    // What it says of the machine's own units is none of our business.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("watchpost")).collect();
    assert!(checked.status.success() && ours.is_empty(), "{said}");
}

#[test]
fn the_settings_in_the_units_are_ones_and_lead_to_the_group_of_the_nodes() {
    let agent = fs::read_to_string(Path::new(UNITS).join("watchpost-agent.service")).unwrap();
    let variables = agent.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='));
    let mut variables: Vec<(OsString, OsString)> = variables.map(|(name, value)| (name.into(), value.into())).collect();
    variables.push(("HOME".into(), "/root".into()));
    let settings = Settings::assemble(None, &Machine::new("host", true), variables).unwrap();
    // A slice's units are below it, and the nodes' unit is in the same one as the agent.
    assert_eq!(settings.agent.cgroup, Place::In("/watchpost.slice/watchpost-nodes.service".into()));
}

#[test]
fn the_units_keep_nodes_alive_whatever_becomes_of_agent_and_controller() {
    let (agent, controller, nodes) =
        ("watchpost-agent.service", "watchpost-controller.service", "watchpost-nodes.service");
    for (line, units, why) in [
        ("Type=notify", &[agent, controller][..], "the daemons say when they are ready"),
        ("KillMode=process", &[agent], "or its nodes end with it where they have no groups"),
        ("OOMPolicy=continue", &[agent, nodes], "or all nodes end for one that runs out of memory"),
        ("Restart=always", &[agent, controller, nodes], "or nobody minds the nodes after a crash"),
        ("StartLimitIntervalSec=0", &[agent, controller, nodes], "or nobody minds them after several"),
        ("Delegate=yes", &[nodes], "or systemd takes their groups for its own"),
        ("Slice=watchpost.slice", &[agent, controller, nodes], "the agent finds their groups there"),
    ] {
        for unit in units {
            let text = fs::read_to_string(Path::new(UNITS).join(unit)).unwrap();
            assert!(text.lines().any(|it| it == line), "{unit} lacks {line}: {why}");
        }
    }
}

//! In what two configurations differ, section by section, as cluster files write them.

use std::collections::BTreeMap;

use crate::hint::shown;
use crate::model::Configuration;
use crate::model::cluster_file::lines::{Dialect, sections};
use crate::model::cluster_file::{Complaints, render};
use crate::plan::{PortRules, assign_ports};

/// The sections of a cluster file, and in each its keys.
type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// What of `meant` is not as it was `said` in files of that format. Ports that are given out are as good as written.
pub(super) fn differences(meant: &Configuration, said: &Configuration, format: &str) -> Vec<String> {
    let (meant, said) = (all(meant), all(said));
    let nothing = BTreeMap::new();
    let mut remarks = Vec::new();
    for (section, keys) in &meant {
        let Some(others) = said.get(section) else {
            if !keys.is_empty() {
                remarks.push(format!("[{section}]: is left out: {format} has no place for it, or none by this name"));
            }
            continue;
        };
        for (key, value) in keys {
            match others.get(key) {
                Some(other) if other == value => {}
                Some(other) => remarks.push(format!("[{section}] {key}: becomes {}", shown(other))),
                None => remarks.push(format!("[{section}] {key}: is left out: {format} has no word for it")),
            }
        }
    }
    for (section, keys) in &said {
        let known = meant.get(section);
        if known.is_none() && !keys.is_empty() {
            remarks.push(format!("[{section}]: comes to it, as {format} has it"));
            continue;
        }
        for (key, value) in keys.iter().filter(|(key, _)| !known.unwrap_or(&nothing).contains_key(*key)) {
            remarks.push(format!("[{section}] {key}: comes to be {}", shown(value)));
        }
    }
    remarks.sort();
    remarks
}

fn all(configuration: &Configuration) -> Sections {
    let mut configuration = configuration.clone();
    let given = configuration.clone();
    // Where they cannot be given out, nothing is.
    if assign_ports(&mut configuration, &PortRules::default()).is_err() {
        configuration = given;
    }
    let text = render(&configuration);
    let mut complaints = Complaints::default(); // what was rendered can be read
    let keys = |entries: &[crate::model::cluster_file::lines::Entry]| {
        let pair = |entry: &crate::model::cluster_file::lines::Entry| {
            (entry.key.to_string(), entry.value.as_deref().unwrap_or_default().to_owned())
        };
        entries.iter().map(pair).collect()
    };
    let sections = sections(&text, Dialect::Cluster, &mut complaints);
    sections.iter().map(|section| (section.name.to_owned(), keys(&section.entries))).collect()
}

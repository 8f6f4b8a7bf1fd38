//! Cluster files: a [`Configuration`] as people write it, in the INI form of zeek-client's `cluster.cfg`.
//!
//! Every file that zeek-client reads means the same here, but for the keys that it would only warn of: they are
//! refused. Keys for programs other than Zeek are added. `config/cluster-example.cfg` shows them all.

mod archive;
mod doubts;
pub(crate) mod lines;
mod node;
mod read;
mod render;
mod values;
mod words;
mod zeek;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use doubts::Judged;
pub use render::render;
pub(crate) use values::words as word_list;
pub(crate) use words::join as join_words;
pub(crate) use zeek::{ZEEK, differing_keys};

use super::{Configuration, ConfigurationId};
use crate::bundle::BundleId;

/// A cluster of small shell loops that runs on any Linux machine with nothing installed.
pub const LAB: &str = include_str!("../../../config/lab.cfg");

/// The longest cluster file that is read, in bytes.
pub const MAX_BYTES: usize = 16 << 20;

/// After so many complaints reading stops: what is wrong throughout is something else than a cluster file.
const MAX_COMPLAINTS: usize = 100;

/// How much of the name of a section, or of a key, a complaint repeats, in characters.
const MOST_SHOWN: usize = 64;

/// Reads the cluster file `file`, whose content is `text`, as the configuration `id`.
///
/// Nodes that name no instance belong to `agent-<hostname>`. What comes back is not yet checked as a whole: see
/// [`crate::plan::validate()`], or [`read`] to have both kinds of complaints at once.
pub fn parse(
    file: &str,
    text: impl AsRef<[u8]>,
    id: ConfigurationId,
    hostname: &str,
) -> Result<Configuration, ClusterFileError> {
    read(file, text, id, hostname).finish()
}

/// The same, for somebody who has more to say about what is read before it is accepted.
pub fn read(file: &str, text: impl AsRef<[u8]>, id: ConfigurationId, hostname: &str) -> Reading {
    let mut complaints = Complaints::default();
    let (configuration, places) = match readable(text.as_ref()) {
        Ok(text) => {
            let sections = lines::sections(text, lines::Dialect::Cluster, &mut complaints);
            let configuration = read::configuration(&sections, id, hostname, &mut complaints);
            (configuration, Places::of(&sections))
        }
        Err(complaint) => {
            complaints.add(complaint);
            (Configuration::empty(id), Places::default())
        }
    };
    Reading { file: file.to_owned(), configuration, places, complaints }
}

/// A cluster file as far as it could be understood, and everything that is wrong with it so far.
pub struct Reading {
    file: String,
    configuration: Configuration,
    places: Places,
    complaints: Complaints,
}

impl Reading {
    /// Gives nodes the bundles of their files, where it is known and they name none.
    pub fn give_files(&mut self, bundle_of: impl Fn(&[String]) -> Option<BundleId>) {
        for node in &mut self.configuration.nodes {
            let is_open = node.files.as_ref().is_some_and(|files| files.bundle.is_none());
            if let Some(files) = is_open.then(|| Arc::make_mut(node).files.as_mut()).flatten() {
                files.bundle = bundle_of(&files.paths);
            }
        }
    }

    /// Adds a complaint about an instance.
    pub fn complain_of_instance(&mut self, name: &str, what: impl Into<String>) {
        self.complain(lines::INSTANCES, Some(name), what.into());
    }

    /// Adds a complaint about a node, or a key of it: where that stands, which may be where its role is.
    pub fn complain_of_node(&mut self, name: &str, key: Option<&str>, what: impl Into<String>) {
        let role = key.and_then(|key| self.role_with(name, key));
        self.complain(role.as_deref().unwrap_or(name), key, what.into());
    }

    /// The section of a node's role, if it has that key and the node's own has not.
    fn role_with(&self, name: &str, key: &str) -> Option<String> {
        let has = |place: &Place| place.keys.contains_key(key);
        let node = self.configuration.nodes.iter().find(|node| node.name.as_str() == name)?;
        let is_of_role = |section: &str| {
            section.strip_prefix(read::ROLE).is_some_and(|role| role.trim().eq_ignore_ascii_case(node.role.as_str()))
        };
        let found = || self.places.0.iter().find(|(section, place)| is_of_role(section) && has(place));
        if self.places.0.get(name).is_some_and(has) { None } else { found().map(|(section, _)| section.clone()) }
    }

    /// Adds a complaint about what all Zeek nodes share.
    pub fn complain_of_zeek(&mut self, key: &str, what: impl Into<String>) {
        self.complain(zeek::ZEEK, Some(key), what.into());
    }

    fn complain(&mut self, section: &str, key: Option<&str>, what: String) {
        let place = self.places.0.get(section);
        let found = key.zip(place).and_then(|(key, place)| place.keys.get_key_value(key));
        self.complaints.add(Complaint {
            line: found.map(|(_, line)| *line).or(place.map(|place| place.line)).unwrap_or(1),
            section: Some(section.to_owned()),
            key: found.map(|(key, _)| key.clone()),
            what,
        });
    }

    /// The configuration, if there is nothing to complain of.
    pub fn finish(self) -> Result<Configuration, ClusterFileError> {
        let more = self.complaints.is_full();
        let mut complaints = self.complaints.kept;
        complaints.sort_by_key(|complaint| complaint.line);
        match complaints.is_empty() {
            true => Ok(self.configuration),
            false => Err(ClusterFileError { file: self.file, complaints, more }),
        }
    }
}

/// Where everything stands, by section.
#[derive(Default)]
struct Places(BTreeMap<String, Place>);

struct Place {
    /// Where the section begins, and where the next one does.
    line: usize,
    end: usize,
    keys: BTreeMap<String, usize>,
}

impl Places {
    fn of(sections: &[lines::Section]) -> Self {
        let ends = sections.iter().skip(1).map(|next| next.line).chain([usize::MAX]);
        let place = |(section, end): (&lines::Section, usize)| {
            let keys = section.entries.iter().map(|entry| (entry.key.to_string(), entry.line)).collect();
            (section.name.to_owned(), Place { line: section.line, end, keys })
        };
        Self(sections.iter().zip(ends).map(place).collect())
    }

    /// The lines of a section.
    fn section(&self, name: &str) -> Option<Range<usize>> {
        self.0.get(name).map(|place| place.line..place.end)
    }
}

/// The text, without the mark that some editors put before it.
pub(crate) fn readable(bytes: &[u8]) -> Result<&str, Complaint> {
    if bytes.len() > MAX_BYTES {
        return Err(Complaint::at(1, format!("the file is longer than the {MAX_BYTES} bytes allowed")));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        Complaint::at(line, "the line is not UTF-8: save the file in that encoding")
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Everything that is wrong with a cluster file, one complaint a line when shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ClusterFileError {
    /// The file, as it was named.
    pub file: String,
    /// Sorted by line; never empty.
    pub complaints: Vec<Complaint>,
    /// Whether reading stopped at so many complaints, so that there may be more.
    pub more: bool,
}

impl fmt::Display for ClusterFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, complaint) in self.complaints.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:{complaint}", self.file)?;
        }
        match self.more {
            true => write!(f, "\n{}: there may be more, but reading stopped here: is this a cluster file?", self.file),
            false => Ok(()),
        }
    }
}

/// One thing that is wrong with a cluster file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Counted from 1.
    pub line: usize,
    /// The section concerned, without its brackets.
    pub section: Option<String>,
    /// The key concerned.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl Complaint {
    pub(crate) fn at(line: usize, what: impl Into<String>) -> Self {
        Self { line, section: None, key: None, what: what.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.line)?;
        if let Some(section) = &self.section {
            write!(f, " [{section}]")?;
        }
        if let Some(key) = &self.key {
            write!(f, " {key}")?;
        }
        if self.section.is_some() || self.key.is_some() {
            f.write_str(":")?;
        }
        write!(f, " {}", self.what)
    }
}

/// Complaints as they are found, as many as anybody reads.
#[derive(Default)]
pub(crate) struct Complaints {
    pub(crate) kept: Vec<Complaint>,
}

impl Complaints {
    pub(crate) fn add(&mut self, complaint: Complaint) {
        if !self.is_full() {
            self.kept.push(complaint);
        }
    }

    /// Whether there is no point in looking for more.
    pub(crate) fn is_full(&self) -> bool {
        self.kept.len() >= MAX_COMPLAINTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{PortRules, validate};

    /// Reads `text` as `c.cfg` on the machine `host`.
    pub fn read(text: &str) -> Result<Configuration, ClusterFileError> {
        parse("c.cfg", text, ConfigurationId::new("1").unwrap(), "host")
    }

    /// What is complained of in `text`, line by line.
    pub fn complaints(text: &str) -> Vec<String> {
        read(text).unwrap_err().to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_lab_runs_as_it_is() {
        let lab = read(LAB).unwrap();
        assert!(lab.nodes.len() >= 4);
        assert!(lab.nodes.iter().all(|node| !node.command.is_empty()));
        assert_eq!(validate(&lab, &PortRules::default()), Vec::<String>::new());
    }

    #[test]
    fn the_example_shows_every_key() {
        let text = include_str!("../../../config/cluster-example.cfg");
        let example = read(text).unwrap();
        assert_eq!(validate(&example, &PortRules::default()), Vec::<String>::new());
        for key in node::KEYS.into_iter().chain(zeek::KEYS) {
            let shown = text.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} =")));
            assert!(shown, "the example does not show `{key}`");
        }
    }

    #[test]
    fn every_complaint_comes_at_once_sorted_by_line() {
        let text = "stray\n[w1]\nrole = wroker\nprot = 1\nport = 70000\n[w 2]\nrole = worker\n[w1]\n[w3]\nrole = none\n\
                    ROLE = none\nenv = A\nscripts = 'a";
        assert_eq!(
            complaints(text),
            [
                "c.cfg:1: `stray` stands before the first section: begin one with a line such as [worker-1]",
                "c.cfg:3: [w1] role: `wroker` is not a role: did you mean `worker`?",
                "c.cfg:4: [w1] prot: is not a key of a node: did you mean `port`?",
                "c.cfg:5: [w1] port: `70000` is not a port: write a number from 1 to 65535",
                "c.cfg:6: [w 2]: node name `w 2` may hold only letters, digits and . _ - @ : +",
                "c.cfg:8: [w1]: begins for the second time, after line 2: make it one section",
                "c.cfg:11: [w3] role: is given for the second time, after line 10: remove one",
                "c.cfg:12: [w3] env: `A` is not of the form NAME=VALUE",
                "c.cfg:13: [w3] scripts: the quote ' is never closed",
            ]
        );
    }

    #[test]
    fn a_file_that_is_wrong_throughout_is_not_repeated_in_full() {
        let unknown_keys: Vec<String> =
            ["[a]".to_owned()].into_iter().chain((0..100_000).map(|n| n.to_string())).collect();
        for text in ["x\n".repeat(100_000), unknown_keys.join("\n")] {
            let error = read(&text).unwrap_err();
            assert_eq!((error.complaints.len(), error.more), (100, true));
            assert!(error.to_string().ends_with("reading stopped here: is this a cluster file?"));
        }
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said_where_it_stands() {
        let text =
            "[role worker]\nfiles = gone\n[a]\nrole = worker\n[b]\nrole = worker\nfiles = lost\n[c]\nrole = proxy\n";
        let mut reading = super::read("c.cfg", text, ConfigurationId::new("1").unwrap(), "host");
        ["a", "b", "c"].iter().for_each(|name| reading.complain_of_node(name, Some("files"), "no"));
        let said = reading.finish().unwrap_err().to_string();
        assert_eq!(said, "c.cfg:2: [role worker] files: no\nc.cfg:7: [b] files: no\nc.cfg:8: [c]: no");
    }

    #[test]
    fn bytes_that_are_no_text_are_named_by_line() {
        let error = parse("c.cfg", b"# fine\n[a]\n\xff", ConfigurationId::new("1").unwrap(), "h").unwrap_err();
        assert_eq!(error.to_string(), "c.cfg:3: the line is not UTF-8: save the file in that encoding");
        assert!(read("\u{feff}[w]\nrole = none").is_ok());
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused_unread() {
        let error = read(&"#".repeat(MAX_BYTES + 1)).unwrap_err();
        assert_eq!(error.to_string(), "c.cfg:1: the file is longer than the 16777216 bytes allowed");
    }
}

//! What is not to be believed of a file that was complained of, and what can be judged all the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::lines::INSTANCES;
use super::node::{KEYS, STAND_IN};
use super::{Complaint, MOST_SHOWN, Place, Reading};
use crate::hint;
use crate::model::{Configuration, Node, Role};

/// What can be judged of a file, whether or not all of it was understood.
pub struct Judged {
    /// As a whole: of nodes that were complained of, what concerns others.
    pub configuration: Configuration,
    /// One by one: those nodes as they were understood, and what is in doubt of each.
    pub in_part: Vec<(Arc<Node>, Doubts)>,
    /// Whether nothing is missing.
    pub is_whole: bool,
}

/// What is not to be believed of a node.
#[derive(Debug, Default)]
pub struct Doubts {
    /// The keys that were complained of; for one that there is not, that which may have been meant.
    keys: BTreeSet<String>,
    /// Whether more of it stands where it was not read.
    is_torn: bool,
}

impl Doubts {
    /// Whether what was understood of this key is what somebody wanted, and so is what it goes together with.
    pub fn leave(&self, key: &str) -> bool {
        !self.is_torn && !self.keys.iter().any(|doubted| go_together(key, doubted))
    }

    /// Where it is, which ports it has and which files it names; `None` if not even that is clear.
    fn as_far_as_it_concerns_others(&self, node: &Node) -> Option<Node> {
        // Without an instance of its own it is nowhere, and so are its ports.
        let is_placed = node.instance.as_str() != STAND_IN && self.leave("instance");
        let unless_doubted = |key: &str, port: Option<u16>| port.filter(|_| self.leave(key));
        is_placed.then(|| Node {
            port: unless_doubted("port", node.port),
            metrics_port: unless_doubted("metrics_port", node.metrics_port),
            files: node.files.clone().filter(|_| self.leave("files") && self.leave("bundle")),
            // Whatever it runs, it is not judged for that.
            command: vec![node.name.to_string()],
            ..Node::new(node.name.clone(), node.instance.clone(), Role::None)
        })
    }
}

/// Whether the one may be right or wrong because of the other.
fn go_together(key: &str, other: &str) -> bool {
    let is_of = |family: &str| key.starts_with(family) && other.starts_with(family);
    let others: &[&str] = match key {
        "ready" | "ready_within" | "watchdog" | "args" => &["command", "role", "type"],
        "capabilities" | "groups" => &["user"],
        _ if key.starts_with("restart") => &["ready"],
        _ => &[],
    };
    key == other || others.contains(&other) || ["restart", "ready", "probe"].into_iter().any(is_of)
}

/// The key that somebody may have meant; one that is there was not.
fn meant(key: &str, place: &Place) -> String {
    let known = KEYS.into_iter().filter(|known| !place.keys.contains_key(*known));
    match KEYS.contains(&key) {
        true => key.to_owned(),
        false => hint::meant(key, known).unwrap_or(key).to_owned(),
    }
}

impl Reading {
    /// All of it, or what is left without the nodes that were complained of.
    pub fn understood(&self) -> Configuration {
        let mut configuration = self.configuration.clone();
        if self.complaints.kept.is_empty() {
            return configuration;
        }
        configuration.nodes.retain(|node| self.doubts_of(node).is_none());
        if self.are_instances_in_doubt() {
            configuration.nodes.retain(|node| self.is_declared(node));
        }
        configuration
    }

    /// What can be judged. Nothing that is missing here makes the rest look wrong, and what is said of a node beside what was
    /// complained of counts.
    pub fn to_judge(&self) -> Judged {
        let mut configuration = self.configuration.clone();
        if self.complaints.kept.is_empty() {
            return Judged { configuration, in_part: Vec::new(), is_whole: true };
        }
        let (mut nodes, mut in_part) = (Vec::new(), Vec::new());
        for node in &self.configuration.nodes {
            match self.doubts_of(node) {
                None => nodes.push(Arc::clone(node)),
                Some(doubts) => {
                    nodes.extend(doubts.as_far_as_it_concerns_others(node).map(Arc::new));
                    in_part.push((Arc::clone(node), doubts));
                }
            }
        }
        if self.are_instances_in_doubt() {
            nodes.retain(|node| self.is_declared(node));
        }
        configuration.nodes = nodes;
        Judged { configuration, in_part, is_whole: false }
    }

    /// Whether there may be other instances than are known.
    fn are_instances_in_doubt(&self) -> bool {
        let declared = self.places.section(INSTANCES);
        let is_about_them = |complaint: &Complaint| match &complaint.section {
            Some(section) => section == INSTANCES,
            None => true, // a line of no section may be one of theirs, or begin it
        };
        let is_among_them = |line| declared.as_ref().is_some_and(|declared| declared.contains(&line));
        self.complaints.kept.iter().any(|complaint| is_about_them(complaint) || is_among_them(complaint.line))
    }

    fn is_declared(&self, node: &Node) -> bool {
        self.configuration.instance(&node.instance).is_some()
    }

    /// What was complained of in a node's section; `None` if nothing was.
    fn doubts_of(&self, node: &Node) -> Option<Doubts> {
        let name: String = node.name.as_str().chars().take(MOST_SHOWN).collect();
        let place = self.places.0.get(node.name.as_str())?;
        let is_its_own = |complaint: &&Complaint| match &complaint.section {
            Some(section) => *section == name,
            None => (place.line..place.end).contains(&complaint.line),
        };
        let mut own = self.complaints.kept.iter().filter(is_its_own).peekable();
        own.peek()?;
        let mut doubts = Doubts::default();
        for complaint in own {
            match &complaint.key {
                Some(key) => drop(doubts.keys.insert(meant(key, place))),
                // Another section of its name, or lines that may be of its own.
                None => doubts.is_torn |= complaint.line != place.line,
            }
        }
        Some(doubts)
    }
}

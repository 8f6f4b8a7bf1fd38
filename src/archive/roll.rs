//! Whose logs there are, and the rules for them: what a configuration says, kept on disk for a run of the agent that begins
//! without its controller.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{ArchiveRules, Configuration, InstanceName, Node, NodeName, Role, RunAs};

/// The format of the file; another number is of another release.
const FORMAT: u32 = 1;
/// The longest file that is read, in bytes.
const LONGEST: u64 = 16 << 20;

/// A node that may write logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Minded {
    pub name: NodeName,
    /// Its working directory.
    pub home: PathBuf,
    /// Whether that is the agent's choice, so that every log in it is the node's.
    pub is_own: bool,
    /// Whether logs are written there as a rule, and so a queue is wanted.
    pub writes: bool,
    /// Whether names in the archive say whose log it is.
    pub is_named: bool,
    /// Whom it runs as; so does the command of an archive.
    pub user: Option<String>,
    pub run_as: RunAs,
}

/// What a configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    pub rules: ArchiveRules,
    pub nodes: Vec<Minded>,
}

impl Minded {
    /// What is to be minded of a Zeek node that works in `home`. `writers` is how many nodes of its cluster write logs.
    pub fn new(node: &Node, home: PathBuf, writes: bool, writers: usize) -> Self {
        Self {
            name: node.name.clone(),
            home,
            is_own: node.directory.is_none(),
            writes,
            is_named: !writes || writers > 1,
            user: node.user.clone(),
            run_as: node.run_as.as_deref().cloned().unwrap_or_default(),
        }
    }
}

/// What a configuration wants of the archive of one of its instances, before it is known where nodes work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub rules: ArchiveRules,
    /// The Zeek nodes of the instance.
    nodes: Vec<Arc<Node>>,
    has_logger: bool,
    /// How many nodes of the cluster write logs.
    writers: usize,
}

impl Wish {
    /// `None` if the instance has no Zeek nodes: what former ones have left goes where it would have gone.
    pub fn of(configuration: &Configuration, instance: &InstanceName) -> Option<Self> {
        let own = |node: &&Arc<Node>| node.is_zeek() && node.instance == *instance;
        let nodes: Vec<Arc<Node>> = configuration.nodes.iter().filter(own).cloned().collect();
        let roles: Vec<Role> = configuration.zeek_cluster().map(|peer| peer.role).collect();
        let has_logger = roles.contains(&Role::Logger);
        let alone = nodes.iter().filter(|node| node.role == Role::None).count();
        let writers = roles.into_iter().filter(|role| writes(*role, has_logger)).count() + alone;
        let rules = configuration.zeek.as_ref().map(|zeek| zeek.archive.clone()).unwrap_or_default();
        (!nodes.is_empty()).then_some(Self { rules, nodes, has_logger, writers })
    }

    /// The same for nodes that work there.
    pub fn order(self, home: impl Fn(&Node) -> PathBuf) -> Order {
        let Self { rules, nodes, has_logger, writers } = self;
        let minded = |node: &Arc<Node>| Minded::new(node, home(node), writes(node.role, has_logger), writers);
        Order { rules, nodes: nodes.iter().map(minded).collect() }
    }
}

/// Whether a Zeek node of that role writes the logs of its cluster, or its own where it stands alone.
fn writes(role: Role, has_logger: bool) -> bool {
    match role {
        Role::None | Role::Logger => true,
        Role::Manager => !has_logger,
        Role::Proxy | Role::Worker => false,
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    rules: ArchiveRules,
    nodes: Vec<Minded>,
}

/// What was kept at that place; `None` if nothing was, or by another release.
pub(super) fn read(path: &Path) -> io::Result<Option<(ArchiveRules, BTreeMap<NodeName, Minded>)>> {
    let mut text = Vec::new();
    match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?.take(LONGEST).read_to_end(&mut text)?,
    };
    let written = serde_json::from_slice::<Written>(&text).ok().filter(|written| written.format == FORMAT);
    let by_name = |nodes: Vec<Minded>| nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
    Ok(written.map(|Written { rules, nodes, .. }| (rules, by_name(nodes))))
}

/// Keeps it there: the command of an archive may hold a secret.
pub(super) fn write(path: &Path, rules: &ArchiveRules, nodes: &BTreeMap<NodeName, Minded>) -> io::Result<()> {
    let written = Written { format: FORMAT, rules: rules.clone(), nodes: nodes.values().cloned().collect() };
    let text = serde_json::to_vec(&written)?;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let _ = fs::remove_file(&fresh); // of a run that was killed
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(&text)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::model::ConfigurationId;

    fn node(role: Role) -> Node {
        Node::new(NodeName::new("n").unwrap(), InstanceName::new("i").unwrap(), role)
    }

    #[test]
    fn what_was_kept_is_read_back_and_what_is_not_ours_is_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("kept");
        assert_eq!(read(&path).unwrap(), None);
        let minded = Minded::new(&node(Role::Logger), "/nodes/n".into(), true, 2);
        let nodes: BTreeMap<_, _> = [(minded.name.clone(), minded)].into();
        let rules = ArchiveRules { command: vec!["ship".into(), "secret".into()], ..ArchiveRules::default() };
        write(&path, &rules, &nodes).unwrap();
        write(&path, &rules, &nodes).unwrap();
        assert_eq!(read(&path).unwrap(), Some((rules, nodes)));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for other in ["", "{}", r#"{"format":2}"#] {
            fs::write(&path, other).unwrap();
            assert_eq!(read(&path).unwrap(), None, "{other}");
        }
    }

    #[test]
    fn a_configuration_says_who_writes_and_an_instance_without_zeek_has_no_wish() {
        let mut configuration = Configuration::empty(ConfigurationId::new("c").unwrap());
        let mut add = |name: &str, instance: &str, role| {
            let (name, instance) = (NodeName::new(name).unwrap(), InstanceName::new(instance).unwrap());
            configuration.nodes.push(Arc::new(Node::new(name, instance, role)));
        };
        add("manager", "a", Role::Manager);
        add("worker", "a", Role::Worker);
        add("logger-1", "b", Role::Logger);
        let wish = |name: &str| Wish::of(&configuration, &InstanceName::new(name).unwrap());
        let names = |wish: Wish| {
            let Order { nodes, .. } = wish.order(|node| PathBuf::from("/n").join(node.name.as_str()));
            nodes.into_iter().map(|n| (n.name.to_string(), n.writes, n.is_named)).collect::<Vec<_>>()
        };
        assert_eq!(names(wish("b").unwrap()), [("logger-1".to_owned(), true, false)]);
        let on_a = [("manager".to_owned(), false, true), ("worker".to_owned(), false, true)];
        assert_eq!(names(wish("a").unwrap()), on_a);
        assert_eq!(wish("c"), None);
    }

    #[test]
    fn names_say_whose_log_it_is_where_there_are_several_or_none_is_expected() {
        let is_named = |writes, writers| Minded::new(&node(Role::Logger), PathBuf::new(), writes, writers).is_named;
        assert_eq!([is_named(true, 1), is_named(true, 2), is_named(false, 1)], [false, true, true]);
        let who_writes =
            |has_logger| Role::ALL.into_iter().filter(|role| writes(*role, has_logger)).collect::<Vec<_>>();
        assert!(!who_writes(true).contains(&Role::Manager) && who_writes(false).contains(&Role::Manager));
        assert!(!who_writes(false).contains(&Role::Worker) && who_writes(true).contains(&Role::None));
    }
}

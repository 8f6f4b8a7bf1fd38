//! What would keep nodes from running here, found out without running any: no port is bound, and what runs, or is in force,
//! is not touched.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::zeek::Objection;
use super::{Site, room};
use crate::model::{LayoutEntry, Life, Node, ReadyBy, Role, Zeek};
use crate::supervisor::process::{Listeners, obstacles};

/// What somebody asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    pub zeek: Zeek,
    /// All members of the Zeek cluster, sorted by name.
    pub layout: Vec<LayoutEntry>,
    /// All that would be launched, of Zeek and others.
    pub nodes: Vec<Arc<Node>>,
    /// Ports of nodes that run now.
    pub ours: BTreeSet<u16>,
    /// Where the instance is, if that is known.
    pub host: Option<IpAddr>,
}

impl Site {
    /// Every objection, sorted by node. Blocks for as long as Zeek takes to parse, which may be seconds.
    pub fn inspect(&self, survey: Survey) -> Vec<Objection> {
        let Survey { zeek, layout, nodes, ours, host } = survey;
        let no_room = room::for_nodes(&self.nodes, nodes.len()).err();
        let (of_zeek, others): (Vec<Arc<Node>>, Vec<_>) = nodes.into_iter().partition(|node| node.is_zeek());
        let listeners = Listeners::read();
        let mut objections: Vec<Objection> =
            others.iter().flat_map(|node| self.objections(node, &ours, &listeners, host)).collect();
        if !of_zeek.is_empty() {
            let survey = Survey { zeek, layout, nodes: of_zeek, ours, host };
            objections.extend(self.zeek.inspect(self, survey, &|place| listeners.has(place)));
        }
        objections.extend(no_room.map(Objection::of_all));
        objections.sort_by(|a, b| (&a.node, &a.what).cmp(&(&b.node, &b.what)));
        objections
    }

    /// What stands in the way of a node with a `command`.
    fn objections(
        &self,
        node: &Node,
        ours: &BTreeSet<u16>,
        listeners: &Listeners,
        host: Option<IpAddr>,
    ) -> Vec<Objection> {
        let objection = |what: String| Objection::of(node, what);
        let launched = match self.program(node, Life::default()) {
            Ok(program) => obstacles(&program).iter().map(|error| objection(error.to_string())).collect(),
            Err(error) => vec![objection(error.to_string())],
        };
        let taken = ports(node).into_iter().filter(|(_, port)| !ours.contains(port) && listeners.have(*port, host));
        launched.into_iter().chain(taken.map(|(what, port)| objection(taken_by_a_stranger(what, port)))).collect()
    }
}

/// The ports that a node with a `command` was given to listen on. One for metrics it gets for its role, whether it knows
/// what to do with it or not.
fn ports(node: &Node) -> Vec<(&'static str, u16)> {
    let ready = match node.ready.by {
        ReadyBy::Port(port) => Some(port),
        ReadyBy::Tcp(address) => Some(SocketAddr::port(&address)).filter(|_| address.ip().is_loopback()),
        ReadyBy::Settle(_) | ReadyBy::Notify | ReadyBy::Zeek | ReadyBy::Usual => None,
    };
    let metrics = node.metrics_port.filter(|_| node.role == Role::None);
    let ready = ready.filter(|port| ![node.port, metrics].contains(&Some(*port)));
    let all = [("port", node.port), ("metrics_port", metrics), ("its port in `ready`,", ready)];
    all.into_iter().filter_map(|(what, port)| Some((what, port?))).collect()
}

/// What is said of a port on which somebody listens who is none of ours.
pub(super) fn taken_by_a_stranger(what: &str, port: u16) -> String {
    format!("{what} {port}/tcp is taken by another program: choose another, or stop that one")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::launch::ZeekOptions;
    use crate::model::{InstanceName, NodeName, RunAs};

    fn site(home: &std::path::Path) -> Site {
        let zeek = ZeekOptions { program: Some("/nowhere".into()), files: ".zeek".into() };
        Site::new("lab".into(), home.join("nodes"), "1-2".into(), [], None, zeek)
    }

    fn node(name: &str, command: &[&str]) -> Node {
        let mut node = Node::new(NodeName::new(name).unwrap(), InstanceName::new("i").unwrap(), Role::None);
        node.command = command.iter().map(|word| (*word).to_owned()).collect();
        node
    }

    fn inspected(site: &Site, nodes: Vec<Node>, ours: BTreeSet<u16>) -> Vec<String> {
        let nodes = nodes.into_iter().map(Arc::new).collect();
        let survey = Survey { zeek: Zeek::default(), layout: Vec::new(), nodes, ours, host: None };
        let objections = site.inspect(survey);
        objections.into_iter().map(|found| format!("{}: {}", found.node.unwrap(), found.what)).collect()
    }

    #[test]
    fn everything_that_stands_in_the_way_is_said_at_once_and_nothing_is_made() {
        let home = tempfile::tempdir().unwrap();
        let site = site(home.path());
        std::fs::create_dir(&site.nodes).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut many = node("many", &["/nowhere/program"]);
        (many.user, many.port, many.directory) = (Some("no such user".into()), Some(port), Some("/dev/null".into()));
        let mut file = node("file", &["/bin/true"]);
        file.run_as = Some(Box::new(RunAs { env_file: Some("/nowhere/env".into()), ..RunAs::default() }));
        let mut ready = node("ready", &["true"]);
        ready.ready.by = ReadyBy::Port(port);
        let nodes = vec![many, file, ready, node("fine", &["true"])];
        let taken = format!("{port}/tcp is taken by another program: choose another, or stop that one");
        assert_eq!(
            inspected(&site, nodes.clone(), BTreeSet::new()),
            [
                "file: cannot read the variables in /nowhere/env: No such file or directory (os error 2)".to_owned(),
                "many: cannot change to directory /dev/null: Not a directory (os error 20)".to_owned(),
                "many: cannot run `/nowhere/program`: No such file or directory (os error 2)".to_owned(),
                format!("many: port {taken}"),
                "many: user `no such user` does not exist".to_owned(),
                format!("ready: its port in `ready`, {taken}"),
            ]
        );
        let ours = inspected(&site, nodes, [port].into());
        assert!(!ours.iter().any(|line| line.contains(&taken)), "{ours:?}");
        assert_eq!(std::fs::read_dir(&site.nodes).unwrap().count(), 0, "nothing was made");
        std::fs::remove_dir(&site.nodes).unwrap();
        let survey = |nodes| Survey { zeek: Zeek::default(), layout: vec![], nodes, ours: BTreeSet::new(), host: None };
        let objections = site.inspect(survey(vec![Arc::new(node("fine", &["true"]))]));
        assert!(objections[0].what.starts_with("there is no room for the records of 1 nodes in "), "{objections:?}");
    }
}

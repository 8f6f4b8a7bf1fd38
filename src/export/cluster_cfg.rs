//! zeek-client's `cluster.cfg`: what that knows of a configuration, and no more.

use std::sync::Arc;

use super::compare::differences;
use super::{Export, ExportFile};
use crate::model::cluster_file::render;
use crate::model::{Configuration, Node, Role};

const NAME: &str = "cluster.cfg";

/// Writes the nodes of Zeek's cluster with the keys that zeek-client reads.
pub fn write(configuration: &Configuration) -> Export {
    let known = |node: &Arc<Node>| {
        let mut known = Node::new(node.name.clone(), node.instance.clone(), node.role);
        (known.port, known.metrics_port) = (node.port, node.metrics_port);
        (known.scripts, known.interface, known.env) = (node.scripts.clone(), node.interface.clone(), node.env.clone());
        // One processor is all that it can say.
        known.cpu_affinity = node.cpu_affinity.clone().filter(|cpus| cpus.0.len() == 1);
        Arc::new(known)
    };
    let members = configuration.nodes.iter().filter(|node| node.is_zeek() && node.role != Role::None);
    let said = Configuration {
        instances: configuration.instances.clone(),
        nodes: members.map(known).collect(),
        ..Configuration::empty(configuration.id.clone())
    };
    let files = vec![ExportFile { name: NAME.into(), text: render(&said) }];
    Export { files, remarks: differences(configuration, &said, NAME) }
}

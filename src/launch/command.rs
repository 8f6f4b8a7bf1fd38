//! Any program: the command line is the node's own.

use super::{MARKER, Site};
use crate::model::{Life, Node, Role};
use crate::supervisor::process::Program;

pub(super) fn program(site: &Site, node: &Node, life: Life) -> Program {
    let home = site.directory(node);
    let mut env = site.environment.clone();
    if node.role != Role::None {
        env.insert("CLUSTER_NODE".into(), node.name.to_string());
    }
    env.extend(node.env.clone());
    env.insert(MARKER.into(), site.marker(node, life));
    Program {
        argv: node.command.clone(),
        env,
        directory: node.directory.as_ref().map_or_else(|| home.clone(), Into::into),
        stdout: home.join("stdout"),
        stderr: home.join("stderr"),
        user: node.user.clone(),
        cpu: node.cpu_affinity,
        nofile: site.descriptors,
        group: None,
    }
}

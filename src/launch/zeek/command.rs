//! The command line and the variables of one Zeek node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Installation;
use super::rendered::Rendered;
use super::version::NoZeroMq;
use crate::launch::FILES_HERE;
use crate::model::{Node, Surroundings, Zeek};
use crate::plan::zeek::template::expand;

/// Where Zeek writes how far it has come, in its working directory.
pub const STATUS_FILE: &str = ".status";

/// What a Zeek node is run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub argv: Vec<String>,
    /// What is added to its environment, and wins over what is inherited.
    pub env: BTreeMap<String, String>,
}

/// The variables by which Zeek is told only to look whether it could run.
const CHECK: [&str; 2] = ["ZEEKCTL_CHECK_CONFIG", "ZEEKCTL_DISABLE_LISTEN"];

/// How to run `node`, whose surroundings are known, and whose own files are in `tree`. `inherited` is the PATH that its own
/// comes before.
pub fn call(
    node: &Node,
    zeek: &Installation,
    files: &Rendered,
    tree: Option<&str>,
    inherited: Option<&str>,
) -> Result<Call, NoZeroMq> {
    let live = |argv: &mut Vec<String>, interface: Option<String>| {
        if let Some(interface) = interface {
            argv.extend(["-i".into(), interface]);
        }
        argv.extend(["-U".into(), STATUS_FILE.into()]);
    };
    build(node, zeek, files, tree, inherited, live)
}

/// How to have it looked at whether `node` could run: it only parses, listens nowhere and reads no interface.
pub fn check(
    node: &Node,
    zeek: &Installation,
    files: &Rendered,
    tree: Option<&str>,
    inherited: Option<&str>,
) -> Result<Call, NoZeroMq> {
    let mut call = build(node, zeek, files, tree, inherited, |argv, _| argv.push("-a".into()))?;
    call.env.extend(CHECK.map(|name| (name.to_owned(), "1".to_owned())));
    Ok(call)
}

fn build(
    node: &Node,
    zeek: &Installation,
    files: &Rendered,
    tree: Option<&str>,
    inherited: Option<&str>,
    first: impl FnOnce(&mut Vec<String>, Option<String>),
) -> Result<Call, NoZeroMq> {
    let unknown = Surroundings::default();
    let knows = node.zeek.as_ref().and_then(|zeek| zeek.knows.as_deref()).unwrap_or(&unknown);
    // What cannot be expanded was refused before it came here.
    let text = |text: &str| expand(text, |name| knows.variables.get(name).cloned()).unwrap_or_else(|_| text.to_owned());
    let settings = &*knows.settings;
    let mut argv = vec![zeek.program.clone()];
    first(&mut argv, node.interface.as_deref().map(text));
    for prefix in &settings.prefixes {
        argv.extend(["-p".into(), prefix.clone()]);
    }
    if node.is_in_zeek_cluster() {
        let backend = zeek.version.backend(settings.backend)?;
        argv.extend(zeek.version.backend_script(backend).map(str::to_owned));
    }
    argv.push(files.settings());
    argv.extend(settings.scripts.iter().chain(&node.scripts).cloned());
    argv.extend(settings.args.iter().chain(node.zeek_args()).cloned());
    argv.push(files.last());
    argv.push(files.channel());
    argv.extend(options(&node.options, settings, knows.fanout));

    let own = node.env.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    let shared = settings.env.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    let shared = Zeek { env: shared, ..settings.clone() };
    let mut env = environment(&own, &shared, zeek, &[Some(&*files.directory()), tree], inherited);
    if node.is_in_zeek_cluster() {
        env.insert("CLUSTER_NODE".into(), node.name.to_string());
        if let Some(host) = loopback(node, knows) {
            env.entry("ZEEK_DEFAULT_LISTEN_ADDRESS".into()).or_insert_with(|| host.to_string());
        }
    }
    if let Some(tree) = tree {
        argv.iter_mut().chain(env.values_mut()).for_each(|text| *text = text.replace(FILES_HERE, tree));
    }
    Ok(Call { argv, env })
}

/// Where the nodes of its cluster find it, if no other machine could: then it need not listen anywhere else.
fn loopback(node: &Node, knows: &Surroundings) -> Option<IpAddr> {
    let own = knows.entries.iter().find(|entry| entry.name == node.name);
    own.map(|entry| entry.host).filter(IpAddr::is_loopback)
}

/// The variables of a Zeek: what all share, then its `own`, with Zeek's directories in both paths, and those that are
/// there for it before all other scripts.
pub(super) fn environment(
    own: &BTreeMap<String, String>,
    settings: &Zeek,
    zeek: &Installation,
    first: &[Option<&str>],
    inherited: Option<&str>,
) -> BTreeMap<String, String> {
    let mut env = settings.env.clone();
    env.extend(own.clone());
    let path = settings.path.iter().cloned().chain([zeek.bin()]).chain(inherited.map(str::to_owned));
    env.entry("PATH".into()).or_insert_with(|| join(path));
    // Whoever has a ZEEKPATH of their own gets it, behind what comes first: without that there is no cluster.
    let own = env.remove("ZEEKPATH").map(|own| vec![own]);
    let after = own.unwrap_or_else(|| settings.script_path.iter().cloned().chain(zeek.script_path()).collect());
    env.insert("ZEEKPATH".into(), join(first.iter().flatten().map(|first| (*first).to_owned()).chain(after)));
    env
}

/// `Name=value` for each option: what all share, then what is the node's `own`.
pub(super) fn options(own: &BTreeMap<String, String>, settings: &Zeek, fanout: Option<u16>) -> Vec<String> {
    let mut options: BTreeMap<&str, String> = BTreeMap::new();
    if let Some(fanout) = fanout {
        options.insert("AF_Packet::fanout_id", fanout.to_string());
    }
    for (name, value) in settings.options.iter().chain(own) {
        options.insert(name, value.clone());
    }
    options.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn join(directories: impl IntoIterator<Item = String>) -> String {
    directories.into_iter().collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InstanceName, LayoutEntry, NodeName, Role};

    #[test]
    fn a_node_that_only_its_own_machine_finds_listens_nowhere_else() {
        let name = NodeName::new("m").unwrap();
        let node = Node::new(name.clone(), InstanceName::new("i").unwrap(), Role::Manager);
        for (host, want) in [
            ("127.0.0.1", Some("127.0.0.1")),
            ("127.8.0.9", Some("127.8.0.9")),
            ("::1", Some("::1")),
            ("10.0.0.1", None),
            ("fd00::1", None),
        ] {
            let own = LayoutEntry {
                name: name.clone(),
                role: Role::Manager,
                host: host.parse().unwrap(),
                port: None,
                metrics_port: None,
            };
            let knows = Surroundings { entries: vec![own], ..Surroundings::default() };
            assert_eq!(loopback(&node, &knows).map(|host| host.to_string()).as_deref(), want);
        }
    }
}

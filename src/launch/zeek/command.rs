//! The command line and the variables of one Zeek node.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::Installation;
use super::rendered::Rendered;
use super::version::{NoBackend, Version};
use crate::launch::FILES_HERE;
use crate::model::curve::{CurveKeys, SecretKey};
use crate::model::{Backend, Encrypt, Node, Role, Surroundings, Zeek};
use crate::plan::zeek::template::expand;

/// Where Zeek writes how far it has come, in its working directory.
pub const STATUS_FILE: &str = ".status";

/// What a Zeek node is run as.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    pub argv: Vec<String>,
    /// What is added to its environment, and wins over what is inherited.
    pub env: BTreeMap<String, String>,
}

impl fmt::Debug for Call {
    /// Without what its variables hold, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.env.keys().collect();
        f.debug_struct("Call").field("argv", &self.argv).field("env", &names).finish()
    }
}

/// The variables by which Zeek is told only to look whether it could run.
const CHECK: [&str; 2] = ["ZEEKCTL_CHECK_CONFIG", "ZEEKCTL_DISABLE_LISTEN"];

/// What the variables begin with by which Zeek is told its keys for ZeroMQ.
const CURVE: &str = "ZEEK_CLUSTER_BACKEND_ZEROMQ_CURVE_";

/// How to run `node`, whose surroundings are known, whose own files are in `tree`, and which has these keys if its Zeek can use
/// any. `inherited` is the PATH that its own comes before.
pub fn call(
    node: &Node,
    zeek: &Installation,
    files: &Rendered,
    tree: Option<&str>,
    keys: Option<&CurveKeys>,
    inherited: Option<&str>,
) -> Result<Call, NoBackend> {
    let live = |argv: &mut Vec<String>, interface: Option<String>| {
        if let Some(interface) = interface {
            argv.extend(["-i".into(), interface]);
        }
        argv.extend(["-U".into(), STATUS_FILE.into()]);
    };
    let mut call = build(node, zeek, files, tree, inherited, live)?;
    // Whoever has keys of their own has all of them: half of one and half of another would be none.
    if let Some(keys) =
        keys.filter(|_| encrypts(node, zeek.version) && !call.env.keys().any(|name| name.starts_with(CURVE)))
    {
        call.env.extend(variables(keys, node.role));
    }
    Ok(call)
}

/// How to have it looked at whether `node` could run: it only parses, listens nowhere and reads no interface.
pub fn check(
    node: &Node,
    zeek: &Installation,
    files: &Rendered,
    tree: Option<&str>,
    inherited: Option<&str>,
) -> Result<Call, NoBackend> {
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
) -> Result<Call, NoBackend> {
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
        zeek.version.encrypts(backend, settings.encrypt)?;
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

/// Whether a node talks in a way that this version can encrypt.
fn encrypts(node: &Node, version: Version) -> bool {
    let settings = node.zeek.as_ref().and_then(|zeek| zeek.knows.as_ref()).map(|knows| &knows.settings);
    let (backend, encrypt) = settings.map_or(Default::default(), |settings| (settings.backend, settings.encrypt));
    let backend = version.backend(backend).unwrap_or(Backend::Broker);
    node.is_in_zeek_cluster() && encrypt != Encrypt::No && version.encrypts(backend, Encrypt::Yes).is_ok()
}

/// The variables that tell a node its keys. Whoever listens has the server's, too: the hub in the manager, and loggers, or
/// the manager where there is none.
fn variables(keys: &CurveKeys, role: Role) -> impl Iterator<Item = (String, String)> {
    let CurveKeys { server, client } = keys;
    let listens = matches!(role, Role::Manager | Role::Logger);
    let all = [
        ("SERVER_PUBLICKEY", Some(server.public.z85())),
        ("SERVER_SECRETKEY", Some(&server.secret).filter(|_| listens).map(SecretKey::z85)),
        ("CLIENT_PUBLICKEY", Some(client.public.z85())),
        ("CLIENT_SECRETKEY", Some(client.secret.z85())),
    ];
    all.into_iter().filter_map(|(name, key)| Some((format!("{CURVE}{name}"), key?)))
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
    use std::sync::Arc;

    use super::*;
    use crate::model::{InstanceName, LayoutEntry, NodeName, ZeekNode};
    use crate::trust::CurveRoot;

    /// What a node of that role is told of its keys, by the last word of each variable.
    fn told(version: (u32, u32), role: Role, change: impl FnOnce(&mut Zeek)) -> Result<Vec<String>, NoBackend> {
        let mut settings = Zeek { backend: Backend::ZeroMq, ..Zeek::default() };
        change(&mut settings);
        let mut node = Node::new(NodeName::new("m").unwrap(), InstanceName::new("i").unwrap(), role);
        let knows = Surroundings { settings: Arc::new(settings), ..Surroundings::default() };
        node.zeek = Some(Box::new(ZeekNode { knows: Some(Arc::new(knows)), args: vec![] }));
        let version = Version { major: version.0, minor: version.1 };
        let zeek = Installation { program: "zeek".into(), prefix: "/".into(), version };
        let (files, keys) = (Rendered::at("/r"), CurveRoot::from([7; 32]).keys(1));
        let checked = check(&node, &zeek, &files, None, None)?;
        assert!(checked.env.values().all(|value| *value != keys.client.secret.z85()), "nothing listens");
        let call = call(&node, &zeek, &files, None, Some(&keys), None)?;
        let shown = format!("{call:?} {:?}", call.argv);
        assert!([&keys.server, &keys.client].iter().all(|pair| !shown.contains(&pair.secret.z85())), "{shown}");
        Ok(call.env.keys().filter_map(|name| name.strip_prefix(CURVE)).map(str::to_owned).collect())
    }

    #[test]
    fn who_listens_has_the_servers_key_and_who_cannot_use_keys_has_none() {
        let client = ["CLIENT_PUBLICKEY", "CLIENT_SECRETKEY", "SERVER_PUBLICKEY"];
        let all = ["CLIENT_PUBLICKEY", "CLIENT_SECRETKEY", "SERVER_PUBLICKEY", "SERVER_SECRETKEY"];
        for role in [Role::Manager, Role::Logger] {
            assert_eq!(told((8, 2), role, |_| {}).unwrap(), all);
        }
        for role in [Role::Proxy, Role::Worker] {
            assert_eq!(told((9, 0), role, |_| {}).unwrap(), client);
        }
        assert_eq!(told((9, 0), Role::None, |_| {}).unwrap(), [""; 0]);
        assert_eq!(told((8, 1), Role::Manager, |_| {}).unwrap(), [""; 0]);
        assert_eq!(told((9, 0), Role::Manager, |zeek| zeek.encrypt = Encrypt::No).unwrap(), [""; 0]);
        assert_eq!(told((9, 0), Role::Manager, |zeek| zeek.backend = Backend::Broker).unwrap(), [""; 0]);
        // Whoever has their own gets nothing of ours beside it.
        let own = |zeek: &mut Zeek| drop(zeek.env.insert(format!("{CURVE}SERVER_PUBLICKEY"), "x".into()));
        assert_eq!(told((9, 0), Role::Worker, own).unwrap(), ["SERVER_PUBLICKEY"]);
        let must = |zeek: &mut Zeek| zeek.encrypt = Encrypt::Yes;
        assert_eq!(told((8, 2), Role::Worker, must).unwrap(), client);
        let error = told((8, 1), Role::Worker, must).unwrap_err().to_string();
        assert!(error.starts_with("Zeek 8.1 cannot encrypt what nodes say by this backend"), "{error}");
    }

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

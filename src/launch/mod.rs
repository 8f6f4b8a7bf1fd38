//! How a node becomes a command line.

mod command;
mod inspect;
mod room;
pub mod zeek;

pub use inspect::Survey;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::bundle::tree::Place;
use crate::model::{InstanceName, Life, Node};
use crate::supervisor::process::{Program, user_of};

/// What an agent gives to all of its nodes.
#[derive(Debug)]
pub struct Site {
    /// Names the cluster, in every process's marker.
    pub cluster: String,
    /// Holds a directory per node.
    pub nodes: PathBuf,
    /// Names that directory, in every process's environment.
    pub place: String,
    /// What nodes inherit of the agent's environment: without the agent's own settings.
    pub environment: BTreeMap<String, String>,
    /// The descriptor limit (soft, hard) that the agent was started with.
    pub descriptors: Option<(u64, u64)>,
    /// What makes the command lines of Zeek nodes.
    pub zeek: zeek::Launcher,
}

/// How an agent runs Zeek nodes.
#[derive(Debug, Clone, Default)]
pub struct ZeekOptions {
    /// Zeek's program, or the prefix of its installation; `None`: it is looked for.
    pub program: Option<PathBuf>,
    /// The name of the directory, beside those of the nodes, for what is rendered. No node has a name like it.
    pub files: String,
}

impl ZeekOptions {
    /// Those of the agent of `instance`, which may share its nodes' directory with agents of other instances.
    pub fn new(instance: &InstanceName, program: Option<PathBuf>) -> Self {
        // A `:` would part directories where Zeek reads it; and `=` is in no name.
        Self { program, files: format!(".zeek-{}", instance.as_str().replace(':', "=")) }
    }
}

/// Why a node has no command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// A Zeek node that cannot be launched, for this reason.
    #[error("{0}")]
    Zeek(String),
    #[error("cannot read the variables in {path}: {cause}")]
    EnvFile { path: String, cause: String },
    #[error("its files are not in {0}: deploy again, and they are fetched")]
    Files(String),
}

/// The environment variable by which a process is known to be a node's, whoever its parent is.
pub const MARKER: &str = "WATCHPOST_NODE";

/// The environment variable by which it is known whose: another agent of the same cluster may have a node of that name.
pub const PLACE: &str = "WATCHPOST_PLACE";

/// The environment variable by which a node finds its files.
pub const FILES: &str = "WATCHPOST_FILES";

/// What stands for the directory of its files in the definition of a node.
pub const FILES_HERE: &str = "${files}";

/// Why the process of a node that is no Zeek node cannot be asked anything: it has no way to answer.
pub const UNASKED: &str = "runs a `command` of its own, which cannot be asked";

impl Site {
    /// A site whose nodes inherit `environment`, but not the settings and tokens of the agent itself, nor what its
    /// service manager told it.
    pub fn new(
        cluster: String,
        nodes: PathBuf,
        place: String,
        environment: impl IntoIterator<Item = (String, String)>,
        descriptors: Option<(u64, u64)>,
        zeek: ZeekOptions,
    ) -> Self {
        let settings = ["WATCHPOST_", "ZEEK_AGENT_", "ZEEK_CONTROLLER_"];
        // What a service manager tells the agent: a node that believed it would speak in the agent's name.
        let told = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];
        let own = |name: &str| told.contains(&name) || settings.iter().any(|own| name.starts_with(own));
        let environment: BTreeMap<_, _> = environment.into_iter().filter(|(name, _)| !own(name)).collect();
        let zeek = zeek::Launcher::new(zeek.program, environment.clone(), nodes.join(zeek.files));
        Self { cluster, nodes, place, environment, descriptors, zeek }
    }

    /// The value of [`MARKER`] in one life of a node: `<cluster>/<node>/<life>`.
    pub fn marker(&self, node: &Node, life: Life) -> String {
        format!("{}/{}/{life}", self.cluster, node.name)
    }

    /// The marker of those who ask the node how it is: none of its own.
    pub fn askers_marker(&self, node: &Node) -> String {
        format!("{}/{}/probe", self.cluster, node.name)
    }

    /// The program that asks the node how it is, run as the node is.
    pub fn asker(&self, node: &Node, life: Life, command: &[String]) -> Result<Program, LaunchError> {
        let mut program = command::program(self, node, life)?;
        program.argv = command.to_vec();
        program.env.insert(MARKER.into(), self.askers_marker(node));
        // Nobody reads what it has to say, and it would grow.
        (program.stdout, program.stderr) = ("/dev/null".into(), "/dev/null".into());
        Ok(program)
    }

    /// Where the node's record and output live.
    pub fn directory(&self, node: &Node) -> PathBuf {
        self.nodes.join(node.name.as_str())
    }

    /// Where the node works.
    pub fn working_directory(&self, node: &Node) -> PathBuf {
        let home = self.directory(node);
        // What the agent writes about a node stays the agent's.
        let own = if node.user.is_some() { home.join("home") } else { home };
        node.directory.as_ref().map_or(own, Into::into)
    }

    /// Where the node finds its files, if it has some.
    pub fn files_of(&self, node: &Node) -> Option<Place> {
        let bundle = node.files.as_ref()?.bundle?;
        // Who is not there is not launched.
        let reader = node.user.as_deref().and_then(user_of).map(|(_, group)| group);
        Some(Place { home: self.directory(node), bundle, reader })
    }

    /// The same as a text; empty if it has none.
    fn tree_of(&self, node: &Node) -> Option<String> {
        self.files_of(node).map(|place| place.tree().to_string_lossy().into_owned())
    }

    /// A text of a node's definition, with the place of its files in it.
    fn here(&self, node: &Node, text: &str) -> String {
        // Where they are takes a look at the accounts of this machine.
        match text.contains(FILES_HERE).then(|| self.tree_of(node)).flatten() {
            Some(tree) => text.replace(FILES_HERE, &tree),
            None => text.to_owned(),
        }
    }

    /// The program that one life of the node is.
    pub fn program(&self, node: &Node, life: Life) -> Result<Program, LaunchError> {
        if let Some(place) = self.files_of(node).filter(|place| !place.tree().is_dir()) {
            return Err(LaunchError::Files(place.tree().display().to_string()));
        }
        if !node.is_zeek() {
            return command::program(self, node, life);
        }
        let mut env = command::inherited(self, node)?;
        let zeek::Call { argv, env: own } = self.zeek.call(node, self.tree_of(node).as_deref(), &env)?;
        env.extend(own);
        Ok(command::with(self, node, life, argv, env))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeName, Role};

    fn site() -> Site {
        let agent = [
            ("PATH", "/bin"),
            ("WATCHPOST_TOKEN_FILE", "/t"),
            ("ZEEK_AGENT_NAME", "a"),
            ("ZEEKPATH", "/z"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("WATCHDOG_USEC", "30000000"),
            ("WATCHDOG_PID", "7"),
            ("LISTEN_FDS", "1"),
            ("LISTEN_PID", "7"),
            ("LISTEN_FDNAMES", "web"),
        ];
        let agent = agent.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let zeek = ZeekOptions { program: Some("/nowhere".into()), files: ".zeek-i".into() };
        Site::new("lab".into(), "/nodes".into(), "1-2".into(), agent, None, zeek)
    }

    fn node() -> Node {
        Node::new(NodeName::new("w").unwrap(), InstanceName::new("i").unwrap(), Role::Worker)
    }

    #[test]
    fn a_node_inherits_the_environment_without_the_agents_own_settings() {
        let mut node = node();
        node.command = vec!["sleep".into(), "9".into()];
        node.env.insert("PATH".into(), "/opt/bin".into());
        let program = site().program(&node, Life(3)).unwrap();
        let wanted =
            [("CLUSTER_NODE", "w"), ("PATH", "/opt/bin"), (MARKER, "lab/w/3"), (PLACE, "1-2"), ("ZEEKPATH", "/z")];
        let wanted: BTreeMap<_, _> = wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(program.env, wanted);
        assert_eq!(program.directory, PathBuf::from("/nodes/w"));
    }

    #[test]
    fn a_node_cannot_forge_its_own_marker() {
        let mut node = node();
        node.command = vec!["true".into()];
        node.env.insert(MARKER.into(), "lab/other/1".into());
        assert_eq!(site().program(&node, Life(1)).unwrap().env[MARKER], "lab/w/1");
    }

    #[test]
    fn a_node_without_a_command_is_refused_with_the_way_out_where_there_is_no_zeek() {
        let error = site().program(&node(), Life(1)).unwrap_err();
        assert!(error.to_string().ends_with("or give the node a `command`"));
    }
}

//! config/*.toml and the environment become [`Settings`]; nobody else reads either.
//!
//! What counts, last first: `WATCHPOST_*` variables, the `ZEEK_*` variables that Zeek's Management framework reads,
//! the file, the defaults. `config/watchpost.toml` shows every key with its default and unit.

mod draft;
mod environment;
mod file;
mod keys;
mod value;

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::model::{CrashRules, Endpoint, InstanceName, OnFailure, OutputRules};
use crate::plan::{Pace, PortRules};
use crate::supervisor::process::groups::Place;

pub use draft::{Draft, Places};

/// The longest that a request may wait for agents. Whoever waits for the controller waits longer than this, so that the
/// nearer error arrives first.
pub const LONGEST_REQUEST: Duration = Duration::from_secs(60);

/// The longest settings file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Everything that a controller or an agent can be told before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Names the cluster; peers of another one are refused.
    pub cluster: String,
    /// Where the process keeps what must survive it.
    pub state_dir: PathBuf,
    /// The least important events that are logged.
    pub log: LevelFilter,
    /// Whether what needs certificates beyond this machine does without them.
    pub insecure: bool,
    pub controller: ControllerSettings,
    pub agent: AgentSettings,
    pub link: LinkSettings,
}

/// What only the controller needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerSettings {
    pub name: String,
    /// Where it listens for agents; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Where it serves its HTTP API; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// Whether it speaks TLS on this machine as well.
    pub http_tls: bool,
    /// What its clients are shown in place of the controller's own certificate, both PEM.
    pub http_certificate: Option<PathBuf>,
    pub http_key: Option<PathBuf>,
    /// Whether the HTTP API answers clients of this machine without a token.
    pub open: bool,
    /// Names under which the HTTP API may be called, beside its address and `localhost`.
    pub hosts: Vec<String>,
    /// Where it serves zeek-client; `None`: nowhere.
    pub websocket: Option<SocketAddr>,
    /// By when zeek-client is answered with what is known.
    pub websocket_answer_within: Duration,
    /// What encrypts that port, all of it PEM: our certificate, its key, and who issues clients' certificates.
    pub websocket_certificate: Option<PathBuf>,
    pub websocket_key: Option<PathBuf>,
    pub websocket_client_ca: Option<PathBuf>,
    /// How long a request waits for agents that do not answer.
    pub request_timeout: Duration,
    /// What becomes of a deployment of which a node does not become ready.
    pub on_failure: OnFailure,
    /// How many nodes of each role a deployment has down at a time.
    pub max_unavailable: Pace,
    /// Whether loggers, managers and proxies without a port are given one, from `start_port` on.
    pub auto_assign_ports: bool,
    pub start_port: u16,
    /// Whether nodes without a metrics port are given one, from `metrics_start_port` on.
    pub auto_assign_metrics_ports: bool,
    pub metrics_start_port: u16,
    /// How old a part of the change log may become, and how long all of it together, in bytes.
    pub log_max_age: Duration,
    pub log_max_bytes: u64,
}

impl ControllerSettings {
    /// How ports are given out.
    pub fn port_rules(&self) -> PortRules {
        PortRules {
            controller: self.listen.map(|address| address.port()).filter(|&port| port != 0),
            first_port: self.auto_assign_ports.then_some(self.start_port),
            first_metrics_port: self.auto_assign_metrics_ports.then_some(self.metrics_start_port),
        }
    }
}

/// What only an agent needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSettings {
    /// The instance that it runs.
    pub name: InstanceName,
    /// The controller that it dials; `None`: it waits to be dialled. If nobody says, it dials unless it listens: where
    /// both sides dialled, each new link would end the other.
    pub controller: Option<Endpoint>,
    /// Where it listens for a controller that dials; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Where its nodes have control groups.
    pub cgroup: Place,
    /// Zeek's program, or the prefix of its installation; `None`: it is looked for.
    pub zeek: Option<PathBuf>,
    /// Where the sockets are on which its nodes say how they are; `None`: where such things usually are.
    pub run_dir: Option<PathBuf>,
    /// What becomes of its nodes when it is asked to end.
    pub on_exit: OnExit,
    /// As PID 1 of a container: how long nodes may take to stop before those that are left are killed.
    pub init_grace: Duration,
    /// How much of its nodes' output is kept, of those that do not say otherwise.
    pub output: OutputRules,
    /// How much is kept of nodes that died unasked.
    pub crashes: CrashRules,
}

impl AgentSettings {
    /// Nobody else could reach one that does neither.
    fn dial_unless_it_listens(&mut self) {
        if self.controller.is_none() && self.listen.is_none() {
            self.controller = Some(SocketAddr::from(([127, 0, 0, 1], 2150)).into());
        }
    }
}

/// What becomes of the nodes of an agent that is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// They run on, and its next run takes them up.
    Keep,
    /// They are stopped in order, and its next run starts them.
    Stop,
}

/// How controller and agents talk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSettings {
    /// How often each side says that it is there; a few missed ones end the link.
    pub heartbeat: Duration,
    /// How long a new peer may take to say who it is.
    pub greeting_within: Duration,
    /// The wait before the second attempt to dial; it doubles with each further one.
    pub reconnect_min: Duration,
    /// The longest wait between attempts.
    pub reconnect_max: Duration,
    /// How much may be under way unacknowledged, in bytes.
    pub window_bytes: u32,
    /// Where the certificates are that `watchpost pki issue` made; empty: in `trust` in the state directory.
    pub trust: PathBuf,
    /// Where a controller finds the cluster's authority, or at least what it is to remember; empty: in `pki` in the state
    /// directory.
    pub authority: PathBuf,
}

impl Settings {
    /// Where the certificates of this process are, if it has any.
    pub fn trust(&self) -> PathBuf {
        chosen(&self.link.trust, || self.state_dir.join("trust"))
    }

    /// Where the cluster's authority is, as far as it is on this machine.
    pub fn authority(&self) -> PathBuf {
        chosen(&self.link.authority, || self.state_dir.join("pki"))
    }
}

fn chosen(path: &Path, usual: impl FnOnce() -> PathBuf) -> PathBuf {
    if path.as_os_str().is_empty() { usual() } else { path.to_owned() }
}

/// The machine that settings are read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    hostname: String,
    /// Whether we run as root.
    root: bool,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn this() -> Self {
        let uname = rustix::system::uname();
        Self::new(&uname.nodename().to_string_lossy(), rustix::process::geteuid().is_root())
    }

    /// A machine of that name. What a name may not hold is replaced by `-`.
    pub fn new(hostname: &str, root: bool) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let hostname: String = hostname.chars().take(64).map(plain).collect();
        Self { hostname: if hostname.is_empty() { "localhost".into() } else { hostname }, root }
    }

    /// Its name: letters, digits and `._-`, at most 64 of them, and at least one.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }
}

/// Where a daemon of this user keeps its state unless its settings or arguments say otherwise.
pub fn usual_state_dir() -> PathBuf {
    // What else is wrong with the environment is not the business of who only asks this.
    let variables = environment::collect(std::env::vars_os(), &mut Vec::new());
    match variables.get("WATCHPOST_STATE_DIR").filter(|chosen| !chosen.is_empty()) {
        Some(chosen) => chosen.into(),
        None => environment::state_dir(rustix::process::geteuid().is_root(), &variables),
    }
}

impl Settings {
    /// Reads the file, if there is one to read, and then the environment, such as [`std::env::vars_os`] gives it. A
    /// state directory that was chosen already wins over both.
    pub fn load(
        config: Option<&Path>,
        state_dir: Option<&Path>,
        machine: &Machine,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        Draft::load(config, state_dir, machine, environment)?.finish()
    }

    /// The same for an agent: where it has joined a cluster, what it was told there counts unless anything else says
    /// otherwise.
    pub fn load_for_agent(
        config: Option<&Path>,
        state_dir: Option<&Path>,
        machine: &Machine,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        Draft::load_for_agent(config, state_dir, machine, environment)?.finish()
    }

    /// The same with the file's name and content at hand.
    pub fn assemble(
        file: Option<(&str, &str)>,
        machine: &Machine,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        Draft::gather(file.as_slice(), None, machine, environment).finish()
    }

    fn defaults(machine: &Machine, state_dir: PathBuf) -> Self {
        let loopback = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        let agent = format!("agent-{}", machine.hostname);
        Self {
            cluster: "watchpost".into(),
            state_dir,
            log: LevelFilter::INFO,
            insecure: false,
            controller: ControllerSettings {
                name: format!("controller-{}", machine.hostname),
                listen: loopback(2150),
                http: loopback(2148),
                http_tls: false,
                http_certificate: None,
                http_key: None,
                open: false,
                hosts: Vec::new(),
                websocket: loopback(2149),
                // zeek-client gives up after 20 seconds.
                websocket_answer_within: Duration::from_secs(19),
                websocket_certificate: None,
                websocket_key: None,
                websocket_client_ca: None,
                request_timeout: Duration::from_secs(10),
                on_failure: OnFailure::Back,
                max_unavailable: Pace::default(),
                auto_assign_ports: true,
                start_port: 2200,
                auto_assign_metrics_ports: true,
                metrics_start_port: 9000,
                log_max_age: Duration::from_secs(30 * 24 * 60 * 60),
                log_max_bytes: 256 << 20,
            },
            agent: AgentSettings {
                // A machine's name holds at most 64 characters, all of which a name may hold.
                name: InstanceName::new(&agent).expect("the names of machines were made to fit"),
                controller: None,
                listen: None,
                cgroup: Place::Anywhere,
                zeek: None,
                run_dir: None,
                on_exit: OnExit::Keep,
                init_grace: Duration::from_secs(8),
                output: OutputRules::default(),
                crashes: CrashRules::default(),
            },
            link: LinkSettings {
                heartbeat: Duration::from_secs(2),
                greeting_within: Duration::from_secs(5),
                reconnect_min: Duration::from_millis(100),
                reconnect_max: Duration::from_secs(10),
                window_bytes: 256 << 10,
                trust: PathBuf::new(),
                authority: PathBuf::new(),
            },
        }
    }
}

fn read(path: &Path) -> Result<String, SettingsError> {
    let fail = |source| SettingsError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text)).map_err(fail)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(fail(io::Error::other(format!("it is longer than {MAX_BYTES} bytes: no settings file is"))));
    }
    Ok(text)
}

/// Refuses an address beyond this machine. Whoever listens or dials without certificates asks here first.
pub fn loopback_only(address: SocketAddr) -> Result<SocketAddr, NotLoopback> {
    match address.ip().to_canonical().is_loopback() {
        true => Ok(address),
        false => Err(NotLoopback(address)),
    }
}

/// An address that others could reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is not on this machine, and what is not secured by certificates stays on it: make them by `watchpost pki` for \
     links, choose 127.0.0.1 or [::1] for the rest, or admit everybody who can reach it by `insecure = true`"
)]
pub struct NotLoopback(pub SocketAddr);

/// Refuses to serve the HTTP API beyond this machine without TLS, unless the settings admit it.
pub fn encrypted(address: SocketAddr, has_tls: bool, insecure: bool) -> Result<SocketAddr, Unencrypted> {
    match has_tls || insecure || loopback_only(address).is_ok() {
        true => Ok(address),
        false => Err(Unencrypted(address)),
    }
}

/// An address to which tokens would travel for everybody to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is not on this machine, and the HTTP API is served beyond it with TLS only: make certificates by `watchpost pki`, \
     or name http_certificate and http_key, or choose 127.0.0.1 or [::1], or admit everybody by `insecure = true`"
)]
pub struct Unencrypted(pub SocketAddr);

/// Refuses an address beyond this machine whose clients need no certificate, unless the settings admit it.
pub fn guarded(address: SocketAddr, has_client_ca: bool, insecure: bool) -> Result<SocketAddr, Unguarded> {
    match has_client_ca || insecure || loopback_only(address).is_ok() {
        true => Ok(address),
        false => Err(Unguarded(address)),
    }
}

/// An address at which others could command the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is not on this machine, and whoever reaches it could command the cluster: choose 127.0.0.1 or [::1], or name \
     websocket_certificate, websocket_key and websocket_client_ca, or admit it by insecure = true (WATCHPOST_INSECURE=1)"
)]
pub struct Unguarded(pub SocketAddr);

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read the settings file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Wrong(Complaints),
}

/// Everything that is wrong with the settings, one complaint a line; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaints(pub Vec<Complaint>);

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, complaint) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{complaint}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// File, line and key, or the variable.
    pub place: String,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl Complaint {
    /// Says `what` is wrong in this `place`.
    pub fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::keys::KEYS;
    use super::*;
    use crate::trust::Whereabouts;

    /// The shipped file, and the same with every `#key = value` in force.
    const SHIPPED: &str = include_str!("../../config/watchpost.toml");

    fn in_force() -> String {
        let line = |line: &'static str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        };
        SHIPPED.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Settings from a file and variables, on a machine called `host`.
    pub fn assemble(text: &str, variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let home = [("HOME", "/home/me"), ("PATH", "/bin")];
        let variables = home.iter().chain(variables).map(|(name, value)| (name.into(), value.into()));
        Settings::assemble(Some(("w.toml", text)), &Machine::new("host", false), variables)
    }

    /// What is complained of, line by line.
    pub fn complaints(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        assemble(text, variables).unwrap_err().to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_state_directory_that_was_chosen_needs_no_home() {
        let chosen = Path::new("/chosen");
        let variables = [(OsString::from("WATCHPOST_STATE_DIR"), OsString::from("/other"))];
        for environment in [&[][..], &variables] {
            let machine = Machine::new("h", false);
            let settings = Settings::load(None, Some(chosen), &machine, environment.iter().cloned()).unwrap();
            assert_eq!(settings.state_dir, chosen);
        }
    }

    #[test]
    fn the_shipped_file_lists_every_key_with_its_default() {
        let defaults = assemble("", &[]).unwrap();
        assert_eq!(assemble(SHIPPED, &[]).unwrap(), defaults);
        assert_eq!(assemble(&in_force(), &[]).unwrap(), defaults);

        let (text, mut listed, mut section) = (in_force(), BTreeSet::new(), "");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name;
            } else if let Some((name, _)) = line.split_once(" = ") {
                assert!(listed.insert((section, name)), "{name} is listed twice");
            }
        }
        assert_eq!(listed, KEYS.iter().map(|key| (key.section, key.name)).collect());
    }

    #[test]
    fn state_is_kept_where_the_user_may_write() {
        let state_dir = |root, variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
            Settings::assemble(None, &Machine::new("h", root), variables).map(|settings| settings.state_dir)
        };
        assert_eq!(state_dir(true, &[("HOME", "/root")]).unwrap(), Path::new("/var/lib/watchpost"));
        assert_eq!(state_dir(false, &[("HOME", "/h")]).unwrap(), Path::new("/h/.local/state/watchpost"));
        let both = [("HOME", "/h"), ("XDG_STATE_HOME", "/x")];
        assert_eq!(state_dir(false, &both).unwrap(), Path::new("/x/watchpost"));
        assert_eq!(state_dir(false, &[("WATCHPOST_STATE_DIR", "/s")]).unwrap(), Path::new("/s"));
        let error = state_dir(false, &[]).unwrap_err().to_string();
        assert_eq!(error, "state_dir: there is no HOME to put it under: set it here, or by WATCHPOST_STATE_DIR");
    }

    #[test]
    fn an_agent_that_is_told_only_to_listen_does_not_dial() {
        let usual = "127.0.0.1:2150".parse().ok();
        let listening = "[agent]\nlisten = '127.0.0.1:2151'";
        let both = "[agent]\nlisten = '127.0.0.1:2151'\ncontroller = '127.0.0.1:7'";
        let named = "127.0.0.1:7".parse().ok();
        for (text, variables, want) in [
            ("", &[][..], usual),
            ("[agent]\ncontroller = ''", &[], usual),
            (listening, &[], None),
            ("", &[("WATCHPOST_AGENT_LISTEN", "127.0.0.1:2151")], None),
            ("", &[("ZEEK_AGENT_PORT", "2151/tcp")], None),
            ("", &[("ZEEK_AGENT_ADDR", "::1")], None),
            (listening, &[("ZEEK_AGENT_PORT", "0")], usual),
            (listening, &[("WATCHPOST_AGENT_LISTEN", "")], usual),
            (both, &[], named),
            (listening, &[("WATCHPOST_AGENT_CONTROLLER", "127.0.0.1:7")], named),
            (both, &[("WATCHPOST_AGENT_CONTROLLER", "")], None),
        ] {
            let agent = assemble(text, variables).unwrap().agent;
            let address = agent.controller.and_then(|controller| controller.address());
            assert_eq!(address, want, "{text} {variables:?}");
        }
    }

    #[test]
    fn an_agent_that_has_joined_knows_its_cluster_unless_somebody_says_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let trust = directory.path().join("trust");
        std::fs::create_dir(&trust).unwrap();
        let joined = "cluster = 'site'\n[agent]\nname = 'sensor-1'\ncontroller = 'control.example:2150'";
        std::fs::write(Whereabouts::file(&trust), joined).unwrap();
        let config = directory.path().join("w.toml");
        std::fs::write(&config, "[agent]\nname = 'other'").unwrap();
        let machine = Machine::new("h", true);
        let load = |config, variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
            let settings = Settings::load_for_agent(config, Some(directory.path()), &machine, variables).unwrap();
            let Settings { cluster, agent, .. } = settings;
            (cluster, agent.name.to_string(), agent.controller.unwrap().to_string())
        };
        let told = ("site".into(), "sensor-1".into(), "control.example:2150".into());
        assert_eq!(load(None, &[]), told);
        let (_, name, controller) = load(Some(&config), &[("WATCHPOST_AGENT_CONTROLLER", "localhost:7")]);
        assert_eq!((&*name, &*controller), ("other", "localhost:7"));
        let controllers = Settings::load(None, Some(directory.path()), &machine, []).unwrap();
        assert_eq!(controllers.cluster, "watchpost", "it says nothing to a controller");
    }

    #[test]
    fn without_a_state_directory_an_agent_looks_for_what_it_was_told_in_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let trust = directory.path().join("trust");
        std::fs::create_dir(&trust).unwrap();
        std::fs::write(Whereabouts::file(&trust), "not a table").unwrap();
        let machine = Machine::new("h", false);
        let trust_at = [(OsString::from("WATCHPOST_LINK_TRUST"), trust.clone().into_os_string())];
        let draft = Draft::load_for_agent(None, None, &machine, trust_at).unwrap();
        assert!(!draft.places.are_clear(&["state_dir"]));
        let places: Vec<_> = draft.complaints.iter().map(|complaint| &*complaint.place).collect();
        assert_eq!(places, ["state_dir"]);
    }

    #[test]
    fn any_name_of_a_machine_makes_names_of_daemons() {
        for (hostname, want) in [("web.example", "agent-web.example"), ("", "agent-localhost"), ("ü b", "agent---b")] {
            let settings = Settings::assemble(None, &Machine::new(hostname, true), []).unwrap();
            assert_eq!(settings.agent.name.as_str(), want);
        }
        Settings::assemble(None, &Machine::new(&"x".repeat(300), true), []).unwrap();
        assert!(!Machine::this().hostname().is_empty());
    }

    #[test]
    fn only_this_machine_is_reached_without_certificates() {
        for address in ["127.0.0.1:1", "127.9.9.9:0", "[::1]:2150", "[::ffff:127.0.0.1]:1"] {
            assert!(loopback_only(address.parse().unwrap()).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "[::ffff:10.0.0.1]:1"] {
            let error = loopback_only(address.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains("`insecure = true`"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_or_too_long_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("w.toml");
        let load = || Settings::load(Some(&path), None, &Machine::new("h", true), []);
        assert!(load().unwrap_err().to_string().contains(path.to_str().unwrap()));
        std::fs::write(&path, "#".repeat(MAX_BYTES as usize + 1)).unwrap();
        assert!(matches!(load(), Err(SettingsError::Read { .. })));
        std::fs::write(&path, "cluster = 'mine'").unwrap();
        assert_eq!(load().unwrap().cluster, "mine");
    }

    #[test]
    fn the_rules_for_ports_follow_the_settings() {
        let rules = |text| assemble(text, &[]).unwrap().controller.port_rules();
        assert_eq!(rules(""), PortRules::default());
        let text = "[controller]\nlisten = '127.0.0.1:0'\nauto_assign_ports = false\nmetrics_start_port = 3000";
        assert_eq!(rules(text), PortRules { controller: None, first_port: None, first_metrics_port: Some(3000) });
    }
}

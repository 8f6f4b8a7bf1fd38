//! A stand-in for the `zeek` command, as far as whoever launches Zeek sees it: arguments, environment, the layout that it looks
//! for, `-U`, `-a`, `--version`, ports, signals, and failures that a script of the site asks for.
//!
//! `ZEEK_STAND_IN_VERSION` is the version that it is. A script with a line that holds `SYNTAX ERROR` does not parse; one with
//! `FAIL AT START` has the node end with status 1 once it has begun to run.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};

/// What a Zeek of that version would say before it gives up.
type Fatal = String;

fn main() {
    let arguments = Arguments::read(std::env::args().skip(1));
    let version = std::env::var("ZEEK_STAND_IN_VERSION").unwrap_or_else(|_| "8.0.10".into());
    if arguments.version {
        return println!("zeek version {version}");
    }
    let (major, minor) = version.split_once('.').unwrap();
    let minor = minor.split('.').next().unwrap();
    let zeek = Zeek { version: (major.parse().unwrap(), minor.parse().unwrap()), arguments };
    if let Err(fatal) = zeek.run() {
        zeek.status("TERMINATED [fatal_error]");
        eprintln!("{fatal}");
        std::process::exit(1);
    }
}

#[derive(Default)]
struct Arguments {
    version: bool,
    parse_only: bool,
    interface: Option<String>,
    status_file: Option<String>,
    scripts: Vec<String>,
    options: Vec<String>,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Self {
        let mut read = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--version" | "-v" => read.version = true,
                "-a" => read.parse_only = true,
                "-i" => read.interface = words.next(),
                "-U" => read.status_file = words.next(),
                "-p" | "-w" | "-e" | "-r" => drop(words.next()),
                "-C" | "-b" => {}
                option if option.contains('=') && !option.starts_with('/') => read.options.push(word),
                _ => read.scripts.push(word),
            }
        }
        read
    }
}

struct Zeek {
    version: (u32, u32),
    arguments: Arguments,
}

/// The node's own entry in the layout.
struct Own {
    kind: String,
    host: String,
    port: Option<u16>,
    metrics_port: Option<u16>,
}

impl Zeek {
    fn run(&self) -> Result<(), Fatal> {
        let node = std::env::var("CLUSTER_NODE").ok().filter(|node| !node.is_empty());
        if !self.arguments.parse_only {
            self.status("INITIALIZING [main]");
        }
        let backend = self.backend(node.as_deref())?;
        let own = node.map(|node| self.own(&node)).transpose()?;
        let scripts = self.scripts()?;
        if self.arguments.parse_only {
            return Ok(());
        }
        if scripts.contains("FAIL AT START") {
            return Err("fatal error: asked to fail by a script".into());
        }
        let _held = own.map(|own| self.listen(&own, backend, &scripts)).transpose()?;
        self.status("RUNNING [run_loop]");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = runtime.block_on(async {
            let mut asked = signal(SignalKind::terminate()).unwrap();
            asked.recv().await
        });
        assert!(ended.is_some());
        self.status("TERMINATING [sig_handler]");
        eprintln!("received termination signal");
        self.status("TERMINATED [atexit]");
        Ok(())
    }

    fn status(&self, line: &str) {
        if let Some(file) = &self.arguments.status_file {
            let _ = std::fs::write(file, format!("{line}\n"));
        }
    }

    /// Whether the node talks by ZeroMQ.
    fn backend(&self, node: Option<&str>) -> Result<bool, Fatal> {
        let first = self.arguments.scripts.first().map_or("", String::as_str);
        let chosen = first.trim_start_matches("policy/").strip_prefix("frameworks/cluster/backend/");
        let known: &[&str] = match self.version {
            version if version >= (8, 1) => &["zeromq", "broker", "zeromq/connect"],
            version if version >= (7, 1) => &["zeromq/connect"],
            _ => &[],
        };
        match (chosen, node) {
            (Some(chosen), _) if !known.contains(&chosen) => Err(format!("fatal error: can't find {first}")),
            (None, Some(node)) if self.version >= (8, 1) => Err(format!(
                "fatal error: Cluster::node set to '{node}', but Cluster::backend is Cluster::CLUSTER_BACKEND_NONE - please \
                 select a cluster backend to use."
            )),
            (chosen, _) => Ok(chosen.is_some_and(|chosen| chosen.starts_with("zeromq"))),
        }
    }

    fn own(&self, node: &str) -> Result<Own, Fatal> {
        let layout = self.find("cluster-layout").ok_or("fatal error: can't find cluster-layout")?;
        let text = std::fs::read_to_string(&layout).unwrap();
        if self.version < (7, 0) && text.contains("$metrics_port") {
            return Err(format!("error in {}, line 1: no such field in record \"metrics_port\"", layout.display()));
        }
        let begins = format!("\t[\"{node}\"] = [");
        let line = text.lines().find(|line| line.starts_with(&begins));
        let line = line.ok_or_else(|| format!("fatal error: {node} is not in {}", layout.display()))?;
        let field = |name: &str| {
            let (_, behind) = line.split_once(&format!("${name}="))?;
            Some(behind.split(',').next()?.trim_end_matches("]").to_owned())
        };
        let port = |name| field(name)?.strip_suffix("/tcp")?.parse().ok();
        Ok(Own {
            kind: field("node_type").unwrap().trim_start_matches("Cluster::").to_owned(),
            host: field("ip").unwrap().trim_start_matches('[').to_owned(),
            port: port("p"),
            metrics_port: port("metrics_port"),
        })
    }

    /// All that is loaded, as far as there are files.
    fn scripts(&self) -> Result<String, Fatal> {
        let mut all = String::new();
        for name in &self.arguments.scripts {
            let is_of_zeek = ["frameworks/", "policy/", "base/", "misc/"].iter().any(|own| name.starts_with(own));
            let Some(path) = self.find(name) else {
                match is_of_zeek {
                    true => continue,
                    false => return Err(format!("fatal error: can't find {name}")),
                }
            };
            let text = std::fs::read_to_string(&path).map_err(|error| format!("fatal error: {name}: {error}"))?;
            if let Some(at) = text.lines().position(|line| line.contains("SYNTAX ERROR")) {
                return Err(format!(
                    "error in {}, line {}: syntax error, at or near \"SYNTAX\"",
                    path.display(),
                    at + 1
                ));
            }
            all.push_str(&text);
        }
        Ok(all)
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let path = std::env::var("ZEEKPATH").unwrap_or_default();
        let places: Vec<&Path> = match name.starts_with('/') {
            true => vec![Path::new("/")],
            false => path.split(':').map(Path::new).collect(),
        };
        let names = [name.to_owned(), format!("{name}.zeek"), format!("{name}/__load__.zeek")];
        let candidates = places.iter().flat_map(|place| names.iter().map(|name| place.join(name)));
        candidates.into_iter().find(|candidate| candidate.is_file())
    }

    fn listen(&self, own: &Own, zeromq: bool, scripts: &str) -> Result<Vec<TcpListener>, Fatal> {
        let mut places = Vec::new();
        let listens = if zeromq { own.kind == "LOGGER" } else { own.kind != "WORKER" };
        places.extend(own.port.filter(|_| listens).map(|port| format!("{}:{port}", own.host)));
        places.extend(own.metrics_port.map(|port| format!("127.0.0.1:{port}")));
        if zeromq && own.kind == "MANAGER" {
            for name in ["listen_xpub_endpoint", "listen_xsub_endpoint"] {
                let (_, behind) = scripts.split_once(name).ok_or("fatal error: the hub has no place")?;
                let place = behind.split('"').nth(1).and_then(|url| url.strip_prefix("tcp://"));
                places.push(place.ok_or("fatal error: the hub has no place")?.to_owned());
            }
        }
        let bind = |place: String| {
            let address: SocketAddr = place.parse().map_err(|error| format!("fatal error: {place}: {error}"))?;
            TcpListener::bind(address).map_err(|error| format!("fatal error: cannot listen on {place}: {error}"))
        };
        places.into_iter().map(bind).collect()
    }
}

//! A stand-in for the `zeek` command, as far as whoever launches Zeek sees it: arguments, environment, the layout that it looks
//! for, `-U`, `-a`, `--version`, ports, signals, and failures that a script of the site asks for.
//!
//! `ZEEK_STAND_IN_VERSION` is the version that it is. A script with a line that holds `SYNTAX ERROR` does not parse; one with
//! `FAIL AT START` has the node end with status 1 once it has begun to run, and one with `FAIL AT END` with status 3 behind a
//! capture. Whoever writes logs writes one, `conn.log`, whose lines are its pid and a number, and rotates it as often as its
//! scripts say, on SIGUSR1 and at its end.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

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
    capture: Option<String>,
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
                "-r" => read.capture = words.next(),
                "-U" => read.status_file = words.next(),
                "-p" | "-w" | "-e" => drop(words.next()),
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
    layout: String,
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
        if let Some(capture) = &self.arguments.capture {
            return read_capture(capture, &scripts);
        }
        let writes = own.as_ref().is_none_or(|own| {
            own.kind == "LOGGER" || (own.kind == "MANAGER" && own.layout.contains("manager_is_logger = T"))
        });
        let _held = own.map(|own| self.listen(&own, backend, &scripts)).transpose()?;
        self.status("RUNNING [run_loop]");
        let log = writes.then(|| Log::open(&scripts)).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let log = runtime.block_on(live(log))?;
        self.status("TERMINATING [sig_handler]");
        log.map(Log::rotate).transpose()?;
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
            layout: text.clone(),
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

/// Reads a capture, as far as it is one, and says in a log how long it is.
fn read_capture(path: &str, scripts: &str) -> Result<(), Fatal> {
    let bytes =
        std::fs::read(path).map_err(|error| format!("fatal error: problem with trace file {path} ({error})"))?;
    std::fs::write("conn.log", format!("#open\t{}\n{} bytes\n", stamp(), bytes.len())).map_err(failed)?;
    println!("read {path}");
    if scripts.contains("FAIL AT END") {
        std::process::exit(3);
    }
    Ok(())
}

/// Lives until it is asked to end, and returns the log that is open then.
async fn live(mut log: Option<Log>) -> Result<Option<Log>, Fatal> {
    let mut asked = signal(SignalKind::terminate()).unwrap();
    let mut rotate = signal(SignalKind::user_defined1()).unwrap();
    let mut write = tokio::time::interval(Duration::from_millis(5));
    loop {
        tokio::select! {
            _ = asked.recv() => return Ok(log),
            _ = rotate.recv() => log = log.map(|log| log.rotate().and_then(Log::again)).transpose()?,
            _ = write.tick(), if log.is_some() => {
                let Some(open) = &mut log else { continue };
                open.write()?;
                if open.is_due() {
                    log = log.map(|log| log.rotate().and_then(Log::again)).transpose()?;
                }
            }
        }
    }
}

/// A log that is open.
struct Log {
    file: File,
    opened: String,
    began: SystemTime,
    interval: Option<Duration>,
    /// The number of the last line.
    last: u64,
}

const SHADOW: &str = ".shadow.conn.log";

impl Log {
    /// Opens it as Zeek does, over whatever is there.
    fn open(scripts: &str) -> Result<Self, Fatal> {
        let interval = scripts.split("redef Log::default_rotation_interval = ").nth(1);
        let interval = interval.and_then(|rest| rest.split(' ').next()?.parse().ok()).filter(|seconds| *seconds > 0);
        Self::begin(interval.map(Duration::from_secs), 0)
    }

    fn again(self) -> Result<Self, Fatal> {
        Self::begin(self.interval, self.last)
    }

    fn begin(interval: Option<Duration>, last: u64) -> Result<Self, Fatal> {
        if interval.is_some() {
            std::fs::write(SHADOW, ".log\n\n").map_err(failed)?;
        }
        let (opened, mut file) = (stamp(), File::create("conn.log").map_err(failed)?);
        writeln!(file, "#open\t{opened}").map_err(failed)?;
        Ok(Self { file, opened, began: SystemTime::now(), interval, last })
    }

    fn write(&mut self) -> Result<(), Fatal> {
        self.last += 1;
        writeln!(self.file, "{} {}", std::process::id(), self.last).map_err(failed)
    }

    fn is_due(&self) -> bool {
        self.interval.is_some_and(|interval| self.began.elapsed().is_ok_and(|age| age >= interval))
    }

    /// Closes it, and puts it into the queue.
    fn rotate(self) -> Result<Self, Fatal> {
        std::fs::create_dir_all("log-queue").map_err(failed)?;
        let name = format!("log-queue/conn__{}__{}__.log", self.opened, stamp());
        std::fs::rename("conn.log", name).map_err(failed)?;
        let _ = std::fs::remove_file(SHADOW); // without an interval there is none
        Ok(self)
    }
}

/// Now, as it stands in names.
fn stamp() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.trim_end_matches('Z').replace(['T', ':'], "-")
}

fn failed(error: std::io::Error) -> Fatal {
    format!("fatal error: a log cannot be written: {error}")
}

//! A stand-in for the `zeek` command, as far as whoever launches Zeek sees it: arguments, environment, the layout that it looks
//! for, `-U`, `-a`, `--version`, ports, signals, the channel to its agent where a script has one, and failures that a script
//! of the site asks for.
//!
//! `ZEEK_STAND_IN_VERSION` is the version that it is. A script with a line that holds `SYNTAX ERROR` does not parse; one with
//! `FAIL AT START` has the node end with status 1 once it has begun to run, and one with `FAIL AT END` with status 3 behind a
//! capture. Whoever writes logs writes one, `conn.log`, whose lines are its pid and a number, and rotates it as often as its
//! scripts say, on SIGUSR1 and at its end. `NO HELLO` keeps a node from saying that it has begun to run. `LOSES PACKETS` has
//! it lose one of ten, `NO ANSWERS` has it answer nothing, and `COUNTS ALOUD` has it warn of fifteen numbers.

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
        if backend && !self.arguments.parse_only {
            self.keys(own.as_ref())?;
        }
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
        let mut channel = Channel::of(&scripts, &self.version());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let log = runtime.block_on(live(log, &mut channel))?;
        channel.iter_mut().for_each(|channel| channel.say("end", "{}"));
        self.status("TERMINATING [sig_handler]");
        log.map(Log::rotate).transpose()?;
        eprintln!("received termination signal");
        self.status("TERMINATED [atexit]");
        Ok(())
    }

    fn version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
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

    /// Half of the keys for ZeroMQ are none, and what no key can be is none either.
    fn keys(&self, own: Option<&Own>) -> Result<(), Fatal> {
        let is_server = own.is_some_and(|own| ["MANAGER", "LOGGER"].contains(&&*own.kind));
        let names = ["SERVER_PUBLICKEY", "CLIENT_PUBLICKEY", "CLIENT_SECRETKEY", "SERVER_SECRETKEY"];
        let key = |name| std::env::var(format!("ZEEK_CLUSTER_BACKEND_ZEROMQ_CURVE_{name}")).ok();
        let keys = names[..if is_server { 4 } else { 3 }].iter().map(key).collect::<Vec<_>>();
        if self.version < (8, 2) || keys.iter().all(Option::is_none) {
            return Ok(());
        }
        let is_key = |key: &String| key.len() == 40 && key.bytes().all(|byte| byte.is_ascii_graphic());
        match keys.iter().all(|key| key.as_ref().is_some_and(is_key)) {
            true => Ok(()),
            false => Err("fatal error: the keys for CURVE are incomplete".into()),
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
async fn live(mut log: Option<Log>, channel: &mut Option<Channel>) -> Result<Option<Log>, Fatal> {
    let mut asked = signal(SignalKind::terminate()).unwrap();
    let mut rotate = signal(SignalKind::user_defined1()).unwrap();
    let mut write = tokio::time::interval(Duration::from_millis(5));
    let mut beat = tokio::time::interval(channel.as_ref().map_or(Duration::from_secs(3600), |it| it.pause));
    let mut look = tokio::time::interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            _ = asked.recv() => return Ok(log),
            _ = rotate.recv() => log = log.map(|log| log.rotate().and_then(Log::again)).transpose()?,
            _ = beat.tick() => channel.iter_mut().for_each(Channel::beat),
            _ = look.tick(), if channel.is_some() => channel.iter_mut().for_each(Channel::look),
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

/// The node's side of the channel to its agent, as its script has it.
struct Channel {
    news: std::fs::File,
    questions: Option<PathBuf>,
    pause: Duration,
    /// What the site's scripts ask for.
    wishes: String,
    said: u64,
    beats: u64,
    /// How much of the questions, and of what is to be said, was read.
    asked: usize,
    ordered: usize,
    counted: u32,
}

impl Channel {
    /// `None` where no script has one, or nobody said where it is. What variables it goes by is read in the script.
    fn of(scripts: &str, version: &str) -> Option<Self> {
        let variable = |ends: &str| {
            let mut named = scripts.split("getenv(\"").skip(1).filter_map(|rest| rest.split('"').next());
            std::env::var(named.find(|name| name.ends_with(ends))?).ok().filter(|value| !value.is_empty())
        };
        let news = std::fs::OpenOptions::new().append(true).open(variable("NEWS")?).unwrap();
        let (questions, pause) = (variable("QUESTIONS"), variable("HEARTBEAT"));
        let pause = pause.map_or(Duration::from_secs(5), |pause| Duration::from_secs_f64(pause.parse().unwrap()));
        let wishes = scripts.lines().filter(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n");
        let (questions, said) = (questions.map(Into::into), 0);
        let mut channel = Self { news, questions, pause, wishes, said, beats: 0, asked: 0, ordered: 0, counted: 0 };
        if !channel.wishes.contains("NO HELLO") {
            channel.say("hello", &format!(r#"{{"contract":1,"version":"{version}","pid":{}}}"#, std::process::id()));
        }
        Some(channel)
    }

    fn say(&mut self, kind: &str, what: &str) {
        self.said += 1;
        let line = format!("{} {kind} {what}\n", self.said);
        self.write(line.as_bytes());
    }

    fn write(&mut self, bytes: &[u8]) {
        self.news.write_all(bytes).unwrap();
    }

    fn beat(&mut self) {
        if self.wishes.contains("NO HELLO") {
            return;
        }
        self.beats += 1;
        let (received, dropped) = match self.wishes.contains("LOSES PACKETS") {
            true => (900 * self.beats, 100 * self.beats),
            false => (1000 * self.beats, 0),
        };
        let counted = format!(
            r#"{{"received":{received},"dropped":{dropped},"link":{},"bytes":{},"memory":104857600,"waiting":2,"#,
            received + dropped,
            received * 64
        );
        self.say("beat", &format!(r#"{counted}"held_errors":0,"held_warnings":0}}"#));
    }

    /// Answers what was asked since the last look, and says what is to be said: the lines of `say` in its directory.
    fn look(&mut self) {
        if self.wishes.contains("COUNTS ALOUD") && self.counted < 15 {
            self.counted += 1;
            let warning = format!(r#"{{"message":"number {}","location":""}}"#, self.counted);
            self.say("warning", &warning);
        }
        let lines = |path: &Path, read: &mut usize| -> Vec<String> {
            let text = std::fs::read(path).unwrap_or_default();
            let fresh = String::from_utf8_lossy(&text[(*read).min(text.len())..]).into_owned();
            let whole = fresh.rfind('\n').map_or(0, |end| end + 1);
            *read += whole;
            fresh[..whole].lines().map(str::to_owned).collect()
        };
        for line in lines(Path::new("say"), &mut self.ordered) {
            match line.split_once(' ') {
                Some((kind @ ("error" | "warning"), text)) => {
                    self.say(kind, &format!(r#"{{"message":"{text}","location":"site.zeek, line 7"}}"#));
                }
                Some(("raw", text)) => self.write(format!("{text}\n").as_bytes()),
                Some(("half", text)) => self.write(text.as_bytes()),
                Some(("flood", bytes)) => self.write(&vec![b'x'; bytes.parse().unwrap()]),
                _ => panic!("cannot say `{line}`"),
            }
        }
        let Some(questions) = self.questions.clone().filter(|_| !self.wishes.contains("NO ANSWERS")) else { return };
        for line in lines(&questions, &mut self.asked) {
            let [number, verb, name] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { continue };
            match (verb, name) {
                ("get_id_value", "bits_per_uid") => self.answer(number, "96"),
                ("get_id_value", "Cluster::node") => {
                    let node = std::env::var("CLUSTER_NODE").unwrap_or_default();
                    self.answer(number, &format!("\"{node}\""));
                }
                ("get_id_value", "too_large") => {
                    let is_manager = std::env::var("CLUSTER_NODE").is_ok_and(|node| node == "manager");
                    self.answer(number, if is_manager { "4E999" } else { "4" });
                }
                ("get_id_value", "a_long_one") => self.answer(number, &format!("\"{}\"", "ü".repeat(100_000))),
                ("get_id_value", "unset") => self.say("failure", &format!("{number} \"no ID value\"")),
                ("get_id_value", _) => self.say("failure", &format!("{number} \"unknown id\"")),
                _ => self.say("failure", &format!("{number} \"dispatch {verb} unknown\"")),
            }
        }
    }

    fn answer(&mut self, number: &str, value: &str) {
        for piece in value.as_bytes().chunks(4000) {
            self.said += 1;
            let line = [format!("{} part {number} ", self.said).as_bytes(), piece, b"\n"].concat();
            self.write(&line);
        }
        self.say("answer", number);
    }
}

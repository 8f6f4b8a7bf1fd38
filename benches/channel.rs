//! What the channel of Zeek nodes costs, and what starting such nodes costs: with stand-ins for Zeek, which cost little
//! themselves.
//!
//! The channel: 1,000 heartbeats a second, written into the channels of 12 nodes that run; in percent of a core for the
//! daemon as a whole, less what it takes without them. Starting: from the request to deploy to its answer, 12 nodes in the order
//! of their roles, each looked at before and ready once it said hello. The floor is one loop that does the same with the same
//! programs and the same command lines: it looks at all, starts those of one role, waits for their hellos, and goes on.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::daemons::wait_for;
use common::figures::{Sample, line, options};
use rustix::process::{Pid, Signal, kill_process};
use watchpost::web::json::{ConfigurationText, Status, Verdict};

const PROGRAM: &str = env!("CARGO_BIN_EXE_watchpost");
const GOAL: f64 = 1.3;
/// For how long heartbeats are written, and how many a second.
const MEASURE: Duration = Duration::from_secs(10);
const BEATS: u32 = 1000;
const ROUNDS: usize = 5;
/// Names, by role in the order of starting.
const ROLES: [&[&str]; 4] = [
    &["logger-1", "logger-2"],
    &["manager"],
    &["proxy-1", "proxy-2"],
    &["worker-1", "worker-2", "worker-3", "worker-4", "worker-5", "worker-6", "worker-7"],
];

fn main() {
    let Some(options) = options() else { return };
    let lab = Lab::start();
    let (mut launched, mut floor) = (Sample::default(), Sample::default());
    let mut plans = None;
    for _ in 0..ROUNDS * options.factor {
        launched.add(lab.start_all());
        let plans = plans.get_or_insert_with(|| lab.plans());
        lab.run(&["deploy", "--empty", "none.cfg"]);
        floor.add(start_all(plans, &lab.home));
    }
    println!("12 Zeek nodes, ms: median (least to most)");
    line("start: one loop", &floor, None);
    line("start: watchpost", &launched, Some((&launched.over(&floor), Some(GOAL))));

    lab.run(&["deploy", "cluster.cfg"]);
    std::thread::sleep(Duration::from_secs(2));
    let [quiet, busy] = [0, BEATS].map(|beats| lab.percent_of_a_core(beats));
    println!("the channels of 12 nodes, percent of a core over {} s", MEASURE.as_secs());
    println!("  {:<44} {quiet:>30.2}", "their own 2.4 heartbeats a second");
    println!("  {:<44} {:>30.2}", "1,000 heartbeats a second more", busy - quiet);
    lab.run(&["deploy", "--empty", "none.cfg"]);
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

/// What one node is run as.
struct Plan {
    name: String,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
}

/// A lab, and the stand-in that it takes for Zeek.
struct Lab {
    home: PathBuf,
    process: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Lab {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("channel").tempdir_in("/dev/shm").expect("a directory");
        let home = directory.path().to_owned();
        let stand_in = Path::new(PROGRAM).with_file_name("examples").join("zeek-stand-in");
        assert!(stand_in.exists(), "build it first: cargo build --release --example zeek-stand-in");
        fs::create_dir_all(home.join("zeek/share/zeek/site")).expect("a directory");
        fs::create_dir_all(home.join("zeek/bin")).expect("a directory");
        fs::write(home.join("zeek/share/zeek/site/local.zeek"), "# nothing\n").expect("a script");
        let zeek = home.join("zeek/bin/zeek");
        fs::copy(stand_in, &zeek).expect("a program");
        fs::set_permissions(&zeek, fs::Permissions::from_mode(0o755)).expect("a program");
        let mut text = String::from("[instances]\na\n[zeek]\nport = 17760\nmetrics_port = 17960\n");
        for name in ROLES.concat() {
            let role = name.split('-').next().expect("a name");
            let interface = if role == "worker" { "interface = lo\n" } else { "" };
            let _ = write!(text, "[{name}]\ninstance = a\nrole = {role}\n{interface}"); // a String
        }
        fs::write(home.join("cluster.cfg"), text).expect("a cluster file");
        fs::write(home.join("none.cfg"), "[instances]\na\n").expect("a cluster file");
        let process = Command::new(PROGRAM)
            .args(["lab", "none.cfg", "--http", "127.0.0.1:0", "--state-dir", "state"])
            .current_dir(&home)
            .env("WATCHPOST_AGENT_ZEEK", home.join("zeek"))
            .env("WATCHPOST_AGENT_RUN_DIR", home.join("run"))
            .env("WATCHPOST_CONTROLLER_WEBSOCKET", "")
            .env("WATCHPOST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program just built");
        let addresses = home.join("state/addresses.json");
        let address = wait_for("address", || {
            let addresses = serde_json::from_slice::<BTreeMap<String, String>>(&fs::read(&addresses).ok()?).ok()?;
            addresses.get("http").cloned()
        });
        let lab = Self { home, process, url: format!("http://{address}"), _directory: directory };
        // Its own deployment comes first.
        wait_for("deployment", || {
            let status: Status = serde_json::from_str(&lab.run(&["status", "--json"])).expect("a status");
            status.configuration.filter(|_| status.deployment.is_none())
        });
        lab
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).args(["--controller", &self.url, "--token-file", "state/token"]);
        let output = command.current_dir(&self.home).output().expect("the program just built");
        let said = [&*output.stdout, &*output.stderr].concat();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Has all of them started, and returns how long that took, in milliseconds: without a program that asks for it, since the
    /// floor has none either.
    fn start_all(&self) -> f64 {
        let token = fs::read_to_string(self.home.join("state/token")).expect("a token");
        let file = ConfigurationText {
            file: "cluster.cfg".into(),
            text: fs::read_to_string(self.home.join("cluster.cfg")).expect("a cluster file"),
            upon: None,
            bundles: Default::default(),
        };
        let body = serde_json::to_string(&file).expect("text");
        let began = Instant::now();
        let mut answer = ureq::put(format!("{}/api/v1/configuration", self.url))
            .header("authorization", format!("Bearer {}", token.trim()))
            .header("content-type", "application/json")
            .send(body)
            .expect("an answer");
        let verdict = answer.body_mut().read_to_string().expect("text");
        let time = milliseconds(began);
        let verdict: Verdict = serde_json::from_str(&verdict).expect("a verdict");
        assert!(verdict.ok, "{verdict:?}");
        time
    }

    fn pids(&self) -> BTreeMap<String, u32> {
        let status: Status = serde_json::from_str(&self.run(&["status", "--json"])).expect("a status");
        status.nodes.into_iter().filter_map(|node| Some((node.name, node.pid?))).collect()
    }

    /// What the nodes that run were started as.
    fn plans(&self) -> Vec<Plan> {
        let words = |pid: u32, what: &str| -> Vec<String> {
            let text = fs::read_to_string(format!("/proc/{pid}/{what}")).expect("a living node");
            text.split_terminator('\0').map(str::to_owned).collect()
        };
        let plan = |(name, pid): (String, u32)| {
            let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
            let env = words(pid, "environ").iter().filter_map(|pair| pair.split_once('=').map(owned)).collect();
            Plan { name, argv: words(pid, "cmdline"), env }
        };
        let mut plans: Vec<Plan> = self.pids().into_iter().map(plan).collect();
        // What was rendered for them is gone with the next deployments.
        let path = &plans.first().expect("a node").env["ZEEKPATH"];
        let (rendered, kept) = (path.split(':').next().expect("a directory").to_owned(), self.home.join("rendered"));
        fs::create_dir(&kept).expect("a directory");
        for entry in fs::read_dir(&rendered).expect("what was rendered") {
            let path = entry.expect("a file").path();
            fs::copy(&path, kept.join(path.file_name().expect("a name"))).expect("a copy");
        }
        let kept = kept.display().to_string();
        for plan in &mut plans {
            let texts = plan.argv.iter_mut().chain(plan.env.values_mut());
            texts.for_each(|text| *text = text.replace(&rendered, &kept));
        }
        plans
    }

    /// How much of a core the daemon takes while so many heartbeats a second are written.
    fn percent_of_a_core(&self, beats: u32) -> f64 {
        let news = |pid: u32| {
            let environment = fs::read_to_string(format!("/proc/{pid}/environ")).expect("a living node");
            let path =
                environment.split('\0').find_map(|pair| pair.strip_prefix("WATCHPOST_NEWS=")).expect("a channel");
            OpenOptions::new().append(true).open(path).expect("its news")
        };
        let mut files: Vec<File> = self.pids().into_values().map(news).collect();
        let before = self.processor_time();
        let began = Instant::now();
        let mut written: u32 = 0;
        while began.elapsed() < MEASURE {
            let due = (began.elapsed().as_secs_f64() * f64::from(beats)) as u32;
            for number in written..due {
                let at = number as usize % files.len();
                let counted = r#"{"received":10,"dropped":0,"link":10,"bytes":640,"memory":1000000,"waiting":0,"#;
                let beat = format!("{} beat {counted}\"held_errors\":0,\"held_warnings\":0}}\n", number + 1);
                files[at].write_all(beat.as_bytes()).expect("a regular file");
            }
            written = due;
            std::thread::sleep(Duration::from_millis(1));
        }
        let time = self.processor_time() - before;
        time.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0
    }

    /// What all threads of the daemon took so far.
    fn processor_time(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("a living daemon");
        let of_thread = |path: PathBuf| -> Option<u64> {
            fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
        };
        Duration::from_nanos(threads.filter_map(|thread| of_thread(thread.ok()?.path())).sum())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}

/// The floor: looks at all, then starts role by role; in milliseconds to the last hello.
fn start_all(plans: &[Plan], home: &Path) -> f64 {
    let news = |name: &str| home.join(format!("{name}.news"));
    let began = Instant::now();
    let looked_at: Vec<Child> = plans.iter().map(look_at).collect();
    for mut look in looked_at {
        assert!(look.wait().expect("our child").success(), "a node cannot be looked at");
    }
    let mut running = Vec::new();
    for names in ROLES {
        for plan in plans.iter().filter(|plan| names.contains(&&*plan.name)) {
            let directory = home.join(format!("floor-{}", plan.name));
            fs::create_dir_all(&directory).expect("a directory");
            File::create(news(&plan.name)).expect("a file");
            let output = || File::create(directory.join("output")).expect("a file");
            let mut command = Command::new(&plan.argv[0]);
            command.args(&plan.argv[1..]).current_dir(&directory).env_clear().envs(&plan.env);
            command.env("WATCHPOST_NEWS", news(&plan.name)).env_remove("WATCHPOST_QUESTIONS");
            running.push(command.stdin(Stdio::null()).stdout(output()).stderr(output()).spawn().expect("a program"));
        }
        for name in names {
            wait_for("hello", || fs::read_to_string(news(name)).ok().filter(|text| text.contains(" hello ")));
        }
    }
    let time = milliseconds(began);
    for child in &mut running {
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
        let _ = child.wait();
    }
    time
}

/// The same command line as a launch of it, as Zeek is asked whether it could run.
fn look_at(plan: &Plan) -> Child {
    let mut words = plan.argv[1..].iter();
    let mut arguments = vec!["-a".to_owned()];
    while let Some(word) = words.next() {
        match word.as_str() {
            "-i" | "-U" => drop(words.next()),
            _ => arguments.push(word.clone()),
        }
    }
    let mut command = Command::new(&plan.argv[0]);
    command.args(arguments).env_clear().envs(&plan.env).stdin(Stdio::null()).stdout(Stdio::null());
    command.env("ZEEKCTL_CHECK_CONFIG", "1").env("ZEEKCTL_DISABLE_LISTEN", "1").spawn().expect("a program")
}

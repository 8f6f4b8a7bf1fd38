//! The README's first page, and docs/fleet.md, line by line: their shell blocks are run as they stand there, but for
//! addresses and names of places.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::common::{Answer, Daemon, Lab, Scene, eventually, node, processes, sleeper};

const DOCUMENT: &str = include_str!("../../docs/fleet.md");
const README: &str = include_str!("../../README.md");

/// A shell block, and where it is run: `controller` and `sensor-1` are daemons, which stay.
struct Block {
    place: String,
    lines: Vec<String>,
}

/// The shell blocks of a section.
fn blocks(section: &str) -> Vec<Block> {
    let text = DOCUMENT.split(&format!("\n## {section}\n")).nth(1).expect("a section of that name");
    let text = text.split("\n## ").next().unwrap();
    let blocks = text.split("\n```sh").skip(1).map(|rest| {
        let (place, rest) = rest.split_once('\n').unwrap();
        let lines = rest.split("\n```").next().unwrap().lines().map(str::to_owned).collect();
        Block { place: place.trim().to_owned(), lines }
    });
    blocks.collect()
}

/// What stands in the document for what is only known here.
struct Player {
    scene: Scene,
    daemons: Vec<Daemon>,
    token: String,
    said: Vec<Answer>,
}

impl Player {
    fn play(&mut self, section: &str) {
        let blocks = blocks(section);
        assert!(!blocks.is_empty(), "{section} has shell blocks");
        for Block { place, lines } in blocks {
            for line in lines {
                match place.as_str() {
                    "" => self.run(&line),
                    daemon => self.start(daemon, &line),
                }
            }
        }
    }

    fn here(&self, line: &str) -> String {
        let line = line.replace("--cluster site", &format!("--cluster {}", self.scene.cluster()));
        let line = line.replace("CLUSTER=site", &format!("CLUSTER={}", self.scene.cluster()));
        let line = line.replace("0.0.0.0:2150", &self.scene.any_port()).replace("TOKEN", &self.token);
        match self.daemons.first() {
            Some(controller) => line.replace("192.0.2.10:2150", &controller.addresses()["agents"].to_string()),
            None => line,
        }
    }

    /// On the controller's machine, where its state directory is the usual one.
    fn run(&mut self, line: &str) {
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_watchpost")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-euc", &self.here(line)]).current_dir(self.scene.path(""));
        shell.env_clear().env("PATH", path).env("HOME", self.scene.path(""));
        shell.env("WATCHPOST_STATE_DIR", self.scene.path("controller"));
        if let Some(controller) = self.daemons.first() {
            shell.env("WATCHPOST_CONTROLLER", format!("http://{}", controller.addresses()["http"]));
        }
        let answer = Answer::of(shell.output().unwrap());
        assert_eq!(answer.code, 0, "{line}: {answer:?}");
        if let Some(token) = answer.stdout.lines().next().filter(|line| line.starts_with("wpjoin")) {
            self.token = token.to_owned();
        }
        self.said.push(answer);
    }

    fn start(&mut self, daemon: &str, line: &str) {
        let line = self.here(line);
        let (before, args) = line.split_once("watchpost ").unwrap();
        let http = format!("WATCHPOST_CONTROLLER_HTTP={}", self.scene.any_port());
        let through: Vec<_> = ["env", &http].into_iter().chain(before.split_whitespace()).collect();
        let args: Vec<_> = args.split_whitespace().collect();
        self.daemons.push(Daemon::start_through(&through, &self.scene, daemon, &args));
    }
}

#[test]
fn a_fleet_comes_true_by_following_the_document_line_by_line() {
    let scene = Scene::new();
    scene.write("cluster.cfg", &format!("[instances]\nsensor-1\n{}", sleeper("on-1", "instance = sensor-1")));
    let mut player = Player { scene, daemons: Vec::new(), token: "TOKEN".into(), said: Vec::new() };
    player.play("The controller");
    player.play("A machine joins");
    assert_eq!(player.daemons.len(), 2, "the document starts a controller and an agent");
    let client = player.daemons[0].client();
    let running = client.wait_for("on-1", "RUNNING");
    let status = &player.said.last().unwrap().stdout;
    assert!(status.contains("on-1") && status.contains("sensor-1"), "the last command shows it: {status}");

    player.play("Taking one back");
    let lost = client.wait("it is out", |status| node(status, "on-1").state == "UNKNOWN");
    assert!(lost.instances[0].reason.contains("revoked"), "{:?}", lost.instances);
    assert!(processes::is_alive(running.pid.unwrap()), "its nodes run on");
    let refused = || player.daemons[1].log().contains("it does not accept our certificate");
    eventually("the agent hears why", || refused().then_some(()));
}

#[test]
fn what_the_readme_says_to_do_beside_a_lab_shows_what_it_says() {
    let section = README.split("\n## Two commands\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let fenced = |kind: &str| section.rsplit_once(&format!("\n```{kind}\n")).unwrap().1.split("\n```").next().unwrap();
    let (commands, sample) = (fenced("sh"), fenced("text"));
    assert!(commands.contains("| sed ") && sample.lines().count() == 3, "{section}");
    let lab = Lab::start(None);
    lab.client.wait_for_all("RUNNING");

    let program = std::path::Path::new(env!("CARGO_BIN_EXE_watchpost")).parent().unwrap();
    let commands = commands.replace("$PWD/target/release", program.to_str().unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-euc", &format!("{commands}\nwait")]).current_dir(lab.scene.path("")).env_clear();
    shell.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", lab.scene.path(""));
    shell.env("WATCHPOST_CONTROLLER", format!("http://{}", lab.daemon.addresses()["http"]));
    shell.env("WATCHPOST_TOKEN_FILE", lab.daemon.state_dir().join("token"));
    let shown = File::create(lab.scene.path("shown")).unwrap();
    let mut shell = shell.stdout(shown).stderr(Stdio::null()).spawn().unwrap();
    let want: Vec<_> = sample.lines().map(without_numbers).collect();
    eventually("what the README shows is shown", || {
        let shown = lab.scene.read("shown");
        let mut shown = shown.lines().map(without_numbers);
        want.iter().all(|line| shown.any(|shown| shown.ends_with(line))).then_some(())
    });
    shell.kill().unwrap(); // and what it still runs goes with the scene
    shell.wait().unwrap();
}

/// A line about a node, whatever its instance is called, its pid is, and the long numbers in it are.
fn without_numbers(line: &str) -> String {
    let mut before = "";
    let words = line.split_whitespace().map(|word| {
        let is_pid = std::mem::replace(&mut before, word) == "pid";
        match word.split_once("/worker-") {
            Some((_, number)) => format!("/worker-{number}"),
            None => {
                let is_long = word.chars().filter(char::is_ascii_digit).count() >= 3;
                word.chars().filter(|letter| !(is_pid || is_long) || !letter.is_ascii_digit()).collect()
            }
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

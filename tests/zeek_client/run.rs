//! Runs zeek-client, and looks at what it prints.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common::eventually;
use crate::install::program;

/// What came of one command.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// What it printed, with ids and pids as those words.
    pub fn json(&self) -> Value {
        let mut value = serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        normalise(&mut value);
        value
    }

    /// Checks its exit code and what it printed, pids and ids aside; the words on the error channel as well.
    #[track_caller]
    pub fn check(&self, code: i32, json: Value) {
        assert_eq!((self.code, self.json(), self.stderr.as_str()), (code, json, ""), "{self:?}");
    }
}

fn normalise(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), &value) {
                    ("pid", Value::Number(pid)) if pid.as_u64().is_some_and(|pid| pid > 0) => *value = "PID".into(),
                    ("id", Value::String(_)) => *value = "ID".into(),
                    _ => normalise(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        _ => {}
    }
}

/// One user of zeek-client.
pub struct Client {
    controller: String,
    settings: Vec<String>,
}

impl Client {
    pub fn new(controller: SocketAddr) -> Self {
        Self { controller: controller.to_string(), settings: Vec::new() }
    }

    /// The same with one setting more.
    pub fn with(mut self, setting: impl Into<String>) -> Self {
        self.settings.push(setting.into());
        self
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).stdin(Stdio::null()).output().unwrap();
        ran(output)
    }

    /// The same with a file on its standard input, which is its last argument.
    pub fn run_with(&self, args: &[&str], input: &str) -> Ran {
        use std::io::Write;
        let mut child = self.command(args).arg("-").stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        ran(child.wait_with_output().unwrap())
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("zeek-client"));
        command.env_clear().env("PATH", "/usr/bin:/bin").args(["--controller", &self.controller]);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Asks until so many instances are connected.
    pub fn wait_for_instances(&self, count: usize) {
        eventually(&format!("{count} instances"), || {
            let ran = self.run(&["get-instances"]);
            (ran.json().as_object().unwrap().len() == count).then_some(())
        });
    }

    /// Asks until nobody is in another state than RUNNING.
    pub fn wait_until_running(&self) {
        eventually("everything runs", || {
            let json = self.run(&["get-nodes"]).json();
            let nodes = json["results"].as_object()?.values().flat_map(|nodes| nodes.as_object().unwrap().values());
            nodes.into_iter().all(|node| node["state"] == "RUNNING").then_some(())
        });
    }
}

fn ran(output: std::process::Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code().expect("it was not killed"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Runs a Python program with the packages of zeek-client, and returns what it printed.
pub fn python(program_text: &str, args: &[&str]) -> String {
    let mut command = Command::new(program("python3"));
    command.env_clear().env("PATH", "/usr/bin:/bin").arg("-c").arg(program_text).args(args);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let ran = ran(output);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    ran.stdout
}

/// The time that a command took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = std::time::Instant::now();
    let done = work();
    (done, began.elapsed())
}

/// The text of a path.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

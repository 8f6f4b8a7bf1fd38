//! The command line, as somebody at a keyboard or a script uses it, and what its answers mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::de::DeserializeOwned;
use watchpost::message::client::Cursor;
use watchpost::web::json::{Event, Node, Status, Verdict};

use super::eventually;

/// Asks one controller.
#[derive(Clone)]
pub struct Client {
    home: PathBuf,
    url: String,
    token: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Client {
    pub fn new(home: &Path, address: SocketAddr, state_dir: &Path) -> Self {
        Self { home: home.into(), url: format!("http://{address}"), token: state_dir.join("token") }
    }

    /// Runs `watchpost ARGS` against this controller.
    pub fn run(&self, args: &[&str]) -> Answer {
        Answer::of(self.command(args).output().unwrap())
    }

    /// The same, to be run by the caller.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = super::watchpost(&self.home);
        command.args(args).args(["--timeout", "2m", "--controller", &self.url, "--token-file"]).arg(&self.token);
        command
    }

    /// Runs `watchpost ARGS --json`, and reads its answer.
    pub fn ask<T: DeserializeOwned>(&self, args: &[&str]) -> T {
        let answer = self.run(&[args, &["--json"]].concat());
        serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {answer:?}"))
    }

    pub fn status(&self) -> Status {
        self.ask(&["status"])
    }

    /// Every event that is kept.
    pub fn events(&self) -> Vec<Event> {
        let answer = self.run(&["events", "--json", "--last", "100000"]);
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        answer.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn deploy(&self, file: &Path) -> Verdict {
        self.ask(&["deploy", file.to_str().unwrap()])
    }

    /// The same where what failed is to stand.
    #[allow(dead_code, reason = "only some of the programs that share this need it")]
    pub fn deploy_and_keep(&self, file: &Path) -> Verdict {
        self.ask(&["deploy", "--on-failure", "keep", file.to_str().unwrap()])
    }

    /// Deploys, and expects that all of it comes true.
    pub fn deployed(&self, file: &Path) -> Status {
        let verdict = self.deploy(file);
        assert!(verdict.ok, "{verdict:?}");
        self.status()
    }

    /// `start`, `stop` or `restart` of these nodes, or of all.
    pub fn order(&self, verb: &str, nodes: &[&str]) -> Verdict {
        self.ask(&[&[verb], nodes].concat())
    }

    /// Waits for a status like this, and returns it.
    pub fn wait(&self, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, || {
                let status = self.status();
                last = Some(status.clone());
                is_so(&status).then_some(status)
            })
        }));
        found.unwrap_or_else(|panic| {
            eprintln!("--- the last status ---\n{last:#?}");
            std::panic::resume_unwind(panic)
        })
    }

    /// Waits until every node is in this state, and no deployment is under way.
    pub fn wait_for_all(&self, state: &str) -> Status {
        self.wait(&format!("every node is {state}"), |status| {
            status.deploying.is_none()
                && !status.nodes.is_empty()
                && status.nodes.iter().all(|node| node.state == state)
        })
    }

    /// Waits until this node is in this state, and no deployment is under way.
    pub fn wait_for(&self, name: &str, state: &str) -> Node {
        let is_so = |status: &Status| {
            status.deploying.is_none() && status.nodes.iter().any(|node| node.name == name && node.state == state)
        };
        node(&self.wait(&format!("{name} is {state}"), is_so), name).clone()
    }

    /// Asks the API itself: the status code, and the answer.
    pub fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.http_with(method, path, body, "application/json")
    }

    /// The same with a body of that kind.
    pub fn http_with(&self, method: &str, path: &str, body: &str, kind: &str) -> (u16, String) {
        let token = std::fs::read_to_string(&self.token).unwrap();
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", token.trim()))
            .header("content-type", kind)
            .body(body.to_owned());
        let mut answer = agent.run(request.unwrap()).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }
}

impl Answer {
    pub fn of(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
    }
}

/// The node of that name.
pub fn node<'a>(status: &'a Status, name: &str) -> &'a Node {
    status.nodes.iter().find(|node| node.name == name).unwrap_or_else(|| panic!("no node {name} in {status:#?}"))
}

/// The pid of every node that has one.
pub fn pids(status: &Status) -> BTreeMap<String, u32> {
    status.nodes.iter().filter_map(|node| Some((node.name.clone(), node.pid?))).collect()
}

/// The state of every node.
pub fn states(status: &Status) -> BTreeMap<&str, &str> {
    status.nodes.iter().map(|node| (&*node.name, &*node.state)).collect()
}

/// The changes of one node, in order.
pub fn changes<'a>(events: &'a [Event], node: &str) -> Vec<&'a Event> {
    events.iter().filter(|event| event.kind == "change" && event.node.as_deref() == Some(node)).collect()
}

/// The states that a node went through, by its changes: the first `old`, then every `new`.
pub fn path(changes: &[&Event]) -> String {
    let first = changes.first().and_then(|change| change.old.as_deref());
    let states = first.into_iter().chain(changes.iter().filter_map(|change| change.new.as_deref()));
    states.collect::<Vec<_>>().join(" ")
}

/// The epochs of these events, in order.
pub fn epochs(events: &[Event]) -> Vec<u64> {
    let mut epochs: Vec<_> = events.iter().map(|event| event.seq.parse::<Cursor>().unwrap().epoch).collect();
    epochs.dedup();
    epochs
}

/// Checks what is promised of every log: numbers without gaps, also from one epoch to the next, each piece of news of an
/// agent once, and for each node changes that join, the first of them with STOPPED if this is the whole log.
pub fn check_log(events: &[Event]) {
    let cursors: Vec<Cursor> = events.iter().map(|event| event.seq.parse().unwrap()).collect();
    for pair in cursors.windows(2) {
        assert_eq!(pair[0].number + 1, pair[1].number, "{events:#?}");
    }
    let all_epochs = epochs(events);
    assert_eq!(all_epochs.iter().collect::<BTreeSet<_>>().len(), all_epochs.len(), "no epoch comes back");
    let mut origins = BTreeSet::new();
    for event in events.iter().filter(|event| event.origin.is_some()) {
        assert!(origins.insert((&event.instance, &event.origin)), "{event:?} is told twice in {events:#?}");
    }
    // Of one process of a node its end is told once: then another comes, though maybe by the same number.
    let mut ended = BTreeMap::new();
    for event in events.iter().filter(|event| event.kind == "change" && event.pid.is_some()) {
        let former = match event.exit {
            Some(_) => ended.insert(&event.node, event.pid),
            None => ended.remove(&event.node).and(None),
        };
        assert!(former.is_none_or(|pid| pid != event.pid), "{event:?} tells an end again in {events:#?}");
    }
    let is_whole = cursors.first().is_some_and(|first| first.number == 1);
    let mut last = BTreeMap::new();
    for event in events.iter().filter(|event| event.kind == "change") {
        let before = last.insert(&event.node, event.new.clone());
        let before = before.or_else(|| is_whole.then(|| Some("STOPPED".to_owned())));
        assert!(before.is_none_or(|before| before == event.old), "{event:?} does not join in {events:#?}");
    }
}

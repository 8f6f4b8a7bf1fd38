//! Machines that join by a token, and certificates that renew themselves.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;
use watchpost::model::{InstanceName, Timestamp};
use watchpost::trust::{Token, joining};

use crate::common::{Answer, DEADLINE, Daemon, Scene, eventually, pids, processes, sleeper};

/// A controller with an authority, and a client of it.
struct Cluster {
    scene: Scene,
    controller: Daemon,
}

impl Cluster {
    /// A controller that has the authority's key.
    fn start() -> Self {
        Self::with("controller/pki", "1year", "")
    }

    /// The authority is made in `pki`, and the controller's certificate is good for `lifetime`.
    fn with(pki: &str, lifetime: &str, settings: &str) -> Self {
        let scene = Scene::new();
        let any = scene.any_port();
        Self::listening(scene, &any, pki, lifetime, settings)
    }

    fn listening(scene: Scene, listen: &str, pki: &str, lifetime: &str, settings: &str) -> Self {
        let (pki, trust) = (scene.path(pki), scene.path("controller/trust"));
        let made = [
            ["pki", "init", "--cluster", scene.cluster()].to_vec(),
            ["pki", "issue", "controller", "control", "--lifetime", lifetime, "--out", trust.to_str().unwrap()]
                .to_vec(),
        ];
        for args in made {
            done(scene.watchpost(&args).arg("--dir").arg(&pki));
        }
        let any = scene.any_port();
        let args = ["controller", "--name", "control", "--listen", listen, "--http", &any];
        let controller = Daemon::start_with(&scene, "controller", &args, settings);
        Self { scene, controller }
    }

    /// The command on the controller's machine.
    fn here(&self, args: &[&str]) -> Command {
        let mut command = self.scene.watchpost(args);
        command.env("WATCHPOST_STATE_DIR", self.controller.state_dir());
        command
    }

    /// The token of a new invitation.
    fn invite(&self, args: &[&str]) -> String {
        let answer = done(&mut self.here(&[&["invite"], args].concat()));
        let token = answer.stdout.lines().next().unwrap().to_owned();
        assert!(answer.stdout.contains(&format!("\n  watchpost agent --join {token}\n")), "{answer:?}");
        token
    }

    /// The command on a new machine.
    fn join(&self, machine: &str, token: &str) -> Command {
        let mut command = self.scene.watchpost(&["join", token, "--state-dir"]);
        command.arg(self.scene.path(machine));
        command
    }

    fn refused(&self, machine: &str, token: &str) -> String {
        let answer = Answer::of(self.join(machine, token).output().unwrap());
        assert!(answer.code == 1 && answer.stdout.is_empty(), "{answer:?}");
        assert!(!self.scene.path(machine).join("trust").exists(), "nothing that looks like certificates");
        assert!(!answer.stderr.contains(token), "{answer:?}");
        answer.stderr
    }

    /// An agent that joins first.
    fn agent(&self, machine: &str, token: &str) -> Daemon {
        Daemon::start(&self.scene, machine, &["agent", "--join", token])
    }

    fn listed(&self, args: &[&str]) -> Vec<(String, String)> {
        let answer = done(&mut self.here(&[args, &["--json"]].concat()));
        let shown = answer.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        shown.map(|shown| (text(&shown["name"]), text(&shown["state"]))).collect()
    }

    fn controller_says(&self, words: &str) {
        eventually(words, || self.controller.log().contains(words).then_some(()));
    }
}

fn done(command: &mut Command) -> Answer {
    let answer = Answer::of(command.output().unwrap());
    assert_eq!(answer.code, 0, "{command:?}: {answer:?}");
    answer
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn one_command_on_a_new_machine_adds_it_and_its_token_is_good_once() {
    let cluster = Cluster::start();
    let token = cluster.invite(&["a"]);
    assert_eq!(cluster.listed(&["invite", "--list"]), [("a".into(), "open".into())]);
    let kept = cluster.controller.state_dir().join("pki/invitations/a.json");
    assert_eq!(mode(&kept), 0o600);

    let agent = cluster.agent("a", &token);
    let client = cluster.controller.client();
    client.deployed(&cluster.scene.write("fleet.cfg", &format!("[instances]\na\n{}", sleeper("on-a", "instance = a"))));
    client.wait_for("on-a", "RUNNING");
    assert_eq!(mode(&agent.state_dir().join("trust/key.pem")), 0o600);
    assert_eq!(mode(&agent.state_dir().join("trust")), 0o700);
    assert_eq!(cluster.listed(&["invite", "--list"]), [("a".into(), "used".into())]);

    let why = cluster.refused("thief", &token);
    assert!(why.contains("this token was used already, with another key"), "{why}");
    cluster.controller_says("as agent a: this token was used already");
    let again = done(&mut cluster.join("a", &token));
    assert!(again.stdout.contains("agent a has joined cluster") && again.stdout.contains("already"), "{again:?}");
    for said in [cluster.controller.log(), agent.log(), fs::read_to_string(kept).unwrap()] {
        assert!(!said.contains(&token) && !said.contains(&token[token.len() - 60..]), "the token is told nobody");
    }
}

#[test]
fn a_token_may_come_by_way_of_a_pipe_or_a_variable() {
    let cluster = Cluster::start();
    let token = cluster.invite(&["a"]);
    let mut piped = cluster.join("a", "-");
    let mut child = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{token}\n").as_bytes()).unwrap();
    let answer = Answer::of(child.wait_with_output().unwrap());
    assert!(answer.code == 0 && answer.stdout.contains("agent a has joined cluster"), "{answer:?}");

    let token = cluster.invite(&["b"]);
    let mut by_variable = cluster.scene.watchpost(&["join"]);
    done(by_variable.env("WATCHPOST_JOIN_TOKEN", token).env("WATCHPOST_STATE_DIR", cluster.scene.path("b")));
    assert!(cluster.scene.path("b/trust/agent.toml").exists());
}

#[test]
fn a_token_that_is_late_withdrawn_replaced_or_mistyped_is_told_so_at_both_ends() {
    let cluster = Cluster::start();
    let late = cluster.invite(&["late", "--valid", "1ms"]);
    let why = cluster.refused("late", &late);
    assert!(why.contains("this token expired at") && why.contains("watchpost invite late"), "{why}");
    cluster.controller_says("as agent late: this token expired at");

    let withdrawn = cluster.invite(&["gone"]);
    let answer = done(&mut cluster.here(&["pki", "revoke", "agent", "gone"]));
    assert!(answer.stdout.contains("nobody can join as agent gone any more"), "{answer:?}");
    let why = cluster.refused("gone", &withdrawn);
    assert!(why.contains("this token is not known here: it was withdrawn"), "{why}");
    cluster.controller_says("as agent gone: this token is not known here");

    let (former, latter) = (cluster.invite(&["a"]), cluster.invite(&["a"]));
    assert!(cluster.refused("a", &former).contains("a later one of `a` took its place"));
    done(&mut cluster.join("a", &latter));

    for (word, why) in
        [(&latter[..latter.len() - 1], "a slip in the token"), ("sensor-1", "no token of `watchpost invite`")]
    {
        let answer = Answer::of(cluster.join("b", word).output().unwrap());
        assert!(answer.code == 2 && answer.stderr.contains(why) && !answer.stderr.contains(word), "{answer:?}");
    }
}

#[test]
fn a_controller_of_another_authority_is_told_nothing() {
    let (ours, theirs) = (Cluster::start(), Cluster::start());
    let there = theirs.controller.addresses()["agents"].to_string();
    let token = ours.invite(&["a", "--address", &there]);
    let why = ours.refused("a", &token);
    assert!(
        why.contains("not vouched for by the authority that the token names") && why.contains("told nothing"),
        "{why}"
    );
    theirs.controller_says("cannot let it join: it does not accept our certificate");
    assert_eq!(ours.listed(&["invite", "--list"]), [("a".into(), "open".into())], "and the token is as good as before");
}

#[test]
fn whoever_says_nothing_of_use_where_others_join_is_turned_away() {
    let cluster = Cluster::with("controller/pki", "1year", "greeting_within = '1s'\n");
    let token: Token = cluster.invite(&["a"]).parse().unwrap();
    let address = cluster.controller.addresses()["agents"];
    let config = Arc::new(joining(&InstanceName::new(cluster.scene.cluster()).unwrap(), token.authority).unwrap());
    let connect = || {
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        let connection = ClientConnection::new(Arc::clone(&config), name).unwrap();
        StreamOwned::new(connection, TcpStream::connect(address).unwrap())
    };
    let mut babbler = connect();
    babbler.write_all(b"GET / HTTP/1.1\r\nHost: me\r\n\r\n").unwrap();
    cluster.controller_says("what it said is no request to join");
    let mut answer = Vec::new();
    let _ = babbler.read_to_end(&mut answer); // it may be cut off
    assert!(answer.is_empty());
    let mut silent = connect();
    silent.flush().unwrap();
    cluster.controller_says("it did not ask within 1s");
    let mut huge = connect();
    let _ = huge.write_all(&[&[0, 0, 0x10, 0x00][..], &[0xff; 1 << 16]].concat()); // as much as it takes
    assert!(!matches!(huge.read(&mut [0]), Ok(1..)), "it is cut off");
    cluster.controller_says("over the limit of 4096");
    drop(cluster.agent("a", &cluster.invite(&["a"])));
}

#[test]
fn more_than_may_ask_at_a_time_cost_those_their_places_that_had_them_longest_and_keep_nobody_out() {
    const PLACES: usize = 64;
    let cluster = Cluster::with("controller/pki", "1year", "greeting_within = '1m'\n");
    let token: Token = cluster.invite(&["a"]).parse().unwrap();
    let address = cluster.controller.addresses()["agents"];
    let config = Arc::new(joining(&InstanceName::new(cluster.scene.cluster()).unwrap(), token.authority).unwrap());
    let before = processes::descriptors(cluster.controller.pid());
    let mut silent: Vec<_> = (0..2 * PLACES)
        .map(|_| {
            let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
            let connection = ClientConnection::new(Arc::clone(&config), name).unwrap();
            let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
            stream.flush().unwrap();
            stream
        })
        .collect();
    cluster.controller_says("too many wanted to join without asking, and this was the oldest");
    let held = processes::descriptors(cluster.controller.pid());
    assert!(held <= before + PLACES + 8, "{held} descriptors, and {before} before");
    silent[0].sock.set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(!matches!(silent[0].read(&mut [0]), Ok(1..)), "the first of them has no place any more");
    let log = cluster.controller.log();
    assert!(log.matches("cannot let it join").count() < PLACES / 2, "not a line for each: {log}");
    let agent = cluster.agent("a", &cluster.invite(&["a"]));
    eventually("who has a token gets in beside them", || agent.log().contains("link up").then_some(()));
    drop(silent);
    eventually("the others leave nothing behind", || {
        (processes::descriptors(cluster.controller.pid()) <= before + 8).then_some(())
    });
}

#[test]
fn certificates_of_seconds_renew_themselves_and_no_node_notices() {
    let cluster = Cluster::with("controller/pki", "15s", "");
    let agent = cluster.agent("a", &cluster.invite(&["a", "--lifetime", "15s"]));
    let client = cluster.controller.client();
    client.deployed(&cluster.scene.write("fleet.cfg", &format!("[instances]\na\n{}", sleeper("on-a", "instance = a"))));
    let running = pids(&client.wait_for_all("RUNNING"));
    let joined = Timestamp::now();
    let renewed = "the certificate of this process was renewed";
    for daemon in [&agent, &cluster.controller] {
        eventually(renewed, || (daemon.log().matches(renewed).count() >= 2).then_some(()));
        assert_eq!(mode(&daemon.state_dir().join("trust/key.pem")), 0o600);
    }
    // By now the first ones have expired, and with them the links that began by them.
    assert!(Timestamp::now().0 - joined.0 > 15_000_000);
    let ended = "the peer's certificate, by which this link began, has expired";
    eventually(ended, || [&agent, &cluster.controller].iter().any(|daemon| daemon.log().contains(ended)).then_some(()));
    assert_eq!(pids(&client.wait_for_all("RUNNING")), running);
}

#[test]
fn where_the_key_is_elsewhere_whoever_joins_waits_until_somebody_signs() {
    let cluster = Cluster::with("safe", "1year", "");
    let token = cluster.invite(&["a"]);
    let mut joining = cluster.join("a", &token);
    let mut joining = joining.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let requests = cluster.controller.state_dir().join("pki/requests");
    let waiting = [("a".to_owned(), "waiting".to_owned())];
    eventually("its request waits", || (cluster.listed(&["pki", "requests"]) == waiting).then_some(()));
    cluster.controller_says("agent a wants to join: `watchpost pki sign a`");

    let there = |args: &[&str]| {
        let mut command = cluster.scene.watchpost(args);
        command.arg("--dir").arg(cluster.scene.path("safe")).arg("--requests").arg(&requests);
        command
    };
    let unknown = Answer::of(there(&["pki", "sign", "b"]).output().unwrap());
    assert!(unknown.code == 1 && unknown.stderr.contains("no request of `b` waits"), "{unknown:?}");
    let signed = done(&mut there(&["pki", "sign", "a"]));
    assert!(signed.stdout.starts_with("signed: agent a, good until"), "{signed:?}");
    assert!(joining.wait().unwrap().success());
    assert_eq!(cluster.listed(&["pki", "requests"]), []);
    let agent = Daemon::start(&cluster.scene, "a", &["agent"]);
    eventually("it is in", || agent.log().contains("link up").then_some(()));
}

#[test]
fn a_renewal_waits_until_somebody_signs_and_neither_link_nor_nodes_notice() {
    let cluster = Cluster::with("safe", "1year", "");
    let requests = cluster.controller.state_dir().join("pki/requests");
    let sign = |lifetime: &str| {
        let mut command = cluster.scene.watchpost(&["pki", "sign", "a", "--lifetime", lifetime]);
        command.arg("--dir").arg(cluster.scene.path("safe")).arg("--requests").arg(&requests);
        done(&mut command)
    };
    let is_waiting = || (cluster.listed(&["pki", "requests"]) == [("a".into(), "waiting".into())]).then_some(());
    let mut joining = cluster.join("a", &cluster.invite(&["a"])).stdout(Stdio::null()).spawn().unwrap();
    eventually("its request waits", is_waiting);
    sign("24s");
    assert!(joining.wait().unwrap().success());

    let agent = Daemon::start(&cluster.scene, "a", &["agent"]);
    let client = cluster.controller.client();
    client.deployed(&cluster.scene.write("fleet.cfg", &format!("[instances]\na\n{}", sleeper("on-a", "instance = a"))));
    let running = pids(&client.wait_for_all("RUNNING"));
    eventually("its request for the next one waits", is_waiting);
    cluster.controller_says("the request of watchpost:");
    cluster.controller_says("for its next certificate waits: sign it by `watchpost pki sign`");
    let renewed = "the certificate of this process was renewed";
    let log = agent.log();
    assert!(!log.contains(renewed) && !log.contains("link down"), "it goes on with the one that it has: {log}");
    assert_eq!(pids(&client.status()), running);
    sign("1year");
    eventually(renewed, || agent.log().contains(renewed).then_some(()));
    assert!(!agent.log().contains("link down"), "the link stands by the certificate that it began with");
    assert_eq!(cluster.listed(&["pki", "requests"]), []);
    // That one expires, and the next link begins by the one that was signed.
    let ended = "the peer's certificate, by which this link began, has expired";
    eventually(ended, || cluster.controller.log().contains(ended).then_some(()));
    eventually("the next link stands", || (agent.log().matches("link up").count() == 2).then_some(()));
    assert_eq!(pids(&client.wait_for_all("RUNNING")), running);
}

#[test]
fn a_controller_may_be_known_by_the_name_of_its_host() {
    let cluster = Cluster::listening(Scene::new(), "127.0.0.1:0", "controller/pki", "1year", "");
    let address = format!("localhost:{}", cluster.controller.addresses()["agents"].port());
    let joined = cluster.agent("a", &cluster.invite(&["a", "--address", &address]));
    eventually("it dials by the name that the token had", || joined.log().contains("link up").then_some(()));
    assert!(fs::read_to_string(joined.state_dir().join("trust/agent.toml")).unwrap().contains(&address));
    drop(joined);
    let unknown = Daemon::start(&cluster.scene, "a", &["agent", "--connect", "nowhere.invalid:2150"]);
    let why = "the host of nowhere.invalid:2150 is not known";
    eventually(why, || unknown.log().contains(why).then_some(()));
}

//! Releases that meet: on a link, where the next one and an older one are played by this test, and on disk.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use watchpost::bridge::LinkRole;
use watchpost::bridge::greeting::{Control, NotUnderstood};
use watchpost::message::agent::*;
use watchpost::message::frame::{Body, PROTOCOL};
use watchpost::model::{InstanceName, Outcome, RequestId};

use crate::common::{Answer, Daemon, Scene, eventually, sleeper};
use crate::peer::{Peer, Said, framed, greeting, greeting_of_next};

/// Kinds that no release has yet: of the link itself, and of mail either way.
const UNKNOWN: [u16; 3] = [0x0042, 0x01f0, 0x02f0];

#[test]
fn an_agent_of_the_next_release_is_understood_and_told_what_is_not_known() {
    let scene = Scene::new();
    let controller = controller(&scene);
    let client = controller.client();
    // It dials, or is dialled.
    let socket = listen(&scene);
    let node = sleeper("node", "instance = dials");
    let text = format!("[instances]\ndials\nwaits = {}\n{node}", socket.local_addr().unwrap());
    let file = scene.write("next.cfg", &text);
    let deploying = std::thread::spawn({
        let client = client.clone();
        move || client.deploy(&file)
    });
    let dials = Peer::connect(controller.addresses()["agents"]);
    let agents = [("dials", dials), ("waits", Peer::accept(&socket))].map(|(name, mut agent)| {
        let theirs = agent.greet(greeting_of_next(LinkRole::Agent, name, scene.cluster()));
        assert_eq!(theirs.protocol, PROTOCOL, "the lower version is spoken");
        for kind in UNKNOWN {
            agent.say_unknown(kind);
            assert_eq!(agent.hear_unknown(), kind);
        }
        agent.hello(name);
        agent
    });
    // Their shares come when both are ready, so they wait side by side.
    let agents = agents.map(|mut agent| {
        std::thread::spawn(move || {
            obey(&mut agent);
            agent
        })
    });
    let agents = agents.map(|obeying| obeying.join().unwrap());
    let verdict = deploying.join().unwrap();
    assert!(verdict.ok, "{verdict:?}");
    let up = client.status().instances;
    assert!(up.iter().all(|instance| instance.link == "UP") && up.len() == 2, "{up:?}");
    assert!(controller.log().contains("frames of kind 0x02f0 are not known here and skipped"));
    drop(agents);
}

#[test]
fn a_controller_of_the_next_release_is_understood_and_told_what_is_not_known() {
    let scene = Scene::new();
    let socket = listen(&scene);
    let address = socket.local_addr().unwrap().to_string();
    let dials = Daemon::start(&scene, "dials", &["agent", "--name", "dials", "--connect", &address]);
    let waits = Daemon::start(&scene, "waits", &["agent", "--name", "waits", "--listen", &scene.any_port()]);
    let door = waits.addresses()["controller"];
    for (agent, mut controller) in [(dials, Peer::accept(&socket)), (waits, Peer::connect(door))] {
        let theirs = controller.greet(greeting_of_next(LinkRole::Controller, "control", scene.cluster()));
        assert_eq!(theirs.protocol, PROTOCOL);
        let hello = controller.hear(|said| match said {
            Said::ToController(ToController::NotifyAgentHello(hello)) => Some(hello),
            _ => None,
        });
        for kind in UNKNOWN {
            controller.say_unknown(kind);
            assert_eq!(controller.hear_unknown(), kind);
        }
        // And what both know goes on as ever.
        controller.order(NewsReceived { epoch: hello.epoch, seq: 0, kept: 0 });
        controller.order(GetNodesRequest { reqid: id("nodes") });
        let nodes = controller.hear(|said| match said {
            Said::ToController(ToController::GetNodesResponse(nodes)) => Some(nodes),
            _ => None,
        });
        assert_eq!((nodes.reqid, nodes.pid), (id("nodes"), Some(agent.pid())));
    }
}

#[test]
fn an_older_agent_that_does_not_know_a_request_is_named_at_once() {
    let scene = Scene::new();
    let controller = controller(&scene);
    let client = controller.client();
    let mut agent = Peer::connect(controller.addresses()["agents"]);
    agent.greet(greeting(LinkRole::Agent, "old", scene.cluster()));
    agent.hello("old");
    let file = scene.write("old.cfg", &format!("[instances]\nold\n{}", sleeper("node", "instance = old")));
    let deploying = std::thread::spawn({
        let client = client.clone();
        move || client.deploy(&file)
    });
    obey(&mut agent);
    assert!(deploying.join().unwrap().ok);
    for verb in ["restart", "start", "stop"] {
        let began = Instant::now();
        let ordering = std::thread::spawn({
            let client = client.clone();
            move || client.order(verb, &["node"])
        });
        let kind = agent.hear(|said| match said {
            Said::ToAgent(ToAgent::RestartRequest(_)) => Some(RestartRequest::KIND),
            Said::ToAgent(ToAgent::StartRequest(_)) => Some(StartRequest::KIND),
            Said::ToAgent(ToAgent::StopRequest(_)) => Some(StopRequest::KIND),
            _ => None,
        });
        agent.send(&framed(&Control::from(NotUnderstood { kind })));
        let verdict = ordering.join().unwrap();
        let words = format!("its agent does not know `{verb}_request`: it runs watchpost 0.0.9");
        let told = verdict.outcomes.iter().filter_map(|outcome| outcome.error.as_deref());
        assert!(told.clone().count() > 0 && told.clone().all(|error| error.starts_with(&words)), "{verdict:?}");
        // Far from the time that a node may take, which is what it would be waited for.
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }
    assert_eq!(client.status().instances[0].link, "UP");
}

#[test]
fn an_older_controller_that_does_not_know_the_hello_is_named_by_the_agent_at_once() {
    let scene = Scene::new();
    let socket = listen(&scene);
    let address = socket.local_addr().unwrap().to_string();
    let agent = Daemon::start(&scene, "agent", &["agent", "--name", "a", "--connect", &address]);
    let mut controller = Peer::accept(&socket);
    controller.greet(greeting(LinkRole::Controller, "control", scene.cluster()));
    controller.send(&framed(&Control::from(NotUnderstood { kind: NotifyAgentHello::KIND })));
    eventually("the agent says so", || {
        agent.log().contains("the controller refused this agent: it does not know `notify_agent_hello`").then_some(())
    });
    assert!(agent.is_alive());
}

#[test]
fn releases_that_have_no_version_in_common_say_which_one_to_upgrade() {
    let scene = Scene::new();
    let controller = controller(&scene);
    let mut agent = Peer::connect(controller.addresses()["agents"]);
    let far = greeting_of_next(LinkRole::Agent, "far", scene.cluster());
    agent.greet(watchpost::bridge::greeting::Greeting { protocol: PROTOCOL + 9, oldest: PROTOCOL + 8, ..far });
    let reason = agent.hear(|said| match said {
        Said::Control(Control::Refused(refused)) => Some(refused.reason),
        _ => None,
    });
    let words = format!("controller speaks versions up to {PROTOCOL} of the protocol, and agent none below");
    assert!(reason.contains(&words) && reason.contains("upgrade the older end"), "{reason}");
    agent.ended();
    eventually("it is logged", || controller.log().contains(&words).then_some(()));
}

#[test]
fn every_daemon_refuses_a_directory_of_a_later_release_and_leaves_it_as_it_is() {
    let scene = Scene::new();
    let state = scene.path("state");
    fs::create_dir_all(state.join("nodes/w")).unwrap();
    for (file, text) in
        [("format", "2 watchpost 0.9.0\n"), ("nodes/w/record", "?"), ("controller.redb", "?"), ("lock", "")]
    {
        fs::write(state.join(file), text).unwrap();
    }
    let before = everything(&state);
    let any = scene.any_port();
    for args in [
        &["lab", "--http", &any][..],
        &["controller", "--listen", &any, "--http", &any],
        &["agent", "--name", "a", "--connect", &any],
        &["pki", "init"],
        &["pki", "show"],
    ] {
        let mut command = scene.watchpost(args);
        command.env("WATCHPOST_STATE_DIR", &state);
        let answer = Answer::of(command.output().unwrap());
        let ours = env!("CARGO_PKG_VERSION");
        let words =
            format!("is in format 2, of watchpost 0.9.0, and watchpost {ours} knows formats up to 1: run that release");
        assert!(answer.code == 1 && answer.stderr.contains(&words), "{args:?}: {answer:?}");
        assert_eq!(everything(&state), before, "{args:?}");
    }
}

/// Every file and directory below that path, with what is in it and when it was written.
fn everything(path: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        match path.is_dir() {
            true => {
                all.extend(everything(&path));
                all.insert(path, (Vec::new(), modified));
            }
            false => drop(all.insert(path.clone(), (fs::read(&path).unwrap(), modified))),
        }
    }
    all
}

/// A controller that agents can reach, and nobody but this story.
fn controller(scene: &Scene) -> Daemon {
    let any = scene.any_port();
    Daemon::start(scene, "controller", &["controller", "--listen", &any, "--http", &any])
}

fn listen(scene: &Scene) -> TcpListener {
    TcpListener::bind(scene.any_port()).unwrap()
}

/// Does what it is told, until it has its share of the configuration.
fn obey(agent: &mut Peer) {
    loop {
        match agent.next() {
            Said::ToAgent(ToAgent::AgentWelcomeRequest(AgentWelcomeRequest { reqid })) => {
                let outcome = Outcome::instance_done(&InstanceName::new("here").unwrap());
                agent.say(AgentWelcomeResponse { reqid, outcome });
            }
            Said::ToAgent(ToAgent::CheckConfigurationRequest(CheckConfigurationRequest { reqid, .. })) => {
                agent.say(CheckConfigurationResponse { reqid, outcomes: Vec::new(), changes: Vec::new() });
            }
            Said::ToAgent(ToAgent::CommitConfigurationRequest(CommitConfigurationRequest { reqid, .. })) => {
                return agent.say(SetConfigurationResponse { reqid, outcomes: Vec::new() });
            }
            _ => {}
        }
    }
}

fn id(text: &str) -> RequestId {
    RequestId::new(text).unwrap()
}

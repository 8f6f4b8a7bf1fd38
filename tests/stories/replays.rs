//! Somebody between the ends of a link without certificates, or at one of them, who says again what was said, in another
//! order, or what nobody can say: nothing counts twice, and nobody else notices.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use watchpost::bridge::LinkRole;
use watchpost::bridge::greeting::{FIRST_MAIL_KIND, MAGIC};
use watchpost::message::agent::*;
use watchpost::message::frame::{self, MAX_FRAME};
use watchpost::model::{
    Configuration, ConfigurationId, Instance, InstanceName, Node, NodeName, NodeState, NodeStatus, RequestId, Role,
    Timestamp,
};
use watchpost::web::json::{Event, Status};

use crate::common::{Daemon, Fleet, Scene, changes, check_log, eventually, node, path, pids, sleeper};
use crate::peer::{Peer, Said, greeting, hello};

#[test]
fn a_network_that_delivers_every_frame_twice_and_old_ones_again_changes_nothing() {
    let mut fleet = Fleet::start();
    let end = meddle(&fleet.scene.any_port(), fleet.controller.addresses()["agents"]);
    let agent = Daemon::start(&fleet.scene, "far", &["agent", "--name", "far", "--connect", &end]);
    fleet.agents.insert("far", agent);
    let nodes = [sleeper("on-a", "instance = a"), sleeper("one", "instance = far"), sleeper("two", "instance = far")];
    fleet.client.deployed(&fleet.file(&["a", "far"], &nodes));
    let before = pids(&fleet.client.wait_for_all("RUNNING"));
    for _ in 0..3 {
        let verdict = fleet.client.order("restart", &["one"]);
        assert!(verdict.ok, "{verdict:?}");
    }
    let verdict = fleet.client.order("stop", &["two"]);
    assert!(verdict.ok, "{verdict:?}");
    let status = fleet.client.wait_for("two", "STOPPED");
    assert_eq!(status.pid, None);
    let status = fleet.client.status();
    assert_eq!(node(&status, "on-a").pid, before.get("on-a").copied(), "nobody else notices");

    let events = fleet.client.events();
    check_log(&events);
    let launches = |name: &str| path(&changes(&events, name)).matches("PENDING").count();
    assert_eq!((launches("one"), launches("two")), (4, 1), "each order was carried out once");
    assert_eq!(fleet.scene.processes_of("one").len(), 1);
    let log = fleet.agents["far"].log() + &fleet.controller.log();
    assert!(!log.contains("link down"), "{log}");
}

#[test]
fn news_that_comes_again_in_another_order_or_in_part_counts_once_and_what_is_missing_is_told() {
    let fleet = Fleet::with_nodes();
    let before = fleet.client.status();
    let mut agent = agent_of(&fleet, "x");
    assert_eq!(agent.hello("x").seq, 0);
    let news = |seq| change("x", "roamer", seq);
    for seq in [1, 2, 3, 2, 1, 3, 3, 4] {
        agent.say(news(seq));
    }
    agent.say(snapshot("x", 4, NodeState::Running));
    // A second hello in the middle is answered by what has arrived, and what follows it is known.
    // What came before it is acknowledged as it is read, in one piece or in several.
    agent.say(hello("x"));
    agent.hear(|said| match said {
        Said::ToAgent(ToAgent::NewsReceived(received)) => (received.seq == 4).then_some(()),
        _ => None,
    });
    for seq in [4, 3, 5] {
        agent.say(news(seq));
    }
    // Number 6 comes when 7 has: by then it is told that it is lost, and that stays true.
    for seq in [7, 6, 8] {
        agent.say(news(seq));
    }
    // How it was some time ago is not how it is.
    agent.say(snapshot("x", 4, NodeState::Stopped));
    agent.say(snapshot("x", 4, NodeState::Stopped));
    let log = |words: &'static str| move |event: &&Event| event.msg.as_ref().is_some_and(|msg| msg.contains(words));
    let events = eventually("the old snapshot is refused", || {
        let events = fleet.client.events();
        events.iter().any(|event| log("older than news that came before it")(&event)).then_some(events)
    });
    check_log(&events);
    let told: Vec<_> = changes(&events, "roamer").iter().filter_map(|change| change.origin.clone()).collect();
    assert_eq!(told, [1, 2, 3, 4, 5, 7, 8].map(|seq| format!("5-{seq}")));
    assert_eq!(events.iter().filter(log("news 6 to 6 of this agent is lost")).count(), 1);
    assert_eq!(events.iter().filter(log("older than news that came before it")).count(), 1, "which is told once");
    assert_eq!(node(&fleet.client.status(), "roamer").state, "CRASHED", "as its last news says");

    // All of it again on another link.
    drop(agent);
    let mut agent = agent_of(&fleet, "x");
    assert_eq!(agent.hello("x").seq, 8);
    (1..=9).for_each(|seq| agent.say(news(seq)));
    let events = eventually("number 9 is told", || {
        let events = fleet.client.events();
        changes(&events, "roamer").iter().any(|change| change.origin.as_deref() == Some("5-9")).then_some(events)
    });
    check_log(&events);
    nobody_else_noticed(&fleet, &before);
}

#[test]
fn whoever_says_hello_in_the_name_of_another_is_refused_and_the_other_undisturbed() {
    let fleet = Fleet::with_nodes();
    let before = fleet.client.status();
    let mut agent = agent_of(&fleet, "x");
    agent.hello("x");
    agent.say(change("x", "roamer", 1));
    agent.say(hello("a"));
    let refused = agent.hear(|said| match said {
        Said::ToAgent(ToAgent::AgentRefused(refused)) => Some(refused.reason),
        _ => None,
    });
    assert_eq!(refused, "its link was greeted by `x`, which cannot speak for `a`");
    agent.ended();
    assert!(fleet.client.events().iter().any(|event| event.msg == Some(format!("refused: {refused}"))));
    nobody_else_noticed(&fleet, &before);
}

#[test]
fn an_acknowledgement_of_news_that_was_never_told_is_refused_and_nothing_is_told_twice() {
    let scene = Scene::new();
    let socket = TcpListener::bind(scene.any_port()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let agent = Daemon::start(&scene, "a", &["agent", "--name", "a", "--connect", &address]);
    let mut controller = Peer::accept(&socket);
    let hello = greeted_by(&mut controller, &scene);
    let received = |seq| NewsReceived { epoch: hello.epoch, seq, kept: 0 };
    controller.order(received(0));
    let reqid = RequestId::new("share").unwrap();
    controller.order(SetConfigurationRequest { reqid, configuration: one_node().into(), rest: [].into() });
    let last = Cell::new(0);
    let running = controller.hear(|said| match said {
        Said::ToController(ToController::NotifyChange(change)) => {
            assert_eq!(change.seq, last.get() + 1);
            last.set(change.seq);
            (change.new == NodeState::Running).then_some(change)
        }
        _ => None,
    });
    let last = last.get();
    for seq in [last, 1, last, 0] {
        controller.order(received(seq)); // old words change nothing
    }
    controller.order(received(last + 1000));
    controller.ended();
    let words = format!("acknowledges news {} of this agent, which has told {last}", last + 1000);
    eventually(&words, || agent.log().contains(&words).then_some(()));

    // It comes again, and has told what it has told.
    let mut controller = Peer::accept(&socket);
    let again = greeted_by(&mut controller, &scene);
    assert_eq!((again.epoch, again.run), (hello.epoch, hello.run));
    controller.order(received(last));
    let snapshot = controller.hear(|said| match said {
        Said::ToController(ToController::NotifyChange(change)) => panic!("told again: {change:?}"),
        Said::ToController(ToController::NotifySnapshot(snapshot)) => Some(snapshot),
        _ => None,
    });
    assert_eq!((snapshot.seq, snapshot.nodes[0].pid), (last, running.pid));
}

fn agent_of(fleet: &Fleet, name: &str) -> Peer {
    let mut agent = Peer::connect(fleet.controller.addresses()["agents"]);
    agent.greet(greeting(LinkRole::Agent, name, fleet.scene.cluster()));
    agent
}

fn greeted_by(controller: &mut Peer, scene: &Scene) -> NotifyAgentHello {
    controller.greet(greeting(LinkRole::Controller, "control", scene.cluster()));
    controller.hear(|said| match said {
        Said::ToController(ToController::NotifyAgentHello(hello)) => Some(hello),
        _ => None,
    })
}

fn nobody_else_noticed(fleet: &Fleet, before: &Status) {
    let now = fleet.client.status();
    for was in &before.instances {
        assert!(now.instances.contains(was), "{was:?} became another: {:?}", now.instances);
    }
    for name in ["on-a", "on-b", "on-c"] {
        assert_eq!(node(&now, name), node(before, name));
    }
}

fn named(name: &str) -> (InstanceName, NodeName) {
    (InstanceName::new("a").unwrap(), NodeName::new(name).unwrap())
}

fn one_node() -> Configuration {
    let (instance, name) = named("node");
    let node = Node { command: vec!["sleep".into(), "1000".into()], ..Node::new(name, instance.clone(), Role::None) };
    Configuration {
        id: ConfigurationId::new("c1").unwrap(),
        instances: vec![Instance { name: instance, host: None, port: None }],
        nodes: vec![node.into()],
        zeek: None,
        peers: Vec::new(),
        keys: None,
    }
}

/// A change of that number, after which an even one runs and another has crashed.
fn change(of: &str, name: &str, seq: u64) -> NotifyChange {
    let new = if seq.is_multiple_of(2) { NodeState::Running } else { NodeState::Crashed };
    NotifyChange {
        seq,
        time: Timestamp::now(),
        instance: InstanceName::new(of).unwrap(),
        node: NodeName::new(name).unwrap(),
        role: Role::None,
        old: NodeState::Stopped,
        new: if seq == 8 { NodeState::Crashed } else { new },
        pid: Some(70),
        exit: None,
        attempt: 0,
        restarts: 0,
        reason: "told by a story".into(),
        removed: false,
    }
}

fn snapshot(of: &str, seq: u64, state: NodeState) -> NotifySnapshot {
    let status = NodeStatus {
        node: NodeName::new("roamer").unwrap(),
        instance: InstanceName::new(of).unwrap(),
        role: Role::None,
        state,
        pid: (state == NodeState::Running).then_some(70),
        port: None,
        metrics_port: None,
        restarts: 0,
        since: Timestamp::now(),
        reason: "told by a story".into(),
        says: "".into(),
        netstats: None,
    };
    NotifySnapshot { epoch: 5, seq, configuration: None, nodes: vec![status] }
}

/// A way to a port on which every message comes twice, and now and then one that came long before. What belongs to the
/// link itself comes once: an end that is greeted twice would hear that somebody is there.
fn meddle(near: &str, far: SocketAddr) -> String {
    let socket = TcpListener::bind(near).unwrap();
    let end = socket.local_addr().unwrap().to_string();
    // All of it ends with the test's process.
    std::thread::spawn(move || {
        for stream in socket.incoming().map_while(Result::ok) {
            let Ok(onward) = TcpStream::connect(far) else { continue };
            let twin = |stream: &TcpStream| stream.try_clone().unwrap();
            for (from, to) in [(twin(&stream), twin(&onward)), (onward, stream)] {
                std::thread::spawn(move || repeat(from, to));
            }
        }
    });
    end
}

fn repeat(mut from: TcpStream, mut to: TcpStream) {
    let (mut unread, mut chunk, mut heard) = (Vec::new(), [0; 4096], Vec::<Vec<u8>>::new());
    let mut used = MAGIC.len();
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        unread.extend_from_slice(&chunk[..count]);
        if unread.len() < used {
            continue;
        }
        let mut out = unread[..used].to_vec();
        unread.drain(..std::mem::take(&mut used));
        while let Some((kind, size)) = frame::split(&unread, MAX_FRAME).unwrap().map(|frame| (frame.kind, frame.size)) {
            let bytes: Vec<u8> = unread.drain(..size).collect();
            out.extend_from_slice(&bytes);
            if kind >= FIRST_MAIL_KIND {
                out.extend_from_slice(&bytes);
                heard.push(bytes);
                if heard.len().is_multiple_of(3) {
                    out.extend_from_slice(&heard[heard.len() / 3]);
                }
            }
        }
        if to.write_all(&out).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

//! Strangers and impostors on the bridge: they get a clear no, and nobody else notices them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use watchpost::bridge::greeting::{Control, FIRST_MAIL_KIND, Greeting, MAGIC};
use watchpost::bridge::{Features, LinkRole};
use watchpost::message::agent::{API_VERSION, NotifyAgentHello, ToAgent, ToController};
use watchpost::message::frame::{self, MAX_FIRST, MAX_FRAME, MAX_GREETING, OLDEST, PROTOCOL, Wire};
use watchpost::model::InstanceName;
use watchpost::web::json::{Event, Status};

use crate::common::{DEADLINE, Fleet, check_log, eventually, node, processes};

/// What strangers may cost, in KiB: less than one frame that they may announce.
const GROWTH: u64 = 12 << 10;

#[test]
fn bytes_that_make_no_sense_end_their_own_link_and_no_other() {
    let fleet = Fleet::with_nodes();
    let before = fleet.client.status();
    let memory = processes::resident(fleet.controller.pid());
    let doors = [fleet.controller.addresses()["agents"], fleet.agents["c"].addresses()["controller"]];
    let greeted = greeting(&fleet, "x");
    let framed = |length: u32| [&greeted[..], &length.to_be_bytes()].concat();
    let unknown: Vec<u8> = (0..200_u16).flat_map(|kind| [0, 0, 0, 4, 0x40, kind as u8, 0, 0]).collect();
    for (bytes, reason) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "does not speak this protocol"),
        ([&MAGIC[..], &[0xff; 64]].concat(), "over the limit of 4096"),
        ([&MAGIC[..], &(MAX_GREETING as u32).to_be_bytes()].concat(), "over the limit of 4096"),
        ([&MAGIC[..], &[0, 0, 0, 8, 2, 0x12, 0, 0, 1, 2, 3, 4]].concat(), "instead of a greeting"),
        (framed(u32::MAX), "over the limit of 65536"),
        (framed(3), "too short for its own header"),
        (
            [&greeted[..], &[0, 0, 0, 8, 2, 0x12, 0, 0, 1, 2, 3, 4]].concat(),
            "body of a `NotifyChange` frame is damaged",
        ),
        ([&greeted[..], &unknown].concat(), "different kinds of frames that are not understood"),
        ([&greeted[..], &greeted[4..]].concat(), "greeted twice"),
    ] {
        let answer = Answer::to(&bytes, doors[0]);
        assert!(answer.refusal.as_deref().is_some_and(|text| text.contains(reason)), "{reason}: {answer:?}");
        eventually(&format!("logged: {reason}"), || fleet.controller.log().contains(reason).then_some(()));
        // An agent that waits to be dialled has other words for an agent, and the same patience.
        assert!(Answer::to(&bytes, doors[1]).refusal.is_some(), "{reason}");
    }
    let answer = Answer::to_whole(&[&framed(MAX_FIRST as u32 - 4)[..], &[0; 1 << 10]].concat(), doors[0]);
    assert!(answer.mail.is_empty(), "{answer:?}");
    eventually("the frame that ended too early is logged", || {
        fleet.controller.log().contains("in the middle of a frame").then_some(())
    });
    nothing_has_changed(&fleet, &before, memory);
}

#[test]
fn hundreds_of_silent_connections_are_left_after_a_while_and_delay_nobody() {
    let mut fleet = Fleet::with_nodes();
    let before = fleet.client.status();
    let memory = processes::resident(fleet.controller.pid());
    let door = fleet.controller.addresses()["agents"];
    let idle: Vec<_> = (0..300).map(|_| TcpStream::connect(door).unwrap()).collect();
    fleet.add("d");
    fleet.client.wait("one more agent is let in beside them", |status| {
        status.instances.iter().any(|instance| instance.name == "d" && instance.link == "UP")
    });
    nothing_has_changed(&fleet, &before, memory);
    for mut silent in idle {
        silent.set_read_timeout(Some(DEADLINE)).unwrap();
        // Closed in order, or reset: either way it is over before the time is.
        let mut said = Vec::new();
        if let Err(error) = silent.read_to_end(&mut said) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
    }
    assert!(fleet.controller.log().contains("did not greet within 5s"));
    nothing_has_changed(&fleet, &before, memory);
}

#[test]
fn an_agent_of_another_api_version_is_refused_with_the_reason() {
    let fleet = Fleet::with_nodes();
    let hello = NotifyAgentHello {
        instance: InstanceName::new("future").unwrap(),
        host: None,
        api_version: API_VERSION + 98,
        version: "9.9.9".into(),
        epoch: 1,
        run: 1,
        place: 0,
        abilities: watchpost::model::Abilities::untried(),
    };
    let mut bytes = greeting(&fleet, "future");
    ToController::from(hello).append_to(&mut bytes).unwrap();
    let answer = Answer::to(&bytes, fleet.controller.addresses()["agents"]);
    let [ToAgent::AgentRefused(refused)] = &answer.mail[..] else { panic!("{answer:?}") };
    assert!(refused.reason.contains("agent `future` speaks version 99 of the agent API"), "{refused:?}");
    assert!(refused.reason.contains("run the same release of watchpost on both"), "{refused:?}");
    let told = |event: &Event| event.kind == "error" && event.instance.as_deref() == Some("future");
    assert!(fleet.client.events().iter().any(told), "observers hear of it");
    let status = fleet.client.status();
    assert!(status.instances.iter().all(|instance| instance.name != "future" || instance.link != "UP"), "{status:?}");
}

#[test]
fn an_agent_of_another_cluster_is_refused_with_the_reason() {
    let fleet = Fleet::start();
    let other = greeting_of("elsewhere", "x");
    let refusal = Answer::to(&other, fleet.controller.addresses()["agents"]).refusal.unwrap();
    assert!(refusal.contains("cluster `elsewhere` was greeted by cluster"), "{refusal}");
}

#[test]
fn a_second_agent_of_an_instance_is_refused_and_told_of_the_first() {
    let fleet = Fleet::with_nodes();
    let before = fleet.client.status();
    let memory = processes::resident(fleet.controller.pid());
    let second = fleet.agent("second", "a");
    let host = before.instances.iter().find(|instance| instance.name == "a").unwrap().host.clone().unwrap();
    let refusal = format!("the controller refused this agent: instance `a` is taken by an agent at {host} since");
    // It tries on, in case the first one goes, and says once why it has no link.
    eventually("the second one is refused, and again", || {
        let log = second.log();
        (log.contains(&refusal) && log.matches("link up").count() >= 2).then_some(())
    });
    assert_eq!(second.log().matches(&refusal).count(), 1);
    assert!(second.is_alive());
    nothing_has_changed(&fleet, &before, memory);
}

/// Checks that links and nodes are as they were, that orders are obeyed, and that strangers cost little memory.
fn nothing_has_changed(fleet: &Fleet, before: &Status, memory: u64) {
    let now = fleet.client.status();
    for was in &before.instances {
        assert!(now.instances.contains(was), "{was:?} became another: {:?}", now.instances);
    }
    for name in ["on-a", "on-b", "on-c"] {
        assert_eq!(node(&now, name), node(before, name));
    }
    let verdict = fleet.client.order("restart", &["also-b"]);
    assert!(verdict.ok, "{verdict:?}");
    check_log(&fleet.client.events());
    let grown = processes::resident(fleet.controller.pid()).saturating_sub(memory);
    assert!(grown < GROWTH, "strangers cost {grown} KiB");
}

/// The first bytes of an agent of this fleet's cluster.
fn greeting(fleet: &Fleet, name: &str) -> Vec<u8> {
    greeting_of(fleet.scene.cluster(), name)
}

fn greeting_of(cluster: &str, name: &str) -> Vec<u8> {
    let (name, cluster) = (name.to_owned(), cluster.to_owned());
    let mut bytes = MAGIC.to_vec();
    let (role, features) = (LinkRole::Agent, Features::of(LinkRole::Agent));
    let greeting = Greeting { protocol: PROTOCOL, oldest: OLDEST, role, name, cluster, features };
    Control::from(greeting).append_to(&mut bytes).unwrap();
    bytes
}

/// What a peer says until it closes the connection.
#[derive(Debug, Default)]
struct Answer {
    mail: Vec<ToAgent>,
    refusal: Option<String>,
}

impl Answer {
    /// The answer to a peer that would have more to say.
    fn to(bytes: &[u8], door: SocketAddr) -> Self {
        Self::exchange(bytes, door, false)
    }

    /// The answer to a peer that says no more than this.
    fn to_whole(bytes: &[u8], door: SocketAddr) -> Self {
        Self::exchange(bytes, door, true)
    }

    fn exchange(bytes: &[u8], door: SocketAddr, end: bool) -> Self {
        let mut stream = TcpStream::connect(door).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // The other side may have heard enough before the end.
        let _ = stream.write_all(bytes);
        if end {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let mut said = Vec::new();
        if let Err(error) = stream.read_to_end(&mut said) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
        Self::read(&said)
    }

    fn read(said: &[u8]) -> Self {
        let mut answer = Self::default();
        let mut rest = said.strip_prefix(&MAGIC).unwrap_or_default();
        while let Some(frame) = frame::split(rest, MAX_FRAME).unwrap() {
            if frame.kind >= FIRST_MAIL_KIND {
                answer.mail.push(ToAgent::decode(frame.kind, frame.body).unwrap());
            } else if let Control::Refused(refused) = Control::decode(frame.kind, frame.body).unwrap() {
                answer.refusal = Some(refused.reason);
            }
            rest = &rest[frame.size..];
        }
        answer
    }
}

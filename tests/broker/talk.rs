//! What a client and the endpoint say to each other when both mean well.

use std::net::SocketAddr;
use std::time::Duration;

use watchpost::web::broker::{Event, MOST_WAITING, PATH, Patience, Publication};

use crate::client::{Client, Got, frame};
use crate::scene::{Scene, TOPIC, answered, ask, event, eventually};

#[test]
fn topics_are_acknowledged_with_all_that_a_client_asks_for() {
    let scene = Scene::new();
    for topics in [r#"["zeek/management/controller"]"#, "[]", r#"["a","a"]"#] {
        let mut client = Client::upgraded(scene.address());
        client.say(topics);
        let ack = client.json();
        assert_eq!(ack["type"], "ack");
        assert!(ack["endpoint"].as_str().unwrap().starts_with("test-websocket-"), "{ack}");
        assert_eq!(ack["version"], env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn what_comes_before_the_acknowledgement_is_answered_after_it() {
    let scene = Scene::new();
    let mut client = Client::upgraded(scene.address());
    let topics = format!("[\"{TOPIC}\"]");
    client.write(&[frame(0x81, topics.as_bytes()), frame(0x81, &ask(1).to_json())].concat());
    assert_eq!(client.json()["type"], "ack");
    assert_eq!(client.event(), answered(1));
}

#[test]
fn binary_frames_and_messages_in_pieces_are_messages_too() {
    let scene = Scene::new();
    let mut client = scene.client();
    client.write(&frame(0x82, &ask(1).to_json()));
    assert_eq!(client.event(), answered(1));
    let text = ask(2).to_json();
    let (begin, rest) = text.split_at(10);
    let (middle, end) = rest.split_at(10);
    client.write(&frame(0x01, begin));
    client.write(&frame(0x00, middle));
    client.write(&frame(0x89, b"there?"));
    assert_eq!(client.next(), Got::Pong(b"there?".into()), "between the pieces");
    client.write(&[frame(0x00, b""), frame(0x80, end)].concat());
    assert_eq!(client.event(), answered(2));
}

#[test]
fn an_event_goes_to_all_others_that_asked_for_its_topic_and_not_back() {
    let scene = Scene::new();
    let hearing = |topics: &[&str]| Client::hearing(scene.address(), topics);
    let (mut all, mut prefix, mut same) = (hearing(&[""]), hearing(&["x", "zeek/management/con"]), scene.client());
    let (mut longer, mut none, mut sender) = (hearing(&["zeek/management/controller/"]), hearing(&[]), scene.client());

    sender.publish(&event("Test::silence", 1));
    sender.publish(&ask(2));
    for client in [&mut all, &mut prefix, &mut same] {
        assert_eq!(client.event(), event("Test::silence", 1));
        assert_eq!(client.event(), ask(2));
        assert_eq!(client.event(), answered(2));
    }
    assert_eq!(sender.event(), answered(2), "its own are not sent back to it");

    let last = Publication::new("zeek/management/controller/more", Event::new("Test::last", vec![]));
    scene.hub.publish(&last);
    assert_eq!(longer.event(), last, "and nothing before");
    scene.stop();
    assert_eq!(none.closed(), (1001, "Terminating".into()), "and nothing before");
}

#[test]
fn what_the_host_publishes_comes_to_whoever_asked_for_it() {
    let scene = Scene::new();
    let mut client = Client::hearing(scene.address(), &["zeek/management/agent/"]);
    let change =
        Publication::new("zeek/management/agent/one", Event::new("Management::Agent::API::notify_change", vec![]));
    scene.hub.publish(&event("Test::other", 0));
    scene.hub.publish(&change);
    assert_eq!(client.event(), change);
}

#[test]
fn an_unanswered_question_holds_up_no_other() {
    let scene = Scene::new();
    let mut client = scene.client();
    for number in 1..MOST_WAITING as u64 {
        client.publish(&event("Test::hang", number));
    }
    client.publish(&ask(7));
    assert_eq!(client.event(), answered(7));
    // One more is under way than may be, and what follows has to wait.
    client.publish(&event("Test::hang", 0));
    client.publish(&ask(8));
    scene.check_that_it_answers();
    eventually("it was heard", || scene.heard().contains(&event("Test::hang", 0)));
    assert!(!scene.heard().contains(&ask(8)));
}

#[test]
fn what_was_asked_goes_on_when_the_asker_is_gone() {
    let scene = Scene::new();
    let mut other = scene.client();
    let mut client = scene.client();
    client.publish(&ask(1));
    drop(client);
    assert_eq!(other.event(), ask(1));
    assert_eq!(other.event(), answered(1));
}

#[test]
fn a_silent_client_is_sent_pings_but_none_while_it_waits_for_an_answer() {
    let scene = Scene::with_patience(Patience { ping_after: Duration::from_millis(100), ..Patience::default() });
    let (mut idle, mut waiting) = (scene.client(), scene.client());
    waiting.publish(&event("Test::hang", 1));
    eventually("it waits", || scene.heard().len() == 1);
    waiting.write(&frame(0x89, b"from now on"));
    while waiting.next() == Got::Ping {}
    while idle.next() == Got::Ping {}
    // By what the idle one sees, time passes for both.
    for _ in 0..5 {
        assert_eq!(idle.next(), Got::Ping);
        idle.write(&frame(0x8a, b"alive?"));
    }
    scene.hub.publish(&event("Test::change", 1));
    assert_eq!(waiting.event(), event("Test::change", 1), "and nothing before");
    assert!(Patience::default().ping_after > Duration::from_secs(20), "the unmodified client gives up after that");
}

#[test]
fn a_client_may_close_as_it_likes() {
    let scene = Scene::new();
    let mut client = scene.client();
    client.write(&frame(0x88, &[&1000_u16.to_be_bytes()[..], b"bye"].concat()));
    assert_eq!(client.next(), Got::Close(Some(1000), String::new()));
    assert_eq!(client.rest(), []);
    let mut client = scene.client();
    client.write(&frame(0x88, b""));
    assert_eq!(client.next(), Got::Close(None, String::new()));
    assert_eq!(client.rest(), []);
    drop(scene.client());
    eventually("all are gone", || scene.hub.clients() == 0);
}

#[test]
fn the_end_of_the_server_is_told_to_its_clients() {
    let scene = Scene::new();
    let (mut talking, mut silent) = (scene.client(), Client::upgraded(scene.address()));
    talking.publish(&ask(1));
    assert_eq!(talking.event(), answered(1));
    scene.stop();
    for client in [&mut talking, &mut silent] {
        assert_eq!(client.closed(), (1001, "Terminating".into()));
    }
}

#[test]
fn a_wrong_path_or_name_is_told_over_the_websocket() {
    let scene = Scene::new();
    let refused = |path: &str, headers: &[(&str, &str)]| {
        let (mut client, answer) = Client::asking(scene.address(), path, headers);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        (client.error(), client.closed())
    };
    for path in ["/", "/v1/messages", "/v1/messages/json/", "/v2/messages/json"] {
        let context = "Invalid URI - use /v1/messages/json".to_owned();
        assert_eq!(refused(path, &[]), (("invalid_uri".into(), context.clone()), (1008, context)), "{path}");
    }
    for name in ["a b", "a,b", "\u{e9}"] {
        let context = "Invalid X-Application-Name".to_owned();
        let told = refused(PATH, &[("X-Application-Name", name)]);
        assert_eq!(told, (("invalid_application_name".into(), context.clone()), (1008, context)), "{name}");
    }
    let (mut client, _) = Client::asking(scene.address(), PATH, &[("X-Application-Name", "-/_.=:*@azAZ09")]);
    client.say("[]");
    assert_eq!(client.json()["type"], "ack");
}

#[test]
fn a_page_of_another_origin_or_name_is_refused() {
    let scene = Scene::new();
    let address = scene.address();
    let port = address.port();
    let status = |headers: &[(&str, &str)]| {
        let (_, answer) = Client::asking(address, PATH, headers);
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let with_host = |host: &str, origin: &str| status(&[("Host", host), ("Origin", origin)]);
    for host in
        [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("Sensor-1:{port}"), "watch.example".into()]
    {
        assert_eq!(status(&[("Host", &host)]), "101", "{host}");
        for scheme in ["http", "https"] {
            assert_eq!(with_host(&host, &format!("{scheme}://{host}")), "101", "{host}");
        }
        for origin in ["http://evil.example", "null", "", "http://localhost", "http://localhost:1", "ws://localhost"] {
            assert_eq!(with_host(&host, origin), "403", "{host} {origin}");
        }
    }
    // A name that a page's own server resolves to this machine.
    for host in ["evil.example", &format!("evil.example:{port}"), "localhost.evil.example"] {
        assert_eq!(with_host(host, &format!("http://{host}")), "403", "{host}");
        assert_eq!(status(&[("Host", host)]), "403", "{host}");
    }
    assert_eq!(status(&[("Host", "localhost"), ("Origin", "http://localhost"), ("Origin", "http://localhost")]), "403");
}

#[test]
fn a_request_that_is_no_upgrade_is_answered_as_http() {
    let scene = Scene::new();
    let ask = |head: &str| {
        let mut client = Client::dial(scene.address());
        client.write(format!("{head}\r\nHost: localhost\r\n\r\n").as_bytes());
        client.head()
    };
    for head in [
        format!("GET {PATH} HTTP/1.1"),
        format!("POST {PATH} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade"),
        format!("GET {PATH} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 12"),
        format!("GET {PATH} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"),
        "GET / HTTP/1.1".into(),
    ] {
        let answer = ask(&head);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head}: {answer}");
    }
    scene.check_that_it_answers();
}

#[test]
fn the_system_looks_after_peers_that_vanish() {
    let scene = Scene::new();
    let client = scene.client();
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(address) => {
            format!("{:08X}:{:04X}", u32::from_be_bytes(address.ip().octets()).swap_bytes(), address.port())
        }
        SocketAddr::V6(_) => unreachable!("the scene is at 127.0.0.1"),
    };
    let (here, there) = (hex(scene.address()), hex(client.stream.local_addr().unwrap()));
    // The timer that is set: 02 is the one of keep-alive.
    eventually("the accepted socket has a keep-alive timer", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = table.lines().find(|line| line.contains(&format!("{here} {there}"))).expect("it is connected");
        line.split_whitespace().nth(5).unwrap().starts_with("02:")
    });
}

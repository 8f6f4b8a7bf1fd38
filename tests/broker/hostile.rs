//! What clients do who do not mean well: each gets an error or a clean end, and nobody else notices.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use watchpost::web::broker::{Event, MAX_MESSAGE, MOST_CLIENTS, MOST_FRAMES, PATH, Patience, Publication, Value};

use crate::client::{Client, Got, frame, head};
use crate::log::about;
use crate::scene::{Scene, TOPIC, answered, ask, event, eventually};

fn error(context: &str) -> (String, String) {
    ("deserialization_failed".into(), context.into())
}

#[test]
fn a_first_message_that_is_no_list_of_topics_is_told_so_and_never_acknowledged() {
    let scene = Scene::new();
    for (text, context) in [
        ("", "subscriptions not an array"),
        ("nonsense", "subscriptions not an array"),
        ("{}", "subscriptions not an array"),
        (&"[".repeat(200_000), "subscriptions not an array"),
        ("[7]", "individual subscription not a string"),
    ] {
        let mut client = Client::upgraded(scene.address());
        client.say(text);
        assert_eq!(client.error(), error(context));
        client.say(&format!("[\"{TOPIC}\"]"));
        client.publish(&ask(1));
        client.write(&frame(0x89, b"still there?"));
        assert_eq!(client.next(), Got::Pong(b"still there?".into()), "and nothing before");
    }
    assert_eq!(scene.heard(), []);
    scene.check_that_it_answers();
}

#[test]
fn a_message_that_cannot_be_read_is_answered_with_an_error_and_the_next_one_as_usual() {
    let scene = Scene::new();
    let mut client = scene.client();
    let brackets = "[".repeat(200_000);
    let nested = r#"{"@data-type":"vector","data":["#.repeat(100_000);
    let payload = |event: Value| format!("{},\"topic\":\"{TOPIC}\"}}", event.to_json().strip_suffix('}').unwrap());
    for (text, context) in [
        ("{", "failed to decode JSON object"),
        ("[]", "failed to decode JSON object"),
        (&brackets, "failed to decode JSON object"),
        (&nested, "failed to decode JSON object"),
        (&format!("{{\"x\":{brackets}"), "failed to decode JSON object"),
        (&format!("{{\"@data-type\":\"none\",\"data\":{brackets}"), "failed to decode JSON object"),
        (r#"{"@data-type":"what","data":{},"topic":"t"}"#, "failed to decode JSON object"),
        (r#"{"@data-type":"none","data":{}}"#, "no topic in top-level JSON object"),
        (&payload(Value::Count(1)), "failed to create Zeek event"),
        (&payload(Value::from(Event::new("Test::unknown", vec![]))), "failed to create Zeek event"),
    ] {
        client.say(text);
        assert_eq!(client.error(), error(context));
        client.publish(&ask(1));
        assert_eq!(client.event(), answered(1));
    }
    client.write(&frame(0x82, b"{\"topic\":\"\xff\"}"));
    assert_eq!(client.error(), error("failed to decode JSON object"));
    let lines = about(client.address());
    assert_eq!(lines.len(), 1, "the first tells enough: {lines:?}");
    scene.check_that_it_answers();
}

#[test]
fn what_is_no_websocket_is_closed_with_the_code_for_it() {
    let scene = Scene::new();
    for (bytes, code) in [
        (vec![0x81, 2, b'[', b']'], 1002),                               // no mask
        (frame(0xc1, b"[]"), 1002),                                      // a reserved bit
        (frame(0x83, b"[]"), 1002),                                      // no such kind
        (frame(0x80, b"[]"), 1002),                                      // the end of nothing
        ([frame(0x01, b"["), frame(0x81, b"[]")].concat(), 1002),        // a message within another
        (frame(0x09, b"[]"), 1002),                                      // a ping in pieces
        (frame(0x89, &[0; 126]), 1002),                                  // a ping that is too long
        (frame(0x88, &[3]), 1002),                                       // half a code
        (frame(0x81, b"\xff\xfe"), 1007),                                // a text that is none
        ([frame(0x01, b"[\"\xc3"), frame(0x80, b"\"]")].concat(), 1007), // half a character
        ([head(0x81, 100_000_000), vec![0; 4]].concat(), 1009),          // a hundred megabytes
        ([head(0x81, u64::MAX), vec![0; 4]].concat(), 1009),             // more than there is
        ([head(0x89, u64::MAX >> 1), vec![0; 4]].concat(), 1002),        // a ping of that
    ] {
        let mut client = Client::upgraded(scene.address());
        client.write(&bytes);
        let Got::Close(Some(got), _) = client.next() else { panic!("{code} was to come") };
        assert_eq!(got, code, "{:x?}", &bytes[..bytes.len().min(16)]);
        assert_eq!(client.rest(), []);
        assert_eq!(about(client.address()).len(), 1);
    }
    scene.check_that_it_answers();
    eventually("nobody is left", || scene.hub.clients() == 0);
}

#[test]
fn a_message_of_the_length_that_is_allowed_is_read() {
    let scene = Scene::new();
    let mut client = scene.client();
    let frame_around = ask(0).to_json().len() + 100;
    let long = "x".repeat(MAX_MESSAGE - frame_around);
    let question = Publication::new(TOPIC, Event::new("Test::ask", vec![Value::String(long)]));
    client.publish(&question);
    assert_eq!(client.event().event.args, question.event.args);
}

#[test]
fn one_byte_a_second_gets_nowhere_and_holds_up_nobody() {
    let scene = Scene::new();
    let mut client = Client::dial(scene.address());
    client.stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let begun = Instant::now();
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n");
    let mut answer = [0; 64];
    let got = request.bytes().find_map(|byte| {
        // An error shows in what is read.
        let _ = client.stream.write_all(&[byte]);
        scene.check_that_it_answers();
        client.stream.read(&mut answer).ok()
    });
    let got = String::from_utf8_lossy(&answer[..got.expect("it is not listened to for ever")]).into_owned();
    assert!(got.is_empty() || got.starts_with("HTTP/1.1 408 "), "{got}");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn idle_clients_keep_nobody_out() {
    let scene = Scene::new();
    let _silent: Vec<_> = (0..500).map(|_| Client::dial(scene.address())).collect();
    let mut idle: Vec<_> = (0..100).map(|_| Client::upgraded(scene.address())).collect();
    scene.check_that_it_answers();
    idle[0].say("[]");
    assert_eq!(idle[0].json()["type"], "ack", "and none of them was sent away");
}

#[test]
fn when_all_places_are_taken_the_longest_silent_makes_room() {
    let scene = Scene::new();
    let mut waiting = scene.client();
    waiting.publish(&event("Test::hang", 0));
    eventually("it waits", || scene.heard().len() == 1);
    let mut first = scene.client();
    let mut others: Vec<_> = (2..MOST_CLIENTS).map(|_| Client::upgraded(scene.address())).collect();
    assert_eq!(scene.hub.clients(), MOST_CLIENTS);
    scene.check_that_it_answers();
    assert_eq!(first.closed(), (1013, "too many clients".into()));
    assert_eq!(about(first.address()).len(), 1);
    assert_eq!((waiting.event(), waiting.event()), (ask(4711), answered(4711)), "who waits for an answer may stay");
    let last = others.last_mut().unwrap();
    last.say("[]");
    assert_eq!(last.json()["type"], "ack");
}

#[test]
fn a_client_that_does_not_read_is_disconnected_and_the_others_miss_nothing() {
    let scene = Scene::new();
    let (mut deaf, mut other) = (scene.client(), scene.client());
    let change = |number| {
        let args = vec![Value::Count(number), Value::String("x".repeat(10_000))];
        Publication::new(TOPIC, Event::new("Test::change", args))
    };
    let mut number = 0;
    while scene.hub.clients() == 2 {
        assert!(number < 100_000, "it is still connected");
        scene.hub.publish(&change(number));
        assert_eq!(other.event(), change(number));
        number += 1;
    }
    assert!(number as usize > MOST_FRAMES);
    let got = deaf.rest();
    assert!(got.len() < number as usize, "what waited was thrown away");
    assert!(got.iter().all(|got| matches!(got, Got::Text(_))), "up to then it missed nothing");
    let lines = about(deaf.address());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("does not read"), "{lines:?}");
    scene.check_that_it_answers();
}

#[test]
fn a_client_that_vanishes_in_the_middle_harms_nobody() {
    let scene = Scene::new();
    let mut other = scene.client();
    let message = frame(0x81, &ask(1).to_json());
    for cut in [0, 1, 2, 5, 10, message.len() - 1] {
        let mut client = scene.client();
        client.write(&message[..cut]);
        // Unread bytes make the system reset the connection rather than close it.
        scene.hub.publish(&event("Test::change", 1));
        assert_eq!(other.event(), event("Test::change", 1));
        drop(client);
    }
    eventually("they are gone", || scene.hub.clients() == 1);
    scene.check_that_it_answers();
    assert_eq!(scene.heard().len(), 1, "what was never complete was never heard");
}

#[test]
fn a_long_message_that_takes_too_long_is_not_waited_for() {
    let patience = Patience { long_within: Duration::from_millis(200), ..Patience::default() };
    let scene = Scene::with_patience(patience);
    let mut client = scene.client();
    client.write(&[head(0x81, 1_000_000), vec![0; 100]].concat());
    assert_eq!(client.closed(), (1008, "message took too long".into()));
    assert_eq!(about(client.address()).len(), 1);
}

#[test]
fn long_messages_whose_answers_are_owed_count_until_they_are_answered() {
    let scene = Scene::new();
    let long = |name: &str, number| {
        let args = vec![Value::Count(number), Value::String("x".repeat(100_000))];
        Publication::new("elsewhere", Event::new(name, args))
    };
    let mut asking: Vec<_> = (0..8).map(|_| scene.client()).collect();
    asking.iter_mut().for_each(|client| client.publish(&long("Test::hang", 0)));
    eventually("they wait for answers", || scene.heard().len() == 8);
    // What is asked for goes on without them.
    drop(asking);
    eventually("they are gone", || scene.hub.clients() == 0);
    let mut ninth = scene.client();
    ninth.publish(&long("Test::silence", 1));
    assert_eq!(ninth.closed(), (1013, "too many long messages, try again".into()));
    scene.check_that_it_answers();
}

#[test]
fn long_messages_that_never_end_leave_room_for_one_that_does() {
    let scene = Scene::new();
    let mut slow: Vec<_> = (0..8).map(|_| scene.client()).collect();
    for client in &mut slow {
        client.write(&[head(0x81, 1_000_000), vec![0; 100]].concat());
    }
    // Nobody can see when the heads have arrived but by this answer.
    let mut ninth = scene.client();
    eventually("a ninth is asked to come again", || {
        let long = Publication::new(TOPIC, Event::new("Test::ask", vec![Value::String("x".repeat(100_000))]));
        ninth.publish(&long);
        match ninth.next() {
            Got::Close(Some(code), _) => code == 1013,
            _ => false,
        }
    });
    scene.check_that_it_answers();
    slow.pop();
    eventually("there is room again", || {
        let mut client = scene.client();
        let long = Publication::new(TOPIC, Event::new("Test::ask", vec![Value::String("x".repeat(100_000))]));
        client.publish(&long);
        matches!(client.next(), Got::Text(_))
    });
}

#[test]
fn strangers_who_come_again_and_again_are_logged_seldom_and_hide_nobody_else() {
    let scene = Scene::new();
    let begun = Instant::now();
    let lines = |path: &str, headers: &[(&str, &str)]| {
        let (client, _) = Client::asking(scene.address(), path, headers);
        about(client.address())
    };
    let first = lines("/", &[]);
    assert!(first[0].contains("Invalid URI"), "{first:?}");
    // One whose connection was reset meanwhile has another reason.
    let same = |lines: Vec<String>| lines.iter().filter(|line| line.contains("Invalid URI")).count();
    let others: usize = (0..50).map(|_| same(lines("/", &[]))).sum();
    assert!(others as u64 <= begun.elapsed().as_secs(), "{others} within {:?}", begun.elapsed());
    for (header, value, why) in [
        ("X-Application-Name", "no name", "Invalid X-Application-Name"),
        ("Host", "evil.example", "`evil.example` is not a name"),
    ] {
        let told = lines(PATH, &[(header, value)]);
        assert!(told[0].contains(why), "another reason is logged at once: {told:?}");
    }
}

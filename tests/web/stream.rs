//! The event stream: resumed where it was left, and nobody waits for anybody else.

use watchpost::model::NodeState;

use crate::fake::{Fake, change, eventually, log};
use crate::http::{Events, get};

fn told(count: usize) -> Fake {
    let fake = Fake::open();
    (1..=count).for_each(|number| fake.tell(log(&format!("line {number}"))));
    fake
}

fn ids(events: &mut Events, count: usize) -> Vec<String> {
    (0..count).map(|_| events.next().expect("the stream goes on").0).collect()
}

#[test]
fn a_stream_begins_with_a_snapshot_and_goes_on_live() {
    let fake = told(3);
    let mut events = Events::open(&fake.address, "/api/v1/events", &[]);
    let (id, data) = events.next().unwrap();
    assert_eq!(
        (&*id, &*data),
        ("abc-3", r#"{"seq":"abc-3","kind":"snapshot","status":{"instances":[],"nodes":[],"seq":"abc-3"}}"#)
    );
    fake.tell(change("worker-1", NodeState::Running, NodeState::Crashed));
    let want = concat!(
        r#"{"seq":"abc-4","time":"2023-11-14T22:13:20.000004Z","kind":"change","instance":"agent-a","node":"worker-1","#,
        r#""role":"worker","old":"RUNNING","new":"CRASHED","pid":4711,"#,
        r#""exit":{"signal":9,"text":"killed by signal 9 (SIGKILL)"},"attempt":1,"restarts":2,"#,
        r#""reason":"killed by signal 9 (SIGKILL)","origin":"9-4"}"#,
    );
    assert_eq!(events.next().unwrap().1, want);
}

#[test]
fn a_stream_resumes_behind_the_last_event_that_was_seen() {
    let fake = told(5);
    let mut events = Events::open(&fake.address, "/api/v1/events", &["last-event-id: abc-2"]);
    assert_eq!(ids(&mut events, 3), ["abc-3", "abc-4", "abc-5"]);
    let mut both = Events::open(&fake.address, "/api/v1/events?since=abc-1", &["last-event-id: abc-4"]);
    assert_eq!(ids(&mut both, 1), ["abc-5"], "what was seen last counts");
    let mut last = Events::open(&fake.address, "/api/v1/events?last=2", &[]);
    assert_eq!(ids(&mut last, 2), ["abc-4", "abc-5"]);
}

#[test]
fn a_place_that_is_no_longer_kept_is_announced_and_never_skipped_in_silence() {
    let fake = told(2);
    let mut events = Events::open(&fake.address, "/api/v1/events?since=77-9", &[]);
    assert!(events.next().unwrap().1.contains(r#""kind":"snapshot""#));
    let mut events = Events::open(&fake.address, "/api/v1/events?since=77-9&snapshot=false", &[]);
    let (id, data) = events.next().unwrap();
    assert_eq!(id, "abc-0");
    assert!(data.contains(r#""kind":"gap""#) && data.contains(r#""first":"77-10""#), "{data}");
    assert!(data.contains("the log began anew since 77-9"), "{data}");
    assert_eq!(ids(&mut events, 2), ["abc-1", "abc-2"], "all of the new log");
    let ahead = "/api/v1/events?since=abc-9&snapshot=false&follow=false";
    let (id, data) = Events::open(&fake.address, ahead, &[]).next().unwrap();
    assert!(id == "abc-2" && data.contains(r#""kind":"gap""#) && !data.contains("first"), "{data}");
    assert!(data.contains("there is no event abc-9 in this log, which ends with abc-2"), "{data}");
    let last = format!("/api/v1/events?since=77-{}&snapshot=false", u64::MAX);
    let (_, data) = Events::open(&fake.address, &last, &[]).next().unwrap();
    assert!(data.contains(r#""kind":"gap""#), "{data}");
}

#[test]
fn the_largest_number_there_is_can_be_asked_for() {
    let fake = told(1);
    let last = u64::MAX;
    let mut events = Events::open(&fake.address, &format!("/api/v1/events?since=1-{last}&snapshot=false"), &[]);
    let gap: serde_json::Value = serde_json::from_str(&events.next().unwrap().1).unwrap();
    assert_eq!((&gap["kind"], &gap["first"]), (&"gap".into(), &format!("1-{last}").into()));
    fake.tell(log("and on"));
    assert_eq!(ids(&mut events, 2), ["abc-1", "abc-2"]);
}

#[test]
fn a_stream_that_does_not_follow_ends_with_what_is_the_latest_now() {
    let fake = told(3);
    let mut events = Events::open(&fake.address, "/api/v1/events?since=abc-0&follow=false", &[]);
    assert_eq!(ids(&mut events, 3), ["abc-1", "abc-2", "abc-3"]);
    assert_eq!(events.next(), None);
    let mut nothing = Events::open(&fake.address, "/api/v1/events?follow=false&snapshot=false", &[]);
    assert_eq!(nothing.next(), None);
}

#[test]
fn who_accepts_ndjson_gets_one_object_per_line() {
    let fake = told(2);
    let answer = get(&fake.address, "/api/v1/events?since=abc-0&follow=false", &["accept: application/x-ndjson"]);
    let events = answer.body.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let seqs: Vec<_> = events.filter_map(|event| Some(event["seq"].as_str()?.to_owned())).collect();
    assert_eq!(seqs, ["abc-1", "abc-2"]);
    assert!(answer.head.contains("content-type: application/x-ndjson"), "{}", answer.head);
}

#[test]
fn a_reader_that_does_not_read_delays_nobody_and_is_forgotten_when_it_leaves() {
    const MANY: usize = 1500;
    let fake = Fake::open();
    let slow = Events::open(&fake.address, "/api/v1/events?snapshot=false", &[]);
    eventually("the slow reader is an observer", || fake.script().taken.len() == 1);
    let mut fast = Events::open(&fake.address, "/api/v1/events?snapshot=false", &[]);
    eventually("the fast reader is an observer", || fake.script().taken.len() == 2);

    // Far more than the buffers of a connection hold.
    let long = "x".repeat(20_000);
    (0..MANY).for_each(|_| fake.tell(log(&long)));
    assert_eq!(ids(&mut fast, MANY).last().unwrap(), &format!("abc-{MANY}"));
    let taken = fake.script().taken[&1];
    assert!(taken < MANY, "a client that reads nothing took everything into our memory");

    drop(slow);
    eventually("the reader that left is forgotten", || {
        fake.tell(log("anybody there?"));
        !fake.script().taken.contains_key(&1)
    });
}

#[test]
fn the_end_of_the_server_ends_its_streams() {
    let mut fake = told(1);
    let mut events = Events::open(&fake.address, "/api/v1/events?since=abc-0", &[]);
    assert_eq!(ids(&mut events, 1), ["abc-1"]);
    fake.stop();
    assert_eq!(events.next(), None);
}

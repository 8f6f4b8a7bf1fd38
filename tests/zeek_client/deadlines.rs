//! Every request is answered before its client gives up, with what is known by then.

use std::time::Duration;

use serde_json::json;

use crate::play::{Manners, Play, Rules};
use crate::run::timed;

const TWO: &str = "[instances]\nsensor-1\nsensor-2\n[worker-1]\ninstance = sensor-1\nrole = worker\n\
                   [worker-2]\ninstance = sensor-2\nrole = worker\n";

fn half_deaf(what: &'static str) -> Play {
    let rules =
        Rules { answer_within: Duration::from_secs(2), request_timeout: Duration::from_secs(30), ..Rules::default() };
    let values = [("bits_per_uid", Ok("96"))].into();
    let manners = Manners { values, ..Manners::default() };
    let deaf = Manners { deaf_to: [what].into(), ..manners.clone() };
    let play = Play::start_by(rules, &[("sensor-1", manners), ("sensor-2", deaf)]);
    assert_eq!(play.client().run_with(&["deploy-config"], TWO).code, 0);
    play
}

#[test]
fn the_values_of_nodes_that_answered_come_in_time_and_the_others_are_named() {
    let play = half_deaf("dispatch");
    let errors = json!([{"error": "request timed out", "source": "worker-2"}]);
    play.client()
        .run(&["get-id-value", "bits_per_uid"])
        .check(1, json!({"errors": errors, "results": {"worker-1": 96}}));
}

#[test]
fn nodes_that_restarted_in_time_are_told_and_the_others_are_named() {
    let play = half_deaf("restart");
    let errors =
        json!([{"error": "request timed out", "source": "worker-2"}, {"error": "request timed out", "source": null}]);
    let ran = play.client().run(&["restart"]);
    let mut got = ran.json();
    got["errors"].as_array_mut().unwrap().sort_by_key(ToString::to_string);
    assert_eq!((ran.code, got), (1, json!({"errors": errors, "results": {"worker-1": true}})));
}

#[test]
fn nodes_of_agents_that_answered_are_listed_in_time_and_the_other_agents_named() {
    let play = half_deaf("get_nodes");
    let json = play.client().run(&["get-nodes"]).json();
    let results = json["results"].as_object().unwrap();
    assert_eq!(results.keys().collect::<Vec<_>>(), ["sensor-1"]);
    let mut errors = json["errors"].as_array().unwrap().clone();
    errors.sort_by_key(ToString::to_string);
    let want = json!([{"error": "did not answer in time", "source": "sensor-2"},
                      {"error": "request timed out", "source": null}]);
    assert_eq!(json!(errors), want);
}

#[test]
fn a_timeout_that_is_asked_for_with_state_is_answered_and_without_it_the_client_gives_up_after_its_20_seconds() {
    let rules = Rules { request_timeout: Duration::from_secs(1), ..Rules::default() };
    let play = Play::start_by(rules, &[]);
    let timed_out = json!({"error": "request timed out", "success": false});
    play.client().run(&["test-timeout", "--with-state"]).check(0, timed_out);
    let short = play.client().with("client.request_timeout_secs=3");
    let words = |address| format!("error: no response received: websocket connection to {address} timed out\n");
    let ran = short.run(&["test-timeout"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr), (1, "", words(play.address())));

    let (ran, took) = timed(|| play.client().run(&["test-timeout"]));
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr), (1, "", words(play.address())));
    assert!(took >= Duration::from_secs(20), "it waits as long as ever: {took:?}");
}

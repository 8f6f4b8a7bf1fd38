//! What becomes of deployments: of nodes that fail, instances that are missing, agents that do not answer.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::play::{Manners, Play, Rules};
use crate::run::timed;

const ONE: &str = "[instances]\nsensor-1\n[logger]\ninstance = sensor-1\nrole = logger\n\
                   [worker]\ninstance = sensor-1\nrole = worker\n";

fn deaf_to(what: &'static str) -> Manners {
    Manners { deaf_to: [what].into(), ..Manners::default() }
}

#[test]
fn a_node_that_failed_is_shown_with_its_output_and_its_cause_and_the_others_as_they_are() {
    let broken = Manners { broken: [("logger", ("starting", "fatal error: boom"))].into(), ..Manners::default() };
    let play = Play::start(&[("sensor-1", broken)]);
    let want = json!({"errors": ["node 'logger': exited with status 1"], "results": {"id": "ID", "nodes": {
        "logger": {"instance": "sensor-1", "success": false, "stdout": "starting", "stderr": "fatal error: boom"},
        "worker": {"instance": "sensor-1", "success": true},
    }}});
    play.client().run_with(&["deploy-config"], ONE).check(1, want);
}

#[test]
fn a_deployment_that_went_back_has_the_shape_of_one_that_failed_and_a_line_that_says_so() {
    let broken = [("proxy", ("starting", "fatal error: boom"))].into();
    let play = Play::start(&[("sensor-1", Manners { broken, one_by_one: true, ..Manners::default() })]);
    let client = play.client();
    assert_eq!(client.run_with(&["deploy-config"], ONE).code, 0);
    let deployed = client.run(&["get-config", "--deployed", "--as-json"]).json();
    let more =
        format!("{ONE}[proxy]\ninstance = sensor-1\nrole = proxy\n[worker-2]\ninstance = sensor-1\nrole = worker\n");
    let ran = client.run_with(&["deploy-config"], &more);
    let answer = ran.json();
    let [failed, back] = &answer["errors"].as_array().unwrap()[..] else { panic!("{ran:?}") };
    assert_eq!((ran.code, failed), (1, &json!("node 'proxy': exited with status 1")));
    let back = back.as_str().unwrap().strip_prefix("rolled back: configuration ");
    let id = back.and_then(|rest| rest.strip_suffix(" is in force again"));
    assert_eq!(id.map(str::len), Some("b1c7d7a2-0000-11f1-8000-0242ac110002".len()), "{ran:?}");
    // The worker's turn never came.
    let proxy = json!({"instance": "sensor-1", "success": false, "stdout": "starting", "stderr": "fatal error: boom"});
    assert_eq!(answer["results"]["nodes"], json!({"proxy": proxy}), "{ran:?}");
    assert_eq!(client.run(&["get-config", "--deployed", "--as-json"]).json(), deployed);
}

#[test]
fn an_empty_configuration_and_one_without_nodes_are_deployed_at_once() {
    let play = Play::start(&[("sensor-1", Manners::default())]);
    let client = play.client();
    let done = json!({"errors": [], "results": {"id": "ID"}});
    let ((), took) = timed(|| {
        client.run_with(&["deploy-config"], "[instances]\nsensor-1\n").check(0, done.clone());
        client.run(&["deploy"]).check(0, done.clone());
        client.run_with(&["deploy-config"], "").check(0, done.clone());
        client.run(&["restart"]).check(0, json!({"errors": [], "results": {}}));
        client
            .run(&["get-id-value", "x"])
            .check(1, json!({"errors": [{"error": "no cluster deployed", "source": null}], "results": {}}));
    });
    assert!(took < Duration::from_secs(9), "{took:?}");
}

#[test]
fn an_instance_without_nodes_delays_nobody() {
    let play = Play::start(&[("sensor-1", Manners::default()), ("sensor-2", Manners::default())]);
    let file = ONE.replace("[instances]\n", "[instances]\nsensor-2\n");
    let nodes = json!({"logger": {"instance": "sensor-1", "success": true},
                       "worker": {"instance": "sensor-1", "success": true}});
    play.client()
        .run_with(&["deploy-config"], &file)
        .check(0, json!({"errors": [], "results": {"id": "ID", "nodes": nodes}}));
}

#[test]
fn an_instance_that_never_appears_is_named_and_nothing_is_deployed() {
    let rules = Rules { request_timeout: Duration::from_secs(2), ..Rules::default() };
    let play = Play::start_by(rules, &[("sensor-1", Manners::default())]);
    let file = ONE.replace("[instances]\n", "[instances]\nsensor-2\n");
    let errors = ["instance 'sensor-2': never connected", "request timed out"];
    play.client().run_with(&["deploy-config"], &file).check(1, json!({"errors": errors, "results": {}}));
    assert_eq!(play.client().run(&["get-config", "--deployed"]).code, 1);
}

#[test]
fn a_second_deployment_is_refused_with_the_id_of_the_first() {
    let rules = Rules { answer_within: Duration::from_secs(3), ..Rules::default() };
    let play = Play::start_by(rules, &[("sensor-1", deaf_to("deploy"))]);
    assert_eq!(play.client().run_with(&["stage-config"], ONE).code, 0);
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(|| play.client().run(&["deploy"]));
        let other = play.client().run(&["deploy"]);
        (one.join().unwrap(), other)
    });
    // Either may have come first.
    let (first, second) = if one.stdout.contains("earlier deployment") { (other, one) } else { (one, other) };
    assert_eq!(second.code, 1);
    let error = second.json()["errors"][0].as_str().unwrap().to_owned();
    let id = error.strip_prefix("earlier deployment ").and_then(|rest| rest.strip_suffix(" still pending"));
    assert_eq!(id.map(str::len), Some("b1c7d7a2-0000-11f1-8000-0242ac110002".len()), "{error}");
    // It is decided, and only not done.
    let node = json!({"instance": "sensor-1", "success": false});
    let errors = ["node 'logger': request timed out", "node 'worker': request timed out", "request timed out"];
    let want = json!({"errors": errors, "results": {"id": "ID", "nodes": {"logger": node, "worker": node}}});
    assert_eq!((first.code, first.json()), (1, want));
}

#[test]
fn ports_are_given_out_by_instance_then_role_then_name() {
    let play = Play::start(&[("instance-1", Manners::default()), ("instance-2", Manners::default())]);
    let client = play.client();
    let node = |name: &str, instance: &str, role: &str| format!("[{name}]\ninstance = {instance}\nrole = {role}\n");
    let file = [
        node("logger-02", "instance-2", "logger"),
        node("proxy-04", "instance-2", "proxy"),
        node("proxy-02", "instance-1", "proxy"),
        node("worker-1", "instance-1", "worker"),
        node("logger-01", "instance-1", "logger"),
        node("manager", "instance-1", "manager"),
    ];
    assert_eq!(client.run_with(&["deploy-config"], &file.concat()).code, 0);
    let config = client.run(&["get-config", "--deployed", "--as-json"]).json();
    let ports = |key: &str| -> Vec<(String, Value)> {
        let nodes = config["nodes"].as_array().unwrap();
        nodes.iter().map(|node| (node["name"].as_str().unwrap().to_owned(), node[key].clone())).collect()
    };
    let want = |pairs: [(&str, Value); 6]| pairs.map(|(name, port)| (name.to_owned(), port));
    assert_eq!(
        ports("port"),
        want([
            ("logger-01", 2201.into()),
            ("logger-02", 2203.into()),
            ("manager", 2200.into()),
            ("proxy-02", 2202.into()),
            ("proxy-04", 2204.into()),
            ("worker-1", Value::Null),
        ])
    );
    assert_eq!(
        ports("metrics_port"),
        want([
            ("logger-01", 9001.into()),
            ("logger-02", 9004.into()),
            ("manager", 9000.into()),
            ("proxy-02", 9002.into()),
            ("proxy-04", 9005.into()),
            ("worker-1", 9003.into()),
        ])
    );
}

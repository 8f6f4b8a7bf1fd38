//! Who may ask, and what the answers look like.

use watchpost::message::client::LinkState;
use watchpost::model::{InstanceName, NodeName, NodeState, Outcome};

use crate::fake::{Fake, TOKEN, instance, node};
use crate::http::{exchange, get, post};

#[test]
fn every_route_refuses_a_foreign_host_even_the_health_check() {
    let fake = Fake::open();
    for path in ["/healthz", "/api/v1/status", "/api/v1/events", "/nowhere"] {
        let answer = exchange(&fake.address, &[&format!("GET {path} HTTP/1.1"), "host: evil.example"], "");
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.body.contains("`evil.example` is not a name of this controller"), "{}", answer.body);
    }
    for host in [&*fake.address, "localhost:1", "sensor-1", "watch.example:2148", "[::1]:80"] {
        let answer = exchange(&fake.address, &["GET /healthz HTTP/1.1", &format!("host: {host}")], "");
        assert_eq!((answer.status, &*answer.body), (200, "ok\n"), "{host}");
    }
}

#[test]
fn a_page_of_another_origin_is_refused_before_its_order_is_read() {
    let fake = Fake::open();
    let order = |origin: &str| {
        let head = ["POST /api/v1/nodes/stop HTTP/1.1", "host: localhost:2148", "content-type: application/json"];
        exchange(&fake.address, &[&head[..], &[&format!("origin: {origin}")]].concat(), r#"{"nodes":[]}"#).status
    };
    assert_eq!(order("http://evil.example"), 403);
    assert_eq!(order("null"), 403);
    assert!(fake.script().orders.is_empty());
    assert_eq!(order("http://localhost:2148"), 200);
    assert_eq!(fake.script().orders, ["stop []"]);
}

#[test]
fn an_order_in_another_format_than_json_is_refused() {
    let fake = Fake::open();
    let order = |kind: &[&str]| {
        let head = ["POST /api/v1/nodes/stop HTTP/1.1", "host: localhost"];
        exchange(&fake.address, &[&head[..], kind].concat(), r#"{"nodes":[]}"#).status
    };
    assert_eq!(order(&[]), 415);
    assert_eq!(order(&["content-type: text/plain"]), 415);
    assert!(fake.script().orders.is_empty());
}

#[test]
fn every_route_but_the_health_check_asks_for_the_token() {
    let fake = Fake::guarded();
    assert_eq!(get(&fake.address, "/healthz", &[]).status, 200);
    for path in ["/api/v1/version", "/api/v1/status", "/api/v1/events", "/api/v1/configuration", "/nowhere"] {
        let answer = get(&fake.address, path, &["authorization: Bearer wrong"]);
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
        assert!(!answer.body.contains("wrong") && !answer.body.contains(TOKEN), "{}", answer.body);
    }
    assert_eq!(post(&fake.address, "/api/v1/deploy", "").status, 401);
    assert_eq!(get(&fake.address, "/api/v1/version", &[&format!("authorization: Bearer {TOKEN}")]).status, 200);
}

#[test]
fn status_has_the_shape_that_scripts_rely_on() {
    let fake = Fake::open();
    fake.script().instances.push(instance("agent-a", LinkState::Lost));
    fake.script().nodes.extend([node("rests", NodeState::Stopped), node("worker-1", NodeState::Running)]);
    let answer = get(&fake.address, "/api/v1/status", &[]);
    // Where there is no process it says so, rather than nothing.
    let want = concat!(
        r#"{"instances":[{"name":"agent-a","host":"10.0.0.1","needed":true,"link":"LOST","#,
        r#""since":"2023-11-14T22:13:20.000000Z","version":"0.1.0"}],"#,
        r#""nodes":[{"name":"rests","instance":"agent-a","role":"worker","state":"STOPPED","pid":null,"#,
        r#""restarts":2,"since":"2023-11-14T22:13:20.000000Z","port":2200},"#,
        r#"{"name":"worker-1","instance":"agent-a","role":"worker","state":"RUNNING","pid":4711,"#,
        r#""restarts":2,"since":"2023-11-14T22:13:20.000000Z","port":2200}],"seq":"abc-0"}"#,
    );
    assert_eq!(answer.body, want);
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
}

#[test]
fn a_failed_order_is_an_answer_with_its_verdict_in_the_body() {
    let fake = Fake::open();
    let (agent, worker) = (InstanceName::new("agent-a").unwrap(), NodeName::new("worker-1").unwrap());
    fake.script().outcomes = vec![
        Outcome::node_done(&agent, &NodeName::new("manager").unwrap()),
        Outcome::node_failed(&agent, &worker, "exited with status 1".into(), None),
    ];
    let answer = post(&fake.address, "/api/v1/nodes/restart", r#"{"nodes":["worker-1","manager"]}"#);
    let want = concat!(
        r#"{"ok":false,"outcomes":[{"instance":"agent-a","node":"manager"},"#,
        r#"{"instance":"agent-a","node":"worker-1","error":"exited with status 1"}]}"#,
    );
    assert_eq!((answer.status, &*answer.body), (200, want));
    assert_eq!(fake.script().orders, [r#"restart ["manager", "worker-1"]"#]);
}

#[test]
fn a_deployment_without_a_configuration_did_not_succeed() {
    let fake = Fake::open();
    let answer = post(&fake.address, "/api/v1/deploy", "");
    assert_eq!((answer.status, &*answer.body), (200, r#"{"ok":false,"outcomes":[],"deployment":1}"#));
}

#[test]
fn the_output_of_a_node_is_both_of_its_streams() {
    let fake = Fake::open();
    let answer = get(&fake.address, "/api/v1/nodes/worker-1/output?lines=7", &[]);
    assert_eq!((answer.status, &*answer.body), (200, r#"{"stdout":"out\n","stderr":"err\n"}"#));
    assert_eq!(fake.script().orders, ["output worker-1 7"]);
}

#[test]
fn output_is_streamed_piece_by_piece_and_goes_on_where_it_left_off() {
    let fake = Fake::open();
    fake.script().written = "one\ntwo\n\u{fffd}three\n".into();
    let path = "/api/v1/nodes/worker-1/output/stream";
    let read = |query: &str| {
        let answer = get(&fake.address, &format!("{path}{query}"), &["accept: application/x-ndjson"]);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let pieces = answer
            .body
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str::<watchpost::web::json::OutputText>(line).unwrap());
        pieces.map(|piece| (piece.since, piece.text)).collect::<Vec<_>>()
    };
    let want = [("1-4,", "one\n"), ("1-8,", "two\n"), ("1-17,", "\u{fffd}three\n")];
    let want = want.map(|(since, text)| (since.to_owned(), text.to_owned()));
    assert_eq!(read("?stream=stdout&lines=7"), want);
    assert_eq!(read("?stream=stdout&since=1-4,"), want[1..]);
    assert_eq!(read("?since=1-8,1-0"), [("1-17,1-0".to_owned(), want[2].1.clone())]);
    assert!(fake.script().orders.contains(&"read worker-1 stdout Last(7) 0ns".to_owned()));
    let asks_for_the_end = fake.script().orders.contains(&"read worker-1 stdout Last(0) 0ns".to_owned());
    assert!(asks_for_the_end, "what is written meanwhile is not waited for");
    for (query, text) in [("?stream=both", "write stdout or stderr"), ("?since=7", "is no place in the output")] {
        let answer = get(&fake.address, &format!("{path}{query}"), &[]);
        assert!(answer.status == 400 && answer.body.contains(text), "{}", answer.body);
    }
    let agent = watchpost::model::InstanceName::new("agent-a").unwrap();
    fake.script().outcomes = vec![watchpost::model::Outcome::instance_failed(&agent, "not there")];
    let answer = get(&fake.address, path, &[]);
    assert!(answer.status == 404 && answer.body.contains("not there"), "{}", answer.body);
}

#[test]
fn each_mistake_has_its_code_and_one_json_shape() {
    let fake = Fake::open();
    let ask = |path| get(&fake.address, path, &[]);
    for (answer, status, text) in [
        (ask("/api/v2"), 404, "there is no `/api/v2` here"),
        (ask("/api/v1/deploy"), 405, "`GET` is not what this address understands"),
        (ask("/api/v1/configuration?deployed=false"), 404, "no staged configuration"),
        (ask("/api/v1/events?since=42"), 400, "`42` is not the number of an event"),
        (ask("/api/v1/events?since="), 400, "`` is not the number of an event"),
        (ask("/api/v1/events?sinse=42"), 400, "unknown field `sinse`"),
        (ask("/api/v1/nodes/..%2f/output"), 400, "node name `../` must begin with"),
        (post(&fake.address, "/api/v1/nodes/stop", "{"), 400, "the body is not the JSON that is expected"),
        (post(&fake.address, "/api/v1/nodes/stop", "{}"), 400, "missing field `nodes`"),
        (post(&fake.address, "/api/v1/nodes/stop", &" ".repeat(300 << 10)), 413, "over the limit"),
    ] {
        assert_eq!(answer.status, status, "{}", answer.body);
        let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert!(problem["error"].as_str().unwrap().contains(text), "{text}: {}", answer.body);
    }
    fake.script().silent = true;
    assert_eq!(ask("/api/v1/status").status, 503);
}

#[test]
fn the_documentation_lists_every_route_and_no_other() {
    let code = include_str!("../../src/web/routes.rs");
    let mut routes = Vec::new();
    for place in code.split("at(").skip(1) {
        let path = match place.strip_prefix('"') {
            Some(path) => path.split('"').next().unwrap(),
            None if place.starts_with("guard::HEALTH)") => "/healthz",
            None => continue,
        };
        let words = place.split("(web::").skip(1).map(|rest| rest.split('(').next().unwrap());
        let methods = words.filter(|word| ["get", "post", "put", "patch", "delete"].contains(word));
        routes.extend(methods.map(|method| {
            let path = path.replace("{name}", "NAME").replace("{id}", "ID").replace("{digest}", "DIGEST");
            format!("{} {}", method.to_uppercase(), path.replace("{number}", "N").replace("{other}", "M"))
        }));
    }
    let mut documented = documented_routes();
    routes.sort();
    documented.sort();
    assert!(routes.len() >= 14, "{routes:?}");
    assert_eq!(routes, documented);
}

/// Such as `GET /healthz`.
fn documented_routes() -> Vec<String> {
    documented().into_iter().map(|(route, _)| route).collect()
}

/// Every route, and the role that it takes.
pub fn documented() -> Vec<(String, String)> {
    let mut documented = Vec::new();
    for row in include_str!("../../docs/http.md").lines().filter(|line| line.starts_with("| `") && line.contains(" /"))
    {
        let mut cells = row.split('|').skip(1);
        let mut quoted = cells.next().unwrap().split('`').skip(1).step_by(2);
        let role = cells.next().unwrap().trim();
        let first = quoted.next().unwrap();
        // Others of a row differ in their last word alone.
        let stem = &first[..first.rfind('/').unwrap()];
        let routes = [first.to_owned()].into_iter().chain(quoted.map(|last| format!("{stem}{last}")));
        documented.extend(routes.map(|route| (route, role.to_owned())));
    }
    documented
}

#[test]
fn every_change_must_say_that_it_is_json_and_nothing_else_need_do_so() {
    let fake = Fake::open();
    let ask = |route: &str| exchange(&fake.address, &[&format!("{route} HTTP/1.1"), "host: localhost"], "");
    let mut changes = 0;
    for route in documented_routes() {
        let (method, path) = route.split_once(' ').unwrap();
        if method != "GET" {
            changes += 1;
            assert_eq!(ask(&route).status, 415, "{route}");
        }
        for other in ["POST", "PUT", "DELETE"] {
            let known = documented_routes().contains(&format!("{other} {path}"));
            assert_eq!(ask(&format!("{other} {path}")).status, if known { 415 } else { 405 }, "{other} {path}");
        }
    }
    assert!(changes >= 6, "{changes}");
    assert_eq!(ask("POST /nowhere").status, 404);
    assert!(fake.script().orders.is_empty());
}

#[test]
fn a_head_that_never_ends_is_cut_off() {
    use std::io::{Read, Write};
    let fake = Fake::open();
    let mut stream = std::net::TcpStream::connect(&fake.address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: local").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 408"), "{answer:?}");
}

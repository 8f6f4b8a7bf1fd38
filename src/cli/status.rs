//! `watchpost status`: two tables and a verdict.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::SystemTime;

use anstyle::Style;

use super::client::Client;
use super::error::{CliError, Exit};
use super::history::who;
use super::netstats::percent;
use super::screen::{Piece, Screen, age, plain, state_style, tame};
use super::table::{self, Cell, Column, numbers, words};
use crate::model::NodeStatus;
use crate::web::history::Deployment;
use crate::web::json::{Instance, Node, OpenPort, Status};

/// LOSS is there only where nodes count packets.
const NODES: [Column; 9] = [
    words("NODE"),
    words("ROLE").spare(),
    words("INSTANCE").spare(),
    words("STATE"),
    numbers("PID"),
    numbers("RESTARTS"),
    numbers("SINCE"),
    numbers("LOSS"),
    words("REASON"),
];
const LOSS: usize = 7;
const INSTANCES: [Column; 9] = [
    words("INSTANCE"),
    words("LINK"),
    words("NEEDED"),
    words("HOST"),
    numbers("SINCE"),
    words("VERSION").spare(),
    words("KILLS BY").spare(),
    words("LIMITS").spare(),
    words("REASON"),
];

/// Prints how everything is. With `check`, the exit code says whether it is as it should be.
pub fn run(client: &Client, json: bool, check: bool, screen: Screen) -> Result<Exit, CliError> {
    let (text, status) = client.get::<Status>("/api/v1/status")?;
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", text.trim_end())?;
    } else {
        lines(&status, SystemTime::now(), screen).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    Ok(verdict(&status, check))
}

/// What a script learns from the exit code. A node that was stopped on purpose is as it should be.
pub fn verdict(status: &Status, check: bool) -> Exit {
    let not_met = |node: &Node| match &*node.state {
        "RUNNING" | "UNKNOWN" => false,
        "STOPPED" => node.reason == NodeStatus::NOT_STARTED,
        _ => true,
    };
    if check && (status.nodes.iter().any(not_met) || status.deploying.is_some()) {
        return Exit::NotMet;
    }
    let is_up = |name: &String| status.instances.iter().any(|it| it.name == *name && it.link == "UP");
    let following = status.deployment.as_ref().filter(|deployment| deployment.phase == "following");
    let is_owing = following.is_some_and(|deployment| deployment.owing.iter().any(|name| !is_up(name)));
    let lost = is_owing || status.nodes.iter().any(|node| node.state == "UNKNOWN");
    if lost || status.instances.iter().any(Instance::is_missing) { Exit::Unreachable } else { Exit::Done }
}

/// The summary (for people), the nodes, the instances.
pub fn lines(status: &Status, now: SystemTime, screen: Screen) -> Vec<String> {
    let mut lines = alerts(status, screen);
    if screen.is_terminal() {
        lines.push(summary(status, screen));
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    let mut nodes: Vec<_> = status.nodes.iter().map(|node| node_row(node, now)).collect();
    let mut columns: Vec<_> = NODES.into_iter().collect();
    if status.nodes.iter().all(|node| node.netstats.is_none()) {
        columns.remove(LOSS);
        nodes.iter_mut().for_each(|row| drop(row.remove(LOSS)));
    }
    lines.extend(table::lines(&columns, &nodes, screen));
    lines.push(String::new());
    let instances: Vec<_> = status.instances.iter().map(|instance| instance_row(instance, now)).collect();
    lines.extend(table::lines(&INSTANCES, &instances, screen));
    lines
}

/// What must not be overlooked: in words, in colour where there is some.
fn alerts(status: &Status, screen: Screen) -> Vec<String> {
    let mut alerts = Vec::new();
    for OpenPort { port, address } in &status.insecure {
        let text = format!("INSECURE: whoever reaches the port for {port}, {address}, may command the cluster");
        alerts.extend(screen.sentence(&tame(&text), state_style("FAILED")));
    }
    if let Some(certificate) = status.certificate.as_ref().filter(|certificate| certificate.due) {
        let until = certificate.expires.split('.').next().unwrap_or_default();
        let text = format!("the controller's certificate expires at {until}: issue a new one by `watchpost pki issue`");
        alerts.extend(screen.sentence(&tame(&text), state_style("due")));
    }
    for instance in &status.instances {
        if let Some(certificate) = instance.certificate.as_ref().filter(|certificate| certificate.due) {
            let until = certificate.expires.split('.').next().unwrap_or_default();
            let name = &instance.name;
            let text = format!(
                "the certificate of agent {name} expires at {until} and was not renewed yet: see its log, or \
                 `watchpost pki requests`"
            );
            alerts.extend(screen.sentence(&tame(&text), state_style("due")));
        }
    }
    match &status.deployment {
        Some(deployment) => {
            let style = state_style(if deployment.verdict == "rolled-back" { "FAILED" } else { "PENDING" });
            alerts.extend(screen.sentence(&tame(&in_words(deployment)), style));
        }
        // On a terminal the summary has it.
        None if status.deploying.is_some() && !screen.is_terminal() => {
            alerts.push("a deployment is in progress".into());
        }
        None => {}
    }
    alerts
}

/// How far a deployment is, and for whom it waits.
fn in_words(deployment: &Deployment) -> String {
    let Deployment { number, configuration, since, phase, verdict, switched, to_switch, owing, .. } = deployment;
    let owing = owing.join(", ");
    if phase == "following" {
        return format!(
            "deployment {number} of {configuration} is decided ({verdict}), and has yet to be followed by {owing}"
        );
    }
    let who = who(&deployment.who, deployment.from.as_deref());
    let so_far = if *to_switch > 0 { format!(", {switched} of {to_switch} nodes") } else { String::new() };
    let waits = if owing.is_empty() { String::new() } else { format!("; it waits for {owing}") };
    format!("deployment {number} of {configuration} is in progress, by {who} since {since}: {phase}{so_far}{waits}")
}

/// How many nodes are in which state, and what is deployed.
fn summary(status: &Status, screen: Screen) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    status.nodes.iter().for_each(|node| *counts.entry(&node.state).or_default() += 1);
    let mut parts: Vec<Piece> =
        counts.iter().map(|(state, count)| (format!("{count} {state}"), state_style(state))).collect();
    if parts.is_empty() {
        parts.push(plain("no nodes"));
    }
    let missing = status.instances.iter().filter(|instance| instance.is_missing()).count();
    if missing > 0 {
        let text = format!("{missing} of {} instances LOST", status.instances.len());
        parts.push((text, state_style("LOST")));
    }
    match (&status.deploying, &status.configuration) {
        (Some(_), _) => parts.push(("a deployment is in progress".into(), state_style("PENDING"))),
        (None, None) => parts.push(plain("nothing deployed yet: `watchpost deploy FILE`")),
        (None, Some(_)) => {}
    }
    let between = |(at, part)| if at == 0 { vec![part] } else { vec![plain(" · "), part] };
    screen.line(parts.into_iter().enumerate().flat_map(between))
}

fn node_row(node: &Node, now: SystemTime) -> Vec<Cell> {
    vec![
        Cell::styled(&node.name, Style::new().bold()),
        node.role.as_str().into(),
        node.instance.as_str().into(),
        Cell::styled(&node.state, state_style(&node.state)),
        node.pid.into(),
        Some(node.restarts).into(),
        Some(age(&node.since, now)).into(),
        node.netstats.as_ref().and_then(|counted| counted.interval_loss.or(counted.loss)).map(percent).into(),
        Cell::remark(&remark(node)),
    ]
}

/// Why it is so, and what its process says of itself.
fn remark(Node { reason, says, .. }: &Node) -> String {
    let says = if says.is_empty() { String::new() } else { format!("says: {says}") };
    [reason.as_str(), &says].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

fn instance_row(instance: &Instance, now: SystemTime) -> Vec<Cell> {
    let host = match (&instance.host, instance.port) {
        (Some(host), Some(port)) if host.contains(':') => Some(format!("[{host}]:{port}")),
        (Some(host), Some(port)) => Some(format!("{host}:{port}")),
        (host, _) => host.clone(),
    };
    vec![
        Cell::styled(&instance.name, Style::new().bold()),
        Cell::styled(&instance.link, state_style(&instance.link)),
        if instance.needed { "yes" } else { "no" }.into(),
        host.into(),
        instance.since.as_deref().map(|since| age(since, now)).into(),
        instance.version.clone().into(),
        kills_by(instance).into(),
        limits(instance).into(),
        Cell::remark(&instance_remark(instance)),
    ]
}

/// By what the whole of a node is ended there, if its agent has said so.
fn kills_by(instance: &Instance) -> Option<String> {
    let able = instance.abilities.get(KILL)?.able;
    Some(if able { "cgroup" } else { "signals" }.into())
}

/// What nodes can be limited in there, if its agent has said so.
fn limits(instance: &Instance) -> Option<String> {
    let limits = instance.abilities.iter().filter(|(name, _)| ![KILL, OUTLIVE].contains(&name.as_str()));
    let able: Vec<_> =
        limits.filter(|(_, ability)| ability.able).filter_map(|(name, _)| name.split('_').next()).collect();
    (!instance.abilities.is_empty()).then(|| if able.is_empty() { "none".into() } else { able.join(",") })
}

/// What is to be said of it: why its link is as it is, and that its nodes end with its agent, where they do.
fn instance_remark(instance: &Instance) -> String {
    let ends = instance.abilities.get(OUTLIVE).is_some_and(|ability| !ability.able);
    let ends = if ends { "nodes end with the agent" } else { "" };
    [instance.reason.as_str(), ends].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// The abilities that are no limits.
const KILL: &str = "cgroup_kill";
const OUTLIVE: &str = "outlive_agent";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::json::Certificate;

    const THEN: &str = "2023-11-14T22:13:20.000000Z";

    fn node(name: &str, state: &str, reason: &str) -> Node {
        Node {
            name: name.into(),
            instance: "agent-a".into(),
            role: "worker".into(),
            state: state.into(),
            pid: (state == "RUNNING").then_some(4711),
            restarts: 2,
            since: THEN.into(),
            reason: reason.into(),
            says: String::new(),
            port: None,
            metrics_port: None,
            netstats: None,
        }
    }

    fn instance(link: &str) -> Instance {
        Instance {
            name: "agent-a".into(),
            host: Some("10.0.0.1".into()),
            port: Some(2151),
            needed: true,
            link: link.into(),
            since: Some(THEN.into()),
            version: Some("0.1.0".into()),
            reason: String::new(),
            certificate: None,
            abilities: Default::default(),
        }
    }

    fn status(nodes: Vec<Node>, link: &str) -> Status {
        let configuration = Some("c1".into());
        let instances = vec![instance(link)];
        Status { instances, nodes, configuration, seq: "a-1".into(), ..Status::default() }
    }

    #[test]
    fn a_deployment_says_how_far_it_is_and_whom_it_waits_for() {
        let deployment = Deployment {
            number: 7,
            configuration: "c2".into(),
            who: "token `ops`".into(),
            since: "today".into(),
            phase: "switching".into(),
            verdict: "open".into(),
            switched: 3,
            to_switch: 10,
            owing: vec!["a".into(), "b".into()],
            ..Deployment::default()
        };
        let want = "deployment 7 of c2 is in progress, by token `ops` since today: switching, 3 of 10 nodes; it waits for a, b";
        assert_eq!(in_words(&deployment), want);
        let over = Deployment { phase: "following".into(), verdict: "rolled-back".into(), ..deployment };
        assert_eq!(in_words(&over), "deployment 7 of c2 is decided (rolled-back), and has yet to be followed by a, b");
    }

    #[test]
    fn the_tables_look_like_this() {
        let nodes = vec![node("worker-1", "RUNNING", ""), node("worker-10", "CRASHED", "exited with status 1")];
        let now = humantime::parse_rfc3339(THEN).unwrap() + std::time::Duration::from_secs(75);
        let want = "\
NODE       ROLE    INSTANCE  STATE     PID  RESTARTS  SINCE  REASON
worker-1   worker  agent-a   RUNNING  4711         2  1m15s
worker-10  worker  agent-a   CRASHED     -         2  1m15s  exited with status 1

INSTANCE  LINK  NEEDED  HOST           SINCE  VERSION  KILLS BY  LIMITS  REASON
agent-a   UP    yes     10.0.0.1:2151  1m15s  0.1.0    -         -";
        assert_eq!(lines(&status(nodes.clone(), "UP"), now, Screen::pipe()).join("\n"), want);
        let screen = Screen { width: Some(70), height: None, colour: false };
        let lines = lines(&status(nodes, "UP"), now, screen);
        assert_eq!(lines[0], "1 CRASHED · 1 RUNNING");
        assert_eq!(lines[4], "worker-10  CRASHED     -         2  1m15s  exited with status 1");
    }

    #[test]
    fn what_a_node_says_of_itself_stands_behind_the_reason() {
        let mut node = node("n", "RUNNING", "ready");
        node.says = "Processing 7 packets".into();
        assert_eq!(remark(&node), "ready; says: Processing 7 packets");
        node.reason.clear();
        assert_eq!(remark(&node), "says: Processing 7 packets");
    }

    #[test]
    fn what_an_agent_can_do_for_its_nodes_is_shown() {
        let able = |able| crate::web::json::Ability { able, detail: String::new() };
        let mut instance = instance("UP");
        assert_eq!((kills_by(&instance), limits(&instance)), (None, None));
        let abilities = [("cgroup_kill", true), ("cpu_max", false), ("memory_max", false), ("pids_max", false)];
        instance.abilities = abilities.map(|(name, is)| (name.to_owned(), able(is))).into();
        assert_eq!((kills_by(&instance).as_deref(), limits(&instance).as_deref()), (Some("cgroup"), Some("none")));
        instance.abilities.extend([("memory_max".into(), able(true)), ("pids_max".into(), able(true))]);
        instance.abilities.insert("cgroup_kill".into(), able(false));
        assert_eq!(
            (kills_by(&instance).as_deref(), limits(&instance).as_deref()),
            (Some("signals"), Some("memory,pids"))
        );
    }

    #[test]
    fn what_must_not_be_overlooked_stands_above_everything() {
        let open = |port: &str| OpenPort { port: port.into(), address: "0.0.0.0:2150".into() };
        let mut status = status(vec![], "UP");
        status.insecure = vec![open("agents"), open("http\x1b")];
        let certificate = |due| Some(Certificate { expires: THEN.into(), due });
        status.certificate = certificate(false);
        let now = humantime::parse_rfc3339(THEN).unwrap();
        let [first, second] = ["agents", "http "].map(|port| {
            format!("INSECURE: whoever reaches the port for {port}, 0.0.0.0:2150, may command the cluster")
        });
        assert_eq!(lines(&status, now, Screen::pipe())[..3], [first.clone(), second, String::new()]);
        status.certificate = certificate(true);
        status.instances[0].certificate = certificate(true);
        status.deploying = Some("r".into());
        let piped = lines(&status, now, Screen::pipe());
        assert!(piped[2].starts_with("the controller's certificate expires at 2023-11-14T22:13:20:"), "{piped:?}");
        assert!(piped[3].starts_with("the certificate of agent agent-a expires at 2023-11-14T22:13:20 "), "{piped:?}");
        assert_eq!(piped[4..6], ["a deployment is in progress".to_owned(), String::new()]);
        let screen = Screen { width: Some(200), height: None, colour: true };
        let red = state_style("FAILED");
        assert_eq!(lines(&status, now, screen)[0], format!("{red}{first}{red:#}"));
        let narrow = Screen { width: Some(60), height: None, colour: false };
        assert_eq!(lines(&status, now, narrow)[..2].join(" "), first, "nothing is cut off");
    }

    #[test]
    fn the_exit_code_tells_unmet_from_unreachable() {
        for (states, link, check, want) in [
            (&["RUNNING", "STOPPED"][..], "UP", true, Exit::Done),
            (&["RUNNING", "PENDING"], "UP", true, Exit::NotMet),
            (&["CRASHED"], "UP", true, Exit::NotMet),
            (&["FAILED", "UNKNOWN"], "LOST", true, Exit::NotMet),
            (&["RUNNING", "UNKNOWN"], "LOST", true, Exit::Unreachable),
            (&["FAILED"], "UP", false, Exit::Done),
            (&["RUNNING"], "LOST", false, Exit::Unreachable),
            (&[], "UP", true, Exit::Done),
        ] {
            let nodes = states.iter().map(|state| node("n", state, "")).collect();
            assert_eq!(verdict(&status(nodes, link), check), want, "{states:?} {link} {check}");
        }
        let owing = |name: &str| {
            let deployment =
                Deployment { phase: "following".into(), owing: vec![name.into()], ..Deployment::default() };
            Status { deployment: Some(deployment), ..status(vec![node("n", "RUNNING", "")], "UP") }
        };
        assert_eq!(verdict(&owing("left"), true), Exit::Unreachable, "what it runs runs on");
        assert_eq!(verdict(&owing("agent-a"), true), Exit::Done, "it is there, and about to follow");
        let refused = node("n", "STOPPED", NodeStatus::NOT_STARTED);
        assert_eq!(verdict(&status(vec![refused], "UP"), true), Exit::NotMet, "nobody stopped it");
    }
}

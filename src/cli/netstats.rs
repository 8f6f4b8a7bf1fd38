//! `watchpost netstats`: how many packets Zeek nodes received and lost.

use std::io::{self, Write};
use std::time::SystemTime;

use anstyle::Style;

use super::client::Client;
use super::error::{CliError, Exit};
use super::screen::{Screen, age, tame};
use super::table::{self, Cell, Column, numbers, words};
use crate::model::NodeName;
use crate::web::json::{NetStats, Node, Status};

const COLUMNS: [Column; 11] = [
    words("NODE"),
    words("INSTANCE").spare(),
    numbers("RECEIVED"),
    numbers("DROPPED"),
    numbers("LOSS"),
    numbers("LATELY"),
    numbers("LINK").spare(),
    numbers("BYTES").spare(),
    numbers("MEMORY"),
    numbers("EVENTS").spare(),
    numbers("AGE"),
];

/// Prints the figures of these nodes, or of every node that has some.
pub fn run(client: &Client, names: &[String], json: bool, screen: Screen) -> Result<Exit, CliError> {
    names.iter().try_for_each(|name| NodeName::new(name).map(drop))?;
    let (_, status) = client.get::<Status>("/api/v1/status")?;
    let is_meant = |node: &&Node| if names.is_empty() { node.netstats.is_some() } else { names.contains(&node.name) };
    let nodes: Vec<&Node> = status.nodes.iter().filter(is_meant).collect();
    let mut out = io::stdout().lock();
    if json {
        let figures = nodes.iter().map(|node| (node.name.clone(), serde_json::json!(node.netstats)));
        writeln!(out, "{}", serde_json::Value::from(figures.collect::<serde_json::Map<_, _>>()))?;
    } else if !nodes.is_empty() {
        lines(&nodes, SystemTime::now(), screen).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    let missing: Vec<_> = names.iter().filter(|name| !status.nodes.iter().any(|node| node.name == **name)).collect();
    missing.iter().try_for_each(|name| writeln!(io::stderr(), "{}: unknown cluster node", tame(name)))?;
    Ok(if missing.is_empty() { Exit::Done } else { Exit::Failed })
}

fn lines(nodes: &[&Node], now: SystemTime, screen: Screen) -> Vec<String> {
    let rows: Vec<_> = nodes.iter().map(|node| row(node, now)).collect();
    table::lines(&COLUMNS, &rows, screen)
}

fn row(node: &Node, now: SystemTime) -> Vec<Cell> {
    let figures = node.netstats.as_ref();
    let number = |figure: fn(&NetStats) -> u64| Cell::from(figures.map(figure));
    vec![
        Cell::styled(&node.name, Style::new().bold()),
        node.instance.as_str().into(),
        number(|it| it.received),
        number(|it| it.dropped),
        figures.and_then(|it| it.loss).map(percent).into(),
        figures.and_then(|it| it.interval_loss).map(percent).into(),
        number(|it| it.link),
        number(|it| it.bytes),
        figures.map(|it| format!("{}M", it.memory_bytes.div_ceil(1 << 20))).into(),
        number(|it| it.events_waiting),
        figures.map(|it| age(&it.time, now)).into(),
    ]
}

/// A part of all packets, as people read it.
pub fn percent(part: f64) -> String {
    format!("{:.2}%", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_looks_like_this() {
        const THEN: &str = "2023-11-14T22:13:20.000000Z";
        let now = humantime::parse_rfc3339(THEN).unwrap() + std::time::Duration::from_secs(4);
        let figures = NetStats {
            time: THEN.into(),
            received: 1_000_000,
            dropped: 2500,
            loss: Some(0.0025),
            interval_seconds: 5.0,
            interval_received: 100,
            interval_dropped: 10,
            interval_loss: Some(0.0909),
            link: 1_002_500,
            bytes: 64_000_000,
            memory_bytes: (200 << 20) + 1,
            events_waiting: 3,
        };
        let node = |name: &str, netstats| Node {
            name: name.into(),
            instance: "a".into(),
            role: "worker".into(),
            state: "RUNNING".into(),
            pid: Some(7),
            restarts: 0,
            since: THEN.into(),
            reason: String::new(),
            says: String::new(),
            port: None,
            metrics_port: None,
            netstats,
        };
        let nodes = [node("worker-1", Some(figures)), node("web", None)];
        let want = "\
NODE      INSTANCE  RECEIVED  DROPPED   LOSS  LATELY     LINK     BYTES  MEMORY  EVENTS  AGE
worker-1  a          1000000     2500  0.25%   9.09%  1002500  64000000    201M       3   4s
web       a                -        -      -       -        -         -       -       -    -";
        assert_eq!(lines(&nodes.iter().collect::<Vec<_>>(), now, Screen::pipe()).join("\n"), want);
    }
}

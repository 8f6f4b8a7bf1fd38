//! `GET /metrics`: the status in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use actix_web::HttpResponse;
use actix_web::web::Data;

use super::problem::Problem;
use super::{Desk, Facts, json};
use crate::message::client::{GetStatusRequest, GetStatusResponse, LinkState};
use crate::model::{NetStats, NodeState};

/// Every state, so that one that nobody is in counts zero in place of being unheard of.
const STATES: [NodeState; 6] = [
    NodeState::Pending,
    NodeState::Running,
    NodeState::Stopped,
    NodeState::Crashed,
    NodeState::Failed,
    NodeState::Unknown,
];

/// Answers with all of them.
pub async fn metrics(desk: Data<Desk>, facts: Data<Facts>) -> Result<HttpResponse, Problem> {
    let text = text(&desk.ask(GetStatusRequest).await?, &facts);
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}

fn text(status: &GetStatusResponse, facts: &Facts) -> String {
    let mut page = Page::default();
    page.family("watchpost_build_info", "gauge", "Always 1, with the release as a label.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);

    let mut counts: BTreeMap<String, u64> = STATES.iter().map(|state| (state.to_string(), 0)).collect();
    status.nodes.iter().for_each(|node| *counts.entry(node.state.to_string()).or_default() += 1);
    page.family("watchpost_nodes", "gauge", "Nodes by state.");
    counts.iter().for_each(|(state, count)| page.sample(&[("state", state)], *count));

    page.family("watchpost_node_up", "gauge", "1 for a node that is RUNNING, 0 for any other.");
    for node in &status.nodes {
        let (name, instance, role) = (node.node.to_string(), node.instance.to_string(), node.role.to_string());
        let is_up = node.state == NodeState::Running;
        page.sample(&[("node", &name), ("instance_name", &instance), ("role", &role)], is_up.into());
    }
    page.family("watchpost_node_restarts_total", "counter", "Restarts of a node that nobody asked for.");
    for node in &status.nodes {
        let (name, instance) = (node.node.to_string(), node.instance.to_string());
        page.sample(&[("node", &name), ("instance_name", &instance)], node.restarts.into());
    }

    counted(&mut page, status);

    page.family("watchpost_instance_up", "gauge", "1 for an instance whose agent is linked, 0 for any other.");
    for instance in &status.instances {
        let needed = if instance.needed { "yes" } else { "no" };
        let labels = [("instance_name", instance.name.as_str()), ("needed", needed)];
        page.sample(&labels, (instance.link == LinkState::Up).into());
    }

    let help = "1 for what an instance's agent can do for its nodes, 0 for what it cannot.";
    page.family("watchpost_instance_ability", "gauge", help);
    for instance in &status.instances {
        for (ability, json::Ability { able, .. }) in json::Instance::from(instance.clone()).abilities {
            page.sample(&[("instance_name", instance.name.as_str()), ("ability", &ability)], able.into());
        }
    }

    page.family("watchpost_log_entries_total", "counter", "Entries of the controller's log, kept or not, up to now.");
    page.sample(&[("epoch", &format!("{:x}", status.cursor.epoch))], status.cursor.number);

    if let Some(certificate) = facts.certificate() {
        let help = "When the controller's own certificate expires, in seconds since 1970.";
        page.family("watchpost_certificate_expiry_timestamp_seconds", "gauge", help);
        page.sample(&[], certificate.not_after.0 / 1_000_000);
    }
    let help = "When the certificate of an instance's agent expires, as last shown, in seconds since 1970.";
    page.family("watchpost_agent_certificate_expiry_timestamp_seconds", "gauge", help);
    for (name, term) in status.instances.iter().filter_map(|instance| Some((&instance.name, instance.certificate?))) {
        page.sample(&[("instance_name", name.as_str())], term.until.0 / 1_000_000);
    }
    page.family(
        "watchpost_insecure_port",
        "gauge",
        "1 for each port that is open beyond the machine and not protected.",
    );
    for (purpose, address) in facts.insecure() {
        page.sample(&[("port", &purpose), ("address", &address.to_string())], 1);
    }
    page.text
}

/// What Zeek nodes count, where there are any.
fn counted(page: &mut Page, status: &GetStatusResponse) {
    type Figure = (&'static str, &'static str, &'static str, fn(&NetStats) -> u64);
    const FIGURES: [Figure; 6] = [
        ("watchpost_node_packets_received_total", "counter", "Packets that a Zeek node received.", |it| {
            it.total.received
        }),
        ("watchpost_node_packets_dropped_total", "counter", "Packets that a Zeek node lost.", |it| it.total.dropped),
        ("watchpost_node_packets_link_total", "counter", "Packets on the link of a Zeek node, 0 if unknown.", |it| {
            it.link
        }),
        ("watchpost_node_bytes_received_total", "counter", "Bytes that a Zeek node received.", |it| it.bytes),
        ("watchpost_node_memory_bytes", "gauge", "The most memory that a Zeek node had.", |it| it.memory),
        ("watchpost_node_events_waiting", "gauge", "Events in the queue of a Zeek node.", |it| it.events),
    ];
    let counting: Vec<_> = status.nodes.iter().filter_map(|node| Some((node, node.netstats.as_deref()?))).collect();
    for (family, kind, help, figure) in FIGURES.into_iter().filter(|_| !counting.is_empty()) {
        page.family(family, kind, help);
        for (node, counted) in &counting {
            let labels = [("node", node.node.as_str()), ("instance_name", node.instance.as_str())];
            page.sample(&labels, figure(counted));
        }
    }
}

/// A page of metrics, family by family.
#[derive(Default)]
struct Page {
    text: String,
    family: &'static str,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name;
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let family = self.family;
        self.line(format_args!("{family}{labels} {value}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to memory does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

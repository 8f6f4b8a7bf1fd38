//! What is rendered in Zeek's language: the layout of a cluster, and two scripts of ours.
//!
//! All of it is the same for every node of an agent. [`layout`] is what Zeek itself looks for; [`settings`] comes before
//! the site's scripts, so that these have the last word; [`last`] comes behind them, and takes back what Zeek sets for
//! zeekctl's sake.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use super::version::Version;
use crate::archive::QUEUE;
use crate::model::{Backend, LayoutEntry, Network, NodeName, Role, Zeek};
use crate::plan::order::rank;

/// The script by which a node talks to its agent: the same for every node and version.
pub const CHANNEL: &str = include_str!("channel.zeek");

/// The content of `cluster-layout.zeek`. There are entries of roles that a Zeek cluster has, sorted by name.
pub fn layout(entries: &[LayoutEntry], version: Version) -> String {
    let has_logger = entries.iter().any(|entry| entry.role == Role::Logger);
    let manager = entries.iter().find(|entry| entry.role == Role::Manager).map(|entry| &entry.name);
    let mut text = head(version);
    line(&mut text, format_args!("redef Cluster::manager_is_logger = {};", if has_logger { "F" } else { "T" }));
    line(&mut text, "redef Cluster::nodes = {");
    let sorted: BTreeMap<_, _> = entries.iter().map(|entry| ((place(entry.role), &entry.name), entry)).collect();
    for entry in sorted.into_values() {
        line(&mut text, format_args!("\t{},", self::entry(entry, manager, version)));
    }
    line(&mut text, "};");
    text
}

/// The manager first, as others write it.
fn place(role: Role) -> usize {
    if role == Role::Manager { 0 } else { rank(role) + 1 }
}

fn entry(entry: &LayoutEntry, manager: Option<&NodeName>, version: Version) -> String {
    let LayoutEntry { name, role, host, port, metrics_port } = entry;
    let mut text = format!("[\"{name}\"] = [$node_type=Cluster::{}", role.as_str().to_uppercase());
    let mut add = |field: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = write!(text, ", ${field}={value}");
    };
    add("ip", address(*host));
    if let Some(port) = port {
        add("p", format!("{port}/tcp"));
    }
    if let Some(manager) = manager.filter(|_| matches!(role, Role::Proxy | Role::Worker)) {
        add("manager", format!("\"{manager}\""));
    }
    if let Some(port) = metrics_port.filter(|_| version.has_metrics_ports()) {
        add("metrics_port", format!("{port}/tcp"));
    }
    text + "]"
}

/// The script that comes before those of the site. `networks` are all that count as local.
pub fn settings(
    zeek: &Zeek,
    networks: &[Network],
    entries: &[LayoutEntry],
    backend: Backend,
    version: Version,
) -> String {
    let mut text = head(version);
    if let Some(seed) = zeek.hash_seed {
        line(&mut text, format_args!("redef global_hash_seed = \"{seed:08x}\";"));
    }
    if let Some(snaplen) = zeek.pcap_snaplen {
        line(&mut text, format_args!("redef Pcap::snaplen = {snaplen};"));
    }
    if let Some(bufsize) = zeek.pcap_bufsize {
        line(&mut text, format_args!("redef Pcap::bufsize = {bufsize};"));
    }
    if version.has_metrics_ports() {
        let address = zeek.metrics_address.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        redef(&mut text, "Telemetry::metrics_address", format_args!("\"{address}\""));
    }
    if !networks.is_empty() {
        let list: Vec<String> =
            networks.iter().map(|network| format!("{}/{}", address(network.address), network.bits)).collect();
        only_if_defined(&mut text, "Site::local_nets", |text| {
            line(text, format_args!("redef Site::local_nets += {{\n\t{},\n}};", list.join(",\n\t")));
        });
    }
    if backend == Backend::ZeroMq {
        text.push_str(&hub(zeek, entries));
    }
    text
}

/// Where ZeroMQ's hub, a part of the manager, is bound and found. Zeek's own defaults are one place for all clusters of a
/// machine.
fn hub(zeek: &Zeek, entries: &[LayoutEntry]) -> String {
    let mut text = String::new();
    let manager = entries.iter().find(|entry| entry.role == Role::Manager);
    if let (Some(manager), Some([xpub, xsub])) = (manager, zeek.zeromq_ports) {
        let host = address(manager.host);
        // What a node publishes goes to where the hub subscribes, and the other way round.
        for (name, port) in [
            ("listen_xpub_endpoint", xpub),
            ("listen_xsub_endpoint", xsub),
            ("connect_xpub_endpoint", xsub),
            ("connect_xsub_endpoint", xpub),
        ] {
            let name = format!("Cluster::Backend::ZeroMQ::{name}");
            line(&mut text, format_args!("redef {name} = \"tcp://{host}:{port}\";"));
        }
    }
    if entries.iter().any(|entry| entry.host.is_ipv6()) {
        redef(&mut text, "Cluster::Backend::ZeroMQ::ipv6", "T");
    }
    text
}

/// The script that comes behind those of the site.
///
/// Zeek calls programs of zeekctl for what was rotated unless its own Supervisor runs it. Here whoever writes logs puts
/// them into a queue, under names that say when they were opened and closed, and takes up what an earlier life left.
pub fn last(zeek: &Zeek, version: Version) -> String {
    let mut text = head(version);
    text.push_str(
        &r#"module Watchpost;

function rotated(info: Log::RotationFmtInfo): Log::RotationPath
	{
	local opened = strftime("%Y-%m-%d-%H-%M-%S", info$open);
	local closed = strftime("%Y-%m-%d-%H-%M-%S", info$close);
	return Log::RotationPath($dir="LOG_QUEUE", $file_basename=fmt("%s__%s__%s__", info$path, opened, closed));
	}

redef Log::default_rotation_postprocessor_cmd = "";

@if ( Cluster::node == "" || Cluster::local_node_type() == Cluster::LOGGER || ( Cluster::local_node_type() == Cluster::MANAGER && Cluster::manager_is_logger ) )
redef Log::rotation_format_func = rotated;
redef LogAscii::enable_leftover_log_rotation = T;
"#
        .replace("LOG_QUEUE", QUEUE),
    );
    if let Some(interval) = zeek.rotation_interval {
        line(&mut text, format_args!("redef Log::default_rotation_interval = {} sec;", interval.as_secs()));
    }
    line(&mut text, "@endif");
    text
}

fn head(version: Version) -> String {
    format!("# Written by watchpost for Zeek {version}, and written anew with every deployment.\n\n")
}

fn redef(text: &mut String, name: &str, value: impl std::fmt::Display) {
    only_if_defined(text, name, |text| line(text, format_args!("redef {name} = {value};")));
}

/// For names that not every release has, or that are not there in bare mode.
fn only_if_defined(text: &mut String, name: &str, write: impl FnOnce(&mut String)) {
    line(text, format_args!("@ifdef ( {name} )"));
    write(text);
    line(text, "@endif");
}

/// An address as Zeek's language and URLs write it.
fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn line(text: &mut String, line: impl std::fmt::Display) {
    let _ = writeln!(text, "{line}"); // as above
}

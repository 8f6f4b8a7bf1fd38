//! Load balancing: how zeekctl makes several nodes of one worker that has several processes.

use std::collections::BTreeMap;

use super::nodes::Host;
use super::options::Options;
use crate::hint::{instead, shown};
use crate::model::Node;

/// How the packets of an interface are dealt out to several processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Method {
    AfPacket,
    PfRing,
    Myricom,
    Custom,
    /// Each process reads an interface of its own.
    Interfaces(Vec<String>),
}

const METHODS: [&str; 5] = ["af_packet", "pf_ring", "myricom", "custom", "interfaces"];

impl Method {
    pub(super) fn named(text: &str) -> Result<Self, String> {
        match text {
            "af_packet" => Ok(Self::AfPacket),
            "pf_ring" => Ok(Self::PfRing),
            "myricom" => Ok(Self::Myricom),
            "custom" => Ok(Self::Custom),
            "interfaces" => Ok(Self::Interfaces(Vec::new())),
            _ => Err(format!("{} is no method: {}", shown(text), instead(text, METHODS))),
        }
    }
}

/// What has been dealt out on each machine so far.
#[derive(Debug, Default)]
pub(super) struct Dealt {
    /// The cluster number of each interface that is read through PF_RING.
    rings: BTreeMap<Host, BTreeMap<String, u32>>,
    /// The number of the next process at the current interface.
    application: u32,
}

impl Dealt {
    /// Makes `node`, the process number `index` of `count` at its interface, read its part of the packets. What the files
    /// have in its environment counts more.
    pub(super) fn give(
        &mut self,
        node: &mut Node,
        host: &Host,
        method: &Method,
        (index, count): (usize, usize),
        options: &Options,
    ) -> Result<(), String> {
        let interface = node.interface.clone().unwrap_or_default();
        match method {
            Method::AfPacket if interface.starts_with("af_packet::") => {
                return Err("begins with af_packet:: already, which lb_method adds: write the bare name".into());
            }
            Method::AfPacket => node.interface = Some(format!("af_packet::{interface}")),
            Method::Custom => {
                let (before, behind) = ("lb_custom.interfaceprefix", "lb_custom.interfacesuffix");
                node.interface = Some(options.text(before, "").to_owned() + &interface + options.text(behind, ""));
            }
            // The last of them is for the first process.
            Method::Interfaces(all) => node.interface = all.get(count - 1 - index).cloned(),
            Method::Myricom => {
                set(node, options, "SNF_NUM_RINGS", count.to_string());
                set(node, options, "SNF_FLAGS", "0x101".into());
            }
            Method::PfRing => self.ring(node, host, interface, options),
        }
        Ok(())
    }

    fn ring(&mut self, node: &mut Node, host: &Host, interface: String, options: &Options) {
        let cluster = options.number("pfringclusterid", 21);
        if cluster == 0 {
            return;
        }
        let of_host = self.rings.entry(host.clone()).or_default();
        let next = cluster.saturating_add(of_host.len() as u32);
        if !of_host.contains_key(&interface) {
            self.application = options.number("pfringfirstappinstance", 0);
        }
        let cluster = *of_host.entry(interface.clone()).or_insert(next);
        if let Ok(flow) = flow(options.text("pfringclustertype", "4-tuple")) {
            set(node, options, flow, "1".into());
        }
        let of_its_own = ["zc:", "pf_ring::zc:", "dna"].iter().any(|start| interface.starts_with(start));
        if of_its_own {
            node.interface = Some(format!("{interface}@{}", self.application));
        }
        match () {
            () if interface.starts_with("dnacl") => {}
            () if interface.starts_with("dna") => set(node, options, "PCAP_PF_RING_DNA_RSS", "1".into()),
            () if of_its_own => set(node, options, "PCAP_PF_RING_ZC_RSS", "1".into()),
            () => set(node, options, "PCAP_PF_RING_CLUSTER_ID", cluster.to_string()),
        }
        self.application += 1;
        let name = format!("zeek-{}", node.interface.as_deref().unwrap_or_default());
        set(node, options, "PCAP_PF_RING_APPNAME", name);
    }
}

/// Sets a variable that nobody has set.
fn set(node: &mut Node, options: &Options, name: &str, value: String) {
    if !options.sets(name) {
        node.env.entry(name.to_owned()).or_insert(value);
    }
}

/// The variable that has PF_RING keep together what belongs together.
pub(super) fn flow(text: &str) -> Result<&'static str, String> {
    const KNOWN: [(&str, &str); 10] = [
        ("2-tuple", "PCAP_PF_RING_USE_CLUSTER_PER_FLOW_2_TUPLE"),
        ("4-tuple", "PCAP_PF_RING_USE_CLUSTER_PER_FLOW_4_TUPLE"),
        ("5-tuple", "PCAP_PF_RING_USE_CLUSTER_PER_FLOW_5_TUPLE"),
        ("tcp-5-tuple", "PCAP_PF_RING_USE_CLUSTER_PER_FLOW_TCP_5_TUPLE"),
        ("6-tuple", "PCAP_PF_RING_USE_CLUSTER_PER_FLOW"),
        ("inner-2-tuple", "PCAP_PF_RING_USE_CLUSTER_PER_INNER_FLOW_2_TUPLE"),
        ("inner-4-tuple", "PCAP_PF_RING_USE_CLUSTER_PER_INNER_FLOW_4_TUPLE"),
        ("inner-5-tuple", "PCAP_PF_RING_USE_CLUSTER_PER_INNER_FLOW_5_TUPLE"),
        ("inner-tcp-5-tuple", "PCAP_PF_RING_USE_CLUSTER_PER_INNER_FLOW_TCP_5_TUPLE"),
        ("inner-6-tuple", "PCAP_PF_RING_USE_CLUSTER_PER_INNER_FLOW"),
    ];
    let found = KNOWN.iter().find(|(name, _)| *name == text).map(|(_, variable)| *variable);
    found.ok_or_else(|| format!("{} is not known: {}", shown(text), instead(text, KNOWN.map(|(name, _)| name))))
}

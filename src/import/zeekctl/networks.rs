//! `networks.cfg`.

use crate::import::{Findings, Source};
use crate::model::Network;
use crate::model::cluster_file::{Complaint, readable};
use crate::model::network::listed;

pub(super) fn read(source: Option<&Source>, findings: &mut Findings) -> Vec<Network> {
    let Some(source) = source else { return Vec::new() };
    let text = match readable(&source.bytes) {
        Ok(text) => text,
        Err(complaint) => {
            findings.wrong(complaint);
            return Vec::new();
        }
    };
    let take = |(line, network): (usize, Result<Network, String>)| {
        network.map_err(|what| findings.wrong(Complaint::at(line, what))).ok()
    };
    listed(text).filter_map(take).collect()
}

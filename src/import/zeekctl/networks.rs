//! `networks.cfg`: a network a line, and behind it a name that nobody reads.

use crate::hint::shown;
use crate::import::{Findings, Source};
use crate::model::Network;
use crate::model::cluster_file::{Complaint, readable};

pub(super) fn read(source: Option<&Source>, findings: &mut Findings) -> Vec<Network> {
    let Some(source) = source else { return Vec::new() };
    let text = match readable(&source.bytes) {
        Ok(text) => text,
        Err(complaint) => {
            findings.wrong(complaint);
            return Vec::new();
        }
    };
    let mut networks = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let Some(word) = line.split_whitespace().next().filter(|_| !line.starts_with('#')) else { continue };
        match word.parse() {
            Ok(network) => networks.push(network),
            Err(error) => {
                findings.wrong(Complaint::at(index + 1, format!("{} is no network: {error}", shown(word))));
            }
        }
    }
    networks
}

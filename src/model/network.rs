//! A range of addresses, as networks are written.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hint::shown;

/// Addresses that begin alike: `ADDRESS/BITS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Network {
    pub address: IpAddr,
    /// How many bits of the address count: at most 32, or 128 for IPv6.
    pub bits: u8,
}

impl Network {
    /// Whether it has no more bits than its address.
    pub fn is_sound(&self) -> bool {
        self.bits <= if self.address.is_ipv4() { 32 } else { 128 }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, bits) = text.split_once('/').ok_or(NoNetwork)?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let network = Self {
            address: address.parse().map_err(|_| NoNetwork)?,
            bits: Some(bits).filter(|bits| digits(bits)).and_then(|bits| bits.parse().ok()).ok_or(NoNetwork)?,
        };
        Some(network).filter(Self::is_sound).ok_or(NoNetwork)
    }
}

/// Why a text is no [`Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write ADDRESS/BITS such as 10.0.0.0/8 or fd00::/8")]
pub struct NoNetwork;

/// The networks of a file, each with its line, or what is wrong with it: one a line, and behind it a name that nobody reads.
/// Lines that begin with `#` say nothing.
pub(crate) fn listed(text: &str) -> impl Iterator<Item = (usize, Result<Network, String>)> {
    let line = |(at, line): (usize, &str)| {
        let word = line.split_whitespace().next().filter(|word| !word.starts_with('#'))?.to_owned();
        Some((at + 1, word.parse().map_err(|error| format!("{} is no network: {error}", shown(&word)))))
    };
    text.lines().enumerate().filter_map(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_networks_is_read_line_by_line() {
        let text = "# local\n\n10.0.0.0/8 The office # of old\n  fd00::/8\n10.0.0.0\n  # more\n10.0.0.0/8# x\n";
        let got: Vec<_> = listed(text).map(|(line, read)| (line, read.map(|network| network.to_string()))).collect();
        let wrong = |line, word: &str| {
            (line, Err(format!("`{word}` is no network: write ADDRESS/BITS such as 10.0.0.0/8 or fd00::/8")))
        };
        let right = |line, network: &str| (line, Ok(network.to_owned()));
        let want = [right(3, "10.0.0.0/8"), right(4, "fd00::/8"), wrong(5, "10.0.0.0"), wrong(7, "10.0.0.0/8#")];
        assert_eq!(got, want);
    }

    #[test]
    fn networks_are_read_and_written() {
        for (text, want) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("fd00::/8", "fd00::/8"),
            ("[fd00:0::]/128", "fd00::/128"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), want);
        }
        for text in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/+8", "x/8", "10.0.0.0/8 x"] {
            assert_eq!(text.parse::<Network>(), Err(NoNetwork), "{text}");
        }
    }
}

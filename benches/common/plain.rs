//! A change of a node as whoever thinks of nothing in particular would write it down: texts, numbers, and no more.

use bincode::config;
use serde::{Deserialize, Serialize};

/// The longest that is taken, in bytes.
const LIMIT: usize = 1 << 20;
/// Of the length that stands before each.
const LENGTH: usize = 4;

#[derive(Serialize, Deserialize)]
pub struct PlainChange {
    instance: String,
    seq: u64,
    pub node: PlainNode,
    old: PlainState,
    new: PlainState,
    nanoseconds: u64,
}

#[derive(Serialize, Deserialize)]
pub struct PlainNode {
    name: String,
    role: u8,
    instance: String,
    host: String,
    interface: Option<String>,
    port: Option<u16>,
    pid: Option<u32>,
    pub restarts: u32,
}

#[derive(Serialize, Deserialize)]
enum PlainState {
    Running,
    Crashed { signal: i32 },
}

impl PlainChange {
    /// 105 bytes with its length, about as long as a change of ours.
    pub fn sample(seq: u64) -> Self {
        let instance = "agent-001.example".to_owned();
        Self {
            seq,
            node: PlainNode {
                name: format!("worker-{:05}", seq % 100),
                role: 3,
                instance: instance.clone(),
                host: "10.1.0.17".into(),
                interface: Some("af_packet::enp5s0f1".into()),
                port: Some(27_760),
                pid: Some(100_000),
                restarts: 1,
            },
            instance,
            old: PlainState::Running,
            new: PlainState::Crashed { signal: 9 },
            nanoseconds: 1_795_000_000_000_000_000 + seq,
        }
    }

    /// Appends it behind its length.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH]);
        bincode::serde::encode_into_std_write(self, out, config::standard().with_limit::<LIMIT>()).expect("it fits");
        let length = (out.len() - start - LENGTH) as u32;
        out[start..start + LENGTH].copy_from_slice(&length.to_be_bytes());
    }

    /// Reads the first one, and how long it is; `None` if it is not whole yet.
    pub fn take(bytes: &[u8]) -> Option<(Self, usize)> {
        let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
        let length = u32::from_be_bytes(*length) as usize;
        assert!(length <= LIMIT, "a frame of {length} bytes");
        let body = rest.get(..length)?;
        let decoded = bincode::serde::decode_from_slice(body, config::standard().with_limit::<LIMIT>());
        let (change, _) = decoded.expect("a change");
        Some((change, LENGTH + length))
    }
}

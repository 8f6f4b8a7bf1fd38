//! What the benchmarks share.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub mod cluster;
pub mod crowd;
pub mod daemons;
pub mod ends;
pub mod figures;
pub mod floor;
pub mod host;
pub mod keeper;
pub mod keys;
pub mod nursery;
pub mod peers;
pub mod plain;
pub mod plot;
pub mod stand_in;

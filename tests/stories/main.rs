//! Stories: real daemons, real processes, told from the outside through the command itself.

#[path = "../common/mod.rs"]
mod common;

mod archive;
mod bad_nodes;
mod bundles;
mod container;
mod crashes;
mod crowds;
mod deploy;
mod doctor;
mod document;
mod failures;
mod fleet;
mod full_disk;
mod given_up;
mod health;
mod hostile;
mod hosts;
mod import;
mod join;
mod lab;
mod limits;
mod links;
mod log;
mod network;
mod orders;
mod output;
mod peer;
mod phases;
mod plan;
mod refusals;
mod register;
mod replays;
mod returns;
mod shown;
mod steps;
mod trees;
mod trust;
mod under_systemd;
mod versions;
mod ways_back;
mod zeek;
mod zeek_channel;
mod zeek_keys;

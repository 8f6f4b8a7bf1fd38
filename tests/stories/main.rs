//! Stories: real daemons, real processes, told from the outside through the command itself.

#[path = "../common/mod.rs"]
mod common;

#[path = "../chaos/checker.rs"]
#[allow(dead_code, reason = "only a part of it is needed here")]
mod checker;

mod archive;
mod bad_nodes;
mod bundles;
mod cable;
mod container;
mod crashes;
mod crowds;
mod deploy;
mod doctor;
mod document;
mod failures;
mod fleet;
mod full_disk_at_rest;
mod full_disk_while_deploying;
mod gentle;
mod given_up;
mod health;
mod hostile;
mod hosts;
mod import;
mod join;
mod lab;
mod leaving;
mod limits;
mod links;
mod log;
mod lost_controller;
mod lost_in_the_middle;
mod network;
mod orders;
mod output;
mod peer;
mod phases;
mod plan;
mod progress;
mod refusals;
mod register;
mod replays;
mod returns;
mod shown;
mod steps;
mod terminal;
mod trees;
mod trust;
mod under_systemd;
mod versions;
mod ways_back;
mod zeek;
mod zeek_channel;
mod zeek_keys;

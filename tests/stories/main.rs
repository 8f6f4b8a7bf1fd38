//! Stories: real daemons, real processes, told from the outside through the command itself.

#[path = "../common/mod.rs"]
mod common;

mod bad_nodes;
mod crashes;
mod deploy;
mod document;
mod fleet;
mod hostile;
mod hosts;
mod join;
mod lab;
mod links;
mod log;
mod network;
mod orders;
mod output;
mod peer;
mod refusals;
mod returns;
mod trust;
mod versions;

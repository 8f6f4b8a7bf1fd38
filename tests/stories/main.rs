//! Stories: real daemons, real processes, told from the outside through the command itself.

#[path = "../common/mod.rs"]
mod common;

mod deploy;
mod fleet;
mod lab;

//! Verbs: what crosses an actor or a host.
//!
//! [`client`] is spoken between clients and the controller, [`agent`] between the controller and its agents,
//! [`node`] between an agent and its supervisors. [`frame`] turns the second into bytes and back,
//! [`frames`] keeps it as bytes. [`deployment`] is what [`agent`] says while something is deployed, and
//! [`bundle`] how it gets the files of its nodes.

pub mod agent;
pub mod bundle;
pub mod client;
pub mod deployment;
pub mod frame;
pub mod frames;
mod inspect;
pub mod join;
pub mod node;
pub mod pending;
mod planning;
pub mod silence;

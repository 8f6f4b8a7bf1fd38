//! watchpost deploys clusters of long-lived processes over many machines, keeps them alive, and tells the truth about
//! them.
//!
//! # The path
//!
//! A request travels down, news travels up, and the modules are the stations:
//!
//! ```text
//!   client                              message::client
//!     │  deploy, start, stop …   ▲
//!     ▼                          │  events
//!    web        HTTP and server-sent events
//!     │                          ▲
//!     ▼                          │  log, snapshot-then-live
//!   controller  what should be, what is, who listens
//!     │                          ▲
//!     ▼         message::agent   │  notify_change, acknowledged
//!   bridge      one TCP peer; left out where both ends are in one process
//!     │                          ▲
//!     ▼                          │
//!   agent       one per machine: order of roles, who runs, what has not arrived yet
//!     │                          ▲
//!     ▼         message::node    │  reports
//!   supervisor  one per node: launch, ready, restart, stop
//!     │                          ▲
//!     ▼                          │  exit, through a pidfd
//!   process
//! ```
//!
//! In each station `state` decides, as a pure function that is handed the time, and `actor` carries. [`model`] has the
//! nouns and [`message`] the verbs; [`plan`] decides about whole configurations; [`settings`] and [`state_dir`] are the
//! only ones that read settings and own the state directory; [`run`] puts it all together.
//!
//! # Three ways to use it
//!
//! As `watchpost lab` on one machine, as `watchpost controller` and `watchpost agent` across many, and from a program
//! of your own: [`run::start_controller`] and [`run::start_agent`] start the actors in your actix system,
//! [`run::join`] links them, and [`message::client`] has what you can ask them. `examples/embed.rs` does all of it on
//! one page:
//!
//! ```no_run
//! use watchpost::model::InstanceName;
//! use watchpost::run::{AgentOptions, ControllerOptions, join, start_agent, start_controller};
//!
//! # fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let here = InstanceName::new("here")?;
//! let controller = start_controller(ControllerOptions::new(InstanceName::new("controller")?, "state"))?;
//! let agent = start_agent(AgentOptions::new(here.clone(), "state/nodes"))?;
//! join(&controller, &agent, &here);
//! # Ok(())
//! # }
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod accept;
pub mod agent;
mod alarm;
pub mod archive;
pub mod bridge;
pub mod bundle;
pub mod cli;
pub mod controller;
pub mod doctor;
pub mod export;
mod hint;
pub mod import;
pub mod launch;
pub mod message;
pub mod model;
mod notice;
pub mod plan;
pub mod request;
mod rest;
pub mod run;
mod seldom;
pub mod settings;
mod side_by_side;
pub mod state_dir;
mod stream;
pub mod supervisor;
pub mod trust;
pub mod web;

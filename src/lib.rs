//! watchpost deploys clusters of long-lived processes over many machines, keeps them alive, and tells the truth
//! about them.

pub mod agent;
pub mod bridge;
pub mod cli;
pub mod controller;
mod hint;
pub mod launch;
pub mod message;
pub mod model;
pub mod plan;
pub mod request;
pub mod run;
pub mod settings;
pub mod state_dir;
pub mod supervisor;
pub mod web;

//! The controller: knows what should be, hears what is, and tells whoever listens.
//!
//! [`state`] decides, with [`roster`] for the instances and [`nodes`] for what is known of their nodes; [`log`] keeps
//! the news, [`observers`] who reads it; [`repeats`] who asked what twice; [`store`] what must survive, and
//! [`kept`] how it is kept in memory; [`blobs`] has the files that travel with configurations, and
//! [`files`] looks whether they are there, and `lending` reads them for agents; [`actor`] carries, and `past` looks up
//! what was deployed before.

pub mod actor;
pub mod blobs;
pub mod files;
pub mod kept;
mod lending;
pub mod log;
pub mod nodes;
pub mod observers;
mod past;
pub mod repeats;
pub mod roster;
pub mod state;
pub mod store;

pub use actor::{Controller, ControllerGone, ControllerSetup, DialInstance, LogSetup};

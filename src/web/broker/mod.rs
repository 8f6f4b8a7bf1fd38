//! Broker's JSON over WebSocket, as Zeek's own clients speak it, with nothing about what the events mean.
//!
//! [`data`] has Broker's values and [`json`] reads and writes them; [`event`] has what Zeek makes of them, and [`frame`]
//! the messages of a connection. [`host`] is what the endpoint asks of the process that it belongs to.

pub mod data;
pub mod event;
pub mod frame;
pub mod host;
pub mod json;
mod time;

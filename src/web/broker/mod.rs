//! Broker's JSON over WebSocket, as Zeek's own clients speak it, with nothing about what the events mean.
//!
//! [`data`] has Broker's values and [`json`] reads and writes them; [`event`] has what Zeek makes of them, and [`frame`]
//! the messages of a connection. A [`Hub`] knows who hears what, [`serve`] lets clients in, and a [`Host`] answers.

pub mod data;
pub mod event;
pub mod frame;
mod host;
mod hub;
mod incoming;
pub mod json;
mod outgoing;
mod server;
mod session;
mod time;

pub use data::Value;
pub use event::Event;
pub use frame::{Code, ErrorMessage, Publication};
pub use host::{Answers, Host};
pub use hub::{Hub, MOST_CLIENTS, MOST_WAITING};
pub use incoming::MAX_MESSAGE;
pub use outgoing::{MOST_BYTES, MOST_FRAMES};
pub use server::{Door, PATH, Patience, serve};

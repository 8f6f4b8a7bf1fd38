//! Broker's JSON over WebSocket: its texts, its talk, and what bad input gets.

mod client;
mod golden;
mod hostile;
mod log;
mod scene;
mod talk;
mod values;

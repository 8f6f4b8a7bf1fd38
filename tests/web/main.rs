//! The edge: the HTTP API in front of a controller that says what it is told to say, and the command in front of that.

mod access;
mod api;
mod cli;
mod fake;
mod http;
mod serve;
mod stream;
mod tls;

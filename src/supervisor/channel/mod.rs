//! What Zeek nodes say to their agent, and what it asks them: by two regular files for each life of a node, whose other side
//! is `launch/zeek/channel.zeek`. No pipe, since a pipe without a reader stalls whoever writes to it; no port, no broker.
//!
//! [`decode`] understands, [`listener`] is the thread that reads and asks, [`life`] one channel of it, [`files`] knows where the files are, [`counts`]
//! makes figures of heartbeats, and [`restraint`] decides how much of what nodes report is told.

pub mod counts;
pub mod decode;
pub mod files;
pub mod life;
pub mod listener;
pub mod restraint;

pub use decode::{Beat, Heard, Report};
pub use files::Place;
pub use life::{Answer, Question};
pub use listener::{Channels, News};

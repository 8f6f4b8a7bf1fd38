//! What of this machine would keep the promises from being kept, and the way out of it.
//!
//! [`facts`] are gathered, [`checks`] are decided over them, and [`service`] knows what systemd would do to nodes.

pub mod checks;
pub mod facts;
pub mod service;

pub use checks::{Finding, Verdict, examine};
pub use facts::{Facts, Where, gather};

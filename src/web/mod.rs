//! The edge for people and programs: HTTP ⇄ [`crate::message::client`].

//! The process behind the endpoint, which hears what clients publish and answers some of it.

use std::any::Any;

use futures_util::future::LocalBoxFuture;

use super::frame::{ErrorMessage, Publication};

/// What a host has to say to an event, once it has it.
pub type Answers = LocalBoxFuture<'static, Vec<Publication>>;

/// The hosting process, as the endpoint sees it.
///
/// Every event of every client comes by here, on whatever topic, with nothing known of who sent it: what may be obeyed
/// is for the host to know.
pub trait Host: Send + Sync + 'static {
    /// Whether the event goes round at all. Otherwise its sender is told why, and nobody else hears of it. It must not
    /// block.
    fn admit(&self, publication: &Publication) -> Result<(), ErrorMessage>;

    /// Hears an event that was admitted and has gone to the other clients. It must not block; the future is driven on
    /// the thread of the endpoint, also if the sender is gone by then.
    ///
    /// The answers are published like any event, so whoever subscribed to their topic gets them. Until the future is
    /// ready its sender counts as waiting: it is sent no pings, and only so many of its events may be under way.
    fn answer(&self, publication: Publication) -> Answers;

    /// Hears, on the thread of the endpoint, that a client has come where none was. What it returns is dropped when the
    /// last one has gone.
    fn attend(&self) -> Box<dyn Any> {
        Box::new(())
    }
}

//! What is said of an instance whose agent gave no answer. Whatever else is said of one as a whole, its agent said.

/// It was asked, and the link it was asked on is gone.
pub const LOST: &str = "the link was lost before it answered";
/// It was asked, and has a link.
pub const SILENT: &str = "did not answer in time";
/// Nobody could ask it.
pub const UNCONNECTED: &str = "its instance is not connected";
/// It has a link and is not ready.
pub const UNWELCOMED: &str = "did not answer the welcome";
/// Nobody of that name ever had a link.
pub const NEVER: &str = "never connected";
/// What a sentence begins with that says since when, and why, it has no link.
pub const AWAY: &str = "not connected since";
/// There was nobody to ask at all.
pub const NOBODY: &str = "no instances connected";
/// What was asked of several took too long.
pub const TIMED_OUT: &str = "request timed out";

/// Whether what is said of an instance is that.
pub fn is_meant_by(error: &str) -> bool {
    [LOST, SILENT, UNCONNECTED, UNWELCOMED, NEVER, NOBODY, TIMED_OUT].contains(&error) || error.starts_with(AWAY)
}

//! What is said to whoever would deploy while another deployment is under way, or upon what is not deployed any more.

use crate::model::{Outcome, RequestId};

const STILL_PENDING: &str = "still pending";
/// What begins with this is said to whoever deploys a plan of before.
pub const OVERTAKEN: &str = "the cluster has changed since this was planned";

/// That the deployment `reqid` was sooner, in the words that clients know.
pub fn refusal(reqid: &RequestId) -> Outcome {
    Outcome::failed(format!("earlier deployment {reqid} {STILL_PENDING}"))
}

/// Whether that is what is said.
pub fn is_meant_by(outcome: &Outcome) -> bool {
    outcome.error.as_deref().is_some_and(|error| error.ends_with(STILL_PENDING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_by_what_it_says_and_nothing_else_is() {
        assert!(is_meant_by(&refusal(&RequestId::new("first").unwrap())));
        assert!(!is_meant_by(&Outcome::failed("no configuration available to deploy")));
    }
}

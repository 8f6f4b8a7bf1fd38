//! Controller ⇄ agent: what a configuration would do to an agent's nodes. Part of [`super::agent`].

use serde::{Deserialize, Serialize};

use super::agent::Share;
use crate::model::{Inspection, RequestId};

/// Controller → agent: what would become of your nodes under this configuration, and what stands in the way of it?
///
/// Nothing comes of the question: no node is started, stopped or changed, no port is bound, and what is in force stays so.
/// It may be asked any number of times. Answered by [`InspectConfigurationResponse`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectConfigurationRequest {
    pub reqid: RequestId,
    /// As [`super::agent::SetConfigurationRequest`] would bring it.
    pub configuration: Share,
}

/// Agent → controller: what it found, or why it did not look. As things are at the moment: nothing keeps them so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectConfigurationResponse {
    pub reqid: RequestId,
    pub inspection: Result<Inspection, String>,
}

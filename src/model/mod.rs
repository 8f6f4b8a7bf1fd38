//! Nouns: the data that every station speaks of, checked once where it enters and trusted after.

pub mod cluster_file;
pub mod configuration;
pub mod crash;
pub mod endpoint;
pub mod name;
pub mod output;
pub mod run_as;
pub mod status;
pub mod text;
pub mod time;

pub use configuration::{Configuration, Instance, Node, Ready, ReadyBy, RestartMode, RestartPolicy, Role};
pub use crash::{CrashRules, CrashSummary};
pub use endpoint::{Endpoint, NoEndpoint};
pub use name::{ConfigurationId, InstanceName, NameError, NodeName, RequestId};
pub use output::{NoPlace, NoStream, OutputFrom, OutputPiece, OutputPlace, OutputRules, OutputStream, OutputWish};
pub use run_as::{Capability, Limit, Resource, RunAs};
pub use status::{Exit, Life, NodeState, NodeStatus, Outcome, Output};
pub use text::Text;
pub use time::{Now, Timestamp};

//! Nouns: the data that every station speaks of, checked once where it enters and trusted after.

pub mod abilities;
pub mod archive;
pub mod cluster_file;
pub mod configuration;
pub mod cpus;
pub mod crash;
pub mod curve;
pub mod deployment;
pub mod endpoint;
pub mod files;
pub mod name;
pub mod netstats;
pub mod network;
pub mod output;
pub mod planned;
pub mod quotas;
pub mod run_as;
pub mod status;
pub mod text;
pub mod time;
pub mod zeek;

pub use abilities::Abilities;
pub use archive::{ArchivePlace, ArchiveRules};
pub use configuration::{
    Configuration, Factor, Instance, Liveness, Node, Probe, ProbeBy, Ready, ReadyBy, RestartMode, RestartPolicy, Role,
};
pub use cpus::Cpus;
pub use crash::{CrashRules, CrashSummary};
pub use curve::CurveKeys;
pub use deployment::{Author, OnFailure, Record, Verdict};
pub use endpoint::{Endpoint, NoEndpoint};
pub use files::NodeFiles;
pub use name::{ConfigurationId, InstanceName, NameError, NodeName, RequestId};
pub use netstats::{Loss, NetStats, NoLoss, Packets, ZeekHealth};
pub use network::{Network, NoNetwork};
pub use output::{NoPlace, NoStream, OutputFrom, OutputPiece, OutputPlace, OutputRules, OutputStream, OutputWish};
pub use planned::{Action, Because, Inspection, Planned, PlannedPhase, PlannedStep, Step};
pub use quotas::{Bytes, CpuShare, Quota, Quotas};
pub use run_as::{Capability, Limit, Resource, RunAs};
pub use status::{Exit, Life, NodeState, NodeStatus, Outcome, Output};
pub use text::Text;
pub use time::{Now, Timestamp};
pub use zeek::{Backend, Encrypt, LayoutEntry, Peer, Surroundings, Zeek, ZeekNode};

//! An authority, and certificates for both ends of links.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use watchpost::model::{InstanceName, Timestamp};
use watchpost::trust::{Authority, Part, Trust};

use super::cluster::name;

/// The cluster of all of them.
pub const CLUSTER: &str = "bench";

/// The certificates of a controller `control`, and of agents.
pub struct Keys {
    pub control: Arc<Trust>,
    pub agents: Vec<Arc<Trust>>,
    _directory: TempDir,
}

impl Keys {
    pub fn make(agents: impl IntoIterator<Item = InstanceName>) -> Self {
        let directory = TempDir::new().expect("a directory");
        let (now, hour) = (Timestamp::now(), Duration::from_secs(3600));
        let cluster = name(CLUSTER, InstanceName::new);
        let authority = Authority::create(&directory.path().join("pki"), &cluster, now, hour).expect("an authority");
        let trust = |part, own: InstanceName| {
            let issued = authority.issue(part, &own, now, hour).expect("a certificate");
            let files = issued.write(&directory.path().join(own.as_str())).expect("its files");
            Arc::new(Trust::open(files, cluster.clone(), part, own, now).expect("what was just made"))
        };
        let control = trust(Part::Controller, name("control", InstanceName::new));
        let agents = agents.into_iter().map(|own| trust(Part::Agent, own)).collect();
        Self { control, agents, _directory: directory }
    }
}

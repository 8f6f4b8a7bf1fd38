//! What a certificate is for.

use std::fmt;
use std::str::FromStr;

use crate::model::InstanceName;

/// Whom a certificate names, as the URI `watchpost:<cluster>/<part>/<name>` among its alternative names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cluster: InstanceName,
    pub part: Part,
    pub name: InstanceName,
}

/// What its bearer is in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Issues the certificates of all others.
    Authority,
    Controller,
    /// The agent of the instance of that name.
    Agent,
    /// A client of the controller's HTTP API that may change things.
    Operator,
    /// A client that may only look.
    Observer,
}

impl Part {
    const ALL: [Self; 5] = [Self::Authority, Self::Controller, Self::Agent, Self::Operator, Self::Observer];

    fn as_str(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Controller => "controller",
            Self::Agent => "agent",
            Self::Operator => "operator",
            Self::Observer => "observer",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watchpost:{}/{}/{}", self.cluster, self.part, self.name)
    }
}

/// A URI that is no [`Identity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoIdentity;

impl FromStr for Identity {
    type Err = NoIdentity;

    fn from_str(uri: &str) -> Result<Self, NoIdentity> {
        let mut parts = uri.strip_prefix("watchpost:").ok_or(NoIdentity)?.split('/');
        let mut next = || parts.next().ok_or(NoIdentity);
        let (cluster, part, name) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(NoIdentity);
        }
        let named = |text| InstanceName::new(text).map_err(|_| NoIdentity);
        let part = Part::ALL.into_iter().find(|known| known.as_str() == part).ok_or(NoIdentity)?;
        Ok(Self { cluster: named(cluster)?, part, name: named(name)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_what_it_prints() {
        for part in Part::ALL {
            let named = |text| InstanceName::new(text).unwrap();
            let identity = Identity { cluster: named("lab:1"), part, name: named("zeek@eth0") };
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
    }

    #[test]
    fn what_is_nearly_an_identity_is_none() {
        for text in [
            "",
            "watchpost:",
            "watchpost:lab/agent",
            "watchpost:lab/agent/a/b",
            "watchpost:lab/king/a",
            "watchpost:lab/client/a",
            "watchpost:lab/agent/",
            "watchpost:lab/Agent/a",
            "watchpost://lab/agent/a",
            "https:lab/agent/a",
        ] {
            assert_eq!(text.parse::<Identity>(), Err(NoIdentity), "{text}");
        }
    }
}

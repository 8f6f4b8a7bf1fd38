//! Whom this controller can dial, and what is said of the others.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::deployment::dial;
use super::{Effect, State};
use crate::model::{Instance, InstanceName, Timestamp};

/// How far a controller dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// There is nobody to dial: all agents are in its own process, or dial it.
    Nowhere,
    /// To this machine: without certificates no link leaves it.
    Here,
    Anywhere,
}

impl Reach {
    /// Where an instance waits to be dialled and cannot be, if it does.
    fn beyond(self, instance: &Instance) -> Option<SocketAddr> {
        let address = SocketAddr::new(instance.host?, instance.port?);
        let can_be_dialled = match self {
            Self::Nowhere => false,
            Self::Here => address.ip().to_canonical().is_loopback(),
            Self::Anywhere => true,
        };
        (!can_be_dialled).then_some(address)
    }
}

impl State {
    /// Why instances that wait to be dialled cannot be reached, and what to do about it, if there are such beside those that
    /// nobody waits for.
    pub(super) fn undialled(&self, instances: &[Instance], without: &BTreeSet<InstanceName>) -> Option<String> {
        let dials = self.rules.dials;
        let awaited = instances.iter().filter(|instance| !without.contains(&instance.name));
        let undialled = awaited.filter_map(|instance| Some((&instance.name, dials.beyond(instance)?)));
        let is_lab = dials == Reach::Nowhere;
        let say = |(name, address)| if is_lab { format!("`{name}`") } else { format!("`{name}` at {address}") };
        let names: Vec<_> = undialled.map(say).collect();
        let way_out = if is_lab {
            "name instances without an address, as a lab does"
        } else {
            "without certificates links stay on this machine; make them by `watchpost pki`, or admit by `insecure = true` \
             that whoever listens there is a part of the cluster, then restart the controller"
        };
        (!names.is_empty()).then(|| format!("this controller cannot dial {}: {way_out}", names.join(", ")))
    }

    /// Why this instance, which waits to be dialled, is not, if it is not.
    pub(super) fn why_undialled(&self, instance: &Instance) -> Option<String> {
        let undialled = self.undialled(std::slice::from_ref(instance), &BTreeSet::new())?;
        Some(format!("not dialled: {undialled}"))
    }

    /// Has it dialled, if the controller is to dial it, or says why it is not.
    pub(super) fn dial(&mut self, instance: &Instance, now: Timestamp, fx: &mut Vec<Effect>) {
        let Some(why) = self.why_undialled(instance) else { return fx.extend(dial(instance)) };
        self.roster.is_not_dialled(&instance.name, &why);
        self.tell_error(&instance.name, why, now, fx);
    }
}

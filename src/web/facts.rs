//! What stands in the status and the metrics beside what the controller knows: how this process itself is reached.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::json;
use crate::message::client::GetStatusResponse;
use crate::model::Timestamp;
use crate::trust::{Certificate, Trust};

/// See the module; copies share what they know.
#[derive(Clone, Default)]
pub struct Facts {
    insecure: Arc<Mutex<BTreeMap<String, SocketAddr>>>,
    trust: Option<Arc<Trust>>,
}

impl Facts {
    /// Those of a process with these certificates, if it has some.
    pub fn new(trust: Option<Arc<Trust>>) -> Self {
        Self { trust, ..Self::default() }
    }

    /// Notes a port that is open beyond this machine and has no protection, as the settings want it.
    pub fn is_open(&self, purpose: &str, address: SocketAddr) {
        self.insecure.lock().unwrap_or_else(PoisonError::into_inner).insert(purpose.into(), address);
    }

    /// The ports that are open and not protected, by purpose.
    pub fn insecure(&self) -> BTreeMap<String, SocketAddr> {
        self.insecure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The certificate of this process, if it has one.
    pub fn certificate(&self) -> Option<Certificate> {
        self.trust.as_ref().map(|trust| trust.credentials().certificate.clone())
    }

    /// The whole status.
    pub fn status(&self, status: GetStatusResponse) -> json::Status {
        let insecure = self.insecure().into_iter();
        let certificate = self.certificate().map(|certificate| json::Certificate {
            expires: certificate.not_after.to_string(),
            due: certificate.is_due(Timestamp::now()),
        });
        json::Status {
            insecure: insecure.map(|(port, address)| json::OpenPort { port, address: address.to_string() }).collect(),
            certificate,
            ..status.into()
        }
    }
}

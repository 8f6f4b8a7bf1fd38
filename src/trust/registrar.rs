//! The office at work in a controller: one application at a time, on a thread of its own, and nobody polls.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex, watch};
use tracing::{error, info, warn};

use super::office::{Decision, Office};
use super::{Certificate, Denial, Secret, Trust};
use crate::model::{InstanceName, Timestamp};
use crate::notice::heed;

/// Decides for a running controller. What somebody else has changed on the disk counts for the next application.
pub struct Registrar {
    office: Arc<Office>,
    /// The disk serves one at a time, whatever comes at once.
    turn: Arc<Mutex<()>>,
    /// Counts the changes among the requests that wait to be signed.
    changed: Arc<watch::Sender<u64>>,
    is_watching: AtomicBool,
}

/// Brings an application before the office.
type Apply = dyn Fn(&Office) -> Result<Decision, Denial> + Send + Sync;

impl std::fmt::Debug for Registrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registrar(..)")
    }
}

/// What a new host says of itself.
#[derive(Debug, Clone)]
pub struct Application {
    pub cluster: String,
    pub name: InstanceName,
    pub secret: Secret,
    pub request: Vec<u8>,
}

impl Registrar {
    /// Keeps its registry in `directory`, for the controller with these certificates.
    pub fn new(directory: PathBuf, trust: Arc<Trust>) -> Self {
        Self {
            office: Arc::new(Office::new(directory, trust)),
            turn: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            is_watching: AtomicBool::new(false),
        }
    }

    /// Somebody says that it was invited. `waits` is called if its request has to be signed elsewhere; until then there is
    /// no answer.
    pub async fn join(
        &self,
        application: Application,
        waits: impl AsyncFnOnce(),
    ) -> Result<CertificateDer<'static>, Denial> {
        let apply = move |office: &Office| {
            let Application { cluster, name, secret, request } = &application;
            office.join(cluster, name, secret, request, Timestamp::now())
        };
        self.decide(Arc::new(apply), waits).await
    }

    /// The bearer of this certificate wants the next one. No answer comes before there is one.
    pub async fn renew(&self, bearer: Certificate, request: Vec<u8>) -> Result<Vec<u8>, String> {
        let identity = bearer.identity.clone();
        let waits = async || {
            warn!("the request of {identity} for its next certificate waits: sign it by `watchpost pki sign`");
        };
        let apply = move |office: &Office| office.renew(&bearer, &request, Timestamp::now());
        match self.decide(Arc::new(apply), waits).await {
            Ok(granted) => {
                info!("the certificate of {identity} is renewed");
                Ok(granted.to_vec())
            }
            Err(denial) => {
                warn!("the certificate of {identity} is not renewed: {denial}");
                Err(denial.to_string())
            }
        }
    }

    async fn decide(&self, apply: Arc<Apply>, waits: impl AsyncFnOnce()) -> Result<CertificateDer<'static>, Denial> {
        // From before it is first looked at, so that nothing is missed.
        let mut changed = self.changed.subscribe();
        let mut waits = Some(waits);
        loop {
            match self.decide_now(Arc::clone(&apply)).await? {
                Decision::Granted(certificate) => return Ok(certificate),
                Decision::Waiting => {}
            }
            if let Some(waits) = waits.take() {
                waits().await;
            }
            self.watch_requests();
            let _ = changed.changed().await; // its sender is ours
        }
    }

    async fn decide_now(&self, apply: Arc<Apply>) -> Result<Decision, Denial> {
        let office = Arc::clone(&self.office);
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let decided = actix_rt::task::spawn_blocking(move || {
            let _turn = turn; // until it is done, also if nobody waits for it any more
            apply(&office)
        });
        let decided = decided.await.unwrap_or_else(|panicked| {
            error!("an application for a certificate was not decided: {panicked}");
            Err(Denial::Panicked)
        });
        if let Err(Denial::Trouble(error)) = &decided {
            match std::error::Error::source(error) {
                Some(source) => error!("cannot decide on a certificate: {error}: {source}"),
                None => error!("cannot decide on a certificate: {error}"),
            }
        }
        decided
    }

    /// From the first request that waits on, whoever waits hears of changes.
    fn watch_requests(&self) {
        if self.is_watching.swap(true, Ordering::Relaxed) {
            return;
        }
        let (directory, told) = (self.office.requests(), Arc::clone(&self.changed));
        actix_rt::spawn(async move {
            heed(|| directory.clone(), || told.send_modify(|changes| *changes += 1)).await;
        });
    }
}

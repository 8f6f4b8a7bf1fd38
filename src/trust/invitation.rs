//! Open invitations: who may join, by when, and the digest of the secret that proves it. One for a name at a time.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::digest::{hex, same};
use super::registry::remove;
use super::{Registry, Secret, TrustError, files};
use crate::model::{InstanceName, Timestamp};

/// The number in front of what is kept.
const FORMAT: u32 = 1;
/// No invitation is longer than this, in bytes.
const LONGEST: u64 = 4 << 10;
/// How long it is remembered that an invitation has expired, so that whoever comes late is told so.
const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);

/// One invitation as it is kept. It holds no secret: that is in the token alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    format: u32,
    /// Whose agent may join.
    pub name: String,
    /// In microseconds since 1970.
    until: u64,
    /// How long its certificate is to be good for, in seconds.
    lifetime: u64,
    /// The SHA-256 of the secret, in hexadecimal digits.
    secret: String,
    /// The key that it was redeemed with: nobody else can redeem it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Invitation {
    /// An invitation that whoever knows this secret can redeem until then.
    pub fn new(name: &InstanceName, secret: &Secret, until: Timestamp, lifetime: Duration) -> Self {
        let (name, secret) = (name.to_string(), hex(&secret.digest()));
        Self { format: FORMAT, name, until: until.0, lifetime: lifetime.as_secs(), secret, key: None }
    }

    /// By when it has to be redeemed.
    pub fn until(&self) -> Timestamp {
        Timestamp(self.until)
    }

    /// How long the certificate is to be good for.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.lifetime)
    }

    /// Whether this is its secret.
    pub(super) fn is_proved_by(&self, secret: &Secret) -> bool {
        same(self.secret.as_bytes(), hex(&secret.digest()).as_bytes())
    }
}

impl Registry {
    /// Opens an invitation in the place of any former one of that name, and forgets those that expired long ago.
    pub fn invite(&self, invitation: &Invitation, now: Timestamp) -> Result<(), TrustError> {
        files::make_directory(self.directory())?;
        let _alone = files::lock(self.directory())?;
        files::make_directory(&self.invitations_directory())?;
        for path in files::list(&self.invitations_directory(), "json")? {
            let is_old = |old: Invitation| old.until.saturating_add(REMEMBERED.as_micros() as u64) < now.0;
            if read(&path).is_ok_and(is_old) {
                remove(&path)?;
            }
        }
        self.keep_invitation(invitation)
    }

    /// Every invitation that is open, redeemed, or expired not long ago, sorted by name; and what cannot be read.
    pub fn invitations(&self) -> Result<(Vec<Invitation>, Vec<TrustError>), TrustError> {
        let (mut all, mut odd) = (Vec::new(), Vec::new());
        for path in files::list(&self.invitations_directory(), "json")? {
            match read(&path) {
                Ok(invitation) => all.push(invitation),
                Err(error) => odd.push(error),
            }
        }
        Ok((all, odd))
    }

    /// The invitation of that name, if there is one.
    pub(super) fn invitation(&self, name: &InstanceName) -> Result<Option<Invitation>, TrustError> {
        let path = self.invitation_file(name);
        match path.symlink_metadata() {
            Ok(_) => read(&path).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Keeps it as it is now. The caller holds the lock.
    pub(super) fn keep_invitation(&self, invitation: &Invitation) -> Result<(), TrustError> {
        let path = self.invitations_directory().join(format!("{}.json", invitation.name));
        let json = serde_json::to_string_pretty(invitation);
        let json = json.map_err(|error| TrustError::Write { path: path.clone(), source: error.into() })?;
        files::write(&path, format!("{json}\n").as_bytes(), 0o600)
    }

    /// Whether there was one of that name, which there is no more.
    pub(super) fn withdraw_invitation(&self, name: &InstanceName) -> Result<bool, TrustError> {
        remove(&self.invitation_file(name))
    }

    fn invitations_directory(&self) -> PathBuf {
        self.directory().join("invitations")
    }

    fn invitation_file(&self, name: &InstanceName) -> PathBuf {
        self.invitations_directory().join(format!("{name}.json"))
    }
}

fn read(path: &std::path::Path) -> Result<Invitation, TrustError> {
    let damaged = |why: String| TrustError::Damaged { path: path.to_owned(), why };
    let (bytes, _) = files::read(path, LONGEST)?;
    let invitation: Invitation = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    match invitation.format {
        FORMAT => Ok(invitation),
        other => Err(damaged(format!("it is of format {other}, and this release knows {FORMAT}"))),
    }
}

//! Blobs that nobody names any more are removed.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use super::disk;
use super::{BlobError, Blobs};
use crate::bundle::disk as files;
use crate::bundle::{BundleId, Digest};

/// How long a blob stays that nobody names: a plan that was saved can be carried out a day later, and what is sent now is named
/// only once all of it is here.
pub const STAYS: Duration = Duration::from_secs(24 * 60 * 60);

impl Blobs {
    /// Removes what is in none of these bundles and was not used since [`STAYS`], and says how many that were. Where the list
    /// of one cannot be read nothing is removed.
    pub fn collect(&self, named: &BTreeSet<BundleId>, now: SystemTime) -> Result<usize, BlobError> {
        let mut kept: BTreeSet<Digest> = BTreeSet::new();
        for bundle in named {
            match self.list(*bundle) {
                Ok(manifest) => kept.extend(manifest.files().map(|(_, _, digest)| digest)),
                // Nobody can fetch the rest of it either.
                Err(BlobError::Absent(_) | BlobError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
            kept.insert(bundle.digest());
        }
        let directory = &self.0.directory;
        let failed = |source| self.wrong_with(directory, source);
        let mut removed = 0;
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some((digest, is_part)) = files::blob_of(name) else { continue };
            let is_old = disk::used(&path).is_ok_and(|used| now.duration_since(used).is_ok_and(|since| since >= STAYS));
            // Under the lock, so that nobody finds it whole, or goes on with it, at this moment.
            let mut known = self.known();
            let is_sent = is_part && known.senders.contains_key(&digest);
            if is_old && !is_sent && (is_part || !kept.contains(&digest)) {
                disk::remove(&path).map_err(failed)?;
                known.whole.remove(&digest);
                removed += 1;
            }
        }
        Ok(removed)
    }
}

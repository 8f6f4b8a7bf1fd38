//! Why certificates cannot be made or used.

use std::io;
use std::path::PathBuf;

use super::{Identity, Part};
use crate::model::{InstanceName, Timestamp};

/// See the module. No text repeats anything of a key.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("cannot read {}, which should be one of the files that `watchpost pki` makes", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is longer than {longest} bytes: it is none of the files that `watchpost pki` makes", path.display())]
    TooLong { path: PathBuf, longest: u64 },
    #[error("cannot read {}, which should be the tokens that `watchpost token` keeps: move it away, and make new ones", path.display())]
    ReadTokens { path: PathBuf, source: io::Error },
    #[error("{} would be longer than {longest} bytes: end some tokens by `watchpost token revoke NAME`", path.display())]
    TooManyTokens { path: PathBuf, longest: u64 },
    #[error("cannot look into {}: name the controller's state directory by --state-dir", path.display())]
    NoStateDir { path: PathBuf, source: io::Error },
    #[error("{} belongs to user {owner}, and this process is user {us}: run this as user {owner}, who runs the controller", path.display())]
    Foreign { path: PathBuf, owner: u32, us: u32 },
    #[error("there is no token of `{0}`: `watchpost token list` shows all that are kept")]
    NoToken(InstanceName),
    #[error("cannot write {}: the disk may be full, read-only, or another user's", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is there already: an authority is made once; to begin anew, move the directory away", path.display())]
    Exists { path: PathBuf },
    #[error("there is no authority in {}: make one by `watchpost pki init`", directory.display())]
    NoAuthority { directory: PathBuf },
    #[error("{} holds no {what} in PEM form", path.display())]
    NotPem { path: PathBuf, what: &'static str },
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("{} can be read by others (mode {mode:o}): run `chmod 600 {}`", path.display(), path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("the key {} does not belong to the certificate {}", key.display(), certificate.display())]
    KeyMismatch { key: PathBuf, certificate: PathBuf },
    #[error("{} was not issued by the authority of {}: take all three files from one `pki issue`", certificate.display(), ca.display())]
    OtherAuthority { certificate: PathBuf, ca: PathBuf },
    #[error("{} is the certificate of {} `{}` in cluster `{}`, and this is {} `{}` in cluster `{}`", path.display(), found.part, found.name, found.cluster, ours.part, ours.name, ours.cluster)]
    NotOurs { path: PathBuf, found: Box<Identity>, ours: Box<Identity> },
    #[error("{} is the certificate of {} `{}`, and a client needs one by `watchpost pki issue client NAME`", path.display(), found.part, found.name)]
    NoClient { path: PathBuf, found: Identity },
    #[error("{} expired at {at}: issue a new one by `watchpost pki issue`", path.display())]
    Expired { path: PathBuf, at: Timestamp },
    #[error("the authority of {} expired at {at} and can vouch for nobody: make another by `watchpost pki init`, in another directory", directory.display())]
    AuthorityExpired { directory: PathBuf, at: Timestamp },
    #[error("a certificate cannot be good for so long: the last year that it can name is 9999")]
    TooFar,
    #[error("{} is the key of somebody else: choose another directory by --out, or move it away", path.display())]
    Occupied { path: PathBuf },
    #[error("`{0}` is neither an address nor a host name")]
    Host(String),
    #[error(
        "no certificate was ever issued to {part} `{name}`, nor an invitation: `watchpost pki show` and `watchpost invite --list` name all that were"
    )]
    NeverIssued { part: Part, name: InstanceName },
    #[error("{} is the authority of cluster `{found}`, and this controller is of `{cluster}`, or of another authority of that name", directory.display())]
    NotOurAuthority { directory: PathBuf, found: InstanceName, cluster: InstanceName },
    #[error("a certificate could not be made: {0}")]
    Making(#[from] rcgen::Error),
    #[error("the certificates cannot be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the system has no random bytes to give: {0}")]
    Random(getrandom::Error),
}

//! Who is who: the cluster's authority, the certificates it issues, and what either end of a link makes of them.
//!
//! [`Authority`] makes certificates, each for one [`Identity`]: an agent's names its instance, and lets it speak for that
//! instance alone. [`Trust`] is one process's own certificate with its key and the authority's certificate, read from
//! three files, and again whenever they change. TLS 1.3 only, both ends show a certificate, and no session is resumed, so
//! each link is judged anew. A list beside the files names the certificates that were taken back: links of theirs end as
//! soon as it does.
//!
//! A new host gets its certificate for a [`Token`], and every process has its own renewed in time: both ask the
//! controller, whose [`Registrar`] decides by what its [`Registry`] remembers. A key never leaves the machine it is for.

mod access;
mod authority;
mod certificate;
mod complaint;
mod credentials;
mod curve;
mod digest;
mod error;
mod files;
mod home;
mod identity;
mod invitation;
mod invited;
mod office;
mod peers;
mod registrar;
mod registry;
mod renewal;
mod replace;
mod request;
mod revoked;
mod signatures;
mod token;
pub mod tokens;
mod visitors;
mod watch;

pub use access::Access;
pub use authority::{Authority, Issued};
pub use certificate::Certificate;
pub(crate) use complaint::{complaint, refuses_us};
pub use credentials::{Credentials, Held, JOIN_PROTOCOL, Trust};
pub use curve::CurveRoot;
pub use digest::DIGEST;
pub use error::TrustError;
pub(crate) use files::Stamp;
pub use files::TrustFiles;
pub use home::{Home, Whereabouts};
pub use identity::{Identity, Part};
pub use invitation::Invitation;
pub use invited::{NotTheAuthority, joining};
pub use office::{Denial, Waiting, invite, requests};
pub use registrar::{Application, Registrar};
pub use registry::{Ledger, Registry, Revocation};
pub use renewal::keep_renewed;
pub use request::{LONGEST_REQUEST, Request};
pub use token::{MOST_ADDRESSES, SECRET, Secret, Token, TokenError};
pub use visitors::{Visit, for_strangers};

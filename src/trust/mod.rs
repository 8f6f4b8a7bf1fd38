//! Who is who: the cluster's authority, the certificates it issues, and what either end of a link makes of them.
//!
//! [`Authority`] makes certificates, each for one [`Identity`]: an agent's names its instance, and lets it speak for that
//! instance alone. [`Trust`] is one process's own certificate with its key and the authority's certificate, read from
//! three files, and again whenever they change. TLS 1.3 only, both ends show a certificate, and no session is resumed, so
//! each link is judged anew. A list beside the files names the certificates that were taken back: links of theirs end as
//! soon as it does.

mod access;
mod authority;
mod certificate;
mod complaint;
mod credentials;
mod error;
mod files;
mod identity;
mod peers;
mod revoked;
pub mod tokens;
mod visitors;
mod watch;

pub use access::Access;
pub use authority::{Authority, Issued};
pub use certificate::Certificate;
pub(crate) use complaint::{complaint, refuses_us};
pub use credentials::{Credentials, Held, Trust};
pub use error::TrustError;
pub(crate) use files::Stamp;
pub use files::TrustFiles;
pub use identity::{Identity, Part};
pub use visitors::{Visit, for_strangers};

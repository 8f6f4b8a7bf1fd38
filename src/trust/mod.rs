//! Who is who: the cluster's authority, the certificates it issues, and what either end of a link makes of them.
//!
//! [`Authority`] makes certificates, each for one [`Identity`]: an agent's names its instance, and lets it speak for that
//! instance alone. [`Trust`] is one process's own certificate with its key and the authority's certificate, read from
//! three files, and again whenever they change. TLS 1.3 only, both ends show a certificate, and no session is resumed,
//! so what is said of a certificate at the beginning of a link holds for all of it.

mod authority;
mod certificate;
mod credentials;
mod error;
mod files;
mod identity;
mod peers;

pub use authority::{Authority, Issued};
pub use certificate::Certificate;
pub use credentials::{Credentials, Trust};
pub use error::TrustError;
pub use files::TrustFiles;
pub use identity::{Identity, Part};

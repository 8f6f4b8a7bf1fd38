//! Files that travel with a configuration: site scripts, packages, lists.
//!
//! What a node gets is a [`Manifest`]: which files and directories, how each is called, what may be done with it, and the
//! [`Digest`] of what is in it. A manifest is named by the digest of itself, so equal names promise equal contents all the
//! way down. Manifests and contents alike are blobs: pieces of bytes that are asked for, and checked, by their digest.

mod diff;
pub(crate) mod disk;
mod id;
mod manifest;
mod scan;
mod store;
pub mod tree;

pub use diff::{Changed, How};
pub use id::{BundleId, Digest, Digester, NoBundle, NoDigest};
pub use manifest::{BundlePath, Entry, Kind, Manifest, ManifestError, NoPath};
pub use scan::{FoundFile, Scan, scan};
pub use store::{Incoming, Store, StoreError};

/// How many files and directories a bundle may have: some packages, and not a file system.
pub const MOST_ENTRIES: usize = 10_000;
/// How long a file of a bundle may be, in bytes: a list of some million addresses.
pub const LONGEST_FILE: u64 = 256 << 20;
/// How much may be in all files of a bundle together, in bytes.
pub const LARGEST_BUNDLE: u64 = 512 << 20;
/// How long a manifest may be, encoded, in bytes: room for as many entries as there may be, with paths of usual length.
pub const LONGEST_MANIFEST: usize = 4 << 20;
/// How long a path within a bundle may be, in bytes.
pub const LONGEST_PATH: usize = 1024;
/// How long one name in it may be, in bytes: no file system takes longer ones.
pub const LONGEST_NAME: usize = 255;
/// How many names a path may have.
pub const DEEPEST_PATH: usize = 32;

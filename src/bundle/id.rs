//! What names a piece of bytes: its digest.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256};
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

/// How many bytes a digest has.
const BYTES: usize = 32;

/// The SHA-256 of a piece of bytes. In text: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; BYTES]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digester = Digester::new();
        digester.update(bytes);
        digester.finish()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It names a file, and of these there are many.
        let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
        let text: String = self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        f.pad(&text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let (digits, rest) = text.as_bytes().as_chunks::<2>();
        if digits.len() != BYTES || !rest.is_empty() {
            return Err(NoDigest);
        }
        let mut bytes = [0; BYTES];
        for (byte, [high, low]) in bytes.iter_mut().zip(digits) {
            *byte = 16 * value(*high)? + value(*low)?;
        }
        Ok(Self(bytes))
    }
}

/// Lower case alone: so one digest has one text.
fn value(digit: u8) -> Result<u8, NoDigest> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(NoDigest),
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(self),
            false => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.is_human_readable() {
            true => String::deserialize(deserializer)?.parse().map_err(D::Error::custom),
            false => <[u8; BYTES]>::deserialize(deserializer).map(Self),
        }
    }
}

/// Why a text is no [`Digest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write 64 hexadecimal digits, in lower case")]
pub struct NoDigest;

/// Makes the digest of bytes that come in pieces.
#[derive(Clone)]
pub struct Digester(Context);

impl Digester {
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Digest {
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Digest(bytes)
    }
}

impl Default for Digester {
    fn default() -> Self {
        Self::new()
    }
}

/// Names a bundle: the digest of its manifest. In text: `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleId(Digest);

impl BundleId {
    /// How a text of one begins.
    const PREFIX: &str = "sha256:";

    /// The bundle whose manifest has this digest.
    pub fn new(manifest: Digest) -> Self {
        Self(manifest)
    }

    /// The digest of its manifest, by which that is asked for.
    pub fn digest(self) -> Digest {
        self.0
    }
}

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0)
    }
}

impl FromStr for BundleId {
    type Err = NoBundle;

    fn from_str(text: &str) -> Result<Self, NoBundle> {
        let digest = text.strip_prefix(Self::PREFIX).and_then(|digits| digits.parse().ok());
        digest.map(Self).ok_or(NoBundle)
    }
}

impl Serialize for BundleId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(self),
            false => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for BundleId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.is_human_readable() {
            true => String::deserialize(deserializer)?.parse().map_err(D::Error::custom),
            false => Digest::deserialize(deserializer).map(Self),
        }
    }
}

/// Why a text is no [`BundleId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write `sha256:` and 64 hexadecimal digits, in lower case")]
pub struct NoBundle;

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_digest_is_the_one_that_everybody_knows_in_one_piece_or_many() {
        assert_eq!(Digest::of(b"abc").to_string(), OF_ABC);
        let mut digester = Digester::new();
        b"abc".iter().for_each(|byte| digester.update(&[*byte]));
        assert_eq!(digester.finish(), Digest::of(b"abc"));
    }

    #[test]
    fn a_digest_has_one_text_and_that_text_one_digest() {
        assert_eq!(OF_ABC.parse(), Ok(Digest::of(b"abc")));
        let upper = OF_ABC.to_uppercase();
        for wrong in ["", "00", &OF_ABC[1..], &format!("{OF_ABC}0"), &format!("{OF_ABC}00"), &upper, "ä"] {
            assert_eq!(wrong.parse::<Digest>(), Err(NoDigest), "{wrong}");
        }
    }

    #[test]
    fn a_bundle_is_named_with_how_that_was_made() {
        let text = format!("sha256:{OF_ABC}");
        assert_eq!(text.parse::<BundleId>().map(|id| id.to_string()), Ok(text.clone()));
        let id: BundleId = text.parse().unwrap();
        assert_eq!(serde_json::to_value(id).unwrap(), text, "and so wherever people read it");
        assert_eq!(serde_json::from_value::<BundleId>(text.into()).unwrap(), id);
        for wrong in [OF_ABC, "sha256:", "sha1:00", "SHA256:00"] {
            assert_eq!(wrong.parse::<BundleId>(), Err(NoBundle), "{wrong}");
        }
    }
}

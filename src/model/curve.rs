//! The keys by which the nodes of a Zeek cluster encrypt what they say to one another with ZeroMQ, in the form that ZeroMQ
//! writes them in. Who makes them is [`crate::trust::CurveRoot`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a cluster's nodes know: its hub and its loggers are servers, and each of its nodes is a client of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurveKeys {
    pub server: KeyPair,
    pub client: KeyPair,
}

/// A key for everybody, and one for its bearer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    pub public: PublicKey,
    pub secret: SecretKey,
}

/// One that anybody may know.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; LENGTH]);

/// One that nobody else may know: no text of it is made but by [`SecretKey::z85`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretKey(pub [u8; LENGTH]);

const LENGTH: usize = 32;

impl PublicKey {
    /// As ZeroMQ writes it.
    pub fn z85(&self) -> String {
        z85(&self.0)
    }
}

impl SecretKey {
    /// As ZeroMQ writes it: for the environment of a node, and for nothing that anybody else reads.
    pub fn z85(&self) -> String {
        z85(&self.0)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.z85())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Five digits of base 85 for each four bytes, the first byte the highest.
fn z85(bytes: &[u8; LENGTH]) -> String {
    const DIGITS: &[u8; 85] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    let (blocks, _) = bytes.as_chunks::<4>();
    let digits = blocks.iter().flat_map(|block| {
        let number = u32::from_be_bytes(*block);
        [52_200_625, 614_125, 7_225, 85, 1].map(|power| char::from(DIGITS[(number / power % 85) as usize]))
    });
    digits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ZeroMQ's own example of Z85, in the place of the first eight bytes.
    #[test]
    fn bytes_are_written_as_zeromq_writes_them() {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&[0x86, 0x4f, 0xd2, 0x6f, 0xb5, 0x59, 0xf7, 0x5b]);
        bytes[28..].copy_from_slice(&[0xff; 4]);
        assert_eq!(z85(&bytes), "HelloWorld0000000000000000000000000%nSc0");
    }

    #[test]
    fn a_secret_key_shows_itself_in_no_text_for_people() {
        let pair = KeyPair { public: PublicKey([1; LENGTH]), secret: SecretKey([2; LENGTH]) };
        let text = format!("{:?}", CurveKeys { server: pair.clone(), client: pair.clone() });
        assert!(text.contains(&pair.public.z85()) && !text.contains(&pair.secret.z85()), "{text}");
        assert!(!text.contains("2, 2"), "{text}");
    }
}

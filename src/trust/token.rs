//! What is handed to a new host so that it may join: one word, which says where to go, whom to believe, and a secret.
//!
//! `wpjoin1_` and then, in the digits a-z and 2-7 of base 32: cluster, name, the SHA-256 of the authority's certificate,
//! the secret, the controller's addresses, and a CRC-32 of all that. The 1 is the version of the format.

use std::fmt;
use std::str::FromStr;

use super::digest::{DIGEST, sha256};
use super::{Identity, Part, TrustError};
use crate::model::{Endpoint, InstanceName};

/// The bytes of a secret: nobody guesses 160 bits.
pub const SECRET: usize = 20;
/// How many addresses a token may carry.
pub const MOST_ADDRESSES: usize = 8;
/// No token is longer than this, in characters.
const LONGEST: usize = 8192;

const PREFIX: &str = "wpjoin";
const FORMAT: &str = "1";
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What only whoever was invited knows. Its `Debug` does not tell it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(crate) [u8; SECRET]);

impl Secret {
    /// A new one, by chance.
    pub fn random() -> Result<Self, TrustError> {
        let mut bytes = [0; SECRET];
        getrandom::fill(&mut bytes).map_err(TrustError::Random)?;
        Ok(Self(bytes))
    }

    /// What may be kept of it.
    pub(super) fn digest(&self) -> [u8; DIGEST] {
        sha256(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub cluster: InstanceName,
    /// The instance whose agent is invited.
    pub name: InstanceName,
    /// The SHA-256 of the authority's certificate.
    pub authority: [u8; DIGEST],
    pub secret: Secret,
    /// Where the controller listens for agents, the first to be tried first; at least one.
    pub addresses: Vec<Endpoint>,
}

/// Why a text is no token. Never repeats any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("this is no token of `watchpost invite`, which begins with {PREFIX}{FORMAT}_")]
    NoToken,
    #[error("the token is of another format than this release knows: run the same release of watchpost at both ends")]
    OtherFormat,
    #[error("there is a slip in the token, such as a character too few: copy it anew, as a whole")]
    Slip,
}

impl Token {
    /// Whom it invites.
    pub fn identity(&self) -> Identity {
        Identity { cluster: self.cluster.clone(), part: Part::Agent, name: self.name.clone() }
    }

    /// The token as one word. It is as secret as what it carries.
    pub fn reveal(&self) -> String {
        let mut bytes = Vec::new();
        let mut text = |text: &str| {
            bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            bytes.extend(text.bytes().take(u8::MAX.into()));
        };
        text(self.cluster.as_str());
        text(self.name.as_str());
        self.addresses.iter().take(MOST_ADDRESSES).for_each(|address| text(&address.to_string()));
        text("");
        bytes.extend(self.authority);
        bytes.extend(self.secret.0);
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        format!("{PREFIX}{FORMAT}_{}", base32(&bytes))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(TokenError::NoToken)?;
        let (format, digits) = rest.split_once('_').ok_or(TokenError::NoToken)?;
        if format.is_empty() || !format.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(TokenError::NoToken);
        }
        if format != FORMAT {
            return Err(TokenError::OtherFormat);
        }
        let bytes = from_base32(digits).ok_or(TokenError::Slip)?;
        let (bytes, crc) = bytes.split_last_chunk::<4>().ok_or(TokenError::Slip)?;
        if crc32fast::hash(bytes).to_be_bytes() != *crc {
            return Err(TokenError::Slip);
        }
        // Whole, and still nobody's word: whoever made it up can make up the sum.
        Self::read(bytes).ok_or(TokenError::Slip)
    }
}

impl Token {
    fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut text = || {
            let (&length, rest) = bytes.split_first()?;
            let (text, rest) = rest.split_at_checked(length.into())?;
            bytes = rest;
            std::str::from_utf8(text).ok()
        };
        let cluster = InstanceName::new(text()?).ok()?;
        let name = InstanceName::new(text()?).ok()?;
        let mut addresses = Vec::new();
        while let Some(address) = text().filter(|text| !text.is_empty()) {
            addresses.push(address.parse().ok()?);
        }
        let (authority, rest) = bytes.split_first_chunk()?;
        let (secret, rest) = rest.split_first_chunk()?;
        let is_sound = rest.is_empty() && (1..=MOST_ADDRESSES).contains(&addresses.len());
        is_sound.then_some(Self { cluster, name, authority: *authority, secret: Secret(*secret), addresses })
    }
}

/// Five bits a digit, the last one filled up with zeros.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(5) {
        let mut block = [0; 8];
        block[3..3 + chunk.len()].copy_from_slice(chunk);
        let block = u64::from_be_bytes(block);
        let digits = (chunk.len() * 8).div_ceil(5);
        text.extend((0..digits).map(|at| char::from(DIGITS[(block >> (35 - 5 * at) & 31) as usize])));
    }
    text
}

/// The way back; `None` for what [`base32`] does not make. Capital letters will do.
fn from_base32(text: &str) -> Option<Vec<u8>> {
    if text.len() > LONGEST {
        return None;
    }
    let mut bytes = Vec::new();
    for chunk in text.to_ascii_lowercase().as_bytes().chunks(8) {
        let mut block: u64 = 0;
        for (at, digit) in chunk.iter().enumerate() {
            let value = DIGITS.iter().position(|known| known == digit)? as u64;
            block |= value << (35 - 5 * at);
        }
        let whole = chunk.len() * 5 / 8;
        bytes.extend_from_slice(&block.to_be_bytes()[3..3 + whole]);
    }
    (base32(&bytes) == text.to_ascii_lowercase()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        Token {
            cluster: InstanceName::new("site").unwrap(),
            name: InstanceName::new("sensor-1").unwrap(),
            authority: [7; DIGEST],
            secret: Secret([0xa5; SECRET]),
            addresses: ["192.0.2.10:2150", "[2001:db8::1]:2150", "control.example:2150"]
                .map(|address| address.parse().unwrap())
                .into(),
        }
    }

    #[test]
    fn a_token_is_one_word_and_reads_back() {
        let word = token().reveal();
        assert!(word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{word}");
        assert_eq!(word.parse(), Ok(token()));
        assert_eq!(format!(" {word}\n").parse(), Ok(token()));
    }

    #[test]
    fn a_slip_is_told_as_a_slip_wherever_it_is() {
        let word = token().reveal();
        let begin = word.find('_').unwrap() + 1;
        for at in begin..word.len() {
            let other = if word.as_bytes()[at] == b'a' { "b" } else { "a" };
            let mut changed = word.clone();
            changed.replace_range(at..=at, other);
            assert_eq!(changed.parse::<Token>(), Err(TokenError::Slip), "at {at}");
            changed.remove(at);
            assert_eq!(changed.parse::<Token>(), Err(TokenError::Slip), "without {at}");
            assert_eq!(word[..at].parse::<Token>(), Err(TokenError::Slip), "cut at {at}");
        }
    }

    #[test]
    fn what_is_no_token_or_of_another_format_is_told_so() {
        for text in ["", "sensor-1", "wpjoin", "wpjoin_abc", "wpjoinx_abc", "/etc/passwd"] {
            assert_eq!(text.parse::<Token>(), Err(TokenError::NoToken), "{text}");
        }
        assert_eq!("wpjoin2_abc".parse::<Token>(), Err(TokenError::OtherFormat));
        assert_eq!("wpjoin1_abc1".parse::<Token>(), Err(TokenError::Slip));
    }

    #[test]
    fn a_token_tells_its_secret_only_when_it_is_asked_to() {
        let shown = format!("{:?}", token());
        assert!(shown.contains("Secret(..)") && !shown.contains("165"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_from_their_digits(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(from_base32(&base32(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(wpjoin1_)?[a-z2-7_é]{0,200}") {
            let _ = text.parse::<Token>();
        }
    }
}

//! Names and identifiers: checked when they are made, cheap to copy after.
//!
//! Node and instance names become directories, environment markers and log fields, so their alphabet is narrow.
//! Request and configuration identifiers are chosen by clients and are only kept short and printable.
//!
//! Up to 23 bytes, as most are, they stand where they are kept: nothing is looked for to copy or compare them, and no
//! memory is in pieces because of them. Longer ones share theirs.

use std::borrow::Borrow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use smol_str::SmolStr;

use super::text::shared;

/// What is no longer needs no memory of its own, in bytes.
const SHORT: usize = 23;

/// The longest name of an instance or a node, in bytes.
pub const MAX_NAME: usize = 128;
/// The longest request or configuration identifier, in bytes.
pub const MAX_ID: usize = 256;

/// Why a text cannot be a name or an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{text}` {why}")]
pub struct NameError {
    /// What the text was meant to be, such as `node name`.
    pub what: &'static str,
    /// The text, shortened to 64 characters.
    pub text: String,
    /// What is wrong with it, and what would be right.
    pub why: &'static str,
}

fn check_name(text: &str) -> Result<(), &'static str> {
    let first = text.bytes().next().ok_or("is empty")?;
    if text.len() > MAX_NAME {
        return Err("is longer than 128 bytes");
    }
    if !first.is_ascii_alphanumeric() && first != b'_' {
        return Err("must begin with a letter, a digit or `_`");
    }
    match text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@:+".contains(&b)) {
        true => Ok(()),
        false => Err("may hold only letters, digits and . _ - @ : +"),
    }
}

fn check_id(text: &str) -> Result<(), &'static str> {
    if text.len() > MAX_ID {
        return Err("is longer than 256 bytes");
    }
    match text.chars().any(char::is_control) {
        true => Err("holds a control character"),
        false => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks `text` and makes it a name; the error says what is wrong and what is allowed.
            pub fn new(text: &str) -> Result<Self, NameError> {
                match $check(text) {
                    Ok(()) if text.len() <= SHORT => Ok(Self(text.into())),
                    Ok(()) => Ok(Self(shared(text).into())),
                    Err(why) => Err(NameError { what: $what, text: text.chars().take(64).collect(), why }),
                }
            }

            /// The text as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a ", $what))
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

name!(
    /// The name of an instance: one machine with one agent.
    InstanceName, "instance name", check_name
);
name!(
    /// The name of a node: one process on an instance. Unique in its cluster.
    NodeName, "node name", check_name
);
name!(
    /// Ties an answer to its request. Chosen by whoever asks; may be empty where no answer is awaited.
    RequestId, "request id", check_id
);
name!(
    /// Names one version of a configuration. Equal ids promise equal contents.
    ConfigurationId, "configuration id", check_id
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for text in ["", ".", "..", "a/b", "-rf", "a b", "a\0b", "ü", &"x".repeat(129)] {
            assert!(NodeName::new(text).is_err(), "{text:?}");
        }
        for text in ["worker-1", "agent-host.example", "_x", "9", "zeek@eth0:1"] {
            assert_eq!(NodeName::new(text).map(|name| name.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_name_takes_no_more_room_than_it_needs_and_reads_as_it_was_given_however_long() {
        assert_eq!(size_of::<Option<NodeName>>(), 24);
        for length in [1, SHORT, SHORT + 1, MAX_NAME] {
            let text = "x".repeat(length);
            let name = NodeName::new(&text).unwrap();
            assert_eq!((name.as_str(), name.clone()), (&*text, NodeName::new(&text).unwrap()));
            assert_eq!(SmolStr::new(&text).is_heap_allocated(), length > SHORT);
        }
    }

    #[test]
    fn a_bad_name_is_refused_while_it_is_decoded() {
        let error = serde_json::from_str::<NodeName>("\"../etc\"").unwrap_err();
        assert!(error.to_string().contains("must begin with a letter"), "{error}");
    }
}

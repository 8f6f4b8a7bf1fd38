//! Texts that are said once and kept in many places: copies share one piece of memory.
//!
//! Names and reasons come again and again, also from other processes. So whatever is made from bytes is first looked
//! for among the last ones that this thread made: then it costs no memory of its own, here and wherever it is kept.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// How many texts a thread remembers.
const REMEMBERED: usize = 256;
/// Longer ones are hardly ever said again.
const LONGEST: usize = 128;

thread_local! {
    static LAST_ONES: RefCell<[Option<Arc<str>>; REMEMBERED]> = const { RefCell::new([const { None }; REMEMBERED]) };
}

/// `text`, shared with the last equal one if this thread still remembers that.
pub(super) fn shared(text: &str) -> Arc<str> {
    if text.len() > LONGEST {
        return text.into();
    }
    LAST_ONES.with_borrow_mut(|last_ones| {
        let place = &mut last_ones[place_of(text.as_bytes())];
        match place {
            Some(known) if **known == *text => Arc::clone(known),
            _ => Arc::clone(place.insert(text.into())),
        }
    })
}

/// Names tend to differ at their ends. Texts that meet in one place only push each other out.
fn place_of(bytes: &[u8]) -> usize {
    let number = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first).rotate_left(29) ^ u64::from_le_bytes(*last),
        _ => bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
    };
    let mixed = (number ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as usize % REMEMBERED
}

/// A text for people, such as the reason of a change.
///
/// One without a letter is none at all: it is made and compared for each change of a node, and the C library takes longer
/// to compare nothing with nothing, where that has no place in memory, than to compare long texts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Text(Option<Arc<str>>);

impl Text {
    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self((!text.is_empty()).then(|| shared(text)))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&Self> for Text {
    fn from(text: &Self) -> Self {
        text.clone()
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_str().into()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0.as_deref().map_or(other.is_empty(), |text| text == other)
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(text.into())
            }
        }
        deserializer.deserialize_str(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_comes_again_is_the_same_one() {
        for text in ["", "ready", "killed by signal 9 (SIGKILL)", "worker-00001"] {
            let (one, other) = (Text::from(text), Text::from(text.to_owned()));
            assert_eq!((one.as_str(), one.as_ptr() == other.as_ptr()), (text, true), "{text}");
        }
    }

    #[test]
    fn a_text_without_a_letter_is_like_any_other() {
        let (none, some) = (Text::default(), Text::from("a"));
        assert_eq!((none.as_str(), &none), ("", &Text::from(String::new())));
        assert!(none == *"" && none != *"a" && some != *"" && none < some);
        let known = std::collections::HashSet::from([none, some]);
        assert!(known.contains("") && known.contains("a") && !known.contains("b"));
    }

    #[test]
    fn texts_that_meet_in_one_place_are_still_told_apart() {
        let texts: Vec<_> = (0..10_000).map(|number| format!("worker-{number:05} on sensor")).collect();
        let made: Vec<_> = texts.iter().map(|text| Text::from(text.as_str())).collect();
        assert!(made.iter().zip(&texts).all(|(made, text)| made == text.as_str()));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let long = "x".repeat(LONGEST + 1);
        assert!(!Arc::ptr_eq(&shared(&long), &shared(&long)), "a long one is nobody's to remember");
        let made: Vec<_> = (0..100_000).map(|number: u32| shared(&number.to_string())).collect();
        let kept = made.iter().filter(|text| Arc::strong_count(text) > 1).count();
        assert!(kept <= REMEMBERED, "{kept}");
    }

    #[test]
    fn a_text_reads_back_as_it_was() {
        let text = Text::from("exited with status 3: \"no\"\n");
        let json = serde_json::to_string(&text).unwrap();
        assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), text);
        assert_eq!(json, serde_json::to_string(text.as_str()).unwrap());
    }
}

//! The messages of a connection: the client's list of topics, the acknowledgement, data and errors.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::event::Event;
use super::json::{self, DecodeError, Field, Parts, put, put_text};

/// The most topics that one client may ask for.
pub const MOST_TOPICS: usize = 1000;
/// The longest list of topics, in bytes.
const LONGEST_LIST: usize = 1024 * 1024;

/// Which kind of mistake an [`ErrorMessage`] is about, by Broker's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    DeserializationFailed,
    /// Of the WebSocket layer: the events themselves could not be carried on.
    BrokerError,
    /// Of the WebSocket layer: another path was asked for.
    InvalidUri,
    /// Of the WebSocket layer: the header `X-Application-Name` has characters that it must not have.
    InvalidApplicationName,
}

impl Code {
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeserializationFailed => "deserialization_failed",
            Self::BrokerError => "broker_error",
            Self::InvalidUri => "invalid_uri",
            Self::InvalidApplicationName => "invalid_application_name",
        }
    }
}

/// What tells a client that it made a mistake. The unmodified zeek-client passes over it in silence, so a request whose
/// id can be read gets its proper response instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {context}", code.name())]
pub struct ErrorMessage {
    pub code: Code,
    pub context: String,
}

impl ErrorMessage {
    pub fn new(code: Code, context: impl Into<String>) -> Self {
        Self { code, context: context.into() }
    }

    /// What could not be read at all.
    pub fn unreadable() -> Self {
        Self::new(Code::DeserializationFailed, "failed to decode JSON object")
    }

    /// What could be read and is no event that is known here.
    pub fn no_event() -> Self {
        Self::new(Code::DeserializationFailed, "failed to create Zeek event")
    }

    pub fn to_json(&self) -> Vec<u8> {
        object(&[("type", "error"), ("code", self.code.name()), ("context", &self.context)])
    }
}

/// The acknowledgement of a client's topics.
pub fn acknowledgement(endpoint: &str, version: &str) -> Vec<u8> {
    object(&[("type", "ack"), ("endpoint", endpoint), ("version", version)])
}

fn object(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, (key, value)) in fields.iter().enumerate() {
        put(&mut out, if at == 0 { "{" } else { "," });
        put(&mut out, format_args!(r#""{key}":"#));
        put_text(&mut out, value);
    }
    put(&mut out, "}");
    out
}

/// An event on a topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    pub topic: String,
    pub event: Event,
}

impl Publication {
    pub fn new(topic: impl Into<String>, event: Event) -> Self {
        Self { topic: topic.into(), event }
    }

    /// Reads a data message. The error is what the client is told, and why in more words.
    pub fn from_json(text: &[u8]) -> Result<Self, Refused> {
        let Loose { parts, topic } = json::read(text).map_err(Refused::unreadable)?;
        let payload = parts.value::<serde_json::Error>().map_err(|error| Refused::unreadable(error.into()))?;
        let topic = topic.ok_or_else(Refused::no_topic)?;
        let event = payload.try_into().map_err(Refused::no_event)?;
        Ok(Self { topic, event })
    }

    /// The data message.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put(out, r#"{"type":"data-message","topic":"#);
        put_text(out, &self.topic);
        put(out, ",");
        self.event.write_fields(out);
        put(out, "}");
    }
}

/// Reads the first message of a client: a list of topics. The result is sorted, and has no topic that begins with
/// another, since that one brings its events anyway.
pub fn topics_from_json(text: &[u8]) -> Result<Vec<String>, Refused> {
    let no_list = |why: &dyn fmt::Display| Refused::topics("subscriptions not an array", why);
    if text.len() > LONGEST_LIST {
        return Err(no_list(&format_args!("{} bytes are more than the {LONGEST_LIST} that are read", text.len())));
    }
    let list: Vec<&RawValue> = json::read(text).map_err(|error| no_list(&error))?;
    if list.len() > MOST_TOPICS {
        let why = format!("{} topics are more than {MOST_TOPICS}", list.len());
        return Err(Refused::topics("too many subscriptions", why));
    }
    let topics: Option<Vec<String>> = list.into_iter().map(text_of).collect();
    let mut topics =
        topics.ok_or_else(|| Refused::topics("individual subscription not a string", "a topic is a text"))?;
    topics.sort();
    // What a topic begins with comes before it, and right before it but for others that begin so.
    topics.dedup_by(|topic, before| topic.starts_with(before.as_str()));
    Ok(topics)
}

/// The text, if it is one.
fn text_of(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// Why a message of a client was refused.
#[derive(Debug, thiserror::Error)]
#[error("{told}: {why}")]
pub struct Refused {
    /// What the client is told, in Broker's words.
    pub told: ErrorMessage,
    /// What is wrong, for whoever looks after this end.
    pub why: String,
}

impl Refused {
    fn unreadable(error: DecodeError) -> Self {
        Self { told: ErrorMessage::unreadable(), why: error.to_string() }
    }

    /// What nobody was left to read, since the process is about to end.
    pub(super) fn unread() -> Self {
        Self { told: ErrorMessage::unreadable(), why: "nobody was left to read it".into() }
    }

    fn no_topic() -> Self {
        let context = "no topic in top-level JSON object";
        Self { told: ErrorMessage::new(Code::DeserializationFailed, context), why: "`topic` is a text".into() }
    }

    fn no_event(error: super::event::EventError) -> Self {
        Self { told: ErrorMessage::no_event(), why: error.to_string() }
    }

    fn topics(context: &str, why: impl fmt::Display) -> Self {
        Self { told: ErrorMessage::new(Code::DeserializationFailed, context), why: why.to_string() }
    }
}

/// A data message of which not much is certain yet. What it says of its `type` is not looked at, as Broker does.
struct Loose {
    parts: Parts,
    topic: Option<String>,
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LooseVisitor;
        impl<'de> Visitor<'de> for LooseVisitor {
            type Value = Loose;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a data message")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
                let mut loose = Loose { parts: Parts::default(), topic: None };
                while let Some(key) = map.next_key()? {
                    match key {
                        Field::Type | Field::Data => loose.parts.take(key, &mut map)?,
                        Field::Topic => loose.topic = text_of(map.next_value()?),
                        Field::Key | Field::Value | Field::Other => map.next_value::<IgnoredAny>().map(drop)?,
                    }
                }
                Ok(loose)
            }
        }
        deserializer.deserialize_map(LooseVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::broker::data::Value;

    fn told(text: &str) -> String {
        Publication::from_json(text.as_bytes()).unwrap_err().told.context
    }

    #[test]
    fn a_data_message_is_read_with_its_keys_in_any_order() {
        let sent = Publication::new("a/topic", Event::new("a::b", vec![Value::Count(7)]));
        let text = String::from_utf8(sent.to_json()).unwrap();
        assert_eq!(Publication::from_json(text.as_bytes()).unwrap(), sent);
        let payload = Value::from(sent.event.clone()).to_json();
        let data = payload.strip_prefix(r#"{"@data-type":"vector","data":"#).unwrap().strip_suffix('}').unwrap();
        for text in [
            format!(r#"{{"data":{data},"topic":"a/topic","@data-type":"vector"}}"#),
            format!(r#"{{"topic":"a/topic","more":[{{}}],"data":{data},"@data-type":"vector","type":7}}"#),
        ] {
            assert_eq!(Publication::from_json(text.as_bytes()).unwrap(), sent, "{text}");
        }
    }

    #[test]
    fn what_is_no_data_message_is_answered_in_the_words_of_a_broker() {
        for text in ["", "{", "[]", "7", "{}", r#"{"topic":"t"}"#, r#"{"topic":"t","@data-type":"what","data":1}"#] {
            assert_eq!(told(text), "failed to decode JSON object", "{text}");
        }
        for topic in ["", r#","topic":7"#, r#","topic":[[1]]"#, r#","topic":null"#] {
            let text = format!(r#"{{"@data-type":"count","data":1{topic}}}"#);
            assert_eq!(told(&text), "no topic in top-level JSON object", "{text}");
        }
        assert_eq!(told(r#"{"@data-type":"count","data":1,"topic":"t"}"#), "failed to create Zeek event");
    }

    #[test]
    fn a_list_of_topics_loses_what_it_says_twice() {
        let read = |text: &str| topics_from_json(text.as_bytes()).unwrap();
        assert_eq!(read("[]"), [""; 0]);
        assert_eq!(read(r#"["b", "a/b", "a", "a/c", "b", "ab"]"#), ["a", "b"]);
        assert_eq!(read(r#"["a/b", "a/c", "b"]"#), ["a/b", "a/c", "b"]);
        assert_eq!(read(r#"["x", ""]"#), [""]);
    }

    #[test]
    fn what_is_no_list_of_topics_is_answered_in_the_words_of_a_broker() {
        let told = |text: &str| topics_from_json(text.as_bytes()).unwrap_err().told.context;
        for text in ["", "{}", "\"a\"", "[\"a\"", "null", "[\"a\"] x"] {
            assert_eq!(told(text), "subscriptions not an array", "{text}");
        }
        for text in ["[7]", r#"["a", null]"#, r#"[["a"]]"#] {
            assert_eq!(told(text), "individual subscription not a string", "{text}");
        }
        assert_eq!(told(&format!("[{}\"\"]", "\"\",".repeat(MOST_TOPICS))), "too many subscriptions");
        assert_eq!(told(&format!("[\"{}\"]", "a".repeat(LONGEST_LIST))), "subscriptions not an array");
    }

    #[test]
    fn acknowledgements_and_errors_are_strict_json() {
        assert_eq!(acknowledgement("e\"", "1"), br#"{"type":"ack","endpoint":"e\"","version":"1"}"#);
        let error = ErrorMessage::unreadable().to_json();
        let wanted = r#"{"type":"error","code":"deserialization_failed","context":"failed to decode JSON object"}"#;
        assert_eq!(String::from_utf8(error).unwrap(), wanted);
    }
}

//! Zeek's events, and the values that carry them.

use super::data::{Kind, Value};
use super::json::{TYPE, put, put_list, put_text};

/// An event as Zeek knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `Module::name`.
    pub name: String,
    pub args: Vec<Value>,
    /// What came along with it, by number: 1 is the time on the network, 200 and above are free. Left out of what is
    /// sent if there is none.
    pub metadata: Vec<(u64, Value)>,
}

/// The version of Zeek's format of messages, and the number of its message that is an event.
const FORMAT: u64 = 1;
const EVENT: u64 = 1;

/// How a vector begins.
const VECTOR: &str = r#"{"@data-type":"vector","data":"#;

/// Why a value is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error("a message is a vector of a format, a type and its content, not a {0}")]
    NoMessage(Kind),
    #[error("a message has three parts, not {0}")]
    Parts(usize),
    #[error("the format of messages is {FORMAT}, and nothing else is understood")]
    Format,
    #[error("only events are understood: messages of type {EVENT}")]
    Type,
    #[error("an event is a vector of a name, arguments and, if need be, metadata")]
    Content,
    #[error("metadata is a vector of pairs of a count and a value")]
    Metadata,
}

impl Event {
    /// An event without metadata.
    pub fn new(name: impl Into<String>, args: Vec<Value>) -> Self {
        Self { name: name.into(), args, metadata: Vec::new() }
    }

    /// Writes what the value of this event would, but without making one.
    pub(super) fn write_fields(&self, out: &mut Vec<u8>) {
        let pair = |(id, value): &(u64, Value), out: &mut Vec<u8>| {
            put(out, VECTOR);
            put_list(out, [&Value::Count(*id), value], Value::write);
            out.push(b'}');
        };
        put(out, format_args!(r#""{TYPE}":"vector","data":["#));
        for number in [FORMAT, EVENT] {
            Value::Count(number).write(out);
            out.push(b',');
        }
        put(out, format_args!(r#"{VECTOR}[{{"{TYPE}":"string","data":"#));
        put_text(out, &self.name);
        put(out, format_args!("}},{VECTOR}"));
        put_list(out, &self.args, Value::write);
        if !self.metadata.is_empty() {
            put(out, format_args!("}},{VECTOR}"));
            put_list(out, &self.metadata, pair);
        }
        put(out, "}]}]");
    }
}

impl From<Event> for Value {
    fn from(event: Event) -> Self {
        let mut content = vec![Self::String(event.name), Self::Vector(event.args)];
        if !event.metadata.is_empty() {
            let pair = |(id, value)| Self::Vector(vec![Self::Count(id), value]);
            content.push(Self::Vector(event.metadata.into_iter().map(pair).collect()));
        }
        Self::Vector(vec![Self::Count(FORMAT), Self::Count(EVENT), Self::Vector(content)])
    }
}

impl TryFrom<Value> for Event {
    type Error = EventError;

    fn try_from(value: Value) -> Result<Self, EventError> {
        let parts = match value {
            Value::Vector(parts) => parts,
            other => return Err(EventError::NoMessage(other.kind())),
        };
        let [format, kind, content] = <[Value; 3]>::try_from(parts).map_err(|parts| EventError::Parts(parts.len()))?;
        if format != Value::Count(FORMAT) {
            return Err(EventError::Format);
        }
        if kind != Value::Count(EVENT) {
            return Err(EventError::Type);
        }
        let Value::Vector(content) = content else { return Err(EventError::Content) };
        let mut content = content.into_iter();
        match (content.next(), content.next(), content.next(), content.next()) {
            (Some(Value::String(name)), Some(Value::Vector(args)), metadata, None) => {
                Ok(Self { name, args, metadata: metadata.map(pairs).transpose()?.unwrap_or_default() })
            }
            _ => Err(EventError::Content),
        }
    }
}

fn pairs(metadata: Value) -> Result<Vec<(u64, Value)>, EventError> {
    let Value::Vector(metadata) = metadata else { return Err(EventError::Metadata) };
    let pair = |pair| match pair {
        Value::Vector(pair) => match <[Value; 2]>::try_from(pair) {
            Ok([Value::Count(id), value]) => Ok((id, value)),
            _ => Err(EventError::Metadata),
        },
        _ => Err(EventError::Metadata),
    };
    metadata.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(content: Vec<Value>) -> Value {
        Value::Vector(vec![Value::Count(1), Value::Count(1), Value::Vector(content)])
    }

    #[test]
    fn an_event_is_read_with_and_without_metadata() {
        let (name, args) = (Value::string("a::b"), Value::vector([true]));
        let plain = Event::new("a::b", vec![Value::Boolean(true)]);
        assert_eq!(Event::try_from(message(vec![name.clone(), args.clone()])), Ok(plain.clone()));
        let empty = Value::Vector(vec![]);
        assert_eq!(Event::try_from(message(vec![name.clone(), args.clone(), empty])), Ok(plain.clone()));
        let metadata = Value::Vector(vec![Value::Vector(vec![Value::Count(200), Value::None])]);
        let read = Event::try_from(message(vec![name, args, metadata])).unwrap();
        assert_eq!(read, Event { metadata: vec![(200, Value::None)], ..plain });
    }

    #[test]
    fn an_event_is_written_as_its_value_is() {
        let plain = Event::new("a::\"b\"", vec![]);
        let metadata = vec![(1, Value::vector([true])), (200, Value::None)];
        let rich = Event { args: vec![Value::Count(7), Value::string("x")], metadata, ..plain.clone() };
        for event in [plain, rich] {
            let mut out = vec![b'{'];
            event.write_fields(&mut out);
            out.push(b'}');
            assert_eq!(String::from_utf8(out).unwrap(), Value::from(event).to_json());
        }
    }

    #[test]
    fn what_is_no_event_is_told_why() {
        let (name, args) = (Value::string("a::b"), Value::Vector(vec![]));
        let event = || Value::Vector(vec![name.clone(), args.clone()]);
        for (value, why) in [
            (Value::Count(1), EventError::NoMessage(Kind::Count)),
            (Value::Vector(vec![]), EventError::Parts(0)),
            (Value::Vector(vec![Value::Count(2), Value::Count(1), event()]), EventError::Format),
            (Value::Vector(vec![Value::Integer(1), Value::Count(1), event()]), EventError::Format),
            (Value::Vector(vec![Value::Count(1), Value::Count(5), event()]), EventError::Type),
            (message(vec![]), EventError::Content),
            (message(vec![args.clone(), name.clone()]), EventError::Content),
            (message(vec![name.clone(), args.clone(), args.clone(), args.clone()]), EventError::Content),
            (message(vec![name.clone(), args.clone(), name.clone()]), EventError::Metadata),
            (message(vec![name.clone(), args.clone(), Value::vector([true])]), EventError::Metadata),
        ] {
            assert_eq!(Event::try_from(value), Err(why));
        }
    }
}

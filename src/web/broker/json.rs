//! Values as JSON, in both directions: `{"@data-type": TAG, "data": …}`.
//!
//! What is written is strict JSON, in the order of the sets and tables themselves, so that equal values are equal texts.
//! What is read is a stranger's: it is read once from front to back, in whatever order the keys come, into memory that
//! is bounded by its length, and no deeper than [`serde_json`] goes without harm to the stack.

use std::fmt;
use std::io::Write;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::data::{Kind, Real, Value};

/// The longest text that is read, in bytes.
pub const MAX_TEXT: usize = 16 * 1024 * 1024;

/// The key of a type's name.
pub(super) const TYPE: &str = "@data-type";

/// Why a text is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("{0} bytes are more than the {MAX_TEXT} that are read")]
    TooLong(usize),
    #[error(transparent)]
    Malformed(#[from] serde_json::Error),
}

impl Value {
    /// The value as JSON.
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        String::from_utf8(out).expect("all that is written is text")
    }

    /// Reads a value. Keys that mean nothing are passed over.
    pub fn from_json(text: &[u8]) -> Result<Self, DecodeError> {
        read(text)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_fields(out);
        out.push(b'}');
    }

    /// Writes the two fields without the braces around them.
    pub(super) fn write_fields(&self, out: &mut Vec<u8>) {
        put(out, format_args!(r#""{TYPE}":"{}","data":"#, self.kind()));
        match self {
            Self::None => put(out, "{}"),
            Self::Boolean(value) => put(out, value),
            Self::Count(value) => put(out, value),
            Self::Integer(value) => put(out, value),
            Self::Real(value) => put(out, value),
            Self::String(value) | Self::Enum(value) => put_text(out, value),
            Self::Address(value) => put(out, format_args!(r#""{value}""#)),
            Self::Subnet(value) => put(out, format_args!(r#""{value}""#)),
            Self::Port(value) => put(out, format_args!(r#""{value}""#)),
            Self::Timestamp(value) => put(out, format_args!(r#""{value}""#)),
            Self::Timespan(value) => put(out, format_args!(r#""{value}""#)),
            Self::Set(items) => put_list(out, items, Self::write),
            Self::Vector(items) => put_list(out, items, Self::write),
            Self::Table(items) => put_list(out, items, |(key, value), out| {
                put(out, r#"{"key":"#);
                key.write(out);
                put(out, r#","value":"#);
                value.write(out);
                out.push(b'}');
            }),
        }
    }
}

/// Reads a text of no more than [`MAX_TEXT`] bytes, to its end.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, DecodeError> {
    if text.len() > MAX_TEXT {
        return Err(DecodeError::TooLong(text.len()));
    }
    Ok(serde_json::from_slice(text)?)
}

pub(super) fn put(out: &mut Vec<u8>, text: impl fmt::Display) {
    write!(out, "{text}").expect("memory takes whatever is written");
}

/// Writes a text between quotes, with what JSON wants escaped.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("memory takes whatever is written, and every text is JSON");
}

/// Writes a list of whatever `write` makes of the items.
pub(super) fn put_list<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, write: impl Fn(T, &mut Vec<u8>)) {
    out.push(b'[');
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `@data-type` and `data`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut parts = Parts::default();
        while let Some(key) = map.next_key()? {
            match key {
                Field::Type | Field::Data => parts.take(key, &mut map)?,
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        parts.value()
    }
}

/// The keys that mean something.
#[derive(Clone, Copy)]
pub(super) enum Field {
    Type,
    Data,
    /// Of an entry of a table.
    Key,
    /// Of an entry of a table.
    Value,
    /// Of a message.
    Topic,
    Other,
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;
        impl Visitor<'_> for FieldVisitor {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Field, E> {
                Ok(match text {
                    TYPE => Field::Type,
                    "data" => Field::Data,
                    "key" => Field::Key,
                    "value" => Field::Value,
                    "topic" => Field::Topic,
                    _ => Field::Other,
                })
            }
        }
        deserializer.deserialize_identifier(FieldVisitor)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KindVisitor;
        impl Visitor<'_> for KindVisitor {
            type Value = Kind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a type")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Kind, E> {
                let short = || text.chars().take(64).collect::<String>();
                Kind::of_name(text).ok_or_else(|| E::custom(format_args!("there is no type `{}`", short())))
            }
        }
        deserializer.deserialize_str(KindVisitor)
    }
}

/// The two halves of a value, in whichever order they come.
#[derive(Default)]
pub(super) struct Parts {
    kind: Option<Kind>,
    data: Option<Data>,
}

impl Parts {
    /// Reads what belongs to a key that is [`Field::Type`] or [`Field::Data`].
    pub(super) fn take<'de, A: MapAccess<'de>>(&mut self, key: Field, map: &mut A) -> Result<(), A::Error> {
        match (key, self.kind) {
            (Field::Type, None) => self.kind = Some(map.next_value()?),
            (Field::Type, Some(_)) => return Err(A::Error::duplicate_field(TYPE)),
            _ if self.data.is_some() => return Err(A::Error::duplicate_field("data")),
            (_, Some(Kind::None)) => self.data = map.next_value::<IgnoredAny>().map(|_| Some(Data::Nothing))?,
            _ => self.data = Some(map.next_value()?),
        }
        Ok(())
    }

    pub(super) fn value<E: Error>(self) -> Result<Value, E> {
        let kind = self.kind.ok_or_else(|| E::missing_field(TYPE))?;
        let data = self.data.ok_or_else(|| E::missing_field("data"))?;
        data.typed(kind)
    }
}

/// What stands under `data` while the type may not be known yet. The items of a list know their own types, so this is
/// the one level that has to wait.
enum Data {
    /// `null` or an object: what `none` has.
    Nothing,
    Boolean(bool),
    Unsigned(u64),
    Negative(i64),
    Real(Real),
    Text(String),
    Values(Vec<Value>),
    Entries(Vec<(Value, Value)>),
    /// `[]`, of which nobody can tell whether values or entries are missing.
    Empty,
}

impl Data {
    fn typed<E: Error>(self, kind: Kind) -> Result<Value, E> {
        use Data as D;
        Ok(match (kind, self) {
            (Kind::None, _) => Value::None,
            (Kind::Boolean, D::Boolean(value)) => Value::Boolean(value),
            (Kind::Count, D::Unsigned(value)) => Value::Count(value),
            (Kind::Integer, D::Negative(value)) => Value::Integer(value),
            (Kind::Integer, D::Unsigned(value)) => Value::Integer(
                i64::try_from(value).map_err(|_| E::custom(format_args!("{value} is too large for an integer")))?,
            ),
            (Kind::Real, D::Real(value)) => Value::Real(value),
            (Kind::String, D::Text(text)) => Value::String(text),
            (Kind::Enum, D::Text(text)) => Value::Enum(text),
            (Kind::Address, D::Text(text)) => Value::Address(
                text.parse().map_err(|_| E::custom(super::data::NotA::new(&text, "an address such as 192.0.2.1")))?,
            ),
            (Kind::Subnet, D::Text(text)) => Value::Subnet(text.parse().map_err(E::custom)?),
            (Kind::Port, D::Text(text)) => Value::Port(text.parse().map_err(E::custom)?),
            (Kind::Timestamp, D::Text(text)) => Value::Timestamp(text.parse().map_err(E::custom)?),
            (Kind::Timespan, D::Text(text)) => Value::Timespan(text.parse().map_err(E::custom)?),
            (Kind::Vector, D::Empty) => Value::Vector(Vec::new()),
            (Kind::Vector, D::Values(items)) => Value::Vector(items),
            (Kind::Set, D::Empty) => Value::Set(Default::default()),
            (Kind::Set, D::Values(items)) => Value::Set(items.into_iter().collect()),
            (Kind::Table, D::Empty) => Value::Table(Default::default()),
            (Kind::Table, D::Entries(items)) => Value::Table(items.into_iter().collect()),
            (kind, data) => return Err(E::custom(format_args!("a {kind} cannot be {}", data.described()))),
        })
    }

    fn described(&self) -> &'static str {
        match self {
            Self::Nothing => "null or an object",
            Self::Boolean(_) => "true or false",
            Self::Unsigned(_) => "a number without fraction",
            Self::Negative(_) => "a negative number",
            Self::Real(_) => "a number with a fraction, or one that is too large",
            Self::Text(_) => "a text",
            Self::Values(_) | Self::Empty => "a list of values",
            Self::Entries(_) => "a list of keys and values",
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what a value holds")
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Nothing)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Boolean(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
        Ok(Data::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Ok(u64::try_from(value).map_or(Data::Negative(value), Data::Unsigned))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Data, E> {
        Real::new(value).map(Data::Real).ok_or_else(|| E::custom("the number is not finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Data, E> {
        Ok(Data::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Data, E> {
        Ok(Data::Text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Data::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Data, A::Error> {
        match list.next_element()? {
            None => Ok(Data::Empty),
            Some(Item::Value(first)) => {
                let mut values = vec![first];
                while let Some(item) = list.next_element()? {
                    values.push(item);
                }
                Ok(Data::Values(values))
            }
            Some(Item::Entry(first)) => {
                let mut entries = vec![first];
                while let Some(item) = list.next_element_seed(EntrySeed)? {
                    entries.push(item);
                }
                Ok(Data::Entries(entries))
            }
        }
    }
}

/// The first item of a list shows which kind of list it is.
enum Item {
    Value(Value),
    Entry((Value, Value)),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `@data-type` and `data`, or with `key` and `value`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
        let (mut parts, mut key, mut value) = (Parts::default(), None, None);
        while let Some(found) = map.next_key()? {
            match found {
                Field::Type | Field::Data => parts.take(found, &mut map)?,
                Field::Key => once(&mut key, map.next_value()?, "key")?,
                Field::Value => once(&mut value, map.next_value()?, "value")?,
                Field::Topic | Field::Other => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        match (key, value) {
            (Some(key), Some(value)) => Ok(Item::Entry((key, value))),
            (None, None) => parts.value().map(Item::Value),
            (None, Some(_)) => Err(A::Error::missing_field("key")),
            (Some(_), None) => Err(A::Error::missing_field("value")),
        }
    }
}

/// Reads a further entry of a table.
struct EntrySeed;

impl<'de> DeserializeSeed<'de> for EntrySeed {
    type Value = (Value, Value);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(Value, Value), D::Error> {
        match Item::deserialize(deserializer)? {
            Item::Entry(entry) => Ok(entry),
            Item::Value(value) => Err(de::Error::custom(format_args!("a {} is no entry of a table", value.kind()))),
        }
    }
}

fn once<E: Error>(slot: &mut Option<Value>, value: Value, name: &'static str) -> Result<(), E> {
    if slot.replace(value).is_some() { Err(E::duplicate_field(name)) } else { Ok(()) }
}

//! Broker's values, as Rust has them. [`json`](super::json) has them on the wire.
//!
//! Records and events travel as vectors, so a [`Value`] says nothing about what it means: that is for whoever maps it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

pub use super::time::{Timespan, Timestamp};

/// One value of any of Broker's types.
///
/// Values of different types are ordered as Broker orders its types, so that sets and tables come out as a broker
/// would send them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Value {
    /// An optional field that is absent.
    #[default]
    None,
    Boolean(bool),
    Count(u64),
    Integer(i64),
    Real(Real),
    String(String),
    Address(IpAddr),
    Subnet(Subnet),
    Port(Port),
    Timestamp(Timestamp),
    Timespan(Timespan),
    /// `Module::NAME`.
    Enum(String),
    Set(BTreeSet<Value>),
    Table(BTreeMap<Value, Value>),
    Vector(Vec<Value>),
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    None,
    Boolean,
    Count,
    Integer,
    Real,
    String,
    Address,
    Subnet,
    Port,
    Timestamp,
    Timespan,
    Enum,
    Set,
    Table,
    Vector,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 15] = [
        Self::None,
        Self::Boolean,
        Self::Count,
        Self::Integer,
        Self::Real,
        Self::String,
        Self::Address,
        Self::Subnet,
        Self::Port,
        Self::Timestamp,
        Self::Timespan,
        Self::Enum,
        Self::Set,
        Self::Table,
        Self::Vector,
    ];

    /// Broker's name, which is also the tag on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Boolean => "boolean",
            Self::Count => "count",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::String => "string",
            Self::Address => "address",
            Self::Subnet => "subnet",
            Self::Port => "port",
            Self::Timestamp => "timestamp",
            Self::Timespan => "timespan",
            Self::Enum => "enum-value",
            Self::Set => "set",
            Self::Table => "table",
            Self::Vector => "vector",
        }
    }

    /// The type of this name, if there is one.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Value {
    pub fn string(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    /// An enum value by its full name, such as `Supervisor::WORKER`.
    pub fn enumerated(name: impl Into<String>) -> Self {
        Self::Enum(name.into())
    }

    /// A vector of whatever becomes a value.
    pub fn vector<T: Into<Value>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::Vector(items.into_iter().map(Into::into).collect())
    }

    /// A set of whatever becomes a value.
    pub fn set<T: Into<Value>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::Set(items.into_iter().map(Into::into).collect())
    }

    /// A table of whatever become values.
    pub fn table<K: Into<Value>, V: Into<Value>>(items: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::Table(items.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::None => Kind::None,
            Self::Boolean(_) => Kind::Boolean,
            Self::Count(_) => Kind::Count,
            Self::Integer(_) => Kind::Integer,
            Self::Real(_) => Kind::Real,
            Self::String(_) => Kind::String,
            Self::Address(_) => Kind::Address,
            Self::Subnet(_) => Kind::Subnet,
            Self::Port(_) => Kind::Port,
            Self::Timestamp(_) => Kind::Timestamp,
            Self::Timespan(_) => Kind::Timespan,
            Self::Enum(_) => Kind::Enum,
            Self::Set(_) => Kind::Set,
            Self::Table(_) => Kind::Table,
            Self::Vector(_) => Kind::Vector,
        }
    }

    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// What an optional field holds: nothing if it is `none`.
    pub fn present(&self) -> Option<&Self> {
        (!self.is_none()).then_some(self)
    }

    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Boolean(value) = self { Some(*value) } else { None }
    }

    pub fn as_count(&self) -> Option<u64> {
        if let Self::Count(value) = self { Some(*value) } else { None }
    }

    pub fn as_integer(&self) -> Option<i64> {
        if let Self::Integer(value) = self { Some(*value) } else { None }
    }

    pub fn as_real(&self) -> Option<f64> {
        if let Self::Real(value) = self { Some(value.get()) } else { None }
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(value) = self { Some(value) } else { None }
    }

    pub fn as_address(&self) -> Option<IpAddr> {
        if let Self::Address(value) = self { Some(*value) } else { None }
    }

    pub fn as_subnet(&self) -> Option<Subnet> {
        if let Self::Subnet(value) = self { Some(*value) } else { None }
    }

    pub fn as_port(&self) -> Option<Port> {
        if let Self::Port(value) = self { Some(*value) } else { None }
    }

    pub fn as_timestamp(&self) -> Option<Timestamp> {
        if let Self::Timestamp(value) = self { Some(*value) } else { None }
    }

    pub fn as_timespan(&self) -> Option<Timespan> {
        if let Self::Timespan(value) = self { Some(*value) } else { None }
    }

    /// The full name of an enum value.
    pub fn as_enum(&self) -> Option<&str> {
        if let Self::Enum(value) = self { Some(value) } else { None }
    }

    pub fn as_set(&self) -> Option<&BTreeSet<Value>> {
        if let Self::Set(value) = self { Some(value) } else { None }
    }

    pub fn as_table(&self) -> Option<&BTreeMap<Value, Value>> {
        if let Self::Table(value) = self { Some(value) } else { None }
    }

    /// The fields of a record, or the items of a vector: on the wire they are the same.
    pub fn as_vector(&self) -> Option<&[Value]> {
        if let Self::Vector(value) = self { Some(value) } else { None }
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

value_from! {
    bool => Boolean, u64 => Count, u32 => Count, u16 => Count, i64 => Integer, i32 => Integer, Real => Real,
    String => String, &str => String, IpAddr => Address, Subnet => Subnet, Port => Port,
    Timestamp => Timestamp, Timespan => Timespan,
    BTreeSet<Value> => Set, BTreeMap<Value, Value> => Table, Vec<Value> => Vector,
}

impl<T: Into<Value>> From<Option<T>> for Value {
    /// An optional field: `none` if there is nothing.
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

/// A floating-point number that JSON can say: finite, and with one zero, so that it can be compared and sorted.
#[derive(Debug, Clone, Copy)]
pub struct Real(f64);

impl Real {
    /// `None` if the number is infinite or none at all.
    pub fn new(value: f64) -> Option<Self> {
        // Adding turns the negative zero into the other.
        value.is_finite().then_some(Self(value + 0.0))
    }

    pub fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Real {}

impl PartialOrd for Real {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Real {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl fmt::Display for Real {
    /// The shortest text that reads back as the same number, always with a decimal point and never with an exponent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let point = if self.0.fract() == 0.0 { ".0" } else { "" };
        write!(f, "{}{point}", self.0)
    }
}

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Unknown,
    Tcp,
    Udp,
    Icmp,
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "?",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

/// `9002/tcp`. The unmodified client takes no port 0: leave the field out instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub number: u16,
    pub protocol: Protocol,
}

impl Port {
    pub const fn tcp(number: u16) -> Self {
        Self { number, protocol: Protocol::Tcp }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.name())
    }
}

/// Why a text is no value of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct NotA {
    /// The text, cut to what a log line bears.
    text: String,
    wanted: &'static str,
}

impl NotA {
    pub(super) fn new(text: &str, wanted: &'static str) -> Self {
        Self { text: text.chars().take(64).collect(), wanted }
    }
}

impl FromStr for Port {
    type Err = NotA;

    fn from_str(text: &str) -> Result<Self, NotA> {
        let parse = || {
            let (number, protocol) = text.split_once('/')?;
            let protocols = [Protocol::Unknown, Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
            let protocol = protocols.into_iter().find(|known| known.name() == protocol)?;
            let number = digits(number)?.parse().ok()?;
            Some(Self { number, protocol })
        };
        parse().ok_or_else(|| NotA::new(text, "a port such as 9002/tcp"))
    }
}

/// `10.0.0.0/8`, with nothing beyond the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    address: IpAddr,
    length: u8,
}

impl Subnet {
    /// The network that `address` is in. `None` if the address has fewer than `length` bits.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(address) => {
                let hosts = 32_u32.checked_sub(length.into())?;
                IpAddr::V4((address.to_bits() & u32::MAX.checked_shl(hosts).unwrap_or(0)).into())
            }
            IpAddr::V6(address) => {
                let hosts = 128_u32.checked_sub(length.into())?;
                IpAddr::V6((address.to_bits() & u128::MAX.checked_shl(hosts).unwrap_or(0)).into())
            }
        };
        Some(Self { address, length })
    }

    /// Its first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many bits of the address name the network.
    pub fn length(self) -> u8 {
        self.length
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Subnet {
    type Err = NotA;

    fn from_str(text: &str) -> Result<Self, NotA> {
        let parse = || {
            let (address, length) = text.split_once('/')?;
            Self::new(address.parse().ok()?, digits(length)?.parse().ok()?)
        };
        parse().ok_or_else(|| NotA::new(text, "a subnet such as 10.0.0.0/8"))
    }
}

/// The text again if it is all digits: Rust's own parsers also take a plus.
pub(super) fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_written() {
        for text in ["0/tcp", "65535/udp", "8/icmp", "9/?"] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), text);
        }
        for text in ["", "1", "/tcp", "1/", "65536/tcp", "-1/tcp", "+1/tcp", "1/TCP", "1/sctp", "1/tcp/", " 1/tcp"] {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_subnet_has_nothing_beyond_its_prefix() {
        for (text, wanted) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::1/128", "::1/128"),
            ("ff::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Subnet>().unwrap().to_string(), wanted);
        }
        for text in ["", "10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0.0/8", "10.0.0.0/8/8", "/8"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_real_always_shows_that_it_is_one() {
        let text = |value| Real::new(value).unwrap().to_string();
        assert_eq!(text(1.0), "1.0");
        assert_eq!(text(-0.0), "0.0");
        assert_eq!(text(1.5), "1.5");
        assert_eq!(text(1e-7), "0.0000001");
        assert_eq!(text(1e21), "1000000000000000000000.0");
        assert_eq!(text(-1234567.125), "-1234567.125");
        assert!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].into_iter().all(|value| Real::new(value).is_none()));
    }

    #[test]
    fn every_type_is_found_by_its_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_name(kind.name()), Some(kind));
        }
        assert_eq!(Kind::of_name("Count"), None);
    }
}

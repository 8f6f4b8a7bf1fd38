//! One value as somebody wrote it, and the readings that keys ask of it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

use crate::hint::shown;
use crate::model::{Endpoint, InstanceName, OnFailure};
use crate::plan::Portion;

/// Times that make sense: long enough not to spin, short enough for any clock.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A value, from the file or from a variable.
pub(super) enum Value<'a> {
    Toml(&'a DeValue<'a>),
    /// Always text, so numbers are read from it, and a comma parts lists.
    Variable(&'a str),
}

impl<'a> Value<'a> {
    pub fn text(&self) -> Result<&'a str, String> {
        match self {
            Self::Toml(DeValue::String(text)) => Ok(text),
            Self::Variable(text) => Ok(text),
            Self::Toml(_) => Err(self.wrong("text in quotes")),
        }
    }

    pub fn boolean(&self) -> Result<bool, String> {
        match self {
            Self::Toml(DeValue::Boolean(value)) => Ok(*value),
            Self::Variable("true" | "1") => Ok(true),
            Self::Variable("false" | "0") => Ok(false),
            _ => Err(self.wrong("true or false")),
        }
    }

    pub fn number<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Result<T, String> {
        let number = match self {
            Self::Toml(DeValue::Integer(number)) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            Self::Variable(text) => text.parse().ok(),
            Self::Toml(_) => None,
        };
        let wrong = || self.wrong(&format!("a whole number from {} to {}", range.start(), range.end()));
        number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok()).ok_or_else(wrong)
    }

    pub fn on_failure(&self) -> Result<OnFailure, String> {
        match self.text()? {
            "back" => Ok(OnFailure::Back),
            "keep" => Ok(OnFailure::Keep),
            _ => Err(self.wrong("back or keep")),
        }
    }

    /// How many nodes of a role: `"2"` or `"25%"`.
    pub fn portion(&self) -> Result<Portion, String> {
        let how = "text in quotes: a number of nodes such as \"2\", or a share of them such as \"25%\"";
        self.text()?.parse().map_err(|_| self.wrong(how))
    }

    pub fn port(&self) -> Result<u16, String> {
        self.number(1..=65_535)
    }

    pub fn time(&self) -> Result<Duration, String> {
        self.time_up_to(LONGEST)
    }

    pub fn time_up_to(&self, longest: Duration) -> Result<Duration, String> {
        let time = self.text().ok().and_then(|text| humantime::parse_duration(text).ok());
        let [from, to] = [SHORTEST, longest].map(humantime::format_duration);
        let wrong = || self.wrong(&format!("a time in quotes from {from} to {to}, such as \"500ms\" or \"10s\""));
        time.filter(|time| (SHORTEST..=longest).contains(time)).ok_or_else(wrong)
    }

    pub fn list(&self) -> Result<Vec<String>, String> {
        let wrong = || self.wrong("a list of names");
        let list: Vec<String> = match self {
            Self::Toml(DeValue::Array(values)) => {
                let texts = values.iter().map(|value| Value::Toml(value.get_ref()).text().map(str::to_owned));
                texts.collect::<Result<_, _>>().map_err(|_| wrong())?
            }
            Self::Variable("") => Vec::new(),
            Self::Variable(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
            Self::Toml(_) => return Err(wrong()),
        };
        if list.iter().any(String::is_empty) { Err(wrong()) } else { Ok(list) }
    }

    /// An address; `None` if the text is empty.
    pub fn address(&self) -> Result<Option<SocketAddr>, String> {
        let wrong = || self.wrong("IP:PORT in quotes, such as \"127.0.0.1:2150\" or \"[::1]:2150\", or \"\" for none");
        match self.text().map_err(|_| wrong())? {
            "" => Ok(None),
            text => SocketAddr::from_str(text).map(Some).map_err(|_| wrong()),
        }
    }

    /// An address whose host may have a name; `None` if the text is empty.
    pub fn endpoint(&self) -> Result<Option<Endpoint>, String> {
        let wrong =
            || self.wrong("HOST:PORT in quotes, such as \"192.0.2.10:2150\" or \"control.example:2150\", or \"\"");
        match self.text().map_err(|_| wrong())? {
            "" => Ok(None),
            text => Endpoint::from_str(text).map(Some).map_err(|_| wrong()),
        }
    }

    /// A file; `None` if the text is empty.
    pub fn path(&self) -> Result<Option<PathBuf>, String> {
        let text = self.text().map_err(|_| self.wrong("the path of a file in quotes, or \"\" for none"))?;
        Ok((!text.is_empty()).then(|| text.into()))
    }

    /// The name of a daemon or a cluster; `None` if the text is empty.
    pub fn name(&self) -> Result<Option<InstanceName>, String> {
        match self.text()? {
            "" => Ok(None),
            text => InstanceName::new(text).map(Some).map_err(|error| format!("{} {}", shown(text), error.why)),
        }
    }

    /// Says what was written and what would be right.
    pub fn wrong(&self, right: &str) -> String {
        let written: Cow<str> = match self {
            Self::Variable(text) => (*text).into(),
            Self::Toml(DeValue::String(text)) => text.as_ref().into(),
            Self::Toml(DeValue::Integer(number)) => number.to_string().into(),
            Self::Toml(DeValue::Float(number)) => number.to_string().into(),
            Self::Toml(DeValue::Boolean(value)) => value.to_string().into(),
            Self::Toml(DeValue::Datetime(time)) => time.to_string().into(),
            Self::Toml(DeValue::Array(_)) => return format!("a list does not fit: write {right}"),
            Self::Toml(DeValue::Table(_)) => return format!("a table does not fit: write {right}"),
        };
        format!("{} does not fit: write {right}", shown(&written))
    }
}

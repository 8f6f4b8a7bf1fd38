//! The CPUs that a node may run on.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The CPUs that a node may run on, counted from 0; a list is never empty as a cluster file tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpus(pub BTreeSet<u32>);

/// CPUs are counted below this: the size of the set that the kernel's interface knows.
pub const MOST_CPUS: u32 = 1024;

impl Cpus {
    /// This one alone.
    pub fn one(cpu: u32) -> Self {
        Self(BTreeSet::from([cpu]))
    }

    /// The first of them.
    pub fn first(&self) -> Option<u32> {
        self.0.first().copied()
    }
}

impl fmt::Display for Cpus {
    /// As cluster files write it: `0-3,8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if(|next| last.checked_add(1) == Some(*next)) {
                last = next;
            }
            match first == last {
                true => write!(f, "{separator}{first}")?,
                false => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

impl FromStr for Cpus {
    type Err = NoCpus;

    fn from_str(text: &str) -> Result<Self, NoCpus> {
        let mut cpus = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let [first, last] = [first, last].map(|text| {
                let text = text.trim();
                let number = text.starts_with(|c: char| c.is_ascii_digit()).then(|| text.parse::<u32>().ok());
                number.flatten().ok_or(NoCpus::Form)
            });
            let (first, last) = (first?, last?);
            if last >= MOST_CPUS {
                return Err(NoCpus::Beyond { cpu: last });
            }
            if first > last {
                return Err(NoCpus::Form);
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }
}

/// Why a text is no list of [`Cpus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoCpus {
    #[error("write numbers and ranges such as 0-3,8")]
    Form,
    #[error("CPU {cpu} is beyond the last there can be, {}", MOST_CPUS - 1)]
    Beyond { cpu: u32 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_back_in_order_and_as_short_as_can_be() {
        for (text, shown, count) in [
            ("3", "3", 1),
            ("0-3,8", "0-3,8", 5),
            ("8, 2-3 ,1", "1-3,8", 4),
            ("5-5", "5", 1),
            ("0-1,1-2", "0-2", 3),
            ("0-1023", "0-1023", 1024),
        ] {
            let cpus: Cpus = text.parse().unwrap();
            assert_eq!((cpus.to_string().as_str(), cpus.0.len()), (shown, count), "{text}");
        }
        for text in ["", "-1", "1-", "3-1", "a", "1,,2", "1,", "0x1", "+1", "1-2-3"] {
            assert_eq!(text.parse::<Cpus>(), Err(NoCpus::Form), "{text}");
        }
        for (text, cpu) in [("1024", 1024), ("0-4294967295", u32::MAX)] {
            assert_eq!(text.parse::<Cpus>(), Err(NoCpus::Beyond { cpu }), "{text}");
        }
        assert_eq!(Cpus(BTreeSet::from([u32::MAX])).to_string(), "4294967295");
    }
}

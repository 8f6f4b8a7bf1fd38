//! What the whole of a node may use: its process, and everything that comes of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the whole of a node may use, by its control group; `None` is as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quotas {
    pub memory_max: Option<Bytes>,
    pub cpu_max: Option<CpuShare>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
}

/// One of the [`Quotas`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Quota {
    Memory,
    Cpu,
    Pids,
}

impl Quota {
    /// All of them, as cluster files list them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    /// As cluster files write it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Memory => "memory_max",
            Self::Cpu => "cpu_max",
            Self::Pids => "pids_max",
        }
    }

    /// The controller of the kernel's that it takes.
    pub fn controller(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }

    /// Its file in a control group.
    pub fn file(self) -> &'static str {
        match self {
            Self::Memory => "memory.max",
            Self::Cpu => "cpu.max",
            Self::Pids => "pids.max",
        }
    }
}

impl Quotas {
    /// Those that are limited: each with what is written into its file, and how a person writes it.
    pub fn wanted(&self) -> impl Iterator<Item = (Quota, String, String)> {
        let memory = self.memory_max.map(|bytes| (Quota::Memory, bytes.0.to_string(), bytes.to_string()));
        let cpu = self.cpu_max.map(|share| (Quota::Cpu, share.for_kernel(), share.to_string()));
        let pids = self.pids_max.map(|count| (Quota::Pids, count.to_string(), count.to_string()));
        [memory, cpu, pids].into_iter().flatten()
    }
}

/// An amount of memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bytes(pub u64);

/// What a letter behind a number multiplies it by.
const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, shift): &&(char, u32)| self.0 > 0 && self.0.trailing_zeros() >= *shift;
        match UNITS.iter().find(whole) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => self.0.fmt(f),
        }
    }
}

impl FromStr for Bytes {
    type Err = NoBytes;

    fn from_str(text: &str) -> Result<Self, NoBytes> {
        let unit = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(*unit)?, *shift)));
        let (digits, shift) = unit.unwrap_or((text, 0));
        let number = digits.parse::<u64>().ok().filter(|_| digits.starts_with(|c: char| c.is_ascii_digit()));
        number.and_then(|number| number.checked_mul(1 << shift)).map(Self).ok_or(NoBytes)
    }
}

/// Why a text is no [`Bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write bytes, such as 2G, 512M or 1048576")]
pub struct NoBytes;

/// So many hundredths of one CPU's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CpuShare(pub u32);

/// Over so many microseconds the kernel counts.
const PERIOD: u64 = 100_000;

impl CpuShare {
    /// As the kernel wants it: microseconds in so many.
    fn for_kernel(self) -> String {
        format!("{} {PERIOD}", u64::from(self.0) * PERIOD / 100)
    }
}

impl fmt::Display for CpuShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl FromStr for CpuShare {
    type Err = NoCpuShare;

    fn from_str(text: &str) -> Result<Self, NoCpuShare> {
        let digits = text.strip_suffix('%').filter(|digits| digits.starts_with(|c: char| c.is_ascii_digit()));
        digits.and_then(|digits| digits.parse().ok()).map(Self).ok_or(NoCpuShare)
    }
}

/// Why a text is no [`CpuShare`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write hundredths of one CPU's time, such as 50% or 150%")]
pub struct NoCpuShare;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_back_as_they_were_written() {
        for (text, bytes) in [("2G", 2 << 30), ("512M", 512 << 20), ("7", 7), ("0", 0), ("3T", 3 << 40), ("1K", 1024)] {
            let read: Bytes = text.parse().unwrap();
            assert_eq!((read.0, read.to_string().as_str()), (bytes, text));
        }
        assert_eq!("1024M".parse::<Bytes>().unwrap().to_string(), "1G");
        for text in ["", "G", "2g", "2GB", "-1", "+1", "1.5G", "99999999999T", "18446744073709551616", " 1"] {
            assert_eq!(text.parse::<Bytes>(), Err(NoBytes), "{text}");
        }
        assert_eq!("150%".parse::<CpuShare>().map(|share| share.to_string()), Ok("150%".into()));
        for text in ["", "%", "150", "1.5%", "-1%", "+1%", "4294967296%"] {
            assert_eq!(text.parse::<CpuShare>(), Err(NoCpuShare), "{text}");
        }
    }

    #[test]
    fn the_kernel_is_told_in_its_own_words() {
        let quotas = Quotas { memory_max: Some(Bytes(2 << 30)), cpu_max: Some(CpuShare(150)), pids_max: Some(64) };
        let told: Vec<_> = quotas.wanted().map(|(quota, text, _)| (quota.file(), text)).collect();
        let want = [("memory.max", "2147483648"), ("cpu.max", "150000 100000"), ("pids.max", "64")];
        assert_eq!(told, want.map(|(file, text)| (file, text.to_owned())));
        assert_eq!(Quotas::default().wanted().count(), 0);
        let most = Quotas { cpu_max: Some(CpuShare(u32::MAX)), ..Quotas::default() };
        assert_eq!(most.wanted().next().unwrap().1, "4294967295000 100000");
    }
}

//! What a node's process is given and denied, beyond the user that it runs as.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Quotas;

/// What a node's process is given and denied. Most nodes have nothing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// Groups beside those of its user.
    pub groups: Vec<String>,
    /// The mode bits that files it makes do not get.
    pub umask: Option<u32>,
    /// From -20, which gets most of the processor, to 19.
    pub nice: Option<i32>,
    pub limits: BTreeMap<Resource, Limit>,
    /// Kept though its user is not root.
    pub capabilities: BTreeSet<Capability>,
    /// Neither it nor what it starts gains rights by a program that others own.
    pub no_new_privs: bool,
    /// A file of `NAME=value` lines, absolute, read by the agent at each launch; `env` wins over it.
    pub env_file: Option<String>,
    pub quotas: Quotas,
}

/// How much of a resource a process may have: soft and hard; `None` is without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

impl Limit {
    /// Whether the soft limit is within the hard one.
    pub fn is_in_order(&self) -> bool {
        match (self.soft, self.hard) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(soft), Some(hard)) => soft <= hard,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
        match self.soft == self.hard {
            true => f.write_str(&one(self.soft)),
            false => write!(f, "{}:{}", one(self.soft), one(self.hard)),
        }
    }
}

impl FromStr for Limit {
    type Err = NoLimit;
    fn from_str(text: &str) -> Result<Self, NoLimit> {
        let one = |text: &str| match text {
            "unlimited" => Ok(None),
            // The kernel takes the largest number for none.
            number => number.parse().ok().filter(|limit| *limit != u64::MAX).map(Some).ok_or(NoLimit),
        };
        let (soft, hard) = text.split_once(':').unwrap_or((text, text));
        Ok(Self { soft: one(soft)?, hard: one(hard)? })
    }
}

/// Why a text is no [`Limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a number or `unlimited`, or two of them as SOFT:HARD")]
pub struct NoLimit;

macro_rules! resources {
    ($($resource:ident $name:literal)*) => {
        /// What a process may have only so much of: the names are those of `setrlimit`, in small letters.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Resource { $($resource),* }

        impl Resource {
            /// All of them, by name.
            pub const ALL: &[Self] = &[$(Self::$resource),*];

            /// As cluster files write it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$resource => $name),* }
            }
        }
    };
}

resources! {
    As "as" Core "core" Cpu "cpu" Data "data" Fsize "fsize" Locks "locks" Memlock "memlock" Msgqueue "msgqueue"
    Nice "nice" Nofile "nofile" Nproc "nproc" Rss "rss" Rtprio "rtprio" Rttime "rttime" Sigpending "sigpending"
    Stack "stack"
}

/// One of the rights that root consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Capability(u8);

/// The kernel's names in its order, in small letters and without `CAP_`.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

impl Capability {
    /// All of them, by number.
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        (0..).map(Self).take(CAPABILITIES.len())
    }

    /// The one of this name, with or without `CAP_`, in any case.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix("cap_").unwrap_or(&name);
        Self::all().find(|capability| capability.as_str() == name)
    }

    /// As cluster files write it; `unknown` for one of a later kernel, which [`Capability::number`] tells.
    pub fn as_str(self) -> &'static str {
        CAPABILITIES.get(usize::from(self.0)).copied().unwrap_or("unknown")
    }

    /// As the kernel counts them.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Whether this release knows it: what comes over a link may be of a later one.
    pub fn is_known(self) -> bool {
        usize::from(self.0) < CAPABILITIES.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_back_as_they_were_written() {
        for (text, soft, hard) in [
            ("5", Some(5), Some(5)),
            ("0:unlimited", Some(0), None),
            ("unlimited", None, None),
            ("1:2", Some(1), Some(2)),
        ] {
            let limit: Limit = text.parse().unwrap();
            assert_eq!((limit.soft, limit.hard, limit.to_string().as_str()), (soft, hard, text));
        }
        assert_eq!("3:3".parse::<Limit>().unwrap().to_string(), "3");
        for text in ["", "x", "1:", ":1", "-1", "1:2:3", "18446744073709551615", "1 2"] {
            assert_eq!(text.parse::<Limit>(), Err(NoLimit), "{text}");
        }
        assert!("unlimited:5".parse::<Limit>().is_ok_and(|limit| !limit.is_in_order()));
        assert!("5:4".parse::<Limit>().is_ok_and(|limit| !limit.is_in_order()));
    }

    #[test]
    fn capabilities_have_the_numbers_of_the_kernel() {
        for (name, number) in [("chown", 0), ("CAP_NET_RAW", 13), ("net_admin", 12), ("checkpoint_restore", 40)] {
            assert_eq!(Capability::named(name).unwrap().number(), number, "{name}");
        }
        assert_eq!(Capability::named("net"), None);
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
        let known = Capability::all().last().unwrap().number();
        assert!(last.trim().parse::<u8>().unwrap() <= known, "a later kernel knows more: add them");
    }
}

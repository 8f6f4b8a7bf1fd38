//! What a Zeek node counts of its packets, and when that is too little.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What a Zeek node counted, by the last of its heartbeats that was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetStats {
    /// When its agent heard of it.
    pub time: Timestamp,
    /// Packets since its start.
    pub total: Packets,
    /// Those since the heartbeat that was told before, and for how long that is; a zero for the first one.
    pub lately: Packets,
    pub over: Duration,
    /// Packets on the link since its start, where that is known; else 0.
    pub link: u64,
    /// Bytes received since its start.
    pub bytes: u64,
    /// The most memory that it had, in bytes.
    pub memory: u64,
    /// Events that wait in its queue.
    pub events: u64,
}

/// Packets over some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Packets {
    pub received: u64,
    pub dropped: u64,
}

impl Packets {
    /// What part of all packets was dropped; `None` if there were none.
    pub fn loss(self) -> Option<Loss> {
        let all = u128::from(self.received) + u128::from(self.dropped);
        let loss = (u128::from(self.dropped) * u128::from(Loss::ALL.0)).checked_div(all)?;
        u16::try_from(loss).ok().map(Loss)
    }

    /// Those that came since `before`. Counters that went back began anew.
    pub fn since(self, before: Self) -> Self {
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Self { received: since(self.received, before.received), dropped: since(self.dropped, before.dropped) }
    }
}

/// A part of packets, in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Loss(u16);

impl Loss {
    /// All of them.
    pub const ALL: Self = Self(10_000);

    /// In hundredths of a percent, 10000 at most.
    pub const fn new(hundredths: u16) -> Self {
        if hundredths > Self::ALL.0 { Self::ALL } else { Self(hundredths) }
    }

    /// From 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ALL.0)
    }

    /// Whether it is one: what comes over a link may not be.
    pub fn is_sound(self) -> bool {
        self <= Self::ALL
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.0 / 100, self.0 % 100);
        match (hundredths, hundredths % 10) {
            (0, _) => write!(f, "{whole}%"),
            (_, 0) => write!(f, "{whole}.{}%", hundredths / 10),
            _ => write!(f, "{whole}.{hundredths:02}%"),
        }
    }
}

/// Why a text is no [`Loss`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a part of all packets such as 5% or 0.25%")]
pub struct NoLoss;

impl FromStr for Loss {
    type Err = NoLoss;

    fn from_str(text: &str) -> Result<Self, NoLoss> {
        let text = text.strip_suffix('%').ok_or(NoLoss)?;
        let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |text: &str| text.parse::<u16>().ok().filter(|_| digits(text));
        let hundredths = match rest.len() {
            1 => number(rest).map(|tenths| tenths * 10),
            2 => number(rest),
            _ => None,
        };
        let loss =
            number(whole).zip(hundredths).map(|(whole, hundredths)| u32::from(whole) * 100 + u32::from(hundredths));
        loss.and_then(|loss| u16::try_from(loss).ok()).map(Self).filter(|loss| loss.is_sound()).ok_or(NoLoss)
    }
}

/// How Zeek nodes are to be, and what is too little; `None` is the default of each.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ZeekHealth {
    /// From one heartbeat of a node to the next.
    pub heartbeat: Option<Duration>,
    /// Who loses more than this is told of.
    pub loss_above: Option<Loss>,
    /// Once it has done so for this long, and again once it has not for as long.
    pub loss_for: Option<Duration>,
}

impl ZeekHealth {
    /// The defaults.
    pub const HEARTBEAT: Duration = Duration::from_secs(5);
    pub const LOSS_ABOVE: Loss = Loss(500);
    pub const LOSS_FOR: Duration = Duration::from_secs(60);

    pub fn heartbeat(&self) -> Duration {
        self.heartbeat.unwrap_or(Self::HEARTBEAT)
    }

    pub fn loss_above(&self) -> Loss {
        self.loss_above.unwrap_or(Self::LOSS_ABOVE)
    }

    pub fn loss_for(&self) -> Duration {
        self.loss_for.unwrap_or(Self::LOSS_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_read_back_as_they_were_written() {
        for text in ["0%", "5%", "0.25%", "0.5%", "99.99%", "100%"] {
            assert_eq!(text.parse::<Loss>().unwrap().to_string(), text);
        }
        for text in ["", "%", "5", "101%", "100.01%", "-1%", "+1%", "1.%", ".5%", "1.234%", "5 %", "5%%", "9999%"] {
            assert_eq!(text.parse::<Loss>(), Err(NoLoss), "{text}");
        }
    }

    #[test]
    fn loss_is_of_all_packets_and_of_none_there_is_none() {
        let packets = |received, dropped| Packets { received, dropped };
        assert_eq!(packets(0, 0).loss(), None);
        assert_eq!(packets(3, 1).loss(), Some(Loss(2500)));
        assert_eq!(packets(u64::MAX, u64::MAX).loss(), Some(Loss(5000)));
        assert_eq!(packets(0, 7).loss(), Some(Loss::ALL));
        assert_eq!(packets(10, 3).since(packets(4, 1)), packets(6, 2));
        assert_eq!(packets(10, 3).since(packets(11, 4)), packets(10, 3), "it began anew");
    }
}

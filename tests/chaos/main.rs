//! Chaos: whatever is killed, stopped and restarted at whatever moment, an outside checker that reads only /proc and the
//! event stream finds nothing lost, doubled, out of order, orphaned or wrongly signalled.
//!
//! A run is its seed, which a failure prints: `WATCHPOST_CHAOS_SEED` runs one again, `WATCHPOST_CHAOS_ROUNDS` says for how long.
//! What the machine makes of it still differs from run to run, so the same seed is the same plan, not the same outcome.

#[path = "../simulation/chance.rs"]
#[allow(dead_code, reason = "only a part of it is needed here")]
mod chance;
#[path = "../common/mod.rs"]
#[allow(dead_code, unused_imports, reason = "only a part of it is needed here")]
mod common;

mod checker;
mod fleet;
mod numbers;
mod reuse;

use std::time::{SystemTime, UNIX_EPOCH};

use chance::Chance;
use common::apart;
use fleet::Chaos;

/// Enough to meet most of what can be met in the time that a test may take.
const ROUNDS: u64 = 8;

#[test]
fn nothing_is_lost_doubled_orphaned_or_wrongly_signalled_whatever_is_killed_and_whenever() {
    apart::as_init("nothing_is_lost_doubled_orphaned_or_wrongly_signalled_whatever_is_killed_and_whenever", || {
        let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let moment = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::from(time.subsec_nanos()));
        let seed = number("WATCHPOST_CHAOS_SEED").unwrap_or(moment);
        let rounds = number("WATCHPOST_CHAOS_ROUNDS").unwrap_or(ROUNDS);
        let named = Named(seed, rounds);
        let mut chaos = Chaos::start(Chance::new(seed));
        for round in 0..rounds {
            chaos.round();
            eprintln!("round {round}: {}", chaos.figures());
        }
        chaos.end();
        drop(named);
    });
}

/// Names the seed if the run fails.
struct Named(u64, u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was WATCHPOST_CHAOS_SEED={} WATCHPOST_CHAOS_ROUNDS={}", self.0, self.1);
        }
    }
}

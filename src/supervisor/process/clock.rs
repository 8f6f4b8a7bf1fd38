//! The clock that goes on while the machine sleeps, and that nobody sets: the one by which the kernel says when a process
//! began.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since boot.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // Neither is negative.
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// How long ago a process began, by its start time in clock ticks since boot.
pub fn age(start_time: u64) -> Duration {
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    since_boot().saturating_sub(Duration::from_millis(start_time.saturating_mul(1000) / ticks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::process::stat::Stat;

    #[test]
    fn this_process_began_after_the_machine_and_before_now() {
        let own = Stat::of(std::process::id()).unwrap().unwrap();
        assert!(age(own.start_time) < since_boot());
        assert_eq!(age(u64::MAX), Duration::ZERO, "who begins later is not old");
    }
}

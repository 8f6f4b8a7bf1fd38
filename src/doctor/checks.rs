//! What facts about a machine mean for those who run nodes on it.

use std::time::{Duration, SystemTime};

use super::facts::{CLOCK_SLACK, Facts};
use crate::model::{Bytes, Capability, Quota};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Ok,
    /// Something is missing that not everybody needs.
    Warn,
    /// A promise will not be kept.
    Fail,
}

impl Verdict {
    /// In small letters, as it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Names the check, the same in every release.
    pub check: &'static str,
    pub verdict: Verdict,
    /// What is so.
    pub text: String,
    /// The way out; empty if there is nothing to get out of.
    pub advice: String,
}

/// Nodes by the thousand need a descriptor each.
const ENOUGH_DESCRIPTORS: u64 = 4096;
/// With less room than this on its disk an agent will soon write nothing any more, in bytes.
const LITTLE_ROOM: u64 = 1 << 30;
const NO_ROOM: u64 = 16 << 20;
/// No clock that is right shows less than this, in seconds since 1970: the year 2025.
const EARLIEST: Duration = Duration::from_secs(1_735_689_600);
/// What an agent that is not root needs to be for nodes with a `user`.
const OTHERS: [&str; 3] = ["setuid", "setgid", "kill"];

/// Every check, in the order in which they are shown.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = service(facts);
    findings.push(killing(facts));
    findings.extend(Quota::ALL.map(|quota| limit(facts, quota)));
    findings.extend([pidfd(facts), reaped(facts), kernel_log(facts), core(facts), descriptors(facts)]);
    findings.extend([state_dir(facts), room(facts), clock(facts), rights(facts), yama(facts)]);
    findings
}

fn ok(check: &'static str, text: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Ok, text: text.into(), advice: String::new() }
}

fn bad(check: &'static str, verdict: Verdict, text: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, verdict, text: text.into(), advice: advice.into() }
}

fn service(facts: &Facts) -> Vec<Finding> {
    let Some(unit) = &facts.unit else {
        return vec![ok("service", "systemd has no unit for an agent here")];
    };
    let name = &unit.name;
    let parted = |sentence: &str| match sentence.split_once("; ") {
        Some((what, advice)) => (what.to_owned(), advice.to_owned()),
        None => (sentence.to_owned(), String::new()),
    };
    let judged = |check, verdict, sentence: Option<String>, fine: String| match sentence {
        Some(sentence) => {
            let (what, advice) = parted(&sentence);
            bad(check, verdict, what, advice)
        }
        None => ok(check, fine),
    };
    let [kill, oom] = [&unit.kill_mode, &unit.oom_policy];
    vec![
        judged(
            "service",
            Verdict::Fail,
            unit.ends_nodes(facts.apart),
            format!("{name} (KillMode={kill}) spares nodes"),
        ),
        judged(
            "service-oom",
            Verdict::Warn,
            unit.ends_all_for_one(facts.apart),
            format!("{name} (OOMPolicy={oom}) outlives a node that runs out of memory"),
        ),
    ]
}

fn killing(facts: &Facts) -> Finding {
    match &facts.abilities.killing {
        Ok(home) => ok("cgroup-kill", format!("each node is ended by its control group in {home}")),
        Err(why) => bad(
            "cgroup-kill",
            Verdict::Warn,
            format!("nodes have no control groups: {why}"),
            "what a node started is found by session and marker alone; give the agent a cgroup2 tree that it may write to",
        ),
    }
}

fn limit(facts: &Facts, quota: Quota) -> Finding {
    let check = match quota {
        Quota::Memory => "cgroup-memory",
        Quota::Cpu => "cgroup-cpu",
        Quota::Pids => "cgroup-pids",
    };
    let (key, controller) = (quota.key(), quota.controller());
    match facts.abilities.lacking.get(&quota) {
        None => ok(check, format!("nodes can be limited by {key}")),
        Some(why) => bad(
            check,
            Verdict::Warn,
            format!("nodes with {key} will not start: {why}"),
            format!("boot with the cgroup2 hierarchy alone, and hand the {controller} controller on (Delegate=yes)"),
        ),
    }
}

fn pidfd(facts: &Facts) -> Finding {
    match facts.pidfd {
        true => ok("pidfd", "processes are named by descriptors, not by numbers"),
        false => bad(
            "pidfd",
            Verdict::Fail,
            "there are no pidfds",
            "use Linux 5.9 or later, and a sandbox that permits them",
        ),
    }
}

fn reaped(facts: &Facts) -> Finding {
    match facts.tells_reaped {
        true => ok("exit-status", "the kernel tells how adopted nodes ended"),
        false => bad(
            "exit-status",
            Verdict::Warn,
            "how a node ended that an earlier agent had launched may be unknown",
            "use Linux 6.15 or later",
        ),
    }
}

fn kernel_log(facts: &Facts) -> Finding {
    match facts.kernel_log {
        true => ok("kernel-log", "the kernel's log names whom it killed because memory ran out"),
        false => bad(
            "kernel-log",
            Verdict::Warn,
            "/dev/kmsg cannot be read, or speaks of another pid namespace: a node that the kernel killed is known only by \
             its group's count",
            "run the agent as root, outside of a container, or with the memory controller",
        ),
    }
}

fn core(facts: &Facts) -> Finding {
    let check = "core-pattern";
    match facts.core_pattern.as_deref() {
        Some(pattern) if pattern.starts_with("|/bin/false") || pattern.is_empty() => bad(
            check,
            Verdict::Warn,
            "crashes leave no core file (kernel.core_pattern)",
            "set kernel.core_pattern to a file name, or install systemd-coredump",
        ),
        Some(pattern) if pattern.starts_with('|') => {
            let program = pattern.trim_start_matches('|').split(' ').next().unwrap_or_default();
            ok(check, format!("core files go to {program}"))
        }
        Some(pattern) => ok(check, format!("core files are written as {pattern}")),
        None => bad(check, Verdict::Warn, "kernel.core_pattern cannot be read", "mount /proc"),
    }
}

fn descriptors(facts: &Facts) -> Finding {
    let check = "descriptors";
    match facts.descriptors {
        Some(most) if most < ENOUGH_DESCRIPTORS => bad(
            check,
            Verdict::Warn,
            format!("an agent may have {most} files open, and needs one for each node"),
            "raise the hard limit on open files (LimitNOFILE=, ulimit -Hn)",
        ),
        Some(most) => ok(check, format!("up to {most} files may be open")),
        None => ok(check, "any number of files may be open"),
    }
}

fn state_dir(facts: &Facts) -> Finding {
    let path = facts.state_dir.path.display();
    match (facts.state_dir.writable, facts.state_dir.is_there) {
        (true, true) => ok("state-dir", format!("{path} can be written")),
        (true, false) => ok("state-dir", format!("it is not there yet, and can be made in {path}")),
        (false, _) => bad(
            "state-dir",
            Verdict::Fail,
            format!("{path} cannot be written"),
            "run as the user that owns it, or choose another by `state_dir`",
        ),
    }
}

fn room(facts: &Facts) -> Finding {
    let check = "disk";
    let Some((free, _)) = facts.state_dir.room else {
        return bad(
            check,
            Verdict::Warn,
            "how much room there is cannot be found out",
            "look at the disk of the state directory",
        );
    };
    let said = format!("{} MiB are free for the state directory", Bytes(free).0 >> 20);
    let advice = "make room, or move the state directory by `state_dir`";
    match free {
        ..NO_ROOM => bad(check, Verdict::Fail, said, advice),
        NO_ROOM..LITTLE_ROOM => bad(check, Verdict::Warn, said, advice),
        _ => ok(check, said),
    }
}

fn clock(facts: &Facts) -> Finding {
    let check = "clock";
    let advice = "set the clock, and have it kept by NTP: certificates and the ages of logs go by it";
    if facts.now < SystemTime::UNIX_EPOCH + EARLIEST {
        return bad(check, Verdict::Fail, "the clock shows a time long past", advice);
    }
    match facts.last_change {
        Some(last) if last > facts.now + CLOCK_SLACK => {
            bad(check, Verdict::Warn, "the clock is behind the last change in the state directory", advice)
        }
        _ => ok(check, "the clock goes on from where it was"),
    }
}

fn rights(facts: &Facts) -> Finding {
    let has = |name: &&str| Capability::named(name).is_some_and(|one| facts.capabilities >> one.number() & 1 == 1);
    let lacks: Vec<_> = OTHERS.iter().filter(|name| !has(name)).copied().collect();
    match (facts.root, lacks.is_empty()) {
        (true, true) => ok("rights", "it is root, so nodes can run as any user"),
        (false, true) => ok("rights", "nodes can run as other users"),
        _ => bad(
            "rights",
            Verdict::Warn,
            format!("nodes with a `user` will not start: it lacks the capabilities {}", lacks.join(", ")),
            "run the agent as root, or have all nodes run as its own user",
        ),
    }
}

fn yama(facts: &Facts) -> Finding {
    let check = "yama";
    match facts.ptrace_scope {
        None | Some(0) => ok(check, "processes may be looked into by their user"),
        Some(1 | 2) if facts.root => ok(check, "root may look into processes"),
        Some(scope) => bad(
            check,
            Verdict::Warn,
            format!("a debugger cannot look into nodes that hang (kernel.yama.ptrace_scope={scope})"),
            "run as root, with a ptrace_scope of at most 2, where that is wanted",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::super::facts::StateDir;
    use super::super::service::Unit;
    use super::*;
    use crate::model::Abilities;

    fn healthy() -> Facts {
        Facts {
            unit: None,
            abilities: Abilities { killing: Ok("/sys/fs/cgroup/watchpost/x".into()), lacking: BTreeMap::new() },
            apart: true,
            pidfd: true,
            tells_reaped: true,
            kernel_log: true,
            core_pattern: Some("core".into()),
            descriptors: Some(524_288),
            state_dir: StateDir {
                path: PathBuf::from("/var/lib/watchpost"),
                is_there: true,
                writable: true,
                room: Some((100 << 30, 200 << 30)),
            },
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            last_change: None,
            root: true,
            capabilities: u64::MAX,
            ptrace_scope: Some(1),
        }
    }

    /// What is wrong, when this is changed.
    fn wrong(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Verdict)> {
        let mut facts = healthy();
        change(&mut facts);
        let findings = examine(&facts);
        for finding in &findings {
            assert_eq!(finding.advice.is_empty(), finding.verdict == Verdict::Ok, "a way out of it: {finding:?}");
        }
        let wrong = findings.into_iter().filter(|finding| finding.verdict != Verdict::Ok);
        wrong.map(|finding| (finding.check, finding.verdict)).collect()
    }

    #[test]
    fn each_thing_that_is_wrong_is_found_and_nothing_else() {
        use Verdict::{Fail, Warn};
        let unit = |kill: &str, oom: &str| {
            Some(Unit { name: "w.service".into(), kill_mode: kill.into(), oom_policy: oom.into() })
        };
        let none: [(&str, Verdict); 0] = [];
        assert_eq!(wrong(|_| {}), none);
        assert_eq!(wrong(|facts| facts.unit = unit("control-group", "stop")), none, "nodes are apart");
        let together = wrong(|facts| (facts.unit, facts.apart) = (unit("control-group", "stop"), false));
        assert_eq!(together, [("service", Fail), ("service-oom", Warn)]);
        assert_eq!(wrong(|facts| (facts.unit, facts.apart) = (unit("process", "continue"), false)), none);
        assert_eq!(wrong(|facts| facts.abilities.killing = Err("no".into())), [("cgroup-kill", Warn)]);
        let lacks = |facts: &mut Facts| drop(facts.abilities.lacking.insert(Quota::Memory, "no".into()));
        assert_eq!(wrong(lacks), [("cgroup-memory", Warn)]);
        assert_eq!(wrong(|facts| facts.pidfd = false), [("pidfd", Fail)]);
        assert_eq!(wrong(|facts| facts.tells_reaped = false), [("exit-status", Warn)]);
        assert_eq!(wrong(|facts| facts.kernel_log = false), [("kernel-log", Warn)]);
        for pattern in [None, Some(""), Some("|/bin/false")] {
            assert_eq!(wrong(|facts| facts.core_pattern = pattern.map(str::to_owned)), [("core-pattern", Warn)]);
        }
        assert_eq!(wrong(|facts| facts.core_pattern = Some("|/lib/systemd/systemd-coredump %P".into())), none);
        assert_eq!(wrong(|facts| facts.descriptors = Some(1024)), [("descriptors", Warn)]);
        assert_eq!(wrong(|facts| facts.descriptors = None), none);
        assert_eq!(wrong(|facts| facts.state_dir.writable = false), [("state-dir", Fail)]);
        assert_eq!(wrong(|facts| facts.state_dir.is_there = false), none);
        assert_eq!(wrong(|facts| facts.state_dir.room = Some((500 << 20, 1 << 40))), [("disk", Warn)]);
        assert_eq!(wrong(|facts| facts.state_dir.room = Some((1 << 20, 1 << 40))), [("disk", Fail)]);
        assert_eq!(wrong(|facts| facts.state_dir.room = None), [("disk", Warn)]);
        assert_eq!(wrong(|facts| facts.now = SystemTime::UNIX_EPOCH), [("clock", Fail)]);
        let hour = Duration::from_secs(3600);
        assert_eq!(wrong(|facts| facts.last_change = Some(facts.now + hour)), [("clock", Warn)]);
        assert_eq!(wrong(|facts| facts.last_change = Some(facts.now - hour)), none);
        assert_eq!(wrong(|facts| (facts.root, facts.capabilities) = (false, 0)), [("rights", Warn), ("yama", Warn)]);
        assert_eq!(wrong(|facts| facts.root = false), [("yama", Warn)]);
        assert_eq!(wrong(|facts| facts.ptrace_scope = Some(3)), [("yama", Warn)]);
        assert_eq!(wrong(|facts| facts.ptrace_scope = None), none);
    }
}

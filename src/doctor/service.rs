//! What the service that an agent runs in does to its nodes, when it is stopped or runs out of memory.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The unit that is shipped for agents.
pub const USUAL_UNIT: &str = "watchpost-agent.service";
/// How long systemd may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A unit, as systemd has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub name: String,
    pub kill_mode: String,
    pub oom_policy: String,
}

impl Unit {
    /// Asks systemd; `None` if there is no systemd, or it knows no such unit.
    pub fn ask(name: &str) -> Option<Self> {
        let (told, answer) = mpsc::channel();
        let unit = name.to_owned();
        // Where systemd hangs the thread does, and nobody waits for it for long.
        std::thread::Builder::new().name("systemctl".into()).spawn(move || drop(told.send(show(&unit)))).ok()?;
        Self::parse(name, &answer.recv_timeout(PATIENCE).ok()??)
    }

    /// Takes apart what `systemctl show` says.
    fn parse(name: &str, said: &str) -> Option<Self> {
        let value = |key: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.map(|value| value.trim().to_owned())
        };
        value("LoadState").filter(|state| state == "loaded")?;
        Some(Self {
            name: name.to_owned(),
            kill_mode: value("KillMode")?,
            oom_policy: value("OOMPolicy").unwrap_or_default(),
        })
    }

    /// One sentence, if nodes end with the service: those that are not `apart`, in control groups outside of its own.
    pub fn ends_nodes(&self, apart: bool) -> Option<String> {
        let Self { name, kill_mode, .. } = self;
        let spares = apart || matches!(&**kill_mode, "process" | "none");
        (!spares).then(|| {
            format!(
                "{name} has KillMode={kill_mode} and nodes are in its control group: to stop or restart it would kill them \
                 all; set KillMode=process, as config/systemd does"
            )
        })
    }

    /// One sentence, if one node that takes too much memory ends the service and all other nodes.
    pub fn ends_all_for_one(&self, apart: bool) -> Option<String> {
        let Self { name, oom_policy, .. } = self;
        let spares = apart || matches!(&**oom_policy, "continue" | "");
        (!spares).then(|| {
            format!(
                "{name} has OOMPolicy={oom_policy} and nodes are in its control group: a node that runs out of memory would \
                 end all; set OOMPolicy=continue"
            )
        })
    }
}

/// The service whose control group this is, by the lines of `/proc/self/cgroup`.
pub fn unit_of(cgroup: &str) -> Option<&str> {
    let path = |prefix: &str| cgroup.lines().find_map(|line| line.split_once(prefix).map(|(_, path)| path));
    // In the older layout systemd has a tree of its own.
    let paths = [path("0::"), path(":name=systemd:")].into_iter().flatten();
    let services = paths.filter_map(|path| path.rsplit('/').find(|part| part.ends_with(".service")));
    services.into_iter().next()
}

/// The sentences for an agent that starts and whose service would end its nodes: with it, unless the agent itself `stops`
/// them then, or with the first of them that takes too much memory.
pub fn warnings(cgroup: &str, apart: bool, stops: bool, ask: impl FnOnce(&str) -> Option<Unit>) -> Vec<String> {
    let unit = unit_of(cgroup).filter(|_| !apart).and_then(ask);
    let sentences = unit.map(|unit| [unit.ends_nodes(apart).filter(|_| !stops), unit.ends_all_for_one(apart)]);
    sentences.into_iter().flatten().flatten().collect()
}

fn show(unit: &str) -> Option<String> {
    let mut systemctl = Command::new("systemctl");
    systemctl.args(["show", "--property=LoadState,KillMode,OOMPolicy", "--", unit]);
    let said = systemctl.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    said.status.success().then(|| String::from_utf8_lossy(&said.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(kill_mode: &str, oom_policy: &str) -> Unit {
        Unit { name: "w.service".into(), kill_mode: kill_mode.into(), oom_policy: oom_policy.into() }
    }

    #[test]
    fn a_service_ends_the_nodes_in_its_group_unless_it_is_told_to_end_its_own_process_alone() {
        for (mode, apart, ends) in [
            ("control-group", false, true),
            ("mixed", false, true),
            ("process", false, false),
            ("none", false, false),
            ("control-group", true, false),
        ] {
            assert_eq!(unit(mode, "stop").ends_nodes(apart).is_some(), ends, "{mode} {apart}");
        }
        assert_eq!(
            unit("control-group", "").ends_nodes(false).unwrap(),
            "w.service has KillMode=control-group and nodes are in its control group: to stop or restart it would kill them \
             all; set KillMode=process, as config/systemd does"
        );
        for (policy, apart, ends) in
            [("stop", false, true), ("kill", false, true), ("continue", false, false), ("stop", true, false)]
        {
            assert_eq!(unit("process", policy).ends_all_for_one(apart).is_some(), ends, "{policy} {apart}");
        }
    }

    #[test]
    fn the_service_is_the_one_whose_group_it_is_in() {
        for (cgroup, want) in [
            ("0::/watchpost.slice/watchpost-agent.service\n", Some("watchpost-agent.service")),
            ("0::/system.slice/a.service/below\n", Some("a.service")),
            ("12:cpu:/x\n1:name=systemd:/system.slice/b.service\n0::/\n", Some("b.service")),
            ("0::/user.slice/user-0.slice/session-1.scope\n", None),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(unit_of(cgroup), want, "{cgroup}");
        }
    }

    #[test]
    fn an_agent_says_at_its_start_what_its_service_would_do() {
        let cgroup = "0::/system.slice/w.service\n";
        let none = Vec::<String>::new();
        let ask = |_: &str| Some(unit("mixed", "stop"));
        let keys = |warnings: Vec<String>| {
            let key = |it: &String| Some(it.strip_prefix("w.service has ")?.split_once('=')?.0.to_owned());
            warnings.iter().map(|it| key(it).unwrap_or_else(|| panic!("{it}"))).collect::<Vec<_>>()
        };
        assert_eq!(keys(warnings(cgroup, false, false, ask)), ["KillMode", "OOMPolicy"]);
        assert_eq!(keys(warnings(cgroup, false, true, ask)), ["OOMPolicy"], "it stops them itself");
        assert_eq!(keys(warnings(cgroup, false, false, |_| Some(unit("process", "kill")))), ["OOMPolicy"]);
        assert_eq!(warnings(cgroup, false, false, |_| Some(unit("process", "continue"))), none);
        assert_eq!(warnings(cgroup, true, false, ask), none, "they have groups of their own");
        assert_eq!(warnings(cgroup, false, false, |_| None), none, "nobody can say");
        assert_eq!(warnings("0::/\n", false, false, ask), none, "it is in no service");
    }

    #[test]
    fn what_systemd_says_is_taken_apart() {
        let said = "KillMode=process\nLoadState=loaded\nOOMPolicy=continue\n";
        assert_eq!(Unit::parse("w.service", said), Some(unit("process", "continue")));
        assert_eq!(Unit::parse("w.service", "KillMode=control-group\nLoadState=not-found\n"), None);
        assert_eq!(Unit::parse("w.service", ""), None);
    }
}

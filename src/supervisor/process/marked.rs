//! Finds nodes' processes by what they carry in their environment: for when no record tells of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use super::family::{environment, numbers_in};
use super::stat::Stat;
use crate::model::{Life, NodeName};

/// So much of a command line is read, in bytes.
const LONGEST_COMMAND_LINE: u64 = 64 << 10;

/// The first process of a node's life, as its environment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    pub life: Life,
    pub pid: u32,
    pub start_time: u64,
}

/// By node, the leader of its last life, of the nodes that this agent launched and that run: those whose `WATCHPOST_NODE`
/// is `<cluster>/<node>/<life>` and whose `WATCHPOST_PLACE` is `place`.
///
/// A leader leads a session. What it started may lead one as well, and began later. Looks at every process of the machine,
/// as far as we may.
pub fn leaders(cluster: &str, place: &str) -> io::Result<BTreeMap<NodeName, Marked>> {
    let mut found = BTreeMap::<NodeName, Marked>::new();
    for pid in numbers_in("/proc")? {
        let Some(stat) = Stat::of(pid)?.filter(|stat| stat.session == pid && !stat.is_dead()) else { continue };
        let Some((node, life)) = claim(&environment(pid), cluster, place) else { continue };
        // The number may have been given to another between the two.
        if Stat::of(pid)?.is_none_or(|again| again.start_time != stat.start_time) {
            continue;
        }
        let marked = Marked { life, pid, start_time: stat.start_time };
        let is_better = |other: &Marked| (other.life, marked.start_time) < (life, other.start_time);
        match found.get(&node) {
            Some(other) if !is_better(other) => {}
            _ => drop(found.insert(node, marked)),
        }
    }
    Ok(found)
}

/// The words by which a process was started, or what it has made of them; never empty.
pub fn command_line(pid: u32) -> Vec<String> {
    let mut line = Vec::new();
    // Of one that is gone, or that nobody may look at, there is nothing to read.
    let _ = File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(LONGEST_COMMAND_LINE).read_to_end(&mut line));
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    if words.is_empty() { vec!["?".into()] } else { words }
}

/// The node and the life that an environment claims to be of, if it is of this cluster and this place.
fn claim(environment: &[u8], cluster: &str, place: &str) -> Option<(NodeName, Life)> {
    let value = |name: &[u8]| {
        let found = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(name));
        found.and_then(|value| std::str::from_utf8(value).ok())
    };
    if value(b"WATCHPOST_PLACE=")? != place {
        return None;
    }
    let (node, life) = value(b"WATCHPOST_NODE=")?.strip_prefix(cluster)?.strip_prefix('/')?.rsplit_once('/')?;
    Some((NodeName::new(node).ok()?, Life(life.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::super::identity::Identity;
    use super::super::spawn::spawn;
    use super::super::testing::{finish, number_in, script};
    use super::*;

    #[test]
    fn an_environment_claims_a_node_of_its_own_cluster_and_place_alone() {
        let node = |name| NodeName::new(name).unwrap();
        let claim = |text: &str| claim(text.replace('|', "\0").as_bytes(), "a/b", "1-2");
        assert_eq!(claim("X=1|WATCHPOST_PLACE=1-2|WATCHPOST_NODE=a/b/w/7|"), Some((node("w"), Life(7))));
        for other in [
            "WATCHPOST_NODE=a/b/w/7",
            "WATCHPOST_PLACE=1-3|WATCHPOST_NODE=a/b/w/7",
            "WATCHPOST_PLACE=1-2|WATCHPOST_NODE=a/c/w/7",
            "WATCHPOST_PLACE=1-2|WATCHPOST_NODE=a/bw/7",
            "WATCHPOST_PLACE=1-2|WATCHPOST_NODE=a/b/w",
            "WATCHPOST_PLACE=1-2|WATCHPOST_NODE=a/b/w/-7",
            "WATCHPOST_PLACE=1-2|WATCHPOST_NODE=a/b//7",
            "XWATCHPOST_PLACE=1-2|WATCHPOST_NODE=a/b/w/7",
            "",
        ] {
            assert_eq!(claim(other), None, "{other}");
        }
    }

    #[test]
    fn the_leader_of_the_last_life_is_found_and_not_what_it_started() {
        let home = tempfile::tempdir().unwrap();
        let place = format!("test-{}", std::process::id());
        let start = |text: &str, life: u64| {
            let mut program = script(home.path(), text);
            program.env.insert("WATCHPOST_NODE".into(), format!("test/w/{life}"));
            program.env.insert("WATCHPOST_PLACE".into(), place.clone());
            spawn(&program, None).unwrap()
        };
        let older = start("exec sleep 1000", 7);
        let leader = start("setsid sh -c 'echo $$ > child; exec sleep 1000' & wait", 8);
        let child = number_in(&home.path().join("child"));
        let found = leaders("test", &place).unwrap();
        let want = Marked { life: Life(8), pid: leader.pid(), start_time: leader.start_time() };
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(NodeName::new("w").unwrap(), want)]);
        assert_eq!(leaders("other", &place).unwrap().len(), 0);
        assert_eq!(command_line(leader.pid())[0], "/bin/sh");
        assert_eq!(command_line(u32::MAX), ["?"]);
        for process in [&older, &leader] {
            process.kill().unwrap();
            finish(process);
        }
        let child = Identity::new(child, Stat::of(child).unwrap().unwrap().start_time);
        super::super::Process::adopt(child).unwrap().unwrap().kill().unwrap();
    }
}

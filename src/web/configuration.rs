//! Cluster files at the edge: the text of one becomes a configuration, and back.

use std::collections::{BTreeMap, BTreeSet};

use super::desk::random_hex;
use super::json::{ConfigurationText, FoundFiles};
use super::problem::Problem;
use crate::bundle::{BundleId, NoBundle};
use crate::model::cluster_file::Judged;
use crate::model::{Configuration, ConfigurationId, cluster_file};
use crate::plan::validate::{About, Complaint};
use crate::plan::{self, PortRules};

/// Makes a configuration of a cluster file, under a new id; the problem lists every complaint.
///
/// `hostname` names the default instance of a file that declares none.
pub fn parse(body: &ConfigurationText, hostname: &str, rules: &PortRules) -> Result<Configuration, Problem> {
    let id = ConfigurationId::new(&random_hex()?)?;
    let Checked { configuration, complaints } = check_with(&body.text, &body.file, hostname, id, rules, found(body)?);
    match complaints.is_empty() {
        true => Ok(configuration),
        false => Err(Problem::Unreadable { file: body.file.clone(), complaints }),
    }
}

/// Reads a cluster file and checks it as a whole, both in one go: every complaint with its place, sorted by line.
pub fn read(
    text: impl AsRef<[u8]>,
    file: &str,
    hostname: &str,
    id: ConfigurationId,
    rules: &PortRules,
) -> Result<Configuration, Vec<String>> {
    let Checked { configuration, complaints } = check(text, file, hostname, id, rules);
    if complaints.is_empty() { Ok(configuration) } else { Err(complaints) }
}

/// What a cluster file says, and what is wrong with it.
pub struct Checked {
    /// All of it, or what was understood.
    pub configuration: Configuration,
    /// As [`read`] has them.
    pub complaints: Vec<String>,
}

/// The same for whoever goes on with what was understood.
pub fn check(text: impl AsRef<[u8]>, file: &str, hostname: &str, id: ConfigurationId, rules: &PortRules) -> Checked {
    check_with(text, file, hostname, id, rules, Found::new())
}

/// What was found where nodes' files are: a bundle, or what is wrong with them.
pub type Found = BTreeMap<Vec<String>, Result<BundleId, Vec<String>>>;

/// What somebody says who sends a cluster file.
pub(super) fn found(body: &ConfigurationText) -> Result<Found, Problem> {
    let one = |FoundFiles { paths, bundle, wrong }: &FoundFiles| {
        let bundle = match bundle {
            Some(bundle) if wrong.is_empty() => {
                let bundle = bundle.parse();
                Ok(bundle.map_err(|error: NoBundle| Problem::Malformed(format!("`bundle` is no bundle: {error}")))?)
            }
            _ => Err(wrong.clone()),
        };
        Ok((paths.clone(), bundle))
    };
    body.bundles.iter().map(one).collect()
}

/// The same with what was found of files, which nodes get that do not name a bundle.
pub fn check_with(
    text: impl AsRef<[u8]>,
    file: &str,
    hostname: &str,
    id: ConfigurationId,
    rules: &PortRules,
    found: Found,
) -> Checked {
    let mut reading = cluster_file::read(file, text, id, hostname);
    let mut said = BTreeSet::new();
    reading.give_files(|paths| found.get(paths).and_then(|found| found.as_ref().ok().copied()));
    let Judged { configuration: judged, in_part, is_whole } = reading.to_judge();
    // Before more is complained of.
    let understood = (!is_whole).then(|| reading.understood());
    for node in &judged.nodes {
        let paths = node.files.as_ref().filter(|files| files.bundle.is_none()).map(|files| &files.paths);
        // Once for all nodes that are to have the same.
        let wrong = paths.filter(|paths| said.insert(*paths)).and_then(|paths| found.get(paths)?.as_ref().err());
        for what in wrong.into_iter().flatten() {
            reading.complain_of_node(node.name.as_str(), Some("files"), what);
        }
    }
    for Complaint { what, about } in plan::examine_as(&judged, rules, is_whole) {
        match about {
            About::Instance(name) => reading.complain_of_instance(name.as_str(), what),
            About::Node(name) => reading.complain_of_node(name.as_str(), None, what),
            About::Zeek(key) => reading.complain_of_zeek(key, what),
            About::Key(name, key) => reading.complain_of_node(name.as_str(), Some(key), what),
        }
    }
    for (node, doubts) in in_part {
        for (key, what) in plan::examine_alone(&node).into_iter().filter(|(key, _)| doubts.leave(key)) {
            reading.complain_of_node(node.name.as_str(), Some(key), what);
        }
    }
    match reading.finish() {
        Ok(configuration) => Checked { configuration, complaints: Vec::new() },
        Err(error) => {
            let mut understood = understood.unwrap_or(judged);
            // Nobody goes on to say of these that they were not read.
            let is_wrong = |paths: &Vec<String>| found.get(paths).is_some_and(Result::is_err);
            understood.nodes.retain(|node| {
                let files = node.files.as_ref().filter(|files| files.bundle.is_none());
                !files.is_some_and(|files| is_wrong(&files.paths))
            });
            let complaints = error.to_string().lines().map(str::to_owned).collect();
            Checked { configuration: understood, complaints }
        }
    }
}

/// Writes a configuration as a cluster file.
pub fn write(configuration: &Configuration) -> String {
    cluster_file::render(configuration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str, rules: PortRules) -> Vec<String> {
        read(text, "c.cfg", "host", ConfigurationId::new("1").unwrap(), &rules).unwrap_err()
    }

    #[test]
    fn what_is_wrong_with_a_line_and_with_the_whole_is_said_at_once_with_its_place() {
        let text = "[instances]\ni\n[a]\ninstance = i\nrole = worker\nport = 5000\n\
                    [b]\ninstance = i\nrole = wroker\nport = 5000\n\
                    [c]\ninstance = i\nrole = worker\nport = 5000\nready = settle 500ms\nready_within = 1ms\n\
                    [d]\ninstance = j\nrole = none\ncommand = sleep 9\nready = settle 1m\n";
        assert_eq!(
            complaints(text, PortRules::default()),
            [
                "c.cfg:9: [b] role: `wroker` is not a role: did you mean `worker`?",
                "c.cfg:10: [b] port: multiple nodes on instance 'i' using port 5000/tcp",
                "c.cfg:16: [c] ready_within: node 'c' cannot be ready in time: it settles in 500ms, and ready_within \
                 is 1ms",
                "c.cfg:17: [d]: node 'd' cannot be ready in time: it settles in 1m, and ready_within is 10s",
                "c.cfg:18: [d] instance: node 'd' has undeclared instance name 'j'",
            ]
        );
    }

    #[test]
    fn what_a_node_says_of_ports_and_instances_is_judged_whatever_else_it_says() {
        let text = "[instances]\ni\n[a]\ninstance = i\nfoo = 1\nport = 5000\n\
                    [b]\ninstance = i\nrole = worker\nport = 5000\nmetrics_port = 6000\n\
                    [c]\ninstance = j\nrole = worker\nbar = 1\n[d]\ninstance = k\nrole = worker\n\
                    [e]\ninstance = i\nrole = worker\nnice = 99\nmetrics_port = 6000\n";
        assert_eq!(
            complaints(text, PortRules::default()),
            [
                "c.cfg:3: [a]: has no role: add `role = worker` (or logger, manager, proxy), or the `command` of another \
                 program",
                "c.cfg:5: [a] foo: is not a key of a node: the nearest are options, output_compress, role",
                "c.cfg:10: [b] port: multiple nodes on instance 'i' using port 5000/tcp",
                "c.cfg:13: [c] instance: node 'c' has undeclared instance name 'j'",
                "c.cfg:15: [c] bar: is not a key of a node: the nearest are args, probe_failures, port",
                "c.cfg:17: [d] instance: node 'd' has undeclared instance name 'k'",
                "c.cfg:22: [e] nice: `99` is no niceness: write a number from -20 to 19",
                "c.cfg:23: [e] metrics_port: multiple nodes on instance 'i' using metrics port 6000/tcp",
            ]
        );
    }

    #[test]
    fn what_shows_in_a_node_alone_is_said_beside_what_was_not_understood_of_it() {
        let complaints = |lines: &str| complaints(&format!("[a]\nrole = worker\n{lines}"), PortRules::default());
        let got = complaints("foo = 1\nmemory_max = 1\nready = settle 1m\ngroups = staff\ncapabilities = all");
        assert_eq!(got.len(), 5, "{got:#?}");
        // Whoever had been understood might have made it right.
        for (lines, count) in [
            ("usr = me\ngroups = staff\nmemory_max = 1", 2),
            ("redy_within = 2m\nready = settle 1m", 1),
            ("ready_within = 2x\nready = settle 1m", 1),
            ("restart_limt = 3\nrestart_limit = 0\nrestart_delay = 0s", 1),
            ("cpu_affinty = 1\ncpu_max = 0%%", 2),
        ] {
            let got = complaints(lines);
            assert_eq!(got.len(), count, "{lines}: {got:#?}");
        }
    }

    #[test]
    fn what_was_not_understood_makes_nothing_else_look_wrong() {
        for text in [
            "[instances]\ni j\nk = somewhere\n[a]\ninstance = k\nrole = worker\n",
            "[instances]\ni\n[instances]\nk\n[a]\ninstance = k\nrole = worker\n",
            "[_]\nrole = worker\n[a b]\nrole = worker\n",
            "[a]\nrole = worker\nport = 1\n[b]\nrole = worker\nport = 1\nport = 2\n",
            "[instances]\ni\n[a]\nrole = worker\n[b]\nrole = worker\n",
            "[instances\ni\n[a]\ninstance = i\nrole = worker\n",
            "[a]\ninstance = i\nrole = worker\n[instances]\ni\n[b]\nport = 3\n[c]\nport = 3\n[b]\nport = 4\n",
            "[zeek]\nbackend = zeromq\n[m]\nrole = manger\n[w]\nrole = worker\n",
            "[instances]\ni j\n[zeek]\naddresses = j=10.0.0.1\n[m]\ninstance = i\nrole = manager\n",
        ] {
            let got = complaints(text, PortRules::default());
            let whole = ["undeclared", "multiple", "collide", "no manager"];
            assert!(!got.iter().any(|got| whole.iter().any(|whole| got.contains(whole))), "{text}: {got:?}");
        }
    }

    #[test]
    fn nodes_whose_files_are_wrong_are_not_looked_at_any_further() {
        let text = "[role worker]\nfiles = gone\n[a]\nrole = worker\n[b]\nrole = none\ncommand = true\nfiles = there\n";
        let bundle: BundleId = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let found = [("gone", Err(vec!["gone: it is not there".to_owned()])), ("there", Ok(bundle))];
        let found: Found = found.into_iter().map(|(path, found)| (vec![path.to_owned()], found)).collect();
        let id = ConfigurationId::new("1").unwrap();
        let Checked { configuration, complaints } = check_with(text, "c.cfg", "host", id, &PortRules::default(), found);
        assert_eq!(complaints, ["c.cfg:2: [role worker] files: gone: it is not there"]);
        let left: Vec<_> = configuration.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(left, ["b"]);
    }

    #[test]
    fn the_rules_for_ports_are_those_of_whoever_will_deploy_it() {
        let text = "[m]\nrole = manager\n[w]\nrole = worker\nport = 7\n";
        let rules = PortRules { controller: Some(7), first_port: None, ..PortRules::default() };
        assert_eq!(
            complaints(text, rules),
            [
                "c.cfg:1: [m]: Broker port auto-assignment disabled but nodes m lack ports",
                "c.cfg:5: [w] port: node 'w' port 7/tcp conflicts with controller port",
            ]
        );
    }
}

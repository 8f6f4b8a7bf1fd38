//! A rehearsal: the scripts of a cluster run over a capture, by one Zeek that belongs to no cluster.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::command::{self, Call};
use super::prepare::networks;
use super::{Installation, script};
use crate::launch::{FILES, FILES_HERE};
use crate::model::{Backend, Node, Zeek};

/// Where what is rendered lies, in the directory of a rehearsal.
const RENDERED: &str = ".watchpost";

/// What is run.
#[derive(Debug)]
pub struct Rehearsal<'a> {
    /// What all nodes share.
    pub zeek: &'a Zeek,
    /// Whose own scripts and options come to it, too.
    pub node: Option<&'a Node>,
    /// Where that finds its files.
    pub files: Option<&'a str>,
    /// A path that Zeek finds from anywhere.
    pub capture: &'a str,
}

impl Rehearsal<'_> {
    /// Renders what it takes below `home`, and returns how to run it there. `inherited` is the PATH that its own comes before.
    pub fn prepare(&self, zeek: &Installation, home: &Path, inherited: Option<&str>) -> Result<Call, String> {
        let networks = networks(self.zeek)?;
        let rendered = home.join(RENDERED);
        // There is no hub, and nobody listens.
        let text = script::settings(self.zeek, &networks, &[], Backend::Broker, zeek.version);
        let settings = rendered.join("watchpost-settings.zeek");
        fs::create_dir_all(&rendered)
            .and_then(|()| fs::write(&settings, text))
            .map_err(|error| format!("cannot write {}: {error}", settings.display()))?;
        let mut argv = vec![zeek.program.clone(), "-r".into(), self.capture.to_owned()];
        for prefix in &self.zeek.prefixes {
            argv.extend(["-p".into(), prefix.clone()]);
        }
        argv.push(settings.display().to_string());
        let own = self.node.iter().flat_map(|node| &node.scripts);
        argv.extend(self.zeek.scripts.iter().chain(own).cloned());
        let own = self.node.iter().flat_map(|node| node.zeek_args());
        argv.extend(without_traces(self.zeek.args.iter().chain(own)));
        let nothing = BTreeMap::new();
        let options = self.node.map_or(&nothing, |node| &node.options);
        // Those are for packets that come from an interface.
        let is_for_captures = |option: &String| !option.starts_with("AF_Packet::");
        argv.extend(command::options(options, self.zeek, None).into_iter().filter(is_for_captures));
        let env = self.node.map_or(&nothing, |node| &node.env);
        let rendered = rendered.display().to_string();
        let mut env = command::environment(env, self.zeek, zeek, &[Some(&*rendered), self.files], inherited);
        env.insert("ZEEKCTL_DISABLE_LISTEN".into(), "1".into());
        if let Some(files) = self.files {
            argv.iter_mut().chain(env.values_mut()).for_each(|text| *text = text.replace(FILES_HERE, files));
            env.insert(FILES.into(), files.into());
        }
        Ok(Call { argv, env })
    }
}

/// Words for a command line without `-w` and its file, which would write the capture once more.
fn without_traces<'a>(words: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut words = words;
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-w" => drop(words.next()),
            _ => kept.push(word.clone()),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::Version;
    use super::*;
    use crate::model::{InstanceName, NodeName, Role};

    #[test]
    fn a_rehearsal_runs_what_nodes_run_over_a_capture_and_belongs_to_no_cluster() {
        let home = tempfile::tempdir().unwrap();
        let zeek = Installation {
            program: "/opt/zeek/bin/zeek".into(),
            prefix: "/opt/zeek".into(),
            version: Version { major: 8, minor: 1 },
        };
        let pair = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
        let shared = Zeek {
            args: ["-C", "-w", "trace.pcap", "b=T"].map(str::to_owned).into(),
            options: pair("A::x", "1"),
            env: pair("TZ", "UTC"),
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            ..Zeek::default()
        };
        let name = NodeName::new("w").unwrap();
        let mut node = Node::new(name, InstanceName::new("i").unwrap(), Role::Worker);
        node.scripts = vec!["extra".into(), "${files}/own".into()];
        node.options = [("A::x".into(), "2".into()), ("AF_Packet::fanout_id".into(), "3".into())].into();
        let rehearsal = Rehearsal { zeek: &shared, node: Some(&node), files: Some("/files"), capture: "/c.pcap" };
        let call = rehearsal.prepare(&zeek, home.path(), Some("/bin")).unwrap();
        let settings = home.path().join(".watchpost/watchpost-settings.zeek");
        let settings = settings.to_str().unwrap();
        assert_eq!(
            call.argv,
            ["/opt/zeek/bin/zeek", "-r", "/c.pcap", settings, "local", "extra", "/files/own", "-C", "b=T", "A::x=2"]
        );
        assert!(fs::read_to_string(settings).unwrap().contains("10.0.0.0/8"));
        assert_eq!((call.env["TZ"].as_str(), call.env["PATH"].as_str()), ("UTC", "/opt/zeek/bin:/bin"));
        assert!(call.env["ZEEKPATH"].contains(":/files:") && call.env["WATCHPOST_FILES"] == "/files");
        assert!(!call.env.contains_key("CLUSTER_NODE") && call.env["ZEEKPATH"].contains("/opt/zeek/share/zeek/site"));
    }
}

//! What `${...}` stands for in the interface and the variables of a Zeek node, so that workers can be written alike.
//!
//! `\${` is a `${` that stands for itself.

use std::collections::BTreeMap;

use crate::hint::{instead, shown};
use crate::launch::FILES_HERE;
use crate::model::{Configuration, Node, NodeName, Role};

/// Every variable there is. An index with a 0 at its end counts from 0, the others from 1.
const VARIABLES: [&str; 6] =
    ["files", "worker_index", "worker_index0", "host_worker_index", "host_worker_index0", "worker_cpu"];

/// A text with each variable replaced by its value; the error names what is no variable, or has no value here.
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let before = &rest[..at];
        if let Some(before) = before.strip_suffix('\\') {
            plain.push_str(before);
            plain.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        plain.push_str(before);
        let (name, behind) =
            rest[at + 2..].split_once('}').ok_or("has a `${` that is never closed: write `\\${` for one")?;
        plain.push_str(&value(name).ok_or_else(|| unknown(name))?);
        rest = behind;
    }
    plain.push_str(rest);
    Ok(plain)
}

/// A text that [`expand`] leaves as it is: of a tool that knows no variables, or has filled its own in.
pub fn escape(text: &str) -> String {
    text.replace("${", "\\${")
}

/// The text that was escaped; as it is if it was not.
pub fn unescape(text: &str) -> String {
    text.replace("\\${", "${")
}

fn unknown(name: &str) -> String {
    match VARIABLES.contains(&name) {
        true if name == "files" => "has the variable `files`, which is nothing here: the node has no `files`".into(),
        true => format!(
            "has the variable {}, which is nothing here: it is for workers, and a CPU if one is given",
            shown(name)
        ),
        false => format!("has {}, which is no variable: {}", shown(name), instead(name, VARIABLES)),
    }
}

/// The variables that a node's texts name, with their values; the error is a key of the node and what is wrong there.
pub fn variables(
    configuration: &Configuration,
    places: &Indices,
    node: &Node,
) -> Result<BTreeMap<String, String>, (&'static str, String)> {
    let shared = configuration.zeek.iter().flat_map(|zeek| zeek.env.values());
    let texts = node.interface.iter().map(|text| ("interface", text));
    let texts = texts.chain(node.env.values().chain(shared).map(|text| ("env", text)));
    let used = std::cell::RefCell::new(BTreeMap::new());
    for (key, text) in texts {
        let value = |name: &str| {
            let value = match name {
                // Where that is only its agent knows.
                "files" => node.files.as_ref().map(|_| FILES_HERE.to_owned())?,
                _ => places.value(node, name)?,
            };
            used.borrow_mut().insert(name.to_owned(), value.clone());
            Some(value)
        };
        expand(text, value).map_err(|what| (key, what))?;
    }
    Ok(used.into_inner())
}

/// Which worker is which of its interface, and of its instance: counted from 0, in the order of names.
pub struct Indices(BTreeMap<NodeName, (usize, usize)>);

impl Indices {
    /// Those of the workers of a configuration, or of a share.
    pub fn of(configuration: &Configuration) -> Self {
        let is_worker = |node: &&Node| node.is_zeek() && node.role == Role::Worker;
        let mut workers: Vec<&Node> = configuration.nodes.iter().map(|node| &**node).filter(is_worker).collect();
        workers.sort_by_key(|node| naturally(node.name.as_str()));
        let (mut of_interface, mut of_instance) = (BTreeMap::new(), BTreeMap::new());
        let index = |node: &Node| {
            let mine: &mut usize = of_interface.entry((node.instance.clone(), node.interface.clone())).or_default();
            let here: &mut usize = of_instance.entry(node.instance.clone()).or_default();
            let indices = (*mine, *here);
            (*mine, *here) = (*mine + 1, *here + 1);
            (node.name.clone(), indices)
        };
        Self(workers.into_iter().map(index).collect())
    }

    fn value(&self, node: &Node, name: &str) -> Option<String> {
        if name == "worker_cpu" {
            return node.cpu_affinity.as_ref().map(|cpus| cpus.to_string());
        }
        let (mine, here) = self.0.get(&node.name)?;
        let index = match name {
            "worker_index" => mine + 1,
            "worker_index0" => *mine,
            "host_worker_index" => here + 1,
            "host_worker_index0" => *here,
            _ => return None,
        };
        Some(index.to_string())
    }
}

/// Names in the order in which people count: worker-2 before worker-10.
fn naturally(name: &str) -> (String, u64, String) {
    let text = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (text.to_owned(), name[text.len()..].parse().unwrap_or(0), name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::cluster;
    use super::*;

    fn value(name: &str) -> Option<String> {
        VARIABLES.contains(&name).then(|| format!("<{name}>"))
    }

    #[test]
    fn variables_are_replaced_and_what_is_escaped_is_not() {
        for (text, want) in [
            ("eth0", "eth0"),
            ("af_packet::eth${worker_index0}", "af_packet::eth<worker_index0>"),
            ("${worker_index}${worker_cpu}x", "<worker_index><worker_cpu>x"),
            (r"\${worker_index} ${worker_index}", "${worker_index} <worker_index>"),
            ("$x {y}", "$x {y}"),
        ] {
            assert_eq!(expand(text, value).as_deref(), Ok(want), "{text}");
        }
        let error = expand("${worker_idx}", value).unwrap_err();
        assert_eq!(error, "has `worker_idx`, which is no variable: did you mean `worker_index`?");
        assert!(expand("${worker_index", value).unwrap_err().contains("never closed"));
    }

    #[test]
    fn workers_count_by_interface_and_by_instance_as_people_count() {
        let mut subject =
            cluster("1", &["w-10 a worker", "w-2 a worker", "w-1 a worker", "w-3 b worker", "m a manager"]);
        for (node, interface) in subject.nodes.iter_mut().zip(["x", "x", "y", "x", "x"]) {
            let node = Arc::make_mut(node);
            node.interface = Some(interface.into());
            let all = "${worker_index} ${worker_index0} ${host_worker_index} ${host_worker_index0}";
            node.env.insert("ALL".into(), all.into());
        }
        Arc::make_mut(&mut subject.nodes[0]).env.insert("CPU".into(), "${worker_cpu}".into());
        Arc::make_mut(&mut subject.nodes[0]).cpu_affinity = Some("7".parse().unwrap());
        let places = Indices::of(&subject);
        let values = |at: usize| {
            let variables = variables(&subject, &places, &subject.nodes[at])?;
            Ok::<_, (&str, String)>(variables.into_values().collect::<Vec<_>>().join(" "))
        };
        // In the order of their names: host_worker_index, host_worker_index0, worker_cpu, worker_index, worker_index0.
        assert_eq!(values(0).unwrap(), "3 2 7 2 1");
        assert_eq!(values(1).unwrap(), "2 1 1 0");
        assert_eq!(values(2).unwrap(), "1 0 1 0");
        assert_eq!(values(3).unwrap(), "1 0 1 0");
        let (key, what) = values(4).unwrap_err();
        assert!(key == "env" && what.contains("it is for workers"), "{what}");
    }

    #[test]
    fn the_place_of_its_files_is_left_to_the_agent_of_a_node_that_has_some() {
        let mut subject = cluster("1", &["w a worker", "v a worker"]);
        for node in &mut subject.nodes {
            Arc::make_mut(node).env = [("SITE".into(), "${files}/site".into())].into();
        }
        Arc::make_mut(&mut subject.nodes[0]).files = Some(Box::default());
        let places = Indices::of(&subject);
        let values = variables(&subject, &places, &subject.nodes[0]).unwrap();
        assert_eq!(expand("${files}/site", |name| values.get(name).cloned()).unwrap(), "${files}/site");
        let (key, what) = variables(&subject, &places, &subject.nodes[1]).unwrap_err();
        assert_eq!((key, &*what), ("env", "has the variable `files`, which is nothing here: the node has no `files`"));
    }

    #[test]
    fn a_node_that_names_no_variable_has_none() {
        let subject = cluster("1", &["w a worker"]);
        assert_eq!(variables(&subject, &Indices::of(&subject), &subject.nodes[0]), Ok(BTreeMap::new()));
    }
}

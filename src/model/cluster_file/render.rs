//! A configuration becomes a cluster file again.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::Duration;

use humantime::format_duration;

use super::words::{join, quote};
use super::zeek;
use crate::model::{
    Configuration, Limit, Liveness, Node, OutputWish, Probe, ProbeBy, ReadyBy, Resource, RestartMode, RestartPolicy,
    RunAs,
};

/// Writes `configuration` as a cluster file, in the form in which zeek-client prints one.
///
/// Instances and nodes come sorted by name, keys that have their default are left out. What
/// [`crate::plan::validate()`] does not complain of reads back as it was, but for three things that a file does not
/// tell: the order, the id, and the address of an instance that is not dialled.
pub fn render(configuration: &Configuration) -> String {
    let mut text = String::new();
    let Configuration { id: _, instances, nodes, zeek: shared, peers: _, keys: _ } = configuration;
    if !instances.is_empty() {
        let lines: BTreeMap<_, _> = instances
            .iter()
            .map(|instance| {
                let line = match (instance.host, instance.port) {
                    (Some(host), Some(port)) => {
                        format!("{} = {}", instance.name, std::net::SocketAddr::new(host, port))
                    }
                    // Without the sign the colon would part name and address.
                    _ if instance.name.as_str().contains(':') => format!("{} =", instance.name),
                    _ => instance.name.to_string(),
                };
                (&instance.name, line)
            })
            .collect();
        text.push_str("[instances]\n");
        lines.values().for_each(|line| add(&mut text, line));
        text.push('\n');
    }
    if let Some(shared) = shared {
        add_section(&mut text, zeek::ZEEK, zeek::entries(shared));
    }
    let sorted: BTreeMap<_, _> = nodes.iter().map(|node| (&node.name, node)).collect();
    for node in sorted.into_values() {
        add_section(&mut text, node.name.as_str(), entries(node));
    }
    text
}

fn add_section(text: &mut String, name: &str, entries: Vec<(&'static str, String)>) {
    add(text, format_args!("[{name}]"));
    for (key, value) in entries {
        match value.is_empty() {
            true => add(text, format_args!("{key} =")),
            false => add(text, format_args!("{key} = {}", value.replace('%', "%%"))),
        }
    }
    text.push('\n');
}

fn add(text: &mut String, line: impl Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

/// The keys of a node that are not at their default: zeek-client's in its order, then ours.
fn entries(node: &Node) -> Vec<(&'static str, String)> {
    let Node { restart, ready, .. } = node;
    let (nothing, as_agent) = (RunAs::default(), OutputWish::default());
    let output = node.output.as_deref().unwrap_or(&as_agent);
    let restart_default = RestartPolicy::default();
    let grace_default = Node::new(node.name.clone(), node.instance.clone(), node.role).stop_grace;
    let number = |number: Option<u16>| number.map(|number| number.to_string());
    let time = |time, default| (time != default).then(|| format_duration(time).to_string());
    let run_as = node.run_as.as_deref().unwrap_or(&nothing);
    let count = |count: u32, default| (count != default).then(|| count.to_string());
    let unwatched = Liveness::default();
    let liveness = node.liveness.as_deref().unwrap_or(&unwatched);
    let (probe, probe_default) = (liveness.probe.as_ref(), Probe::new(ProbeBy::Port(0)));

    [
        ("instance", Some(node.instance.to_string())),
        ("role", Some(node.role.as_str().to_uppercase())),
        ("port", number(node.port)),
        ("scripts", list(join(&node.scripts))),
        ("interface", node.interface.clone()),
        ("cpu_affinity", node.cpu_affinity.as_ref().map(|cpus| cpus.to_string())),
        ("env", list(assignments(&node.env))),
        ("metrics_port", number(node.metrics_port)),
        ("options", list(assignments(&node.options))),
        ("args", list(join(node.zeek_args()))),
        ("command", list(join(&node.command))),
        ("directory", node.directory.clone()),
        ("user", node.user.clone()),
        ("groups", list(join(&run_as.groups))),
        ("umask", run_as.umask.map(|mask| format!("{mask:03o}"))),
        ("nice", run_as.nice.map(|nice| nice.to_string())),
        ("limits", list(limits(&run_as.limits))),
        ("capabilities", list(join(run_as.capabilities.iter().map(|capability| capability.as_str())))),
        ("no_new_privs", run_as.no_new_privs.then(|| "yes".to_owned())),
        ("env_file", run_as.env_file.clone()),
        ("files", node.files.as_ref().and_then(|files| list(join(&files.paths)))),
        ("bundle", node.files.as_ref().and_then(|files| Some(files.bundle?.to_string()))),
        ("memory_max", run_as.quotas.memory_max.map(|bytes| bytes.to_string())),
        ("cpu_max", run_as.quotas.cpu_max.map(|share| share.to_string())),
        ("pids_max", run_as.quotas.pids_max.map(|count| count.to_string())),
        ("restart", (restart.mode != restart_default.mode).then(|| mode(restart.mode).to_owned())),
        ("restart_delay", time(restart.delay, restart_default.delay)),
        ("restart_factor", (restart.factor != restart_default.factor).then(|| restart.factor.to_string())),
        ("restart_jitter", (restart.jitter != restart_default.jitter).then(|| format!("{}%", restart.jitter))),
        ("restart_max_delay", time(restart.max_delay, restart_default.max_delay)),
        ("restart_stable", time(restart.stable, restart_default.stable)),
        ("restart_limit", count(restart.limit, restart_default.limit)),
        ("restart_window", time(restart.window, restart_default.window)),
        ("ready", sign(&ready.by)),
        ("ready_within", ready.within.map(|within| format_duration(within).to_string())),
        ("watchdog", liveness.watchdog.map(watchdog)),
        ("probe", probe.map(|probe| question(&probe.by))),
        ("probe_interval", probe.and_then(|probe| time(probe.interval, probe_default.interval))),
        ("probe_timeout", probe.and_then(|probe| time(probe.timeout, probe_default.timeout))),
        ("probe_failures", probe.and_then(|probe| count(probe.failures, probe_default.failures))),
        ("stop_grace", time(node.stop_grace, grace_default)),
        ("output_max_bytes", output.max_bytes.map(|bytes| bytes.to_string())),
        ("output_max_age", output.max_age.map(|age| format_duration(age).to_string())),
        ("output_keep_files", output.keep_files.map(|files| files.to_string())),
        ("output_keep_bytes", output.keep_bytes.map(|bytes| bytes.to_string())),
        ("output_compress", output.compress.map(|does| if does { "yes" } else { "no" }.to_owned())),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect()
}

/// What a list says, if it is not empty.
pub(super) fn list(line: String) -> Option<String> {
    (!line.is_empty()).then_some(line)
}

/// `NAME=VALUE ...`, with quotes around the value alone, as zeek-client has them.
pub(super) fn assignments(pairs: &BTreeMap<String, String>) -> String {
    let pair = |(name, value): (&String, &String)| match value.is_empty() {
        true => format!("{}=", quote(name)),
        false => format!("{}={}", quote(name), quote(value)),
    };
    pairs.iter().map(pair).collect::<Vec<_>>().join(" ")
}

fn limits(limits: &BTreeMap<Resource, Limit>) -> String {
    join(limits.iter().map(|(resource, limit)| format!("{}={limit}", resource.as_str())))
}

fn sign(by: &ReadyBy) -> Option<String> {
    Some(match by {
        ReadyBy::Settle(time) => format!("settle {}", format_duration(*time)),
        ReadyBy::Port(port) => format!("tcp {port}"),
        ReadyBy::Tcp(address) => format!("tcp {address}"),
        ReadyBy::Notify => "notify".into(),
        ReadyBy::Zeek => "zeek".into(),
        ReadyBy::Usual => return None,
    })
}

fn watchdog(watchdog: Duration) -> String {
    if watchdog.is_zero() { "off".into() } else { format_duration(watchdog).to_string() }
}

fn question(by: &ProbeBy) -> String {
    match by {
        ProbeBy::Port(port) => format!("tcp {port}"),
        ProbeBy::Tcp(address) => format!("tcp {address}"),
        ProbeBy::Exec(command) => format!("exec {}", join(command)),
    }
}

/// The restart mode as cluster files write it.
pub(super) fn mode(mode: RestartMode) -> &'static str {
    match mode {
        RestartMode::Always => "always",
        RestartMode::OnFailure => "on-failure",
        RestartMode::Never => "never",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use super::*;

    #[test]
    fn the_form_is_that_of_zeek_client() {
        let text = "[instances]\nb = [::1]:5\na:1 =\nA\n[w]\ninstance = A\nenv = X='1 2' Y=%%\nrole = worker\n\
                    metrics_port = 9000\nscripts = 'b c' a\n[m]\nrole = manager\ninstance = b\nport = 2200\n\
                    stop_grace = 10s\nready = settle 2s\nrestart = never\ncommand = sh -c 'say \"hi\"'\n";
        let want = "[instances]\nA\na:1 =\nb = [::1]:5\n\n\
                    [m]\ninstance = b\nrole = MANAGER\nport = 2200\ncommand = sh -c \"say \\\"hi\\\"\"\n\
                    restart = never\n\
                    ready = settle 2s\n\n\
                    [w]\ninstance = A\nrole = WORKER\nscripts = a \"b c\"\nenv = X=\"1 2\" Y=%%\n\
                    metrics_port = 9000\n\n";
        let once = render(&read(text).unwrap());
        assert_eq!(once, want);
        assert_eq!(render(&read(&once).unwrap()), want);
    }

    #[test]
    fn nothing_is_an_empty_file() {
        assert_eq!(render(&read("").unwrap()), "");
    }
}

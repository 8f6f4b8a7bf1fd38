//! `watchpost crashes`: what is kept of nodes that died unasked.

use std::io::{self, Write};

use super::client::Client;
use super::error::{CliError, Exit};
use super::events::encode;
use super::screen::{Screen, tame};
use super::table::{self, Cell, Column, words};
use crate::model::NodeName;
use crate::supervisor::crash::dossier::Dossier;
use crate::web::json::{Crash, CrashDossier, Crashes, Outcome, Status};

const COLUMNS: [Column; 5] =
    [words("ID"), words("TIME").spare(), words("INSTANCE").spare(), words("CORE").spare(), words("HOW")];

/// Lists the deaths of this node, or of all, oldest first.
pub fn list(client: &Client, node: Option<&str>, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let query = node.map(NodeName::new).transpose()?.map(|node| format!("?node={}", encode(node.as_str())));
    let (text, crashes) = client.get::<Crashes>(&format!("/api/v1/crashes{}", query.unwrap_or_default()))?;
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", text.trim_end())?;
    } else if !crashes.crashes.is_empty() {
        let rows: Vec<_> = crashes.crashes.iter().map(row).collect();
        table::lines(&COLUMNS, &rows, screen).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    complain(&crashes.outcomes)?;
    if !crashes.ok {
        return Ok(Exit::Unreachable);
    }
    match node.filter(|_| crashes.crashes.is_empty()) {
        Some(node) if !is_known(client, node)? => {
            writeln!(
                io::stderr(),
                "there is no node `{}`, and nothing is kept of one: `watchpost status` lists all",
                tame(node)
            )?;
            Ok(Exit::Failed)
        }
        _ => Ok(Exit::Done),
    }
}

/// Whether the cluster has a node of that name now.
fn is_known(client: &Client, node: &str) -> Result<bool, CliError> {
    let (_, status) = client.get::<Status>("/api/v1/status")?;
    Ok(status.nodes.iter().any(|known| known.name == node))
}

/// Shows one in full.
pub fn show(client: &Client, id: &str, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let (_, CrashDossier { dossier, outcomes }) =
        client.get::<CrashDossier>(&format!("/api/v1/crashes/{}", encode(id)))?;
    let Some(dossier) = dossier else {
        complain(&outcomes)?;
        let of = if outcomes.is_empty() { "" } else { " of those that answered" };
        writeln!(io::stderr(), "no agent{of} has a dossier `{}`: `watchpost crashes` lists all", tame(id))?;
        return Ok(if outcomes.is_empty() { Exit::Failed } else { Exit::Unreachable });
    };
    let mut out = io::stdout().lock();
    match serde_json::from_value::<Dossier>(dossier.clone()) {
        Ok(read) if !json => lines(&read).iter().try_for_each(|line| match screen.is_terminal() {
            true => writeln!(out, "{}", tame(line)),
            false => writeln!(out, "{line}"),
        })?,
        // One of another release is shown as it is.
        _ => writeln!(out, "{dossier}")?,
    }
    Ok(Exit::Done)
}

/// Names on standard error who did not answer.
fn complain(outcomes: &[Outcome]) -> Result<(), CliError> {
    for outcome in outcomes {
        let (who, error) = (outcome.instance.as_deref().unwrap_or("controller"), outcome.error.as_deref());
        writeln!(io::stderr(), "{}: {}", tame(who), tame(error.unwrap_or("did not answer")))?;
    }
    Ok(())
}

fn row(crash: &Crash) -> Vec<Cell> {
    let core = match (crash.core, crash.backtrace) {
        (_, true) => "backtrace",
        (true, false) => "yes",
        (false, false) => "-",
    };
    let time = crash.time.split('.').next().unwrap_or_default().to_owned() + "Z";
    [&*crash.id, &*time, &*crash.instance, core, &*crash.reason].map(Cell::from).into()
}

fn lines(dossier: &Dossier) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |what: &str, text: String| {
        if !text.is_empty() {
            lines.push(format!("{what:<12} {text}"));
        }
    };
    let or_unknown = |known: Option<String>| known.unwrap_or_else(|| "not known".into());
    say("id", dossier.id.clone());
    say("node", format!("{} on {}, process {}", dossier.node, dossier.instance, dossier.pid));
    say("how", dossier.exit.text.clone());
    say("then", format!("{}: {}", dossier.state, dossier.reason));
    let when = if dossier.unwatched { "found by the agent that returned" } else { "heard of" };
    say("time", format!("{}, {when}", dossier.time));
    let uptime = dossier.uptime_milliseconds.map(std::time::Duration::from_millis);
    say("uptime", or_unknown(uptime.map(|uptime| humantime::format_duration(uptime).to_string())));
    let memory = |bytes: Option<u64>| bytes.map(|bytes| format!("{} MiB at most", bytes.div_ceil(1 << 20)));
    say("memory", or_unknown(memory(dossier.largest_resident_bytes)));
    say("its group", memory(dossier.group_peak_bytes).unwrap_or_default());
    say("out of memory", dossier.out_of_memory.clone().unwrap_or_default());
    if let Some(core) = &dossier.core {
        let found = core.found.as_ref().map(|path| path.display().to_string());
        let looked: Vec<_> = core.looked.iter().map(|path| path.display().to_string()).collect();
        let none = || format!("not found ({}: {}; looked in {})", core.by, core.pattern, looked.join(", "));
        say("core file", found.unwrap_or_else(none));
    }
    say("command", dossier.command.join(" "));
    say("directory", dossier.directory.display().to_string());
    say("user", dossier.user.clone().unwrap_or_default());
    say("limits", dossier.limits.iter().map(|(name, limit)| format!("{name}={limit}")).collect::<Vec<_>>().join(" "));
    say("variables", dossier.environment.join(" "));
    say("no backtrace", dossier.no_backtrace.clone().unwrap_or_default());
    for (name, text) in [
        ("stdout", dossier.stdout.as_str()),
        ("stderr", dossier.stderr.as_str()),
        ("backtrace", dossier.backtrace.as_deref().unwrap_or_default()),
        ("definition", dossier.definition.as_str()),
    ] {
        if !text.is_empty() {
            lines.push(format!("==> {name} <=="));
            lines.extend(text.trim_end().lines().map(str::to_owned));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Exit, InstanceName, Life, Node, Output, Role, Timestamp};

    #[test]
    fn a_dossier_says_what_is_known_and_what_is_not() {
        let instance = InstanceName::new("sensor-1").unwrap();
        let node = Node::new(NodeName::new("worker-1").unwrap(), instance.clone(), Role::Worker);
        let exit = Exit::Signal { number: 11, core_dumped: false };
        let output = Output { stdout: String::new(), stderr: "oops\n".into() };
        let dossier = Dossier::new(&instance, &node, Life(7), 4711, exit, Timestamp(0)).with_output(output);
        let text = lines(&dossier).join("\n");
        assert!(
            text.starts_with("id           worker-1.7\nnode         worker-1 on sensor-1, process 4711\n"),
            "{text}"
        );
        assert!(text.contains("uptime       not known\n") && text.contains("==> stderr <==\noops\n"), "{text}");
        assert!(!text.contains("stdout"), "{text}");
    }
}

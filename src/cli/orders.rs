//! The verbs that change nodes: start, stop, restart.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::client::{Client, Method};
use super::error::{CliError, Exit};
use super::interrupt;
use super::screen::{Screen, state_style, tame};
use crate::message::silence;
use crate::model::NodeName;
use crate::web::json::{NodesOrder, Outcome, Verdict};

/// An order that takes as long as it takes.
struct Order {
    path: String,
    body: String,
    /// What is going on meanwhile, such as `restart worker-1`.
    doing: String,
    /// What was done, such as `restarted`.
    done: &'static str,
}

/// The bytes of a cluster file as text.
pub(super) fn text_of(file: &Path, bytes: Vec<u8>) -> Result<String, CliError> {
    String::from_utf8(bytes).map_err(|error| CliError::File {
        path: file.into(),
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

/// Starts, stops or restarts these nodes, or every node if none is named.
pub fn nodes(
    client: &Client,
    verb: &'static str,
    done: &'static str,
    nodes: Vec<String>,
    json: bool,
    screen: Screen,
) -> Result<Exit, CliError> {
    nodes.iter().try_for_each(|name| NodeName::new(name).map(drop))?;
    let order = Order {
        path: format!("/api/v1/nodes/{verb}"),
        doing: format!("{verb} {}", if nodes.is_empty() { "every node".into() } else { nodes.join(" ") }),
        body: body(&NodesOrder { nodes }),
        done,
    };
    give(client, order, json, screen)
}

pub(super) fn body(shape: &impl Serialize) -> String {
    // Both shapes are text and lists of text.
    serde_json::to_string(shape).expect("text is always JSON")
}

/// Sends an order and prints its verdict. Ctrl-C detaches: what was ordered goes on.
fn give(client: &Client, order: Order, json: bool, screen: Screen) -> Result<Exit, CliError> {
    if screen.is_terminal() && !json {
        writeln!(io::stderr(), "{} …", order.doing)?;
    }
    let Order { path, body, doing, done } = order;
    let sender = client.clone();
    let answer =
        interrupt::unless(interrupt::interrupted(), move || sender.order::<Verdict>(Method::Post, &path, &body))?;
    let Some(answer) = answer else {
        writeln!(io::stderr(), "detached: {doing} goes on without you; see `watchpost status --watch`")?;
        return Ok(Exit::Interrupted);
    };
    let (text, verdict) = answer.map_err(CliError::of_order)?;
    let mut out = io::stdout().lock();
    match json {
        true => writeln!(out, "{}", text.trim_end())?,
        false => lines(&verdict, done, None, screen).iter().try_for_each(|line| writeln!(out, "{line}"))?,
    }
    Ok(exit(&verdict))
}

/// What a script learns: whether there is something to mend, or only somebody to wait for. What the controller itself
/// complains of beside that is the sum of it.
pub(super) fn exit(verdict: &Verdict) -> Exit {
    let failed = || verdict.outcomes.iter().filter(|outcome| outcome.error.is_some());
    let is_sum = |outcome: &Outcome| outcome.instance.is_none() && outcome.node.is_none();
    match verdict.ok {
        true => Exit::Done,
        false
            if failed().any(|outcome| outcome.unreachable)
                && failed().all(|outcome| outcome.unreachable || is_sum(outcome)) =>
        {
            Exit::Unreachable
        }
        false => Exit::Failed,
    }
}

/// Every failure with what the node wrote, then the sum.
pub(super) fn lines(verdict: &Verdict, done: &str, removes: Option<usize>, screen: Screen) -> Vec<String> {
    // That it took the controller too long is said by those whom it waited for.
    let is_missing = |it: &Outcome| it.error.is_some() && it.node.is_none() && it.instance.is_some();
    let is_missed = verdict.outcomes.iter().any(is_missing);
    let is_told = |it: &&Outcome| !(is_missed && is_of_all(it) && it.error.as_deref() == Some(silence::TIMED_OUT));
    let told = verdict.outcomes.iter().filter(is_told);
    let mut lines: Vec<String> = told.flat_map(|outcome| failure("failed", outcome, screen)).collect();
    let nodes = verdict.outcomes.iter().filter(|outcome| outcome.node.is_some());
    let (fine, all) = nodes.fold((0, 0), |(fine, all), node| (fine + usize::from(node.error.is_none()), all + 1));
    let what = verdict.configuration.as_ref().map(|id| format!(" configuration {}", tame(id))).unwrap_or_default();
    lines.push(match (verdict.ok, all) {
        (true, _) if removes == Some(1) => format!("{done}{what}: 1 node removed"),
        (true, _) if removes.is_some() => format!("{done}{what}: {} nodes removed", removes.unwrap_or_default()),
        (true, 0) => format!("{done}{what}"),
        (true, 1) => format!("{done}{what}: 1 node"),
        (true, _) => format!("{done}{what}: {all} nodes"),
        (false, 0) => format!("not {done}{what}"),
        (false, _) if is_rolled_back(verdict) => format!("not {done}: see `watchpost history`"),
        (false, 1) if fine == 0 && verdict.configuration.is_none() => format!("not {done}: see `watchpost status`"),
        (false, _) if fine == 0 && verdict.configuration.is_none() => {
            format!("not {done}: none of {all} nodes; see `watchpost status`")
        }
        (false, _) => format!("{done}{what} in part: {fine} of {all} nodes; see `watchpost status`"),
    });
    lines
}

/// Whether the controller says that all goes back to what was in force before.
fn is_rolled_back(verdict: &Verdict) -> bool {
    let of_all = verdict.outcomes.iter().filter(|outcome| is_of_all(outcome));
    of_all.filter_map(|outcome| outcome.error.as_deref()).any(|error| error.starts_with(ROLLED_BACK))
}

/// What the controller begins with to say what came of the whole.
pub(super) const ROLLED_BACK: &str = "rolled back:";

/// Whether it is about the whole, and no part of it.
fn is_of_all(outcome: &Outcome) -> bool {
    outcome.instance.is_none() && outcome.node.is_none()
}

/// What went wrong, behind a word for that, with what the node wrote; nothing if nothing did.
pub(super) fn failure(word: &str, outcome: &Outcome, screen: Screen) -> Vec<String> {
    let Some(error) = &outcome.error else { return Vec::new() };
    let who = match (&outcome.node, &outcome.instance) {
        (Some(node), Some(instance)) => format!("{node} on {instance}"),
        (Some(name), None) | (None, Some(name)) => name.clone(),
        (None, None) => "controller".into(),
    };
    // Whole, however long: this is the one place where the reason must not be cut.
    let (word, text) = match error.strip_prefix(ROLLED_BACK).filter(|_| is_of_all(outcome)) {
        Some(rest) => (ROLLED_BACK, tame(rest.trim_start())),
        None => (word, format!("{}: {}", tame(&who), tame(error))),
    };
    let mut lines = screen.paragraph(0, (word.to_owned(), state_style("FAILED")), &text);
    let output = outcome.output.iter();
    let streams = output.flat_map(|output| [("stdout", &output.stdout), ("stderr", &output.stderr)]);
    lines.extend(streams.flat_map(|(name, text)| text.lines().map(move |line| format!("  {name}: {}", tame(line)))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::json::Output;

    fn verdict(errors: &[Option<&str>]) -> Verdict {
        let outcome = |(at, error): (usize, &Option<&str>)| Outcome {
            instance: Some("agent-a".into()),
            node: Some(format!("worker-{at}")),
            error: error.map(String::from),
            unreachable: false,
            output: error.map(|_| Output { stdout: String::new(), stderr: "no such\x1b file\n".into() }),
        };
        let outcomes = errors.iter().enumerate().map(outcome).collect();
        Verdict { ok: errors.iter().all(Option::is_none), configuration: Some("c1".into()), outcomes }
    }

    #[test]
    fn a_deployment_that_went_back_is_not_said_to_be_there_in_part() {
        let mut verdict = Verdict { configuration: None, ..verdict(&[None, Some("exited with status 1")]) };
        let last = |verdict: &Verdict| lines(verdict, "deployed", None, Screen::pipe()).pop().unwrap();
        assert!(last(&verdict).starts_with("deployed in part: 1 of 2 nodes"));
        let error = Some("rolled back: configuration c1 is in force again".into());
        verdict.outcomes.push(Outcome { instance: None, node: None, error, unreachable: false, output: None });
        assert_eq!(last(&verdict), "not deployed: see `watchpost history`");
        let all = lines(&verdict, "deployed", None, Screen::pipe());
        assert!(all.contains(&"rolled back: configuration c1 is in force again".to_owned()), "{all:?}");
    }

    #[test]
    fn what_no_node_did_is_not_said_to_be_done_in_part() {
        let none = Verdict { configuration: None, ..verdict(&[Some("no"), Some("no")]) };
        let last = lines(&none, "deployed", None, Screen::pipe()).pop().unwrap();
        assert_eq!(last, "not deployed: none of 2 nodes; see `watchpost status`");
    }

    #[test]
    fn what_could_only_not_be_reached_is_told_from_what_failed() {
        let lost = |mut outcome: Outcome| {
            outcome.unreachable = true;
            outcome
        };
        let [fine, failed] = [None, Some("no")].map(|error| verdict(&[error]).outcomes.remove(0));
        let sum = Outcome { instance: None, node: None, ..failed.clone() };
        for (outcomes, want) in [
            (vec![lost(failed.clone())], Exit::Unreachable),
            (vec![fine.clone(), lost(failed.clone()), sum.clone()], Exit::Unreachable),
            (vec![lost(failed.clone()), failed], Exit::Failed),
            (vec![fine, sum], Exit::Failed),
            (vec![], Exit::Failed),
        ] {
            assert_eq!(exit(&Verdict { ok: false, configuration: None, outcomes }), want);
        }
    }

    #[test]
    fn a_verdict_names_what_failed_and_why() {
        assert_eq!(
            lines(&verdict(&[None, None]), "deployed", None, Screen::pipe()),
            ["deployed configuration c1: 2 nodes"]
        );
        let want = [
            "failed worker-1 on agent-a: exited with status 1",
            "  stderr: no such  file",
            "deployed configuration c1 in part: 1 of 2 nodes; see `watchpost status`",
        ];
        assert_eq!(lines(&verdict(&[None, Some("exited with status 1")]), "deployed", None, Screen::pipe()), want);
        let late = verdict(&[Some(silence::TIMED_OUT)]).outcomes.remove(0);
        let sum = Outcome { instance: None, node: None, output: None, ..late.clone() };
        let missing = Outcome { node: None, error: Some(silence::NEVER.into()), output: None, ..late };
        let told = |outcomes: &[&Outcome]| {
            let outcomes = outcomes.iter().map(|outcome| (*outcome).clone()).collect();
            lines(&Verdict { ok: false, configuration: None, outcomes }, "deployed", None, Screen::pipe())
        };
        assert_eq!(told(&[&missing, &sum]), ["failed agent-a: never connected", "not deployed"]);
        assert_eq!(told(&[&sum]), ["failed controller: request timed out", "not deployed"]);
    }
}

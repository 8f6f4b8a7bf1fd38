//! `watchpost print`: what Zeek nodes have for a global identifier.

use std::io::{self, Write};

use super::client::{Client, Method};
use super::error::{CliError, Exit};
use super::screen::tame;
use crate::model::NodeName;
use crate::web::json::{Outcome, PrintOrder, Values};

/// Prints the value of each of these nodes, or of every node, as `NODE: JSON`; and on standard error who gave none.
pub fn run(client: &Client, id: String, nodes: Vec<String>, json: bool) -> Result<Exit, CliError> {
    nodes.iter().try_for_each(|name| NodeName::new(name).map(drop))?;
    // It is text and a list of text.
    let body = serde_json::to_string(&PrintOrder { id, nodes }).expect("text is always JSON");
    let (text, values) = client.order::<Values>(Method::Post, "/api/v1/nodes/print", &body)?;
    let mut out = io::stdout().lock();
    match json {
        true => writeln!(out, "{}", text.trim_end())?,
        false => values.values.iter().try_for_each(|told| writeln!(out, "{}: {}", tame(&told.node), told.value))?,
    }
    let failed = || values.outcomes.iter().filter(|outcome| outcome.error.is_some());
    failed().try_for_each(|outcome| writeln!(io::stderr(), "{}", failure(outcome)))?;
    Ok(match values.ok {
        true => Exit::Done,
        false if failed().all(|outcome| outcome.unreachable) => Exit::Unreachable,
        false => Exit::Failed,
    })
}

fn failure(Outcome { instance, node, error, .. }: &Outcome) -> String {
    let who = match (node, instance) {
        (Some(node), Some(instance)) => format!("{node} on {instance}"),
        (Some(name), None) | (None, Some(name)) => name.clone(),
        (None, None) => "controller".into(),
    };
    format!("{}: {}", tame(&who), tame(error.as_deref().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gave_no_value_is_named() {
        let outcome = |instance: Option<&str>, node: Option<&str>| Outcome {
            instance: instance.map(Into::into),
            node: node.map(Into::into),
            error: Some("unknown id\x1b".into()),
            unreachable: false,
            output: None,
        };
        assert_eq!(failure(&outcome(Some("a"), Some("w"))), "w on a: unknown id ");
        assert_eq!(failure(&outcome(Some("a"), None)), "a: unknown id ");
        assert_eq!(failure(&outcome(None, None)), "controller: unknown id ");
    }
}

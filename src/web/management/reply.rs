//! What the controller answered, as the framework's results.
//!
//! The unmodified client prints an error only where it expects one: which fields a result leaves out decides whether
//! people get to see it.

use std::collections::BTreeMap;

use super::record::{self, Report};
use crate::message::client::*;
use crate::model::{InstanceName, Outcome};
use crate::web::broker::data::Value;

/// The connected agents, in one result.
pub fn instances(connected: &[InstanceStatus]) -> Vec<Report> {
    vec![Report::of(Value::vector(connected.iter().map(record::connected)))]
}

pub fn staged(answer: StageConfigurationResponse) -> Vec<Report> {
    match answer.configuration {
        Some(id) => vec![Report::of(id.as_str())],
        None => answer.outcomes.into_iter().map(|outcome| Report::failed(error_of(&outcome))).collect(),
    }
}

pub fn configuration(answer: GetConfigurationResponse) -> Vec<Report> {
    vec![match answer.configuration {
        Ok(configuration) => Report::of(record::configuration(&configuration)),
        Err(error) => Report::failed(error),
    }]
}

/// Of each instance what failed in words, then its nodes; then the controller's own words, the id behind all.
///
/// The client prints the error of a result only if no node is named, so the cause of a node's failure is one of its own.
pub fn deployed(answer: DeployResponse) -> Vec<Report> {
    let mut by_instance: BTreeMap<Option<&InstanceName>, (Vec<Report>, Vec<Report>)> = BTreeMap::new();
    let mut own = Vec::new();
    for outcome in &answer.outcomes {
        let (causes, nodes) = by_instance.entry(outcome.instance.as_ref()).or_default();
        match (&outcome.instance, &outcome.node) {
            (_, Some(node)) => {
                let cause = outcome.error.as_ref().map(|error| format!("node '{node}': {error}"));
                causes.extend(cause.map(|error| Report { instance: name_of(outcome), ..Report::failed(error) }));
                let data = outcome.output.as_ref().map(record::outputs).unwrap_or_default();
                nodes.push(Report { data, ..report(outcome) });
            }
            (Some(instance), None) => {
                let error = outcome.error.as_ref().map(|error| format!("instance '{instance}': {error}"));
                causes.push(Report { error, ..report(outcome) });
            }
            (None, None) => own.push(report(outcome)),
        }
    }
    let mut reports: Vec<_> =
        by_instance.into_values().flat_map(|(causes, nodes)| causes.into_iter().chain(nodes)).collect();
    reports.append(&mut own);
    reports.extend(answer.configuration.map(|id| Report::of(id.as_str())));
    reports
}

/// Per instance its agent and its nodes, sorted by name. `controller` is listed where it lives in an agent's process.
pub fn nodes(answer: &GetNodesResponse, controller: &str) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut beside = answer.agents.iter().find(|agent| agent.beside).map(|agent| &agent.instance);
    for outcome in &answer.outcomes {
        let Some(agent) = answer.agents.iter().find(|agent| Some(&agent.instance) == outcome.instance.as_ref()) else {
            reports.push(report(outcome));
            continue;
        };
        let of_it = answer.nodes.iter().filter(|node| node.instance == agent.instance);
        let mut listed: Vec<_> = of_it.map(record::node_status).collect();
        listed.push(record::agent(agent));
        if beside.take_if(|beside| **beside == agent.instance).is_some() {
            listed.push(record::controller(controller));
        }
        listed.sort();
        reports.push(Report { data: Value::Vector(listed), ..report(outcome) });
    }
    reports
}

pub fn values(answer: GetIdValueResponse) -> Vec<Report> {
    let value = |it: IdValue| Report {
        instance: Some(it.instance.to_string()),
        node: Some(it.node.to_string()),
        ..Report::of(it.value)
    };
    answer.values.into_iter().map(value).chain(answer.outcomes.iter().map(report)).collect()
}

/// A node that did not come back is told without its instance: the client takes a failure for one only then.
pub fn restarted(answer: &RestartResponse) -> Vec<Report> {
    let is_named = |instance: &InstanceName| {
        answer.outcomes.iter().any(|outcome| outcome.node.is_some() && outcome.instance.as_ref() == Some(instance))
    };
    let is_told = |outcome: &&Outcome| match (&outcome.instance, &outcome.node) {
        // It says nothing that its nodes do not say, and the client cannot print it.
        (Some(instance), None) => !is_named(instance),
        _ => true,
    };
    let tell = |outcome: &Outcome| match outcome.is_success() {
        true => report(outcome),
        false => Report { instance: None, ..report(outcome) },
    };
    answer.outcomes.iter().filter(is_told).map(tell).collect()
}

pub fn timed_out(answer: &TestTimeoutResponse) -> Vec<Report> {
    vec![report(&answer.outcome)]
}

/// One result per instance, as it was in 2021; what failed of it is put together in its error.
pub fn set(answer: SetConfigurationResponse) -> Vec<Report> {
    let mut by_instance: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
    for outcome in &answer.outcomes {
        let errors = by_instance.entry(name_of(outcome)).or_default();
        errors.extend(outcome.error.as_ref().map(|error| match &outcome.node {
            Some(node) => format!("node {node} failed: {error}"),
            None => error.replace("earlier deployment ", "request "),
        }));
    }
    let joined = |errors: Vec<String>| (!errors.is_empty()).then(|| errors.join(", "));
    by_instance
        .into_iter()
        .map(|(instance, errors)| Report { instance, error: joined(errors), ..Report::default() })
        .collect()
}

fn report(outcome: &Outcome) -> Report {
    Report {
        error: outcome.error.clone(),
        instance: name_of(outcome),
        node: outcome.node.as_ref().map(ToString::to_string),
        data: Value::None,
    }
}

fn name_of(outcome: &Outcome) -> Option<String> {
    outcome.instance.as_ref().map(ToString::to_string)
}

fn error_of(outcome: &Outcome) -> &str {
    outcome.error.as_deref().unwrap_or("it failed, and nobody said why")
}

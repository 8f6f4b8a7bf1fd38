//! The events of the Management framework and of its forerunner of 2021: their names, and the types of their arguments.
//!
//! A message is held against this before anybody hears of it, so that whoever reads its fields later finds them there.

use std::fmt;

use crate::web::broker::data::Value;
use Type::{Addr, Any, Bool, Count, Enum, Int, Maybe, Port, Record, Set, String, Table, Vector};

/// What a value has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Bool,
    Count,
    Int,
    String,
    Addr,
    Port,
    Any,
    /// One of these.
    Enum(&'static [&'static str]),
    Set(&'static Type),
    Vector(&'static Type),
    Table(&'static Type, &'static Type),
    /// A vector of exactly these fields.
    Record(&'static [Type]),
    /// The field of a record that may be absent.
    Maybe(&'static Type),
}

/// Where a value is not what it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// From the outside in.
    place: Vec<usize>,
    what: std::string::String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for at in &self.place {
            write!(f, "{at}: ")?;
        }
        f.write_str(&self.what)
    }
}

impl Type {
    /// Holds a value against the type.
    pub fn check(&self, value: &Value) -> Result<(), Misfit> {
        match (self, value) {
            (Maybe(_), Value::None)
            | (Any, _)
            | (Bool, Value::Boolean(_))
            | (Count, Value::Count(_))
            | (Int, Value::Integer(_))
            | (String, Value::String(_))
            | (Addr, Value::Address(_))
            | (Port, Value::Port(_)) => Ok(()),
            (Maybe(of), value) => of.check(value),
            (Enum(names), Value::Enum(name)) => match names.contains(&name.as_str()) {
                true => Ok(()),
                false => Err(Misfit::new(format!("`{}` is none of {}", shorten(name), names.join(", ")))),
            },
            (Set(of), Value::Set(items)) => check_all(items.iter().map(|item| (*of, item))),
            (Vector(of), Value::Vector(items)) => check_all(items.iter().map(|item| (*of, item))),
            (Table(keys, values), Value::Table(items)) => {
                check_all(items.iter().flat_map(|(key, value)| [(*keys, key), (*values, value)]))
            }
            (Record(fields), Value::Vector(values)) => check_fields(fields, values),
            (_, value) => Err(Misfit::new(format!("a value of type {} is out of place", value.kind()))),
        }
    }
}

fn check_fields(fields: &[Type], values: &[Value]) -> Result<(), Misfit> {
    match fields.len() == values.len() {
        true => check_all(fields.iter().zip(values)),
        false => Err(Misfit::new(format!("{} are wanted, and {} are there", fields.len(), values.len()))),
    }
}

fn check_all<'a>(pairs: impl Iterator<Item = (&'a Type, &'a Value)>) -> Result<(), Misfit> {
    for (at, (of, value)) in pairs.enumerate() {
        of.check(value).map_err(|mut misfit| {
            misfit.place.insert(0, at);
            misfit
        })?;
    }
    Ok(())
}

impl Misfit {
    fn new(what: std::string::String) -> Self {
        Self { place: Vec::new(), what }
    }
}

fn shorten(text: &str) -> std::string::String {
    text.chars().take(64).collect()
}

/// Holds an event against its declaration.
pub fn check(name: &str, args: &[Value]) -> Result<(), Misfit> {
    let event = EVENTS.iter().find_map(|(module, events)| {
        let short = name.strip_prefix(module)?;
        events.iter().find(|(event, _)| *event == short)
    });
    match event {
        Some((_, types)) => check_fields(types, args),
        None => Err(Misfit::new(format!("there is no event `{}`", shorten(name)))),
    }
}

// --- what the types of the framework are ---

const STRINGS: Type = Set(&String);
const STATE: Type = Enum(&[
    "Management::PENDING",
    "Management::RUNNING",
    "Management::STOPPED",
    "Management::FAILED",
    "Management::CRASHED",
    "Management::UNKNOWN",
]);
const CLUSTER_ROLE: Type =
    Enum(&["Supervisor::NONE", "Supervisor::LOGGER", "Supervisor::MANAGER", "Supervisor::PROXY", "Supervisor::WORKER"]);
const OPTION: Type = Record(&[String, String]);
/// name, host, listen_port
const INSTANCE: Type = Record(&[String, Addr, Maybe(&Port)]);
/// name, instance, role, state, p, scripts, options, interface, cpu_affinity, env, metrics_port
const NODE: Type = Record(&[
    String,
    String,
    CLUSTER_ROLE,
    STATE,
    Maybe(&Port),
    Maybe(&Vector(&String)),
    Maybe(&Set(&OPTION)),
    Maybe(&String),
    Maybe(&Int),
    Table(&String, &String),
    Maybe(&Port),
]);
/// id, instances, nodes
const CONFIGURATION: Type = Record(&[String, Set(&INSTANCE), Set(&NODE)]);
/// reqid, success, instance, data, error, node
const RESULT: Type = Record(&[String, Bool, Maybe(&String), Any, Maybe(&String), Maybe(&String)]);
const RESULTS: Type = Vector(&RESULT);
/// stdout, stderr
const OUTPUTS: Type = Record(&[String, String]);

const OLD_STATE: Type = Enum(&[
    "ClusterController::Types::Running",
    "ClusterController::Types::Stopped",
    "ClusterController::Types::Failed",
    "ClusterController::Types::Crashed",
    "ClusterController::Types::Unknown",
]);
/// name, instance, p, role, state, scripts, options, interface, cpu_affinity, env
const OLD_NODE: Type = Record(&[
    String,
    String,
    Port,
    CLUSTER_ROLE,
    OLD_STATE,
    Maybe(&Vector(&String)),
    Maybe(&Set(&OPTION)),
    Maybe(&String),
    Maybe(&Int),
    Table(&String, &String),
]);
const OLD_CONFIGURATION: Type = Record(&[String, Set(&INSTANCE), Set(&OLD_NODE)]);
/// reqid, instance, success, data, error, node
const OLD_RESULT: Type = Record(&[String, String, Bool, Any, String, Maybe(&String)]);

/// The events of a module, with their arguments.
type Events = &'static [(&'static str, &'static [Type])];

/// Every event, by its module.
const EVENTS: &[(&str, Events)] = &[
    (
        "Management::Controller::API::",
        &[
            ("get_instances_request", &[String]),
            ("get_instances_response", &[String, RESULT]),
            ("stage_configuration_request", &[String, CONFIGURATION]),
            ("stage_configuration_response", &[String, RESULTS]),
            ("get_configuration_request", &[String, Bool]),
            ("get_configuration_response", &[String, RESULT]),
            ("deploy_request", &[String]),
            ("deploy_response", &[String, RESULTS]),
            ("get_nodes_request", &[String]),
            ("get_nodes_response", &[String, RESULTS]),
            ("get_id_value_request", &[String, String, STRINGS]),
            ("get_id_value_response", &[String, RESULTS]),
            ("restart_request", &[String, STRINGS]),
            ("restart_response", &[String, RESULTS]),
            ("test_timeout_request", &[String, Bool]),
            ("test_timeout_response", &[String, RESULT]),
            ("test_noop_request", &[String]),
            ("notify_agents_ready", &[STRINGS]),
        ],
    ),
    (
        "Management::Agent::API::",
        &[
            ("deploy_request", &[String, CONFIGURATION, Bool]),
            ("deploy_response", &[String, RESULTS]),
            ("get_nodes_request", &[String]),
            ("get_nodes_response", &[String, RESULT]),
            ("node_dispatch_request", &[String, Vector(&String), STRINGS]),
            ("node_dispatch_response", &[String, RESULTS]),
            ("agent_welcome_request", &[String]),
            ("agent_welcome_response", &[String, RESULT]),
            ("agent_standby_request", &[String]),
            ("agent_standby_response", &[String, RESULT]),
            ("restart_request", &[String, STRINGS]),
            ("restart_response", &[String, RESULTS]),
            ("notify_agent_hello", &[String, String, Bool, Count]),
            ("notify_change", &[String, NODE, STATE, STATE]),
            ("notify_error", &[String, String, String]),
            ("notify_log", &[String, String, String]),
        ],
    ),
    (
        "Management::Node::API::",
        &[
            ("node_dispatch_request", &[String, Vector(&String), STRINGS]),
            ("node_dispatch_response", &[String, RESULT]),
            ("notify_node_hello", &[String]),
        ],
    ),
    ("Management::Supervisor::API::", &[("notify_node_exit", &[String, OUTPUTS])]),
    (
        "ClusterController::API::",
        &[
            ("get_instances_request", &[String]),
            ("get_instances_response", &[String, OLD_RESULT]),
            ("set_configuration_request", &[String, OLD_CONFIGURATION]),
            ("set_configuration_response", &[String, Vector(&OLD_RESULT)]),
            ("test_timeout_request", &[String, Bool]),
            ("test_timeout_response", &[String, OLD_RESULT]),
            ("notify_agents_ready", &[STRINGS]),
        ],
    ),
    (
        "ClusterAgent::API::",
        &[
            ("set_configuration_request", &[String, OLD_CONFIGURATION]),
            ("set_configuration_response", &[String, OLD_RESULT]),
            ("agent_welcome_request", &[String]),
            ("agent_welcome_response", &[String, OLD_RESULT]),
            ("agent_standby_request", &[String]),
            ("agent_standby_response", &[String, OLD_RESULT]),
            ("notify_agent_hello", &[String, Addr, Count]),
            ("notify_change", &[String, OLD_NODE, OLD_STATE, OLD_STATE]),
            ("notify_error", &[String, String, String]),
            ("notify_log", &[String, String, String]),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_its_declaration_is_told_with_its_place() {
        let restart = "Management::Controller::API::restart_request";
        let names = |names: &[&str]| Value::set(names.iter().copied());
        assert_eq!(check(restart, &[Value::string("r"), names(&["a"])]), Ok(()));
        for (name, args, want) in [
            (
                "Management::Controller::API::nothing",
                vec![],
                "there is no event `Management::Controller::API::nothing`",
            ),
            ("restart_request", vec![], "there is no event `restart_request`"),
            (restart, vec![], "2 are wanted, and 0 are there"),
            (restart, vec![Value::string("r"), names(&[]), names(&[])], "2 are wanted, and 3 are there"),
            (restart, vec![Value::Count(1), names(&[])], "0: a value of type count is out of place"),
            (restart, vec![Value::string("r"), Value::vector(["a"])], "1: a value of type vector is out of place"),
            (restart, vec![Value::string("r"), Value::set([7_u64])], "1: 0: a value of type count is out of place"),
        ] {
            assert_eq!(check(name, &args).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn a_record_has_all_its_fields_and_no_more() {
        let instance = |more: &[Value]| {
            let fields = [Value::string("a"), Value::Address([127, 0, 0, 1].into())];
            Value::Vector(fields.into_iter().chain(more.iter().cloned()).collect())
        };
        assert_eq!(INSTANCE.check(&instance(&[Value::None])), Ok(()));
        for (value, want) in [
            (instance(&[]), "3 are wanted, and 2 are there"),
            (instance(&[Value::None, Value::None]), "3 are wanted, and 4 are there"),
            (instance(&[Value::Count(1)]), "2: a value of type count is out of place"),
        ] {
            assert_eq!(INSTANCE.check(&value).unwrap_err().to_string(), want);
        }
        let wrong = Value::enumerated("Supervisor::BOSS");
        assert!(CLUSTER_ROLE.check(&wrong).unwrap_err().to_string().starts_with("`Supervisor::BOSS` is none of"));
    }
}

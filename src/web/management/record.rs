//! The framework's records: configurations, statuses and results as Broker's values, and configurations back.
//!
//! What is read here was held against [`schema`](super::schema) before, so every field is there and of its type.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crate::message::client::{AgentStatus, InstanceStatus};
use crate::model::{
    Configuration, ConfigurationId, Cpus, Instance, InstanceName, Node, NodeName, NodeState, NodeStatus, Output, Role,
};
use crate::web::broker::data::{Port, Protocol, Value};

/// Which declaration of a record is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// The framework as it is.
    Present,
    /// The framework as it was first published, in December 2021.
    Seed,
}

/// Stands for an address that nobody knows.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What a request has to say of one thing: `Management::Result`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    pub error: Option<String>,
    pub instance: Option<String>,
    pub node: Option<String>,
    pub data: Value,
}

impl Report {
    /// It went well, and this came of it.
    pub fn of(data: impl Into<Value>) -> Self {
        Self { data: data.into(), ..Self::default() }
    }

    /// It did not.
    pub fn failed(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::default() }
    }

    pub fn into_value(self, reqid: &str, age: Age) -> Value {
        let Self { error, instance, node, data } = self;
        let success = Value::Boolean(error.is_none());
        let (reqid, node) = (Value::string(reqid), node.into());
        Value::Vector(match age {
            Age::Present => vec![reqid, success, instance.into(), data, error.into(), node],
            Age::Seed => {
                let text = |text: Option<String>| Value::String(text.unwrap_or_default());
                vec![reqid, text(instance), success, data, text(error), node]
            }
        })
    }
}

/// What a node that failed wrote last.
pub fn outputs(output: &Output) -> Value {
    Value::vector([output.stdout.as_str(), output.stderr.as_str()])
}

pub fn instance(instance: &Instance) -> Value {
    instance_record(&instance.name, instance.host, instance.port)
}

/// An instance that is connected. One in this very process is on this machine.
pub fn connected(instance: &InstanceStatus) -> Value {
    instance_record(&instance.name, instance.host.or(Some(Ipv4Addr::LOCALHOST.into())), instance.port)
}

fn instance_record(name: &InstanceName, host: Option<IpAddr>, port: Option<u16>) -> Value {
    Value::Vector(vec![name.as_str().into(), host.unwrap_or(NOWHERE).into(), tcp(port)])
}

pub fn configuration(configuration: &Configuration) -> Value {
    let instances = Value::set(configuration.instances.iter().map(instance));
    let nodes = Value::set(configuration.nodes.iter().map(|it| node(it, it.state)));
    Value::Vector(vec![configuration.id.as_str().into(), instances, nodes])
}

/// A node in that state. Its `options` are never told: the client cannot print them.
pub fn node(node: &Node, now: NodeState) -> Value {
    let scripts = (!node.scripts.is_empty()).then(|| Value::vector(node.scripts.iter().map(String::as_str)));
    Value::Vector(vec![
        node.name.as_str().into(),
        node.instance.as_str().into(),
        role(node.role),
        state(now),
        tcp(node.port),
        scripts.unwrap_or_default(),
        Value::None,
        node.interface.as_deref().into(),
        node.cpu_affinity.as_ref().and_then(Cpus::first).map(i64::from).into(),
        Value::table(node.env.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
        tcp(node.metrics_port),
    ])
}

pub fn node_status(status: &NodeStatus) -> Value {
    let numbers = [pid(status.pid), tcp(status.port), tcp(status.metrics_port)];
    status_record(status.node.as_str(), status.state, "NONE", role(status.role), numbers)
}

/// The agent among the nodes of its instance.
pub fn agent(agent: &AgentStatus) -> Value {
    let numbers = [pid(agent.pid), tcp(agent.port), Value::None];
    status_record(agent.instance.as_str(), NodeState::Running, "AGENT", role(Role::None), numbers)
}

/// The controller among the nodes of an instance that lives in its process.
pub fn controller(name: &str) -> Value {
    let numbers = [pid(Some(std::process::id())), Value::None, Value::None];
    status_record(name, NodeState::Running, "CONTROLLER", role(Role::None), numbers)
}

fn status_record(name: &str, now: NodeState, management: &str, cluster: Value, numbers: [Value; 3]) -> Value {
    let management = Value::enumerated(format!("Management::{management}"));
    let first = [name.into(), state(now), management, cluster];
    Value::Vector(first.into_iter().chain(numbers).collect())
}

pub fn state(state: NodeState) -> Value {
    Value::enumerated(format!("Management::{state}"))
}

fn role(role: Role) -> Value {
    Value::enumerated(format!("Supervisor::{}", role.as_str().to_ascii_uppercase()))
}

fn pid(pid: Option<u32>) -> Value {
    pid.map(i64::from).into()
}

/// No port is 0: the client would not even read that.
fn tcp(port: Option<u16>) -> Value {
    port.filter(|&port| port != 0).map(Port::tcp).into()
}

/// Reads a configuration as far as it can be read; the rest are complaints.
pub fn read_configuration(value: &Value, age: Age) -> (Configuration, BTreeSet<String>) {
    let mut complaints = BTreeSet::new();
    let [id, instances, nodes] = fields(value);
    let id = note(ConfigurationId::new(text(id)), &mut complaints);
    // Nothing is named by it if there is a complaint.
    let mut read = Configuration::empty(id.unwrap_or_else(|| ConfigurationId::new("none").expect("a short text")));
    read.instances = items(instances).filter_map(|it| note(read_instance(it), &mut complaints)).collect();
    read.nodes = items(nodes).filter_map(|it| note(read_node(it, age), &mut complaints)).map(Into::into).collect();
    (read, complaints)
}

fn note<T>(read: Result<T, impl ToString>, complaints: &mut BTreeSet<String>) -> Option<T> {
    read.map_err(|error| complaints.insert(error.to_string())).ok()
}

fn read_instance(value: &Value) -> Result<Instance, String> {
    let [name, host, port] = fields(value);
    let name = InstanceName::new(text(name)).map_err(|error| error.to_string())?;
    let port = read_tcp(port).map_err(|port| format!("instance '{name}' listen port {port} is no TCP port"))?;
    let host = host.as_address().filter(|host| !host.is_unspecified());
    Ok(Instance { name, host, port })
}

fn read_node(value: &Value, age: Age) -> Result<Node, String> {
    let present;
    let value = match age {
        Age::Present => value,
        Age::Seed => {
            present = as_present(value);
            &present
        }
    };
    let [name, instance, role, _, port, scripts, options, interface, cpu, env, metrics_port] = fields(value);
    let name = NodeName::new(text(name)).map_err(|error| error.to_string())?;
    let instance = InstanceName::new(text(instance)).map_err(|error| error.to_string())?;
    let of = |what: &str| format!("node '{name}' {what}");
    let cpu = cpu.as_integer().map(u32::try_from).transpose();
    let cpu = cpu.map_err(|_| of("cpu_affinity is none of the CPUs that there can be"))?;
    let port = read_tcp(port).map_err(|port| of(&format!("port {port} is no TCP port")))?;
    let metrics_port = read_tcp(metrics_port).map_err(|port| of(&format!("metrics port {port} is no TCP port")))?;
    let option = |pair: &Value| {
        let [name, value] = fields(pair);
        (text(name).to_owned(), text(value).to_owned())
    };
    Ok(Node {
        port,
        metrics_port,
        scripts: items(scripts).map(|script| text(script).to_owned()).collect(),
        options: items(options).map(option).collect(),
        interface: interface.as_str().map(str::to_owned),
        cpu_affinity: cpu.map(Cpus::one),
        env: texts(env),
        ..Node::new(name, instance, read_role(role))
    })
}

/// A node of 2021 with its fields where they are now.
fn as_present(value: &Value) -> Value {
    let [name, instance, port, role, state, scripts, options, interface, cpu, env] = fields(value);
    let fields = [name, instance, role, state, port, scripts, options, interface, cpu, env];
    Value::Vector(fields.into_iter().cloned().chain([Value::None]).collect())
}

fn read_role(value: &Value) -> Role {
    let name = value.as_enum().and_then(|name| name.rsplit("::").next()).unwrap_or_default();
    Role::ALL.into_iter().find(|role| role.as_str().eq_ignore_ascii_case(name)).unwrap_or(Role::None)
}

/// The number of a TCP port; the error is a port of another protocol.
fn read_tcp(value: &Value) -> Result<Option<u16>, Port> {
    match value.as_port() {
        Some(port) if port.protocol != Protocol::Tcp => Err(port),
        port => Ok(port.map(|port| port.number)),
    }
}

/// The names in a set, as far as they are names; the others as they are written.
pub fn read_names(value: &Value) -> (BTreeSet<NodeName>, Vec<String>) {
    let (mut names, mut others) = (BTreeSet::new(), Vec::new());
    for name in items(value).map(text) {
        match NodeName::new(name) {
            Ok(name) => drop(names.insert(name)),
            Err(_) => others.push(name.to_owned()),
        }
    }
    (names, others)
}

/// The fields of a record; a missing one reads as absent.
fn fields<const N: usize>(value: &Value) -> [&Value; N] {
    let fields = value.as_vector().unwrap_or_default();
    std::array::from_fn(|at| fields.get(at).unwrap_or(&Value::None))
}

/// What is in a set or a vector.
fn items(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Set(items) => Box::new(items.iter()),
        Value::Vector(items) => Box::new(items.iter()),
        _ => Box::new(std::iter::empty()),
    }
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let table = value.as_table().into_iter().flatten();
    table.map(|(key, value)| (text(key).to_owned(), text(value).to_owned())).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

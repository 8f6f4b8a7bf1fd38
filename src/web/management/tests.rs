//! What every event of the framework is on the wire: `tests/golden/management/` has a file for each, one sample a line.
//!
//! A line must be what the sample is written as, read back as the sample, and fit the event's declaration. To write them
//! anew:
//!
//! ```text
//! WATCHPOST_WRITE_GOLDEN=1 cargo test --lib management
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::news::Teller;
use super::*;
use crate::message::agent::{NotifyChange, NotifyError, NotifyLog};
use crate::model::*;

#[test]
fn every_event_is_what_its_golden_file_says() {
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/management"));
    let mut by_name: BTreeMap<String, Vec<Publication>> = BTreeMap::new();
    for sample in samples() {
        let event = &sample.event;
        assert_eq!(schema::check(&event.name, &event.args), Ok(()), "{}", event.name);
        by_name.entry(event.name.replace("::", ".")).or_default().push(sample);
    }
    for (name, samples) in &by_name {
        let path = directory.join(format!("{name}.jsonl"));
        let text: String = samples.iter().map(|sample| String::from_utf8(sample.to_json()).unwrap() + "\n").collect();
        if std::env::var_os("WATCHPOST_WRITE_GOLDEN").is_some() {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(golden, text, "{name}");
        let read = golden.lines().map(|line| Publication::from_json(line.as_bytes()).unwrap());
        assert_eq!(read.collect::<Vec<_>>(), *samples, "{name}");
    }
    let files = std::fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path());
    let files: BTreeSet<_> = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(files, by_name.into_keys().collect(), "one file for each event, and none besides");
}

#[test]
fn a_configuration_reads_back_as_what_it_was() {
    let (read, complaints) = record::read_configuration(&record::configuration(&configuration()), Age::Present);
    assert_eq!((read, complaints), (configuration(), BTreeSet::new()));
}

#[test]
fn whatever_a_client_calls_a_configuration_or_a_request_is_taken_or_complained_of() {
    let mut value = record::configuration(&configuration());
    let Value::Vector(fields) = &mut value else { panic!() };
    fields[0] = "a\nb".into();
    let (_, complaints) = record::read_configuration(&value, Age::Present);
    assert_eq!(complaints.into_iter().collect::<Vec<_>>(), ["configuration id `a\nb` holds a control character"]);
    assert_eq!(request_id("6f0a2c1e-0000-11f1").as_str(), "6f0a2c1e-0000-11f1");
    assert_eq!(request_id("a\nb").as_str(), "unreadable");
}

/// At least one of each event that is sent here or understood.
fn samples() -> Vec<Publication> {
    let mut samples = requests();
    samples.extend(responses());
    samples.extend(news());
    samples
}

fn requests() -> Vec<Publication> {
    let request = |short: &str, rest: Vec<Value>| {
        let args = std::iter::once(Value::from("r-1")).chain(rest).collect();
        Publication::new(TOPIC, Event::new(format!("{MODULE}{short}_request"), args))
    };
    let names = |names: &[&str]| Value::set(names.iter().copied());
    let seed = |short: &str, rest: Vec<Value>| {
        let args = std::iter::once(Value::from("r-1")).chain(rest).collect();
        Publication::new(SEED_TOPIC, Event::new(format!("{SEED_MODULE}{short}_request"), args))
    };
    vec![
        request("get_instances", vec![]),
        request("stage_configuration", vec![record::configuration(&configuration())]),
        request("get_configuration", vec![true.into()]),
        request("deploy", vec![]),
        request("get_nodes", vec![]),
        request("get_id_value", vec!["bits_per_uid".into(), names(&["manager", "worker"])]),
        request("restart", vec![names(&[])]),
        request("test_timeout", vec![false.into()]),
        request("test_noop", vec![]),
        seed("get_instances", vec![]),
        seed("set_configuration", vec![seed_configuration()]),
        seed("test_timeout", vec![true.into()]),
    ]
}

fn responses() -> Vec<Publication> {
    let reqid = || RequestId::new("r-1").unwrap();
    let id = || ConfigurationId::new("c-1").ok();
    let instance = |name| InstanceName::new(name).unwrap();
    let node = |name| NodeName::new(name).unwrap();
    let output = Output { stdout: String::new(), stderr: "fatal error: boom".into() };
    let failed = Outcome::node_failed(&instance("one"), &node("worker"), "exited with status 1".into(), Some(output));
    let done = Outcome::node_done(&instance("one"), &node("manager"));
    let refused = || vec![Outcome::failed("multiple nodes named 'w'")];
    let present = |short, shape, reports| {
        Publication::new(TOPIC, respond(MODULE, short, "r-1", Age::Present, shape, Ok(reports)).unwrap())
    };
    let seed = |short, shape, reports| {
        Publication::new(SEED_TOPIC, respond(SEED_MODULE, short, "r-1", Age::Seed, shape, Ok(reports)).unwrap())
    };
    let (one, many) = (Shape::One, Shape::Many);
    let staged = |configuration, outcomes| StageConfigurationResponse { reqid: reqid(), configuration, outcomes };
    let told = |configuration| reply::configuration(GetConfigurationResponse { reqid: reqid(), configuration });
    let deployed = |configuration, outcomes| {
        reply::deployed(DeployResponse { reqid: reqid(), configuration, outcomes, deployment: None })
    };
    let status = InstanceStatus {
        name: instance("one"),
        host: Some([192, 0, 2, 7].into()),
        port: Some(2151),
        needed: true,
        link: LinkState::Up,
        since: None,
        version: None,
        reason: String::new(),
        certificate: None,
        abilities: None,
    };
    let nodes = GetNodesResponse {
        reqid: reqid(),
        nodes: vec![NodeStatus {
            node: node("worker"),
            instance: instance("one"),
            role: Role::Worker,
            state: NodeState::Crashed,
            pid: None,
            port: None,
            metrics_port: Some(9002),
            restarts: 1,
            since: Timestamp(0),
            reason: "".into(),
            says: "".into(),
            netstats: None,
        }],
        agents: vec![AgentStatus { instance: instance("one"), pid: Some(7), port: Some(2151), beside: false }],
        outcomes: vec![
            Outcome::instance_done(&instance("one")),
            Outcome::instance_failed(&instance("two"), "did not answer in time"),
        ],
    };
    let values = GetIdValueResponse {
        reqid: reqid(),
        values: vec![IdValue { instance: instance("one"), node: node("worker"), value: "96".into() }],
        outcomes: vec![Outcome::unknown_node(&node("zz"))],
    };
    let restarted = RestartResponse {
        reqid: reqid(),
        outcomes: vec![done.clone(), failed.clone(), Outcome::unknown_node(&node("zz"))],
    };
    let timed_out = TestTimeoutResponse { reqid: reqid(), outcome: Outcome::failed("request timed out") };
    let set = SetConfigurationResponse {
        reqid: reqid(),
        configuration: id(),
        outcomes: vec![done.clone(), failed.clone(), Outcome::instance_done(&instance("two"))],
        deployment: None,
    };
    vec![
        present("get_instances", one, reply::instances(&[status])),
        present("stage_configuration", many, reply::staged(staged(id(), vec![]))),
        present("stage_configuration", many, reply::staged(staged(None, refused()))),
        present("get_configuration", one, told(Ok(configuration()))),
        present("get_configuration", one, told(Err("no staged configuration available".into()))),
        present("deploy", many, deployed(id(), vec![done.clone(), failed.clone()])),
        present("deploy", many, deployed(None, vec![Outcome::failed("request timed out")])),
        present("get_nodes", many, reply::nodes(&nodes, "controller")),
        present("get_id_value", many, reply::values(values)),
        present("restart", many, reply::restarted(&restarted)),
        present("test_timeout", one, reply::timed_out(&timed_out)),
        seed(
            "get_instances",
            one,
            vec![Report::of(Value::vector(configuration().instances.iter().map(record::instance)))],
        ),
        seed("set_configuration", many, reply::set(set)),
        seed("test_timeout", one, reply::timed_out(&timed_out)),
    ]
}

fn news() -> Vec<Publication> {
    let instance = || InstanceName::new("one").unwrap();
    let node = || NodeName::new("worker").unwrap();
    let time = Timestamp(1_700_000_000_123_000);
    let change = NotifyChange {
        seq: 7,
        time,
        instance: instance(),
        node: node(),
        role: Role::Worker,
        old: NodeState::Running,
        new: NodeState::Crashed,
        pid: Some(70),
        exit: Some(Exit::Status(1)),
        attempt: 1,
        restarts: 1,
        reason: "exited with status 1".into(),
        removed: false,
    };
    let stranger = NotifyChange { node: NodeName::new("stranger").unwrap(), ..change.clone() };
    let error = NotifyError { seq: 8, time, instance: instance(), node: Some(node()), msg: "no".into() };
    let log = NotifyLog { seq: 9, time, instance: instance(), node: None, msg: "so".into() };
    let mut teller = Teller::default();
    teller.learn(configuration());
    let news = [News::Change(change), News::Change(stranger), News::Error(error), News::Log(log)];
    let cursor = Cursor { epoch: 10, number: 1 };
    let entry = |news| Entry { cursor, time, origin: None, news };
    let mut told: Vec<_> = news.into_iter().filter_map(|news| teller.tell(&entry(news))).collect();
    let last = Cursor { number: 5, ..cursor };
    told.push(Teller::tell_gap("controller", &Gap { first: cursor, last }));
    told
}

fn configuration() -> Configuration {
    let instance = |name, host, port| Instance { name: InstanceName::new(name).unwrap(), host, port };
    let mut configuration = Configuration::empty(ConfigurationId::new("c-1").unwrap());
    configuration.instances =
        vec![instance("one", Some([192, 0, 2, 7].into()), Some(2151)), instance("two", None, None)];
    let plain = Node::new(NodeName::new("manager").unwrap(), InstanceName::new("one").unwrap(), Role::Manager);
    let full = Node {
        port: Some(5000),
        metrics_port: Some(9002),
        scripts: vec!["a b".into(), "local".into()],
        interface: Some("eth0".into()),
        cpu_affinity: Some(Cpus::one(3)),
        env: [("FOO".into(), "bar".into())].into(),
        ..Node::new(NodeName::new("worker").unwrap(), InstanceName::new("one").unwrap(), Role::Worker)
    };
    configuration.nodes = vec![plain.into(), full.into()];
    configuration
}

/// The same as it was written in 2021, with the node that has a port.
fn seed_configuration() -> Value {
    let present = record::configuration(&configuration());
    let [id, instances, nodes] = present.as_vector().unwrap() else { panic!() };
    let node = nodes.as_set().unwrap().iter().find(|node| !node.as_vector().unwrap()[4].is_none()).unwrap();
    let [name, instance, role, _, port, rest @ .., _] = node.as_vector().unwrap() else { panic!() };
    let state = Value::enumerated("ClusterController::Types::Running");
    let first = [name, instance, port, role].into_iter().cloned().chain([state]);
    let node = Value::Vector(first.chain(rest.iter().cloned()).collect());
    Value::Vector(vec![id.clone(), instances.clone(), Value::set([node])])
}

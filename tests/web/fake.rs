//! A controller that says what it is told to say.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, WrapFuture};
use tokio::sync::watch;
use watchpost::controller::files::{GetBlobs, KeptBlobs};
use watchpost::message::agent::{NotifyChange, NotifyLog};
use watchpost::message::client::*;
use watchpost::model::{
    Exit, InstanceName, NodeName, NodeState, NodeStatus, Outcome, Output, OutputFrom, OutputPiece, OutputPlace,
    OutputStream, Role, Timestamp,
};
use watchpost::plan::PortRules;
use watchpost::trust::tokens::Tokens;
use watchpost::web::{Desk, Facts, WebServer, WebSettings, serve};

pub const TOKEN: &str = "f00df00df00df00df00df00df00df00d";
pub const EPOCH: u64 = 0xabc;

/// What the fake says and what was said to it.
#[derive(Default)]
pub struct Script {
    pub nodes: Vec<NodeStatus>,
    pub instances: Vec<InstanceStatus>,
    /// The outcomes of every order.
    pub outcomes: Vec<Outcome>,
    /// The orders that came, in the form that tests compare.
    pub orders: Vec<String>,
    /// Answers nothing at all.
    pub silent: bool,
    /// What each node wrote to stdout; nothing to stderr.
    pub written: String,
    pub log: Vec<Arc<Entry>>,
    /// Where it keeps files.
    pub blobs: KeptBlobs,
    /// How many entries each observer that is still there has taken.
    pub taken: BTreeMap<usize, usize>,
    observers: usize,
}

impl Script {
    /// Pieces of a line each.
    fn read(&self, stream: OutputStream, from: OutputFrom) -> Result<OutputPiece, Unread> {
        let written = if stream == OutputStream::Stdout { self.written.as_bytes() } else { b"" };
        let place = match from {
            OutputFrom::Place(place) => place,
            OutputFrom::Last(0) => OutputPlace { volume: 1, offset: written.len() as u64 },
            OutputFrom::Last(_) => OutputPlace { volume: 1, offset: 0 },
        };
        if let Some(refused) = self.outcomes.first() {
            return Err(Unread::OutOfReach(refused.error.clone().unwrap_or_default()));
        }
        let rest = &written[place.offset as usize..];
        let bytes = rest.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default().to_vec();
        let next = OutputPlace { offset: place.offset + bytes.len() as u64, ..place };
        Ok(OutputPiece { place, at_end: bytes.len() == rest.len(), bytes, next, skipped: false })
    }
}

/// A web edge in front of a fake controller, on a port of its own.
pub struct Fake {
    pub address: String,
    script: Arc<Mutex<Script>>,
    length: Arc<watch::Sender<usize>>,
    server: Option<WebServer>,
}

impl Fake {
    pub fn open() -> Self {
        Self::with(|settings| settings.open = true)
    }

    pub fn guarded() -> Self {
        Self::with(|_| {})
    }

    /// One whose edge has other settings than these: on this machine alone, with a token, and with no others.
    pub fn with(change: impl FnOnce(&mut WebSettings)) -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let length = Arc::new(watch::channel(0).0);
        let actor = FakeController { script: script.clone(), length: length.clone() };
        let (give, take) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let system = actix_rt::System::new();
            system.block_on(async move { give.send(actor.start()).unwrap() });
            system.run()
        });
        let desk = Desk::from(take.recv().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hosts = vec!["watch.example".into()];
        let mut settings = WebSettings {
            open: false,
            insecure: false,
            hosts,
            token: TOKEN.into(),
            tokens: Arc::new(Tokens::open(Path::new("/nonexistent"))),
            own_hostname: "sensor-1".into(),
            ports: PortRules::default(),
            facts: Facts::default(),
            tls: None,
        };
        change(&mut settings);
        let server = serve(listener, desk, settings).unwrap();
        Self { address: server.address().to_string(), script, length, server: Some(server) }
    }

    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// Adds an entry to the log and wakes the observers.
    pub fn tell(&self, news: News) {
        let mut script = self.script();
        let number = script.log.len() as u64 + 1;
        let time = Timestamp(1_700_000_000_000_000 + number);
        let entry = Entry { cursor: Cursor { epoch: EPOCH, number }, time, origin: Some((9, number)), news };
        script.log.push(Arc::new(entry));
        self.length.send_replace(script.log.len());
    }

    pub fn stop(&mut self) {
        self.server.take().unwrap().join().unwrap();
    }
}

/// Waits for `condition`, at most ten seconds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn log(msg: &str) -> News {
    let instance = InstanceName::new("agent-a").unwrap();
    News::Log(NotifyLog { seq: 0, time: Timestamp(0), instance, node: None, msg: msg.into() })
}

pub fn change(node: &str, old: NodeState, new: NodeState) -> News {
    News::Change(NotifyChange {
        seq: 1,
        time: Timestamp(0),
        instance: InstanceName::new("agent-a").unwrap(),
        node: NodeName::new(node).unwrap(),
        role: Role::Worker,
        old,
        new,
        pid: Some(4711),
        exit: Some(Exit::Signal { number: 9, core_dumped: false }),
        attempt: 1,
        restarts: 2,
        reason: "killed by signal 9 (SIGKILL)".into(),
        removed: false,
    })
}

pub fn node(name: &str, state: NodeState) -> NodeStatus {
    NodeStatus {
        node: NodeName::new(name).unwrap(),
        instance: InstanceName::new("agent-a").unwrap(),
        role: Role::Worker,
        state,
        pid: (state == NodeState::Running).then_some(4711),
        port: Some(2200),
        metrics_port: None,
        restarts: 2,
        since: Timestamp(1_700_000_000_000_000),
        reason: "".into(),
        says: "".into(),
        netstats: None,
    }
}

pub fn instance(name: &str, link: LinkState) -> InstanceStatus {
    InstanceStatus {
        name: InstanceName::new(name).unwrap(),
        host: Some([10, 0, 0, 1].into()),
        port: None,
        needed: true,
        link,
        since: Some(Timestamp(1_700_000_000_000_000)),
        version: Some("0.1.0".into()),
        reason: String::new(),
        certificate: None,
        abilities: None,
    }
}

struct FakeController {
    script: Arc<Mutex<Script>>,
    length: Arc<watch::Sender<usize>>,
}

impl Actor for FakeController {
    type Context = Context<Self>;
}

impl FakeController {
    fn status(&self) -> GetStatusResponse {
        let script = self.script.lock().unwrap();
        GetStatusResponse {
            cursor: Cursor { epoch: EPOCH, number: script.log.len() as u64 },
            instances: script.instances.clone(),
            nodes: script.nodes.clone(),
            configuration: None,
            deploying: None,
            deployment: None,
        }
    }

    fn order(&self, order: String) -> Vec<Outcome> {
        let mut script = self.script.lock().unwrap();
        script.orders.push(order);
        script.outcomes.clone()
    }
}

macro_rules! answers {
    ($(|$me:ident, $request:ident: $type:ident| $answer:expr),* $(,)?) => {
        $(impl Handler<$type> for FakeController {
            type Result = <$type as actix::Message>::Result;
            fn handle(&mut self, $request: $type, _: &mut Context<Self>) -> Self::Result {
                let $me = self;
                if $me.script.lock().unwrap().silent { Err(Unanswered) } else { Ok($answer) }
            }
        })*
    };
}

answers! {
    |me, r: GetInstancesRequest| GetInstancesResponse { reqid: r.reqid, instances: me.status().instances },
    |me, _r: GetStatusRequest| me.status(),
    |me, r: GetConfigurationRequest| {
        let configuration = Err(format!("no {} configuration", if r.deployed { "deployed" } else { "staged" }));
        let _ = me;
        GetConfigurationResponse { reqid: r.reqid, configuration }
    },
    |me, r: GetNodesRequest| GetNodesResponse {
        reqid: r.reqid, nodes: me.status().nodes, agents: Vec::new(), outcomes: me.order("get_nodes".into())
    },
    |me, r: GetOutputRequest| {
        let mut outcomes = me.order(format!("output {} {}", r.node, r.lines));
        let fine = Outcome {
            output: Some(Output { stdout: "out\n".into(), stderr: "err\n".into() }),
            ..Outcome::node_done(&InstanceName::new("agent-a").unwrap(), &r.node)
        };
        GetOutputResponse { reqid: r.reqid, outcome: outcomes.pop().unwrap_or(fine) }
    },
    |me, r: ReadOutputRequest| {
        me.order(format!("read {} {} {:?} {:?}", r.node, r.stream, r.from, r.wait));
        ReadOutputResponse { reqid: r.reqid, piece: me.script.lock().unwrap().read(r.stream, r.from) }
    },
    |me, r: GetCrashesRequest| {
        let outcomes = me.order(format!("crashes {:?} {:?}", r.node, r.id));
        GetCrashesResponse { reqid: r.reqid, crashes: Vec::new(), dossier: None, outcomes }
    },
    |me, r: PlanRequest| PlanResponse {
        reqid: r.reqid,
        plan: Box::new(ClusterPlan {
            deployed: Deployed(None),
            instances: Vec::new(),
            nodes: Vec::new(),
            steps: Vec::new(),
            complaints: r.complaints,
            outcomes: me.order("plan".into()),
        }),
    },
    |me, r: GetIdValueRequest| {
        let outcomes = me.order(format!("print {} {:?}", r.id, names(r.nodes)));
        let value = |node: NodeStatus| IdValue { instance: node.instance, node: node.node, value: "[1,2]".into() };
        GetIdValueResponse { reqid: r.reqid, values: me.status().nodes.into_iter().map(value).collect(), outcomes }
    },
    |me, r: StageConfigurationRequest| StageConfigurationResponse {
        reqid: r.reqid, configuration: Some(r.configuration.id), outcomes: me.order("stage".into())
    },
    |me, r: DeployRequest| DeployResponse { reqid: r.reqid, configuration: None, outcomes: me.order("deploy".into()), deployment: Some(1) },
    |me, r: RollbackRequest| DeployResponse {
        reqid: r.reqid, configuration: None, outcomes: me.order("rollback".into()), deployment: Some(1)
    },
    |_me, _r: GetHistoryRequest| GetHistoryResponse { deployments: Ok(Vec::new()) },
    |_me, _r: GetTriedRequest| GetTriedResponse { configuration: Ok(None) },
    |me, r: SetConfigurationRequest| SetConfigurationResponse {
        reqid: r.reqid, configuration: Some(r.configuration.id), outcomes: me.order("set_configuration".into()),
        deployment: Some(1),
    },
    |me, r: StartRequest| StartResponse { reqid: r.reqid, outcomes: me.order(format!("start {:?}", names(r.nodes))) },
    |me, r: StopRequest| StopResponse { reqid: r.reqid, outcomes: me.order(format!("stop {:?}", names(r.nodes))) },
    |me, r: RestartRequest| RestartResponse {
        reqid: r.reqid, outcomes: me.order(format!("restart {:?}", names(r.nodes)))
    },
}

fn names(nodes: impl IntoIterator<Item = NodeName>) -> Vec<String> {
    nodes.into_iter().map(|node| node.to_string()).collect()
}

impl Handler<GetBlobs> for FakeController {
    type Result = Result<KeptBlobs, Unanswered>;

    fn handle(&mut self, _: GetBlobs, _: &mut Context<Self>) -> Self::Result {
        Ok(self.script.lock().unwrap().blobs.clone())
    }
}

impl Handler<Subscribe> for FakeController {
    type Result = Result<Subscribed, Unanswered>;

    fn handle(&mut self, Subscribe { since, to }: Subscribe, ctx: &mut Context<Self>) -> Self::Result {
        let status = self.status();
        let since = since.filter(|since| since.epoch == EPOCH && since.number <= status.cursor.number);
        let cursor = since.unwrap_or(status.cursor);
        let (script, mut length) = (self.script.clone(), self.length.subscribe());
        let me = {
            let mut script = script.lock().unwrap();
            script.observers += 1;
            let me = script.observers;
            script.taken.insert(me, 0);
            me
        };
        let pump = async move {
            let mut at = cursor.number as usize;
            loop {
                let entries: Vec<_> = script.lock().unwrap().log[at..].iter().take(8).cloned().collect();
                if entries.is_empty() {
                    length.changed().await.unwrap();
                    continue;
                }
                at += entries.len();
                if to.send(NewsBatch { gap: None, entries: entries.clone() }).await.is_err() {
                    script.lock().unwrap().taken.remove(&me);
                    return;
                }
                *script.lock().unwrap().taken.get_mut(&me).unwrap() += entries.len();
            }
        };
        ctx.spawn(pump.into_actor(self));
        Ok(Subscribed { cursor, snapshot: since.is_none().then_some(status) })
    }
}

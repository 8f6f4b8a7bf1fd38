//! The daemons of a fleet: a controller, or an agent, with a state directory, listeners and signals.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Recipient};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::timeout;

use super::bridge::{AgentBridge, ControllerBridge, WorkFor, link_settings, warn_if_open};
use super::doors::{Daemon, Doors, Websocket};
use super::service::Service;
use super::signals::Signals;
use super::{AgentOptions, ControllerOptions, RunError, init, start_agent_among, start_controller, stray};
use crate::agent::outbox::Bounds;
use crate::agent::{Agent, AgentEvent, HurryUp, RenewCertificate, StopAllNodesForNow};
use crate::bridge::{Desk, Farewell, LinkRole};
use crate::controller::{Controller, ControllerGone};
use crate::doctor::service::{self, Unit};
use crate::model::InstanceName;
use crate::rest;
use crate::settings::{ControllerSettings, Machine, OnExit, Settings, loopback_only};
use crate::state_dir::StateDir;
use crate::supervisor::process::{limits, memory};
use crate::trust::tokens::Tokens;
use crate::trust::{Registrar, Trust, keep_renewed};
use crate::web::management::{self, ManagementSettings, Port};
use crate::web::tls::Tls;
use crate::web::{self, Facts, WebServer, WebSettings};

/// What a daemon that is ready tells whoever started it.
#[derive(Clone, PartialEq, Eq)]
pub struct Ready {
    /// Where it listens, by purpose: `http` for clients, `zeek-client` for those, `agents` for agents, `controller` for a
    /// controller.
    pub addresses: BTreeMap<String, SocketAddr>,
    /// What clients have to know; `None` if the API is open or there is none.
    pub token: Option<String>,
}

impl fmt::Debug for Ready {
    /// Without the token, which is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Runs a controller until it is asked to end. `ready` is called once, when everything listens.
pub async fn controller(settings: Settings, ready: impl FnOnce(&Ready)) -> Result<(), RunError> {
    memory::share_one_heap();
    // As many clients as may be connected leave enough for every agent.
    limits::raise_open_files()?;
    if init::is_init() {
        stray::take_on()?; // it has no nodes, but is given everybody's orphans
    }
    let mut signals = Signals::listen()?;
    let doors = Doors::open(&settings, Daemon::Controller)?;
    let mut link = link_settings(LinkRole::Controller, &settings.controller.name, &settings, doors.trust.clone());
    let registrar = link.trust.clone().map(|trust| Arc::new(Registrar::new(settings.authority(), trust)));
    link.desk = registrar.clone().map(|registrar| Arc::new(Desk::new(registrar, link.greeting_within)));
    let home = StateDir::take(&settings.state_dir)?;
    home.watch();
    let socket = settings.controller.listen.map(|address| bind("for agents", address)).transpose()?;
    let (host, mut ends) = Host::start();
    let bridge = ControllerBridge::new(link.clone()).start();
    let controller = start_controller(ControllerOptions {
        dialler: Some(bridge.clone().recipient()),
        dials_beyond: link.trust.is_some() || link.insecure,
        host: Some(host.recipient()),
        registrar: registrar.clone(),
        ..ControllerOptions::of(&settings.controller, home.path())?
    })?;
    if let (Some(trust), Some(registrar)) = (&link.trust, registrar) {
        actix_rt::spawn(Arc::clone(trust).watch());
        actix_rt::spawn(renew_own(Arc::clone(trust), registrar));
    }
    bridge.do_send(WorkFor(controller.clone()));
    let mut addresses = BTreeMap::new();
    if let Some(socket) = &socket {
        addresses.insert("agents".to_owned(), socket.local_addr()?);
    }
    let facts = Facts::new(link.trust.clone());
    let (web, token) = serve(&controller, &settings, &home, doors.http, &facts)?;
    addresses.extend(web.as_ref().map(|web| ("http".to_owned(), web.address())));
    let clients = serve_clients(&controller, &settings, doors.websocket, &facts)?;
    addresses.extend(clients.as_ref().map(|clients| ("zeek-client".to_owned(), clients.address())));
    if let Some(address) =
        addresses.get("agents").filter(|address| link.trust.is_none() && loopback_only(**address).is_err())
    {
        facts.is_open("agents", *address);
    }
    let listener = socket.map(|socket| ControllerBridge::accept(socket, link, &controller)).transpose()?;
    home.write_addresses(&addresses)?;
    ready(&Ready { addresses, token });
    let end = serve_until_asked_to_end(&mut signals, &mut ends).await;
    drop(listener);
    part(controller.recipient()).await;
    finish(web, clients)?;
    end
}

/// Tells the service manager that this daemon is ready, and, once somebody asks it to end or an actor has, that it stops.
async fn serve_until_asked_to_end(
    signals: &mut Signals,
    ends: &mut UnboundedReceiver<&'static str>,
) -> Result<(), RunError> {
    let service = Service::find();
    service.is_ready();
    actix_rt::spawn(rest::after_start());
    let end = tokio::select! {
        () = signals.asked_to_end() => Ok(()),
        Some(what) = ends.recv() => Err(RunError::Failed(what)),
    };
    service.is_stopping();
    end
}

/// Runs an agent until it is asked to end; its nodes live on unless the settings have them stopped, or it is PID 1 of a
/// container. `ready` is called once, when it can be reached.
pub async fn agent(settings: Settings, ready: impl FnOnce(&Ready)) -> Result<(), RunError> {
    let descriptors = limits::raise_open_files()?; // ahead of all threads
    stray::take_on()?; // so is this
    let mut signals = Signals::listen()?;
    let doors = Doors::open(&settings, Daemon::Agent)?;
    let link = link_settings(LinkRole::Agent, settings.agent.name.as_str(), &settings, doors.trust);
    let (home, full) = StateDir::take_though_full(&settings.state_dir)?;
    if let Some(full) = &full {
        let cause = std::error::Error::source(full).map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            "{full}: {cause}. What runs is minded all the same; what cannot be recorded is not started until there is room"
        );
    }
    home.let_nodes_through()?;
    home.watch();
    let socket = settings.agent.listen.map(|address| bind("for a controller", address)).transpose()?;
    init::say_what_it_means();
    let (host, mut ends) = Host::start();
    let (agent, apart) = start_agent_among(AgentOptions {
        host: Some(host.recipient()),
        ..agent_options(&settings, settings.agent.name.clone(), &home, home.nodes(), descriptors)
    })?;
    warn_of_the_service(&settings, apart);
    let mut addresses = BTreeMap::new();
    if let Some(socket) = &socket {
        addresses.insert("controller".to_owned(), socket.local_addr()?);
    }
    if let Some(trust) = &link.trust {
        actix_rt::spawn(Arc::clone(trust).watch());
        let asked = agent.clone();
        let ask =
            async move |request| asked.send(RenewCertificate { request }).await.map_err(|error| error.to_string())?;
        actix_rt::spawn(keep_renewed(Arc::clone(trust), ask));
    }
    let bridge = AgentBridge::open(&agent, &link, socket, settings.agent.controller)?;
    match home.write_addresses(&addresses) {
        Err(error) if full.is_some() && error.is_full() => tracing::warn!("{error}"),
        written => written?,
    }
    ready(&Ready { addresses, token: None });
    let end = serve_until_asked_to_end(&mut signals, &mut ends).await;
    if (settings.agent.on_exit == OnExit::Stop || init::is_init()) && end.is_ok() {
        let (stop, agents) = (vec![agent.send(StopAllNodesForNow)], std::slice::from_ref(&agent));
        stop_nodes(stop, agents, &mut signals, settings.agent.init_grace).await;
    }
    drop(bridge);
    part(agent.recipient()).await;
    end
}

/// Says in the log how the service that this agent runs in would end its nodes, which have groups outside of its own if
/// they are `apart`. Where it runs in none, nobody is asked.
fn warn_of_the_service(settings: &Settings, apart: bool) {
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if service::unit_of(&cgroup).is_none() {
        return;
    }
    let stops = settings.agent.on_exit == OnExit::Stop;
    // Beside the start: systemd may take its time to answer.
    let looked = std::thread::Builder::new().name("service".into()).spawn(move || {
        for warning in service::warnings(&cgroup, apart, stops, Unit::ask) {
            tracing::warn!("{warning}");
        }
    });
    drop(looked); // without a thread nothing is said, and `watchpost doctor` still is there
}

/// The controller asks itself, and waits as others do where the authority's key is elsewhere.
async fn renew_own(trust: Arc<Trust>, registrar: Arc<Registrar>) {
    let own = Arc::clone(&trust);
    keep_renewed(trust, async move |request| {
        let bearer = own.credentials().certificate.clone();
        registrar.renew(bearer, request).await
    })
    .await;
}

/// Ends links in order, so that the peers know that it was meant. One that does not answer is left.
async fn part(from: Recipient<Farewell>) {
    let _ = timeout(Duration::from_secs(1), from.send(Farewell)).await;
}

/// Waits until the agents have stopped their nodes; a second request to end hurries, and so does the end of the grace that
/// PID 1 has.
pub(super) async fn stop_nodes<R: Future>(
    stops: Vec<R>,
    agents: &[Addr<Agent>],
    signals: &mut Signals,
    init_grace: Duration,
) {
    let mut stopped = std::pin::pin!(futures_util::future::join_all(stops));
    let mut late = std::pin::pin!(init::hurry_after(init_grace, agents));
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            () = &mut late => {}
            () = signals.asked_to_end() => agents.iter().for_each(|agent| agent.do_send(HurryUp)),
        }
    }
}

/// The options of an agent of this process, whose nodes get `descriptors`: the limit that the process had before it
/// raised its own for the sake of many nodes.
pub(super) fn agent_options(
    settings: &Settings,
    instance: InstanceName,
    home: &StateDir,
    nodes: PathBuf,
    descriptors: (u64, u64),
) -> AgentOptions {
    let window = settings.link.window_bytes as usize;
    AgentOptions {
        cluster: settings.cluster.clone(),
        logs: home.path().join("archive"),
        descriptors: Some(descriptors),
        groups: settings.agent.cgroup.clone(),
        zeek: settings.agent.zeek.clone(),
        run_dir: settings.agent.run_dir.clone(),
        output: settings.agent.output.clone(),
        crashes: settings.agent.crashes.clone(),
        bounds: Bounds { window, ..Bounds::default() },
        place: home.place(),
        ..AgentOptions::new(instance, nodes)
    }
}

/// Serves the API, if the settings want it; the token is what clients on this machine have to know.
pub(super) fn serve(
    controller: &Addr<Controller>,
    settings: &Settings,
    home: &StateDir,
    tls: Option<Tls>,
    facts: &Facts,
) -> Result<(Option<WebServer>, Option<String>), RunError> {
    let ControllerSettings { http, open, hosts, .. } = settings.controller.clone();
    let Some(address) = http else { return Ok((None, None)) };
    let insecure = settings.insecure;
    let socket = bind("for clients", address)?;
    // Where anybody may come in, it does not help that nobody listens.
    let is_protected = tls.is_some() && !(open && insecure);
    expose("the HTTP API", "http", socket.local_addr()?, is_protected, facts);
    let token = home.token()?;
    let tokens = Arc::new(Tokens::open(home.path()));
    actix_rt::spawn(Arc::clone(&tokens).watch());
    let web = WebSettings {
        open,
        insecure,
        hosts,
        token: token.clone(),
        tokens,
        own_hostname: Machine::this().hostname().to_owned(),
        ports: settings.controller.port_rules(),
        facts: facts.clone(),
        tls,
    };
    Ok((Some(web::serve(socket, controller.clone().into(), web)?), (!open).then_some(token)))
}

/// Says what the settings have admitted, in the log and wherever people look.
fn expose(what: &str, purpose: &str, address: SocketAddr, is_protected: bool, facts: &Facts) {
    warn_if_open(what, address, is_protected);
    if !is_protected && loopback_only(address).is_err() {
        facts.is_open(purpose, address);
    }
}

/// Serves zeek-client, if the settings want it.
pub(super) fn serve_clients(
    controller: &Addr<Controller>,
    settings: &Settings,
    Websocket { tls, has_client_ca }: Websocket,
    facts: &Facts,
) -> Result<Option<WebServer>, RunError> {
    let ControllerSettings { name, hosts, websocket, websocket_answer_within, .. } = &settings.controller;
    let Some(address) = *websocket else { return Ok(None) };
    let socket = bind("for zeek-client", address)?;
    expose("the port for zeek-client", "zeek-client", socket.local_addr()?, has_client_ca, facts);
    let ports = settings.controller.port_rules();
    let port = Port {
        management: ManagementSettings { name: name.clone(), answer_within: *websocket_answer_within, ports },
        own_hostname: Machine::this().hostname().to_owned(),
        hosts: hosts.clone(),
        tls,
    };
    Ok(Some(management::serve(socket, controller.clone(), port)?))
}

/// Closes the ports for clients, and waits until they are closed.
pub(super) fn finish(web: Option<WebServer>, clients: Option<WebServer>) -> Result<(), RunError> {
    let servers: Vec<_> = web.into_iter().chain(clients).collect();
    servers.iter().for_each(WebServer::stop);
    Ok(servers.into_iter().try_for_each(WebServer::join)?)
}

fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).map_err(|source| RunError::Listen { what, address, source })
}

/// Hears of the end of actors that must not end.
pub(super) struct Host {
    ends: mpsc::UnboundedSender<&'static str>,
}

impl Host {
    pub(super) fn start() -> (Addr<Self>, UnboundedReceiver<&'static str>) {
        let (ends, ended) = mpsc::unbounded_channel();
        (Actor::start(Self { ends }), ended)
    }

    fn tell(&self, what: &'static str) {
        let _ = self.ends.send(what); // the daemon is ending already
    }
}

impl Actor for Host {
    type Context = Context<Self>;
}

impl Handler<ControllerGone> for Host {
    type Result = ();

    fn handle(&mut self, _: ControllerGone, _: &mut Context<Self>) {
        self.tell("controller");
    }
}

impl Handler<AgentEvent> for Host {
    type Result = ();

    fn handle(&mut self, event: AgentEvent, _: &mut Context<Self>) {
        match event {
            AgentEvent::Gone => self.tell("agent"),
            // It is in the log, and the agent tries on: whoever mends the cause need not come back here.
            AgentEvent::Refused(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_for_logs() {
        let ready = Ready { addresses: BTreeMap::new(), token: Some("s3cret".into()) };
        assert_eq!(format!("{ready:?}"), "Ready { addresses: {}, .. }");
    }
}

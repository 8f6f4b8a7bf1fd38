//! The lab: controller, agents and supervisors in one process, for one machine.
//!
//! It is the fleet without the bridge: an agent for every instance of the configuration, linked by mailbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::{fs, io};

use actix::Addr;

use super::daemon::{Host, Ready, agent_options, finish, serve, serve_clients, stop_nodes};
use super::doors::{Daemon, Doors};
use super::service::Service;
use super::signals::Signals;
use super::{AgentOptions, ControllerOptions, RunError, init, join, start_agent, start_controller, stray};
use crate::agent::StopAllNodes;
use crate::bundle::Scan;
use crate::controller::Controller;
use crate::controller::files::GetBlobs;
use crate::message::client::{SetConfigurationRequest, Terms};
use crate::message::pending;
use crate::model::{Configuration, InstanceName, Outcome, RequestId};
use crate::rest;
use crate::settings::Settings;
use crate::state_dir::StateDir;
use crate::supervisor::process::limits;
use crate::web::Facts;

/// Runs a lab until it is asked to end; then its nodes are stopped in order. Asked again, it hurries.
///
/// `files` are those that its nodes are to have. `ready` is called once, when the API listens and before the first node
/// starts.
///
/// From then on SIGCHLD is held back in this thread, and in those that it starts, for good. A
/// [`Command`](std::process::Command) of yours begins with it held back too, unless it lets it through itself; and a thread
/// that was there before swallows the signal, so that strays that end stay zombies: begin with this.
pub async fn lab(
    settings: Settings,
    mut configuration: Configuration,
    files: Vec<Scan>,
    ready: impl FnOnce(&Ready),
) -> Result<(), RunError> {
    let descriptors = limits::raise_open_files()?; // ahead of all threads
    stray::take_on()?; // so is this
    let mut signals = Signals::listen()?;
    let doors = Doors::open(&settings, Daemon::Lab)?;
    let home = StateDir::take(&settings.state_dir)?;
    home.let_nodes_through()?;
    home.watch();
    init::say_what_it_means();
    let (host, mut ends) = Host::start();
    let controller = start_controller(ControllerOptions {
        host: Some(host.clone().recipient()),
        ..ControllerOptions::of(&settings.controller, home.path())?
    })?;
    if let Some(trust) = &doors.trust {
        actix_rt::spawn(Arc::clone(trust).watch());
    }
    take(&controller, files).await?;
    // Here every instance is this machine, and nobody is dialled.
    for instance in &mut configuration.instances {
        (instance.host, instance.port) = (None, None);
    }
    let mut names: BTreeSet<_> = configuration.instances.iter().map(|instance| instance.name.clone()).collect();
    // Before anybody else can ask for something: it waits until its agents are there.
    let deploying = deploy(controller.clone(), configuration);
    let facts = Facts::new(doors.trust);
    let (web, token) = serve(&controller, &settings, &home, doors.http, &facts)?;
    let clients = serve_clients(&controller, &settings, doors.websocket, &facts)?;
    let mut addresses: BTreeMap<_, _> = web.iter().map(|web| ("http".to_owned(), web.address())).collect();
    addresses.extend(clients.iter().map(|clients| ("zeek-client".to_owned(), clients.address())));
    home.write_addresses(&addresses)?;
    let mut agents = Vec::new();
    names.extend(left_behind(&home)?);
    for name in names {
        // Each has a directory of its own, as it would have on a machine of its own.
        let options = agent_options(&settings, name.clone(), &home, home.nodes().join(name.as_str()), descriptors);
        let agent = start_agent(AgentOptions { host: Some(host.clone().recipient()), ..options })?;
        join(&controller, &agent, &name);
        agents.push(agent);
    }
    ready(&Ready { addresses, token });
    let service = Service::find();
    service.is_ready();
    actix_rt::spawn(rest::after_start());
    let end = tokio::select! {
        refused = deploying => refused,
        () = signals.asked_to_end() => Ok(()),
        Some(what) = ends.recv() => Err(RunError::Failed(what)),
    };
    service.is_stopping();
    let stops = agents.iter().map(|agent| agent.send(StopAllNodes)).collect();
    stop_nodes(stops, &agents, &mut signals, settings.agent.init_grace).await;
    finish(web, clients)?;
    end
}

/// Gives the controller the files of nodes.
async fn take(controller: &Addr<Controller>, files: Vec<Scan>) -> Result<(), RunError> {
    let blobs = controller.send(GetBlobs).await.map_err(|_| RunError::Failed("controller"))??;
    if let Some(blobs) = blobs {
        blobs.apart(move |blobs| files.iter().try_for_each(|scan| blobs.take(scan))).await?;
    }
    Ok(())
}

/// Instances that an earlier lab in this directory had: what still runs of them has to be minded, and ended.
fn left_behind(home: &StateDir) -> io::Result<Vec<InstanceName>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(home.nodes())? {
        let entry = entry?;
        let has_record = |node: io::Result<fs::DirEntry>| node.is_ok_and(|node| node.path().join("record").exists());
        let is_instance = fs::read_dir(entry.path()).is_ok_and(|mut nodes| nodes.any(has_record));
        let name = entry.file_name().to_str().and_then(|name| InstanceName::new(name).ok());
        names.extend(name.filter(|_| is_instance));
    }
    Ok(names)
}

/// Deploys, beginning at once; what it returns completes only if the configuration was refused. A node that fails is shown,
/// and the lab goes on.
fn deploy(controller: Addr<Controller>, configuration: Configuration) -> impl Future<Output = Result<(), RunError>> {
    // A short printable text.
    let reqid = RequestId::new("lab").expect("a valid id");
    let asked = controller.send(SetConfigurationRequest { reqid, configuration, upon: None, terms: Terms::default() });
    async {
        let answer = asked.await.map_err(|_| RunError::Failed("controller"))??;
        let complaints = answer.outcomes.iter().filter(|outcome| !outcome.is_success());
        // Somebody else was sooner, while the files of nodes were looked through: the lab runs what they deploy.
        let is_overtaken = answer.deployment.is_none() && complaints.clone().any(pending::is_meant_by);
        if answer.configuration.is_none() && !is_overtaken {
            return Err(RunError::Refused(complaints.map(words).collect()));
        }
        complaints.for_each(|complaint| tracing::warn!("{}", words(complaint)));
        std::future::pending().await
    }
}

fn words(outcome: &Outcome) -> String {
    let error = outcome.error.as_deref().unwrap_or("done");
    match (&outcome.node, &outcome.instance) {
        (Some(node), _) => format!("node {node}: {error}"),
        (None, Some(instance)) => format!("instance {instance}: {error}"),
        (None, None) => error.to_owned(),
    }
}

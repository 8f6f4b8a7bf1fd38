//! A larger tool that keeps two programs alive: a controller and an agent in its own actix system.
//!
//! It deploys two nodes, prints every change, kills one of them to show what happens, and stops both. Run it by
//! `cargo run --example embed`.

use std::error::Error;

use actix::{Actor, Context, Handler};
use tokio::sync::mpsc;
use watchpost::agent::StopAllNodes;
use watchpost::message::agent::NotifyChange;
use watchpost::message::client::{News, NewsBatch, SetConfigurationRequest, Subscribe, Terms};
use watchpost::model::{
    Configuration, ConfigurationId, Instance, InstanceName, Node, NodeName, NodeState, RequestId, Role,
};
use watchpost::run::{AgentOptions, ControllerOptions, join, start_agent, start_controller};

/// Hands every change on to the program.
struct Listener(mpsc::UnboundedSender<NotifyChange>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<NewsBatch> for Listener {
    type Result = ();

    fn handle(&mut self, batch: NewsBatch, _: &mut Context<Self>) {
        for entry in batch.entries {
            if let News::Change(change) = &entry.news {
                let _ = self.0.send(change.clone()); // the program may have seen enough
            }
        }
    }
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let state = tempfile::tempdir()?;
    let here = InstanceName::new("here")?;

    let controller = start_controller(ControllerOptions::new(InstanceName::new("controller")?, state.path()))?;
    let agent = start_agent(AgentOptions::new(here.clone(), state.path().join("nodes")))?;
    join(&controller, &agent, &here);

    let (changes, mut changed) = mpsc::unbounded_channel();
    let listener = Listener(changes).start();
    controller.send(Subscribe { since: None, to: listener.recipient() }).await??;

    let node = |name| -> Result<Node, Box<dyn Error>> {
        let mut node = Node::new(NodeName::new(name)?, here.clone(), Role::None);
        node.command = vec!["/bin/sh".into(), "-c".into(), "exec sleep 1000".into()];
        Ok(node)
    };
    let configuration = Configuration {
        instances: vec![Instance { name: here.clone(), host: None, port: None }],
        nodes: vec![node("one")?.into(), node("two")?.into()],
        ..Configuration::empty(ConfigurationId::new("two-sleepers")?)
    };
    let (reqid, terms) = (RequestId::new("first")?, Terms::default());
    let request = SetConfigurationRequest { reqid, configuration, upon: None, terms };
    let answer = controller.send(request).await??;
    println!("deployed {} nodes", answer.outcomes.iter().filter(|outcome| outcome.is_success()).count());

    let mut killed = false;
    let mut back = false;
    while !back {
        let NotifyChange { node, old, new, pid, reason, .. } = changed.recv().await.ok_or("the controller is gone")?;
        println!("{node}: {old} → {new} ({reason})");
        if new == NodeState::Running && node.as_str() == "one" {
            back = killed;
            if let (false, Some(pid)) = (killed, pid) {
                println!("killing {node}");
                std::process::Command::new("kill").args(["-9", &pid.to_string()]).status()?;
                killed = true;
            }
        }
    }

    agent.send(StopAllNodes).await?;
    println!("stopped");
    Ok(())
}

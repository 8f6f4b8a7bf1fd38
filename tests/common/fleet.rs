//! Whole clusters: a lab, and a fleet.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Client, Daemon, Scene};

/// A lab in a scene of its own.
pub struct Lab {
    // Dropped in this order: nobody starts a node again while the scene is cleared.
    pub daemon: Daemon,
    pub client: Client,
    pub scene: Scene,
}

impl Lab {
    /// A lab that runs this cluster file, or the built-in example.
    pub fn start(file: Option<&str>) -> Self {
        let scene = Scene::new();
        Self::start_in(scene, file)
    }

    /// The same in a scene that the cluster file had to know.
    pub fn start_in(scene: Scene, file: Option<&str>) -> Self {
        let file = file.map(|text| scene.write("lab.cfg", text));
        let http = scene.any_port();
        let mut args = vec!["lab", "--http", &http];
        args.extend(file.as_ref().map(|path| path.to_str().unwrap()));
        let daemon = Daemon::start(&scene, "lab", &args);
        Self { client: daemon.client(), daemon, scene }
    }

    /// Deploys this text and expects that it comes true.
    pub fn deploy(&self, text: &str) -> watchpost::web::json::Status {
        self.client.deployed(&self.scene.write("next.cfg", text))
    }
}

/// A controller and its agents in a scene of their own.
pub struct Fleet {
    pub controller: Daemon,
    pub agents: BTreeMap<&'static str, Daemon>,
    pub client: Client,
    pub scene: Scene,
}

impl Fleet {
    /// Agents `a` and `b`, which dial the controller, and `c`, which waits to be dialled.
    pub fn start() -> Self {
        let scene = Scene::new();
        let any = scene.any_port();
        let controller = Daemon::start(&scene, "controller", &["controller", "--listen", &any, "--http", &any]);
        let mut fleet = Self { client: controller.client(), controller, agents: BTreeMap::new(), scene };
        fleet.add("a");
        fleet.add("b");
        fleet.agents.insert("c", Daemon::start(&fleet.scene, "c", &["agent", "--name", "c", "--listen", &any]));
        fleet
    }

    /// One more agent that dials the controller.
    pub fn add(&mut self, name: &'static str) {
        let agent = self.agent(name, name);
        self.agents.insert(name, agent);
    }

    /// An agent that dials the controller as the instance `instance`, with a state directory of another name.
    pub fn agent(&self, directory: &str, instance: &str) -> Daemon {
        let controller = self.controller.addresses()["agents"].to_string();
        Daemon::start(&self.scene, directory, &["agent", "--name", instance, "--connect", &controller])
    }

    pub fn agent_mut(&mut self, name: &str) -> &mut Daemon {
        self.agents.get_mut(name).expect("an agent of the fleet")
    }

    /// A cluster file of these instances and sections.
    pub fn file(&self, instances: &[&str], sections: &[String]) -> PathBuf {
        let address =
            |name: &&str| match self.agents.get(*name).and_then(|agent| agent.addresses().remove("controller")) {
                Some(address) => format!("{name} = {address}\n"),
                None => format!("{name}\n"),
            };
        let instances: String = instances.iter().map(address).collect();
        self.scene.write("fleet.cfg", &format!("[instances]\n{instances}\n{}", sections.concat()))
    }

    /// One node per agent, `on-a` to `on-c`, and `also-b`: deployed and running.
    pub fn with_nodes() -> Self {
        let fleet = Self::start();
        let nodes = [("on-a", "a"), ("on-b", "b"), ("also-b", "b"), ("on-c", "c")];
        let nodes = nodes.map(|(name, instance)| super::sleeper(name, &format!("instance = {instance}")));
        fleet.client.deployed(&fleet.file(&["a", "b", "c"], &nodes));
        fleet.client.wait_for_all("RUNNING");
        fleet
    }
}

//! A plan asks everybody and changes nothing; one that is carried out finds the cluster as it was, or is refused.

use super::*;
use crate::bundle::Digest;
use crate::message::client::{ClusterPlan, Deployed, PlanRequest, PlannedLink};
use crate::message::frame::Body;
use crate::model::{Action, Inspection, Planned, Step};

#[test]
fn every_agent_is_asked_and_what_it_says_is_put_together() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("a", "n2"), ("b", "n3")]);
    let wanted = configuration("c2", &[("a", "n1"), ("b", "n2"), ("b", "n4")]);
    cluster.plan("plan", wanted);
    let steps = |steps: &[(&str, Action)]| -> Vec<Step> {
        steps.iter().map(|(name, action)| Step { node: node(name), action: action.clone() }).collect()
    };
    let new = Action::Start { was: None };
    cluster.inspected(
        "a",
        Ok(Inspection { steps: steps(&[("n1", Action::Keep), ("n2", Action::Stop)]), complaints: vec![] }),
    );
    let complaint = Outcome::node_failed(&instance("liar"), &node("n4"), "user `x` does not exist".into(), None);
    let told = steps(&[("n2", new.clone()), ("n3", Action::Stop), ("n4", new.clone())]);
    cluster.inspected("b", Ok(Inspection { steps: told, complaints: vec![complaint] }));
    let plan = cluster.planned("plan");
    assert_eq!(
        words(&plan.nodes),
        [
            "n1 on a: Keep",
            "n2 on b: Move { from: InstanceName(\"a\") }",
            "n3 on b: Stop",
            "n4 on b: Start { was: None }"
        ]
    );
    let order: Vec<_> = plan.steps.iter().map(|step| (step.phase.to_string(), step.nodes.clone())).collect();
    let step =
        |phase: &str, nodes: &[&str]| (phase.to_owned(), nodes.iter().map(|name| node(name)).collect::<Vec<_>>());
    assert_eq!(order, [step("moving", &["n2"]), step("switching", &["n2", "n4"]), step("committing", &["n3"])]);
    assert_eq!(plan.deployed, Deployed(Some(ConfigurationId::new("c1").unwrap())));
    let own = Outcome::node_failed(&instance("b"), &node("n4"), "user `x` does not exist".into(), None);
    assert_eq!((plan.outcomes, plan.complaints), (vec![own], vec![]), "an agent speaks for itself alone");
    assert!(plan.instances.iter().all(|instance| instance.change == PlannedLink::Kept && instance.unchecked.is_none()));
    assert_eq!((cluster.known(), cluster.needed()), (vec!["n1", "n2", "n3"], vec!["a", "b"]), "nothing has changed");
    assert_eq!(cluster.take_all_sent(), [""; 0], "nobody was told anything");
}

#[test]
fn a_plan_waits_for_who_fetches_files_to_look_at_and_not_for_who_does_nothing() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.plan("plan", configuration("c2", &[("a", "n1"), ("b", "n2")]));
    cluster.inspected("b", Ok(Inspection { steps: vec![], complaints: vec![] }));
    for number in 0..20 {
        let reqid = RequestId::new(&format!("blob-{number}")).unwrap();
        let parts = vec![BlobPart { digest: Digest::of(b"content"), at: 0, most: 9 }];
        match number % 2 {
            0 => cluster.say("a", ReadBlobsRequest { reqid, parts }),
            _ => cluster.say("a", NotifyLayingOut {}),
        }
        cluster.pass(Duration::from_secs(25));
    }
    assert!(!cluster.answers.contains_key("plan"), "a is at work");
    cluster.pass(Duration::from_secs(31));
    let plan = cluster.planned("plan");
    let lost = plan.instances.iter().filter(|instance| instance.unchecked.is_some()).map(|instance| &instance.name);
    assert_eq!(lost.collect::<Vec<_>>(), [&instance("a")]);
}

#[test]
fn whoever_cannot_say_is_spoken_for_and_named() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2"), ("c", "n3"), ("d", "n4")]);
    cluster.lose("b");
    let names = [("a", "n1"), ("b", "n2"), ("c", "n3"), ("e", "n5")];
    cluster.plan("plan", configuration("c2", &names));
    cluster.inspected("a", Err("it is busy".into()));
    cluster.not_known("c", crate::message::agent::InspectConfigurationRequest::KIND);
    let plan = cluster.planned("plan");
    assert_eq!(
        words(&plan.nodes),
        ["n1 on a: Keep", "n2 on b: Keep", "n3 on c: Keep", "n4 on d: Stop", "n5 on e: Start { was: None }"]
    );
    let said = |name: &str| {
        let instance = plan.instances.iter().find(|instance| instance.name.as_str() == name).unwrap();
        (instance.change, instance.unchecked.clone().unwrap_or_default())
    };
    assert_eq!(said("a"), (PlannedLink::Kept, "it is busy".into()));
    assert!(said("b").1.starts_with("not connected since "), "{:?}", said("b"));
    assert!(said("c").1.starts_with("its agent does not know `inspect_configuration_request`"), "{:?}", said("c"));
    assert_eq!(said("d"), (PlannedLink::Removed, String::new()));
    let unknown = "no agent of that name is connected: start one, or mend the name";
    assert_eq!(said("e"), (PlannedLink::Added, unknown.into()));
    let complained: Vec<_> = plan.outcomes.iter().map(|outcome| outcome.instance.clone().unwrap()).collect();
    assert_eq!(complained, ["a", "b", "e"].map(instance), "one of another release does as it is told all the same");
}

#[test]
fn an_agent_that_does_not_answer_is_not_waited_for() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.plan("plan", configuration("c2", &[("a", "n1"), ("b", "n2")]));
    cluster.lose("a");
    assert!(cluster.answers.is_empty(), "b may answer");
    cluster.pass(Duration::from_secs(300));
    let plan = cluster.planned("plan");
    let errors: Vec<_> = plan.outcomes.iter().map(|outcome| outcome.error.clone().unwrap()).collect();
    assert_eq!(errors, ["the link was lost before it answered", TIMED_OUT]);
    assert_eq!(plan.instances[0].unchecked.as_deref(), Some("the link was lost before it answered"));
    assert_eq!(words(&plan.nodes), ["n1 on a: Keep", "n2 on b: Keep"]);
}

#[test]
fn what_is_wrong_with_it_is_all_said_and_of_what_was_not_understood_nothing_else() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    let mut wanted = configuration("c2", &[("a", "n1"), ("a", "n1"), ("a", "n2")]);
    Arc::make_mut(&mut wanted.nodes[2]).port = Some(0);
    cluster.plan("plan", wanted.clone());
    cluster.inspected("a", Ok(Inspection::default()));
    let plan = cluster.planned("plan");
    assert_eq!(plan.complaints, crate::plan::validate(&wanted, &PortRules::default()));
    assert_eq!((plan.complaints.len(), plan.nodes), (2, vec![]));
    let nothing = configuration("c3", &[]);
    let request = |reqid| PlanRequest {
        reqid,
        configuration: nothing,
        complaints: vec!["c.cfg:1: no".into()],
        all_at_once: false,
        without: BTreeSet::new(),
    };
    cluster.ask("read", |reqid| request(reqid).into());
    assert_eq!(cluster.planned("read").complaints, ["c.cfg:1: no"]);
}

#[test]
fn so_many_plans_are_made_side_by_side_and_none_beside_a_deployment() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    let wanted = || configuration("c2", &[("a", "n1")]);
    (0..9).for_each(|number| cluster.plan(&format!("plan-{number}"), wanted()));
    let ninth = cluster.planned("plan-8");
    let errors = |plan: &ClusterPlan| plan.outcomes.iter().map(|of| of.error.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!(errors(&ninth), ["8 other plans are being made: ask again in a while"]);
    assert_eq!((words(&ninth.nodes), cluster.answers.len()), (vec!["n1 on a: Keep".into()], 0));
    (0..8).for_each(|_| cluster.inspected("a", Ok(Inspection::default())));
    assert_eq!(cluster.answers.len(), 8);

    cluster.answers_itself = false;
    cluster.deploy("deployment", configuration("c3", &[("a", "n1"), ("b", "n2")]));
    cluster.plan("beside", wanted());
    cluster.inspected("a", Ok(Inspection::default()));
    let [under_way] = &errors(&cluster.planned("beside"))[..] else { panic!() };
    assert!(under_way.starts_with("deployment 2 is under way, by anybody since "), "{under_way}");
}

#[test]
fn what_an_instance_runs_that_is_given_up_is_said_to_run_on() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.lose("b");
    let wanted = configuration("c2", &[("a", "n1"), ("a", "n2")]);
    cluster.plan("waits", wanted.clone());
    cluster.inspected("a", Ok(Inspection::default()));
    let complaint = cluster.planned("waits").outcomes.pop().unwrap();
    assert_eq!(complaint.instance, Some(instance("b")));
    assert!(
        complaint.error.unwrap().ends_with("wait for it, or give it up with `--without b`"),
        "it would be waited for"
    );
    cluster.plan_without("plan", wanted, &["b"]);
    let new = Step { node: node("n2"), action: Action::Start { was: None } };
    let kept = Step { node: node("n1"), action: Action::Keep };
    cluster.inspected("a", Ok(Inspection { steps: vec![kept, new], complaints: vec![] }));
    let plan = cluster.planned("plan");
    assert_eq!(words(&plan.nodes), ["n1 on a: Keep", "n2 on a: Move { from: InstanceName(\"b\") }"]);
    assert_eq!(plan.outcomes, []);
    let why = plan.instances[1].unchecked.as_deref();
    let want = "it is out of reach: what it runs ends when it comes back; `n2` is started elsewhere, and may run twice until it \
                is back or stopped";
    assert_eq!(why, Some(want));
}

#[test]
fn an_instance_that_nobody_is_to_wait_for_is_not_asked_and_what_it_gets_comes_last() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.lose("b");
    let wanted = configuration("c2", &[("a", "n1"), ("b", "n2"), ("b", "n3")]);
    cluster.plan("waits", wanted.clone());
    cluster.inspected("a", Ok(Inspection::default()));
    assert_eq!(cluster.planned("waits").outcomes.len(), 1, "it would wait in vain");
    cluster.plan_without("plan", wanted.clone(), &["b"]);
    let kept = Step { node: node("n1"), action: Action::Keep };
    cluster.inspected("a", Ok(Inspection { steps: vec![kept], complaints: vec![] }));
    let plan = cluster.planned("plan");
    assert_eq!(plan.outcomes, []);
    let why = plan.instances[1].unchecked.as_deref();
    assert_eq!(why, Some("nobody waits for it: it follows when it can be reached"));
    assert_eq!(words(&plan.nodes), ["n1 on a: Keep", "n2 on b: Keep", "n3 on b: Start { was: None }"]);
    let steps: Vec<_> = plan.steps.iter().map(|step| (step.phase.to_string(), step.nodes.len())).collect();
    assert_eq!(steps, [("committing".to_owned(), 1)]);
    // As a deployment, it takes no names that nobody has.
    cluster.plan_without("stranger", wanted, &["x"]);
    cluster.inspected("a", Ok(Inspection::default()));
    let told = cluster.planned("stranger").outcomes;
    assert_eq!(told.last().unwrap().error.as_deref(), Some("`x` is no instance of the configuration"));
}

#[test]
fn an_instance_that_is_to_be_dialled_is_not_missed_before() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    let mut wanted = configuration("c2", &[("a", "n1"), ("b", "n2")]);
    let b = wanted.instances.iter_mut().find(|known| known.name.as_str() == "b").unwrap();
    (b.host, b.port) = (Some([127, 0, 0, 1].into()), Some(2151));
    cluster.plan("plan", wanted);
    cluster.inspected("a", Ok(Inspection::default()));
    let plan = cluster.planned("plan");
    assert_eq!(plan.outcomes, []);
    assert_eq!(plan.instances[1].unchecked.as_deref(), Some("the controller dials it once it is deployed"));
    assert_eq!(cluster.dials, [""; 0]);
}

#[test]
fn what_was_planned_upon_another_configuration_is_refused_and_nothing_of_it_is_kept() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    let upon = |id: Option<&str>| Some(Deployed(id.map(|id| ConfigurationId::new(id).unwrap())));
    let deploy = |cluster: &mut Cluster, name: &str, of: &str, then: Option<&str>| {
        let (configuration, upon) = (configuration(of, &[("a", "n1")]), upon(then));
        cluster.ask(name, |reqid| {
            client::SetConfigurationRequest { reqid, configuration, upon, terms: client::Terms::default() }.into()
        });
        cluster.answer(name)
    };
    let refused = deploy(&mut cluster, "none", "c2", None);
    assert_eq!(
        refused,
        ["all: the cluster has changed since this was planned: configuration c1 is deployed now, none was then"]
    );
    assert_eq!(deploy(&mut cluster, "same", "c2", Some("c1")), ["a: done"]);
    let refused = deploy(&mut cluster, "late", "c3", Some("c1"));
    assert_eq!(
        refused,
        [
            "all: the cluster has changed since this was planned: configuration c2 is deployed now, configuration c1 was then"
        ]
    );
    for slot in [Slot::Staged, Slot::Ready, Slot::Deployed] {
        assert_eq!(cluster.state.shelf.get(slot).unwrap().id.as_str(), "c2");
    }
}

fn words(nodes: &[Planned]) -> Vec<String> {
    nodes.iter().map(|planned| format!("{} on {}: {:?}", planned.node, planned.instance, planned.action)).collect()
}

impl Cluster {
    pub(super) fn plan(&mut self, name: &str, configuration: Configuration) {
        self.plan_without(name, configuration, &[]);
    }

    pub(super) fn plan_without(&mut self, name: &str, configuration: Configuration, without: &[&str]) {
        let without = without.iter().map(|name| instance(name)).collect();
        let (complaints, all_at_once) = (Vec::new(), false);
        self.ask(name, |reqid| PlanRequest { reqid, configuration, complaints, all_at_once, without }.into());
    }

    /// That agent answers what it was asked.
    pub(super) fn inspected(&mut self, name: &str, inspection: Result<Inspection, String>) {
        let reqid = self.take_sent(name, |message| match message {
            ToAgent::InspectConfigurationRequest(request) => Some(request.reqid),
            _ => None,
        });
        self.say(name, InspectConfigurationResponse { reqid, inspection });
    }

    pub(super) fn planned(&mut self, name: &str) -> ClusterPlan {
        match self.answers.remove(name) {
            Some(ClientResponse::PlanResponse(answer)) => *answer.plan,
            other => panic!("{other:?}"),
        }
    }
}

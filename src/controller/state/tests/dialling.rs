//! Whom the controller is to dial, and cannot.

use super::*;
use crate::model::Inspection;

#[test]
fn an_instance_that_must_not_be_dialled_is_refused_before_anything_is_staged_and_shown_with_the_reason() {
    let dialled = |id, host: [u8; 4]| {
        let mut dialled = configuration(id, &[("a", "n1"), ("b", "n2")]);
        (dialled.instances[1].host, dialled.instances[1].port) = (Some(host.into()), Some(1));
        dialled
    };
    let mut cluster = Cluster::new(Stored::default());
    cluster.state.rules.dials = Reach::Here;
    cluster.deploy("deploy", dialled("c1", [192, 0, 2, 1]));
    let error = "this controller cannot dial `b` at 192.0.2.1:1: without certificates links stay on this machine; make them \
                 by `watchpost pki`, or admit by `insecure = true` that whoever listens there is a part of the cluster, \
                 then restart the controller";
    assert_eq!(cluster.answer("deploy"), [format!("all: {error}")]);
    cluster.plan("plan", dialled("c1", [192, 0, 2, 1]));
    let plan = cluster.planned("plan");
    assert_eq!(plan.complaints, [error]);
    assert_eq!(plan.instances[1].unchecked.as_deref(), Some("this controller cannot dial it"));
    assert_eq!((&cluster.saved.staged, &cluster.dials[..]), (&None, &[][..]));
    cluster.deploy("near", dialled("c2", [127, 9, 9, 9]));
    assert_eq!(cluster.dials, ["dial b:1"]);

    // One that could, and was started again without its certificates.
    let kept = Some(Kept::new(&dialled("c3", [192, 0, 2, 1])));
    let stored = Stored { ready: kept.clone(), deployed: kept, ..Stored::default() };
    let rules = Rules { dials: Reach::Here, ..cluster.state.rules.clone() };
    let (state, fx) = State::new(rules, stored, Recalled::default(), cluster.now);
    assert!(!fx.iter().any(|effect| matches!(effect, Effect::Dial(..))), "{fx:?}");
    let is_told =
        |effect: &Effect| matches!(effect, Effect::Publish { news: News::Error(told), .. } if told.msg.contains(error));
    assert!(fx.iter().any(is_told), "{fx:?}");
    let shown = state.roster.statuses().into_iter().find(|status| status.name.as_str() == "b").unwrap();
    assert_eq!(shown.reason, format!("not dialled: {error}"));
    cluster.state = state;
    cluster.ask("again", |reqid| client::DeployRequest { reqid, terms: client::Terms::default() }.into());
    assert_eq!(cluster.answer("again"), [format!("all: {error}")], "what was staged before then");
}

#[test]
fn one_that_is_given_up_by_name_keeps_nobody_from_deploying_though_it_must_not_be_dialled() {
    let mut wanted = configuration("c1", &[("a", "n1"), ("b", "n2")]);
    (wanted.instances[1].host, wanted.instances[1].port) = (Some([192, 0, 2, 1].into()), Some(1));
    let mut cluster = Cluster::new(Stored::default());
    cluster.state.rules.dials = Reach::Here;
    cluster.connect("a");
    cluster.plan_without("plan", wanted.clone(), &["b"]);
    cluster.inspected("a", Ok(Inspection::default()));
    assert_eq!(cluster.planned("plan").complaints, [""; 0]);
    cluster.deploy_without("deploy", wanted, &["b"]);
    assert_eq!(cluster.answer("deploy"), ["a: done"]);
    let shown = cluster.state.roster.statuses().into_iter().find(|status| status.name.as_str() == "b").unwrap();
    assert!(shown.reason.starts_with("not dialled: this controller cannot dial `b`"), "{}", shown.reason);
    assert_eq!(cluster.dials, [""; 0]);
}

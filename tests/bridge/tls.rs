//! Links with certificates: who is let in, who is not, and what both ends say about it.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use watchpost::bridge::*;
use watchpost::message::agent::{ToAgent, ToController};
use watchpost::model::{InstanceName, Timestamp};
use watchpost::trust::{Authority, Part, Trust, TrustFiles};

use crate::ends::*;

const DAY: Duration = Duration::from_secs(86_400);

#[actix_rt::test]
async fn messages_go_both_ways_over_tls() {
    let pki = Pki::new("lab");
    let (mut controller, mut agent, _alive) = pair(pki.control(), pki.sensor("sensor-1")).await;
    let (below, above) = (controller.up().await, agent.up().await);
    assert_eq!((below.peer.name.as_str(), above.peer.name.as_str()), ("sensor-1", "control"));
    for seq in 1..=2000 {
        below.out.do_send(Mail { link: below.link, messages: vec![news(seq)] });
        above.out.do_send(Mail { link: above.link, messages: vec![log(seq, &"x".repeat(100))] });
    }
    assert_eq!(agent.messages(2000).await, (1..=2000).map(news).collect::<Vec<_>>());
    assert_eq!(controller.messages(2000).await.len(), 2000);
}

#[actix_rt::test]
async fn what_was_queued_before_an_ordered_end_still_arrives_over_tls() {
    let pki = Pki::new("lab");
    let (mut controller, mut agent, _alive) = pair(pki.control(), pki.sensor("sensor-1")).await;
    let below = controller.up().await;
    agent.up().await;
    below.out.do_send(Mail { link: below.link, messages: vec![news(1)] });
    below.end.do_send(EndLink { link: below.link, reason: "you were refused".into() });
    assert_eq!(agent.messages(1).await, [news(1)]);
    assert_eq!(agent.down().await, "the peer closed the connection");
    assert_eq!(controller.down().await, "you were refused");
}

#[actix_rt::test]
async fn whoever_has_no_certificate_that_fits_is_refused_and_both_ends_know_why() {
    let (pki, strangers) = (Pki::new("lab"), Pki::new("lab"));
    let others = Pki::new("prod");
    let not_ours = "it does not accept our certificate";
    for (what, agent, at_controller, at_agent) in [
        ("of another authority", strangers.sensor("sensor-1"), not_ours, "of another authority than ours"),
        (
            "of another instance",
            LinkSettings { name: "sensor-1".into(), ..pki.sensor("sensor-2") },
            "its certificate is for watchpost:lab/agent/sensor-2, which cannot speak for agent `sensor-1`",
            "the peer refuses this end: the peer is refused: its certificate is for",
        ),
        ("no certificate", sensor(), "it does not speak TLS", "the peer speaks TLS, and this end has no certificates"),
        (
            "another cluster",
            LinkSettings { name: "sensor-1".into(), ..others.sensor("sensor-1") },
            not_ours,
            "authority",
        ),
    ] {
        let (controller, agent) = ends_of(pki.control(), agent).await;
        assert!(controller.contains(at_controller), "{what}, at the controller: {controller}");
        assert!(agent.contains(at_agent), "{what}, at the agent: {agent}");
    }
}

#[actix_rt::test]
async fn an_agent_that_is_dialled_is_the_one_that_was_meant_and_that_its_certificate_names() {
    let pki = Pki::new("lab");
    let posing = LinkSettings { name: "sensor-1".into(), ..pki.sensor("sensor-2") };
    for (agent, why) in [
        (pki.sensor("sensor-2"), "`sensor-2` answered where `sensor-1` was expected"),
        (posing, "its certificate is for watchpost:lab/agent/sensor-2, which cannot speak for agent `sensor-1`"),
    ] {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let dialled = TcpStream::connect(address).await.unwrap();
        let (accepted, peer) = socket.accept().await.unwrap();
        let (below, above) = (Ear::<ToController, ToAgent>::open(), Ear::<ToAgent, ToController>::open());
        let (tell, hear) = oneshot::channel();
        Bridge::carry(Connection::accepted(accepted, peer, &agent), Rc::new(agent), above.owner());
        let control = pki.control();
        let connection = Connection::dialled(dialled, address, &control);
        let connection = Connection { expect: Some("sensor-1".into()), ended: Some(tell), ..connection };
        Bridge::carry(connection, Rc::new(control), below.owner());
        let ended = within(hear).await.unwrap();
        assert!(ended.reason.contains(why) && ended.stood.is_none(), "{}", ended.reason);
    }
}

#[actix_rt::test]
async fn a_certificate_that_expired_is_refused_also_if_its_bearer_believes_in_it() {
    let pki = Pki::new("lab");
    let long_ago = Timestamp(Timestamp::now().0 - 10 * DAY.as_micros() as u64);
    let stale = pki.trust(Part::Agent, "sensor-1", long_ago, DAY, long_ago);
    let agent = LinkSettings { trust: Some(stale), ..sensor() };
    let (controller, agent) = ends_of(pki.control(), agent).await;
    assert!(controller.contains("its certificate has expired"), "{controller}");
    assert!(agent.contains("does not accept our certificate"), "{agent}");
}

#[actix_rt::test]
async fn an_agent_is_no_controller_whatever_it_says() {
    let pki = Pki::new("lab");
    // Its own files are in order for an agent; only what it says in the greeting is a lie.
    let posing = LinkSettings { role: LinkRole::Controller, name: "control".into(), ..pki.sensor("sensor-2") };
    let (posing, victim) = ends_of(posing, pki.sensor("sensor-1")).await;
    assert!(victim.contains("its certificate does not fit: it is for agent `sensor-2`"), "{victim}");
    assert!(posing.contains("does not accept our certificate"), "{posing}");
}

#[actix_rt::test]
async fn a_certificate_that_is_replaced_on_disk_counts_for_the_next_link() {
    let (pki, strangers) = (Pki::new("lab"), Pki::new("lab"));
    let agent = strangers.sensor("sensor-1");
    let (controller, _) = ends_of(pki.control(), agent.clone()).await;
    assert!(controller.contains("does not accept"), "{controller}");

    let name = InstanceName::new("sensor-1").unwrap();
    let issued = pki.authority.issue(Part::Agent, &name, Timestamp::now(), DAY).unwrap();
    issued.write(&strangers.directory.path().join("agent-sensor-1")).unwrap();
    let (mut below, mut above, _alive) = pair(pki.control(), agent).await;
    below.up().await;
    above.up().await;
}

#[actix_rt::test]
async fn a_certificate_that_is_revoked_ends_its_link_and_makes_no_other() {
    let pki = Pki::new("lab");
    let (control, sensor) = (pki.control(), pki.sensor("sensor-1"));
    let other = pki.sensor("sensor-2");
    let watching = actix_rt::spawn(Arc::clone(control.trust.as_ref().unwrap()).watch());
    let mut end = Listening::with(control.clone());
    let (mut revoked, mut spared) = (Ear::<ToAgent, ToController>::open(), Ear::<ToAgent, ToController>::open());
    let _dialers = (dial(end.addr, None, sensor.clone(), revoked.owner()), dial(end.addr, None, other, spared.owner()));
    let names = [end.ear.up().await.peer.name, end.ear.up().await.peer.name];
    assert!(names.contains(&"sensor-1".into()) && names.contains(&"sensor-2".into()), "{names:?}");
    revoked.up().await;
    spared.up().await;

    let name = InstanceName::new("sensor-1").unwrap();
    assert_eq!(pki.authority.revoke(Part::Agent, &name, Timestamp::now()).unwrap().certificates.len(), 1);
    pki.authority.publish_revoked(&pki.files(Part::Controller, "control")).unwrap();
    assert_eq!(end.ear.down().await, "the peer's certificate was revoked");
    revoked.down().await;
    spared.hears_nothing();
    let (controller, agent) = ends_of(control, sensor.clone()).await;
    assert!(controller.contains("its certificate was revoked"), "{controller}");
    assert!(agent.contains("does not accept our certificate"), "{agent}");

    // Who is let in again gets a new certificate, which the agent finds by itself.
    pki.sensor("sensor-1");
    assert_eq!(end.ear.up().await.peer.name, "sensor-1");
    watching.abort();
}

#[actix_rt::test]
async fn what_was_taken_back_counts_whatever_else_is_wrong_with_the_files() {
    let pki = Pki::new("lab");
    let (control, sensor) = (pki.control(), pki.sensor("sensor-1"));
    let watching = actix_rt::spawn(Arc::clone(control.trust.as_ref().unwrap()).watch());
    let mut end = Listening::with(control.clone());
    let mut agent = Ear::<ToAgent, ToController>::open();
    let dialer = dial(end.addr, None, sensor.clone(), agent.owner());
    end.ear.up().await;
    agent.up().await;

    let files = pki.files(Part::Controller, "control");
    std::fs::copy(pki.files(Part::Agent, "sensor-1").key, &files.key).unwrap();
    pki.authority.revoke(Part::Agent, &InstanceName::new("sensor-1").unwrap(), Timestamp::now()).unwrap();
    pki.authority.publish_revoked(&files).unwrap();
    assert_eq!(end.ear.down().await, "the peer's certificate was revoked");
    drop(dialer);
    watching.abort();
    for gone in [&files.certificate, &files.revoked] {
        std::fs::remove_file(gone).unwrap();
        let (controller, _) = ends_of(control.clone(), sensor.clone()).await;
        assert!(controller.contains("its certificate was revoked"), "without {}: {controller}", gone.display());
    }
}

#[actix_rt::test]
async fn a_directory_of_certificates_that_is_replaced_is_heeded_and_watched_as_the_first_was() {
    let pki = Pki::new("lab");
    let (control, sensor, other) = (pki.control(), pki.sensor("sensor-1"), pki.sensor("sensor-2"));
    let watching = actix_rt::spawn(Arc::clone(control.trust.as_ref().unwrap()).watch());
    let mut end = Listening::with(control.clone());
    let (mut first, mut second) = (Ear::<ToAgent, ToController>::open(), Ear::<ToAgent, ToController>::open());
    let _dialers = (dial(end.addr, None, sensor, first.owner()), dial(end.addr, None, other, second.owner()));
    let names = [end.ear.up().await.peer.name, end.ear.up().await.peer.name];
    assert!(names.contains(&"sensor-1".into()) && names.contains(&"sensor-2".into()), "{names:?}");
    first.up().await;
    second.up().await;

    let here = pki.directory.path().join("controller-control");
    let [old, new] = ["old", "new"].map(|name| pki.directory.path().join(name));
    let name = InstanceName::new("control").unwrap();
    let fresh = pki.authority.issue(Part::Controller, &name, Timestamp::now(), DAY).unwrap().write(&new).unwrap();
    pki.authority.revoke(Part::Agent, &InstanceName::new("sensor-1").unwrap(), Timestamp::now()).unwrap();
    pki.authority.publish_revoked(&fresh).unwrap();
    std::fs::rename(&here, &old).unwrap();
    std::fs::rename(&new, &here).unwrap();
    assert_eq!(end.ear.down().await, "the peer's certificate was revoked");
    first.down().await;
    second.hears_nothing();

    pki.authority.revoke(Part::Agent, &InstanceName::new("sensor-2").unwrap(), Timestamp::now()).unwrap();
    pki.authority.publish_revoked(&pki.files(Part::Controller, "control")).unwrap();
    assert_eq!(end.ear.down().await, "the peer's certificate was revoked");
    second.down().await;
    watching.abort();
}

#[actix_rt::test]
async fn who_speaks_no_tls_or_nothing_at_a_tls_port_harms_nobody() {
    let pki = Pki::new("lab");
    let mut end = Listening::with(LinkSettings { ungreeted: 4, ..pki.control() });
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(end.addr).await.unwrap());
    }
    for bytes in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"WPST", &[0; 300], &[22, 3, 1, 0xff, 0xff]] {
        let mut peer = TcpStream::connect(end.addr).await.unwrap();
        peer.write_all(bytes).await.unwrap();
        let _ = peer.shutdown().await; // it may be closed already
        let mut answer = Vec::new();
        let _ = within(peer.read_to_end(&mut answer)).await; // a reset is an end as well
        assert!(answer.len() < 100, "{bytes:?} was answered by {answer:?}");
    }
    // All but the last few of the silent ones have been turned away, without a word.
    let mut answer = Vec::new();
    let _ = within(silent[0].read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "{answer:?}");
    end.ear.hears_nothing();
    let mut agent = Ear::<ToAgent, ToController>::open();
    let _dialer = dial(end.addr, None, pki.sensor("sensor-1"), agent.owner());
    agent.up().await;
    end.ear.up().await;
}

/// An authority with a directory of its own.
struct Pki {
    authority: Authority,
    cluster: InstanceName,
    directory: TempDir,
}

impl Pki {
    fn new(cluster: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let cluster = InstanceName::new(cluster).unwrap();
        let now = Timestamp(Timestamp::now().0 - 20 * DAY.as_micros() as u64);
        let authority = Authority::create(&directory.path().join("pki"), &cluster, now, 365 * DAY).unwrap();
        Self { authority, cluster, directory }
    }

    fn files(&self, part: Part, name: &str) -> TrustFiles {
        TrustFiles::in_directory(&self.directory.path().join(format!("{part}-{name}")))
    }

    fn trust(&self, part: Part, name: &str, issued: Timestamp, lifetime: Duration, now: Timestamp) -> Arc<Trust> {
        let directory = self.directory.path().join(format!("{part}-{name}"));
        let name = InstanceName::new(name).unwrap();
        self.authority.issue(part, &name, issued, lifetime).unwrap().write(&directory).unwrap();
        Arc::new(open(&directory, &self.cluster, part, name, now))
    }

    fn control(&self) -> LinkSettings {
        let now = Timestamp::now();
        LinkSettings { trust: Some(self.trust(Part::Controller, "control", now, DAY, now)), ..control() }
    }

    fn sensor(&self, name: &str) -> LinkSettings {
        let now = Timestamp::now();
        let trust = Some(self.trust(Part::Agent, name, now, DAY, now));
        LinkSettings { trust, ..LinkSettings::new(LinkRole::Agent, name, self.cluster.as_str()) }
    }
}

fn open(directory: &Path, cluster: &InstanceName, part: Part, name: InstanceName, now: Timestamp) -> Trust {
    Trust::open(TrustFiles::in_directory(directory), cluster.clone(), part, name, now).unwrap()
}

/// Joins both ends by one connection, which must come to nothing, and returns why each says it did.
async fn ends_of(controller: LinkSettings, agent: LinkSettings) -> (String, String) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let dialled = TcpStream::connect(address).await.unwrap();
    let (accepted, peer) = socket.accept().await.unwrap();
    let (below, above) = (Ear::<ToController, ToAgent>::open(), Ear::<ToAgent, ToController>::open());
    let ((tell_below, hear_below), (tell_above, hear_above)) = (oneshot::channel(), oneshot::channel());
    let connection = Connection { ended: Some(tell_below), ..Connection::accepted(accepted, peer, &controller) };
    Bridge::carry(connection, Rc::new(controller), below.owner());
    let connection = Connection { ended: Some(tell_above), ..Connection::dialled(dialled, address, &agent) };
    Bridge::carry(connection, Rc::new(agent), above.owner());
    let (below_ended, above_ended) = (within(hear_below).await.unwrap(), within(hear_above).await.unwrap());
    assert_eq!(below_ended.stood, None, "it stood at the accepting end");
    (below_ended.reason, above_ended.reason)
}

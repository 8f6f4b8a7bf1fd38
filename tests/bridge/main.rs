//! Two ends of a link over loopback, and what hostile, broken and slow peers do to it: nothing.

mod ends;
mod tls;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ends::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use watchpost::bridge::greeting::{Control, Greeting, Heartbeat, NotUnderstood};
use watchpost::bridge::*;
use watchpost::message::agent::{AgentRefused, NewsReceived, ToAgent, ToController};
use watchpost::message::frame::{Body, MAX_FIRST, MAX_FRAME, Wire, append};

#[actix_rt::test]
async fn messages_go_both_ways_in_order() {
    let mut controller = Ear::<ToController, ToAgent>::open();
    let mut agent = Ear::<ToAgent, ToController>::open();
    let (socket, addr) = socket();
    let _listener = listen(socket, control(), controller.owner()).unwrap();
    let _dialer = dial(addr, Some("control".into()), sensor(), agent.owner());

    let (below, above) = (controller.up().await, agent.up().await);
    assert_eq!(
        below.peer,
        Peer {
            name: "sensor-1".into(),
            host: Some(addr.ip()),
            dialled: None,
            features: Features::REPEATS,
            certificate: None
        }
    );
    assert_eq!(
        above.peer,
        Peer {
            name: "control".into(),
            host: Some(addr.ip()),
            dialled: Some(addr.port()),
            features: Features::NONE,
            certificate: None
        }
    );
    for seq in (1..=5000).step_by(5) {
        below.out.do_send(Mail { link: below.link, messages: (seq..seq + 5).map(news).collect() });
        above.out.do_send(Mail { link: above.link, messages: (seq..seq + 5).map(|seq| log(seq, "")).collect() });
    }
    assert_eq!(agent.messages(5000).await, (1..=5000).map(news).collect::<Vec<_>>());
    assert_eq!(controller.messages(5000).await, (1..=5000).map(|seq| log(seq, "")).collect::<Vec<_>>());
}

#[actix_rt::test]
async fn what_was_queued_before_an_ordered_end_still_arrives() {
    let (mut controller, mut agent, _alive) = pair(control(), sensor()).await;
    let below = controller.up().await;
    agent.up().await;
    let refused = ToAgent::from(AgentRefused { reason: "x".repeat(8 << 20) });
    let messages = vec![news(1), refused];
    below.out.do_send(Mail { link: below.link, messages: messages.clone() });
    below.end.do_send(EndLink { link: below.link, reason: "you were refused".into() });
    assert_eq!(agent.messages(2).await, messages);
    assert_eq!(agent.down().await, "the peer closed the connection");
    assert_eq!(controller.down().await, "you were refused");
}

#[actix_rt::test]
async fn the_wish_to_end_an_older_link_leaves_this_one_alone() {
    let (mut controller, mut agent, _alive) = pair(control(), sensor()).await;
    let below = controller.up().await;
    agent.up().await;
    below.end.do_send(EndLink { link: LinkId(0), reason: "late".into() });
    below.out.do_send(Mail { link: below.link, messages: vec![news(1)] });
    assert_eq!(agent.messages(1).await, [news(1)]);
}

#[actix_rt::test]
async fn a_stranger_is_refused_after_four_bytes() {
    let mut end = Listening::with(control());
    let mut stranger = Raw::connect(end.addr).await;
    stranger.0.write_all(b"GET ").await.unwrap();
    assert!(stranger.refused().await.contains("does not speak this protocol"));
    end.ear.hears_nothing();
}

#[actix_rt::test]
async fn a_peer_from_the_future_is_welcome() {
    let mut end = Listening::with(control());
    let mut peer = Raw::connect(end.addr).await;
    peer.greet(Greeting { protocol: 999, ..Greeting::of(&sensor()) }).await;
    assert_eq!(end.ear.up().await.peer.name, "sensor-1");
}

#[actix_rt::test]
async fn a_frame_over_the_cap_ends_the_link_before_its_bytes_come() {
    for (first, cap) in [(vec![], MAX_FIRST), (vec![log(1, "first")], MAX_FRAME)] {
        let (mut end, mut peer, _up) = greeted(control()).await;
        let first_frames = first.iter().map(framed).collect::<Vec<_>>().concat();
        peer.0.write_all(&[&first_frames[..], &(cap as u32).to_be_bytes()].concat()).await.unwrap();
        let reason = format!("a frame of {} bytes is over the limit of {cap}", cap + 4);
        assert_eq!(peer.refused().await, reason);
        drop(peer);
        assert_eq!(end.ear.messages(first.len()).await, first);
        assert_eq!(end.ear.down().await, reason);
    }
}

#[actix_rt::test]
async fn a_truncated_frame_is_told_from_an_orderly_goodbye() {
    let (mut end, mut peer, _up) = greeted(control()).await;
    let bytes = framed(&log(1, "cut"));
    peer.0.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
    drop(peer);
    assert_eq!(end.ear.down().await, "the peer closed the connection in the middle of a frame");
}

#[actix_rt::test]
async fn silence_after_connecting_is_not_waited_for_longer_than_the_greeting_may_take() {
    let mut end = Listening::with(LinkSettings { greeting_within: Duration::from_millis(50), ..control() });
    let mut silent = Raw::connect(end.addr).await;
    within(silent.0.read_to_end(&mut Vec::new())).await.unwrap();
    end.ear.hears_nothing();
}

#[actix_rt::test]
async fn garbage_after_the_greeting_ends_the_link_behind_what_was_said_before() {
    let (mut end, mut peer, _up) = greeted(control()).await;
    peer.0.write_all(&[framed(&log(1, "")), vec![0; 64]].concat()).await.unwrap();
    assert_eq!(end.ear.messages(1).await, [log(1, "")]);
    let reason = peer.refused().await;
    assert_eq!(reason, "a frame of 4 bytes is too short for its own header");
    drop(peer);
    assert_eq!(end.ear.down().await, reason);
}

#[actix_rt::test]
async fn an_unknown_kind_is_answered_and_the_link_stays() {
    let (mut end, mut peer, _up) = greeted(control()).await;
    let mut bytes = Vec::new();
    append(&mut bytes, 0x0abc, "Future", &"something new").unwrap();
    bytes.extend(framed(&log(1, "")));
    peer.0.write_all(&bytes).await.unwrap();
    assert_eq!(peer.frame().await, Control::from(NotUnderstood { kind: 0x0abc }));
    assert_eq!(end.ear.messages(1).await, [log(1, "")]);
}

#[actix_rt::test]
async fn whoever_sends_what_the_peer_does_not_know_is_told_each_time() {
    let (mut end, mut peer, up) = greeted(control()).await;
    let kind = NewsReceived::KIND;
    for _ in 0..3 {
        up.out.do_send(Mail { link: up.link, messages: vec![news(1)] });
        assert_eq!(peer.any_frame().await.0, kind);
        peer.0.write_all(&framed(&Control::from(NotUnderstood { kind }))).await.unwrap();
        assert_eq!(end.ear.not_known().await, kind);
    }
    peer.0.write_all(&framed(&log(1, ""))).await.unwrap();
    assert_eq!(end.ear.messages(1).await, [log(1, "")], "the link stands");
}

#[actix_rt::test]
async fn a_peer_that_sends_what_is_not_known_and_reads_no_answer_loses_its_link() {
    // Where nothing between the ends takes up what nobody reads.
    let mut ear = Ear::<ToController, ToAgent>::open();
    let (near, far) = tokio::io::duplex(64);
    let settings = LinkSettings { unsent_cap: 4 << 10, ..control() };
    Bridge::carry(connection(Box::new(near)), Rc::new(settings), ear.owner());
    let mut peer = Raw(far);
    peer.greet(Greeting::of(&sensor())).await;
    ear.up().await;
    let mut unknown = Vec::new();
    append(&mut unknown, 0x0abc, "Future", &()).unwrap();
    let flooding = async { while peer.0.write_all(&unknown).await.is_ok() {} };
    let (reason, ()) = within(futures_util::future::join(ear.down(), flooding)).await;
    assert!(reason.starts_with("the peer does not read: "), "{reason}");
}

#[actix_rt::test]
async fn a_peer_that_greets_and_then_says_nothing_is_lost_after_three_intervals() {
    let heartbeat = Duration::from_millis(60);
    let (mut end, mut peer, _up) = greeted(LinkSettings { heartbeat, ..control() }).await;
    let greeted_at = Instant::now();
    assert_eq!(end.ear.down().await, "nothing was heard from the peer for 180ms");
    assert!(greeted_at.elapsed() >= 2 * heartbeat, "{:?}", greeted_at.elapsed());
    assert_eq!(peer.frame().await, Control::from(Heartbeat {}), "it was told that this end lives");
}

#[actix_rt::test]
async fn two_quiet_ends_keep_their_link_by_heartbeats() {
    let heartbeat = Duration::from_millis(60);
    let (mut controller, mut agent, _alive) =
        pair(LinkSettings { heartbeat, ..control() }, LinkSettings { heartbeat, ..sensor() }).await;
    let below = controller.up().await;
    agent.up().await;
    // A third link, whose peer never beats, shows when the time of two silences is over.
    let (mut clock, _silent, _up) = greeted(LinkSettings { heartbeat: 2 * heartbeat, ..control() }).await;
    clock.ear.down().await;
    below.out.do_send(Mail { link: below.link, messages: vec![news(1)] });
    assert_eq!(agent.messages(1).await, [news(1)]);
    controller.hears_nothing();
}

#[actix_rt::test]
async fn an_idle_link_wakes_no_more_often_than_heartbeats_explain() {
    let mut ear = Ear::<ToController, ToAgent>::open();
    let (near, far) = tokio::io::duplex(4096);
    let polls = Rc::new(AtomicUsize::new(0));
    let stream = Box::new(Counting { stream: near, polls: Rc::clone(&polls) });
    let settings = LinkSettings { heartbeat: Duration::from_millis(40), ..control() };
    Bridge::carry(connection(stream), Rc::new(settings), ear.owner());
    let mut peer = Raw(far);
    peer.greet(Greeting::of(&sensor())).await;
    ear.up().await;
    let before = polls.load(Ordering::Relaxed);
    for _ in 0..10 {
        assert_eq!(peer.frame().await, Control::from(Heartbeat {}));
        peer.0.write_all(&framed(&Control::from(Heartbeat {}))).await.unwrap();
    }
    // Of each interval: one wake-up to beat, one to hear, which reads twice: the heartbeat, and that there is no more.
    let polled = polls.load(Ordering::Relaxed) - before;
    // A wake-up more in each would make it forty; a busy machine makes it a few more at times.
    assert!(polled < 10 * 4, "{polled} reads in ten intervals");
}

#[actix_rt::test]
async fn a_peer_that_does_not_read_loses_its_link_and_harms_no_other() {
    let (cap, batch) = (4 << 20, 100 << 10);
    let (mut end, _deaf, deaf) = greeted(LinkSettings { unsent_cap: cap, ..control() }).await;
    let mut other = Raw::connect(end.addr).await;
    other.greet(Greeting { name: "sensor-2".into(), ..Greeting::of(&sensor()) }).await;
    let alive = end.ear.up().await;

    let flood = ToAgent::from(AgentRefused { reason: "x".repeat(batch) });
    let reason = loop {
        deaf.out.do_send(Mail { link: deaf.link, messages: vec![flood.clone()] });
        tokio::task::yield_now().await;
        if let Ok(heard) = end.ear.heard.try_recv() {
            let Heard::Down(down) = heard else { panic!("only the end is left to hear") };
            assert_eq!(down.link, deaf.link);
            break down.reason;
        }
    };
    let unsent = reason.strip_prefix("the peer does not read: ").and_then(|rest| rest.split(' ').next());
    let unsent: usize = unsent.unwrap_or_else(|| panic!("{reason}")).parse().unwrap();
    assert!((cap..=cap + 2 * batch).contains(&unsent), "{reason}");

    alive.out.do_send(Mail { link: alive.link, messages: vec![news(1)] });
    let (kind, body) = other.any_frame().await;
    assert_eq!(ToAgent::decode(kind, &body).unwrap(), news(1));
}

#[actix_rt::test]
async fn an_owner_that_awaits_its_mail_is_held_to_the_pace_of_the_peer() {
    let (_end, mut peer, up) = greeted(control()).await;
    let flood = ToAgent::from(AgentRefused { reason: "x".repeat(MAX_FRAME / 2) });
    let mail = || Mail { link: up.link, messages: vec![flood.clone()] };
    let mut results = Box::pin(futures_util::future::join_all([mail(), mail()].map(|mail| up.out.send(mail))));
    let early = futures_util::future::select(&mut results, Box::pin(peer.0.readable())).await;
    assert!(matches!(early, futures_util::future::Either::Right(_)), "the peer has read nothing yet");
    drop(early);
    let drained = async {
        for _ in 0..2 {
            peer.any_frame().await;
        }
    };
    let (results, ()) = within(futures_util::future::join(results, drained)).await;
    assert!(results.into_iter().all(|result| result.is_ok()));
}

#[actix_rt::test]
async fn a_peer_that_never_stops_sending_is_still_written_to_and_left_in_time() {
    let mut ear = Ear::<ToController, ToAgent>::open();
    let (stream, written) = Babbling::new(Greeting::of(&sensor()), Heartbeat {});
    Bridge::carry(connection(Box::new(stream)), Rc::new(control()), ear.owner());
    let up = ear.up().await;
    up.out.do_send(Mail { link: up.link, messages: vec![news(1)] });
    up.end.do_send(EndLink { link: up.link, reason: "enough".into() });
    assert_eq!(ear.down().await, "enough");
    assert!(written.borrow().ends_with(&framed(&news(1))));
}

#[actix_rt::test]
async fn a_refused_greeting_is_seen_by_both() {
    let mut end = Listening::with(control());
    let mut agent = Ear::<ToAgent, ToController>::open();
    let (ended, refusal) = oneshot::channel();
    let stream = Box::new(TcpStream::connect(end.addr).await.unwrap());
    let expect = Some("other-control".to_owned());
    let connection = Connection { expect, ended: Some(ended), ..connection(stream) };
    Bridge::carry(connection, Rc::new(sensor()), agent.owner());

    let Ended { stood, reason } = within(refusal).await.unwrap();
    assert!(reason.contains("`control` answered where `other-control` was expected"), "{reason}");
    assert_eq!(stood, None);
    agent.hears_nothing();
    end.ear.up().await; // it found nothing wrong with the agent
    let told = end.ear.down().await;
    assert!(told.starts_with("the peer refuses this end") && told.contains("`other-control`"), "{told}");
}

#[actix_rt::test]
async fn two_controllers_and_two_clusters_do_not_mix() {
    let mut end = Listening::with(control());
    for (greeting, words) in [
        (Greeting::of(&control()), "both ends are controllers"),
        (Greeting { cluster: "other".into(), ..Greeting::of(&sensor()) }, "cluster `other`"),
        (Greeting { protocol: 0, ..Greeting::of(&sensor()) }, "protocol version 0"),
    ] {
        let mut peer = Raw::connect(end.addr).await;
        peer.greet(greeting).await;
        let reason = peer.refused().await;
        assert!(reason.contains(words), "{reason}");
    }
    end.ear.hears_nothing();
}

#[actix_rt::test]
async fn connections_that_never_greet_make_room_for_new_ones() {
    let mut end = Listening::with(LinkSettings { ungreeted: 2, ..control() });
    let mut oldest = Raw::connect(end.addr).await;
    within(oldest.0.read_exact(&mut [0; 4])).await.unwrap();
    let _second = Raw::connect(end.addr).await;
    let mut third = Raw::connect(end.addr).await;
    within(oldest.0.read_to_end(&mut Vec::new())).await.unwrap();
    third.greet(Greeting::of(&sensor())).await;
    assert_eq!(end.ear.up().await.peer.name, "sensor-1");
}

#[actix_rt::test]
async fn a_dialler_comes_back_when_the_listener_does() {
    let mut agent = Ear::<ToAgent, ToController>::open();
    let (first, addr) = socket();
    let settings =
        LinkSettings { backoff_min: Duration::from_millis(5), backoff_max: Duration::from_millis(40), ..sensor() };
    let dialer = dial(addr, None, settings, agent.owner());
    let mut ids = Vec::new();
    let mut socket = Some(first);
    for _ in 0..2 {
        let mut controller = Ear::<ToController, ToAgent>::open();
        let socket = socket.take().unwrap_or_else(|| std::net::TcpListener::bind(addr).unwrap());
        let listener = listen(socket, control(), controller.owner()).unwrap();
        let below = controller.up().await;
        ids.push(agent.up().await.link);
        listener.stop();
        // The port is free when nobody can connect to it any more.
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
        below.end.do_send(EndLink { link: below.link, reason: "the controller restarts".into() });
        controller.down().await;
        assert_eq!(agent.down().await, "the peer closed the connection");
    }
    assert_ne!(ids[0], ids[1], "each life of a link has a number of its own");
    dialer.stop();
}

#[actix_rt::test]
async fn a_stopped_dialler_ends_its_link_in_order() {
    let mut end = Listening::with(control());
    let mut agent = Ear::<ToAgent, ToController>::open();
    let dialer = dial(end.addr, None, sensor(), agent.owner());
    let above = agent.up().await;
    end.ear.up().await;
    within(above.out.send(Mail { link: above.link, messages: vec![log(1, "")] })).await.unwrap();
    dialer.stop();
    assert_eq!(agent.down().await, "this end no longer dials");
    assert_eq!(end.ear.messages(1).await, [log(1, "")]);
    end.ear.down().await;
}

#[actix_rt::test]
async fn a_slow_owner_stops_the_reading_and_loses_nothing() {
    let gate = Arc::new(Semaphore::new(0));
    // So short that the pause is longer than three heartbeats: an owner at work does not make its peer look dead.
    let heartbeat = Duration::from_millis(20);
    let mut end = Listening::over(Ear::behind(Arc::clone(&gate)), LinkSettings { heartbeat, ..control() });
    let mut peer = Raw::connect(end.addr).await;
    peer.greet(Greeting::of(&sensor())).await;
    end.ear.up().await;

    let text = "x".repeat(1000);
    let total = 40_000;
    let bytes: Vec<u8> = (1..=total).flat_map(|seq| framed(&log(seq, &text))).collect();
    let (mut from, mut to) = tokio::io::split(peer.0);
    let written = Arc::new(AtomicUsize::new(0));
    let progress = Arc::clone(&written);
    actix_rt::spawn(async move {
        let mut at = 0;
        while at < bytes.len() {
            at += to.write(&bytes[at..]).await.unwrap();
            progress.store(at, Ordering::Relaxed);
        }
    });
    // Ten heartbeats of the slow end go by; the writer stands still well before its forty megabytes are gone.
    let mut beats = Vec::new();
    while beats.len() < 80 {
        assert_ne!(within(from.read_buf(&mut beats)).await.unwrap(), 0, "the link ended");
    }
    let stuck_at = written.load(Ordering::Relaxed);
    assert!(stuck_at < 30 << 20, "{stuck_at} bytes were taken from a link whose owner takes none");
    end.ear.hears_at_most_one_batch();

    gate.add_permits(Semaphore::MAX_PERMITS);
    let want: Vec<_> = (1..=total).map(|seq| log(seq, &text)).collect();
    assert!(end.ear.messages(want.len()).await == want, "all of it came, in order");
}

#[actix_rt::test]
async fn a_link_ends_when_its_owner_is_gone() {
    let mut end = Listening::with(control());
    let mut peer = Raw::connect(end.addr).await;
    peer.greet(Greeting::of(&sensor())).await;
    end.ear.up().await;
    end.ear.addr.do_send(Stop);
    peer.0.write_all(&framed(&log(1, ""))).await.unwrap();
    within(peer.0.read_to_end(&mut Vec::new())).await.unwrap();
}

#[actix_rt::test]
async fn a_panic_in_the_bridge_actor_still_tells_that_the_link_is_down() {
    let mut ear = Ear::<ToController, Explosive>::open();
    let (socket, addr) = socket();
    let _listener = listen(socket, control(), ear.owner()).unwrap();
    let mut peer = Raw::connect(addr).await;
    peer.greet(Greeting::of(&sensor())).await;
    let up = ear.up().await;
    up.out.do_send(Mail { link: up.link, messages: vec![Explosive] });
    assert!(ear.down().await.contains("panic"));
    within(peer.0.read_to_end(&mut Vec::new())).await.unwrap();
    ear.hears_nothing();
}

//! The two ends of a link between actors.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use actix::{Actor, Addr, Context, Handler};
use watchpost::bridge::{LinkDown, LinkUp, Mail, NotKnown, Owner};

/// A port of this machine, and its address.
pub fn port() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = socket.local_addr().expect("its address");
    (socket, address)
}

/// That actor as the owner of a link.
pub fn owner<A, In, Out>(actor: &Addr<A>) -> Owner<In, Out>
where
    A: Actor<Context = Context<A>> + Handler<LinkUp<Out>> + Handler<Mail<In>> + Handler<NotKnown> + Handler<LinkDown>,
    In: Send + 'static,
    Out: Send + 'static,
{
    Owner {
        up: actor.clone().recipient(),
        mail: actor.clone().recipient(),
        not_known: actor.clone().recipient(),
        down: actor.clone().recipient(),
    }
}

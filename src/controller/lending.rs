//! Agents read the files of their nodes, piece by piece. That waits for the disk, so it is done elsewhere, and no more of it
//! at a time than leaves links free for everything else.

use std::collections::{BTreeMap, VecDeque};

use actix::fut::wrap_future;
use actix::{ActorFutureExt, AsyncContext, Context};

use super::actor::Controller;
use crate::bridge::LinkId;
use crate::message::agent::{BlobPiece, ReadBlobRequest, ReadBlobResponse};

/// How many pieces of a link may be under way: more than agents ask for.
const PIECES_UNDER_WAY: usize = 16;
/// How long a piece is at most, in bytes: what else is to be said on the link waits for no more than those under way.
const LONGEST_PIECE: u32 = 256 << 10;
/// How many pieces are read at a time, for all links together: a disk is not faster for more.
const SIDE_BY_SIDE: usize = 4;

/// Pieces that agents wait for: first come, first served. An agent has few under way, so others are soon served, too.
#[derive(Debug, Default)]
pub(super) struct Lending {
    waiting: VecDeque<(LinkId, ReadBlobRequest)>,
    /// How many each link waits for, those that are being read among them.
    under_way: BTreeMap<LinkId, usize>,
    reading: usize,
}

impl Lending {
    /// Somebody waits for a piece. False if too many wait on that link already.
    fn ask(&mut self, link: LinkId, request: ReadBlobRequest) -> bool {
        let under_way = self.under_way.entry(link).or_default();
        let has_room = *under_way < PIECES_UNDER_WAY;
        if has_room {
            *under_way += 1;
            self.waiting.push_back((link, request));
        }
        has_room
    }

    /// The next piece to read, if one more may be read now.
    fn next(&mut self) -> Option<(LinkId, ReadBlobRequest)> {
        let next = if self.reading < SIDE_BY_SIDE { self.waiting.pop_front() } else { None };
        self.reading += usize::from(next.is_some());
        next
    }

    /// A piece was read for that link.
    fn done(&mut self, link: LinkId) {
        self.reading -= 1;
        if let Some(under_way) = self.under_way.get_mut(&link) {
            *under_way -= 1;
            if *under_way == 0 {
                self.under_way.remove(&link);
            }
        }
    }

    /// The link is gone, and nobody waits on it.
    pub(super) fn forget(&mut self, link: LinkId) {
        self.waiting.retain(|(of, _)| *of != link);
        self.under_way.remove(&link);
    }
}

impl Controller {
    /// Reads a piece for an agent, when its turn comes.
    pub(super) fn lend(&mut self, link: LinkId, request: ReadBlobRequest, ctx: &mut Context<Self>) {
        let reqid = request.reqid.clone();
        match self.lending.ask(link, request) {
            true => self.lend_on(ctx),
            false => {
                let piece =
                    Err(format!("{PIECES_UNDER_WAY} others are under way on this link: ask when they have come"));
                self.say(link, ReadBlobResponse { reqid, piece });
            }
        }
    }

    fn lend_on(&mut self, ctx: &mut Context<Self>) {
        while let Some((link, ReadBlobRequest { reqid, digest, at, most })) = self.lending.next() {
            let blobs = self.blobs.clone();
            let read = async move {
                match blobs {
                    Some(blobs) => blobs.read(digest, at, most.min(LONGEST_PIECE) as usize).await,
                    None => Err("this controller keeps no files".to_owned()),
                }
            };
            ctx.spawn(wrap_future::<_, Self>(read).map(move |read, me, ctx| {
                let piece = read.map(|(total, bytes)| BlobPiece { total, bytes });
                me.lending.done(link);
                me.say(link, ReadBlobResponse { reqid, piece });
                me.lend_on(ctx);
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Digest;
    use crate::model::RequestId;

    fn request(number: usize) -> ReadBlobRequest {
        let reqid = RequestId::new(&format!("r{number}")).unwrap();
        ReadBlobRequest { reqid, digest: Digest::of(b"x"), at: 0, most: LONGEST_PIECE }
    }

    #[test]
    fn no_link_has_more_under_way_than_it_may_and_none_keeps_others_from_the_disk() {
        let (greedy, modest) = (LinkId(1), LinkId(2));
        let mut lending = Lending::default();
        assert!((0..PIECES_UNDER_WAY).all(|number| lending.ask(greedy, request(number))));
        assert!(!lending.ask(greedy, request(99)));
        assert!(lending.ask(modest, request(0)));
        let begun: Vec<_> = std::iter::from_fn(|| lending.next()).map(|(link, _)| link).collect();
        assert_eq!(begun, [greedy; SIDE_BY_SIDE]);
        begun.iter().for_each(|link| lending.done(*link));
        assert!(lending.ask(greedy, request(100)), "there is room again");
        let mut turns = std::iter::from_fn(|| {
            let (link, _) = lending.next()?;
            lending.done(link);
            Some(link)
        });
        assert!(turns.position(|link| link == modest).unwrap() < PIECES_UNDER_WAY);
    }

    #[test]
    fn a_link_that_is_gone_is_not_read_for_and_what_is_being_read_for_it_frees_its_place() {
        let (gone, other) = (LinkId(1), LinkId(2));
        let mut lending = Lending::default();
        (0..PIECES_UNDER_WAY).for_each(|number| assert!(lending.ask(gone, request(number))));
        while lending.next().is_some() {}
        lending.forget(gone);
        (0..SIDE_BY_SIDE).for_each(|_| lending.done(gone));
        assert!(lending.next().is_none());
        assert!(lending.ask(other, request(0)) && lending.next().is_some_and(|(link, _)| link == other));
    }
}

//! Agents read the files of their nodes, part by part. That waits for the disk, so it is done elsewhere, and no more of it
//! at a time than leaves links free for everything else.

use std::collections::{BTreeMap, VecDeque};

use actix::fut::wrap_future;
use actix::{ActorFutureExt, AsyncContext, Context};

use super::actor::Controller;
use super::blobs::Blobs;
use crate::bridge::LinkId;
use crate::message::agent::{BlobPart, BlobPiece, ReadBlobsRequest, ReadBlobsResponse};

/// How many requests of a link may be under way: more than agents have.
const UNDER_WAY: usize = 16;
/// How many bytes of files an answer has at most: what else is to be said on the link waits for no more than those under way.
const LONGEST_ANSWER: u32 = 256 << 10;
/// How many parts it has at most: so many files are opened for it.
const MOST_PARTS: usize = 256;
/// How many answers are read at a time, for all links together: a disk is not faster for more.
const SIDE_BY_SIDE: usize = 4;

/// What agents wait for: first come, first served. An agent has few under way, so others are soon served, too.
#[derive(Debug, Default)]
pub(super) struct Lending {
    waiting: VecDeque<(LinkId, ReadBlobsRequest)>,
    /// How many each link waits for, those that are being read among them.
    under_way: BTreeMap<LinkId, usize>,
    reading: usize,
}

impl Lending {
    /// Somebody waits for parts; what no answer would have room for is forgotten. False if too many wait on that link already.
    fn ask(&mut self, link: LinkId, mut request: ReadBlobsRequest) -> bool {
        request.parts.truncate(MOST_PARTS);
        request.parts.shrink_to_fit();
        let under_way = self.under_way.entry(link).or_default();
        let has_room = *under_way < UNDER_WAY;
        if has_room {
            *under_way += 1;
            self.waiting.push_back((link, request));
        }
        has_room
    }

    /// What is to be read next, if one more may be read now.
    fn next(&mut self) -> Option<(LinkId, ReadBlobsRequest)> {
        let next = if self.reading < SIDE_BY_SIDE { self.waiting.pop_front() } else { None };
        self.reading += usize::from(next.is_some());
        next
    }

    /// That was read for that link.
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
    /// Reads parts for an agent, when its turn comes.
    pub(super) fn lend(&mut self, link: LinkId, request: ReadBlobsRequest, ctx: &mut Context<Self>) {
        let (reqid, parts) = (request.reqid.clone(), request.parts.len());
        match self.lending.ask(link, request) {
            true => self.lend_on(ctx),
            false => {
                let why = format!("{UNDER_WAY} others are under way on this link: ask when they have come");
                self.say(link, ReadBlobsResponse { reqid, pieces: refused(parts, why) });
            }
        }
    }

    fn lend_on(&mut self, ctx: &mut Context<Self>) {
        while let Some((link, ReadBlobsRequest { reqid, parts })) = self.lending.next() {
            let (blobs, count) = (self.blobs.clone(), parts.len());
            let read = async move {
                match blobs {
                    Some(blobs) => blobs.apart(move |blobs| Ok(pieces(blobs, &parts))).await,
                    None => Ok(refused(count, "this controller keeps no files".to_owned())),
                }
            };
            ctx.spawn(wrap_future::<_, Self>(read).map(move |read, me, ctx| {
                let pieces = read.unwrap_or_else(|error| refused(count, error.to_string()));
                me.lending.done(link);
                me.say(link, ReadBlobsResponse { reqid, pieces });
                me.lend_on(ctx);
            }));
        }
    }
}

/// As many of these parts as an answer holds, and one at least. Waits for the disk.
fn pieces(blobs: &Blobs, parts: &[BlobPart]) -> Vec<Result<BlobPiece, String>> {
    let (mut pieces, mut left) = (Vec::with_capacity(parts.len().min(MOST_PARTS)), LONGEST_ANSWER);
    for &BlobPart { digest, at, most } in parts.iter().take(MOST_PARTS) {
        if most > left && !pieces.is_empty() {
            break;
        }
        let most = most.min(left);
        left -= most;
        let read = blobs.read(digest, at, most as usize);
        pieces.push(read.map(|(total, bytes)| BlobPiece { total, bytes }).map_err(|error| error.to_string()));
    }
    pieces
}

/// The same answer for each part, so that none is asked for again at once.
fn refused(parts: usize, why: String) -> Vec<Result<BlobPiece, String>> {
    vec![Err(why); parts.min(MOST_PARTS)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Digest;
    use crate::model::RequestId;

    fn request(number: usize) -> ReadBlobsRequest {
        let reqid = RequestId::new(&format!("r{number}")).unwrap();
        ReadBlobsRequest { reqid, parts: vec![BlobPart { digest: Digest::of(b"x"), at: 0, most: LONGEST_ANSWER }] }
    }

    #[test]
    fn no_link_has_more_under_way_than_it_may_and_none_keeps_others_from_the_disk() {
        let (greedy, modest) = (LinkId(1), LinkId(2));
        let mut lending = Lending::default();
        assert!((0..UNDER_WAY).all(|number| lending.ask(greedy, request(number))));
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
        assert!(turns.position(|link| link == modest).unwrap() < UNDER_WAY);
    }

    #[test]
    fn a_link_that_is_gone_is_not_read_for_and_what_is_being_read_for_it_frees_its_place() {
        let (gone, other) = (LinkId(1), LinkId(2));
        let mut lending = Lending::default();
        (0..UNDER_WAY).for_each(|number| assert!(lending.ask(gone, request(number))));
        while lending.next().is_some() {}
        lending.forget(gone);
        (0..SIDE_BY_SIDE).for_each(|_| lending.done(gone));
        assert!(lending.next().is_none());
        assert!(lending.ask(other, request(0)) && lending.next().is_some_and(|(link, _)| link == other));
    }

    #[test]
    fn an_answer_has_as_many_parts_as_it_may_and_whoever_asks_for_more_asks_again() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(directory.path()).unwrap();
        let content = vec![7; 3 * LONGEST_ANSWER as usize / 4];
        let [long, other] = [&content[..], &content[1..]].map(|content| {
            let digest = Digest::of(content);
            std::fs::write(directory.path().join(digest.to_string()), content).unwrap();
            digest
        });
        let part = |digest, most| BlobPart { digest, at: 0, most };
        let lengths = |parts: &[BlobPart]| -> Vec<Result<usize, ()>> {
            let pieces = pieces(&blobs, parts).into_iter();
            pieces.map(|piece| piece.map(|piece| piece.bytes.len()).map_err(drop)).collect()
        };
        let many = LONGEST_ANSWER / 2;
        assert_eq!(lengths(&[part(long, many), part(other, many), part(long, 1)]), [Ok(many as usize); 2]);
        assert_eq!(lengths(&[part(long, u32::MAX), part(long, 1)]), [Ok(content.len())], "whatever is asked for");
        assert_eq!(lengths(&[part(Digest::of(b"nowhere"), 9), part(long, 1)]), [Err(()), Ok(1)]);
        assert_eq!(lengths(&vec![part(long, 0); MOST_PARTS + 1]).len(), MOST_PARTS);
        assert!(lengths(&[]).is_empty());
    }

    #[test]
    fn what_no_answer_would_have_room_for_is_not_kept_while_it_waits() {
        let mut lending = Lending::default();
        let greedy = request(0);
        let parts = greedy.parts.repeat(100 * MOST_PARTS);
        assert!(lending.ask(LinkId(1), ReadBlobsRequest { parts, ..greedy }));
        let (_, kept) = lending.next().unwrap();
        assert_eq!(kept.parts.len(), MOST_PARTS);
        assert!(kept.parts.capacity() < 2 * MOST_PARTS);
    }
}

//! Reading a link, ours or a peer's, until it ends.

use std::net::TcpStream as StdTcpStream;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use gyre_cluster::coordinator::LinkId;
use gyre_cluster::frame::{FrameLimits, Incoming, Reassembler};
use gyre_cluster::handshake::Peer;
use gyre_cluster::message::{DecodeError, Message};
use gyre_storage::TOUCHED_MAX;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::spawn_local;

use crate::peer::link::{self, Link, MESSAGE_FRAME};
use crate::peer::{greet, membership};
use crate::timekeeping;
use crate::worker::{Turn, Worker};

/// What a read asks for at least.
const READ_BYTES_MIN: usize = 64 << 10;
/// How long a peer whose data has lapsed is listened to.
const INFORM_TIME_MAX: Duration = Duration::from_secs(1);

/// Which way a link was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// By us, under this number: what we say. They answer by it only as long as they have no link of their own to us.
    Ours(LinkId),
    /// By the peer, under this number: what they say, questions and answers.
    Theirs(LinkId),
    /// By a peer whose data has lapsed: nothing is taken of it but its topology document.
    Lapsed,
}

/// Takes a connection over that a peer has opened.
pub fn accept(worker: &Rc<Worker>, stream: StdTcpStream) {
    let worker = Rc::clone(worker);
    spawn_local(async move {
        let Ok(mut stream) = TcpStream::from_std(stream) else { return };
        if let Err(error) = link::end_when_unheard(&stream) {
            return tracing::warn!(%error, "a peer's connection is refused");
        }
        match greet::accepted(&mut stream, worker.node(), worker.index).await {
            Ok((peer, rest)) => {
                worker.node().peers.greeted(peer.identity.node);
                if worker.node().has_lapsed(peer.identity.node, peer.identity.incarnation) {
                    inform(&worker, stream, &peer, rest).await;
                } else {
                    serve(worker, stream, peer, rest).await;
                }
            }
            Err(error) => tracing::debug!(%error, "a connection to the peer port came to nothing"),
        }
    });
}

/// Answers what a peer asks until it closes its link.
async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: Peer, rest: BytesMut) {
    let (read, write) = stream.into_split();
    let from = peer.identity.node;
    let link = Link::to(&peer, write, &worker.node().peers);
    let id = worker.step(|turn| turn.shell.outboxes.number(Rc::clone(&link)));
    let reason = read_frames(&worker, read, rest, &peer, Direction::Theirs(id)).await;
    tracing::debug!(peer = %peer.identity.node, reason, "a peer's link has ended");
    // Whoever was refused for its clock learns what ours is.
    link.flush();
    link.close();
    worker.step(|turn| {
        turn.shell.outboxes.forget(id);
        if turn.shell.outboxes.is_answered_by(&link) {
            // Our own link is still there, but the answers that were to come by this one are lost.
            turn.core.peer_down(turn.shell, turn.now, from);
            turn.core.peer_up(from);
        }
    });
}

/// Tells a peer that was away for too long the document that says so, and hears whether it has emptied itself.
async fn inform(worker: &Rc<Worker>, stream: TcpStream, peer: &Peer, rest: BytesMut) {
    let from = peer.identity.node;
    tracing::warn!(
        peer = %from,
        "a peer that was away for longer than tombstone-grace is refused: it must rejoin empty, and is told so"
    );
    let (read, write) = stream.into_split();
    let link = Link::to(peer, write, &worker.node().peers);
    if let Some(topology) = worker.node().topology.load().as_ref() {
        link.push(&Message::Topology { bytes: &topology.encode() }, worker.node().clock.now());
        link.flush();
    }
    let reading = read_frames(worker, read, rest, peer, Direction::Lapsed);
    // Then it tries again, whatever it has become.
    let _ = tokio::time::timeout(INFORM_TIME_MAX, reading).await;
    link.close();
}

/// Hands every message on the link to whom it is for. Answers why the link ended.
pub async fn read_frames(
    worker: &Rc<Worker>,
    mut read: OwnedReadHalf,
    mut buffer: BytesMut,
    peer: &Peer,
    direction: Direction,
) -> String {
    let mut reassembler = Reassembler::new(FrameLimits::default());
    loop {
        if !buffer.is_empty() {
            let taken = worker.step(|turn| take_frames(turn, &mut reassembler, &buffer, peer, direction));
            worker.end_full_turn();
            match taken {
                Ok((consumed, needed)) => {
                    buffer.advance(consumed);
                    buffer.reserve(needed.saturating_sub(buffer.len()));
                }
                Err(reason) => return reason,
            }
        }
        buffer.reserve(READ_BYTES_MIN);
        match read.read_buf(&mut buffer).await {
            Ok(0) => return "the peer closed it".into(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

/// Takes all whole frames in `buffer`. Answers how many bytes that were, and how many the next frame needs.
fn take_frames(
    turn: &mut Turn<'_>,
    reassembler: &mut Reassembler,
    buffer: &[u8],
    peer: &Peer,
    direction: Direction,
) -> Result<(usize, usize), String> {
    let mut consumed = 0;
    let mut arrived = Vec::with_capacity(TOUCHED_MAX);
    loop {
        let mut end = None;
        while arrived.len() < TOUCHED_MAX && end.is_none() {
            match reassembler.next(buffer.get(consumed..).unwrap_or_default()) {
                Ok(step) => {
                    consumed += step.consumed;
                    match step.message {
                        Some(incoming) => arrived.push(incoming),
                        None => end = Some(Ok((consumed, step.needed))),
                    }
                }
                Err(error) => end = Some(Err(error.to_string())),
            }
        }
        take_messages(turn, &arrived, peer, direction)?;
        arrived.clear();
        if let Some(end) = end {
            return end;
        }
    }
}

/// Takes up to [`TOUCHED_MAX`] messages.
fn take_messages(
    turn: &mut Turn<'_>,
    arrived: &[Incoming<'_>],
    peer: &Peer,
    direction: Direction,
) -> Result<(), String> {
    let messages: Vec<_> = arrived.iter().map(|incoming| Message::decode(&incoming.payload)).collect();
    let read = messages.iter().filter_map(|message| message.as_ref().ok()?.key_read());
    turn.node.store.touch(read);
    for (incoming, message) in arrived.iter().zip(messages) {
        take_message(turn, incoming, message, peer, direction)?;
    }
    Ok(())
}

fn take_message(
    turn: &mut Turn<'_>,
    incoming: &Incoming<'_>,
    message: Result<Message<'_>, DecodeError>,
    peer: &Peer,
    direction: Direction,
) -> Result<(), String> {
    let from = peer.identity.node;
    if direction == Direction::Lapsed {
        return take_document(turn, incoming, message, peer);
    }
    if incoming.kind == MESSAGE_FRAME && Message::is_about_clocks(&incoming.payload) {
        return take_clock_message(turn, incoming, message, peer, direction);
    }
    if let Err(drift) = turn.node.clock.observe(incoming.hlc, turn.now.wall) {
        turn.node.time.count_refusal();
        tracing::error!(peer = %from, %drift, "a peer's clock is too far ahead: its messages are refused");
        return Err(drift.to_string());
    }
    if incoming.kind != MESSAGE_FRAME {
        tracing::debug!(kind = incoming.kind, "a frame of unknown kind is skipped");
        return Ok(());
    }
    match message {
        Ok(message) if membership::is_for(&message) => membership::receive(turn, peer, direction, &message),
        Ok(message) => match direction {
            Direction::Ours(link) | Direction::Theirs(link) => {
                turn.core.receive(turn.shell, turn.now, from, link, message);
            }
            Direction::Lapsed => {}
        },
        // From a peer that is newer than this node, during a rolling upgrade.
        Err(DecodeError::UnknownKind { .. }) => {}
        Err(error) => return Err(error.to_string()),
    }
    Ok(())
}

/// What a peer whose data has lapsed says: only its document counts. It ends the link if the peer has emptied itself.
fn take_document(
    turn: &mut Turn<'_>,
    incoming: &Incoming<'_>,
    message: Result<Message<'_>, DecodeError>,
    peer: &Peer,
) -> Result<(), String> {
    if incoming.kind == MESSAGE_FRAME
        && let Ok(message @ Message::Topology { .. }) = message
    {
        membership::receive(turn, peer, Direction::Lapsed, &message);
    }
    if turn.node.has_lapsed(peer.identity.node, peer.identity.incarnation) {
        Ok(())
    } else {
        Err("it has come back empty".into())
    }
}

/// A question for this node's clock, or the answer to one: whose clock is wrong shows only if these pass whatever the clocks
/// are.
fn take_clock_message(
    turn: &mut Turn<'_>,
    incoming: &Incoming<'_>,
    message: Result<Message<'_>, DecodeError>,
    peer: &Peer,
    direction: Direction,
) -> Result<(), String> {
    match message.map_err(|error| error.to_string())? {
        Message::Pong { nonce, reading } => {
            timekeeping::answered(turn.node, peer.identity.node, nonce, reading, incoming.hlc);
        }
        message => membership::receive(turn, peer, direction, &message),
    }
    Ok(())
}

//! One connection to a peer: frames out in one write a turn, bounded whatever the peer's speed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gyre_cluster::frame::{FrameLimits, FrameWriter, LongMessage};
use gyre_cluster::handshake::Peer;
use gyre_cluster::message::Message;
use gyre_cluster::node::NodeId;
use gyre_storage::Hlc;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use crate::net::{Sender, Sent};
use crate::peer::table::{LinkStatistics, PeerTable};

/// The bytes that may wait for one slow peer before messages to it are dropped (one larger message always passes).
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The kind of frame that carries a [`Message`].
pub const MESSAGE_FRAME: u8 = 1;

/// How many bytes of chunks are put before a socket at a time: enough to keep it busy, little enough for short
/// messages to get between.
const CHUNKED_BYTES_AHEAD: usize = 512 << 10;

/// A link on which the peer's system acknowledges nothing for so long is given up and dialled anew. Left alone, TCP
/// repeats what is unacknowledged ever more rarely: after a minute without a network it may stay silent for another.
const UNACKNOWLEDGED_TIME_MAX: Duration = Duration::from_secs(10);
/// Links that are silent for so long are probed, so that also the side that has nothing to say notices.
const PROBE_AFTER: Duration = Duration::from_secs(5);
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Lets the system end the link that `stream` carries when the peer is gone without a word, within about
/// [`UNACKNOWLEDGED_TIME_MAX`].
///
/// # Errors
/// Whatever the system says; most likely the peer has hung up.
pub fn end_when_unheard(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY))?;
    // Elsewhere the probes alone must do, which come only when nothing is under way.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIME_MAX))?;
    Ok(())
}

/// What a link leads to: one worker of one process of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FarEnd {
    /// The node.
    pub node: NodeId,
    /// What the process drew when it started.
    pub instance: u128,
    /// The worker that holds the other end.
    pub worker: u16,
}

impl FarEnd {
    /// Whoever has proven in the handshake to be `peer`.
    pub fn of(peer: &Peer) -> FarEnd {
        FarEnd { node: peer.identity.node, instance: peer.identity.instance, worker: peer.worker }
    }
}

/// The sending side of a connection to a peer, made by either of us.
pub struct Link {
    far_end: FarEnd,
    sender: Sender,
    queue: RefCell<Queue>,
    /// It is on the list of links to flush.
    dirty: Cell<bool>,
    statistics: Arc<LinkStatistics>,
}

/// What waits to be sent.
#[derive(Default)]
struct Queue {
    frames: Vec<u8>,
    writer: FrameWriter,
    head: Vec<u8>,
    /// Messages being sent in chunks, each with what is left.
    open: Vec<LongMessage<Rc<[u8]>>>,
    /// Messages too long for a frame that wait to be opened.
    long: VecDeque<Rc<[u8]>>,
    long_bytes: usize,
    clock: Hlc,
}

impl Link {
    /// A link to `peer` that has sent nothing yet.
    pub fn to(peer: &Peer, write: OwnedWriteHalf, peers: &PeerTable) -> Rc<Link> {
        Link::new(FarEnd::of(peer), write, peers.statistics(peer.identity.node))
    }

    /// As [`Link::to`], known by its far end.
    pub fn new(far_end: FarEnd, write: OwnedWriteHalf, statistics: Arc<LinkStatistics>) -> Rc<Link> {
        let queue = Queue { writer: FrameWriter::new(FrameLimits::default()), ..Queue::default() };
        Rc::new(Link {
            far_end,
            sender: Sender::new(write),
            queue: RefCell::new(queue),
            dirty: Cell::new(false),
            statistics,
        })
    }

    /// Queues `message`, stamped with our clock. `false`: the queue is full, or the link closed, and it is dropped.
    /// A single message may be larger than the bound, so that the largest value passes.
    pub fn push(&self, message: &Message<'_>, clock: Hlc) -> bool {
        if self.sender.is_closed() {
            return false;
        }
        let queue = &mut *self.queue.borrow_mut();
        let Queue { head, frames, writer, .. } = queue;
        head.clear();
        message.encode_head(head);
        let tail = message.tail();
        let total = head.len() + tail.len();
        let waiting = frames.len() + queue.long_bytes;
        if waiting > 0 && waiting + total > QUEUE_BYTES_MAX {
            self.statistics.count_dropped();
            return false;
        }
        if FrameWriter::is_long(total) {
            let mut body = Vec::with_capacity(total);
            body.extend_from_slice(head);
            body.extend_from_slice(tail);
            queue.long_bytes += total;
            queue.clock = clock;
            queue.long.push_back(Rc::from(body));
            return true;
        }
        writer.message(MESSAGE_FRAME, clock, &[head, tail], frames).is_ok()
    }

    /// Sends what is queued, without waiting.
    pub fn flush(self: &Rc<Self>) {
        self.dirty.set(false);
        if self.sender.waits.get() || self.sender.is_closed() {
            return;
        }
        if !self.send() {
            self.sender.waits.set(true);
            tokio::task::spawn_local(send_rest(Rc::clone(self)));
        }
    }

    /// Sends what the socket takes; `false` if it is full.
    fn send(&self) -> bool {
        let queue = &mut *self.queue.borrow_mut();
        loop {
            queue.fill();
            if queue.frames.is_empty() {
                self.statistics.set_queued(0);
                return true;
            }
            let before = queue.frames.len();
            match self.sender.send(&mut queue.frames) {
                Ok(Sent::All) => self.statistics.add_sent(before),
                Ok(Sent::Left(left)) => {
                    self.statistics.add_sent(before.saturating_sub(left));
                    self.statistics.set_queued(left + queue.long_bytes);
                    return false;
                }
                Err(_) => {
                    self.sender.close();
                    return true;
                }
            }
        }
    }

    /// What it leads to.
    pub fn far_end(&self) -> FarEnd {
        self.far_end
    }

    /// Closes the connection; its read task ends and takes the link out of use.
    pub fn close(&self) {
        self.sender.close();
    }

    /// Whether the connection is closed.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Marks the link as one to flush; `false` if it was already.
    pub fn mark_dirty(&self) -> bool {
        !self.dirty.replace(true)
    }
}

impl Queue {
    /// Puts chunks of the long messages behind the frames, in turn, up to [`CHUNKED_BYTES_AHEAD`].
    fn fill(&mut self) {
        while self.frames.len() < CHUNKED_BYTES_AHEAD {
            self.open_next();
            if self.open.is_empty() {
                return;
            }
            let Queue { open, writer, frames, clock, long_bytes, .. } = self;
            open.retain_mut(|message| {
                let before = message.remaining();
                let is_last = writer.write_chunk(message, *clock, frames);
                *long_bytes -= (before - message.remaining()).min(*long_bytes);
                !is_last
            });
        }
    }

    /// Opens as many waiting long messages as the link may have open.
    fn open_next(&mut self) {
        while let Some(body) = self.long.pop_front() {
            match self.writer.begin(MESSAGE_FRAME, Rc::clone(&body)) {
                Ok(Some(message)) => self.open.push(message),
                Ok(None) => {
                    self.long.push_front(body);
                    return;
                }
                // Longer than any peer takes: the request's timeout tells.
                Err(error) => {
                    self.long_bytes -= body.len().min(self.long_bytes);
                    tracing::error!(%error, "a message to a peer is dropped");
                }
            }
        }
    }
}

async fn send_rest(link: Rc<Link>) {
    while !link.sender.is_closed() {
        if link.sender.writable().await.is_err() {
            link.close();
        } else if link.send() {
            break;
        }
    }
    link.sender.waits.set(false);
}

//! The network: links that deliver in order, late, or never.
//!
//! Each worker has one link to every other node, as in the server: it asks, the other answers on the same link. A link
//! is a TCP connection. What is sent on it arrives in order and once, or the link breaks and everything under way is
//! lost; a lost packet shows as a delay of everything behind it. Between links nothing is ordered. Beyond what TCP does,
//! a message may be repeated out of order (never a read-modify-write): rows and answers must stand that.
//!
//! A direction between two nodes may be blocked. What is sent meanwhile waits, as in a socket's buffer, and goes out
//! when the block ends, unless the link's owner has given the link up before.

use std::collections::VecDeque;

use gyre_cluster::coordinator::LinkId;
use gyre_cluster::message::{Message, RequestId};
use gyre_storage::Hlc;

use crate::event::Event;
use crate::queue::{MS, Micros, Queue, SECOND};
use crate::random::Random;

/// How many workers a node has.
pub(crate) const WORKERS: usize = 2;

/// How long a link may carry nothing before its owner gives it up, at least and at most.
const GIVE_UP: std::ops::Range<Micros> = SECOND..15 * SECOND;
/// How long after a failure an owner dials again.
const REDIAL: std::ops::Range<Micros> = 50 * MS..SECOND;
/// The first retransmission of TCP; doubles.
const RETRANSMIT: Micros = 200 * MS;
const RETRANSMITS_MAX: u32 = 5;
/// No message takes longer, unless it is held up by a block.
const DELAY_MAX: Micros = 8 * SECOND;

/// A worker of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WorkerAt {
    pub(crate) node: usize,
    pub(crate) worker: usize,
}

/// A worker's link to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LinkIndex(pub(crate) u32);

impl LinkIndex {
    pub(crate) fn of(owner: WorkerAt, peer: usize, nodes: usize) -> LinkIndex {
        LinkIndex(((owner.node * WORKERS + owner.worker) * nodes + peer) as u32)
    }

    /// The worker that asks.
    pub(crate) fn owner(self, nodes: usize) -> WorkerAt {
        let at = self.0 as usize / nodes;
        WorkerAt { node: at / WORKERS, worker: at % WORKERS }
    }

    /// The node that answers.
    pub(crate) fn peer(self, nodes: usize) -> usize {
        self.0 as usize % nodes
    }
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) link: LinkIndex,
    pub(crate) connection: u32,
    /// From the peer to the owner.
    pub(crate) is_answer: bool,
    pub(crate) bytes: Vec<u8>,
    pub(crate) clock: Hlc,
    /// It counts as sent after everything else, and outside the link's order.
    pub(crate) is_repeated: bool,
}

impl Packet {
    pub(crate) fn receiver(&self, nodes: usize) -> usize {
        if self.is_answer { self.link.owner(nodes).node } else { self.link.peer(nodes) }
    }

    fn direction(&self, nodes: usize) -> (usize, usize) {
        let (owner, peer) = (self.link.owner(nodes).node, self.link.peer(nodes));
        if self.is_answer { (peer, owner) } else { (owner, peer) }
    }
}

/// How good the network is.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// The least time a message takes.
    pub(crate) latency: Micros,
    /// What is added at most, mostly.
    pub(crate) jitter: Micros,
    /// How many in a thousand take much longer,
    pub(crate) tail_per_mille: u64,
    /// by up to this.
    pub(crate) tail: Micros,
    /// How many packets in a thousand must be sent again.
    pub(crate) loss_per_mille: u64,
    /// How many messages in a thousand arrive once more later.
    pub(crate) repeats_per_mille: u64,
    /// How many messages in ten thousand find the queue to the peer full.
    pub(crate) refused_per_myriad: u64,
}

#[derive(Default)]
struct Link {
    /// The number of the connection; 0 while there is none.
    connection: u32,
    there: Direction,
    back: Direction,
}

#[derive(Default)]
struct Direction {
    /// When the last message arrives: nothing sent later arrives earlier.
    last_at: Micros,
    /// What cannot be delivered now, and since when.
    stalled: VecDeque<Packet>,
    stalled_since: Micros,
}

/// Links and what is wrong with them.
pub(crate) struct Network {
    pub(crate) nodes: usize,
    pub(crate) weather: Weather,
    links: Vec<Link>,
    connections: u32,
    /// How many blocks lie on each direction, by `from * nodes + to`.
    blocks: Vec<u16>,
    /// By how much each direction is slower.
    slowness: Vec<u16>,
}

impl Network {
    pub(crate) fn new(nodes: usize, weather: Weather) -> Network {
        Network {
            nodes,
            weather,
            links: std::iter::repeat_with(Link::default).take(nodes * WORKERS * nodes).collect(),
            connections: 0,
            blocks: vec![0; nodes * nodes],
            slowness: vec![1; nodes * nodes],
        }
    }

    /// Sends a request of `from` to node `to`. `false`: it is not sent and never will be.
    pub(crate) fn send(
        &mut self,
        queue: &mut Queue<Event>,
        random: &mut Random,
        from: WorkerAt,
        to: usize,
        message: &Message<'_>,
        clock: Hlc,
    ) -> bool {
        let link = LinkIndex::of(from, to, self.nodes);
        let connection = self.links[link.0 as usize].connection;
        if connection == 0 || random.below(10_000) < self.weather.refused_per_myriad {
            return false;
        }
        let may_repeat = !matches!(message, Message::Modify { .. } | Message::KeepHint { .. });
        let packet = packet(link, connection, false, message, clock);
        self.post(queue, random, packet, may_repeat);
        true
    }

    /// Sends an answer of node `from` by the link that what it answers came by, whoever's that is; dropped if that is gone,
    /// or full.
    pub(crate) fn respond(
        &mut self,
        queue: &mut Queue<Event>,
        random: &mut Random,
        from: usize,
        link: LinkId,
        message: &Message<'_>,
        clock: Hlc,
    ) {
        let (link, connection) = unpack(link);
        let is_gone = self.links[link.0 as usize].connection != connection;
        if is_gone || random.below(10_000) < self.weather.refused_per_myriad {
            return;
        }
        let is_answer = link.owner(self.nodes).node != from;
        self.post(queue, random, packet(link, connection, is_answer, message, clock), true);
    }

    /// Under a mutation: lets `from` receive the answer to a repair that was never sent to `to`.
    pub(crate) fn pretend_answer(
        &mut self,
        queue: &mut Queue<Event>,
        random: &mut Random,
        from: WorkerAt,
        to: usize,
        request: RequestId,
        clock: Hlc,
    ) -> bool {
        let link = LinkIndex::of(from, to, self.nodes);
        let connection = self.links[link.0 as usize].connection;
        let answer = Message::Applied { request, digest: None };
        if connection != 0 {
            self.post(queue, random, packet(link, connection, true, &answer, clock), false);
        }
        connection != 0
    }

    fn post(&mut self, queue: &mut Queue<Event>, random: &mut Random, packet: Packet, may_repeat: bool) {
        let (from, to) = packet.direction(self.nodes);
        if may_repeat && random.chance(self.weather.repeats_per_mille) {
            let delay = self.delay(random, from, to) + random.skewed(MS..5 * SECOND);
            queue.after(delay, Event::Packet(Packet { is_repeated: true, ..packet.clone() }));
        }
        let delay = self.delay(random, from, to);
        self.schedule(queue, random, packet, delay);
    }

    fn schedule(&mut self, queue: &mut Queue<Event>, random: &mut Random, packet: Packet, delay: Micros) {
        let (from, to) = packet.direction(self.nodes);
        if self.is_blocked(from, to) {
            return self.stall(queue, random, packet);
        }
        let direction = self.direction_mut(&packet);
        direction.last_at = direction.last_at.max(queue.now() + delay);
        let at = direction.last_at;
        queue.at(at, Event::Packet(packet));
    }

    fn stall(&mut self, queue: &mut Queue<Event>, random: &mut Random, packet: Packet) {
        let now = queue.now();
        let (link, connection) = (packet.link, packet.connection);
        let direction = self.direction_mut(&packet);
        if direction.stalled.is_empty() {
            direction.stalled_since = now;
            queue.after(random.within(GIVE_UP), Event::LinkTimeout { link, connection });
        }
        direction.stalled.push_back(packet);
    }

    fn direction_mut(&mut self, packet: &Packet) -> &mut Direction {
        let link = &mut self.links[packet.link.0 as usize];
        if packet.is_answer { &mut link.back } else { &mut link.there }
    }

    fn delay(&self, random: &mut Random, from: usize, to: usize) -> Micros {
        let weather = &self.weather;
        let mut delay = weather.latency + random.below(weather.jitter);
        if random.chance(weather.tail_per_mille) {
            delay += random.below(weather.tail);
        }
        delay *= u64::from(self.slowness[from * self.nodes + to]);
        let mut retransmits = 0;
        while retransmits < RETRANSMITS_MAX && random.chance(weather.loss_per_mille) {
            delay += RETRANSMIT << retransmits;
            retransmits += 1;
        }
        delay.min(DELAY_MAX)
    }

    /// Whether a packet that has come through is to be taken in; one that has met a block waits.
    pub(crate) fn arrives(
        &mut self,
        queue: &mut Queue<Event>,
        random: &mut Random,
        packet: Packet,
    ) -> Option<Packet> {
        let (from, to) = packet.direction(self.nodes);
        if self.links[packet.link.0 as usize].connection != packet.connection {
            return None;
        }
        if !self.is_blocked(from, to) {
            return Some(packet);
        }
        if !packet.is_repeated {
            self.stall(queue, random, packet);
        }
        None
    }

    /// The name by which the receiver of a request answers it.
    pub(crate) fn link_id(packet: &Packet) -> LinkId {
        LinkId(u64::from(packet.connection) << 32 | u64::from(packet.link.0))
    }

    /// Which worker of the peer serves a connection.
    pub(crate) fn serving_worker(packet: &Packet, nodes: usize) -> usize {
        (packet.link.owner(nodes).worker + packet.connection as usize) % WORKERS
    }

    /// Whether nothing gets from `from` to `to`.
    pub(crate) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocks[from * self.nodes + to] > 0
    }

    /// Blocks the direction from `from` to `to`. Blocks add up.
    pub(crate) fn block(&mut self, from: usize, to: usize) {
        self.blocks[from * self.nodes + to] += 1;
    }

    /// Takes one block away. What has waited goes out.
    pub(crate) fn unblock(&mut self, queue: &mut Queue<Event>, random: &mut Random, from: usize, to: usize) {
        let blocks = &mut self.blocks[from * self.nodes + to];
        *blocks = blocks.saturating_sub(1);
        if *blocks > 0 {
            return;
        }
        for worker in 0..WORKERS {
            let asked = LinkIndex::of(WorkerAt { node: from, worker }, to, self.nodes);
            let answered = LinkIndex::of(WorkerAt { node: to, worker }, from, self.nodes);
            let waiting = [
                std::mem::take(&mut self.links[asked.0 as usize].there.stalled),
                std::mem::take(&mut self.links[answered.0 as usize].back.stalled),
            ];
            for packets in waiting {
                let delay = RETRANSMIT + random.below(4 * RETRANSMIT);
                for packet in packets {
                    self.schedule(queue, random, packet, delay);
                }
            }
        }
    }

    /// Makes messages from `from` to `to` take `times` as long.
    pub(crate) fn set_slowness(&mut self, from: usize, to: usize, times: u16) {
        self.slowness[from * self.nodes + to] = times;
    }

    /// The connection of a link that has not carried what was sent on it: it is to be given up.
    pub(crate) fn is_stalled(&self, link: LinkIndex, connection: u32) -> bool {
        let link = &self.links[link.0 as usize];
        link.connection == connection && !(link.there.stalled.is_empty() && link.back.stalled.is_empty())
    }

    /// Opens a link that is down. `false` if it is open already, or nobody can be reached.
    pub(crate) fn connect(&mut self, link: LinkIndex) -> bool {
        let (owner, peer) = (link.owner(self.nodes).node, link.peer(self.nodes));
        if self.is_blocked(owner, peer) || self.is_blocked(peer, owner) || self.is_open(link) {
            return false;
        }
        self.connections += 1;
        self.links[link.0 as usize] = Link { connection: self.connections, ..Link::default() };
        true
    }

    /// Whether a link is open, as its owner sees it.
    pub(crate) fn is_open(&self, link: LinkIndex) -> bool {
        self.links[link.0 as usize].connection != 0
    }

    /// Whether `owner` has a link to `peer`.
    pub(crate) fn has_link(&self, owner: WorkerAt, peer: usize) -> bool {
        self.is_open(LinkIndex::of(owner, peer, self.nodes))
    }

    /// Whether every worker of `owner` has a link to `peer`.
    pub(crate) fn is_linked(&self, owner: usize, peer: usize) -> bool {
        (0..WORKERS)
            .all(|worker| self.is_open(LinkIndex::of(WorkerAt { node: owner, worker }, peer, self.nodes)))
    }

    /// Closes a link, if it still is the connection meant. What is under way on it is lost; its owner dials anew.
    pub(crate) fn disconnect(
        &mut self,
        queue: &mut Queue<Event>,
        random: &mut Random,
        link: LinkIndex,
        connection: u32,
    ) -> bool {
        if self.links[link.0 as usize].connection != connection || connection == 0 {
            return false;
        }
        self.links[link.0 as usize] = Link::default();
        queue.after(random.within(REDIAL), Event::Dial { link });
        true
    }

    /// Dials again a little later.
    pub(crate) fn redial(&self, queue: &mut Queue<Event>, random: &mut Random, link: LinkIndex) {
        queue.after(random.within(REDIAL), Event::Dial { link });
    }

    /// Node `node` has stopped: its own links are gone at once; the owners of links to it learn that within `notice`.
    pub(crate) fn node_stopped(
        &mut self,
        queue: &mut Queue<Event>,
        random: &mut Random,
        node: usize,
        notice: Micros,
    ) {
        for peer in (0..self.nodes).filter(|&peer| peer != node) {
            for worker in 0..WORKERS {
                let own = LinkIndex::of(WorkerAt { node, worker }, peer, self.nodes);
                self.links[own.0 as usize] = Link::default();
                let theirs = LinkIndex::of(WorkerAt { node: peer, worker }, node, self.nodes);
                let connection = self.links[theirs.0 as usize].connection;
                if connection != 0 {
                    queue.after(1 + random.below(notice), Event::LinkBroken { link: theirs, connection });
                }
            }
        }
    }

    /// The connection of a link; `None` if it is down.
    pub(crate) fn connection(&self, link: LinkIndex) -> Option<u32> {
        Some(self.links[link.0 as usize].connection).filter(|&connection| connection != 0)
    }
}

fn packet(link: LinkIndex, connection: u32, is_answer: bool, message: &Message<'_>, clock: Hlc) -> Packet {
    let mut bytes = Vec::with_capacity(64);
    message.encode(&mut bytes);
    Packet { link, connection, is_answer, bytes, clock, is_repeated: false }
}

fn unpack(link: LinkId) -> (LinkIndex, u32) {
    (LinkIndex(link.0 as u32), (link.0 >> 32) as u32)
}

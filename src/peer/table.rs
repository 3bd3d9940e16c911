//! The peers of this node as all its workers see them: who is connected, and what waits for whom.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use gyre_cluster::node::NodeId;
use parking_lot::RwLock;

/// The traffic to one peer, of all workers' links together.
#[derive(Default)]
pub struct LinkStatistics {
    sent_bytes: AtomicU64,
    dropped: AtomicU64,
    queued: AtomicUsize,
}

impl LinkStatistics {
    /// The socket took `bytes`.
    pub fn add_sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A message was dropped because the queue was full.
    pub fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes wait on the link that was written to last.
    pub fn set_queued(&self, bytes: usize) {
        self.queued.store(bytes, Ordering::Relaxed);
    }

    /// Bytes sent since the node started.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Messages dropped since the node started.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Bytes that waited when a link to the peer was last written to.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

/// One peer.
#[derive(Default)]
struct Peer {
    /// How many workers have a link to it.
    links: usize,
    /// Which process is at the other end of them: what it drew when it started.
    instance: u128,
    /// How often it has greeted us.
    greetings: u64,
    /// Gossip takes it for dead.
    is_suspected: bool,
    /// How often gossip has come to that.
    suspicions: u64,
    statistics: Arc<LinkStatistics>,
}

impl Peer {
    fn is_up(&self, workers: usize) -> bool {
        self.links >= workers && !self.is_suspected
    }
}

/// All peers this node has ever been connected to.
pub struct PeerTable {
    own: NodeId,
    workers: usize,
    peers: RwLock<BTreeMap<NodeId, Peer>>,
}

impl PeerTable {
    /// The table of node `own` with so many workers, without peers.
    pub fn new(own: NodeId, workers: usize) -> PeerTable {
        PeerTable { own, workers, peers: RwLock::default() }
    }

    /// Whether every worker has a link to `node`, so that all clients are served by it, and gossip does not suspect it.
    /// This node itself is always up.
    pub fn is_up(&self, node: NodeId) -> bool {
        node == self.own || self.peers.read().get(&node).is_some_and(|peer| peer.is_up(self.workers))
    }

    /// Gossip takes `node` for dead, or no longer. Answers whether that is a change.
    pub fn set_suspected(&self, node: NodeId, is_suspected: bool) -> bool {
        let mut peers = self.peers.write();
        let peer = peers.entry(node).or_default();
        let changes = peer.is_suspected != is_suspected;
        peer.suspicions += u64::from(changes && is_suspected);
        peer.is_suspected = is_suspected;
        changes
    }

    /// How often gossip has taken `node` for dead since we started.
    pub fn suspicions(&self, node: NodeId) -> u64 {
        self.peers.read().get(&node).map_or(0, |peer| peer.suspicions)
    }

    /// `node` has greeted us: it lives.
    pub fn greeted(&self, node: NodeId) {
        self.peers.write().entry(node).or_default().greetings += 1;
    }

    /// How often `node` has greeted us since we started.
    pub fn greetings(&self, node: NodeId) -> u64 {
        self.peers.read().get(&node).map_or(0, |peer| peer.greetings)
    }

    /// The statistics of the traffic to `node`.
    pub fn statistics(&self, node: NodeId) -> Arc<LinkStatistics> {
        Arc::clone(&self.peers.write().entry(node).or_default().statistics)
    }

    /// A worker's link to process `instance` of `node` is in use. Answers whether the peer was down before.
    pub fn connected(&self, node: NodeId, instance: u128) -> bool {
        let mut peers = self.peers.write();
        let peer = peers.entry(node).or_default();
        peer.links += 1;
        peer.instance = instance;
        peer.links == 1
    }

    /// A worker's link to `node` is out of use. Answers whether the peer is down now.
    pub fn disconnected(&self, node: NodeId) -> bool {
        let mut peers = self.peers.write();
        let Some(peer) = peers.get_mut(&node) else { return false };
        peer.links = peer.links.saturating_sub(1);
        peer.links == 0
    }

    /// Whether a worker has a link to a process of `node` that is not `instance`: two processes run under one id.
    pub fn is_another(&self, node: NodeId, instance: u128) -> bool {
        self.peers.read().get(&node).is_some_and(|peer| peer.links > 0 && peer.instance != instance)
    }

    /// Every peer with whether it is up and the statistics of the traffic to it.
    pub fn all(&self) -> Vec<(NodeId, bool, Arc<LinkStatistics>)> {
        let peers = self.peers.read();
        peers.iter().map(|(&id, peer)| (id, peer.is_up(self.workers), Arc::clone(&peer.statistics))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_up_while_every_worker_has_a_link() {
        let (own, peer) = (NodeId(1), NodeId(2));
        let table = PeerTable::new(own, 2);
        assert!(table.is_up(own) && !table.is_up(peer));
        assert!(table.connected(peer, 7), "the first link");
        assert!(!table.is_up(peer));
        assert!(!table.connected(peer, 7));
        assert!(table.is_up(peer) && table.all()[0].1);
        assert!(!table.disconnected(peer));
        assert!(!table.is_up(peer));
        assert!(table.disconnected(peer), "the last link");
    }

    #[test]
    fn a_suspected_peer_is_not_up_whatever_its_links() {
        let table = PeerTable::new(NodeId(1), 1);
        table.connected(NodeId(2), 7);
        assert!(table.set_suspected(NodeId(2), true) && !table.set_suspected(NodeId(2), true));
        assert!(!table.is_up(NodeId(2)) && !table.all()[0].1);
        assert!(table.set_suspected(NodeId(2), false));
        assert!(table.is_up(NodeId(2)));
        assert_eq!(table.suspicions(NodeId(2)), 1);
    }

    #[test]
    fn a_second_process_of_an_id_is_noticed_while_the_first_is_linked() {
        let (table, peer) = (PeerTable::new(NodeId(1), 1), NodeId(2));
        assert!(!table.is_another(peer, 7));
        table.connected(peer, 7);
        assert!(table.is_another(peer, 8) && !table.is_another(peer, 7));
        table.disconnected(peer);
        assert!(!table.is_another(peer, 8));
    }

    #[test]
    fn greetings_are_counted_by_peer() {
        let table = PeerTable::new(NodeId(1), 1);
        table.greeted(NodeId(2));
        table.greeted(NodeId(2));
        assert_eq!((table.greetings(NodeId(2)), table.greetings(NodeId(3))), (2, 0));
    }
}

//! The node: what its workers share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use gyre_cluster::clock::HybridClock;
use gyre_cluster::gossip::PeerView;
use gyre_cluster::hints::TargetStatus;
use gyre_cluster::node::NodeId;
use gyre_cluster::purge::PurgeStatus;
use gyre_cluster::purge::absence::Vote;
use gyre_cluster::repair::{RepairStatus, Verified};
use gyre_cluster::ring::Ring;
use gyre_cluster::sweep::SweepStatus;
use gyre_cluster::topology::{Databases, Endpoint, Member, MemberState, Topology};
use gyre_storage::key::murmur3_128;
use gyre_storage::{StorageError, Store, UnixMillis, Version};
use parking_lot::Mutex;

use crate::config::{Config, peer_bind_address};
use crate::error::StartError;
use crate::metrics::Metrics;
use crate::peer::table::PeerTable;
use crate::repair;
use crate::session::registry::ClientRegistry;
use crate::slowlog::SlowLog;
use crate::timekeeping::Timekeeping;
use crate::worker::locks::KeyLocks;
use crate::worker::mailbox::{Letter, Mailbox};

pub(crate) const META_NODE_ID: &str = "node-id";
pub(crate) const META_INCARNATION: &str = "incarnation";
pub(crate) const META_TOPOLOGY: &str = "topology";

/// Everything the workers of one node share. Built once at start.
pub struct Node {
    /// This node's id; also the second part of every version it stamps.
    pub id: NodeId,
    /// How often this node has started, as far as its disk and the cluster know: see [`Node::incarnation`].
    incarnation: AtomicU64,
    /// Whose counter cells this process writes. Random, drawn at this start: whatever became of the disk, and of what
    /// it had not synced, no earlier process has written under it, and an actor must never repeat a cell's row.
    pub actor: u64,
    /// Random, drawn at this start: tells a node that dials itself from two nodes of one id.
    pub instance: u128,
    /// The settings, replaced as a whole by CONFIG SET.
    pub config: ArcSwap<Config>,
    /// The data.
    pub store: Arc<Store>,
    /// The hybrid logical clock, shared so that two workers never stamp the same version.
    pub clock: Arc<HybridClock>,
    /// The time it makes stamps of.
    pub time: Timekeeping,
    /// The ring of the current topology. Empty until the cluster has formed.
    pub ring: ArcSwap<Ring>,
    /// The topology document; `None` until the cluster has formed. Changed by [`Node::install`] only.
    pub topology: ArcSwap<Option<Topology>>,
    /// What gossip knows of the peers, as of its last round.
    pub liveness: ArcSwap<Vec<PeerView>>,
    /// Which peers are connected, with their queues.
    pub peers: PeerTable,
    /// Client connections.
    pub clients: ClientRegistry,
    /// Per-key serialisation of read-modify-writes.
    pub locks: KeyLocks,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// How the replay of hints stands, by target; shown by worker 0.
    pub handoff: ArcSwap<Vec<TargetStatus>>,
    /// What the sweeper of expired rows has done; shown by worker 0.
    pub sweeping: ArcSwap<SweepStatus>,
    /// How purging stands; shown by worker 0.
    pub purging: ArcSwap<PurgeStatus>,
    /// The clock before which this node keeps nothing for others; zero while it does not know. Gossip tells.
    pub keeps_nothing_before: AtomicU64,
    /// How long members have been down, as far as this node has seen; shown by worker 0.
    pub absences: ArcSwap<BTreeMap<NodeId, Duration>>,
    /// Whom this node has seen down for longer than the grace period. Gossip tells.
    pub away: ArcSwap<Vec<Vote>>,
    /// How far replicas are known to agree, as it is saved.
    pub verified: ArcSwap<Verified>,
    /// How anti-entropy stands; shown by worker 0.
    pub repair: ArcSwap<RepairStatus>,
    /// SLOWLOG.
    pub slowlog: SlowLog,
    /// One mailbox a worker.
    pub mailboxes: Vec<Mailbox>,
    /// When the node started, wall clock.
    pub started_at: UnixMillis,
    /// 40 hex digits that change with every start (INFO `run_id`).
    pub run_id: String,
    /// Set on SIGTERM: no new connections, then stop.
    pub stopping: AtomicBool,
    /// The process is to end, and a new one to begin empty ([`crate::rejoin`]).
    pub rejoining: AtomicBool,
    /// The workers know that the store has failed.
    failure_is_told: AtomicBool,
    /// Serialises changes of the topology document.
    installing: Mutex<()>,
}

impl Node {
    /// The node that `store` belongs to, under `config`, with one mailbox for each worker.
    ///
    /// # Errors
    /// [`StartError`] if what the store keeps contradicts the settings, or cannot be read or written.
    pub fn new(config: Config, store: Store, mailboxes: Vec<Mailbox>) -> Result<Node, StartError> {
        let id = identity(&store, config.node_id)?;
        let incarnation = next_incarnation(&store)?;
        let topology = stored_topology(&store, &config)?;
        if let Some(topology) = &topology {
            // A crash may have come between the document and its horizons; who rejoins empty has the document alone.
            store.set_horizons(&topology.horizons_by_database())?;
        }
        let clock = HybridClock::new(config.max_clock_drift_ms);
        clock.set_settled(false);
        clock.raise_to(store.clock_mark());
        let time = Timekeeping::new(config.max_clock_drift_ms);
        let started_at = time.now().wall;
        if clock.ahead_ms(started_at) > config.max_clock_drift_ms {
            tracing::warn!(
                ahead_ms = clock.ahead_ms(started_at),
                "this node's wall clock is behind what it stamped before its start"
            );
        }
        for horizon in topology.iter().flat_map(|topology| topology.horizons.values()) {
            clock.raise_to(horizon.hlc);
        }
        let ring = topology.as_ref().map_or_else(Ring::empty, Topology::ring);
        let verified = repair::stored(&store);
        let nonce = murmur3_128(
            &[id.0.to_be_bytes(), incarnation.to_be_bytes(), started_at.0.to_be_bytes()].concat(),
        );
        Ok(Node {
            id,
            incarnation: AtomicU64::new(incarnation),
            actor: rand::random(),
            instance: rand::random(),
            store: Arc::new(store),
            clock: Arc::new(clock),
            time,
            ring: ArcSwap::from_pointee(ring),
            topology: ArcSwap::from_pointee(topology),
            liveness: ArcSwap::default(),
            peers: PeerTable::new(id, mailboxes.len()),
            clients: ClientRegistry::default(),
            locks: KeyLocks::default(),
            metrics: Metrics::new(mailboxes.len()),
            handoff: ArcSwap::default(),
            sweeping: ArcSwap::default(),
            purging: ArcSwap::default(),
            absences: ArcSwap::default(),
            away: ArcSwap::default(),
            keeps_nothing_before: AtomicU64::new(0),
            verified: ArcSwap::from_pointee(verified),
            repair: ArcSwap::default(),
            slowlog: SlowLog::default(),
            config: ArcSwap::from_pointee(config),
            mailboxes,
            started_at,
            run_id: format!("{nonce:032x}{:08x}", std::process::id()),
            stopping: AtomicBool::new(false),
            rejoining: AtomicBool::new(false),
            failure_is_told: AtomicBool::new(false),
            installing: Mutex::new(()),
        })
    }

    /// How often this node has started. Greater with each start, also after its disk was lost: it may be raised once,
    /// when a node with an empty disk learns that the cluster has known it before.
    pub fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// Makes the incarnation `incarnation`, durably.
    ///
    /// # Errors
    /// [`StorageError`] if it cannot be stored; nothing is changed then.
    pub fn raise_incarnation(&self, incarnation: u64) -> Result<(), StorageError> {
        self.store.meta_put(META_INCARNATION, &incarnation.to_be_bytes())?;
        self.incarnation.store(incarnation, Ordering::Release);
        Ok(())
    }

    /// Whether what `member` holds as `incarnation` has lapsed: it was away for too long, and has not come back empty.
    pub fn has_lapsed(&self, member: NodeId, incarnation: u64) -> bool {
        let topology = self.topology.load();
        (**topology).as_ref().is_some_and(|topology| topology.has_lapsed(member, incarnation))
    }

    /// The members whose data has lapsed and that have not come back.
    pub fn lapsed(&self) -> BTreeSet<NodeId> {
        let topology = self.topology.load();
        (**topology).as_ref().map(Topology::lapsed).unwrap_or_default()
    }

    /// Whether the others have gone on without what this node holds: it must come back empty.
    pub fn has_lapsed_itself(&self) -> bool {
        self.has_lapsed(self.id, self.incarnation())
    }

    /// What this node says of itself in the topology document.
    pub fn member(&self) -> Member {
        let config = self.config.load();
        let announced = |bound: IpAddr| config.announce_host.clone().unwrap_or_else(|| host_of(bound));
        // Clients from elsewhere would be turned away: let those on this machine find the address they may use.
        let is_local = config.protected_mode && config.requirepass.is_empty() && config.bind.is_unspecified();
        let client_bind = if is_local { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { config.bind };
        let peer_bind = peer_bind_address(&config).unwrap_or(client_bind);
        Member {
            id: self.id,
            incarnation: self.incarnation(),
            revision: 0,
            state: MemberState::Joining,
            client_addr: Endpoint::new(announced(client_bind), config.announce_port.unwrap_or(config.port)),
            peer_addr: Endpoint::new(
                announced(peer_bind),
                config.announce_peer_port.unwrap_or(config.peer_port),
            ),
            rack: Some(config.rack.clone()).filter(|rack| !rack.is_empty()),
            vnodes: u32::try_from(config.vnodes).unwrap_or(u32::MAX),
            build: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// The store accepts nothing any more: every worker serves without it from now on, and peers are told.
    pub fn store_failed(&self) {
        if self.failure_is_told.swap(true, Ordering::AcqRel) {
            return;
        }
        for mailbox in &self.mailboxes {
            // A worker that is gone serves nobody.
            let _ = mailbox.send(Letter::StoreFailed);
        }
    }

    /// Whether the cluster has formed and this node knows it.
    pub fn has_formed(&self) -> bool {
        self.topology.load().is_some()
    }

    /// Puts a changed topology document into force: on disk first, then for every worker.
    ///
    /// `change` is given the present document and answers the new one, or `None` to leave it.
    ///
    /// # Errors
    /// [`StorageError`] if it cannot be stored; nothing is changed then.
    pub fn install(
        &self,
        change: impl FnOnce(Option<&Topology>) -> Option<Topology>,
    ) -> Result<bool, StorageError> {
        let _exclusive = self.installing.lock();
        let present = self.topology.load_full();
        let Some(topology) = change((*present).as_ref()) else { return Ok(false) };
        self.store.meta_put(META_TOPOLOGY, &topology.encode())?;
        self.store.set_horizons(&topology.horizons_by_database())?;
        self.ring.store(Arc::new(topology.ring()));
        self.topology.store(Arc::new(Some(topology)));
        for mailbox in &self.mailboxes {
            // A worker that is gone needs no ring.
            let _ = mailbox.send(Letter::TopologyChanged);
        }
        Ok(true)
    }

    /// Makes the deletion horizon of `databases` at least `version`: durably, and in the topology document, which
    /// brings it to nodes that are down now.
    ///
    /// # Errors
    /// [`StorageError`] if it cannot be stored.
    pub fn raise_horizons(&self, databases: Databases, version: Version) -> Result<(), StorageError> {
        self.install(|present| {
            let mut topology = present?.clone();
            topology.raise_horizons(databases, version);
            Some(topology)
        })
        .map(|_| ())
    }
}

/// The address others are told to dial when none is announced: the one bound, or this machine's if that is "any".
fn host_of(bind: IpAddr) -> String {
    if !bind.is_unspecified() {
        return bind.to_string();
    }
    // No packet is sent: connecting a datagram socket only picks the local address of the default route.
    let picked = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    picked.map_or_else(|_| Ipv4Addr::LOCALHOST.to_string(), |address| address.ip().to_string())
}

/// The id this store belongs to; drawn, or taken from the settings, at the first start.
fn identity(store: &Store, wanted: Option<NodeId>) -> Result<NodeId, StartError> {
    let stored = match store.meta_get(META_NODE_ID)? {
        Some(bytes) => Some(NodeId(number(&bytes, META_NODE_ID)?)),
        None => None,
    };
    match (stored, wanted) {
        (Some(stored), Some(wanted)) if stored != wanted => Err(StartError::Identity {
            what: format!("`node-id` is {wanted}, but the data directory belongs to node {stored}"),
        }),
        (Some(stored), _) => Ok(stored),
        (None, wanted) => {
            let id = wanted.unwrap_or_else(|| NodeId(rand::random_range(1..=u64::MAX)));
            store.meta_put(META_NODE_ID, &id.0.to_be_bytes())?;
            Ok(id)
        }
    }
}

fn next_incarnation(store: &Store) -> Result<u64, StartError> {
    let last = match store.meta_get(META_INCARNATION)? {
        Some(bytes) => number(&bytes, META_INCARNATION)?,
        None => 0,
    };
    let next = last + 1;
    store.meta_put(META_INCARNATION, &next.to_be_bytes())?;
    Ok(next)
}

fn stored_topology(store: &Store, config: &Config) -> Result<Option<Topology>, StartError> {
    let Some(bytes) = store.meta_get(META_TOPOLOGY)? else { return Ok(None) };
    let topology = Topology::decode(&bytes).map_err(|error| StartError::Identity {
        what: format!("the stored topology does not parse: {error}"),
    })?;
    if topology.cluster_name != config.cluster_name {
        return Err(StartError::Identity {
            what: format!(
                "`cluster-name` is \"{}\", but the data directory belongs to cluster \"{}\"",
                config.cluster_name, topology.cluster_name
            ),
        });
    }
    Ok(Some(topology))
}

fn number(bytes: &[u8], name: &str) -> Result<u64, StartError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| StartError::Identity { what: format!("the stored document `{name}` is damaged") })?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use gyre_storage::Hlc;

    use super::*;
    use crate::worker::mailbox::mailbox;

    #[test]
    fn a_flush_that_a_crash_has_cut_short_is_in_force_after_the_start() {
        let config = Config { workers: 1, ..Config::default() };
        let horizon = Version { hlc: Hlc(7), node: 1 };
        let mut topology = Topology::form(1, &config.cluster_name, 3, []);
        topology.raise_horizon(2, horizon);
        let store = Store::in_memory();
        store.meta_put(META_TOPOLOGY, &topology.encode()).unwrap();
        let node = Node::new(config, store, vec![mailbox().0]).unwrap();
        assert_eq!(node.store.horizon(2), horizon);
        assert!(node.clock.now() >= horizon.hlc);
    }
}

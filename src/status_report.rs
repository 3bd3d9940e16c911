//! `GYRE STATUS`, `GYRE RING` and `GYRE HINTS`: what this node knows of the cluster, as RESP maps.

use gyre_cluster::clock::agreement::{ClockState, Skew};
use gyre_cluster::gossip::NodeStatus;
use gyre_cluster::node::NodeId;
use gyre_cluster::purge::PurgeStatus;
use gyre_cluster::repair::RepairStatus;
use gyre_cluster::ring::Ring;
use gyre_cluster::topology::{Member, MemberState, Topology};
use gyre_protocol::Reply;
use gyre_storage::HintStats;

use crate::http::Observed;
use crate::metrics::exposition::{ClockGauges, Gauges, PeerGauges, render};
use crate::node::Node;

mod purge;
pub mod repair;

/// The answer to `GYRE STATUS`: the cluster, this node, and a map for each member.
pub fn status_reply(node: &Node) -> Reply {
    let topology = node.topology.load();
    let ring = node.ring.load();
    let state = node.ailment().map_or_else(|| Reply::text("ok"), Reply::text);
    let mut pairs = vec![("state", state), ("node", Reply::text(node.id.to_string()))];
    pairs.push(("version", Reply::text(env!("CARGO_PKG_VERSION"))));
    pairs.push(("uptime-seconds", number(node.time.uptime().as_secs())));
    pairs.push(("incarnation", number(node.incarnation())));
    pairs.push(("clients", Reply::count(node.clients.len())));
    pairs.extend(clock(node));
    let oldest = repair::oldest_seconds(&node.repair.load(), node.time.now().wall, node.started_at);
    pairs.push(("oldest-unverified-seconds", oldest.map_or(Reply::Null, number)));
    pairs.extend(purge::lines(node));
    if let Some(topology) = (**topology).as_ref() {
        pairs.extend(cluster(topology));
        let skews = node.time.skews();
        let members = topology.members.values().map(|member| describe(node, &ring, member, &skews));
        pairs.push(("nodes", Reply::Array(members.collect())));
    } else {
        pairs.push(("cluster-name", Reply::text(node.config.load().cluster_name.as_str())));
        pairs.push(("nodes", Reply::Array(Vec::new())));
    }
    Reply::map(pairs)
}

/// How this node's clock stands to the others', and what an operator should know of it.
fn clock(node: &Node) -> [(&'static str, Reply); 5] {
    let judgement = node.time.judgement();
    let ahead_ms = node.clock.ahead_ms(node.time.now().wall);
    let warnings = node.time.warnings(&node.clock).into_iter().map(Reply::text);
    [
        ("clock", Reply::text(judgement.state.name())),
        ("clock-correction-ms", Reply::Double(millis(judgement.correction_us))),
        ("clock-votes", Reply::count(judgement.votes)),
        ("clock-stamped-ahead-ms", number(ahead_ms)),
        ("warnings", Reply::Array(warnings.collect())),
    ]
}

fn millis(micros: i64) -> f64 {
    // Exact enough for three centuries.
    micros as f64 / 1_000.0
}

/// The answer to `GYRE RING`: runs of slots with the same preference list, in order.
pub fn ring_reply(node: &Node) -> Reply {
    let topology = node.topology.load();
    let ring = node.ring.load();
    let mut pairs = Vec::new();
    if let Some(topology) = (**topology).as_ref() {
        pairs.extend(cluster(topology));
    }
    let replica = |id: &NodeId| {
        let member = (**topology).as_ref().and_then(|topology| topology.members.get(id));
        let address = member.map_or_else(String::new, |member| member.client_addr.to_string());
        Reply::map([("id", Reply::text(id.to_string())), ("address", Reply::text(address))])
    };
    let ranges = ranges(&ring).into_iter().map(|(first, last, replicas)| {
        Reply::map([
            ("first-slot", number(u64::from(first))),
            ("last-slot", number(u64::from(last))),
            ("replicas", Reply::Array(replicas.iter().map(replica).collect())),
        ])
    });
    pairs.push(("ranges", Reply::Array(ranges.collect())));
    Reply::map(pairs)
}

/// The answer to `GYRE HINTS`: what this node keeps for nodes that missed it.
pub fn hints_reply(node: &Node) -> Reply {
    let (counts, now) = (node.store.hint_counts(), node.time.now().wall);
    let topology = node.topology.load();
    let shown = node.handoff.load();
    let target = |stat: &HintStats| {
        let id = NodeId(stat.target);
        let member = (**topology).as_ref().and_then(|topology| topology.members.get(&id));
        let address = member.map_or(Reply::Null, |member| Reply::text(member.client_addr.to_string()));
        let replay = shown.iter().find(|status| status.target == id);
        let age_ms = now.0.saturating_sub(stat.oldest.millis());
        Reply::map([
            ("id", Reply::text(id.to_string())),
            ("address", address),
            ("up", Reply::Boolean(replay.is_some_and(|status| status.is_up))),
            ("keys", number(stat.keys)),
            ("bytes", number(stat.bytes)),
            ("oldest-seconds", number(age_ms / 1_000)),
            ("keys-per-second", number(replay.map_or(0, |status| status.rate))),
            ("replayed", number(replay.map_or(0, |status| status.replayed))),
            ("in-flight", number(replay.map_or(0, |status| status.in_flight as u64))),
            ("failures", number(replay.map_or(0, |status| u64::from(status.failures)))),
        ])
    };
    let config = node.config.load();
    Reply::map([
        ("node", Reply::text(node.id.to_string())),
        ("bytes", number(counts.bytes)),
        ("max-bytes", number(config.max_hint_bytes as u64)),
        ("window-seconds", number(config.hint_window_seconds)),
        ("kept", number(counts.kept)),
        ("replayed", number(counts.replayed)),
        ("dropped", number(counts.dropped)),
        ("expired", number(counts.expired)),
        ("forgotten", number(counts.forgotten)),
        ("targets", Reply::Array(node.store.hint_stats().iter().map(target).collect())),
    ])
}

fn cluster(topology: &Topology) -> [(&'static str, Reply); 4] {
    [
        ("cluster-name", Reply::text(topology.cluster_name.as_str())),
        ("cluster-id", Reply::text(format!("{:032x}", topology.cluster_id))),
        ("epoch", number(topology.epoch)),
        ("replication-factor", number(u64::from(topology.replication_factor))),
    ]
}

fn describe(node: &Node, ring: &Ring, member: &Member, skews: &[Skew]) -> Reply {
    let owned = ring.ownership(member.id);
    let phi = phi_of(node, member.id);
    let health = health_of(node, member.id);
    let skew = skews.iter().find(|skew| skew.peer == member.id);
    let skew_ms = |of: fn(&Skew) -> i64| skew.map_or(Reply::Null, |skew| Reply::Double(millis(of(skew))));
    let traffic = node.peers.all().into_iter().find(|(id, _, _)| *id == member.id);
    let (queued, sent, dropped) = traffic.map_or((0, 0, 0), |(_, _, statistics)| {
        (statistics.queued() as u64, statistics.sent_bytes(), statistics.dropped())
    });
    let state = match member.state {
        MemberState::Joining => "joining",
        MemberState::Active => "active",
        MemberState::Left => "left",
    };
    Reply::map([
        ("id", Reply::text(member.id.to_string())),
        ("address", Reply::text(member.client_addr.to_string())),
        ("peer-address", Reply::text(member.peer_addr.to_string())),
        ("rack", member.rack.as_deref().map_or(Reply::Null, Reply::text)),
        ("state", Reply::text(state)),
        ("up", Reply::Boolean(node.peers.is_up(member.id) && health != Some("failed"))),
        ("health", health.map_or(Reply::Null, Reply::text)),
        ("phi", phi.map_or(Reply::Null, Reply::Double)),
        ("suspicions", number(node.peers.suspicions(member.id))),
        ("clock-skew-ms", skew_ms(|skew| skew.ahead_us)),
        ("clock-skew-error-ms", skew_ms(|skew| i64::try_from(skew.error_us).unwrap_or(i64::MAX))),
        ("myself", Reply::Boolean(member.id == node.id)),
        ("vnodes", number(u64::from(member.vnodes))),
        ("primary-slots", number(u64::from(owned.primary_slots))),
        ("replica-slots", number(u64::from(owned.replica_slots))),
        ("primary-share", Reply::Double(owned.primary_share())),
        ("replica-share", Reply::Double(owned.replica_share())),
        ("incarnation", number(member.incarnation)),
        ("lapsed", Reply::Boolean(node.has_lapsed(member.id, member.incarnation))),
        (
            "away-seconds",
            node.absences.load().get(&member.id).map_or(Reply::Null, |away| number(away.as_secs())),
        ),
        ("version", Reply::text(member.build.as_str())),
        ("queued-bytes", number(queued)),
        ("sent-bytes", number(sent)),
        ("dropped-messages", number(dropped)),
    ])
}

/// What `peer` says of itself: "ok", "stopping", or "failed" if its store accepts nothing any more.
fn health_of(node: &Node, peer: NodeId) -> Option<&'static str> {
    if peer == node.id {
        return Some(if node.store.poisoned().is_some() { "failed" } else { "ok" });
    }
    let views = node.liveness.load();
    let about = views.iter().find(|view| view.id == peer)?.about.as_ref()?;
    Some(match about.status {
        _ if about.has_failed => "failed",
        NodeStatus::Stopping => "stopping",
        _ => "ok",
    })
}

/// How suspicious the silence of `peer` was at the last round of gossip; `None` for this node and before a heartbeat.
fn phi_of(node: &Node, peer: NodeId) -> Option<f64> {
    node.liveness.load().iter().find(|view| view.id == peer).and_then(|view| view.phi)
}

/// Runs of slots whose preference lists are equal, order included: first slot, last slot, list.
fn ranges(ring: &Ring) -> Vec<(u16, u16, Vec<NodeId>)> {
    let mut ranges: Vec<(u16, u16, Vec<NodeId>)> = Vec::new();
    for slot in 0..gyre_storage::SLOTS {
        let replicas = ring.replicas(slot);
        if replicas.is_empty() {
            continue;
        }
        match ranges.last_mut() {
            Some((_, last, list)) if list == replicas => *last = slot,
            _ => ranges.push((slot, slot, replicas.to_vec())),
        }
    }
    ranges
}

fn number(value: u64) -> Reply {
    Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

impl Observed for Node {
    fn exposition(&self) -> String {
        render(&self.metrics, &gauges(self))
    }

    fn ailment(&self) -> Option<String> {
        if let Some(error) = self.store.poisoned() {
            return Some(format!("the store refuses writes: {error}"));
        }
        (!self.has_formed()).then(|| "the ring has not formed".to_string())
    }
}

fn gauges(node: &Node) -> Gauges {
    let skews = node.time.skews();
    let peers = node.peers.all().into_iter().map(|(id, up, statistics)| PeerGauges {
        node: id.to_string(),
        up,
        queued_bytes: statistics.queued() as u64,
        sent_bytes: statistics.sent_bytes(),
        dropped: statistics.dropped(),
        suspicions: node.peers.suspicions(id),
        phi: phi_of(node, id),
        clock_skew_us: skews.iter().find(|skew| skew.peer == id).map(|skew| (skew.ahead_us, skew.error_us)),
    });
    let judgement = node.time.judgement();
    Gauges {
        version: env!("CARGO_PKG_VERSION"),
        node: node.id.to_string(),
        uptime_seconds: node.time.uptime().as_secs(),
        connections: node.clients.len() as u64,
        connections_accepted: node.clients.accepted.load(std::sync::atomic::Ordering::Relaxed),
        connections_refused: node.clients.refused.load(std::sync::atomic::Ordering::Relaxed),
        ring_formed: node.has_formed(),
        ring_members: node.ring.load().members().len() as u64,
        store_poisoned: node.store.poisoned().is_some(),
        clock: ClockGauges {
            agreed: judgement.state == ClockState::Agreed,
            correction_us: judgement.correction_us,
            ahead_ms: node.clock.ahead_ms(node.time.now().wall),
            refusals: node.time.refusals(),
        },
        store: node.store.stats(),
        hints: node.store.hint_counts(),
        hint_targets: node.handoff.load().to_vec(),
        repair: RepairStatus::clone(&node.repair.load()),
        oldest_unverified_seconds: repair::oldest_seconds(
            &node.repair.load(),
            node.time.now().wall,
            node.started_at,
        ),
        sweeping: **node.sweeping.load(),
        purging: PurgeStatus::clone(&node.purging.load()),
        purge_horizon_seconds: purge::horizon_seconds(node),
        peers: peers.collect(),
    }
}

#[cfg(test)]
mod tests {
    use gyre_cluster::ring::RingMember;

    use super::*;

    #[test]
    fn ranges_cover_every_slot_once_and_differ_from_their_neighbours() {
        let members: Vec<RingMember> =
            (1..=4).map(|id| RingMember { id: NodeId(id), rack: None, vnodes: 150 }).collect();
        let ring = Ring::build(&members, 3);
        let ranges = ranges(&ring);
        assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (0, gyre_storage::SLOTS - 1));
        for pair in ranges.windows(2) {
            assert_eq!(pair[0].1 + 1, pair[1].0);
            assert_ne!(pair[0].2, pair[1].2);
        }
        for (first, last, replicas) in &ranges {
            assert!((*first..=*last).all(|slot| ring.replicas(slot) == replicas));
        }
    }

    #[test]
    fn an_empty_ring_has_no_ranges() {
        assert!(ranges(&Ring::empty()).is_empty());
    }
}

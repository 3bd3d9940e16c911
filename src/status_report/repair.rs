//! `GYRE REPAIR STATUS`: how anti-entropy stands, as a RESP map.

use gyre_cluster::repair::{Moved, PairState, PairStatus, RepairStatus};
use gyre_protocol::Reply;
use gyre_storage::{Hlc, UnixMillis};

use super::number;
use crate::node::Node;

/// The answer to `GYRE REPAIR STATUS`: settings, the slot compared longest ago, sums, and a map for each peer.
pub fn reply(node: &Node) -> Reply {
    let (status, now, config) = (node.repair.load(), node.time.now().wall, node.config.load());
    let (totals, tree) = (&status.totals, node.store.tree_stats());
    let oldest = status.oldest();
    let pairs = status.pairs.iter().map(|pair| describe(node, pair, now));
    Reply::map([
        ("node", Reply::text(node.id.to_string())),
        ("interval-seconds", number(config.anti_entropy_interval_seconds)),
        ("rate", number(u64::from(config.anti_entropy_rate))),
        (
            "oldest-unverified-seconds",
            oldest_seconds(&status, now, node.started_at).map_or(Reply::Null, number),
        ),
        ("oldest-unverified-slot", oldest.map_or(Reply::Null, |(_, slot)| number(u64::from(slot)))),
        ("marked-slots", number(status.marked as u64)),
        ("completed", number(totals.completed)),
        ("failed", number(totals.failed)),
        ("rows-sent", number(totals.rows_sent)),
        ("rows-received", number(totals.rows_received)),
        ("bytes-sent", number(totals.bytes_sent)),
        ("bytes-received", number(totals.bytes_received)),
        ("ranges-compared", number(totals.ranges_compared)),
        ("keys-compared", number(totals.keys_compared)),
        ("steps-served", number(totals.served)),
        ("steps-waiting", number(status.waiting as u64)),
        ("slots-handed-over", number(totals.strays)),
        ("tree-keys", number(tree.keys)),
        ("tree-bytes", number(tree.bytes)),
        ("dirty-segments", number(tree.dirty_segments)),
        ("peers", Reply::Array(pairs.collect())),
    ])
}

/// How long ago the slot was compared that this node has not compared for longest, with whichever peer; since the start,
/// if it never was. `None` if nobody else keeps what this node keeps.
pub fn oldest_seconds(status: &RepairStatus, now: UnixMillis, started: UnixMillis) -> Option<u64> {
    status
        .oldest()
        .map(|(clock, _)| age(clock, now).unwrap_or_else(|| now.0.saturating_sub(started.0) / 1_000))
}

/// Seconds since `clock`; `None` if that is never.
fn age(clock: Hlc, now: UnixMillis) -> Option<u64> {
    (clock > Hlc::ZERO).then(|| now.0.saturating_sub(clock.millis()) / 1_000)
}

fn describe(node: &Node, pair: &PairStatus, now: UnixMillis) -> Reply {
    let topology = node.topology.load();
    let member = (**topology).as_ref().and_then(|topology| topology.members.get(&pair.peer));
    let address = member.map_or(Reply::Null, |member| Reply::text(member.client_addr.to_string()));
    let (state, done, total, moved, for_ms) = match pair.state {
        PairState::Running { done, total, moved, for_ms } => ("running", done, total, moved, for_ms),
        PairState::Waiting => ("waiting", 0, pair.wanted, Moved::default(), 0),
        PairState::Down => ("down", 0, pair.wanted, Moved::default(), 0),
        PairState::Idle => ("idle", 0, 0, Moved::default(), 0),
    };
    Reply::map([
        ("id", Reply::text(pair.peer.to_string())),
        ("address", address),
        ("state", Reply::text(state)),
        ("drives", Reply::Boolean(pair.drives)),
        ("slots", number(pair.slots as u64)),
        ("slots-done", number(done as u64)),
        ("slots-total", number(total as u64)),
        ("rows-pulled", number(moved.rows_pulled)),
        ("rows-pushed", number(moved.rows_pushed)),
        ("running-ms", number(for_ms)),
        ("completed", number(pair.completed)),
        ("failures", number(u64::from(pair.failures))),
        ("last-trouble", pair.trouble.map_or(Reply::Null, |trouble| Reply::text(trouble.to_string()))),
        ("verified-seconds-ago", pair.verified_ms_ago.map_or(Reply::Null, |ms| number(ms / 1_000))),
        ("oldest-unverified-seconds", age(pair.oldest.0, now).map_or(Reply::Null, number)),
    ])
}

#[cfg(test)]
mod tests {
    use gyre_cluster::node::NodeId;

    use super::*;

    fn pair(oldest: Hlc) -> PairStatus {
        PairStatus {
            peer: NodeId(2),
            drives: true,
            slots: 1,
            wanted: 0,
            state: PairState::Idle,
            completed: 0,
            failures: 0,
            trouble: None,
            verified_ms_ago: None,
            oldest: (oldest, 7),
        }
    }

    #[test]
    fn the_oldest_is_the_oldest_of_all_peers_and_never_counts_since_the_start() {
        let (now, started) = (UnixMillis(100_000), UnixMillis(40_000));
        let of = |clocks: &[Hlc]| {
            let pairs = clocks.iter().map(|&clock| pair(clock)).collect();
            oldest_seconds(&RepairStatus { pairs, ..RepairStatus::default() }, now, started)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[Hlc::from_millis(90_000), Hlc::from_millis(70_000)]), Some(30));
        assert_eq!(of(&[Hlc::from_millis(90_000), Hlc::ZERO]), Some(60));
        assert_eq!(of(&[Hlc::from_millis(110_000)]), Some(0));
    }
}

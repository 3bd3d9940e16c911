//! What `GYRE STATUS` tells of purging.

use gyre_cluster::node::NodeId;
use gyre_protocol::Reply;
use gyre_storage::Hlc;

use super::number;
use crate::node::Node;

/// How old the least purge horizon of this node's slots is; `None` while some slot has none.
pub(super) fn horizon_seconds(node: &Node) -> Option<u64> {
    let oldest = node.purging.load().oldest_horizon;
    let age_ms = node.time.now().wall.0.saturating_sub(oldest.millis());
    (oldest > Hlc::ZERO).then_some(age_ms / 1_000)
}

/// How old deletions are whose records are gone, who holds that up, and what was removed since the start.
pub(super) fn lines(node: &Node) -> [(&'static str, Reply); 4] {
    let status = node.purging.load();
    let topology = node.topology.load();
    let name = |id: &NodeId| {
        let member = (**topology).as_ref().and_then(|topology| topology.members.get(id));
        Reply::text(member.map_or_else(|| id.to_string(), |member| member.client_addr.to_string()))
    };
    [
        ("purge-horizon-seconds", horizon_seconds(node).map_or(Reply::Null, number)),
        ("purge-held-up-by", Reply::Array(status.held_up_by().iter().map(name).collect())),
        ("purged-keys", number(status.keys)),
        ("tombstone-grace-seconds", number(node.config.load().tombstone_grace_seconds)),
    ]
}

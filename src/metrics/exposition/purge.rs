//! What `/metrics` tells of purging.

use gyre_cluster::purge::PurgeStatus;

use super::Families;

/// Adds the families. `horizon_seconds` is how old the least purge horizon of this node's slots is.
pub(super) fn add(out: &mut Families, status: &PurgeStatus, horizon_seconds: Option<u64>) {
    let (keys, rows) = (status.keys, status.rows);
    out.counter("gyre_purge_looked_at_total", "Keys that purging has looked at.", status.looked_at);
    out.counter("gyre_purge_keys_total", "Deleted or expired keys of which every row was removed.", keys);
    out.counter("gyre_purge_rows_total", "Rows removed, those that others void included.", rows);
    let waiting = status.slots_waiting as u64;
    out.gauge("gyre_purge_slots_waiting", "Slots whose dead rows are still to be removed.", waiting);
    let help = "Nodes that hold purging up: they are down, or keep something old for others.";
    out.gauge("gyre_purge_held_up_by_nodes", help, status.held_up_by().len() as u64);
    let help = "How old the least of the clocks is up to which replicas have agreed that deletions are over.";
    out.gauges("gyre_purge_horizon_age_seconds", help, horizon_seconds.map(|seconds| (&[][..], seconds)));
}

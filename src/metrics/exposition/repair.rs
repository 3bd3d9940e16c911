//! What `/metrics` tells of anti-entropy.

use gyre_cluster::repair::{PairState, RepairStatus};

use super::Families;

/// Adds the families. `oldest_seconds` is how long ago the slot was compared that was not for longest.
pub(super) fn add(out: &mut Families, status: &RepairStatus, oldest_seconds: Option<u64>) {
    let totals = &status.totals;
    let ends =
        [(&[("outcome", "completed")][..], totals.completed), (&[("outcome", "failed")][..], totals.failed)];
    out.counters(
        "gyre_anti_entropy_exchanges_total",
        "Exchanges that this node drove, by how they ended.",
        ends,
    );
    let rows =
        [(&[("direction", "out")][..], totals.rows_sent), (&[("direction", "in")][..], totals.rows_received)];
    out.counters("gyre_anti_entropy_rows_total", "Rows sent to peers and sent by them.", rows);
    let bytes = [
        (&[("direction", "out")][..], totals.bytes_sent),
        (&[("direction", "in")][..], totals.bytes_received),
    ];
    out.counters("gyre_anti_entropy_bytes_total", "Bytes of all messages of anti-entropy.", bytes);
    let ranges = totals.ranges_compared;
    out.counter("gyre_anti_entropy_ranges_total", "Ranges whose sums were compared.", ranges);
    out.counter("gyre_anti_entropy_keys_total", "Keys that were compared one by one.", totals.keys_compared);
    out.counter(
        "gyre_anti_entropy_served_total",
        "Steps done for exchanges that peers drive.",
        totals.served,
    );
    let help = "Marked slots of others whose rows this node has handed over.";
    out.counter("gyre_anti_entropy_slots_handed_over_total", help, totals.strays);
    let running = |state: &PairState| matches!(state, PairState::Running { .. });
    let running = status.pairs.iter().filter(|pair| running(&pair.state)).count();
    out.gauge("gyre_anti_entropy_running", "Exchanges that this node drives now.", running as u64);
    out.gauge(
        "gyre_anti_entropy_marked_slots",
        "Slots marked since a hint was dropped.",
        status.marked as u64,
    );
    let help = "How long ago the slot was compared that was not for longest; the oldest unverified range.";
    out.gauges(
        "gyre_anti_entropy_oldest_unverified_seconds",
        help,
        oldest_seconds.map(|seconds| (&[][..], seconds)),
    );
}

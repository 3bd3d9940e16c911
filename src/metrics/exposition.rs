//! `/metrics`: the text of the Prometheus exposition format, made when it is asked for.

use gyre_cluster::coordinator::{Operation, Statistics};
use gyre_cluster::hints::TargetStatus;
use gyre_cluster::level::Consistency;
use gyre_cluster::purge::PurgeStatus;
use gyre_cluster::repair::RepairStatus;
use gyre_cluster::sweep::SweepStatus;
use gyre_storage::{HintCounts, StoreStats};
use prometheus::core::Collector;
use prometheus::proto::{Bucket, Histogram as HistogramProto, Metric, MetricType};

use self::families::{Families, float, labelled};
use super::{CommandStats, Metrics};

mod clock;
mod families;
mod purge;
mod repair;
mod store;

pub use clock::ClockGauges;

/// Histogram bounds are powers of two of microseconds: 2^4 (16 µs) to 2^24 (16.8 s).
const BOUND_EXPONENTS: std::ops::RangeInclusive<u32> = 4..=24;

/// The `Content-Type` of the text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// What the node is like at the moment, beside its counters.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Gyre's version.
    pub version: &'static str,
    /// The node's id.
    pub node: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Open client connections.
    pub connections: u64,
    /// Connections accepted since the start.
    pub connections_accepted: u64,
    /// Connections refused by `maxclients`.
    pub connections_refused: u64,
    /// Whether the ring has formed.
    pub ring_formed: bool,
    /// Members of the ring, this node included.
    pub ring_members: u64,
    /// Whether the store refuses writes after a failed sync.
    pub store_poisoned: bool,
    /// Its clock.
    pub clock: ClockGauges,
    /// The store.
    pub store: StoreStats,
    /// What has become of hints.
    pub hints: HintCounts,
    /// The nodes that there are hints for.
    pub hint_targets: Vec<TargetStatus>,
    /// What the sweeper of expired rows has done.
    pub sweeping: SweepStatus,
    /// What purging does.
    pub purging: PurgeStatus,
    /// How old the least purge horizon is; `None` while some slot has none.
    pub purge_horizon_seconds: Option<u64>,
    /// What anti-entropy does.
    pub repair: RepairStatus,
    /// How long ago the slot was compared that was not for longest.
    pub oldest_unverified_seconds: Option<u64>,
    /// The peers.
    pub peers: Vec<PeerGauges>,
}

/// One peer, as seen from here.
#[derive(Clone, Debug, Default)]
pub struct PeerGauges {
    /// Its id.
    pub node: String,
    /// Whether some worker has a link to it.
    pub up: bool,
    /// Bytes waiting to be sent to it.
    pub queued_bytes: u64,
    /// Bytes sent to it since the start.
    pub sent_bytes: u64,
    /// Messages to it that were dropped because its queue was full.
    pub dropped: u64,
    /// How often gossip took it for dead.
    pub suspicions: u64,
    /// Its phi at the last round of gossip.
    pub phi: Option<f64>,
    /// How far its wall clock is ahead of this node's, and how far off that may be, in microseconds.
    pub clock_skew_us: Option<(i64, u64)>,
}

/// The exposition text of a node.
pub fn render(metrics: &Metrics, gauges: &Gauges) -> String {
    let mut families = Families::default();
    node(&mut families, gauges);
    clients(&mut families, metrics, gauges);
    commands(&mut families, &metrics.commands_since_start());
    coordinators(&mut families, &metrics.coordinators());
    clock::add(&mut families, &gauges.clock);
    peers(&mut families, &gauges.peers);
    hints(&mut families, gauges);
    repair::add(&mut families, &gauges.repair, gauges.oldest_unverified_seconds);
    sweeping(&mut families, &gauges.sweeping);
    purge::add(&mut families, &gauges.purging, gauges.purge_horizon_seconds);
    store::add(&mut families, &gauges.store);
    families.0.extend(prometheus::process_collector::ProcessCollector::for_self().collect());
    families.text()
}

fn node(out: &mut Families, gauges: &Gauges) {
    let info = [("version", gauges.version), ("node", gauges.node.as_str())];
    out.gauges("gyre_node_info", "The node; always 1.", [(&info[..], 1)]);
    out.gauge("gyre_uptime_seconds", "Seconds since the start.", gauges.uptime_seconds);
    out.gauge("gyre_ring_formed", "1 when the ring has formed.", u64::from(gauges.ring_formed));
    out.gauge("gyre_ring_members", "Members of the ring.", gauges.ring_members);
    let poisoned = u64::from(gauges.store_poisoned);
    out.gauge("gyre_store_poisoned", "1 when the store refuses writes after a failed sync.", poisoned);
}

fn clients(out: &mut Families, metrics: &Metrics, gauges: &Gauges) {
    let totals = metrics.totals_since_start();
    out.gauge("gyre_client_connections", "Open client connections.", gauges.connections);
    out.counter("gyre_client_connections_total", "Client connections accepted.", gauges.connections_accepted);
    let refused = gauges.connections_refused;
    out.counter(
        "gyre_client_connections_refused_total",
        "Client connections refused by maxclients.",
        refused,
    );
    out.counter("gyre_client_received_bytes_total", "Bytes that clients sent.", totals.bytes_in);
    out.counter("gyre_client_sent_bytes_total", "Bytes sent to clients.", totals.bytes_out);
    let errors = metrics.errors();
    let by_code: Vec<_> = errors.iter().map(|(code, count)| ([("code", code.as_str())], *count)).collect();
    out.gauges(
        "gyre_error_replies",
        "Error replies by code since the last CONFIG RESETSTAT.",
        by_code.iter().map(|(labels, count)| (&labels[..], *count)),
    );
}

fn commands(out: &mut Families, commands: &[CommandStats]) {
    let used: Vec<_> = commands
        .iter()
        .filter(|command| command.calls + command.rejected > 0)
        .map(|command| ([("command", command.name)], command))
        .collect();
    let each = |value: fn(&CommandStats) -> u64| used.iter().map(move |(labels, c)| (&labels[..], value(c)));
    out.counters("gyre_commands_total", "Commands executed.", each(|command| command.calls));
    out.counters(
        "gyre_commands_failed_total",
        "Commands that answered an error.",
        each(|command| command.failed),
    );
    out.counters(
        "gyre_commands_rejected_total",
        "Commands refused before execution.",
        each(|command| command.rejected),
    );
    let latencies = used.iter().map(|(labels, command)| histogram(&labels[..], command));
    out.family(
        "gyre_command_duration_seconds",
        "From the arrival of a command to its answer.",
        MetricType::HISTOGRAM,
        latencies.collect(),
    );
}

fn histogram(labels: &[(&str, &str)], command: &CommandStats) -> Metric {
    let mut proto = HistogramProto::default();
    proto.set_sample_count(command.latency.count());
    proto.set_sample_sum(float(command.micros) / 1e6);
    let bounds = BOUND_EXPONENTS.map(|exponent| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(float(1 << exponent) / 1e6);
        bucket.set_cumulative_count(command.latency.at_most_power_of_two(exponent));
        bucket
    });
    proto.set_bucket(bounds.collect());
    let mut metric = labelled(labels);
    metric.set_histogram(proto);
    metric
}

fn coordinators(out: &mut Families, workers: &[Statistics]) {
    let sum = |value: fn(&Statistics) -> u64| workers.iter().map(value).sum::<u64>();
    let mut outcomes = Vec::new();
    for operation in Operation::ALL {
        for level in [Consistency::One, Consistency::Quorum, Consistency::All] {
            let mut counts = [("done", 0), ("unavailable", 0), ("timeout", 0), ("overloaded", 0)];
            for worker in workers {
                let ends = worker.ends(operation, level);
                let ends = [ends.done, ends.unavailable, ends.timed_out, ends.overloaded];
                counts.iter_mut().zip(ends).for_each(|((_, count), more)| *count += more);
            }
            let labels = |outcome| {
                [("operation", operation.name()), ("consistency", level_name(level)), ("outcome", outcome)]
            };
            outcomes.extend(counts.map(|(outcome, count)| (labels(outcome), count)));
        }
    }
    out.counters(
        "gyre_operations_total",
        "Operations coordinated by this node, by consistency level and outcome.",
        outcomes.iter().map(|(labels, count)| (&labels[..], *count)),
    );
    let mismatches = sum(|worker| worker.digest_mismatches);
    out.counter("gyre_digest_mismatches_total", "Reads whose replicas disagreed.", mismatches);
    let repairs = [
        (&[("mode", "blocking")][..], sum(|worker| worker.repairs_blocking)),
        (&[("mode", "background")][..], sum(|worker| worker.repairs_background)),
    ];
    out.counters("gyre_read_repairs_total", "Rows sent to replicas that a read found stale.", repairs);
    let retries = sum(|worker| worker.speculative_retries);
    out.counter("gyre_speculative_retries_total", "Reads that asked a further replica for speed.", retries);
    let rounds = [
        (&[("kind", "single")][..], sum(|worker| worker.counter_rounds_single)),
        (&[("kind", "resolved")][..], sum(|worker| worker.counter_rounds_resolved)),
    ];
    out.counters("gyre_counter_rounds_total", "Increments by how many rounds they took.", rounds);
    let many = sum(|worker| worker.siblings_many);
    out.counter("gyre_siblings_many_total", "Writes with a context that left 25 siblings or more.", many);
    let merged = sum(|worker| worker.siblings_merged);
    out.counter(
        "gyre_siblings_merged_total",
        "Writes with a context that kept only the newest sibling.",
        merged,
    );
    let dropped = sum(|worker| worker.siblings_dropped);
    out.counter("gyre_siblings_dropped_total", "Siblings that these writes dropped.", dropped);
    let forwarded = sum(|worker| worker.forwarded);
    out.counter("gyre_forwarded_total", "Read-modify-writes sent to the key's primary.", forwarded);
    out.counter("gyre_served_total", "Requests served as a replica.", sum(|worker| worker.served));
    let stood_in = sum(|worker| worker.stood_in);
    out.counter(
        "gyre_sloppy_writes_total",
        "Rows written with nodes standing in for replicas that were down.",
        stood_in,
    );
    let late = sum(|worker| worker.hints_late);
    out.counter("gyre_hints_late_total", "Hints for replicas that were alive and did not acknowledge.", late);
}

fn hints(out: &mut Families, gauges: &Gauges) {
    let HintCounts { bytes, kept, replayed, dropped, expired, forgotten } = gauges.hints;
    out.gauge("gyre_hint_bytes", "Bytes that hints take, about.", bytes);
    let ends = [("kept", kept), ("replayed", replayed), ("dropped", dropped), ("expired", expired)];
    let ends = ends.map(|(event, count)| ([("event", event)], count));
    out.counters(
        "gyre_hints_total",
        "Hints kept, replayed, not kept for want of room or after the window, and removed after it.",
        ends.iter().map(|(labels, count)| (&labels[..], *count)),
    );
    let help = "Keys kept for other nodes and removed once these had them.";
    out.counter("gyre_hint_keys_forgotten_total", help, forgotten);
    let targets: Vec<_> =
        gauges.hint_targets.iter().map(|target| (target.target.to_string(), target)).collect();
    let labelled: Vec<_> =
        targets.iter().map(|(node, target)| ([("peer", node.as_str())], *target)).collect();
    let each = |value: fn(&TargetStatus) -> u64| labelled.iter().map(move |(l, t)| (&l[..], value(t)));
    out.gauges("gyre_hint_keys", "Keys of which the peer misses rows.", each(|target| target.keys));
    out.gauges(
        "gyre_hint_oldest_seconds",
        "Age of the oldest hint for the peer.",
        each(|target| target.oldest_ms / 1_000),
    );
    let rate = each(|target| target.rate);
    out.gauges("gyre_hint_replay_keys_per_second", "Keys handed over to the peer lately.", rate);
}

fn sweeping(out: &mut Families, status: &SweepStatus) {
    let SweepStatus { due, swept, bytes_freed, lag_ms } = *status;
    out.counter("gyre_sweep_due_total", "Entries of the expiry index that the sweeper found due.", due);
    out.counter("gyre_sweep_swept_total", "Expired rows whose values the sweeper has freed.", swept);
    out.counter("gyre_sweep_freed_bytes_total", "Bytes of these values.", bytes_freed);
    let help =
        "For how long the oldest row not swept yet had been due, as of the last step; 0 when none is left.";
    out.gauge("gyre_sweep_lag_seconds", help, lag_ms / 1_000);
}

fn level_name(level: Consistency) -> &'static str {
    match level {
        Consistency::One => "one",
        Consistency::Quorum => "quorum",
        Consistency::All => "all",
    }
}

fn peers(out: &mut Families, peers: &[PeerGauges]) {
    let labels: Vec<_> = peers.iter().map(|peer| ([("peer", peer.node.as_str())], peer)).collect();
    let each = |value: fn(&PeerGauges) -> u64| labels.iter().map(move |(labels, p)| (&labels[..], value(p)));
    out.gauges("gyre_peer_up", "1 when the peer is connected.", each(|peer| u64::from(peer.up)));
    let phi = labels.iter().filter_map(|(labels, peer)| Some((&labels[..], peer.phi?)));
    out.real_gauges("gyre_peer_phi", "How suspicious the silence of the peer is; 8 is dead by default.", phi);
    clock::add_peers(out, peers);
    let suspicions = each(|peer| peer.suspicions);
    out.counters("gyre_peer_suspicions_total", "How often gossip took the peer for dead.", suspicions);
    let queued = each(|peer| peer.queued_bytes);
    out.gauges("gyre_peer_queued_bytes", "Bytes waiting to be sent to the peer.", queued);
    out.counters("gyre_peer_sent_bytes_total", "Bytes sent to the peer.", each(|peer| peer.sent_bytes));
    let dropped = each(|peer| peer.dropped);
    out.counters("gyre_peer_dropped_total", "Messages dropped because the queue was full.", dropped);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use gyre_protocol::CommandId;

    use super::*;
    use crate::metrics::CommandIndex;

    fn index(name: &str) -> CommandIndex {
        CommandId::ALL
            .iter()
            .map(|id| CommandIndex::of(id.command()))
            .find(|index| index.name() == name)
            .unwrap()
    }

    fn has_line(text: &str, line: &str) -> bool {
        text.lines().any(|have| have == line)
    }

    #[test]
    fn the_text_shows_commands_with_their_histograms() {
        let metrics = Metrics::new(1);
        let worker = metrics.worker(0);
        worker.record(index("get"), 16);
        worker.record(index("get"), 17);
        worker.count_rejected(index("set"));
        let text = render(&metrics, &Gauges::default());
        for line in [
            "# TYPE gyre_commands_total counter",
            "gyre_commands_total{command=\"get\"} 2",
            "gyre_commands_rejected_total{command=\"set\"} 1",
            "# TYPE gyre_command_duration_seconds histogram",
            "gyre_command_duration_seconds_bucket{command=\"get\",le=\"0.000016\"} 1",
            "gyre_command_duration_seconds_bucket{command=\"get\",le=\"0.000032\"} 2",
            "gyre_command_duration_seconds_bucket{command=\"get\",le=\"+Inf\"} 2",
            "gyre_command_duration_seconds_count{command=\"get\"} 2",
        ] {
            assert!(has_line(&text, line), "{line} is missing from\n{text}");
        }
        assert!(!text.contains("append"), "commands that nobody used are left out");
    }

    #[test]
    fn the_text_shows_what_the_gauges_say() {
        let mut gauges = Gauges { ring_members: 3, ring_formed: true, ..Gauges::default() };
        gauges.sweeping = SweepStatus { due: 9, swept: 8, bytes_freed: 7, lag_ms: 12_345 };
        gauges.purging = PurgeStatus { keys: 21, rows: 22, ..PurgeStatus::default() };
        gauges.purge_horizon_seconds = Some(300_000);
        gauges.repair.totals.rows_received = 5;
        gauges.oldest_unverified_seconds = Some(61);
        gauges.peers.push(PeerGauges { node: "abc".into(), queued_bytes: 77, ..PeerGauges::default() });
        gauges.store.engine.files_at_level = vec![4, 0];
        let text = render(&Metrics::new(1), &gauges);
        for line in [
            "gyre_ring_formed 1",
            "gyre_ring_members 3",
            "gyre_peer_queued_bytes{peer=\"abc\"} 77",
            "gyre_rocksdb_files{level=\"0\"} 4",
            "gyre_operations_total{operation=\"write\",consistency=\"quorum\",outcome=\"timeout\"} 0",
            "gyre_read_repairs_total{mode=\"blocking\"} 0",
            "gyre_anti_entropy_rows_total{direction=\"in\"} 5",
            "gyre_anti_entropy_oldest_unverified_seconds 61",
            "gyre_sweep_swept_total 8",
            "gyre_sweep_lag_seconds 12",
            "gyre_purge_keys_total 21",
            "gyre_purge_rows_total 22",
            "gyre_purge_horizon_age_seconds 300000",
        ] {
            assert!(has_line(&text, line), "{line} is missing from\n{text}");
        }
    }

    #[test]
    fn every_family_is_described_once() {
        let text = render(&Metrics::new(2), &Gauges::default());
        let mut seen = HashMap::new();
        for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
            *seen.entry(line.split(' ').nth(2).unwrap()).or_insert(0) += 1;
        }
        assert!(seen.len() > 30 && seen.values().all(|count| *count == 1), "{seen:?}");
    }
}

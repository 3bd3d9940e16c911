//! What `/metrics` tells of clocks.

use super::{Families, PeerGauges};

/// How this node's clock stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockGauges {
    /// Whether the node goes by its own wall clock.
    pub agreed: bool,
    /// What it adds to its wall clock to have the time, in microseconds.
    pub correction_us: i64,
    /// How far it has stamped ahead of the time, in milliseconds.
    pub ahead_ms: u64,
    /// Messages refused since their sender's clock was too far ahead.
    pub refusals: u64,
}

/// Adds the families of this node.
pub(super) fn add(out: &mut Families, clock: &ClockGauges) {
    let agreed = u64::from(clock.agreed);
    out.gauge("gyre_clock_agreed", "1 when the node goes by its own wall clock.", agreed);
    let help = "What the node adds to its wall clock to have the time it goes by.";
    out.real_gauges("gyre_clock_correction_seconds", help, [(&[][..], seconds(clock.correction_us))]);
    let help = "How far the node has stamped ahead of the time; others refuse more than max-clock-drift.";
    out.gauge("gyre_clock_stamped_ahead_ms", help, clock.ahead_ms);
    let help = "Messages refused because the clock of their sender was too far ahead.";
    out.counter("gyre_clock_refusals_total", help, clock.refusals);
}

/// Adds the families of peers.
pub(super) fn add_peers(out: &mut Families, peers: &[PeerGauges]) {
    let labels: Vec<_> = peers.iter().map(|peer| ([("peer", peer.node.as_str())], peer)).collect();
    let skew = |of: fn((i64, u64)) -> i64| {
        let known = labels.iter().filter_map(|(labels, peer)| Some((labels, peer.clock_skew_us?)));
        known.map(move |(labels, skew)| (&labels[..], seconds(of(skew))))
    };
    let help = "How far the wall clock of the peer is ahead of this node's.";
    out.real_gauges("gyre_peer_clock_skew_seconds", help, skew(|(ahead, _)| ahead));
    let help = "How far gyre_peer_clock_skew_seconds may be off: half of the round trip, and age.";
    out.real_gauges("gyre_peer_clock_skew_error_seconds", help, skew(|(_, error)| error.cast_signed()));
}

fn seconds(micros: i64) -> f64 {
    // Exact enough for three centuries.
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skews_are_told_of_peers_that_were_measured_and_in_seconds() {
        let mut out = Families::default();
        add(
            &mut out,
            &ClockGauges { agreed: false, correction_us: -3_600_000_000, ahead_ms: 7, refusals: 2 },
        );
        let peer =
            |node: &str, clock_skew_us| PeerGauges { node: node.into(), clock_skew_us, ..Default::default() };
        add_peers(&mut out, &[peer("a", Some((1_500_000, 250))), peer("b", None)]);
        let text = out.text();
        for line in [
            "gyre_clock_agreed 0",
            "gyre_clock_correction_seconds -3600",
            "gyre_clock_stamped_ahead_ms 7",
            "gyre_clock_refusals_total 2",
            "gyre_peer_clock_skew_seconds{peer=\"a\"} 1.5",
            "gyre_peer_clock_skew_error_seconds{peer=\"a\"} 0.00025",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing:\n{text}");
        }
        assert!(!text.contains("peer=\"b\""), "{text}");
    }
}

//! The latency monitor: for each kind of event the spikes of the last seconds, as LATENCY LATEST, HISTORY and DOCTOR
//! report them.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

/// How many spikes an event keeps, as in Redis.
const SPIKES_MAX: usize = 160;

/// One spike: the worst of its second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spike {
    /// When, in Unix seconds.
    pub unix_seconds: u64,
    /// How long, in milliseconds.
    pub millis: u64,
}

/// What is known of one kind of event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its spikes, the oldest first.
    pub spikes: VecDeque<Spike>,
    /// The worst since the last reset, in milliseconds.
    pub worst_millis: u64,
}

/// The spikes of a node. Locked only for an event at or above `latency-monitor-threshold`.
#[derive(Debug, Default)]
pub struct LatencyMonitor {
    events: Mutex<BTreeMap<&'static str, Event>>,
}

impl LatencyMonitor {
    /// Takes an event of `micros` in, if the threshold (0 = off) says so. Names in use: `command`, `commit`.
    #[inline]
    pub fn record(&self, threshold_ms: u64, event: &'static str, micros: u64, unix_seconds: u64) {
        if threshold_ms > 0 && micros >= threshold_ms.saturating_mul(1000) {
            self.add(event, Spike { unix_seconds, millis: micros / 1000 });
        }
    }

    fn add(&self, name: &'static str, spike: Spike) {
        let mut events = self.events.lock();
        let event = events.entry(name).or_default();
        event.worst_millis = event.worst_millis.max(spike.millis);
        match event.spikes.back_mut() {
            // One a second: the worst.
            Some(last) if last.unix_seconds == spike.unix_seconds => {
                last.millis = last.millis.max(spike.millis);
            }
            _ => event.spikes.push_back(spike),
        }
        if event.spikes.len() > SPIKES_MAX {
            event.spikes.pop_front();
        }
    }

    /// All events with their latest spike and the worst, by name: LATENCY LATEST.
    pub fn latest(&self) -> Vec<(&'static str, Spike, u64)> {
        let events = self.events.lock();
        let latest = |(name, event): (&&'static str, &Event)| {
            event.spikes.back().map(|spike| (*name, *spike, event.worst_millis))
        };
        events.iter().filter_map(latest).collect()
    }

    /// The spikes of one event, the oldest first; none for an unknown event: LATENCY HISTORY.
    pub fn history(&self, name: &[u8]) -> Vec<Spike> {
        let events = self.events.lock();
        let event = events.iter().find(|(event, _)| event.as_bytes() == name);
        event.map(|(_, event)| event.spikes.iter().copied().collect()).unwrap_or_default()
    }

    /// Forgets the events named, or all if none is; how many were forgotten: LATENCY RESET.
    pub fn reset(&self, names: &[&[u8]]) -> usize {
        let mut events = self.events.lock();
        let before = events.len();
        events.retain(|event, _| !names.is_empty() && !names.contains(&event.as_bytes()));
        before - events.len()
    }

    /// A report for people: LATENCY DOCTOR. `threshold_ms` is `latency-monitor-threshold`.
    pub fn doctor(&self, threshold_ms: u64) -> String {
        let events = self.events.lock();
        if threshold_ms == 0 && events.is_empty() {
            return "The latency monitor is off. CONFIG SET latency-monitor-threshold <milliseconds> turns it on.\n"
                .into();
        }
        if events.is_empty() {
            return format!(
                "No event of {threshold_ms} ms or more since the start or the last LATENCY RESET.\n"
            );
        }
        let mut report = format!("Events of {threshold_ms} ms or more, by kind:\n\n");
        for (name, event) in events.iter() {
            let total: u64 = event.spikes.iter().map(|spike| spike.millis).sum();
            let count = event.spikes.len() as u64;
            let mean = total.checked_div(count).unwrap_or(0);
            report += &format!("{name}: {count} spikes, mean {mean} ms, worst {} ms.\n", event.worst_millis);
        }
        report += "\nLook at SLOWLOG GET for slow commands, at the disk for slow commits, and at GYRE STATUS for slow \
                   replicas.\n";
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_at_the_threshold_enter() {
        let monitor = LatencyMonitor::default();
        monitor.record(0, "command", 9_000_000, 1);
        monitor.record(10, "command", 9_999, 1);
        assert!(monitor.latest().is_empty());
        monitor.record(10, "command", 10_000, 1);
        assert_eq!(monitor.latest(), [("command", Spike { unix_seconds: 1, millis: 10 }, 10)]);
    }

    #[test]
    fn a_second_has_one_spike_the_worst() {
        let monitor = LatencyMonitor::default();
        for (second, millis) in [(1, 5), (1, 9), (1, 7), (2, 3)] {
            monitor.record(1, "command", millis * 1000, second);
        }
        let expected = [Spike { unix_seconds: 1, millis: 9 }, Spike { unix_seconds: 2, millis: 3 }];
        assert_eq!(monitor.history(b"command"), expected);
        assert_eq!(monitor.latest()[0].2, 9, "the worst of all time stays");
        assert!(monitor.history(b"fork").is_empty());
    }

    #[test]
    fn history_is_bounded() {
        let monitor = LatencyMonitor::default();
        for second in 0..200 {
            monitor.record(1, "commit", 2000, second);
        }
        assert_eq!(monitor.history(b"commit").len(), SPIKES_MAX);
        assert_eq!(monitor.history(b"commit")[0].unix_seconds, 40);
    }

    #[test]
    fn reset_forgets_the_events_named_or_all() {
        let monitor = LatencyMonitor::default();
        monitor.record(1, "commit", 2000, 1);
        monitor.record(1, "command", 2000, 1);
        assert_eq!(monitor.reset(&[b"commit", b"fork"]), 1);
        assert_eq!(monitor.reset(&[]), 1);
        assert!(monitor.latest().is_empty());
    }

    #[test]
    fn the_doctor_names_the_worst() {
        let monitor = LatencyMonitor::default();
        assert!(monitor.doctor(0).contains("off"));
        assert!(monitor.doctor(5).contains("No event"));
        monitor.record(5, "commit", 40_000, 1);
        assert!(monitor.doctor(5).contains("commit: 1 spikes, mean 40 ms, worst 40 ms"));
    }
}

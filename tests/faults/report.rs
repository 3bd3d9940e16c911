//! The end of every scenario: verification, the table, and what must hold whatever the fault.

use std::io::{self, Write};
use std::time::Duration;

use crate::ledger::{GroupLedger, all_counters};
use crate::load::Level;
use crate::support::{Cluster, eventually_equals};
use crate::verify::{Verdict, pending_hints, verify};

const HEADER: &str = "\
| scenario | level | clients do | acknowledged | unavailable | timeout | connection | given up | keys | behind | lost | \
unavailable for, ms | slowest, ms |
|---|---|---|---|---|---|---|---|---|---|---|---|---|";

/// A scenario that has ended, group by group.
pub(crate) struct Report {
    pub(crate) groups: Vec<(GroupLedger, Verdict)>,
}

impl Report {
    /// Whatever failed was done in the end, on the same node or on another.
    pub(crate) fn expect_all_done(&self) {
        for (group, _) in &self.groups {
            let name = group.group.name();
            assert_eq!(group.ledger.given_up, 0, "{name}: an operation failed on every node");
        }
    }

    /// Hints have brought every replica up to date before anything was read.
    pub(crate) fn expect_nothing_behind(&self) {
        for (group, verdict) in &self.groups {
            assert_eq!(verdict.behind, 0, "{}: replicas differed until they were read", group.group.name());
        }
    }
}

/// Waits until the cluster is whole and no node keeps a hint, verifies every acknowledged write on every replica, prints the table, and checks
/// that nothing was lost and nothing answered what it must not.
pub(crate) fn conclude(scenario: &str, cluster: &mut Cluster, groups: Vec<GroupLedger>) -> Report {
    cluster.wait_formed();
    eventually_equals("all hints are handed over", &0, || pending_hints(cluster));
    let counters = all_counters(&groups);
    let groups: Vec<_> = groups
        .into_iter()
        .map(|group| {
            let verdict = verify(cluster, &group, &counters);
            (group, verdict)
        })
        .collect();
    let rows: Vec<String> = groups.iter().map(|(group, verdict)| row(scenario, group, verdict)).collect();
    // Past the capture of output: these numbers are what the run is for.
    let _ = writeln!(io::stderr(), "\n{HEADER}\n{}\n", rows.join("\n"));
    for (group, verdict) in &groups {
        let (name, ledger) = (group.group.name(), &group.ledger);
        assert!(verdict.lost.is_empty(), "{name}: lost {:#?}", verdict.lost);
        assert!(ledger.unexpected.is_empty(), "{name}: {:#?}", ledger.unexpected);
        // At ONE, and on both sides of a broken network, older values may be read.
        assert!(ledger.stale == 0 || group.group.level != Level::Quorum, "{name}: {} stale", ledger.stale);
        assert!(ledger.acknowledged > 0, "{name}: there was no load");
    }
    Report { groups }
}

fn row(scenario: &str, group: &GroupLedger, verdict: &Verdict) -> String {
    let ledger = &group.ledger;
    let failures = &ledger.failures;
    let side = group.group.side;
    let side = if side.is_empty() { String::new() } else { format!(", {side}") };
    let cells = [
        scenario.to_string(),
        group.group.level.name().to_string(),
        format!("{}{side}", group.group.work.name()),
        ledger.acknowledged.to_string(),
        failures.unavailable.to_string(),
        failures.timeout.to_string(),
        failures.connection.to_string(),
        ledger.given_up.to_string(),
        verdict.keys.to_string(),
        verdict.behind.to_string(),
        verdict.lost.len().to_string(),
        periods(&group.unavailable()),
        ledger.slowest.as_millis().to_string(),
    ];
    format!("| {} |", cells.join(" | "))
}

/// Periods in milliseconds, in order; of many only how many, the longest, and their sum.
fn periods(periods: &[Duration]) -> String {
    const SHOWN_MAX: usize = 4;
    let sum: Duration = periods.iter().sum();
    let longest = periods.iter().max().copied().unwrap_or_default();
    match periods.len() {
        0 => "-".into(),
        1..=SHOWN_MAX => {
            periods.iter().map(|period| period.as_millis().to_string()).collect::<Vec<_>>().join(", ")
        }
        count => format!("{count} times, longest {}, in all {}", longest.as_millis(), sum.as_millis()),
    }
}

mod tests {
    use super::*;

    #[test]
    fn few_periods_are_listed_and_many_summed_up() {
        let of = |count: u64| (1..=count).map(|n| Duration::from_millis(n * 100)).collect::<Vec<_>>();
        assert_eq!(periods(&of(0)), "-");
        assert_eq!(periods(&of(3)), "100, 200, 300");
        assert_eq!(periods(&of(5)), "5 times, longest 500, in all 1500");
    }
}

//! What clients remember: which writes were acknowledged, which may have happened, and when something succeeded.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::load::Group;

/// A pause between two successes counts as a time of unavailability from this length on.
const UNAVAILABLE_MIN: Duration = Duration::from_millis(100);

/// A key that one client writes, with ascending numbers.
#[derive(Clone, Debug)]
pub(crate) struct Register {
    pub(crate) key: String,
    /// The newest acknowledged value; 0 before the first.
    pub(crate) acknowledged: u64,
    /// The newest value that was sent, whatever became of it.
    pub(crate) attempted: u64,
    /// A request was lost without a reply: a frozen node may execute it at any time, with a version newer than that of
    /// later writes. So nothing is written to this key any more, and what it ends with stays decidable.
    pub(crate) retired: bool,
}

impl Register {
    pub(crate) fn new(key: String) -> Register {
        Register { key, acknowledged: 0, attempted: 0, retired: false }
    }

    /// Whether `value` is what a client may find: the newest acknowledged write, or one sent later.
    pub(crate) fn allows(&self, value: u64) -> bool {
        (self.acknowledged..=self.attempted).contains(&value)
    }
}

/// A key that clients increment by one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counter {
    pub(crate) acknowledged: u64,
    /// Acknowledged or of unknown fate.
    pub(crate) attempted: u64,
}

impl Counter {
    fn add(&mut self, other: Counter) {
        self.acknowledged += other.acknowledged;
        self.attempted += other.attempted;
    }
}

/// The counters of all `groups`, those of one name summed up.
pub(crate) fn all_counters(groups: &[GroupLedger]) -> BTreeMap<String, Counter> {
    let mut sums: BTreeMap<String, Counter> = BTreeMap::new();
    for (key, counter) in groups.iter().flat_map(|group| &group.ledger.counters) {
        sums.entry(key.clone()).or_default().add(*counter);
    }
    sums
}

/// How attempts ended that did not succeed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Failures {
    /// `-UNAVAILABLE`: refused, nothing was sent.
    pub(crate) unavailable: u64,
    /// `-TIMEOUT`: it may have happened.
    pub(crate) timeout: u64,
    /// Refused or reset connections, and replies that did not come.
    pub(crate) connection: u64,
}

/// What one client, or all of a group, remember.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(crate) registers: Vec<Register>,
    pub(crate) counters: BTreeMap<String, Counter>,
    /// Operations acknowledged, reads included.
    pub(crate) acknowledged: u64,
    pub(crate) failures: Failures,
    /// Operations that failed however often they were tried, on every node.
    pub(crate) given_up: u64,
    /// Reads that answered less than was acknowledged to the same client before.
    pub(crate) stale: u64,
    /// Replies that no fault explains.
    pub(crate) unexpected: Vec<String>,
    pub(crate) successes: Vec<Instant>,
    /// The longest an operation took, attempts on several nodes included.
    pub(crate) slowest: Duration,
}

/// The ledger of all clients of one group.
pub(crate) struct GroupLedger {
    pub(crate) group: Group,
    pub(crate) ledger: Ledger,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

impl Ledger {
    pub(crate) fn new() -> Ledger {
        Ledger {
            registers: Vec::new(),
            counters: BTreeMap::new(),
            acknowledged: 0,
            failures: Failures::default(),
            given_up: 0,
            stale: 0,
            unexpected: Vec::new(),
            successes: Vec::new(),
            slowest: Duration::ZERO,
        }
    }

    pub(crate) fn succeeded(&mut self, began: Instant) {
        let now = Instant::now();
        self.acknowledged += 1;
        self.successes.push(now);
        self.slowest = self.slowest.max(now - began);
    }

    /// Takes in what another client of the group remembers.
    pub(crate) fn add(&mut self, other: Ledger) {
        self.registers.extend(other.registers);
        for (key, counter) in other.counters {
            self.counters.entry(key).or_default().add(counter);
        }
        self.acknowledged += other.acknowledged;
        self.failures.unavailable += other.failures.unavailable;
        self.failures.timeout += other.failures.timeout;
        self.failures.connection += other.failures.connection;
        self.given_up += other.given_up;
        self.stale += other.stale;
        self.unexpected.extend(other.unexpected);
        self.successes.extend(other.successes);
        self.slowest = self.slowest.max(other.slowest);
    }
}

impl GroupLedger {
    /// The times, in order, in which no operation of any client of the group succeeded.
    pub(crate) fn unavailable(&self) -> Vec<Duration> {
        let mut times = self.ledger.successes.clone();
        times.push(self.began);
        times.push(self.ended);
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap >= UNAVAILABLE_MIN).collect()
    }
}

mod tests {
    use super::*;
    use crate::load::Level;

    #[test]
    fn a_register_allows_the_newest_acknowledged_value_and_later_ones_only() {
        let register = Register { acknowledged: 3, attempted: 5, ..Register::new("r".into()) };
        assert_eq!((0..8).filter(|value| register.allows(*value)).collect::<Vec<_>>(), [3, 4, 5]);
    }

    #[test]
    fn times_without_success_are_found_at_the_ends_too() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut ledger = Ledger::new();
        ledger.successes = vec![at(350), at(300), at(900)];
        let group = Group::of_each(&[Level::One], &[]).remove(0);
        let group = GroupLedger { group, ledger, began, ended: at(1_000) };
        assert_eq!(group.unavailable(), [300, 550, 100].map(Duration::from_millis));
    }
}

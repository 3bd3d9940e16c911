//! Counters and histograms of a node.
//!
//! Each worker writes cells of its own: a plain load and store, without lock, locked instruction or lookup; whoever
//! wants to know (INFO, LATENCY, `/metrics`) adds the workers up. Counters only grow: CONFIG RESETSTAT remembers where
//! they stood, and INFO shows the difference, while `/metrics` goes on as Prometheus expects.

pub mod exposition;
pub mod histogram;
pub mod latency;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use gyre_cluster::coordinator::Statistics;
use gyre_protocol::{Command, CommandId};
use parking_lot::Mutex;

use histogram::{Cells, Histogram, add};
use latency::LatencyMonitor;

/// How many kinds of error INFO tells apart, as in Redis; further ones are not counted.
const ERROR_KINDS_MAX: usize = 128;
/// How long a rate must have been measured before it is shown anew.
const RATE_MILLIS_MIN: u64 = 1_000;

/// A command, as a number for arrays of counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandIndex(usize);

impl CommandIndex {
    /// The number of `command`.
    #[inline]
    pub const fn of(command: &Command) -> CommandIndex {
        CommandIndex(command.id.index())
    }

    /// The command's name in lower case, a subcommand with its container: `config|get`.
    pub fn name(self) -> &'static str {
        CommandId::ALL.get(self.0).map_or("unknown", |id| id.command().name)
    }

    /// Whether the command waits because it was asked to (WAIT), and so is never slow.
    pub fn waits(self) -> bool {
        matches!(CommandId::ALL.get(self.0), Some(CommandId::Wait | CommandId::Waitaof))
    }
}

impl From<CommandIndex> for usize {
    fn from(index: CommandIndex) -> usize {
        index.0
    }
}

impl From<usize> for CommandIndex {
    fn from(index: usize) -> CommandIndex {
        CommandIndex(index)
    }
}

/// All statistics of a node.
pub struct Metrics {
    shares: Vec<Arc<Share>>,
    errors: Mutex<BTreeMap<String, u64>>,
    /// The spikes that LATENCY reports.
    pub latency: LatencyMonitor,
    /// Keys of this node that expired and were swept, since the start.
    pub expired_keys: AtomicU64,
    reset: Mutex<Reset>,
    rates: Mutex<(u64, Totals, Rates)>,
}

/// What one worker counts.
struct Share {
    taken: AtomicBool,
    commands: Vec<CommandCells>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    coordinator: Mutex<Statistics>,
}

#[derive(Default)]
struct CommandCells {
    calls: AtomicU64,
    micros: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    /// Made at the first call: most commands are never called.
    latency: OnceLock<Box<Cells>>,
}

/// Where the counters stood at CONFIG RESETSTAT.
#[derive(Default)]
struct Reset {
    commands: Vec<CommandStats>,
    totals: Totals,
    expired_keys: u64,
}

/// What is known of one command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandStats {
    /// Its name, as [`CommandIndex::name`].
    pub name: &'static str,
    /// How often it was executed.
    pub calls: u64,
    /// How long all calls together took, in microseconds, from arrival to answer.
    pub micros: u64,
    /// How often it was refused before execution: arity, NOAUTH.
    pub rejected: u64,
    /// How often it answered an error.
    pub failed: u64,
    /// How long the calls took.
    pub latency: Histogram,
}

/// Sums over all commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Commands executed.
    pub commands: u64,
    /// Bytes that clients sent.
    pub bytes_in: u64,
    /// Bytes sent to clients.
    pub bytes_out: u64,
}

/// Averages over the last second or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Commands a second.
    pub commands: u64,
    /// Bytes a second that clients sent.
    pub bytes_in: u64,
    /// Bytes a second sent to clients.
    pub bytes_out: u64,
}

/// The share of one worker, which alone may write to it: neither cloned nor shared between threads.
pub struct WorkerMetrics {
    share: Arc<Share>,
    not_sync: PhantomData<Cell<()>>,
}

impl WorkerMetrics {
    /// Takes an executed command in.
    #[inline]
    pub fn record(&self, command: CommandIndex, micros: u64) {
        let Some(cells) = self.share.commands.get(command.0) else { return };
        add(&cells.calls, 1);
        add(&cells.micros, micros);
        cells.latency.get_or_init(Box::default).record(micros);
    }

    /// Takes a command in that was refused before execution (arity, NOAUTH, …).
    pub fn count_rejected(&self, command: CommandIndex) {
        if let Some(cells) = self.share.commands.get(command.0) {
            add(&cells.rejected, 1);
        }
    }

    /// Takes a command in that answered an error; [`WorkerMetrics::record`] counts its call.
    pub fn count_failed(&self, command: CommandIndex) {
        if let Some(cells) = self.share.commands.get(command.0) {
            add(&cells.failed, 1);
        }
    }

    /// Takes bytes in that a client sent.
    #[inline]
    pub fn add_bytes_in(&self, bytes: usize) {
        add(&self.share.bytes_in, bytes as u64);
    }

    /// Takes bytes in that were sent to a client.
    #[inline]
    pub fn add_bytes_out(&self, bytes: usize) {
        add(&self.share.bytes_out, bytes as u64);
    }

    /// Shows the coordinator's counters to other threads: once a turn.
    pub fn publish(&self, coordinator: &Statistics) {
        self.share.coordinator.lock().clone_from(coordinator);
    }
}

impl Metrics {
    /// The statistics of a node with so many workers.
    pub fn new(workers: usize) -> Metrics {
        let share = || {
            Arc::new(Share {
                taken: AtomicBool::new(false),
                commands: CommandId::ALL.iter().map(|_| CommandCells::default()).collect(),
                bytes_in: AtomicU64::new(0),
                bytes_out: AtomicU64::new(0),
                coordinator: Mutex::default(),
            })
        };
        Metrics {
            shares: (0..workers).map(|_| share()).collect(),
            errors: Mutex::default(),
            latency: LatencyMonitor::default(),
            expired_keys: AtomicU64::default(),
            reset: Mutex::default(),
            rates: Mutex::default(),
        }
    }

    /// The share of worker `index`.
    ///
    /// # Panics
    /// When the worker does not exist or has taken its share before: two writers would lose counts.
    pub fn worker(&self, index: usize) -> WorkerMetrics {
        let share = self.shares.get(index).expect("metrics were made for all workers");
        let taken = share.taken.swap(true, Ordering::AcqRel);
        assert!(!taken, "each worker takes its share of the metrics once");
        WorkerMetrics { share: Arc::clone(share), not_sync: PhantomData }
    }

    /// Counts an error reply by its code, the first word of `text`.
    pub fn count_error(&self, text: &str) {
        let code = text.split_ascii_whitespace().next().unwrap_or("ERR");
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < ERROR_KINDS_MAX {
            errors.insert(code.to_string(), 1);
        }
    }

    /// Error replies by code since the last reset (INFO errorstats).
    pub fn errors(&self) -> Vec<(String, u64)> {
        self.errors.lock().iter().map(|(code, count)| (code.clone(), *count)).collect()
    }

    /// The commands that were called or refused since the last CONFIG RESETSTAT, by name.
    pub fn commands(&self) -> Vec<CommandStats> {
        let reset = self.reset.lock();
        let now = self.commands_since_start();
        let mut changed: Vec<CommandStats> = match reset.commands.is_empty() {
            true => now,
            false => now.iter().zip(&reset.commands).map(|(now, then)| now.since(then)).collect(),
        };
        changed.retain(|command| command.calls + command.rejected > 0);
        changed.sort_unstable_by_key(|command| command.name);
        changed
    }

    /// Sums since the last CONFIG RESETSTAT.
    pub fn totals(&self) -> Totals {
        let (now, then) = (self.totals_since_start(), self.reset.lock().totals);
        Totals {
            commands: now.commands.saturating_sub(then.commands),
            bytes_in: now.bytes_in.saturating_sub(then.bytes_in),
            bytes_out: now.bytes_out.saturating_sub(then.bytes_out),
        }
    }

    /// Keys that expired and were swept since the last CONFIG RESETSTAT.
    pub fn expired_keys(&self) -> u64 {
        self.expired_keys.load(Ordering::Relaxed).saturating_sub(self.reset.lock().expired_keys)
    }

    /// Averages between now and the last call that was at least a second ago. `now_ms` is any clock that only grows.
    pub fn rates(&self, now_ms: u64) -> Rates {
        let mut last = self.rates.lock();
        let (then_ms, then, rates) = *last;
        let elapsed_ms = now_ms.saturating_sub(then_ms);
        if elapsed_ms < RATE_MILLIS_MIN {
            return rates;
        }
        let now = self.totals_since_start();
        let rate = |now: u64, then: u64| now.saturating_sub(then).saturating_mul(1000) / elapsed_ms;
        let rates = Rates {
            commands: rate(now.commands, then.commands),
            bytes_in: rate(now.bytes_in, then.bytes_in),
            bytes_out: rate(now.bytes_out, then.bytes_out),
        };
        *last = (now_ms, now, rates);
        rates
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        let mut reset = self.reset.lock();
        reset.commands = self.commands_since_start();
        reset.totals = self.totals_since_start();
        reset.expired_keys = self.expired_keys.load(Ordering::Relaxed);
        self.errors.lock().clear();
    }

    /// The coordinators' counters, one element a worker.
    pub fn coordinators(&self) -> Vec<Statistics> {
        self.shares.iter().map(|share| share.coordinator.lock().clone()).collect()
    }

    /// All commands in order of their index, since the start.
    fn commands_since_start(&self) -> Vec<CommandStats> {
        let sum = |id: &CommandId| {
            let index = CommandIndex(id.index());
            let mut sum = CommandStats { name: index.name(), ..CommandStats::default() };
            let cells = self.shares.iter().filter_map(|share| share.commands.get(index.0));
            cells.for_each(|cells| sum.add(cells));
            sum
        };
        CommandId::ALL.iter().map(sum).collect()
    }

    fn totals_since_start(&self) -> Totals {
        let mut totals = Totals::default();
        for share in &self.shares {
            totals.bytes_in += share.bytes_in.load(Ordering::Relaxed);
            totals.bytes_out += share.bytes_out.load(Ordering::Relaxed);
            let calls = share.commands.iter().map(|cells| cells.calls.load(Ordering::Relaxed));
            totals.commands += calls.sum::<u64>();
        }
        totals
    }
}

impl CommandStats {
    fn add(&mut self, cells: &CommandCells) {
        self.calls += cells.calls.load(Ordering::Relaxed);
        self.micros += cells.micros.load(Ordering::Relaxed);
        self.rejected += cells.rejected.load(Ordering::Relaxed);
        self.failed += cells.failed.load(Ordering::Relaxed);
        if let Some(latency) = cells.latency.get() {
            latency.add_to(&mut self.latency);
        }
    }

    fn since(&self, then: &CommandStats) -> CommandStats {
        CommandStats {
            name: self.name,
            calls: self.calls.saturating_sub(then.calls),
            micros: self.micros.saturating_sub(then.micros),
            rejected: self.rejected.saturating_sub(then.rejected),
            failed: self.failed.saturating_sub(then.failed),
            latency: self.latency.since(&then.latency),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str) -> CommandIndex {
        CommandId::ALL
            .iter()
            .map(|id| CommandIndex::of(id.command()))
            .find(|index| index.name() == name)
            .unwrap()
    }

    #[test]
    fn the_shares_of_all_workers_are_added_up() {
        let metrics = Metrics::new(2);
        let (a, b) = (metrics.worker(0), metrics.worker(1));
        a.record(index("get"), 10);
        b.record(index("get"), 30);
        b.record(index("set"), 5);
        a.add_bytes_in(100);
        b.add_bytes_out(7);
        b.count_rejected(index("ping"));
        a.count_failed(index("get"));
        let commands = metrics.commands();
        let names: Vec<&str> = commands.iter().map(|command| command.name).collect();
        assert_eq!(names, ["get", "ping", "set"]);
        assert_eq!((commands[0].calls, commands[0].micros, commands[0].failed), (2, 40, 1));
        assert_eq!(commands[0].latency.count(), 2);
        assert_eq!((commands[1].calls, commands[1].rejected), (0, 1));
        assert_eq!(metrics.totals(), Totals { commands: 3, bytes_in: 100, bytes_out: 7 });
    }

    #[test]
    fn a_reset_starts_the_counts_anew() {
        let metrics = Metrics::new(1);
        let worker = metrics.worker(0);
        worker.record(index("get"), 10);
        metrics.count_error("WRONGTYPE Operation against …");
        metrics.reset();
        assert!(metrics.commands().is_empty() && metrics.errors().is_empty());
        assert_eq!(metrics.totals(), Totals::default());
        worker.record(index("get"), 20);
        let commands = metrics.commands();
        assert_eq!((commands[0].calls, commands[0].micros, commands[0].latency.count()), (1, 20, 1));
        assert_eq!(metrics.commands_since_start()[index("get").0].calls, 2);
    }

    #[test]
    #[should_panic(expected = "once")]
    fn a_share_has_one_writer() {
        let metrics = Metrics::new(1);
        let _first = metrics.worker(0);
        let _second = metrics.worker(0);
    }

    #[test]
    fn errors_are_counted_by_code_and_bounded_in_kinds() {
        let metrics = Metrics::new(1);
        metrics.count_error("ERR syntax error");
        metrics.count_error("ERR no such key");
        assert_eq!(metrics.errors(), [("ERR".to_string(), 2)]);
        (0..500).for_each(|kind| metrics.count_error(&format!("E{kind} x")));
        assert_eq!(metrics.errors().len(), ERROR_KINDS_MAX);
    }

    #[test]
    fn rates_are_averages_over_at_least_a_second() {
        let metrics = Metrics::new(1);
        let worker = metrics.worker(0);
        metrics.rates(10_000);
        (0..50).for_each(|_| worker.record(index("get"), 1));
        worker.add_bytes_in(4096);
        assert_eq!(metrics.rates(10_999), Rates::default(), "too soon");
        let rates = metrics.rates(12_000);
        assert_eq!(rates, Rates { commands: 25, bytes_in: 2048, bytes_out: 0 });
        assert_eq!(metrics.rates(12_100), rates);
    }

    #[test]
    fn a_command_index_survives_as_a_number() {
        let get = index("get");
        assert_eq!(CommandIndex::from(usize::from(get)).name(), "get");
        assert_eq!(CommandIndex::from(usize::MAX).name(), "unknown");
    }
}

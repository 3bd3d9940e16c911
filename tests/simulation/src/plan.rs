//! What a seed stands for: how large the cluster is, how good its network and disks are, what its clients do and what
//! will go wrong.
//!
//! Every seed draws its own subset of everything ("swarm testing", Groce et al. 2012): a run in which all faults happen
//! all the time hides what only a quiet minute between two faults brings to light.

use gyre_storage::{FsyncPolicy, StoreOptions};

use crate::fault::FaultKind;
use crate::history::{Key, Kind};
use crate::mutation::Mutation;
use crate::network::Weather;
use crate::queue::{HOUR, MINUTE, MS, Micros, SECOND};
use crate::random::{Random, mix};
use crate::split::{SPLIT_AT, SPLIT_FOR};

/// What the caller of a run has decided; the seed decides the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Options {
    /// How many nodes, 1 to 200.
    pub nodes: Option<usize>,
    /// How long clients work, in simulated hours.
    pub hours: Option<f64>,
    /// A deliberate bug.
    pub mutation: Option<Mutation>,
    /// Whether deletions are purged: a run of some hours, or of those given, with nodes that are away for long.
    pub is_purging: bool,
}

/// Everything that is decided before a world begins.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) replication: usize,
    /// How long clients work.
    pub(crate) duration: Micros,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) weather: Weather,
    pub(crate) slow_commits_per_mille: u64,
    /// How often nodes sweep expired rows.
    pub(crate) sweep_interval: Micros,
    /// How often nodes compare what they hold; `None` is not at all, until faults are over.
    pub(crate) compare_interval: Option<Micros>,
    /// How old a deletion must be before its record may go; `None`: nothing is purged.
    pub(crate) grace: Option<Micros>,
    /// How long between two flushes, if there are any.
    pub(crate) flush_gap: Option<std::ops::Range<Micros>>,
    /// For how long a node now and then is away, if so.
    pub(crate) away: Vec<Micros>,
    /// Whether replicas must become equal by comparing alone, before anybody reads; else reads must make them so.
    pub(crate) ends_by_comparing: bool,
    /// Bytes that the hints of a node may take, if not as many as usual: then much is left for comparing to find.
    pub(crate) hint_bytes_max: Option<u64>,
    pub(crate) fsync: FsyncPolicy,
    pub(crate) row_cache_bytes: usize,
    /// Whether reads that miss the row cache must touch the disk.
    pub(crate) is_cold: bool,
    /// How far wall clocks are off, in microseconds at most.
    pub(crate) skew: Micros,
    pub(crate) keys: Vec<Key>,
    pub(crate) clients: usize,
    /// How long a client thinks at most.
    pub(crate) think: Micros,
    /// How long a client waits for an answer.
    pub(crate) patience: Micros,
    /// Whether all operations are at QUORUM.
    pub(crate) is_quorum_only: bool,
    /// When the cluster falls into two halves, and for how long.
    pub(crate) split: Option<(Micros, Micros)>,
    /// How many operations in a thousand are sloppy.
    pub(crate) sloppy_per_mille: u64,
    /// How many steps in a thousand go to the first key of their kind.
    pub(crate) hot_per_mille: u64,
    pub(crate) faults: Vec<FaultKind>,
    /// How long between two faults, at least and at most.
    pub(crate) fault_gap: std::ops::Range<Micros>,
    /// How long a fault lasts.
    pub(crate) fault_length: std::ops::Range<Micros>,
}

/// Nodes that a seed chooses from; small clusters are met more often, since every node is a replica of every key there.
const SIZES: [usize; 12] = [1, 2, 3, 3, 3, 4, 5, 5, 6, 8, 12, 20];

/// A run of days has at least so many nodes: with fewer the first outage stops everything, and nothing is tried for its
/// length. And nodes compare what they hold all the while, as real ones do.
const DAYS_NODES_MIN: usize = 3;
/// No fault lasts longer, however long the run: an hour longer than hints are kept for a node. If faults grew with the run,
/// several would overlap at any time, and it would show little but refusals.
const LONGEST_FAULT: Micros = 4 * HOUR;

/// Keys of a plan that leaves most of them alone.
const SPARSE_KEYS: usize = 120;
/// What goes wrong in it: nothing that excuses the loss of a hint.
const SPARSE_FAULTS: [FaultKind; 6] = [
    FaultKind::Partitions,
    FaultKind::BrokenPairs,
    FaultKind::BrokenLinks,
    FaultKind::Kills,
    FaultKind::RestartStorms,
    FaultKind::Pauses,
];
/// Keys of a plan in which deletions become old: so many that most stay deleted for that long.
const PURGING_KEYS: usize = 960;
/// The database that is flushed now and then, where one is.
pub(crate) const FLUSHED_DATABASE: u8 = 1;
/// Keys of a cluster that is split.
const SPLIT_KEYS: usize = 300;

impl Plan {
    /// The plan of `seed` under `options`.
    pub(crate) fn new(seed: u64, options: Options) -> Plan {
        let mut random = Random::new(mix(seed ^ 0x706c_616e));
        let nodes = random.pick(&SIZES);
        let is_days = options.hours.is_some_and(|hours| hours > 24.0);
        let nodes = if is_days { nodes.max(DAYS_NODES_MIN) } else { nodes };
        let nodes = options.nodes.map_or(nodes, |nodes| nodes.clamp(1, 200));
        let hours = options.hours.map(|hours| (hours * HOUR as f64) as Micros);
        let duration = random.skewed(10 * SECOND..120 * SECOND);
        let duration = hours.unwrap_or(duration);
        let is_calm = random.chance(150);
        let is_long = duration > 10 * MINUTE;
        let fault_gap =
            if is_long { 5 * SECOND..(duration / 20).max(4 * MINUTE) } else { 300 * MS..8 * SECOND };
        let fault_length = if is_long {
            SECOND..(duration / 6).clamp(20 * MINUTE, LONGEST_FAULT)
        } else {
            100 * MS..40 * SECOND
        };
        let clients = random.within(3..10) as usize;
        let is_sparse = !is_calm && random.chance(250);
        let think =
            if is_long { random.skewed(SECOND..20 * SECOND) } else { random.skewed(20 * MS..600 * MS) };
        let mut comparing = Random::new(mix(seed ^ 0x636f_6d70));
        let short = [None, None, Some(2 * SECOND), Some(10 * SECOND), Some(60 * SECOND)];
        let compare_interval =
            if is_long { comparing.pick(&[None, Some(10 * MINUTE)]) } else { comparing.pick(&short) };
        let compare_interval = if is_days { Some(10 * MINUTE) } else { compare_interval };
        let ends_by_comparing = compare_interval.is_some() || comparing.chance(500);
        let hint_bytes_max = comparing.pick(&[None, Some(0), Some(500)]).filter(|_| ends_by_comparing);
        let flush_gap = flush_gap(seed, duration, options);
        let has_flushes = flush_gap.is_some();
        let in_database = |key: Key| match key.kind {
            // To these a flush is no more than a deletion.
            Kind::Register | Kind::Expiring if has_flushes => Key { db: FLUSHED_DATABASE, ..key },
            _ => key,
        };
        Plan {
            seed,
            nodes,
            replication: if random.chance(100) { 5 } else { 3 },
            duration,
            mutation: options.mutation,
            weather: weather(&mut random, is_calm || is_sparse),
            slow_commits_per_mille: random.pick(&[0, 2, 20]),
            // A stream of its own, so that a seed stays what it was.
            sweep_interval: Random::new(mix(seed ^ 0x7377_6565)).pick(&[200 * MS, SECOND, 10 * SECOND]),
            compare_interval,
            grace: None,
            flush_gap,
            away: Vec::new(),
            ends_by_comparing,
            hint_bytes_max,
            fsync: random.pick(&[
                FsyncPolicy::EverySecond,
                FsyncPolicy::EverySecond,
                FsyncPolicy::Always,
                FsyncPolicy::No,
            ]),
            row_cache_bytes: random.pick(&[0, 600 << 10, 16 << 20, 16 << 20]),
            is_cold: random.chance(300),
            skew: random.pick(&[0, 5 * MS, 100 * MS, 240 * MS]),
            keys: (if is_sparse { sparse_keys() } else { keys(&mut random) })
                .into_iter()
                .map(in_database)
                .collect(),
            clients,
            think,
            patience: random.within(SECOND..6 * SECOND),
            is_quorum_only: false,
            split: None,
            sloppy_per_mille: if is_sparse { 1_000 } else { random.pick(&[0, 200, 500, 1_000]) },
            hot_per_mille: random.pick(&[0, 100, 600]),
            faults: match (is_calm, is_sparse) {
                (true, _) => Vec::new(),
                (false, true) => faults(&mut random, &SPARSE_FAULTS),
                (false, false) if is_long || random.chance(100) => faults(&mut random, &FaultKind::ALL),
                // If most clocks jump, nodes refuse each other for up to an hour: a short run would show nothing else.
                (false, false) => {
                    let most = FaultKind::ALL.into_iter().filter(|kind| *kind != FaultKind::ClockStorms);
                    faults(&mut random, &most.collect::<Vec<FaultKind>>())
                }
            },
            fault_gap,
            fault_length,
        }
    }

    /// The plan of a run in which the records of deletions go: many keys that are seldom touched, and nodes that are away
    /// for 2 h, 4 h, 80 h and 200 h where the grace period is 72 h. Unless it is to last for days, all of that is 120 times shorter.
    pub(crate) fn purging(seed: u64, options: Options) -> Plan {
        let mut random = Random::new(mix(seed ^ 0x7075_7267));
        let is_real = options.hours.is_some_and(|hours| hours >= 100.0);
        let scale = if is_real { 120 } else { 1 };
        let hours = options.hours.unwrap_or(4.0);
        let plan = Plan::new(seed, Options { hours: Some(hours), ..options });
        let kinds = [Kind::Register, Kind::Register, Kind::Mixed, Kind::Expiring, Kind::Counter];
        let keys = (0..PURGING_KEYS).map(|index| Key::new(index, kinds[index % kinds.len()]));
        let grace = scale * 36 * MINUTE;
        let faults = FaultKind::ALL.into_iter().filter(|kind| *kind != FaultKind::ClockJumps);
        Plan {
            nodes: options.nodes.unwrap_or_else(|| random.pick(&[3, 3, 4, 5, 6])),
            replication: 3,
            keys: keys.collect(),
            think: scale * random.within(20 * SECOND..60 * SECOND),
            clients: 6,
            compare_interval: Some(random.pick(&[MINUTE, 3 * MINUTE, 10 * MINUTE])),
            ends_by_comparing: true,
            grace: Some(grace),
            flush_gap: None,
            away: [1, 2, 40, 100].map(|minutes| scale * minutes * MINUTE).to_vec(),
            faults: self::faults(&mut random, &faults.collect::<Vec<FaultKind>>()),
            fault_gap: scale * MINUTE..scale * 20 * MINUTE,
            fault_length: SECOND..scale * 2 * MINUTE,
            ..plan
        }
    }

    /// The plan of [`crate::split`]: `nodes` nodes on a good network, many keys, everything at SLOPPY QUORUM.
    pub(crate) fn split(seed: u64, nodes: usize) -> Plan {
        let plan = Plan::new(seed, Options { nodes: Some(nodes), ..Options::default() });
        let kinds =
            [Kind::Register, Kind::Register, Kind::Counter, Kind::Expiring, Kind::Log, Kind::Siblings];
        let keys = (0..SPLIT_KEYS).map(|index| Key::new(index, kinds[index % kinds.len()]));
        Plan {
            replication: 3,
            // What hints do is shown, and they are to do it alone.
            compare_interval: None,
            flush_gap: None,
            ends_by_comparing: false,
            hint_bytes_max: None,
            duration: SPLIT_AT + SPLIT_FOR + SECOND,
            weather: Weather {
                latency: 100,
                jitter: 2 * MS,
                tail_per_mille: 5,
                tail: 20 * MS,
                loss_per_mille: 1,
                repeats_per_mille: 0,
                refused_per_myriad: 0,
            },
            slow_commits_per_mille: 2,
            keys: keys.collect(),
            clients: 2 * nodes,
            think: SECOND,
            is_quorum_only: true,
            split: Some((SPLIT_AT, SPLIT_FOR)),
            sloppy_per_mille: 1_000,
            hot_per_mille: 50,
            faults: Vec::new(),
            ..plan
        }
    }

    /// Whether nothing goes wrong beyond a slow and lossy network.
    pub(crate) fn is_calm(&self) -> bool {
        self.faults.is_empty() && self.split.is_none()
    }

    /// Whether wall clocks stay within the allowed drift of each other.
    pub(crate) fn clocks_are_close(&self) -> bool {
        self.are_most_clocks_right() && !self.faults.contains(&FaultKind::ClockJumps)
    }

    /// Whether most wall clocks do.
    pub(crate) fn are_most_clocks_right(&self) -> bool {
        !self.faults.contains(&FaultKind::ClockStorms)
    }

    /// How the nodes open their stores.
    pub(crate) fn store_options(&self) -> StoreOptions {
        let usual = StoreOptions::new("");
        StoreOptions {
            fsync: self.fsync,
            row_cache_bytes: self.row_cache_bytes,
            hint_bytes_max: self.hint_bytes_max.unwrap_or(usual.hint_bytes_max),
            ..usual
        }
    }
}

/// A stream of its own, and none with a deliberate bug, so that a seed stays what it was.
fn flush_gap(seed: u64, duration: Micros, options: Options) -> Option<std::ops::Range<Micros>> {
    let mut random = Random::new(mix(seed ^ 0x666c_7573));
    let is_flushing = options.mutation.is_none() && random.chance(250);
    let longest = (duration / random.within(2..20)).max(2 * SECOND);
    is_flushing.then_some(SECOND..longest)
}

/// With `is_kind` no message is refused for want of room.
fn weather(random: &mut Random, is_kind: bool) -> Weather {
    let (latency, jitter) = random.pick(&[(50, 200), (100, 2 * MS), (5 * MS, 5 * MS), (20 * MS, 60 * MS)]);
    Weather {
        latency,
        jitter,
        tail_per_mille: random.pick(&[0, 5, 30]),
        tail: random.pick(&[20 * MS, 200 * MS, 3 * SECOND]),
        loss_per_mille: random.pick(&[0, 0, 10, 50, 200]),
        repeats_per_mille: random.pick(&[0, 0, 10, 100]),
        refused_per_myriad: if is_kind { 0 } else { random.pick(&[0, 0, 5, 50]) },
    }
}

/// A few keys of every kind: few, so that operations meet on them.
fn keys(random: &mut Random) -> Vec<Key> {
    let kinds = Kind::ALL.into_iter().flat_map(|kind| {
        let count = random.within(1..5) as usize;
        std::iter::repeat_n(kind, count).collect::<Vec<Kind>>()
    });
    let kinds: Vec<Kind> = kinds.collect();
    kinds.into_iter().enumerate().map(|(index, kind)| Key::new(index, kind)).collect()
}

/// Many keys, so that most are not written again once the faults are over: what became of them then is up to hints.
fn sparse_keys() -> Vec<Key> {
    (0..SPARSE_KEYS).map(|index| Key::new(index, Kind::Register)).collect()
}

/// A subset of `kinds`, not empty.
fn faults(random: &mut Random, kinds: &[FaultKind]) -> Vec<FaultKind> {
    let share = random.pick(&[150, 300, 600]);
    let mut faults = kinds.to_vec();
    faults.retain(|_| random.chance(share));
    if faults.is_empty() {
        faults.push(random.pick(kinds));
    }
    faults
}

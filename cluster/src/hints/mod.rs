//! Hinted handoff: who gets back what they missed, when, and how fast.
//!
//! The store keeps hints, a set of keys per target ([`gyre_storage::Hint`]). One [`Handoff`] per node replays them: for
//! every target that is alive it pages through its keys, has the coordinator hand each key's newest record over
//! ([`hand_off`](crate::coordinator::Coordinator::hand_off)), and only when the target has acknowledged, removes the hint
//! (unless a newer row was missed meanwhile) and, where this node only stood in, the rows.
//!
//! Rows that this node keeps for others are replayed only once no coordinator can ask for a further hint of them any more,
//! as it does for replicas that stay silent until its time-out: after the replay they are forgotten, and such a hint
//! would find nothing. Time is measured by the stamps of hints, not by clocks.
//!
//! Targets are replayed side by side, each with a bounded number of records in flight, and all of them together no
//! faster than the node's rate: a token bucket, so that replay takes a known share of both ends and of the network
//! whatever the backlog. All members may have hints for one target, so to each target goes only the node's share of the
//! rate, one part in so many as there are other members (Cassandra divides its throttle likewise). A target that fails
//! is left alone for a while, longer each time. Nothing here is durable and nothing needs to be: a restarted node pages
//! through what hints are left.
//!
//! It is a state machine: the shell calls [`step`](Handoff::step) now and then (see [`wait`](Handoff::wait)) and whenever
//! it brings a result, and carries the effects out. Each effect but Close and Open is answered by the input it names.

mod target;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gyre_storage::{ExpiryPass, Hint, HintStats, Hlc, Record};

use crate::node::NodeId;
use crate::ring::Ring;
use crate::time::{MonoMicros, Now};
use target::Target;

/// Keys handed over a second, by one node to all targets and by all nodes to one target, unless configured otherwise. Five
/// nodes on two cores that handed 8,000 a second over to one of them lost a quarter of their throughput to that, so 2,000
/// take about a sixteenth. What a node missed in three hours at 500 distinct keys a second is back
/// within 45 minutes.
pub const HANDOFF_RATE_DEFAULT: u32 = 2_000;
/// How long a node may be down before its hints are no longer kept, unless configured otherwise.
pub const HINT_WINDOW_DEFAULT: Duration = Duration::from_secs(3 * 3600);
/// Hints read at a time.
const PAGE: usize = 256;
/// Hints removed at a time.
const DROP_BATCH: usize = 64;
/// The bucket holds the tokens of this part of a second, so that a pause is not followed by a flood.
const BURST_SHARE: u64 = 10;
/// Hints looked at in one step of a pass that removes those that are too old.
const EXPIRY_STEP: usize = 1_000;
/// How long hints of rows that this node keeps for others stay before they are replayed, unless configured otherwise:
/// twice the default time-out of requests.
pub const SETTLE_DEFAULT: Duration = Duration::from_secs(10);
/// How many times the stamp of hints is noted in that time.
const SETTLE_SAMPLES: u32 = 8;
/// How long after such a pass the next may begin.
const EXPIRY_PAUSE: Duration = Duration::from_secs(30);
/// How soon to step again while there is something to replay, and while there is not.
const WAIT_BUSY: Duration = Duration::from_millis(20);
const WAIT_IDLE: Duration = Duration::from_millis(500);
/// What one key costs in the bucket: microseconds of one key a second.
const TOKEN: u64 = 1_000_000;

/// The settings of hinted handoff.
#[derive(Clone, Copy, Debug)]
pub struct HandoffConfig {
    /// This node.
    pub node: NodeId,
    /// The actor of this node's counter cells.
    pub actor: u64,
    /// Keys a second, from this node to all targets together, and from all nodes to one target; at least 1.
    pub rate: u32,
    /// How long a node may be down before hints for it are no longer kept; older hints are dropped.
    pub window: Duration,
    /// How long hints of rows that this node keeps for others stay before they are replayed: at least as long as a
    /// coordinator waits for a replica that stays silent, and the request for a hint takes to arrive.
    pub settle: Duration,
}

impl HandoffConfig {
    /// The default settings of `node` with counter cells of `actor`.
    #[must_use]
    pub fn new(node: NodeId, actor: u64) -> HandoffConfig {
        let (rate, window) = (HANDOFF_RATE_DEFAULT, HINT_WINDOW_DEFAULT);
        HandoffConfig { node, actor, rate, window, settle: SETTLE_DEFAULT }
    }
}

/// A hint whose target has acknowledged the record.
#[derive(Clone, Debug, PartialEq)]
pub struct Handed {
    /// The hint.
    pub hint: Hint,
    /// Rows to be forgotten here once the hint is removed: this node is no replica of the key.
    pub forget: Option<Record>,
}

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Read hints of `target` ([`Store::hints_page`](gyre_storage::Store::hints_page)); answered by [`Handoff::page`].
    ReadPage {
        /// Whose hints.
        target: NodeId,
        /// Behind which one; `None` from the first on.
        after: Option<Hint>,
        /// How many at most.
        limit: usize,
    },
    /// Hand the record of `hint`'s key over to `target`; answered by [`Handoff::handed`].
    HandOff {
        /// To whom.
        target: NodeId,
        /// Which key.
        hint: Hint,
    },
    /// Remove these hints ([`Store::drop_hints`](gyre_storage::Store::drop_hints)), then forget the records of those that
    /// say so ([`Store::forget`](gyre_storage::Store::forget)); answered by [`Handoff::dropped`].
    Drop {
        /// Whose hints.
        target: NodeId,
        /// What it has acknowledged.
        handed: Vec<Handed>,
    },
    /// Keep no more hints for this node ([`Store::close_hints`](gyre_storage::Store::close_hints)): it is down for longer
    /// than the window.
    Close {
        /// The node.
        target: NodeId,
    },
    /// Keep hints for this node again.
    Open {
        /// The node.
        target: NodeId,
    },
    /// Take a step of a pass that removes hints that are too old
    /// ([`Store::expire_hints`](gyre_storage::Store::expire_hints)); answered by [`Handoff::expired`].
    Expire {
        /// Where the pass is.
        pass: ExpiryPass,
        /// Older hints go.
        before: Hlc,
        /// How many hints to look at.
        limit: usize,
    },
}

/// What `gyre hints` shows of one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetStatus {
    /// The node that misses the rows.
    pub target: NodeId,
    /// Whether it counts as alive here.
    pub is_up: bool,
    /// Keys it misses rows of.
    pub keys: u64,
    /// Bytes of their hints, about.
    pub bytes: u64,
    /// The age of the oldest hint, in milliseconds.
    pub oldest_ms: u64,
    /// Keys handed over in the last second or so.
    pub rate: u64,
    /// Keys handed over since this node started.
    pub replayed: u64,
    /// Keys in flight to it.
    pub in_flight: usize,
    /// How often in a row it has failed.
    pub failures: u32,
}

/// Replays the hints of one node. See the [module](self).
#[derive(Debug)]
pub struct Handoff {
    config: HandoffConfig,
    ring: Arc<Ring>,
    targets: BTreeMap<NodeId, Target>,
    /// The last target that was served, so that the next is another.
    served: NodeId,
    /// Tokens in the bucket, in [`TOKEN`]s of a key.
    tokens: u64,
    filled_at: MonoMicros,
    started: MonoMicros,
    /// From when on hints had which stamps, oldest first.
    stamps: VecDeque<(MonoMicros, u64)>,
    /// Hints with lower stamps have settled.
    settled_below: u64,
    expiry: Expiry,
}

/// Where the removal of old hints stands.
#[derive(Debug)]
enum Expiry {
    /// None before this time.
    Idle(MonoMicros),
    /// A step is to be taken.
    Due(ExpiryPass),
    /// A step is being taken.
    Running,
}

impl Handoff {
    /// Nothing known yet; every node counts as down since `now` until [`peer_up`](Handoff::peer_up).
    #[must_use]
    pub fn new(config: HandoffConfig, ring: Arc<Ring>, now: MonoMicros) -> Handoff {
        Handoff {
            config,
            ring,
            targets: BTreeMap::new(),
            served: NodeId(0),
            tokens: 0,
            filled_at: now,
            started: now,
            stamps: VecDeque::new(),
            settled_below: 0,
            expiry: Expiry::Idle(now),
        }
    }

    /// Uses a new ring: it says whose rows this node may forget.
    pub fn set_ring(&mut self, ring: Arc<Ring>) {
        self.ring = ring;
    }

    /// Uses another rate, in keys a second, and another window from now on.
    pub fn set_limits(&mut self, rate: u32, window: Duration) {
        self.config.rate = rate;
        self.config.window = window;
    }

    /// `peer` counts as alive: linked, and trusted by the failure detector. May be told again and again.
    pub fn peer_up(&mut self, peer: NodeId) {
        if peer != self.config.node {
            self.target(peer).set_up();
        }
    }

    /// `peer` counts as down. May be told again and again.
    pub fn peer_down(&mut self, now: MonoMicros, peer: NodeId) {
        if peer != self.config.node {
            self.target(peer).set_down(now);
        }
    }

    fn target(&mut self, node: NodeId) -> &mut Target {
        let started = self.started;
        self.targets.entry(node).or_insert_with(|| Target::new(started))
    }

    /// Goes on as far as the time and the results allow. `stats` is what the store says there is
    /// ([`Store::hint_stats`](gyre_storage::Store::hint_stats)).
    pub fn step(&mut self, now: Now, stats: &[HintStats], effects: &mut Vec<Effect>) {
        self.fill(now.mono);
        self.note_stamp(now.mono, stats);
        for stat in stats {
            self.target(NodeId(stat.target));
        }
        for (node, target) in &mut self.targets {
            let keys = stats.iter().find(|stat| stat.target == node.0).map_or(0, |stat| stat.keys);
            target.note(now.mono, keys);
            target.close_or_open(now.mono, self.config.window, *node, effects);
        }
        self.serve(now.mono, effects);
        self.expire(now, stats, effects);
    }

    /// How long to wait before the next [`step`](Handoff::step), at most; sooner does no harm.
    #[must_use]
    pub fn wait(&self) -> Duration {
        let is_busy = self.targets.values().any(Target::is_busy) || !matches!(self.expiry, Expiry::Idle(_));
        if is_busy { WAIT_BUSY } else { WAIT_IDLE }
    }

    /// The page that was asked for; `None` if the store failed.
    pub fn page(&mut self, now: MonoMicros, target: NodeId, hints: Option<Vec<Hint>>) {
        self.target(target).page(now, hints, PAGE);
    }

    /// How a hand-over ended: `target` holds the record, or did not acknowledge it.
    pub fn handed(&mut self, now: MonoMicros, target: NodeId, hint: Hint, record: Option<Record>) {
        let handed = record.map(|record| {
            let forget = self.may_forget(&hint, &record).then_some(record);
            Handed { hint, forget }
        });
        self.target(target).handed(now, handed);
    }

    /// Hints were removed, or the store has failed to; then they will be replayed once more.
    pub fn dropped(&mut self, target: NodeId) {
        self.target(target).dropped();
    }

    /// A step of removing old hints was taken: the pass goes on, or is complete (or the store failed).
    pub fn expired(&mut self, now: MonoMicros, pass: Option<ExpiryPass>) {
        self.expiry = match pass {
            Some(pass) => Expiry::Due(pass),
            None => Expiry::Idle(now + EXPIRY_PAUSE),
        };
    }

    /// What is there and how fast it goes, by target.
    #[must_use]
    pub fn status(&self, now: Now, stats: &[HintStats]) -> Vec<TargetStatus> {
        let status = |stat: &HintStats| {
            let node = NodeId(stat.target);
            let target = self.targets.get(&node);
            TargetStatus {
                target: node,
                is_up: target.is_some_and(Target::is_up),
                keys: stat.keys,
                bytes: stat.bytes,
                oldest_ms: now.wall.0.saturating_sub(stat.oldest.millis()),
                rate: target.map_or(0, |target| target.rate(now.mono)),
                replayed: target.map_or(0, Target::replayed),
                in_flight: target.map_or(0, Target::in_flight),
                failures: target.map_or(0, Target::failures),
            }
        };
        stats.iter().map(status).collect()
    }

    /// This node only stood in, and has written no cell of its own in the record.
    fn may_forget(&self, hint: &Hint, record: &Record) -> bool {
        let (node, actor) = (self.config.node, self.config.actor);
        let is_foreign = !self.ring.members().is_empty() && !self.ring.is_replica(node, hint.key().slot());
        is_foreign && !record.is_absent() && !goes_on_from(record, actor)
    }

    /// Notes the stamp of hints now and then, and takes the one of long enough ago.
    fn note_stamp(&mut self, now: MonoMicros, stats: &[HintStats]) {
        let Some(stamp) = stats.iter().map(|stat| stat.next_stamp).max() else { return };
        let every = self.config.settle / SETTLE_SAMPLES;
        if self.stamps.back().is_none_or(|(at, _)| now.since(*at) >= every) {
            self.stamps.push_back((now, stamp));
        }
        while let Some(&(at, stamp)) = self.stamps.front()
            && now.since(at) >= self.config.settle
        {
            self.settled_below = stamp;
            self.stamps.pop_front();
        }
    }

    fn fill(&mut self, now: MonoMicros) {
        let rate = u64::from(self.config.rate.max(1));
        let most = (rate / BURST_SHARE).max(1) * TOKEN;
        let gained = now.micros_since(self.filled_at).saturating_mul(rate);
        self.tokens = self.tokens.saturating_add(gained).min(most);
        self.filled_at = self.filled_at.max(now);
        let others = (self.ring.members().len() as u64).saturating_sub(1).max(1);
        for target in self.targets.values_mut() {
            target.fill(gained / others, (most / others).max(TOKEN));
        }
    }

    /// Serves the targets in turn, one key at a time, as long as there are tokens.
    fn serve(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        for (&node, target) in &mut self.targets {
            target.read_on(now, node, PAGE, effects);
        }
        let served = self.served;
        let mut turn: Vec<NodeId> =
            self.targets.iter().filter(|(_, target)| target.has_queued()).map(|(node, _)| *node).collect();
        turn.sort_by_key(|node| *node <= served);
        let (ring, node, settled_below) = (&self.ring, self.config.node, self.settled_below);
        let may_go = |hint: &Hint| hint.stamp < settled_below || ring.is_replica(node, hint.key().slot());
        while self.tokens >= TOKEN && !turn.is_empty() {
            turn.retain(|&node| {
                if self.tokens < TOKEN {
                    return true;
                }
                let next = self.targets.get_mut(&node).and_then(|target| target.next(now, may_go));
                let Some(hint) = next else { return false };
                self.tokens -= TOKEN;
                self.served = node;
                effects.push(Effect::HandOff { target: node, hint });
                true
            });
        }
        for (&node, target) in &mut self.targets {
            target.drop_on(node, DROP_BATCH, effects);
        }
    }

    fn expire(&mut self, now: Now, stats: &[HintStats], effects: &mut Vec<Effect>) {
        let window_ms = u64::try_from(self.config.window.as_millis()).unwrap_or(u64::MAX);
        let before = Hlc::from_millis(now.wall.0.saturating_sub(window_ms));
        let pass = match std::mem::replace(&mut self.expiry, Expiry::Running) {
            Expiry::Idle(at) if now.mono >= at && stats.iter().any(|stat| stat.oldest < before) => {
                ExpiryPass::default()
            }
            Expiry::Due(pass) => pass,
            other => {
                self.expiry = other;
                return;
            }
        };
        effects.push(Effect::Expire { pass, before, limit: EXPIRY_STEP });
    }
}

/// Whether `actor` has a cell in `record` that it goes on from: it must find it, with its register, where it was left
/// ([`crate::coordinator`]). Counter cells that the register has voided do not matter. A sibling cell may be void beside
/// another's that has seen it, and still be what its actor must go on from.
pub(crate) fn goes_on_from(record: &Record, actor: u64) -> bool {
    let counts = record.counters().any(|cell| cell.actor == actor && cell.base >= record.base());
    counts || record.has_siblings() && record.sibling_state().set.seen().of(actor) > 0
}

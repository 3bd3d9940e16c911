//! The time that this node goes by: carries out what [`gyre_cluster::clock::agreement`] decides.
//!
//! Worker 0 asks peers for their clocks, once a second, and compares. What comes of it is one number that every worker
//! adds to the monotonic clock, so reading the time costs no look at the wall clock.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gyre_cluster::clock::HybridClock;
use gyre_cluster::clock::agreement::{Agreement, ClockState, Judgement, Skew};
use gyre_cluster::message::{ClockReading, Message};
use gyre_cluster::node::NodeId;
use gyre_cluster::time::{MonoMicros, Now, UnixMillis};
use gyre_cluster::topology::{MemberState, Topology};
use gyre_storage::Hlc;
use parking_lot::Mutex;

use crate::node::Node;
use crate::worker::Worker;

/// How often the log says again that something is wrong with clocks.
const REMIND: Duration = Duration::from_secs(60);

/// The time of one node.
pub struct Timekeeping {
    started: Instant,
    /// The time minus the monotonic clock, in microseconds.
    offset_us: AtomicI64,
    /// Messages refused since their sender's clock was too far ahead.
    refusals: AtomicU64,
    drift_ms_max: u64,
    state: Mutex<State>,
}

struct State {
    core: Agreement,
    said: ClockState,
    said_at: MonoMicros,
    /// Peers of whom the log has said that their clocks are wrong, or ours is.
    astray: BTreeSet<NodeId>,
}

impl Timekeeping {
    /// The time of a process that starts now: until clocks were compared, the wall clock.
    pub fn new(drift_ms_max: u64) -> Timekeeping {
        let state = State {
            core: Agreement::new(drift_ms_max, MonoMicros(0)),
            said: ClockState::Settling,
            said_at: MonoMicros(0),
            astray: BTreeSet::new(),
        };
        Timekeeping {
            started: Instant::now(),
            offset_us: AtomicI64::new(i64::try_from(wall_us()).unwrap_or(i64::MAX)),
            refusals: AtomicU64::new(0),
            drift_ms_max,
            state: Mutex::new(state),
        }
    }

    /// How long ago the node started.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The monotonic clock: microseconds since the start.
    pub fn monotonic(&self) -> MonoMicros {
        MonoMicros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The monotonic clock and the time.
    pub fn now(&self) -> Now {
        let mono = self.monotonic();
        Now { mono, wall: UnixMillis(self.at(mono) / 1_000) }
    }

    /// The time at `mono`, in microseconds since the Unix epoch.
    fn at(&self, mono: MonoMicros) -> u64 {
        mono.0.saturating_add_signed(self.offset_us.load(Ordering::Relaxed))
    }

    /// What a peer that asks is told. `clock` says whether there is a time yet.
    pub fn reading(&self, clock: &HybridClock) -> ClockReading {
        let time_us = clock.is_settled().then(|| self.at(self.monotonic()));
        ClockReading { wall_us: wall_us(), time_us }
    }

    /// What came of the last comparison.
    pub fn judgement(&self) -> Judgement {
        self.state.lock().core.judgement()
    }

    /// How far the peers' wall clocks are from this node's.
    pub fn skews(&self) -> Vec<Skew> {
        self.state.lock().core.skews(self.monotonic(), wall_us())
    }

    /// How often a message was refused since its sender's clock was too far ahead.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// A message was refused since its sender's clock is too far ahead.
    pub fn count_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// What an operator should know, a line each.
    pub fn warnings(&self, clock: &HybridClock) -> Vec<String> {
        let judgement = self.judgement();
        let mut lines: Vec<String> = explain(judgement).into_iter().collect();
        for skew in self.skews() {
            if judgement.state == ClockState::Agreed && is_astray(&skew, self.drift_ms_max) {
                lines.push(format!(
                    "the wall clock of node {} is {} this node's",
                    skew.peer,
                    apart(skew.ahead_us)
                ));
            }
        }
        let ahead_ms = clock.ahead_ms(self.now().wall);
        if ahead_ms > self.drift_ms_max {
            lines.push(format!(
                "this node has stamped {ahead_ms} ms ahead of the time, by a clock that was wrong: others may refuse it \
                 until that time has passed"
            ));
        }
        lines
    }
}

/// Keeps the time for ever. Worker 0 only.
pub async fn run(worker: Rc<Worker>) {
    loop {
        compare(worker.node());
        let node = worker.node();
        let peers = worker.linked_peers();
        let (asked, wait) = {
            let core = &mut node.time.state.lock().core;
            (core.ask(&peers), core.round_ms())
        };
        asked.into_iter().for_each(|peer| ask(&worker, peer));
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}

/// Asks `peer`, to which there is a link since now, before anything else is said that it might refuse.
pub fn linked(worker: &Rc<Worker>, peer: NodeId) {
    if worker.index == 0 {
        ask(worker, peer);
    }
}

fn ask(worker: &Rc<Worker>, peer: NodeId) {
    worker.step(|turn| {
        // The answer is for this process only, by this link: the question carries all that is to be remembered.
        let ping = Message::Ping { nonce: turn.node.time.monotonic().0 };
        turn.shell.outboxes.send(peer, &ping, turn.node.clock.now());
    });
}

/// `peer` has answered.
pub fn answered(node: &Node, peer: NodeId, nonce: u64, reading: Option<ClockReading>, hlc: Hlc) {
    let Some(reading) = reading else { return };
    let now = node.time.monotonic();
    node.time.state.lock().core.answered(peer, MonoMicros(nonce), now, reading, hlc);
    if !node.clock.is_settled() {
        compare(node);
    }
}

/// Compares clocks and goes by what comes of it. Nothing is compared before there is a cluster.
pub fn compare(node: &Node) {
    let topology = node.topology.load();
    let Some(topology) = (**topology).as_ref() else { return };
    let (time, now) = (&node.time, node.time.monotonic());
    let mut state = time.state.lock();
    let judgement = state.core.judge(now, wall_us(), node.clock.now(), &members(topology));
    time.offset_us.store(judgement.offset_us, Ordering::Relaxed);
    node.clock.follow(judgement.majority);
    if !node.clock.is_settled() && state.core.is_settled() {
        tracing::info!(votes = judgement.votes, state = judgement.state.name(), "clocks are compared");
        node.clock.set_settled(true);
    }
    let is_reminder = now.since(state.said_at) >= REMIND && judgement.state != ClockState::Agreed;
    if judgement.state != state.said || is_reminder {
        (state.said, state.said_at) = (judgement.state, now);
        match explain(judgement) {
            Some(what) => tracing::warn!(votes = judgement.votes, "{what}"),
            None => tracing::debug!("this node's wall clock is believed"),
        }
    }
    if judgement.state == ClockState::Agreed {
        // Seen by a clock that is itself wrong, all others are.
        note_astray(&mut state, now, time.drift_ms_max);
    }
}

fn note_astray(state: &mut State, now: MonoMicros, drift_ms_max: u64) {
    for skew in state.core.skews(now, wall_us()) {
        let is_astray = is_astray(&skew, drift_ms_max);
        if is_astray && state.astray.insert(skew.peer) {
            let error_ms = skew.error_us / 1_000;
            tracing::warn!(peer = %skew.peer, error_ms, "a peer's wall clock is {} this node's", apart(skew.ahead_us));
        } else if !is_astray && state.astray.remove(&skew.peer) {
            tracing::info!(peer = %skew.peer, "a peer's wall clock is close to this node's again");
        }
    }
}

fn is_astray(skew: &Skew, drift_ms_max: u64) -> bool {
    skew.ahead_us.unsigned_abs() > drift_ms_max.saturating_mul(1_000).saturating_add(skew.error_us)
}

/// What is wrong with this node's clock, if anything is.
fn explain(judgement: Judgement) -> Option<String> {
    let wall = apart(judgement.correction_us.saturating_neg());
    match judgement.state {
        ClockState::Outvoted => Some(format!(
            "this node's wall clock is {wall} those of most members: it stamps and expires by theirs until it is right"
        )),
        ClockState::Unconfirmed => Some(format!(
            "this node's wall clock is {wall} where it was by the monotonic clock, and too few members are heard to \
             confirm that: it goes on as before"
        )),
        ClockState::Agreed | ClockState::Settling => None,
    }
}

fn apart(ahead_us: i64) -> String {
    let ms = ahead_us.unsigned_abs() / 1_000;
    format!("{ms} ms {}", if ahead_us < 0 { "behind" } else { "ahead of" })
}

fn members(topology: &Topology) -> Vec<NodeId> {
    let members = topology.members.values().filter(|member| member.state != MemberState::Left);
    members.map(|member| member.id).collect()
}

/// The wall clock, in microseconds since the Unix epoch.
fn wall_us() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_starts_as_the_wall_clock_and_runs_with_the_monotonic_one() {
        let time = Timekeeping::new(500);
        let (now, wall) = (time.now(), wall_us() / 1_000);
        assert!(now.wall.0.abs_diff(wall) < 1_000, "{now:?} {wall}");
        let clock = HybridClock::new(500);
        clock.set_settled(false);
        assert_eq!(time.reading(&clock).time_us, None);
        clock.set_settled(true);
        assert!(time.reading(&clock).time_us.is_some_and(|at| at >= now.wall.0 * 1_000));
    }

    #[test]
    fn a_clock_that_is_not_believed_is_explained() {
        let judgement = |state| Judgement { state, correction_us: -3_600_000_000, ..Judgement::default() };
        let text = explain(judgement(ClockState::Outvoted)).unwrap();
        assert!(text.contains("3600000 ms ahead of those of most members"), "{text}");
        assert!(explain(judgement(ClockState::Unconfirmed)).unwrap().contains("too few"));
        assert_eq!(explain(judgement(ClockState::Agreed)), None);
    }

    #[test]
    fn a_peer_is_astray_only_beyond_what_may_be_a_bad_measurement() {
        let skew = |ahead_us| Skew { peer: NodeId(1), ahead_us, error_us: 100_000 };
        assert!(!is_astray(&skew(600_000), 500) && is_astray(&skew(-600_001), 500));
    }
}

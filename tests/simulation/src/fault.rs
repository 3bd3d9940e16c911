//! What goes wrong, when, and how it is mended.

use std::sync::Arc;

use gyre_cluster::clock::CLOCK_DRIFT_MS_MAX;
use gyre_storage::FsyncPolicy;

use crate::event::Event;
use crate::network::{LinkIndex, WORKERS, WorkerAt};
use crate::queue::{HOUR, MS, Micros, SECOND};
use crate::world::World;

/// So long after a clock was set right others may still count it among the wrong ones.
const CLOCK_FORGOTTEN_AFTER: Micros = 6 * SECOND;

/// Kinds of fault that a plan chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    /// The cluster falls into two parts.
    Partitions,
    /// A part hears another, and is not heard.
    OneWayPartitions,
    /// Two nodes cannot reach each other.
    BrokenPairs,
    /// Links break for no reason.
    BrokenLinks,
    /// A node's links are many times slower.
    SlowNodes,
    /// A process is killed (kill -9): what it gave to the system stays.
    Kills,
    /// A machine loses power: what was not synced is gone.
    PowerLosses,
    /// Every process is killed, one soon after the other.
    RestartStorms,
    /// A process stops for a while (SIGSTOP).
    Pauses,
    /// A wall clock is set wrong by less than the allowed drift.
    ClockSteps,
    /// A wall clock is set wrong by up to an hour, while most others are right.
    ClockJumps,
    /// The same, whatever the others are.
    ClockStorms,
    /// A wall clock runs too fast or too slow.
    ClockDrifts,
    /// A disk fails to sync.
    SyncFailures,
    /// A disk fails to write, or is full.
    FullDisks,
    /// A disk is many times slower.
    SlowDisks,
    /// A machine comes back with an empty disk.
    DiskLosses,
}

impl FaultKind {
    pub(crate) const ALL: [FaultKind; 17] = [
        FaultKind::Partitions,
        FaultKind::OneWayPartitions,
        FaultKind::BrokenPairs,
        FaultKind::BrokenLinks,
        FaultKind::SlowNodes,
        FaultKind::Kills,
        FaultKind::PowerLosses,
        FaultKind::RestartStorms,
        FaultKind::Pauses,
        FaultKind::ClockSteps,
        FaultKind::ClockJumps,
        FaultKind::ClockStorms,
        FaultKind::ClockDrifts,
        FaultKind::SyncFailures,
        FaultKind::FullDisks,
        FaultKind::SlowDisks,
        FaultKind::DiskLosses,
    ];
}

/// What happens to a world from outside.
#[derive(Debug)]
pub(crate) enum FaultEvent {
    /// Something goes wrong, and then the next thing.
    Strike,
    /// The cluster falls into two halves for so long.
    Split(Micros),
    /// These directions are open again.
    Unblock(Vec<(usize, usize)>),
    /// A node's links are as fast as others'.
    Quicken(usize),
    /// Some node goes away for long.
    Away,
    /// A process is killed, and started again so much later.
    Kill(usize, Micros),
    /// A machine is started.
    Start(usize),
    /// A node has learned that what it holds has lapsed.
    Rejoin(usize),
    /// A paused process goes on.
    Resume(usize),
    /// A clock is set right.
    SetClock(usize),
    /// A disk works again; a process that its failure has stopped is started.
    MendDisk(usize),
}

impl World {
    /// Carries a fault, or its end, out.
    pub(crate) fn fault(&mut self, event: FaultEvent) {
        match event {
            FaultEvent::Strike if self.is_healing => {}
            FaultEvent::Strike => {
                let kind = self.plan.faults.clone();
                let kind = self.env.random.pick(&kind);
                self.strike(kind);
                let gap = self.env.random.skewed(self.plan.fault_gap.clone());
                self.later(gap, FaultEvent::Strike);
            }
            FaultEvent::Split(length) => {
                let half = self.plan.nodes / 2;
                let pairs =
                    (0..half).flat_map(|a| (half..self.plan.nodes).flat_map(move |b| [(a, b), (b, a)]));
                self.block(pairs.collect(), length);
            }
            FaultEvent::Unblock(pairs) => {
                let crate::surroundings::Env { queue, random, network, .. } = &mut self.env;
                pairs.iter().for_each(|&(from, to)| network.unblock(queue, random, from, to));
            }
            FaultEvent::Quicken(node) => self.set_slowness(node, 1),
            FaultEvent::Away => self.away(),
            FaultEvent::Kill(node, length) => self.kill(node, length),
            FaultEvent::Start(node) => self.start(node),
            FaultEvent::Rejoin(node) => self.rejoin(node),
            FaultEvent::Resume(node) => self.resume(node),
            FaultEvent::SetClock(node) => {
                let now = self.env.queue.now();
                self.nodes[node].clock.set_right(now);
                self.clock_right_at[node] = Some(now);
            }
            FaultEvent::MendDisk(node) => self.mend_disk(node),
        }
    }

    fn later(&mut self, delay: Micros, event: FaultEvent) {
        self.env.queue.after(delay, Event::Fault(event));
    }

    fn length(&mut self) -> Micros {
        self.env.random.skewed(self.plan.fault_length.clone())
    }

    fn strike(&mut self, kind: FaultKind) {
        let node = self.env.random.index(self.plan.nodes);
        let length = self.length();
        self.env.queue.fold(kind as u64 * 1_000 + node as u64);
        self.strikes += 1;
        match kind {
            FaultKind::Partitions => self.partition(length, false),
            FaultKind::OneWayPartitions => self.partition(length, true),
            FaultKind::BrokenPairs => {
                let other = self.env.random.index(self.plan.nodes);
                self.block(vec![(node, other), (other, node)], length);
            }
            FaultKind::BrokenLinks => self.break_links(),
            FaultKind::SlowNodes => {
                let times = self.env.random.skewed(3..300) as u16;
                self.set_slowness(node, times);
                self.later(length, FaultEvent::Quicken(node));
            }
            FaultKind::Kills => self.kill(node, length),
            FaultKind::PowerLosses if self.may_lose_rows(node) => self.lose_power(node, length),
            FaultKind::PowerLosses => {}
            FaultKind::RestartStorms => self.storm(),
            FaultKind::Pauses => self.pause(node, length),
            FaultKind::ClockSteps => self.jump(node, 240 * MS, length),
            FaultKind::ClockJumps if self.may_clock_be_wrong(node) => self.jump(node, HOUR, length),
            FaultKind::ClockJumps => {}
            FaultKind::ClockStorms => self.jump(node, HOUR, length),
            FaultKind::ClockDrifts => {
                let drift = self.env.random.within(0..1_000) as i64 - 500;
                let now = self.env.queue.now();
                self.nodes[node].clock.set_drift(now, drift);
                self.later(length.min(240 * SECOND), FaultEvent::SetClock(node));
            }
            FaultKind::SyncFailures if self.may_lose_rows(node) => {
                self.nodes[node].disk.fail_syncs(true);
                self.unsafe_disks.insert(node);
                self.later(length, FaultEvent::MendDisk(node));
            }
            FaultKind::SyncFailures => {}
            FaultKind::FullDisks => {
                let room = self.env.random.below(3_000);
                self.nodes[node].disk.set_room(Some(room));
                self.later(length, FaultEvent::MendDisk(node));
            }
            FaultKind::SlowDisks => {
                self.nodes[node].disk_slowness = self.env.random.skewed(5..500);
                self.later(length, FaultEvent::MendDisk(node));
            }
            FaultKind::DiskLosses if self.may_lose_disk(node) => self.lose_disk(node, length),
            FaultKind::DiskLosses => {}
        }
    }

    /// Cuts a random part off; in a one-way partition it is still heard.
    fn partition(&mut self, length: Micros, is_one_way: bool) {
        let nodes = self.plan.nodes;
        let share = self.env.random.pick(&[200, 500]);
        let side: Vec<bool> = (0..nodes).map(|_| self.env.random.chance(share)).collect();
        let mut pairs = Vec::new();
        for from in 0..nodes {
            for to in (0..nodes).filter(|&to| side[from] != side[to] && (side[from] || !is_one_way)) {
                pairs.push((from, to));
            }
        }
        self.block(pairs, length);
    }

    /// Blocks directions for a while.
    pub(crate) fn block(&mut self, pairs: Vec<(usize, usize)>, length: Micros) {
        pairs.iter().filter(|(from, to)| from != to).for_each(|&(from, to)| self.env.network.block(from, to));
        let pairs = pairs.into_iter().filter(|(from, to)| from != to).collect();
        self.later(length, FaultEvent::Unblock(pairs));
    }

    fn break_links(&mut self) {
        for _ in 0..self.env.random.within(1..8) {
            let owner = WorkerAt {
                node: self.env.random.index(self.plan.nodes),
                worker: self.env.random.index(WORKERS),
            };
            let link = LinkIndex::of(owner, self.env.random.index(self.plan.nodes), self.plan.nodes);
            if let Some(connection) = self.env.network.connection(link) {
                self.env.queue.after(0, Event::LinkBroken { link, connection });
            }
        }
    }

    fn set_slowness(&mut self, node: usize, times: u16) {
        for peer in 0..self.plan.nodes {
            self.env.network.set_slowness(node, peer, times);
            self.env.network.set_slowness(peer, node, times);
        }
    }

    fn kill(&mut self, node: usize, length: Micros) {
        if self.nodes[node].process.is_some() {
            self.stop(node, 50 * MS);
            self.later(length, FaultEvent::Start(node));
        }
    }

    /// One node after the other is away.
    fn away(&mut self) {
        if self.is_healing {
            return;
        }
        let (away, grace) = (self.plan.away.clone(), self.plan.grace.unwrap_or(HOUR));
        let mut length = self.env.random.pick(&away);
        if length >= grace && !self.is_whole() {
            // What it alone has would be given up with it.
            length = self.env.random.pick(&away).min(grace / 2);
        }
        if self.nodes.iter().all(|node| node.process.is_some()) {
            let node = self.env.random.index(self.plan.nodes);
            self.kill(node, length);
        }
        let pause = self.env.random.within(grace / 8..grace);
        self.later(length + pause, FaultEvent::Away);
    }

    fn storm(&mut self) {
        for node in 0..self.plan.nodes {
            let delay = self.env.random.below(2 * SECOND);
            let length = self.env.random.skewed(100 * MS..3 * SECOND);
            self.later(delay, FaultEvent::Kill(node, length));
        }
    }

    fn lose_power(&mut self, node: usize, length: Micros) {
        if self.nodes[node].process.is_some() {
            self.stop(node, 10 * SECOND);
            self.lose_rows(node);
            self.later(length, FaultEvent::Start(node));
        }
    }

    fn lose_disk(&mut self, node: usize, length: Micros) {
        self.stop(node, 10 * SECOND);
        self.lose_all_rows(node);
        self.later(length, FaultEvent::Start(node));
    }

    fn pause(&mut self, node: usize, length: Micros) {
        if self.nodes[node].is_running() {
            self.nodes[node].is_paused = true;
            self.later(length, FaultEvent::Resume(node));
        }
    }

    fn jump(&mut self, node: usize, most: Micros, length: Micros) {
        let now = self.env.queue.now();
        let wanted = self.env.random.below(2 * most) as i64 - most as i64;
        let change = wanted - self.nodes[node].clock.ahead(now);
        self.nodes[node].clock.jump(now, change);
        self.later(length, FaultEvent::SetClock(node));
    }

    /// A machine is started, unless it runs.
    fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        let ring = Arc::clone(&self.ring);
        if !self.nodes[node].start(&mut self.env, &ring) {
            // Its disk does not let it; whoever mends that starts it.
            let delay = self.env.random.within(SECOND..3 * SECOND);
            self.later(delay, FaultEvent::Start(node));
        }
    }

    fn mend_disk(&mut self, node: usize) {
        self.nodes[node].disk.set_room(None);
        self.nodes[node].disk_slowness = 1;
        if self.unsafe_disks.remove(&node) {
            // What a failed sync had before it may be gone, whatever the system still shows.
            self.stop(node, 50 * MS);
            self.lose_rows(node);
        } else if self.nodes[node].is_poisoned() {
            self.stop(node, 50 * MS);
        }
        self.later(SECOND, FaultEvent::Start(node));
    }

    /// Whether `node` may lose what it has not synced without breaking the promise of the fsync policy: under `everysec`
    /// a row is safe if not all who acknowledged it lose it within the same second. So nobody else may have lost rows
    /// since this node has synced, or be about to.
    fn may_lose_rows(&self, node: usize) -> bool {
        if self.plan.grace.is_some() && !self.is_whole() {
            // A node that is away may be given up with what it holds.
            return false;
        }
        match self.plan.fsync {
            FsyncPolicy::Always | FsyncPolicy::No => self.unsafe_disks.is_empty(),
            FsyncPolicy::EverySecond => {
                let last_loss = self.rows_lost_at.iter().enumerate().filter(|(other, _)| *other != node);
                let last_loss = last_loss.filter_map(|(_, at)| *at).max();
                self.unsafe_disks.is_empty() && last_loss.is_none_or(|at| self.synced_at[node] > at)
            }
        }
    }

    /// Whether most clocks are right if that of `node` is not.
    fn may_clock_be_wrong(&self, node: usize) -> bool {
        let now = self.env.queue.now();
        let is_wrong = |other: &&crate::node::Node| {
            other.index != node
                && (other.clock.ahead(now).unsigned_abs() > CLOCK_DRIFT_MS_MAX * MS
                    || self.clock_right_at[other.index].is_some_and(|at| at + CLOCK_FORGOTTEN_AFTER > now))
        };
        let wrong = self.nodes.iter().filter(is_wrong).count() + 1;
        2 * wrong < self.plan.nodes
    }

    /// Whether `node` may lose its disk: at most one of the replicas of a key may have, so no two nodes do, and there must
    /// be a majority besides.
    fn may_lose_disk(&self, node: usize) -> bool {
        let is_first = self.disks_lost.iter().all(|other| *other == node);
        is_first && self.plan.nodes.min(self.plan.replication) >= 3 && self.may_lose_rows(node)
    }

    /// Everything that is wrong is mended, as an operator would who has all hands.
    pub(crate) fn heal(&mut self) {
        self.is_healing = true;
        let now = self.env.queue.now();
        for from in 0..self.plan.nodes {
            for to in 0..self.plan.nodes {
                let crate::surroundings::Env { queue, random, network, .. } = &mut self.env;
                while network.is_blocked(from, to) {
                    network.unblock(queue, random, from, to);
                }
            }
            self.set_slowness(from, 1);
            self.nodes[from].clock.set_right(now);
            self.resume(from);
            self.mend_disk(from);
        }
        self.env.network.weather.loss_per_mille = 0;
        self.env.network.weather.refused_per_myriad = 0;
        self.env.network.weather.tail_per_mille = 0;
    }
}

//! The whole run: a time of faults, then healing, and what must be true after it.

use std::collections::{BTreeMap, BTreeSet};

use gyre_cluster::level::{Consistency, Quorums};
use gyre_cluster::message::Levels;
use gyre_cluster::outcome::Outcome;
use gyre_cluster::time::MonoMicros;
use gyre_storage::tree::PrefixRange;
use gyre_storage::{Hlc, PREFIX_END, Record, UnixMillis};

use crate::checkers::convergence::meaning;
use crate::clock::truth_ms;
use crate::event::Event;
use crate::history::{Action, Key};
use crate::network::WORKERS;
use crate::queue::{HOUR, Micros, SECOND};
use crate::repair::slots_of;
use crate::report::Report;
use crate::sweep::sweep_all;
use crate::workload::Intent;
use crate::world::World;

/// How much of a key's history is shown when something is wrong with it.
const HISTORY_LINES: usize = 30;

/// A clock that was an hour ahead is followed again once that hour has passed.
const SETTLE_TIME_MAX: Micros = 2 * HOUR;
/// By then all hints are replayed: a target that has failed often is left alone for a minute.
const HINTS_TIME_MAX: Micros = 5 * 60 * SECOND;
/// How often nodes compare what they hold at the end, if they did not before.
const COMPARE_INTERVAL: Micros = 10 * SECOND;
/// By then they are through, if they compare often: a message that was lost before holds an exchange up for a minute.
const COMPARED_TIME_MAX: Micros = 10 * 60 * SECOND;
/// How long clients go on after the cluster has recovered.
const RECOVERED_TIME: Micros = 3 * SECOND;
/// By then what was dead is gone from every disk, in grace periods: it must be as old as one, and horizons move in thirds.
const PURGED_GRACES: Micros = 3;
/// No operation takes longer.
const DRAIN_TIME: Micros = 10 * SECOND;

/// What a record shows.
#[derive(Debug, PartialEq)]
struct Shown {
    view: String,
    siblings: usize,
    expiry: Option<UnixMillis>,
}

impl World {
    /// Runs everything.
    ///
    /// # Errors
    /// What was violated, with the history of the key it was about.
    pub(crate) fn run(&mut self) -> Result<Report, String> {
        let result = self.phases();
        self.report.finish(&self.env, &self.checkers, self.strikes);
        match result {
            Ok(()) => Ok(self.report.clone()),
            Err(what) => Err(format!(
                "at {:.6} s: {what}\n{} nodes, RF {}, {:?}, skew {} µs, faults {:?}\nthe last operations on {}, at {:?}:\n{}",
                self.env.queue.now() as f64 / SECOND as f64,
                self.plan.nodes,
                self.plan.replication,
                self.plan.fsync,
                self.plan.skew,
                self.plan.faults,
                String::from_utf8_lossy(&self.plan.keys[self.judged].name),
                self.checkers.key(self.judged).replicas,
                self.history.tail(self.judged, HISTORY_LINES),
            )),
        }
    }

    fn phases(&mut self) -> Result<(), String> {
        self.run_until(self.plan.duration)?;
        self.is_resting = true;
        self.heal();
        self.settle()?;
        self.recovered_at = Some(self.env.queue.now());
        self.is_resting = false;
        (0..self.clients.len()).for_each(|client| self.env.queue.after(0, Event::Client { client }));
        self.run_until(self.env.queue.now() + RECOVERED_TIME + self.plan.think)?;
        self.is_resting = true;
        self.run_until(self.env.queue.now() + DRAIN_TIME)?;
        self.check_idle()?;
        self.drain_hints()?;
        if self.plan.compare_interval.is_none() {
            let owed = self.checkers.check_owed(&self.plan, &self.nodes, &self.history, &self.env.owed)?;
            self.report.owed += owed as u64;
        }
        self.report.before_reads = self.checkers.agreement(&self.plan.keys, &self.nodes, &self.env);
        if self.plan.ends_by_comparing {
            self.compare_everything()?;
            self.sweep_everything();
            self.check_equal()?;
            self.check_roots()?;
        }
        self.read_everything()?;
        self.sweep_everything();
        self.check_equal()?;
        self.purge_everything()
    }

    /// Runs until every node runs, is linked with every other, and is believed by them.
    fn settle(&mut self) -> Result<(), String> {
        let end = self.env.queue.now() + SETTLE_TIME_MAX;
        while !self.is_settled() {
            if self.env.queue.now() > end {
                return Err(format!("the cluster has not recovered: {}", self.what_is_missing()));
            }
            self.run_until(self.env.queue.now() + SECOND)?;
        }
        // What was sent before counts as sent before.
        self.run_until(self.env.queue.now() + DRAIN_TIME)
    }

    fn is_settled(&self) -> bool {
        self.what_is_missing().is_empty()
    }

    /// What keeps the cluster from having recovered; empty if nothing.
    fn what_is_missing(&self) -> String {
        let truth = UnixMillis(truth_ms(self.env.queue.now()));
        for node in &self.nodes {
            if !node.is_running() || node.is_poisoned() {
                return format!("node {} does not run", node.index);
            }
            let Some(process) = &node.process else { continue };
            if !process.hlc.is_settled() || !process.time.is_agreed() {
                return format!("node {} does not go by its clock", node.index);
            }
        }
        if let Some(what) = self.who_is_refused(truth).or_else(|| self.who_has_lapsed()) {
            return what;
        }
        for owner in 0..self.plan.nodes {
            for peer in (0..self.plan.nodes).filter(|&peer| peer != owner) {
                if !self.env.network.is_linked(owner, peer) {
                    return format!("node {owner} has no link to {peer}");
                }
                let membership = self.nodes[owner].process.as_ref().map(|process| &process.membership);
                if membership.is_none_or(|membership| membership.suspected.contains(&peer)) {
                    return format!("node {owner} suspects {peer}");
                }
            }
        }
        String::new()
    }

    /// Whose hybrid clock is so far ahead that another refuses it.
    fn who_is_refused(&self, truth: UnixMillis) -> Option<String> {
        let clocks: Vec<_> = self.nodes.iter().filter_map(|node| node.process.as_ref()).collect();
        for here in &clocks {
            let followed = here.time.majority().millis().max(truth.0).max(here.hlc.now().millis());
            if let Some(ahead) = clocks.iter().find(|there| there.hlc.now().millis() > followed) {
                return Some(format!("a clock is {} ms ahead", ahead.hlc.ahead_ms(truth)));
            }
        }
        None
    }

    /// Whose data has lapsed and has not come back empty yet, or is not known to have.
    fn who_has_lapsed(&self) -> Option<String> {
        let documents = self.nodes.iter().filter_map(|node| node.process.as_ref()?.document.as_ref());
        let lapsed: BTreeSet<_> = documents.flat_map(|document| document.lapsed()).collect();
        (!lapsed.is_empty()).then(|| format!("{lapsed:?} have not come back empty"))
    }

    /// Runs until no node keeps a hint (invariant 6).
    fn drain_hints(&mut self) -> Result<(), String> {
        let end = self.env.queue.now() + HINTS_TIME_MAX;
        while let Some(what) = self.nodes.iter().find_map(|node| {
            let stats = node.process.as_ref()?.store.hint_stats();
            (!stats.is_empty()).then(|| format!("node {} still keeps hints: {stats:?}", node.index))
        }) {
            if self.env.queue.now() > end {
                return Err(what);
            }
            self.run_until(self.env.queue.now() + SECOND)?;
        }
        Ok(())
    }

    /// Lets nodes compare what they hold, as each does by itself in time, until all have compared everything since hints
    /// were gone.
    fn compare_everything(&mut self) -> Result<(), String> {
        if self.env.compare_interval.is_none() {
            self.env.compare_interval = Some(COMPARE_INTERVAL);
            for node in &mut self.nodes {
                node.begin_to_compare(&mut self.env);
            }
        }
        let interval = self.env.compare_interval.unwrap_or_default();
        let end = self.env.queue.now() + COMPARED_TIME_MAX + 3 * interval;
        let since = Hlc::from_millis(truth_ms(self.env.queue.now()));
        loop {
            let open = self.nodes.iter().find(|node| !node.has_compared_since(&self.ring, since));
            let Some(open) = open else { return Ok(()) };
            if self.env.queue.now() > end {
                let status = open.process.as_ref().map(|process| process.repair.status(MonoMicros(end)));
                return Err(format!("node {} has not compared everything: {status:?}", open.index));
            }
            self.run_until(self.env.queue.now() + SECOND)?;
        }
    }

    /// The trees of all replicas agree, and tell the truth.
    fn check_roots(&mut self) -> Result<(), String> {
        for slot in slots_of(&self.plan.keys) {
            let range = PrefixRange::of_slot(slot);
            let sums = |node: &crate::node::Node| node.with_store(|store| store.tree_sums(&[range]));
            let replicas = self.ring.replicas(slot).iter().map(|id| &self.nodes[self.env.names[id]]);
            let mut sums = replicas.map(|node| (node.index, sums(node)));
            let horizons =
                self.nodes.iter().map(|node| node.with_store(|store| store.purge_horizon(slot).hidden));
            let first = sums.next();
            if horizons.collect::<BTreeSet<Hlc>>().len() > 1 {
                // Not all replicas hide what is dead at the same moment.
                continue;
            }
            if let Some(other) = sums.find(|(_, sums)| Some(sums) != first.as_ref().map(|(_, sums)| sums)) {
                return Err(format!("the trees of slot {slot} differ: {first:?}, {other:?}"));
            }
        }
        Ok(())
    }

    /// Lets nodes purge what is dead by now, as they do by themselves: then no row of it is on any disk, and what lives
    /// still does.
    fn purge_everything(&mut self) -> Result<(), String> {
        let Some(grace) = self.env.grace else { return Ok(()) };
        let live = self.live_keys();
        let end = self.env.queue.now() + PURGED_GRACES * grace + COMPARED_TIME_MAX;
        let dead_before = Hlc::from_millis(truth_ms(self.env.queue.now()));
        while let Some(what) = self.nodes.iter().find_map(|node| node.dead_left(dead_before)) {
            if self.env.queue.now() > end {
                return Err(what);
            }
            self.run_until(self.env.queue.now() + 10 * SECOND)?;
        }
        for (key, (before, after)) in live.iter().zip(self.live_keys()).enumerate() {
            self.judged = key;
            for (before, after) in before.iter().zip(&after) {
                let is_back = before.is_none() && after.is_some();
                let is_gone = before.as_ref().is_some_and(|shown| shown.expiry.is_none()) && before != after;
                if is_back || is_gone {
                    return Err(format!(
                        "purging has changed what a replica shows from {before:?} to {after:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// What each replica of each key shows.
    fn live_keys(&self) -> Vec<Vec<Option<Shown>>> {
        let truth = UnixMillis(truth_ms(self.env.queue.now()));
        let shown = |record: &Record| {
            let view = format!("{:?}", record.view(truth)?);
            Some(Shown { view, siblings: record.siblings(truth).len(), expiry: record.expiry(truth) })
        };
        let held = |(index, key): (usize, &Key)| {
            let replicas = self.checkers.key(index).replicas.iter();
            replicas.map(|&node| shown(&self.nodes[node].holds(key.key_ref()))).collect()
        };
        self.plan.keys.iter().enumerate().map(held).collect()
    }

    /// Nothing is left over: every operation has ended, and every lock is free (invariant 10).
    fn check_idle(&self) -> Result<(), String> {
        if let Some(operation) = self.history.unsettled().next() {
            return Err(format!("it never ended\n{operation}"));
        }
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            if process.locks.held() > 0 {
                return Err(format!("node {} holds {} locks", node.index, process.locks.held()));
            }
            let left: usize = process.workers.iter().map(|worker| worker.core.in_flight()).sum();
            if left > 0 {
                return Err(format!("node {} has {left} operations left over", node.index));
            }
        }
        Ok(())
    }

    /// Reads every key at QUORUM, then at ALL: what must be there is there, and afterwards everywhere.
    fn read_everything(&mut self) -> Result<(), String> {
        for key in 0..self.plan.keys.len() {
            self.judged = key;
            for level in [Consistency::Quorum, Consistency::All] {
                let node = self.env.random.index(self.plan.nodes);
                let worker = self.env.random.index(WORKERS);
                let levels = Levels { read: level, write: level, quorums: Quorums::Strict };
                let tag = self.ask(None, node, worker, Intent { key, action: Action::Get, levels });
                let Outcome::Record(record) = self.outcome_of(tag)? else {
                    return Err(format!("a healed cluster failed\n{}", self.history.get(tag)));
                };
                if level == Consistency::All {
                    let wall = UnixMillis(truth_ms(self.env.queue.now()));
                    self.checkers.check_end(key, &record, wall, &self.env)?;
                }
            }
        }
        self.run_until(self.env.queue.now() + SECOND)
    }

    /// Every replica sweeps what has expired, as each would by itself a little later.
    fn sweep_everything(&mut self) {
        let until = UnixMillis(truth_ms(self.env.queue.now()));
        self.nodes.iter().for_each(|node| node.with_store(|store| sweep_all(store, until)));
    }

    /// Invariant 6: all replicas of every key are equal, cell for cell, as a read shows them and as a full scan does.
    fn check_equal(&mut self) -> Result<(), String> {
        for (index, key) in self.plan.keys.iter().enumerate() {
            self.judged = index;
            self.checkers.check_equal(index, key, &self.nodes, &self.env)?;
        }
        for node in &self.nodes {
            self.check_scan(node)?;
        }
        Ok(())
    }

    /// A full scan of a node's disk finds the keys that reads through the row cache find, and of each the same, byte for byte.
    fn check_scan(&self, node: &crate::node::Node) -> Result<(), String> {
        let page = node.with_store(|store| store.scan(None, 0, PREFIX_END, usize::MAX, usize::MAX, true));
        let page = page.map_err(|error| error.to_string())?;
        let mut scanned: BTreeMap<&[u8], &Record> =
            page.entries.iter().map(|(_, name, record)| (&name[..], record)).collect();
        for key in &self.plan.keys {
            let scanned = scanned.remove(&key.name[..]).cloned().unwrap_or_default();
            let scanned = scanned.under_horizon(node.with_store(|store| store.horizon(key.db)));
            let read = node.holds(key.key_ref());
            // What is dead is still there, and not shown.
            let hidden = self.env.hidden(key.key_ref().slot());
            let alive = |record: &Record| meaning(&record.without_dead(hidden), key.key_ref());
            if alive(&read) != alive(&scanned) {
                return Err(format!(
                    "node {}: a read of {} finds {read:?}, a scan {scanned:?}",
                    node.index,
                    String::from_utf8_lossy(&key.name)
                ));
            }
        }
        if let Some((name, record)) = scanned.first_key_value() {
            return Err(format!(
                "node {}: a key that nobody wrote: {} {record:?}",
                node.index,
                String::from_utf8_lossy(name)
            ));
        }
        Ok(())
    }
}

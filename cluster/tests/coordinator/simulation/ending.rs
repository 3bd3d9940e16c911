//! The end of a run: everything is healed, and what must hold then.

use gyre_cluster::coordinator::PREFIX_END;
use gyre_cluster::outcome::Outcome;
use gyre_storage::KeyRef;

use super::{ALL, CLIENTS, KEYS, Simulation, WORKERS, actor};
use crate::checker::Action;
use crate::machine::node_id;
use crate::network::Worker;

impl Simulation {
    /// Heals everything and lets every operation end.
    pub(super) fn come_to_rest(&mut self) {
        self.is_ending = true;
        self.network.unblock_all();
        self.network.loss_per_mille = 0;
        self.network.slow_per_mille = 0;
        (0..self.plan.0)
            .filter(|&node| !self.network.is_up[node])
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|node| self.restart(node));
        self.run_for(1_000_000);
        // A target that failed is left alone for up to a minute.
        let end = self.network.now + 120_000_000;
        while self.hints_left() > 0 {
            assert!(self.network.now < end, "hints were never replayed");
            self.run_for(100_000);
        }
        self.run_for(1_000_000);
    }

    /// Every acknowledged write has come to every replica by hints alone, before any read repairs it; those that a node
    /// was asked by a message to keep a hint of may have lost it.
    fn check_replicas(&self) {
        for (key, version) in self.checker.acknowledged() {
            let name = format!("key-{key}");
            let key = KeyRef::new(0, name.as_bytes());
            for replica in self.ring.replicas(key.slot()) {
                let record = self.machines[replica.0 as usize - 1].read(key);
                assert!(
                    record.base() >= version || self.delegated.contains(&version),
                    "{replica:?} has {:?} of {name}, but {version:?} was acknowledged",
                    record.base()
                );
            }
        }
    }

    /// Nobody keeps what is not his, but for counter cells he counts on, and rows of which the hint was lost on its way
    /// (or, on this network, overtook the row).
    fn check_foreign_rows(&self) {
        for (node, machine) in self.machines.iter().enumerate() {
            let own = actor(node, self.network.boots[node]);
            for (key, record) in machine.records() {
                let is_replica = self.ring.is_replica(node_id(node), key.slot());
                let counts = record.counters().any(|cell| cell.actor == own && cell.base >= record.base());
                let is_delegated = self.delegated.contains(&record.newest_version());
                assert!(is_replica || counts || is_delegated, "node {node} keeps {record:?}");
            }
        }
    }

    fn run_for(&mut self, micros: u64) {
        let end = self.network.now + micros;
        while self.network.now < end {
            self.step();
        }
    }

    /// Runs until operation `tag` has ended.
    fn outcome_of(&mut self, tag: u64) -> Outcome {
        let end = self.network.now + 2_000_000;
        while self.network.now < end {
            if let Some(outcome) = self.outcomes.remove(&tag) {
                return outcome;
            }
            self.step();
        }
        panic!("operation {tag} of a healed cluster never ended");
    }

    pub(super) fn check_end(&mut self) {
        assert!(self.waiting.is_empty(), "operations that never ended: {:?}", self.waiting);
        for (node, machine) in self.machines.iter().enumerate() {
            assert_eq!(machine.held_locks(), 0, "node {node} holds a lock");
        }
        for (worker, thread) in &self.workers {
            assert_eq!(thread.core.in_flight(), 0, "operations left over on {worker:?}");
        }
        let (_, crashes, _) = self.plan;
        if !crashes && self.network_was_reliable {
            self.check_replicas();
            self.check_foreign_rows();
        }
        let mut live = Vec::new();
        for key in 0..KEYS {
            let at = Worker { node: key % self.plan.0, worker: 0 };
            // First what a client sees, then what any replica holds: a write that failed may be on one of them.
            for action in [Action::Get, Action::GetAll] {
                let tag = self.invoke(CLIENTS, at, key, action);
                let outcome = self.outcome_of(tag);
                let Outcome::Record(record) = outcome else { panic!("a healed cluster failed: {outcome:?}") };
                self.checker.final_read(key, &record, action == Action::GetAll);
                if action == Action::GetAll && record.view(self.network.now(0).wall).is_some() {
                    live.push(format!("key-{key}").into_bytes());
                }
            }
        }
        self.check_agreement();
        self.check_scan(live);
    }

    /// After reads at ALL every replica shows the same.
    fn check_agreement(&self) {
        for key in 0..KEYS {
            let name = format!("key-{key}");
            let key = KeyRef::new(0, name.as_bytes());
            let replicas = self.ring.replicas(key.slot()).iter();
            let digests: Vec<u64> =
                replicas.map(|replica| self.machines[replica.0 as usize - 1].read(key).digest()).collect();
            assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{name}: {digests:?}");
        }
    }

    /// A scan in small pages finds every live key once.
    fn check_scan(&mut self, mut live: Vec<Vec<u8>>) {
        let (mut from, mut found) = (Some(0), Vec::new());
        while let Some(prefix) = from {
            let tag = self.await_tag(CLIENTS, 0);
            let at = Worker { node: 0, worker: 1 % WORKERS };
            self.with(at, |core, shell, now| core.scan(shell, now, tag, 0, prefix, PREFIX_END, 3, ALL));
            let outcome = self.outcome_of(tag.0);
            let Outcome::Scanned { entries, next } = outcome else { panic!("a scan failed: {outcome:?}") };
            let wall = self.network.now(0).wall;
            found.extend(
                entries.into_iter().filter(|(_, record)| record.view(wall).is_some()).map(|(key, _)| key),
            );
            from = next;
        }
        live.sort();
        found.sort();
        assert_eq!(found, live, "a scan finds every live key exactly once");
    }
}

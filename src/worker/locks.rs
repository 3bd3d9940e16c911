//! Per-key serialisation of read-modify-writes on this node, across its workers.
//!
//! A key is a 64-bit hash; two keys of one hash wait for each other needlessly but harmlessly. The table is striped:
//! a lock or unlock holds one short mutex, which two workers rarely want at once.

use std::collections::VecDeque;

use gyre_cluster::coordinator::OpId;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::Mutex;

const STRIPES: usize = 256;

/// An operation that waits for a key: which worker's coordinator it belongs to, and its id there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The index of the worker.
    pub worker: usize,
    /// The operation.
    pub op: OpId,
}

/// The keys locked on this node, each with the operations that wait for it, first come first served.
pub struct KeyLocks {
    stripes: Vec<Mutex<HashTable<Held>>>,
}

/// A locked key. Its hash is also its place in the table.
struct Held {
    key_hash: u64,
    waiters: VecDeque<Waiter>,
}

impl Default for KeyLocks {
    fn default() -> Self {
        KeyLocks { stripes: (0..STRIPES).map(|_| Mutex::default()).collect() }
    }
}

impl KeyLocks {
    /// Takes the lock of `key_hash`, or queues `waiter` for it and answers `false`.
    pub fn lock(&self, key_hash: u64, waiter: Waiter) -> bool {
        let Some(stripe) = self.stripe(key_hash) else { return true };
        let mut stripe = stripe.lock();
        match stripe.entry(key_hash, |held| held.key_hash == key_hash, |held| held.key_hash) {
            Entry::Vacant(free) => {
                free.insert(Held { key_hash, waiters: VecDeque::new() });
                true
            }
            Entry::Occupied(mut held) => {
                held.get_mut().waiters.push_back(waiter);
                false
            }
        }
    }

    /// Gives the lock of `key_hash` up, to the waiter that is returned if there is one.
    pub fn unlock(&self, key_hash: u64) -> Option<Waiter> {
        let mut stripe = self.stripe(key_hash)?.lock();
        let mut held = stripe.find_entry(key_hash, |held| held.key_hash == key_hash).ok()?;
        let next = held.get_mut().waiters.pop_front();
        if next.is_none() {
            held.remove();
        }
        next
    }

    fn stripe(&self, key_hash: u64) -> Option<&Mutex<HashTable<Held>>> {
        self.stripes.get((key_hash >> 32) as usize % STRIPES)
    }
}

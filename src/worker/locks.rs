//! Per-key serialisation of read-modify-writes on this node, across its workers.
//!
//! A key is a 64-bit hash; two keys of one hash wait for each other needlessly but harmlessly. The table is striped:
//! a lock or unlock holds one short mutex, which two workers rarely want at once.

use std::collections::VecDeque;

use gyre_cluster::coordinator::OpId;
use parking_lot::Mutex;
use smallvec::SmallVec;

/// As many as operations are usually under way: a stripe then holds one key or none.
const STRIPES: usize = 1024;

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
    stripes: Box<[Mutex<Stripe>]>,
}

/// The locked keys of a stripe, the first of them in place: with its mutex a stripe is one cache line.
type Stripe = SmallVec<[Held; 1]>;

/// A locked key.
struct Held {
    key_hash: u64,
    waiters: VecDeque<Waiter>,
}

impl Default for KeyLocks {
    fn default() -> Self {
        KeyLocks { stripes: std::iter::repeat_with(Mutex::default).take(STRIPES).collect() }
    }
}

impl KeyLocks {
    /// Takes the lock of `key_hash`, or queues `waiter` for it and answers `false`.
    pub fn lock(&self, key_hash: u64, waiter: Waiter) -> bool {
        let Some(stripe) = self.stripe(key_hash) else { return true };
        let mut stripe = stripe.lock();
        match stripe.iter_mut().find(|held| held.key_hash == key_hash) {
            Some(held) => {
                held.waiters.push_back(waiter);
                false
            }
            None => {
                stripe.push(Held { key_hash, waiters: VecDeque::new() });
                true
            }
        }
    }

    /// Gives the lock of `key_hash` up, to the waiter that is returned if there is one.
    pub fn unlock(&self, key_hash: u64) -> Option<Waiter> {
        let mut stripe = self.stripe(key_hash)?.lock();
        let place = stripe.iter().position(|held| held.key_hash == key_hash)?;
        let next = stripe.get_mut(place).and_then(|held| held.waiters.pop_front());
        if next.is_none() {
            stripe.swap_remove(place);
        }
        next
    }

    fn stripe(&self, key_hash: u64) -> Option<&Mutex<Stripe>> {
        self.stripes.get((key_hash >> 32) as usize % STRIPES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(worker: usize) -> Waiter {
        Waiter { worker, op: OpId::default() }
    }

    #[test]
    fn waiters_get_the_lock_in_the_order_they_came() {
        let locks = KeyLocks::default();
        assert!(locks.lock(7, waiter(0)));
        assert!(!locks.lock(7, waiter(1)) && !locks.lock(7, waiter(2)));
        assert_eq!(locks.unlock(7), Some(waiter(1)));
        assert!(!locks.lock(7, waiter(3)), "it has passed on, not become free");
        assert_eq!(
            [locks.unlock(7), locks.unlock(7), locks.unlock(7)],
            [Some(waiter(2)), Some(waiter(3)), None]
        );
        assert!(locks.lock(7, waiter(4)), "free again");
    }

    #[test]
    fn keys_of_one_stripe_do_not_wait_for_each_other() {
        let locks = KeyLocks::default();
        // All in stripe 0.
        assert!((0..5).all(|key| locks.lock(key, waiter(0))));
        assert!(!locks.lock(3, waiter(1)));
        assert_eq!([locks.unlock(0), locks.unlock(4), locks.unlock(1)], [None; 3]);
        assert_eq!(locks.unlock(3), Some(waiter(1)));
        assert!(locks.lock(0, waiter(2)) && !locks.lock(2, waiter(2)));
    }
}

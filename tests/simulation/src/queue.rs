//! Virtual time: a queue of what happens when, and a hash over everything that has happened.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::random::mix;

/// Microseconds since the world began.
pub(crate) type Micros = u64;

/// One millisecond.
pub(crate) const MS: Micros = 1_000;
/// One second.
pub(crate) const SECOND: Micros = 1_000 * MS;
/// One minute.
pub(crate) const MINUTE: Micros = 60 * SECOND;
/// One hour.
pub(crate) const HOUR: Micros = 60 * MINUTE;

/// Events in order of time; those of one moment in the order in which they were scheduled.
pub(crate) struct Queue<E> {
    now: Micros,
    sequence: u64,
    heap: BinaryHeap<Scheduled<E>>,
    hash: u64,
}

struct Scheduled<E> {
    at: Micros,
    sequence: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Queue<E> {
        Queue { now: 0, sequence: 0, heap: BinaryHeap::new(), hash: 0 }
    }

    /// The time of the event that was taken last.
    pub(crate) fn now(&self) -> Micros {
        self.now
    }

    /// Lets `event` happen `delay` from now.
    pub(crate) fn after(&mut self, delay: Micros, event: E) {
        self.at(self.now.saturating_add(delay), event);
    }

    /// Lets `event` happen at `at`, or now if that has passed.
    pub(crate) fn at(&mut self, at: Micros, event: E) {
        self.sequence += 1;
        self.heap.push(Scheduled { at: at.max(self.now), sequence: self.sequence, event });
    }

    /// The next event, unless it comes after `end`: then time goes on to `end`.
    pub(crate) fn next_until(&mut self, end: Micros) -> Option<E> {
        if self.heap.peek().is_none_or(|next| next.at > end) {
            self.now = self.now.max(end);
            return None;
        }
        let Scheduled { at, sequence, event } = self.heap.pop()?;
        self.now = at;
        self.fold(at);
        self.fold(sequence);
        Some(event)
    }

    /// Adds `word` to the hash of what has happened.
    pub(crate) fn fold(&mut self, word: u64) {
        self.hash = mix(self.hash.rotate_left(7) ^ word);
    }

    /// Adds `bytes` to the hash of what has happened.
    pub(crate) fn fold_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
        self.fold(bytes.len() as u64);
    }

    /// The hash of everything that has happened: two runs of one seed have the same.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl<E> Eq for Scheduled<E> {}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Scheduled<E> {
    /// The earlier is the greater, since the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_by_order_of_scheduling() {
        let mut queue = Queue::new();
        for (at, name) in [(30, 'c'), (10, 'a'), (30, 'd'), (20, 'b')] {
            queue.at(at, name);
        }
        let order: String = std::iter::from_fn(|| queue.next_until(25)).collect();
        assert_eq!((order.as_str(), queue.now()), ("ab", 25));
        queue.at(1, 'x');
        let order: String = std::iter::from_fn(|| queue.next_until(100)).collect();
        assert_eq!((order.as_str(), queue.now()), ("xcd", 100));
    }

    #[test]
    fn the_hash_tells_histories_apart() {
        let run = |times: [u64; 2], bytes: &[u8]| {
            let mut queue = Queue::new();
            times.iter().for_each(|&at| queue.at(at, ()));
            while queue.next_until(100).is_some() {}
            queue.fold_bytes(bytes);
            queue.hash()
        };
        assert_eq!(run([1, 2], b"abcdefghi"), run([1, 2], b"abcdefghi"));
        assert_ne!(run([1, 2], b"abcdefghi"), run([1, 3], b"abcdefghi"));
        assert_ne!(run([1, 2], b"abcdefghi"), run([1, 2], b"abcdefgh"));
    }
}

//! When operations are due.

use std::collections::VecDeque;

use super::shell::OpId;
use crate::time::MonoMicros;

/// What happens to an operation when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// It has waited long enough for its first replicas: another may be asked.
    Hurry,
    /// It is over.
    Deadline,
}

/// One queue per delay. Within a queue times only grow (the delay is constant, or changes so slowly that being a
/// little late does not matter), so that setting an alarm and taking the due ones are both O(1).
#[derive(Debug, Default)]
pub(crate) struct Timers {
    hurries: VecDeque<(MonoMicros, OpId)>,
    /// Reads, writes, read-modify-writes run here, clocks read for FLUSHDB.
    requests: VecDeque<(MonoMicros, OpId)>,
    /// Read-modify-writes on another node: a little slower than those here.
    forwards: VecDeque<(MonoMicros, OpId)>,
    /// Pages of scans, horizons of FLUSHDB.
    scans: VecDeque<(MonoMicros, OpId)>,
}

impl Timers {
    pub(crate) fn hurry(&mut self, at: MonoMicros, op: OpId) {
        self.hurries.push_back((at, op));
    }

    pub(crate) fn request(&mut self, at: MonoMicros, op: OpId) {
        self.requests.push_back((at, op));
    }

    pub(crate) fn forward(&mut self, at: MonoMicros, op: OpId) {
        self.forwards.push_back((at, op));
    }

    pub(crate) fn scan(&mut self, at: MonoMicros, op: OpId) {
        self.scans.push_back((at, op));
    }

    /// Takes the next alarm that is due at `now`, dropping those of operations that are no longer `alive`.
    pub(crate) fn pop_due(&mut self, now: MonoMicros, alive: impl Fn(OpId) -> bool) -> Option<(OpId, Alarm)> {
        for (queue, alarm) in [
            (&mut self.hurries, Alarm::Hurry),
            (&mut self.requests, Alarm::Deadline),
            (&mut self.forwards, Alarm::Deadline),
            (&mut self.scans, Alarm::Deadline),
        ] {
            while let Some(&(at, op)) = queue.front() {
                let is_alive = alive(op);
                if is_alive && at > now {
                    break;
                }
                queue.pop_front();
                if is_alive {
                    return Some((op, alarm));
                }
            }
        }
        None
    }

    /// When the next alarm is due, as far as known: the alarm of an operation that has ended may still be counted.
    pub(crate) fn next(&self) -> Option<MonoMicros> {
        [&self.hurries, &self.requests, &self.forwards, &self.scans]
            .into_iter()
            .filter_map(|queue| queue.front().map(|&(at, _)| at))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(index: u32) -> OpId {
        OpId { index, generation: 1 }
    }

    #[test]
    fn alarms_come_when_due_and_only_of_the_living() {
        let mut timers = Timers::default();
        for index in 0..4 {
            timers.request(MonoMicros(100 + u64::from(index)), op(index));
        }
        timers.hurry(MonoMicros(50), op(3));
        assert_eq!(timers.next(), Some(MonoMicros(50)));
        let alive = |id: OpId| id.index != 1;
        assert_eq!(timers.pop_due(MonoMicros(49), alive), None);
        assert_eq!(timers.pop_due(MonoMicros(102), alive), Some((op(3), Alarm::Hurry)));
        assert_eq!(timers.pop_due(MonoMicros(102), alive), Some((op(0), Alarm::Deadline)));
        assert_eq!(timers.pop_due(MonoMicros(102), alive), Some((op(2), Alarm::Deadline)));
        assert_eq!(timers.pop_due(MonoMicros(102), alive), None);
        assert_eq!(timers.next(), Some(MonoMicros(103)));
    }

    #[test]
    fn dead_operations_in_front_are_cleared_before_their_time() {
        let mut timers = Timers::default();
        timers.request(MonoMicros(1_000), op(0));
        assert_eq!(timers.pop_due(MonoMicros(1), |_| false), None);
        assert_eq!(timers.next(), None);
    }
}

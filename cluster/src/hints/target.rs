//! One node that missed rows: what of its hints is being replayed.

use std::collections::VecDeque;
use std::time::Duration;

use gyre_storage::Hint;

use super::{Effect, Handed, TOKEN};
use crate::node::NodeId;
use crate::time::MonoMicros;

/// Records in flight to it.
const IN_FLIGHT_MAX: usize = 32;
/// How long a target is left alone after its first failure; doubled with each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How soon hints that had to be passed over are looked at again.
const PASSED_OVER_PAUSE: Duration = Duration::from_millis(200);
/// The span over which the rate is measured.
const RATE_SPAN: Duration = Duration::from_secs(1);

/// The state of one target.
#[derive(Debug)]
pub(super) struct Target {
    is_up: bool,
    down_since: MonoMicros,
    /// Whether the store was told to keep no hints for it.
    is_closed: bool,
    /// Hints there are, as the store says.
    keys: u64,
    queue: VecDeque<Hint>,
    /// Behind which hint the page in the queue began, and where the next one begins.
    page_after: Option<Hint>,
    next_after: Option<Hint>,
    is_reading: bool,
    in_flight: usize,
    /// Its own tokens.
    tokens: u64,
    /// Acknowledged, with hints to be removed.
    done: Vec<Handed>,
    is_dropping: bool,
    paused_until: MonoMicros,
    failures: u32,
    replayed: u64,
    measured_at: MonoMicros,
    measured: u64,
    rate: u64,
}

impl Target {
    pub(super) fn new(started: MonoMicros) -> Target {
        Target {
            is_up: false,
            down_since: started,
            is_closed: false,
            keys: 0,
            queue: VecDeque::new(),
            page_after: None,
            next_after: None,
            is_reading: false,
            in_flight: 0,
            tokens: 0,
            done: Vec::new(),
            is_dropping: false,
            paused_until: started,
            failures: 0,
            replayed: 0,
            measured_at: started,
            measured: 0,
            rate: 0,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn replayed(&self) -> u64 {
        self.replayed
    }

    /// Keys a second, lately.
    pub(super) fn rate(&self, now: MonoMicros) -> u64 {
        if now.since(self.measured_at) > RATE_SPAN * 2 { 0 } else { self.rate }
    }

    /// Whether something is to be done for it soon.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight > 0 || self.is_reading || self.is_dropping || (self.is_up && self.keys > 0)
    }

    /// A pause after failures goes on: a link that comes and goes is a failure each time.
    pub(super) fn set_up(&mut self) {
        self.is_up = true;
    }

    pub(super) fn set_down(&mut self, now: MonoMicros) {
        if self.is_up {
            self.is_up = false;
            self.down_since = now;
            self.give_page_back();
        }
    }

    /// Takes in how many hints there are, and measures the rate.
    pub(super) fn note(&mut self, now: MonoMicros, keys: u64) {
        self.keys = keys;
        let elapsed = now.micros_since(self.measured_at);
        if now.since(self.measured_at) >= RATE_SPAN {
            self.rate = (self.replayed - self.measured).saturating_mul(1_000_000) / elapsed.max(1);
            (self.measured_at, self.measured) = (now, self.replayed);
        }
    }

    /// Stops or resumes the keeping of hints.
    pub(super) fn close_or_open(
        &mut self,
        now: MonoMicros,
        window: Duration,
        node: NodeId,
        effects: &mut Vec<Effect>,
    ) {
        let is_gone = !self.is_up && now.since(self.down_since) >= window;
        if is_gone != self.is_closed {
            self.is_closed = is_gone;
            effects.push(if is_gone {
                Effect::Close { target: node }
            } else {
                Effect::Open { target: node }
            });
        }
    }

    /// Adds tokens, up to so many.
    pub(super) fn fill(&mut self, gained: u64, most: u64) {
        self.tokens = self.tokens.saturating_add(gained).min(most);
    }

    fn is_ready(&self, now: MonoMicros) -> bool {
        self.is_up && now >= self.paused_until
    }

    /// Asks for the next page once all of this one is acknowledged and removed.
    pub(super) fn read_on(&mut self, now: MonoMicros, node: NodeId, limit: usize, effects: &mut Vec<Effect>) {
        let is_through = self.queue.is_empty() && self.in_flight == 0 && self.done.is_empty();
        if self.keys == 0 || !self.is_ready(now) || !is_through || self.is_reading || self.is_dropping {
            return;
        }
        self.is_reading = true;
        self.page_after = self.next_after.clone();
        effects.push(Effect::ReadPage { target: node, after: self.page_after.clone(), limit });
    }

    pub(super) fn page(&mut self, now: MonoMicros, hints: Option<Vec<Hint>>, limit: usize) {
        self.is_reading = false;
        let Some(hints) = hints else { return self.pause(now) };
        // What came behind this page's place meanwhile is found by the next pass.
        self.next_after = hints.last().filter(|_| hints.len() >= limit).cloned();
        if hints.is_empty() && self.page_after.is_none() {
            self.paused_until = now + PAUSE_MIN;
        }
        if self.is_up {
            self.queue = hints.into();
        } else {
            self.next_after = self.page_after.clone();
        }
    }

    /// The next hint to replay. Those that may not go yet are passed over: a later pass finds them.
    pub(super) fn next(&mut self, now: MonoMicros, may_go: impl Fn(&Hint) -> bool) -> Option<Hint> {
        if !self.is_ready(now) || self.in_flight >= IN_FLIGHT_MAX || self.tokens < TOKEN {
            return None;
        }
        while let Some(hint) = self.queue.pop_front() {
            if may_go(&hint) {
                self.tokens -= TOKEN;
                self.in_flight += 1;
                return Some(hint);
            }
            if self.queue.is_empty() && self.in_flight == 0 {
                self.paused_until = now + PASSED_OVER_PAUSE;
            }
        }
        None
    }

    pub(super) fn handed(&mut self, now: MonoMicros, handed: Option<Handed>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match handed {
            Some(handed) => {
                self.failures = 0;
                self.replayed += 1;
                self.done.push(handed);
            }
            None => self.pause(now),
        }
    }

    /// Has hints removed: enough at a time, or the last ones of a page.
    pub(super) fn drop_on(&mut self, node: NodeId, enough: usize, effects: &mut Vec<Effect>) {
        let is_last = self.queue.is_empty() && self.in_flight == 0;
        if self.is_dropping || self.done.is_empty() || (self.done.len() < enough && !is_last) {
            return;
        }
        self.is_dropping = true;
        effects.push(Effect::Drop { target: node, handed: std::mem::take(&mut self.done) });
    }

    pub(super) fn dropped(&mut self) {
        self.is_dropping = false;
    }

    /// It has failed: leaves it alone for a while. Later its page is read again, without what it has acknowledged.
    fn pause(&mut self, now: MonoMicros) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        // Of a burst that fails only the first counts.
        if now >= self.paused_until {
            self.failures = self.failures.saturating_add(1);
            self.paused_until = now + pause;
        }
        self.give_page_back();
    }

    fn give_page_back(&mut self) {
        self.queue.clear();
        self.next_after = self.page_after.clone();
    }
}
